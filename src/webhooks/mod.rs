//! Webhooks: what an agent's entity wants told, signed and delivered until it arrives or is given up.
//!
//! W1  Deliveries to one webhook go out one after the other, in the order in which they were offered; webhooks do not
//!     wait for each other.
//! W2  Every queue is bounded, every attempt has a deadline, and every attempt is signed anew.
//! W3  What waits here lives in memory: a message that a webhook did not get is still in its agent's inbox, and every
//!     agent drains that.

pub mod guard;
mod notice;
mod signature;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actors::api::Hook;
use actors::domain::Domain;
use actors::node::Hooks;
use rand::Rng;
use reqwest::redirect::Policy;
use schema::ids::{AgentId, WebhookId};
use schema::rows::{Pause, WebhookRow};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

pub use self::notice::Translator;
use crate::metrics::{WEBHOOK_ATTEMPTS, WEBHOOK_DEAD_LETTERS, WEBHOOK_DROPPED};

/// Notices that wait to be turned into deliveries.
const INTAKE: usize = 65_536;
/// Deliveries that wait for one webhook; newer ones are given up.
const QUEUE_MAX: usize = 1_000;
/// Webhooks with something to deliver; notices for others are given up.
const QUEUES_MAX: usize = 100_000;
/// Attempts under way together.
const ATTEMPTS_AT_ONCE: usize = 64;
/// An attempt ends within this; the contract's number.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
/// Pauses before the second and later attempts: six tries in about an hour.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(150),
    Duration::from_secs(600),
    Duration::from_secs(2_700),
];
/// Pauses vary by a fifth, so that endpoints that failed together are not called together.
const JITTER: f64 = 0.2;
/// An endpoint that only fails for this long is called no more; the contract's number.
const FAILING: Duration = Duration::from_secs(24 * 60 * 60);

/// One delivery.
#[derive(Debug, Clone)]
struct Job {
    event_id: String,
    body: Arc<str>,
}

/// How a pause before a further attempt is waited for; tests shorten it.
type Pauses = [Duration; 5];

/// Delivers. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    domain: Domain,
    allow_private: bool,
    pauses: Pauses,
    state: Mutex<State>,
    attempts: Semaphore,
}

/// What waits, and what has been failing since when.
#[derive(Default)]
struct State {
    queues: HashMap<WebhookId, VecDeque<Job>>,
    failing: HashMap<WebhookId, Instant>,
}

impl State {
    /// Takes the job that was worked on out of its queue; `true` when the endpoint has only failed for too long.
    fn done(&mut self, id: WebhookId, delivered: bool) -> bool {
        if let Some(jobs) = self.queues.get_mut(&id) {
            jobs.pop_front();
        }
        if delivered {
            self.failing.remove(&id);
        }
        let failing = self.failing.get(&id).is_some_and(|since| since.elapsed() >= FAILING);
        if failing {
            self.queues.remove(&id);
            self.failing.remove(&id);
        }
        failing
    }

    fn failed(&mut self, id: WebhookId) {
        if self.failing.len() < QUEUES_MAX {
            self.failing.entry(id).or_insert_with(Instant::now);
        }
    }
}

/// The intake that entities write to: bounded, never blocking.
#[derive(Debug, Clone)]
pub struct Intake(mpsc::Sender<Hook>);

impl Intake {
    /// An intake, and what has to be given to [`Dispatcher::start`].
    pub fn new() -> (Self, mpsc::Receiver<Hook>) {
        let (sender, receiver) = mpsc::channel(INTAKE);
        (Self(sender), receiver)
    }
}

impl Hooks for Intake {
    fn call(&self, hook: Hook) {
        if self.0.try_send(hook).is_err() {
            metrics::counter!(WEBHOOK_DROPPED).increment(1);
        }
    }
}

impl Dispatcher {
    /// Takes notices from `intake` until its other end is gone.
    pub fn start(domain: Domain, translator: Translator, allow_private: bool, intake: mpsc::Receiver<Hook>) -> Self {
        Self::with_pauses(domain, translator, allow_private, intake, PAUSES)
    }

