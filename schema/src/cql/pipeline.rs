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
//!     that it does not read never had rows.
//! P3  Rows and entries carry `epoch << 32 | n`, n ascending: whatever arrives late never replaces what is newer.
//! P4  A step that may have happened is repeated unchanged until it has, or until the epoch is no longer ours.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch as CqlBatch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use serde::{Deserialize, Serialize};

use super::layout::{Partition, Place};
use super::session::{Cql, failed, misshapen};
use super::{Guard, OpenError};
use crate::kv::{KvOp, Sealed};
use crate::store::{Done, Fence, StoreError};

/// Batches that wait in one lane; more are refused.
const LANE_MAX: usize = 8_192;
/// Batches and bytes that make one entry, unless a single batch is larger.
const ENTRY_BATCHES: usize = 256;
const ENTRY_BYTES: usize = 1 << 20;
/// Statements and bytes of one request to the cluster.
const REQUEST_ROWS: usize = 64;
const REQUEST_BYTES: usize = 64 << 10;
/// First and longest pause before a step is repeated.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));
/// Attempts of a write that no epoch protects.
const ATTEMPTS: u32 = 4;
/// Numbers of one epoch.
const NUMBERS: u64 = 1 << 32;

struct Job {
    batches: Vec<Sealed>,
    done: Done,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Job>,
    batches: usize,
    running: bool,
    /// Epoch of the last entry, and how many it had.
    epoch: u64,
    number: u64,
}

/// An entry as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Entry(Vec<Change>);

/// One change: the value, or `None` where the key goes.
#[derive(Debug, Serialize, Deserialize)]
struct Change(Vec<u8>, Option<Vec<u8>>);

/// The write side of a [`super::CqlStore`].
pub(super) struct Pipeline {
    cql: Arc<Cql>,
    guard: Arc<dyn Guard>,
    lanes: Box<[Mutex<Lane>]>,
    put_entry: PreparedStatement,
    get_entry: PreparedStatement,
    drop_entry: PreparedStatement,
    clock: AtomicI64,
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

impl Pipeline {
    pub(super) async fn new(cql: Arc<Cql>, guard: Arc<dyn Guard>, shards: u32) -> Result<Self, OpenError> {
        // One lane more than shards: the last takes what belongs to none.
        let lanes = (0..=shards).map(|_| Mutex::default()).collect();
        let put = "INSERT INTO shard_logs (shard, epoch, entry) VALUES (?, ?, ?) USING TIMESTAMP ?";
        let (put_entry, get_entry, drop_entry) = (
            cql.statement(put).await?,
            cql.statement("SELECT entry, WRITETIME(entry) FROM shard_logs WHERE shard=? AND epoch=?").await?,
            cql.statement("DELETE FROM shard_logs WHERE shard=? AND epoch=?").await?,
        );
        Ok(Self { cql, guard, lanes, put_entry, get_entry, drop_entry, clock: AtomicI64::new(0) })
    }

    fn lane(&self, fence: Fence) -> &Mutex<Lane> {
        let shards = self.lanes.len() - 1;
        if fence.epoch == 0 { &self.lanes[shards] } else { &self.lanes[fence.shard as usize % shards] }
    }

    /// Queues batches of one shard.
    pub(super) fn submit(self: &Arc<Self>, batches: Vec<Sealed>, done: Done) {
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
        Ok(lane.number)
    }

    async fn make_durable(&self, fence: Fence, changes: Vec<Change>) -> Result<(), StoreError> {
        if fence.epoch == 0 {
            return self.write_unowned(&changes).await;
        }
        let at = stamp(fence.epoch, self.number(fence)?)?;
        let entry = Entry(changes);
        let bytes =
            rmp_serde::to_vec(&entry).map_err(|e| StoreError::Corrupt(format!("entry does not encode: {e}")))?;
        self.until_done(fence, || self.write_entry(fence, &bytes, at)).await?;
        self.until_done(fence, || self.write_rows(&entry.0, at)).await
    }

