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

/// A message that a client acknowledged.
#[derive(Debug, Clone)]
pub struct Acked {
    /// Its id.
    pub id: String,
    /// When the client learned that it is settled: the acknowledgement was answered, or a later sync listed nothing.
    pub confirmed: Option<Instant>,
}

/// A message as it was offered, by a socket or a page.
#[derive(Debug, Clone)]
pub struct Offered {
    /// Its id.
    pub id: String,
    /// When the client began to connect, or to ask for the page.
    pub since: Instant,
}

/// What contradicts a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule, as [`crate::checker`] and [`crate::owners`] list them.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Everything.
#[derive(Debug, Default)]
pub struct Records {
    /// All sends.
    pub sends: Vec<Sent>,
    /// By agent and conversation, in the order of arrival, repeats included.
    pub seen: HashMap<(usize, String), Vec<Seen>>,
    /// By agent, in the order of its acknowledgements, repeats included.
    pub acked: HashMap<usize, Vec<Acked>>,
    /// By agent, in the order of arrival, repeats included.
    pub offered: HashMap<usize, Vec<Offered>>,
    /// All that was found wrong.
    pub violations: Vec<Violation>,
    /// Frames and rows that arrived, repeats included.
    pub arrivals: u64,
    /// Sockets that were opened.
    pub sockets: u64,
}

/// Shared by all clients.
#[derive(Debug, Default)]
pub struct History(Mutex<Records>);

impl Records {
    /// Whether each of these rules was broken.
    pub fn broke(&self, rules: &[String]) -> bool {
        rules.iter().all(|rule| self.violations.iter().any(|violation| violation.rule == rule))
    }
}

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

    /// A message was offered where a client began to connect or to ask at `since`.
    pub fn offered(&self, agent: usize, id: &str, since: Instant) {
        self.records().offered.entry(agent).or_default().push(Offered { id: id.to_owned(), since });
    }

    /// A client acknowledges a message; whether that arrived it does not know yet.
    pub fn acked(&self, agent: usize, id: &str) {
        self.records().acked.entry(agent).or_default().push(Acked { id: id.to_owned(), confirmed: None });
    }

    /// Acknowledgements of a client so far.
    pub fn acks(&self, agent: usize) -> usize {
        self.records().acked.get(&agent).map_or(0, Vec::len)
    }

    /// A client has learned that its first `acks` acknowledgements are settled.
    pub fn confirm(&self, agent: usize, acks: usize) {
        let (mut records, now) = (self.records(), Instant::now());
        let acked = records.acked.entry(agent).or_default().iter_mut().take(acks);
        acked.rev().take_while(|ack| ack.confirmed.is_none()).for_each(|ack| ack.confirmed = Some(now));
    }

    /// Something is wrong.
    pub fn violate(&self, rule: &'static str, what: String) {
        let violations = &mut self.records().violations;
        let violation = Violation { rule, what };
        if violations.len() < 50 {
            eprintln!("VIOLATION {violation}");
        }
        violations.push(violation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acked_before_is_confirmed() {
        let history = History::default();
        let confirmed = || history.records().acked[&7].iter().map(|ack| ack.confirmed).collect::<Vec<_>>();
        history.acked(7, "m1");
        let acks = history.acks(7);
        history.acked(7, "m2");
        history.confirm(7, acks);
        let first = confirmed()[0];
        assert!(first.is_some() && confirmed()[1].is_none(), "the second was acked after the question");
        history.confirm(7, history.acks(7));
        assert_eq!(confirmed()[0], first, "what was known stays known from then");
        assert!(confirmed()[1].is_some());
    }

    #[test]
    fn each_rule_that_is_expected_has_to_be_broken() {
        let history = History::default();
        history.violate("S2", "a gap".to_owned());
        let broke =
            |rules: &[&str]| history.records().broke(&rules.iter().map(|&rule| rule.into()).collect::<Vec<_>>());
        assert!(broke(&["S2"]) && !broke(&["S1"]) && !broke(&["S2", "O1"]));
    }
}
