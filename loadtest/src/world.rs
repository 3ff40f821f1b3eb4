//! What every scenario of a run shares: servers, agents, the ledger; and the few things that all of them do.
//!
//! O1  A send whose outcome is unknown is repeated with the same `client_msg_id`, as every official client does; its
//!     latency runs until the answer that counts.
//! O2  A refusal of the contract (4xx) is an outcome, not a failure of the run; what it was is reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::agents::Roster;
use crate::client::{Answer, Client};
use crate::error::LoadError;
use crate::ledger::{Audience, Lane, Ledger};
use crate::meter::{Clock, Count, Timing};
use crate::target::Fleet;
use crate::wire::{Message, Tag, send_body};

/// A send is repeated for this long.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// Where messages are sent.
const SENDS: &str = "/v1/messages";
/// First pause between two tries; it doubles up to 20 times this.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A fault on the receiving side, to see that the verdict sees it: at the n-th delivery of the run.
#[derive(Debug, Default)]
pub struct Inject {
    /// Forget it, although it is acknowledged.
    pub drop: Option<u64>,
    /// Take it twice.
    pub repeat: Option<u64>,
    /// Take it after the one that follows on the same connection.
    pub swap: Option<u64>,
    met: AtomicU64,
}

impl Inject {
    /// With the given faults.
    pub fn new(drop: Option<u64>, repeat: Option<u64>, swap: Option<u64>) -> Self {
        Self { drop, repeat, swap, met: AtomicU64::new(0) }
    }

    /// Number of the delivery that is met now; from 1.
    pub fn meet(&self) -> u64 {
        self.met.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What every scenario of a run shares.
pub struct World {
    /// The servers.
    pub fleet: Fleet,
    /// The agents.
    pub roster: Roster,
    /// What was sent and seen.
    pub ledger: Ledger,
    /// Time of the run.
    pub clock: Clock,
    /// Tells the messages of this run from those of others.
    pub run: u32,
    /// Decides every random choice.
    pub seed: u64,
    /// Opens the operator surface.
    pub operator_token: Option<String>,
    /// A connection may be shown a message again: shards move.
    pub redelivery_allowed: bool,
    /// Faults on purpose.
    pub inject: Inject,
    /// Processes of the servers, if they are on this machine and known.
    pub server_pids: Vec<u32>,
}

/// A message that is to go.
pub struct Outgoing<'a> {
    /// Number of the sender.
    pub sender: u64,
    /// `"to":"…"` or `"conversation_id":"…"`.
    pub target: String,
    /// Number of the recipient, or of the group.
    pub to: u64,
    /// Content.
    pub text: &'a str,
    /// When it was meant to go.
    pub intended_us: u64,
}

impl World {
    /// A connection to any of the servers.
    pub fn client(&self) -> Client {
        Client::new(self.fleet.any())
    }

    /// Sends one message to its end (O1, O2) and keeps the ledger. Whether it was acknowledged.
    pub async fn send(&self, lane: &Lane, client: &mut Client, message: Outgoing<'_>) -> Result<bool, LoadError> {
        let full = || LoadError::Usage("too many messages for one scenario: split it".to_owned());
        let index = lane.next().ok_or_else(full)?;
        let Outgoing { sender, target, to, text, intended_us } = message;
        let id = Tag { run: self.run, lane: lane.id(), index, to, at_us: intended_us }.encode();
        let body = send_body(&target, &id, text);
        let Some(answer) = self.patient(client, Method::POST, SENDS, sender, &body).await else {
            lane.unanswered(false);
            return Ok(false);
        };
        if !answer.status.is_success() {
            lane.unanswered(true);
            lane.meter().refused(answer.code());
            return Ok(false);
        }
        let stored: Message<'_> = answer.read()?;
        if stored.client_msg_id != id {
            return Err(LoadError::Answer(format!("asked to store {id}, stored {}", stored.client_msg_id)));
        }
        let skipped = stored.skipped_recipients.iter().filter_map(|handle| self.roster.number(handle));
        let own = matches!(lane.audience(), Audience::Group { .. }).then_some(sender);
        let excused = own.into_iter().chain(skipped).filter_map(|agent| lane.audience().place(to, agent));
        lane.acknowledged(index, stored.seq, excused);
        lane.meter().done(Timing::Send, intended_us);
        lane.meter().count(Count::Acknowledged);
        Ok(true)
    }

