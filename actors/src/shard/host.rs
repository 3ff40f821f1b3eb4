//! The ractor actor that hosts one shard, and what it shares with the rest of the node.
//!
//! N1  Commits of one step are handed to the store together and in order; their outcomes come back as one message.
//! N2  A panic in a step ends this shard only; the supervisor starts it again, and entities reload what is durable.
//! N3  A shard that is started again reads nothing before every batch of the one that failed is settled, or an old batch
//!     could overwrite what the new one assigned. Sockets of its agents are closed: nobody would feed them any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster::region::{Mailbox, Region};
use cluster::shard::ShardId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::rows::Timestamp;
use schema::store::{Store, StoreError, commit};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::{Outbox, Shard, ShardEvent, reads};
use crate::api::{CloseReason, Hook, Refusal, SessionId, ToSession};
use crate::effects::{EntityId, Event, Port, Read, Reply};
use crate::limits::Limits;

/// First and longest pause between attempts of a read that failed.
const READ_RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Requests that wait for an answer.
#[derive(Debug, Default)]
pub struct Ports {
    next: AtomicU64,
    waiting: Mutex<HashMap<Port, oneshot::Sender<Result<Reply, Refusal>>>>,
}

impl Ports {
    /// A new port and where its answer arrives.
    pub fn open(&self) -> (Port, oneshot::Receiver<Result<Reply, Refusal>>) {
        let port = Port(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(port, sender);
        (port, receiver)
    }

    /// Forgets a port whose deadline passed.
    pub fn close(&self, port: Port) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
    }

    fn answer(&self, port: Port, reply: Result<Reply, Refusal>) {
        let sender = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
        if let Some(sender) = sender {
            let _ = sender.send(reply); // the request may have been dropped with its connection
        }
    }
}

/// Sockets of this node.
#[derive(Debug, Default)]
pub struct Sessions {
    next: AtomicU64,
    queues: Mutex<HashMap<SessionId, (ShardId, mpsc::Sender<ToSession>)>>,
}

impl Sessions {
    /// A new session of an agent on `shard`, whose queue holds `capacity` frames.
    pub fn open(&self, shard: ShardId, capacity: usize) -> (SessionId, mpsc::Receiver<ToSession>) {
        let session = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = mpsc::channel(capacity);
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).insert(session, (shard, sender));
        (session, receiver)
    }

    /// Drops the queue; its socket sees the end of the stream.
    pub fn close(&self, session: SessionId) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }

    fn push(&self, session: SessionId, frame: ToSession) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, queue)) = queues.get(&session) else { return };
        let droppable = !matches!(frame, ToSession::Message { .. } | ToSession::Close(_));
        // A message is never dropped from a live socket: the socket goes, and the client drains when it is back.
        if queue.try_send(frame).is_err() && !droppable {
            queues.remove(&session);
        }
    }

    /// Ends every socket of this node.
    pub fn close_all(&self, reason: CloseReason) {
        self.close_where(|_| true, reason);
    }

    /// Ends the sockets of a shard that lost its memory, and with it who they belong to.
    fn close_shard(&self, shard: ShardId, reason: CloseReason) {
        self.close_where(|of| of == shard, reason);
    }

    fn close_where(&self, ends: impl Fn(ShardId) -> bool, reason: CloseReason) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, (_, queue)) in queues.extract_if(|_, (shard, _)| ends(*shard)) {
            let _ = queue.try_send(ToSession::Close(reason)); // a full queue ends with the stream
        }
    }
}

/// What every shard of a node shares.
pub struct Node {
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Way to every entity.
    pub region: Region<ShardEvent>,
    /// Pending requests.
    pub ports: Ports,
    /// Sockets.
    pub sessions: Sessions,
    /// Numbers.
    pub limits: Limits,
    /// Who calls webhooks.
    pub hooks: Arc<dyn Hooks>,
}

/// Calls webhooks; lives in the gateway, which knows JSON and HTTP.
pub trait Hooks: Send + Sync + 'static {
    /// Takes a notice for delivery. Never blocks.
    fn call(&self, hook: Hook);
}

/// Calls nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn call(&self, _: Hook) {}
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Node {
    /// Hands an event to the shard of its entity. A missing shard is restarting: what matters is asked for again.
    pub fn tell(&self, event: Event) {
        let shard = self.region.shard_of(event.to().key());
        if self.region.post(shard, ShardEvent::Entity(event)).is_err() {
            metrics::counter!("agentchat_events_without_shard_total").increment(1);
        }
    }
}

/// The time that entities see.
pub fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

