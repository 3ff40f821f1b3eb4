//! The committer: one thread that makes groups of batches durable, then visible, then answers them.
//!
//! C1  One frame and one sync per group: many small batches share what costs most.
//! C2  A group is answered once, whatever happens to it or to this thread.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::codec::{encode, insert};
use super::wal::{AppendError, Segment};
use super::{Shared, held, unavailable};
use crate::kv::KvOp;
use crate::metrics::{STORE_BATCHES, STORE_FAILURES, STORE_LOG_BYTES, STORE_QUEUE, STORE_REFUSALS, STORE_SYNC_SECONDS};
use crate::store::{Done, StoreError};

/// Most batches that wait for the committer: some seconds of its work.
const QUEUE_BATCHES_MAX: usize = 65_536;
/// Most bytes that wait for the committer.
const QUEUE_BYTES_MAX: usize = 128 << 20;
/// Most bytes in one sync, so that its latency stays bounded.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Closed segments that may wait for a flush before writes are refused: they are in memory too.
const UNFLUSHED_MAX: u64 = 6;

/// Batches that were submitted together and are answered together.
pub(super) struct Job {
    payloads: Vec<Vec<u8>>,
    batches: Vec<Vec<KvOp>>,
    bytes: usize,
    done: Done,
}

/// What waits for the committer.
#[derive(Default)]
pub(super) struct Queue {
    jobs: VecDeque<Job>,
    batches: usize,
    bytes: usize,
    pub(super) closed: bool,
}

impl Job {
    /// A job of `batches`.
    pub(super) fn new(batches: Vec<Vec<KvOp>>, done: Done) -> Self {
        let payloads: Vec<Vec<u8>> = batches.iter().map(|ops| encode(ops)).collect();
        let bytes = payloads.iter().map(Vec::len).sum();
        Self { payloads, batches, bytes, done }
    }

    /// Answers all its batches with one error.
    fn fail(self, error: &StoreError) {
        (self.done)(vec![Err(error.clone()); self.batches.len()]);
    }
}

impl Shared {
    /// Queues a job, or refuses it early.
    pub(super) fn enqueue(&self, job: Job) {
        let mut queue = held(&self.queue);
        let refusal = if queue.closed {
            Some(("closed", "store is closed"))
        } else if queue.batches + job.batches.len() > QUEUE_BATCHES_MAX || queue.bytes + job.bytes > QUEUE_BYTES_MAX {
            Some(("queue", "write queue is full"))
        } else if self.unflushed.load(Ordering::Relaxed) > UNFLUSHED_MAX {
            Some(("flush", "flush is behind"))
        } else {
            None
        };
        if let Some((label, reason)) = refusal {
            drop(queue);
            metrics::counter!(STORE_REFUSALS, "reason" => label).increment(job.batches.len() as u64);
            return job.fail(&unavailable(reason));
        }
        queue.batches += job.batches.len();
        queue.bytes += job.bytes;
        queue.jobs.push_back(job);
        drop(queue);
        self.wake.notify_one();
    }

    /// Next group of jobs, or `None` when closed and empty.
    fn next_group(&self) -> Option<Vec<Job>> {
        let mut queue = held(&self.queue);
        while queue.jobs.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while queue.jobs.front().is_some_and(|job| group.is_empty() || bytes + job.bytes <= GROUP_BYTES_MAX) {
            let Some(job) = queue.jobs.pop_front() else { break };
            bytes += job.bytes;
            queue.batches -= job.batches.len();
            group.push(job);
        }
        queue.bytes -= bytes;
        metrics::gauge!(STORE_QUEUE).set(queue.batches as f64);
        Some(group)
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn commit_loop(&self, mut segment: Segment, flush: &Sender<u64>) {
        let _closes = CloseOnExit(self);
        while let Some(group) = self.next_group() {
            if (segment.abandoned || segment.synced >= self.segment_bytes)
                && let Err(error) = self.next_segment(&mut segment, flush)
            {
                tracing::error!(%error, "no new log segment; writes are refused");
                fail(group, &unavailable(error));
                continue;
            }
            // One frame per group: pages of an unsynced group reach the disk in any order, so a tear may lie
            // anywhere in it, and must not look like damage in front of a good frame.
            let payload: Vec<u8> = group.iter().flat_map(|job| job.payloads.iter().flatten().copied()).collect();
            let started = Instant::now();
            let appended = segment.append(&payload, &self.faults);
            metrics::histogram!(STORE_SYNC_SECONDS).record(started.elapsed().as_secs_f64());
            match appended {
                Ok(()) => {
                    metrics::counter!(STORE_LOG_BYTES).increment(payload.len() as u64);
                    *held(&self.position) = (segment.number, segment.synced); // B1
                    self.publish(group);
                }
                Err(AppendError::NotWritten(error)) => {
                    tracing::error!(%error, "log write failed; nothing of it is kept");
                    metrics::counter!(STORE_FAILURES, "outcome" => "not_written").increment(1);
                    fail(group, &unavailable(error));
                }
                Err(AppendError::Unknown(error)) => {
                    tracing::error!(%error, "log sync failed; outcome of the group is unknown");
                    metrics::counter!(STORE_FAILURES, "outcome" => "unknown").increment(1);
                    fail(group, &StoreError::Timeout);
                }
            }
        }
    }

    fn next_segment(&self, segment: &mut Segment, flush: &Sender<u64>) -> io::Result<()> {
        // Until the next segment exists nothing more goes into this one: a failed attempt may have left a header on
        // disk that fixes this one's length (L1), and what came after it would not be replayed.
        segment.abandoned = true;
        *segment = Segment::create(&self.dir, segment.number + 1, segment.synced, &self.faults)?;
        *held(&self.position) = (segment.number, segment.synced); // B1: the one before may be flushed and go away
        self.rotate(segment.number, flush);
        Ok(())
    }

    fn publish(&self, group: Vec<Job>) {
        for job in group {
            let count = job.batches.len();
            for ops in job.batches {
                let seqno = self.seqno.next();
                insert(&self.tree, ops, seqno);
                self.visible.store(seqno + 1, Ordering::Release);
            }
            metrics::counter!(STORE_BATCHES).increment(count as u64);
            (job.done)(vec![Ok(()); count]);
        }
    }
}

/// Answers what waits when the committer ends, also by a panic: nobody waits for a thread that is gone.
struct CloseOnExit<'a>(&'a Shared);

impl Drop for CloseOnExit<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut queue = held(&self.0.queue);
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        fail(waiting.into(), &unavailable("committer ended"));
    }
}

fn fail(group: Vec<Job>, error: &StoreError) {
    group.into_iter().for_each(|job| job.fail(error));
}
