//! The ractor actor that hosts one shard under one epoch.
//!
//! N1  What waits is stepped in batches. Commits of one batch are handed to the store together and in order; their
//!     outcomes come back as one message.
//! N2  A panic in a step ends this shard only; the supervisor starts it again, and entities reload what is durable.
//! N3  A shard that is started again reads nothing before every batch of the one that failed is settled, or an old batch
//!     could overwrite what the new one assigned. In a cluster its next owner settles them under a new epoch.
//! N4  A shard begins no batch once its epoch has ended, nor while its node's lease has lapsed: requests that wait for it
//!     are given back. A lapse alone ends no shard, or one slow moment of the store would have every node take all it has
//!     once more, and keep the store slow.
//! N5  A shard that leaves goes on until nothing is under way in it, but takes no new requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster::region::{Load, Mailbox};
use cluster::shard::ShardId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::rows::Timestamp;
use schema::store::{Fence, Store, StoreError, commit};
use tracing::{error, warn};

use super::queue::Queue;
use super::{Outbox, Shard, ShardEvent, reads};
use crate::api::CloseReason;
use crate::effects::{EntityId, Read};
use crate::node::Node;

/// First and longest pause between attempts of a read that failed.
const READ_RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// What comes while the lease has lapsed is looked at again after this.
const POSTPONED: Duration = Duration::from_millis(100);

/// Most events of a batch: their effects wait for its end, and its commits are one hand-over to the store.
const BATCH_MAX: usize = 128;

/// Batches in a row, before other tasks of the runtime have their turn.
const BATCHES_MAX: usize = 8;

/// The time that entities see.
pub fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// What a host is told.
#[derive(Debug)]
pub enum ToHost {
    /// Something waits in its queue.
    Wake,
    /// A time that it asked for has come.
    Step(ShardEvent),
    /// Come to rest and stop (N5).
    Leave,
}

impl ractor::Message for ToHost {}

/// The way into one shard, for whoever tells it something and for what it waits for itself.
#[derive(Debug)]
struct Door {
    queue: Queue<ShardEvent>,
    actor: ActorRef<ToHost>,
    resident: AtomicUsize,
}

impl Mailbox<ShardEvent> for Door {
    fn post(&self, message: ShardEvent) -> Result<(), ShardEvent> {
        self.queue.put(message, || self.actor.cast(ToHost::Wake).is_ok())
    }

    fn load(&self) -> Load {
        Load { waiting: self.queue.len(), resident: self.resident.load(Ordering::Relaxed) }
    }
}

/// Hosts one shard.
#[derive(Debug)]
pub struct ShardHost;

/// Whether a shard of this number and epoch ran before in this process (N3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It did not.
    First,
    /// It did, and failed.
    Again,
}

/// Waits until everything submitted so far has its outcome: an engine with one writer answers in order of submission.
async fn settled(store: &dyn Store) {
    // Whatever the answer: nothing was written, what counts is that it came.
    let _ = commit(store, Vec::new()).await;
}

/// One host's memory.
#[derive(Debug)]
pub struct HostState {
    fence: Fence,
    node: Arc<Node>,
    shard: Shard,
    timer_at: Option<Timestamp>,
    leaving: bool,
    door: Arc<Door>,
    /// Taken from the queue and not stepped yet.
    batch: VecDeque<ShardEvent>,
}

impl Drop for HostState {
    /// However the shard ended: requests that it did not come to go back (N4). Nobody waits for anything else.
    fn drop(&mut self) {
        self.door.queue.close();
        self.door.queue.take(&mut self.batch, usize::MAX);
        for event in self.batch.drain(..) {
            if let ShardEvent::Entity(event) = event {
                self.node.give_back(Box::new(event));
            }
        }
    }
}

impl HostState {
    fn id(&self) -> ShardId {
        ShardId(self.fence.shard)
    }

    /// Nothing new comes in, what waits goes back, and then the shard ends; its member sees whether it has to come back.
    fn end(&self, myself: &ActorRef<ToHost>) {
        self.node.region.remove(self.id(), self.fence.epoch);
        self.node.routes.touch();
        myself.stop(None);
        if let Some(failures) = &self.node.failures {
            failures.wake();
        }
    }

    /// Its epoch has not ended; else it ends (N4).
    fn holds(&self, myself: &ActorRef<ToHost>) -> bool {
        let holds = self.node.held.epoch(self.id()) == self.fence.epoch;
        if !holds {
            self.end(myself);
        }
        holds
    }
}

impl Actor for ShardHost {
    type Msg = ToHost;
    type State = HostState;
    type Arguments = (Fence, Arc<Node>, Start);