struct ShardMailbox(ActorRef<ShardEvent>);

impl Mailbox<ShardEvent> for ShardMailbox {
    fn post(&self, message: ShardEvent) -> Result<(), ShardEvent> {
        self.0.cast(message).map_err(|failure| match failure {
            ractor::MessagingErr::SendErr(message) => message,
            _ => ShardEvent::Tick,
        })
    }
}

/// Hosts one shard.
#[derive(Debug)]
pub struct ShardHost;

/// Whether a shard of this number ran before in this process (N3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It did not.
    First,
    /// It did, and failed.
    Again,
}

/// Waits until everything submitted so far has its outcome: engines with one writer answer in order of submission. (One
/// with several writers has to fence the old batches by a new epoch instead.)
async fn settled(store: &dyn Store) {
    // Whatever the answer: nothing was written, what counts is that it came.
    let _ = commit(store, Vec::new()).await;
}

/// One host's memory.
#[derive(Debug)]
pub struct HostState {
    id: ShardId,
    node: Arc<Node>,
    shard: Shard,
    timer_at: Option<Timestamp>,
}

impl Actor for ShardHost {
    type Msg = ShardEvent;
    type State = HostState;
    type Arguments = (ShardId, Arc<Node>, Start);

    async fn pre_start(
        &self,
        myself: ActorRef<ShardEvent>,
        (id, node, start): Self::Arguments,
    ) -> Result<HostState, ActorProcessingErr> {
        if start == Start::Again {
            node.region.install(id, None);
            node.sessions.close_shard(id, CloseReason::Restart);
            settled(node.store.as_ref()).await;
        }
        node.region.install(id, Some(Arc::new(ShardMailbox(myself))));
        let shard = Shard::new(node.limits);
        Ok(HostState { id, node, shard, timer_at: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<ShardEvent>,
        message: ShardEvent,
        state: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        let now = wall_clock();
        if matches!(message, ShardEvent::Tick) {
            state.timer_at = None;
        }
        let mut out = Outbox::default();
        state.shard.step(now, message, &mut out);
        carry_out(&myself, state, out);
        if let Some(at) = state.shard.next_wake().filter(|at| state.timer_at.is_none_or(|timer| *at < timer)) {
            state.timer_at = Some(at);
            myself.send_after(Duration::from_millis(at.ms_since(now).max(1)), || ShardEvent::Tick);
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<ShardEvent>, state: &mut HostState) -> Result<(), ActorProcessingErr> {
        state.node.region.install(state.id, None);
        Ok(())
    }
}

fn carry_out(myself: &ActorRef<ShardEvent>, state: &HostState, out: Outbox) {
    let node = &state.node;
    if !out.commits.is_empty() {
        let (ids, batches): (Vec<EntityId>, Vec<_>) = out.commits.into_iter().unzip();
        let myself = myself.clone();
        let done = Box::new(move |outcomes: Vec<Result<(), StoreError>>| {
            if let Some(Err(error)) = outcomes.iter().find(|outcome| outcome.is_err()) {
                warn!(%error, "a batch was not stored");
            }
            // A shard that is gone lost its memory with it; what was stored is read again.
            let _ = myself.cast(ShardEvent::Stored(ids.into_iter().zip(outcomes).collect()));
        });
        node.store.submit(batches, done);
    }
    for (port, reply) in out.replies {
        node.ports.answer(port, reply);
    }
    for (session, frame) in out.pushes {
        node.sessions.push(session, frame);
    }
    for hook in out.hooks {
        node.hooks.call(hook);
    }
    for event in out.tells {
        node.tell(event);
    }
    for (id, read) in out.reads {
        tokio::spawn(run_read(myself.clone(), Arc::clone(node), id, read));
    }
}

/// Reads until it works: an entity that waits for its state can do nothing else, and its requests have deadlines.
async fn run_read(shard: ActorRef<ShardEvent>, node: Arc<Node>, id: EntityId, read: Read) {
    let mut pause = READ_RETRY.0;
    loop {
        match reads::run(node.store.as_ref(), read.clone()).await {
            Ok(found) => {
                let _ = shard.cast(ShardEvent::Found(id, found));
                return;
            }
            Err(StoreError::Corrupt(what)) => {
                error!(?id, what, "stored state does not decode; this entity stays closed");
                return;
            }
            Err(error) => {
                warn!(?id, %error, "a read failed and is repeated");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(READ_RETRY.1);
                if shard.get_status() == ractor::ActorStatus::Stopped {
                    return;
                }
            }
        }
    }
}
