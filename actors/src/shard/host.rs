//! The ractor actor that hosts one shard under one epoch.
//!
//! N1  Commits of one step are handed to the store together and in order; their outcomes come back as one message.
//! N2  A panic in a step ends this shard only; the supervisor starts it again, and entities reload what is durable.
//! N3  A shard that is started again reads nothing before every batch of the one that failed is settled, or an old batch
//!     could overwrite what the new one assigned. In a cluster its next owner settles them under a new epoch.
//! N4  A shard does nothing once its epoch has ended, nor while its node's lease has lapsed: requests that wait for it are
//!     given back. A lapse alone ends no shard, or one slow moment of the store would have every node take all it has
//!     once more, and keep the store slow.
//! N5  A shard that leaves goes on until nothing is under way in it, but takes no new requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster::region::{Load, Mailbox};
use cluster::shard::ShardId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::rows::Timestamp;
use schema::store::{Fence, Store, StoreError, commit};
use tracing::{error, warn};

use super::{Outbox, Shard, ShardEvent, reads};
use crate::api::CloseReason;
use crate::effects::{EntityId, Read};
use crate::node::Node;

/// First and longest pause between attempts of a read that failed.
const READ_RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// What comes while the lease has lapsed is looked at again after this.
const POSTPONED: Duration = Duration::from_millis(100);

/// The time that entities see.
pub fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// What a host is told.
#[derive(Debug)]
pub enum ToHost {
    /// Somebody tells the shard something.
    Posted(ShardEvent),
    /// Something that it waits for has happened.
    Step(ShardEvent),
    /// Come to rest and stop (N5).
    Leave,
}

impl ractor::Message for ToHost {}

/// What the shard has to do, counted where it changes.
#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    resident: AtomicUsize,
}

struct ShardMailbox(ActorRef<ToHost>, Arc<Counts>);

impl Mailbox<ShardEvent> for ShardMailbox {
    fn post(&self, message: ShardEvent) -> Result<(), ShardEvent> {
        self.1.waiting.fetch_add(1, Ordering::Relaxed);
        self.0.cast(ToHost::Posted(message)).map_err(|failure| {
            self.1.waiting.fetch_sub(1, Ordering::Relaxed);
            match failure {
                ractor::MessagingErr::SendErr(ToHost::Posted(message)) => message,
                _ => ShardEvent::Tick,
            }
        })
    }

    fn load(&self) -> Load {
        let Counts { waiting, resident } = &*self.1;
        Load { waiting: waiting.load(Ordering::Relaxed), resident: resident.load(Ordering::Relaxed) }
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
    counts: Arc<Counts>,
    ended: bool,
}

impl HostState {
    fn id(&self) -> ShardId {
        ShardId(self.fence.shard)
    }

    /// Nothing new comes in, what waits goes back, and then the shard ends; its member sees whether it has to come back.
    fn end(&mut self, myself: &ActorRef<ToHost>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.node.region.remove(self.id(), self.fence.epoch);
            self.node.routes.touch();
            let _ = myself.drain(); // it may be draining already
            if let Some(failures) = &self.node.failures {
                failures.wake();
            }
        }
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
        let counts = Arc::new(Counts::default());
        node.region.install(id, fence.epoch, Arc::new(ShardMailbox(myself, Arc::clone(&counts))));
        node.routes.touch();
        let shard = Shard::new(node.limits, fence);
        Ok(HostState { fence, node, shard, timer_at: None, leaving: false, counts, ended: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<ToHost>,
        message: ToHost,
        state: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        if state.node.held.epoch(state.id()) != state.fence.epoch {
            state.end(&myself); // N4
            if let ToHost::Posted(ShardEvent::Entity(event)) = message {
                state.node.give_back(Box::new(event));
            }
            return Ok(());
        }
        if !state.node.held.leased() {
            postpone(&myself, state, message);
            return Ok(());
        }
        match message {
            ToHost::Posted(event) => {
                state.counts.waiting.fetch_sub(1, Ordering::Relaxed);
                step(&myself, state, event);
            }
            ToHost::Step(event) => step(&myself, state, event),
            ToHost::Leave => {
                state.node.region.leave(state.id(), state.fence.epoch);
                state.leaving = true;
            }
        }
        if state.leaving && state.shard.is_quiet() {
            myself.stop(None);
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<ToHost>, state: &mut HostState) -> Result<(), ActorProcessingErr> {
        state.node.region.remove(state.id(), state.fence.epoch);
        Ok(())
    }
}

/// The lease has lapsed, and may be renewed yet (N4). What the store has vouched for is taken in; if a write was refused
/// meanwhile, the epoch has ended with it.
fn postpone(myself: &ActorRef<ToHost>, state: &mut HostState, message: ToHost) {
    match message {
        ToHost::Posted(ShardEvent::Entity(event)) => {
            state.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            state.node.give_back(Box::new(event));
        }
        ToHost::Step(event @ ShardEvent::Stored(_)) => step(myself, state, event),
        message => {
            myself.send_after(POSTPONED, move || message);
        }
    }
}

fn step(myself: &ActorRef<ToHost>, state: &mut HostState, event: ShardEvent) {
    let now = wall_clock();
    if matches!(event, ShardEvent::Tick) {
        state.timer_at = None;
    }
    let mut out = Outbox::default();
    state.shard.step(now, event, &mut out);
    state.counts.resident.store(state.shard.resident(), Ordering::Relaxed);
    carry_out(myself, state, out);
    if let Some(at) = state.shard.next_wake().filter(|at| state.timer_at.is_none_or(|timer| *at < timer)) {
        state.timer_at = Some(at);
        myself.send_after(Duration::from_millis(at.ms_since(now).max(1)), || ToHost::Step(ShardEvent::Tick));
    }
}

fn carry_out(myself: &ActorRef<ToHost>, state: &HostState, out: Outbox) {
    let node = &state.node;
    if !out.commits.is_empty() {
        let (ids, batches): (Vec<EntityId>, Vec<_>) = out.commits.into_iter().unzip();
        let (myself, submitter, submitted) = (myself.clone(), Arc::clone(node), Instant::now());
        node.meters.batches.increment(batches.len() as u64);
        let done = Box::new(move |outcomes: Vec<Result<(), StoreError>>| {
            let meters = &submitter.meters;
            meters.batch_seconds.record(submitted.elapsed().as_secs_f64());
            meters.batch_failures.increment(outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64);
            if let Some(Err(error)) = outcomes.iter().find(|outcome| outcome.is_err()) {
                warn!(%error, "a batch was not stored");
            }
            // A shard that is gone lost its memory with it; what was stored is read again.
            let _ = myself.cast(ToHost::Step(ShardEvent::Stored(ids.into_iter().zip(outcomes).collect())));
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
        tokio::spawn(run_read(myself.clone(), Arc::clone(node), id, read));
    }
}

/// Reads until it works: an entity that waits for its state can do nothing else, and its requests have deadlines.
async fn run_read(shard: ActorRef<ToHost>, node: Arc<Node>, id: EntityId, read: Read) {
    let mut pause = READ_RETRY.0;
    loop {
        match reads::run(node.store.as_ref(), read.clone()).await {
            Ok(found) => {
                let _ = shard.cast(ToHost::Step(ShardEvent::Found(id, found)));
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
