//! How a batch becomes durable: one entry of the shard's commit log, then the rows.
//!
//! ```text
//!   submit ─▶ lane of the shard ─▶ 1. log entry at the owner's epoch   (the commit: W1, W2)
//!                                  2. is the epoch still ours?          (the fence)
//!                                  3. rows, each partition by itself    (visible: W5)
//!                                  4. answers, in order                 (W3)
//! ```
//! P1  A lane has one entry under way; what is submitted meanwhile becomes the next entry. So an entry is sent only
//!     after the rows of the one before are written, and the last entry alone tells a new owner what may be unfinished.
//! P2  Rows of an entry are written only after its log entry is durable and the epoch was then still ours. A new owner
//!     takes a shard after that epoch has ended, so it reads every entry that anybody may have acted on, and writes its
//!     rows again as they were: at the entry's own time, so that to do it twice, or late, changes nothing. An entry
//!     that it does not read never had rows, and never gets any: it removes the log before it reads anything else, also
//!     for what is still on its way there, or an owner after it would find that and act on it.
//! P3  Rows and entries carry `epoch << 32 | n`, n ascending: whatever arrives late never replaces what is newer. No
//!     clock is asked for the time of a write: rows of a creation have time 1, rows that no entity owns say theirs
//!     (`unowned`).
//! P4  A step that may have happened is repeated unchanged until it has, or until the epoch is no longer ours. Of rows,
//!     only those that are not known to be written are sent again, at the same time; the next entry waits for all of
//!     them (P1).
//! P5  After an entry that was fenced no other is sent under its epoch: it would take the place of one that a new owner
//!     has to finish, and leave a gap.
//! P6  A shard is at rest under an epoch when the rows of its last entry are written and nothing is under way. Who
//!     takes it over from there reads no log of it, nor does anybody later: what still arrives there is not acted on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};
use tracing::trace;

use super::{Guard, unowned};
pub use crate::kv::KvOp;
use crate::store::{Done, Fence, StoreError};

/// Batches that wait in one lane; more are refused.
const LANE_MAX: usize = 8_192;
/// Batches and bytes that make one entry, unless a single batch is larger.
const ENTRY_BATCHES: usize = 256;
const ENTRY_BYTES: usize = 1 << 20;
/// First and longest pause before a step is repeated.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));
/// Attempts of a write that no epoch protects.
const ATTEMPTS: u32 = 4;
/// Numbers of one epoch.
const NUMBERS: u64 = 1 << 32;

/// Where entries and rows are kept. Of two writes of one cell the one with the later time wins, whatever order they
/// arrive in; an error leaves open whether a write happened, or still will.
pub trait Log: Send + Sync + 'static {
    /// Writes the entry of a shard's epoch, at this time.
    fn put_entry(&self, of: Fence, entry: &[u8], at: i64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The entry of a shard's epoch, and the time at which it was written.
    fn entry(&self, of: Fence) -> impl Future<Output = Result<Option<(Vec<u8>, i64)>, StoreError>> + Send;

    /// Removes it, and whatever arrives later of what was written at this time or before.
    fn drop_entry(&self, of: Fence, at: i64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes rows, all at this time. Not atomic; waits for the outcome of each.
    fn put_rows(&self, changes: &[&Change], at: i64) -> impl Future<Output = Result<(), Unwritten>> + Send;
}

/// Rows that are not known to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// Their places among those that were to be written, ascending.
    pub rows: Vec<usize>,
    /// What one of them met; [`StoreError::Corrupt`] if any did, since that one cannot be repeated.
    pub error: StoreError,
}

impl Unwritten {
    /// The outcome of all out of those of some, each with the places of its rows.
    pub fn gather(outcomes: impl IntoIterator<Item = (Vec<usize>, Result<(), StoreError>)>) -> Result<(), Self> {
        let mut all: Option<Self> = None;
        for (rows, outcome) in outcomes {
            let Err(error) = outcome else { continue };
            let all = all.get_or_insert_with(|| Self { rows: Vec::new(), error: error.clone() });
            all.rows.extend(rows);
            if matches!(error, StoreError::Corrupt(_)) {
                all.error = error;
            }
        }
        all.map_or(Ok(()), |mut all| {
            all.rows.sort_unstable();
            Err(all)
        })
    }
}

/// Rows that are still to be written, while a step is repeated (P4).
type Rest<'a> = Mutex<Vec<&'a Change>>;