    fn with_pauses(
        domain: Domain,
        translator: Translator,
        allow_private: bool,
        mut intake: mpsc::Receiver<Hook>,
        pauses: Pauses,
    ) -> Self {
        let shared = Shared {
            domain,
            allow_private,
            pauses,
            state: Mutex::default(),
            attempts: Semaphore::new(ATTEMPTS_AT_ONCE),
        };
        let this = Self { shared: Arc::new(shared) };
        let dispatcher = this.clone();
        tokio::spawn(async move {
            while let Some(hook) = intake.recv().await {
                let Some(body) = translator.body(&hook.notice).await else { continue };
                for target in hook.targets {
                    dispatcher.offer(hook.agent, target, Arc::clone(&body));
                }
            }
        });
        this
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a delivery into the queue of its webhook, and starts to work on the queue if nobody does.
    fn offer(&self, agent: AgentId, target: WebhookRow, body: Arc<str>) {
        let job = Job { event_id: event_id(), body };
        let mut state = self.state();
        let count = state.queues.len();
        match state.queues.get_mut(&target.id) {
            Some(jobs) if jobs.len() < QUEUE_MAX => jobs.push_back(job),
            None if count < QUEUES_MAX => {
                state.queues.insert(target.id, VecDeque::from([job]));
                tokio::spawn(self.clone().work(agent, target));
            }
            _ => metrics::counter!(WEBHOOK_DROPPED).increment(1),
        }
    }

    /// Drops what waits for a webhook that is gone.
    pub fn forget(&self, id: WebhookId) {
        let mut state = self.state();
        state.queues.remove(&id);
        state.failing.remove(&id);
    }

    /// Delivers the queue of one webhook to its end (W1).
    async fn work(self, agent: AgentId, target: WebhookRow) {
        loop {
            let Some(job) = self.next_job(target.id) else { return };
            let delivered = self.deliver(agent, &target, &job).await;
            if !delivered {
                metrics::counter!(WEBHOOK_DEAD_LETTERS).increment(1);
            }
            let failing = self.state().done(target.id, delivered);
            if failing {
                return self.shared.domain.webhook_failing(agent, target.id);
            }
        }
    }

    /// The first job, left in its queue; an empty queue goes.
    fn next_job(&self, id: WebhookId) -> Option<Job> {
        let mut state = self.state();
        let job = state.queues.get(&id)?.front().cloned();
        if job.is_none() {
            state.queues.remove(&id);
        }
        job
    }

    /// An owner may silence the agent while something waits here: what would be told then is in the inbox.
    async fn silenced(&self, agent: AgentId) -> bool {
        let row = self.shared.domain.store().agent(agent).await;
        row.is_ok_and(|row| row.is_some_and(|row| row.paused == Pause::Full))
    }

    async fn deliver(&self, agent: AgentId, target: &WebhookRow, job: &Job) -> bool {
        let mut pauses = self.shared.pauses.iter();
        loop {
            if self.silenced(agent).await {
                return false;
            }
            if self.attempt(target, job).await {
                return true;
            }
            self.state().failed(target.id);
            let Some(pause) = pauses.next() else { return false };
            let varied = pause.mul_f64(1.0 + rand::rng().random_range(-JITTER..JITTER));
            tokio::time::sleep(varied).await;
            if !self.state().queues.contains_key(&target.id) {
                return false;
            }
        }
    }

    async fn attempt(&self, target: &WebhookRow, job: &Job) -> bool {
        let Ok(_permit) = self.shared.attempts.acquire().await else { return false };
        let outcome = tokio::time::timeout(ATTEMPT_DEADLINE, post(target, job, self.shared.allow_private)).await;
        let (delivered, label) = match outcome {
            Ok(Ok(())) => (true, "delivered"),
            Ok(Err(label)) => (false, label),
            Err(_) => (false, "timeout"),
        };
        metrics::counter!(WEBHOOK_ATTEMPTS, "outcome" => label).increment(1);
        delivered
    }
}

/// One signed POST to an address that was judged a moment ago.
async fn post(target: &WebhookRow, job: &Job, allow_private: bool) -> Result<(), &'static str> {
    let url = guard::check_url(&target.url, allow_private).map_err(|_| "refused")?;
    let addresses = guard::resolve(&url, allow_private).await.map_err(|_| "refused")?;
    let mut client = reqwest::Client::builder().redirect(Policy::none()).no_proxy();
    if let Some(name) = url.domain() {
        client = client.resolve_to_addrs(name, &addresses);
    }
    let client = client.build().map_err(|_| "client")?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("user-agent", "agentchat-webhooks/1")
        .header("agentchat-event-id", &job.event_id)
        .header("agentchat-signature", signature::header(&target.secret, at, job.body.as_bytes()))
        .body(job.body.to_string());
    match request.send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(_) => Err("status"),
        Err(_) => Err("connection"),
    }
}

fn event_id() -> String {
    let entropy: [u8; 16] = rand::rng().random();
    format!("evt_{}", hex::encode(entropy))
}