    async fn pre_start(
        &self,
        myself: ActorRef<ToHost>,
        (fence, node, start): Self::Arguments,
    ) -> Result<HostState, ActorProcessingErr> {
        let id = ShardId(fence.shard);
        if start == Start::Again {
            // Nobody would feed them any more.
            node.sessions.close_shard(id, CloseReason::Restart);
            settled(node.store.as_ref()).await;
        }
        let door = Arc::new(Door { queue: Queue::new(), actor: myself, resident: AtomicUsize::new(0) });
        node.region.install(id, fence.epoch, door.clone());
        node.routes.touch();
        let shard = Shard::new(node.limits, fence);
        Ok(HostState { fence, node, shard, timer_at: None, leaving: false, door, batch: VecDeque::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<ToHost>,
        message: ToHost,
        state: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ToHost::Wake => work(&myself, state),
            ToHost::Step(event) => {
                if state.holds(&myself) {
                    state.batch.push_back(event);
                    step(&myself, state);
                }
            }
            ToHost::Leave if state.node.held.leased() => {
                state.node.region.leave(state.id(), state.fence.epoch);
                state.leaving = true;
            }
            ToHost::Leave => {
                myself.send_after(POSTPONED, || ToHost::Leave);
            }
        }
        let at_rest = state.leaving && state.door.queue.len() == 0 && state.shard.is_quiet();
        if at_rest && state.node.held.leased() {
            myself.stop(None);
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<ToHost>, state: &mut HostState) -> Result<(), ActorProcessingErr> {
        state.node.region.remove(state.id(), state.fence.epoch);
        Ok(())
    }
}

/// Steps what waits, a batch at a time.
fn work(myself: &ActorRef<ToHost>, state: &mut HostState) {
    for _ in 0..BATCHES_MAX {
        if !state.holds(myself) || !state.door.queue.take(&mut state.batch, BATCH_MAX) {
            return;
        }
        step(myself, state);
    }
    if myself.cast(ToHost::Wake).is_ok() {
        return; // others have their turn
    }
    // The actor drains: no wake-up reaches it any more, so what is left has to be done now.
    state.door.queue.close();
    while state.holds(myself) && state.door.queue.take(&mut state.batch, BATCH_MAX) {
        step(myself, state);
    }
}

/// The lease has lapsed, and may be renewed yet (N4). What the store has vouched for is taken in; if a write was refused
/// meanwhile, the epoch has ended with it.
fn postpone(myself: &ActorRef<ToHost>, state: &mut HostState) {
    for event in std::mem::take(&mut state.batch) {
        match event {
            ShardEvent::Entity(event) => state.node.give_back(Box::new(event)),
            ShardEvent::Stored(_) => state.batch.push_back(event),
            event => {
                myself.send_after(POSTPONED, move || ToHost::Step(event));
            }
        }
    }
}

/// Steps one batch, and carries out what comes of all of it.
fn step(myself: &ActorRef<ToHost>, state: &mut HostState) {
    if !state.node.held.leased() {
        postpone(myself, state);
    }
    let now = wall_clock();
    let mut out = Outbox::default();
    while let Some(event) = state.batch.pop_front() {
        if matches!(event, ShardEvent::Tick) {
            state.timer_at = None;
        }
        state.shard.step(now, event, &mut out);
    }
    state.door.resident.store(state.shard.resident(), Ordering::Relaxed);
    carry_out(state, out);
    if let Some(at) = state.shard.next_wake().filter(|at| state.timer_at.is_none_or(|timer| *at < timer)) {
        state.timer_at = Some(at);
        myself.send_after(Duration::from_millis(at.ms_since(now).max(1)), || ToHost::Step(ShardEvent::Tick));
    }
}

fn carry_out(state: &HostState, out: Outbox) {
    let node = &state.node;
    if !out.commits.is_empty() {
        let (ids, batches): (Vec<EntityId>, Vec<_>) = out.commits.into_iter().unzip();
        let (door, submitter, submitted) = (Arc::clone(&state.door), Arc::clone(node), Instant::now());
        node.meters.batches.increment(batches.len() as u64);
        let done = Box::new(move |outcomes: Vec<Result<(), StoreError>>| {
            let meters = &submitter.meters;
            meters.batch_seconds.record(submitted.elapsed().as_secs_f64());
            meters.batch_failures.increment(outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64);
            if let Some(Err(error)) = outcomes.iter().find(|outcome| outcome.is_err()) {
                warn!(%error, "a batch was not stored");
            }
            // A shard that is gone lost its memory with it; what was stored is read again.
            let _ = door.post(ShardEvent::Stored(ids.into_iter().zip(outcomes).collect()));
        });
        node.store.submit(batches, done);
    }
    for (port, reply) in out.replies {
        node.answer(port, reply);
    }
    for (session, frame) in out.pushes {
        node.push(session, state.fence.epoch, frame);
    }
    for hook in out.hooks {
        node.hooks.call(hook);
    }
    for snapshot in out.snapshots {
        node.hooks.show(state.fence.epoch, snapshot);
    }
    for event in out.tells {
        node.tell(event);
    }
    for (id, read) in out.reads {
        let mut reading = Box::pin(run_read(Arc::clone(&state.door), Arc::clone(node), id, read));
        // An engine of this process has answered when it is asked; only others need a task that waits for them.
        if reading.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(reading);
        }
    }
}

/// Reads until it works: an entity that waits for its state can do nothing else, and its requests have deadlines.
async fn run_read(door: Arc<Door>, node: Arc<Node>, id: EntityId, read: Read) {
    let mut pause = READ_RETRY.0;
    loop {
        match reads::run(node.store.as_ref(), read.clone()).await {
            Ok(found) => {
                let _ = door.post(ShardEvent::Found(id, found)); // a shard that is gone waits for nothing
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
                if door.queue.is_closed() {
                    return;
                }
            }
        }
    }
}