    /// The answer that counts, to a request that may be repeated; `None` if none came for long.
    pub async fn patient(
        &self,
        client: &mut Client,
        method: Method,
        path: &str,
        agent: u64,
        body: &str,
    ) -> Option<Answer> {
        let key = self.roster.key(agent);
        let (begun, mut pause) = (Instant::now(), RETRY_PAUSE);
        while begun.elapsed() < RETRY_FOR {
            match client.send(method.clone(), path, &key, body.to_owned()).await {
                Ok(answer) if answer.status.is_success() || is_final(answer.status) => return Some(answer),
                Ok(_) | Err(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE * 20);
            *client = self.client(); // perhaps another node answers
        }
        None
    }

    /// The same, for requests that have to succeed.
    pub async fn ask(
        &self,
        client: &mut Client,
        method: Method,
        path: &str,
        agent: u64,
        body: &str,
    ) -> Result<Answer, LoadError> {
        let answer = self.patient(client, method, path, agent, body).await;
        let answer = answer.ok_or_else(|| LoadError::answer("the servers do not answer"))?;
        if answer.status.is_success() { Ok(answer) } else { Err(no_agents(answer, &self.roster.handle(agent))) }
    }

    /// Lets `a` and `b` write to each other for good: one message each way. Safe to repeat.
    pub async fn establish(&self, client: &mut Client, a: u64, b: u64) -> Result<(), LoadError> {
        for (sender, recipient) in [(a, b), (b, a)] {
            let to = format!(r#""to":"{}""#, self.roster.handle(recipient));
            let body = send_body(&to, &format!("open-{sender}-{recipient}"), "hello");
            let answer = self.patient(client, Method::POST, SENDS, sender, &body).await;
            let answer = answer.ok_or_else(|| LoadError::answer("the servers do not answer"))?;
            // The other way round opens it as well.
            if !answer.status.is_success() && answer.code() != "AWAITING_REPLY" {
                return Err(no_agents(answer, &self.roster.handle(sender)));
            }
        }
        Ok(())
    }
}

/// An answer that will not change when the request is repeated.
fn is_final(status: StatusCode) -> bool {
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY];
    status.is_client_error() && !again.contains(&status)
}

/// Says what to do when agents are not there.
pub fn no_agents(answer: Answer, handle: &str) -> LoadError {
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => LoadError::Usage(format!(
            "agent {handle} does not exist, or has another key: run `provision` first, with the same prefix and seed"
        )),
        status => LoadError::Answer(format!("{handle}: {status} {}", String::from_utf8_lossy(&answer.body))),
    }
}

/// Does `count` things with `clients` connections, each once, in any order; ends with the first failure.
pub async fn each<J>(world: &Arc<World>, count: u64, clients: usize, job: J) -> Result<(), LoadError>
where
    J: Task,
{
    let (job, next) = (Arc::new(job), Arc::new(AtomicU64::new(0)));
    let mut workers: JoinSet<Result<(), LoadError>> = JoinSet::new();
    for _ in 0..clients.clamp(1, usize::try_from(count.max(1)).unwrap_or(usize::MAX)) {
        let (job, next, mut client) = (Arc::clone(&job), Arc::clone(&next), world.client());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                job.run(&mut client, number).await?;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.map_err(LoadError::answer)??;
    }
    Ok(())
}

/// One of many things to do.
pub trait Task: Send + Sync + 'static {
    /// Does number `n`.
    fn run(&self, client: &mut Client, n: u64) -> impl Future<Output = Result<(), LoadError>> + Send;
}