struct Job {
    batches: Vec<(Fence, Vec<KvOp>)>,
    done: Done,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Job>,
    batches: usize,
    running: bool,
    /// Epoch of the last entry, how many it had, and whether the rows of the last are not all written.
    epoch: u64,
    number: u64,
    open: bool,
}

/// An entry as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Entry(Vec<Change>);

/// One change of a key: the value, or `None` where the key goes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Change(pub Vec<u8>, pub Option<Vec<u8>>);

/// The write side of a [`super::CqlStore`].
pub struct Pipeline<L> {
    log: L,
    guard: Arc<dyn Guard>,
    lanes: Box<[Mutex<Lane>]>,
}

fn held(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `epoch << 32 | number` (P3).
fn stamp(epoch: u64, number: u64) -> Result<i64, StoreError> {
    let high = i64::try_from(epoch).ok().and_then(|epoch| epoch.checked_mul(1 << 32)).filter(|_| number < NUMBERS);
    let stamp = high.and_then(|high| high.checked_add(number.cast_signed()));
    stamp.ok_or_else(|| StoreError::Unavailable(format!("epoch {epoch} has no number {number}: restart this node")))
}

/// The last change of each key.
fn last_changes(batches: impl Iterator<Item = Vec<KvOp>>) -> Vec<Change> {
    let mut last = BTreeMap::new();
    for op in batches.flatten() {
        match op {
            KvOp::Put(key, value) => last.insert(key, Some(value)),
            KvOp::Remove(key) => last.insert(key, None),
        };
    }
    last.into_iter().map(|(key, value)| Change(key, value)).collect()
}

impl<L: Log> Pipeline<L> {
    /// For a deployment of `shards` shards.
    pub fn new(log: L, guard: Arc<dyn Guard>, shards: u32) -> Self {
        // One lane more than shards: the last takes what belongs to none.
        let lanes = (0..=shards).map(|_| Mutex::default()).collect();
        Self { log, guard, lanes }
    }

    fn lane(&self, fence: Fence) -> &Mutex<Lane> {
        let shards = self.lanes.len() - 1;
        if fence.epoch == 0 { &self.lanes[shards] } else { &self.lanes[fence.shard as usize % shards] }
    }

    /// Queues batches of one shard; `done` is called once they are durable and visible, or may never be.
    pub fn submit(self: &Arc<Self>, batches: Vec<(Fence, Vec<KvOp>)>, done: Done) {
        let Some((fence, _)) = batches.first() else { return done(Vec::new()) };
        let fence = *fence;
        debug_assert!(batches.iter().all(|(other, _)| *other == fence), "a submission is of one shard and epoch");
        let mut lane = held(self.lane(fence));
        if lane.batches + batches.len() > LANE_MAX {
            drop(lane);
            let full = StoreError::Unavailable("the shard's queue is full".to_owned());
            return done(vec![Err(full); batches.len()]);
        }
        lane.batches += batches.len();
        lane.waiting.push_back(Job { batches, done });
        if !std::mem::replace(&mut lane.running, true) {
            tokio::spawn(Arc::clone(self).run(fence));
        }
    }

    /// Works until the lane is empty (P1).
    async fn run(self: Arc<Self>, lane_of: Fence) {
        while let Some((fence, jobs)) = self.next(lane_of) {
            let (mut answers, mut ops) = (Vec::with_capacity(jobs.len()), Vec::new());
            for job in jobs {
                answers.push((job.batches.len(), job.done));
                ops.extend(job.batches.into_iter().map(|(_, ops)| ops));
            }
            let outcome = self.make_durable(fence, last_changes(ops.into_iter())).await;
            for (batches, done) in answers {
                done(vec![outcome.clone(); batches]);
            }
        }
    }

    /// What becomes the next entry: jobs of one epoch, up to the limits.
    fn next(&self, lane_of: Fence) -> Option<(Fence, Vec<Job>)> {
        let mut lane = held(self.lane(lane_of));
        let Some(fence) = lane.waiting.front().map(|job| job.batches[0].0) else {
            lane.running = false;
            return None;
        };
        let (mut jobs, mut batches, mut bytes) = (Vec::new(), 0, 0);
        while let Some(job) = lane.waiting.front().filter(|job| job.batches[0].0 == fence) {
            let size: usize = job.batches.iter().flat_map(|(_, ops)| ops).map(KvOp::size).sum();
            if !jobs.is_empty() && (batches + job.batches.len() > ENTRY_BATCHES || bytes + size > ENTRY_BYTES) {
                break;
            }
            (batches, bytes) = (batches + job.batches.len(), bytes + size);
            jobs.extend(lane.waiting.pop_front());
        }
        lane.batches -= batches;
        Some((fence, jobs))
    }

    /// The number of the next entry under `fence`; fenced if a later epoch has written here.
    fn number(&self, fence: Fence) -> Result<u64, StoreError> {
        let mut lane = held(self.lane(fence));
        if fence.epoch < lane.epoch {
            return Err(StoreError::Fenced);
        }
        if fence.epoch > lane.epoch {
            (lane.epoch, lane.number) = (fence.epoch, 0);
        }
        lane.number += 1;
        lane.open = true;
        Ok(lane.number)
    }

    /// P6.
    pub fn at_rest(&self, fence: Fence) -> bool {
        let lane = held(self.lane(fence));
        !lane.running && (lane.epoch < fence.epoch || (lane.epoch == fence.epoch && !lane.open))
    }

    async fn make_durable(&self, fence: Fence, changes: Vec<Change>) -> Result<(), StoreError> {
        if fence.epoch == 0 {
            return self.write_unowned(changes).await;
        }
        if !self.guard.holds(fence) {
            return Err(StoreError::Fenced); // P5
        }
        let at = stamp(fence.epoch, self.number(fence)?)?;
        let entry = Entry(changes);
        let bytes =
            rmp_serde::to_vec(&entry).map_err(|e| StoreError::Corrupt(format!("entry does not encode: {e}")))?;
        self.until_done(fence, || self.log.put_entry(fence, &bytes, at)).await?;
        let rest = Rest::new(entry.0.iter().collect());
        let held_at = self.until_done(fence, || self.put_rest(&rest, at)).await?;
        held(self.lane(fence)).open = false;
        // For whoever holds the owners of one machine against each other: its processes share this clock.
        let at_ns = i128::from(held_at.tv_sec) * 1_000_000_000 + i128::from(held_at.tv_nsec);
        trace!(target: "acknowledged", shard = fence.shard, epoch = fence.epoch, at_ns);
        Ok(())
    }

    /// Writes what is left of some rows, and takes it out of `rest`.
    async fn put_rest(&self, rest: &Rest<'_>, at: i64) -> Result<(), StoreError> {
        let rows = rest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Err(Unwritten { rows: left, error }) = self.log.put_rows(&rows, at).await else { return Ok(()) };
        let left = left.into_iter().filter_map(|row| rows.get(row).copied()).collect();
        *rest.lock().unwrap_or_else(PoisonError::into_inner) = left;
        Err(error)
    }

    /// Repeats a step until it is done, and then asks whether the epoch was still ours (P2, P4). Answers with a moment
    /// at which it still was, or just before.
    async fn until_done<F>(&self, fence: Fence, step: impl Fn() -> F) -> Result<Timespec, StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let mut pause = PAUSE.0;
        loop {
            let outcome = step().await;
            let asked_at = clock_gettime(ClockId::Monotonic);
            if !self.guard.holds(fence) {
                return Err(StoreError::Fenced);
            }
            match outcome {
                Ok(()) => return Ok(asked_at),
                Err(StoreError::Corrupt(what)) => return Err(StoreError::Corrupt(what)),
                Err(error) => tracing::warn!(shard = fence.shard, %error, "a write is repeated"),
            }
            metrics::counter!(crate::metrics::CQL_WRITE_RETRIES).increment(1);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Rows that belong to no shard, each at its own time: several batches of one row each may come together.
    async fn write_unowned(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut times: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
        for change in changes {
            times.entry(unowned::time_of(&change)?).or_default().push(change);
        }
        let written = join_all(times.iter().map(|(at, changes)| self.a_few_times(changes, *at))).await;
        written.into_iter().collect()
    }

    /// Writes rows of a creation: of epoch 0, so that whatever their entity writes later replaces them.
    pub(super) async fn write_first(&self, ops: Vec<KvOp>) -> Result<(), StoreError> {
        self.a_few_times(&last_changes(std::iter::once(ops)), 1).await
    }

    async fn a_few_times(&self, changes: &[Change], at: i64) -> Result<(), StoreError> {
        let (rest, mut pause) = (Rest::new(changes.iter().collect()), PAUSE.0);
        for _ in 1..ATTEMPTS {
            match self.put_rest(&rest, at).await {
                Err(StoreError::Timeout | StoreError::Unavailable(_)) => tokio::time::sleep(pause).await,
                outcome => return outcome,
            }
            pause *= 2;
        }
        self.put_rest(&rest, at).await
    }

    /// Writes again what owners of the epochs from `from` up to `fence`'s may have left unfinished (P2). Called by a
    /// new owner, before it reads anything.
    pub async fn settle(self: &Arc<Self>, fence: Fence, from: u64) -> Result<(), StoreError> {
        if from == fence.epoch && from > 1 {
            let (this, of) = (Arc::clone(self), Fence { epoch: from - 1, ..fence });
            // P6: nobody reads it any more. Should this fail, then it lies there, and that is all.
            tokio::spawn(async move { this.log.drop_entry(of, stamp(of.epoch, NUMBERS - 1)?).await });
        }
        for epoch in from.max(1)..fence.epoch {
            let of = Fence { epoch, ..fence };
            if let Some((bytes, at)) = self.log.entry(of).await? {
                let entry: Entry = rmp_serde::from_slice(&bytes)
                    .map_err(|e| StoreError::Corrupt(format!("log of shard {} epoch {epoch}: {e}", fence.shard)))?;
                let rest = Rest::new(entry.0.iter().collect());
                self.until_done(fence, || self.put_rest(&rest, at)).await?;
            }
            let last = stamp(epoch, NUMBERS - 1)?;
            self.until_done(fence, || self.log.drop_entry(of, last)).await?; // P2
        }
        Ok(())
    }

    /// No lane has anything under way.
    pub(super) async fn drained(&self) {
        while self.lanes.iter().any(|lane| held(lane).running) {
            tokio::time::sleep(PAUSE.0).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Alone;
    use super::*;

    /// What a log was asked to write: keys and time of each attempt. Some keys fail so many times.
    #[derive(Default)]
    struct Flaky {
        attempts: Mutex<Vec<(Vec<u8>, i64)>>,
        failing: Mutex<BTreeMap<u8, u32>>,
    }

    impl Log for Arc<Flaky> {
        async fn put_entry(&self, _: Fence, _: &[u8], _: i64) -> Result<(), StoreError> {
            Ok(())
        }

        async fn entry(&self, _: Fence) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
            Ok(None)
        }

        async fn drop_entry(&self, _: Fence, _: i64) -> Result<(), StoreError> {
            Ok(())
        }

        async fn put_rows(&self, changes: &[&Change], at: i64) -> Result<(), Unwritten> {
            let keys = changes.iter().map(|Change(key, _)| key[0]).collect();
            self.attempts.lock().expect("no test panics").push((keys, at));
            let mut failing = self.failing.lock().expect("no test panics");
            Unwritten::gather(changes.iter().enumerate().map(|(row, Change(key, _))| {
                let Some(left) = failing.get_mut(&key[0]).filter(|left| **left > 0) else { return (vec![row], Ok(())) };
                *left -= 1;
                (vec![row], Err(StoreError::Timeout))
            }))
        }
    }

    #[tokio::test]
    async fn only_rows_that_are_not_known_to_be_written_are_sent_again() {
        let log = Arc::new(Flaky::default());
        log.failing.lock().expect("no test panics").extend([(2, 2), (4, 1)]);
        let pipeline = Arc::new(Pipeline::new(Arc::clone(&log), Arc::new(Alone), 1));
        let (done, answer) = tokio::sync::oneshot::channel();
        let ops = (1..=4).map(|key| KvOp::Put(vec![key], vec![key])).collect();
        let fence = Fence { shard: 0, epoch: 3 };
        pipeline.submit(vec![(fence, ops)], Box::new(move |mut outcomes| drop(done.send(outcomes.remove(0)))));
        assert_eq!(answer.await.expect("answered"), Ok(()));
        let at = stamp(3, 1).expect("a time");
        let attempts = log.attempts.lock().expect("no test panics").clone();
        assert_eq!(attempts, [(vec![1, 2, 3, 4], at), (vec![2, 4], at), (vec![2], at)], "P3, P4");
        assert!(pipeline.at_rest(fence), "P6");
    }

    #[test]
    fn what_cannot_be_repeated_is_said_before_what_can() {
        let corrupt = StoreError::Corrupt("x".into());
        let outcomes = [
            (vec![4, 5], Err(StoreError::Timeout)),
            (vec![0], Ok(())),
            (vec![1], Err(corrupt.clone())),
            (vec![2], Err(StoreError::Timeout)),
        ];
        assert_eq!(Unwritten::gather(outcomes), Err(Unwritten { rows: vec![1, 2, 4, 5], error: corrupt }));
        assert_eq!(Unwritten::gather([(vec![0], Ok(()))]), Ok(()));
    }
}
