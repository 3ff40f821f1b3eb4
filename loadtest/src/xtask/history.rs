//! What clients did and saw, as they saw it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One send of one client, with all its attempts.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Who.
    pub agent: usize,
    /// To whom; `None`: a group.
    pub to: Option<usize>,
    /// Its `client_msg_id`.
    pub key: String,
    /// First attempt.
    pub since: Instant,
    /// From there to the answer that ended it.
    pub took: Option<Duration>,
    /// Conversation, seq and id of a 2xx, or what a definite refusal said.
    pub outcome: Option<Result<(String, u64, String), String>>,
    /// Requests that it took.
    pub attempts: u32,
}

/// A message as a recipient saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its place.
    pub seq: u64,
    /// What its sender called it.
    pub key: String,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Records {
    /// All sends.
    pub sends: Vec<Sent>,
    /// By agent and conversation, in the order of arrival, repeats included.
    pub seen: HashMap<(usize, String), Vec<Seen>>,
    /// What contradicts the contract by itself.
    pub violations: Vec<String>,
    /// Frames and rows that arrived, repeats included.
    pub arrivals: u64,
    /// Sockets that were opened.
    pub sockets: u64,
}

/// Shared by all clients.
#[derive(Debug, Default)]
pub struct History(Mutex<Records>);

impl History {
    /// All of it.
    pub fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A send begins; its number.
    pub fn begin(&self, agent: usize, to: Option<usize>, key: &str) -> usize {
        let mut records = self.records();
        let since = Instant::now();
        records.sends.push(Sent { agent, to, key: key.to_owned(), since, took: None, outcome: None, attempts: 0 });
        records.sends.len() - 1
    }

    /// A request of a send goes out.
    pub fn attempt(&self, send: usize) {
        self.records().sends[send].attempts += 1;
    }

    /// A send is over.
    pub fn end(&self, send: usize, outcome: Result<(String, u64, String), String>) {
        let sent = &mut self.records().sends[send];
        (sent.took, sent.outcome) = (Some(sent.since.elapsed()), Some(outcome));
    }

    /// Sends without an end.
    pub fn open(&self) -> usize {
        self.records().sends.iter().filter(|sent| sent.outcome.is_none()).count()
    }

    /// Age of the oldest send that is not answered yet.
    pub fn oldest_open(&self) -> Duration {
        let records = self.records();
        let open = records.sends.iter().filter(|sent| sent.outcome.is_none());
        open.map(|sent| sent.since.elapsed()).max().unwrap_or_default()
    }

    /// A message arrived.
    pub fn saw(&self, agent: usize, conversation: &str, seq: u64, key: &str) {
        let mut records = self.records();
        records.arrivals += 1;
        let seen = records.seen.entry((agent, conversation.to_owned())).or_default();
        seen.push(Seen { seq, key: key.to_owned() });
    }

    /// Something was wrong.
    pub fn violated(&self) -> bool {
        !self.records().violations.is_empty()
    }

    /// Something is wrong.
    pub fn violate(&self, what: String) {
        let violations = &mut self.records().violations;
        if violations.len() < 50 {
            eprintln!("VIOLATION {what}");
        }
        violations.push(what);
    }
}