    /// Repeats a step until it is done, and then asks whether the epoch was still ours (P2, P4).
    async fn until_done<F>(&self, fence: Fence, step: impl Fn() -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let mut pause = PAUSE.0;
        loop {
            let outcome = step().await;
            if !self.guard.holds(fence) {
                return Err(StoreError::Fenced);
            }
            match outcome {
                Ok(()) => return Ok(()),
                Err(StoreError::Corrupt(what)) => return Err(StoreError::Corrupt(what)),
                Err(error) => tracing::warn!(shard = fence.shard, %error, "a write is repeated"),
            }
            metrics::counter!(crate::metrics::CQL_WRITE_RETRIES).increment(1);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn write_entry(&self, fence: Fence, entry: &[u8], at: i64) -> Result<(), StoreError> {
        let values = (fence.shard.cast_signed(), fence.epoch.cast_signed(), entry, at);
        self.cql.session.execute_unpaged(&self.put_entry, values).await.map(drop).map_err(|e| failed(&e))
    }

    /// Rows that belong to no shard: files and remembered answers, one row to a batch, with the time of day.
    async fn write_unowned(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.a_few_times(changes, self.time_of_day()).await
    }

    /// Writes rows of a creation: of epoch 0, so that whatever their entity writes later replaces them.
    pub(super) async fn write_first(&self, ops: Vec<KvOp>) -> Result<(), StoreError> {
        self.a_few_times(&last_changes(std::iter::once(ops)), 1).await
    }

    async fn a_few_times(&self, changes: &[Change], at: i64) -> Result<(), StoreError> {
        let mut pause = PAUSE.0;
        for _ in 1..ATTEMPTS {
            match self.write_rows(changes, at).await {
                Err(StoreError::Timeout | StoreError::Unavailable(_)) => tokio::time::sleep(pause).await,
                outcome => return outcome,
            }
            pause *= 2;
        }
        self.write_rows(changes, at).await
    }

    /// Microseconds since 1970, never the same twice.
    pub(super) fn time_of_day(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let later = |last: i64| Some(now.max(last + 1));
        let last = self.clock.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).unwrap_or(now);
        now.max(last + 1)
    }

    /// Writes rows, partitions side by side; what one request holds becomes visible together.
    async fn write_rows(&self, changes: &[Change], at: i64) -> Result<(), StoreError> {
        let mut partitions: BTreeMap<Partition, Vec<(Vec<u8>, &Change)>> = BTreeMap::new();
        for change in changes {
            let Place { partition, place } = Place::of(&change.0)?;
            partitions.entry(partition).or_default().push((place, change));
        }
        let mut requests = Vec::with_capacity(partitions.len());
        for (partition, rows) in &partitions {
            let mut rest = rows.as_slice();
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = rest.iter().take(REQUEST_ROWS).take_while(|(_, change)| {
                    bytes += change.1.as_ref().map_or(0, Vec::len);
                    bytes <= REQUEST_BYTES
                });
                let (now, later) = rest.split_at(fits.count().max(1));
                requests.push(self.write_partition(partition, now, at));
                rest = later;
            }
        }
        try_join_all(requests).await.map(drop)
    }

    async fn write_partition(&self, at: &Partition, rows: &[(Vec<u8>, &Change)], time: i64) -> Result<(), StoreError> {
        let home = self.cql.home(at.home);
        let session = &self.cql.session;
        if let [(place, Change(_, value))] = rows {
            let outcome = match value {
                Some(value) => session.execute_unpaged(&home.put, (&at.key, at.bucket, place, value, time)).await,
                None => session.execute_unpaged(&home.remove, (time, &at.key, at.bucket, place)).await,
            };
            return outcome.map(drop).map_err(|e| failed(&e));
        }
        let mut batch = CqlBatch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        let mut values: Vec<RowValues<'_>> = Vec::with_capacity(rows.len());
        for (place, Change(_, value)) in rows {
            let key = at.key.as_slice();
            match value {
                Some(value) => {
                    batch.append_statement(home.put.clone());
                    values.push(RowValues::Put((key, at.bucket, place, value, time)));
                }
                None => {
                    batch.append_statement(home.remove.clone());
                    values.push(RowValues::Remove((time, key, at.bucket, place)));
                }
            }
        }
        session.batch(&batch, values).await.map(drop).map_err(|e| failed(&e))
    }

    /// Writes again what owners of the epochs from `from` up to `fence`'s may have left unfinished (P2). Called by a new
    /// owner, before it reads anything.
    pub(super) async fn settle(&self, fence: Fence, from: u64) -> Result<(), StoreError> {
        for epoch in from.max(1)..fence.epoch {
            let values = (fence.shard.cast_signed(), epoch.cast_signed());
            let answer = self.cql.session.execute_unpaged(&self.get_entry, values).await.map_err(|e| failed(&e))?;
            let rows = answer.into_rows_result().map_err(misshapen)?;
            let Some((bytes, at)) = rows.maybe_first_row::<(Vec<u8>, i64)>().map_err(misshapen)? else { continue };
            let entry: Entry = rmp_serde::from_slice(&bytes)
                .map_err(|e| StoreError::Corrupt(format!("log of shard {} epoch {epoch}: {e}", fence.shard)))?;
            self.until_done(fence, || self.write_rows(&entry.0, at)).await?;
        }
        Ok(())
    }

    /// Forgets the log of an epoch that is settled.
    pub(super) async fn forget(&self, shard: u32, epoch: u64) -> Result<(), StoreError> {
        let values = (shard.cast_signed(), epoch.cast_signed());
        self.cql.session.execute_unpaged(&self.drop_entry, values).await.map(drop).map_err(|e| failed(&e))
    }

    /// No lane has anything under way.
    pub(super) async fn drained(&self) {
        while self.lanes.iter().any(|lane| held(lane).running) {
            tokio::time::sleep(PAUSE.0).await;
        }
    }
}

/// Values of one statement of a batch.
enum RowValues<'a> {
    Put((&'a [u8], i64, &'a Vec<u8>, &'a Vec<u8>, i64)),
    Remove((i64, &'a [u8], i64, &'a Vec<u8>)),
}

impl SerializeRow for RowValues<'_> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Self::Put(values) => SerializeRow::serialize(values, context, writer),
            Self::Remove(values) => SerializeRow::serialize(values, context, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}
