//! The committer: one thread that makes groups of batches durable and hands them to the publisher.
//!
//! C1  One frame and one sync per group: many small batches share what costs most.
//! C2  A batch is answered once, whatever happens to it or to a thread that has it: what is dropped answers `Timeout`.
//! C3  While flushes or compactions fall behind, writers are slowed, more and more, before they are refused: what holds
//!     up the threads that have to catch up is, most of all, the writers' share of the processors.
//! C4  After a group of many it lets others run before it looks again: if they wait for a processor, what they are about to
//!     submit joins the next sync instead of costing one more.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SendError, SyncSender};
use std::time::{Duration, Instant};

use super::codec::{encode, encoded_len};
use super::publish::Step;
use super::wal::{AppendError, Frame, Segment};
use super::{Shared, held, unavailable};
use crate::kv::KvOp;
use crate::metrics::{STORE_FAILURES, STORE_LOG_BYTES, STORE_QUEUE, STORE_REFUSALS, STORE_SYNC_SECONDS};
use crate::store::{Done, StoreError};

/// Most batches that wait for the committer: some seconds of its work.
const QUEUE_BATCHES_MAX: usize = 65_536;
/// Most bytes that wait for the committer.
const QUEUE_BYTES_MAX: usize = 128 << 20;
/// Most bytes in one sync, so that its latency stays bounded.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Most batches of a group that the committer publishes itself.
const OWN_BATCHES_MAX: usize = 16;
/// Batches of a group from which on others wait for a processor, probably (C4).
const CROWD: usize = 4;
/// Closed segments that may wait before writers are slowed (C3): one is flushed, one has just been closed.
const UNFLUSHED_EASY: u64 = 2;
/// Flushes that may wait for their compaction before writers are slowed (C3).
const UNMERGED_EASY: u64 = 6;
/// How long the committer rests for what it has written, doubled for each step that others are behind: first the log
/// takes 128 MB/s, then half of that.
const REST_PER_KIB: Duration = Duration::from_micros(4);
/// Most times that it is doubled: the log takes 4 MB/s.
const REST_DOUBLINGS_MAX: u64 = 6;
/// Longest rest.
const REST_MAX: Duration = Duration::from_millis(100);
/// Closed segments that may wait for a flush before writes are refused: they are in memory too.
const UNFLUSHED_MAX: u64 = 6;

/// Batches that were submitted together and are answered together, encoded by who submitted them.
pub(super) struct Job {
    payload: Vec<u8>,
    answer: Answer,
}

/// What waits for the committer.
#[derive(Default)]
pub(super) struct Queue {
    jobs: VecDeque<Job>,
    batches: usize,
    bytes: usize,
    /// The committer sleeps.
    idle: bool,
    pub(super) closed: bool,
}

impl Job {
    /// A job of `batches`.
    pub(super) fn new(batches: &[Vec<KvOp>], done: Done) -> Self {
        let mut payload = Vec::with_capacity(batches.iter().flatten().map(encoded_len).sum());
        batches.iter().for_each(|ops| encode(ops, &mut payload));
        Self { payload, answer: Answer { batches: batches.len(), done: Some(done) } }
    }
}

/// The answer that one job waits for (C2).
struct Answer {
    batches: usize,
    done: Option<Done>,
}

impl Answer {
    fn give(mut self, outcome: &Result<(), StoreError>) {
        if let Some(done) = self.done.take() {
            done(vec![outcome.clone(); self.batches]);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(vec![Err(StoreError::Timeout); self.batches]);
        }
    }
}

/// The answers that a group waits for.
#[derive(Default)]
pub(super) struct Answers(Vec<Answer>);

impl Answers {
    /// How many batches wait.
    pub(super) fn batches(&self) -> usize {
        self.0.iter().map(|answer| answer.batches).sum()
    }

    /// Everything is durable and visible.
    pub(super) fn succeed(self) {
        self.0.into_iter().for_each(|answer| answer.give(&Ok(())));
    }

    /// Nothing is, or nobody knows.
    pub(super) fn fail(self, error: &StoreError) {
        let outcome = Err(error.clone());
        self.0.into_iter().for_each(|answer| answer.give(&outcome));
    }
}

impl Shared {
    /// Queues a job, or refuses it early.
    pub(super) fn enqueue(&self, job: Job) {
        let (batches, bytes) = (job.answer.batches, job.payload.len());
        let mut queue = held(&self.queue);
        let refusal = if queue.closed {
            Some(("closed", "store is closed"))
        } else if queue.batches + batches > QUEUE_BATCHES_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            Some(("queue", "write queue is full"))
        } else if self.unflushed.load(Ordering::Relaxed) > UNFLUSHED_MAX {
            Some(("flush", "flush is behind"))
        } else {
            None
        };
        if let Some((label, reason)) = refusal {
            drop(queue);
            metrics::counter!(STORE_REFUSALS, "reason" => label).increment(batches as u64);
            return job.answer.give(&Err(unavailable(reason)));
        }
        queue.batches += batches;
        queue.bytes += bytes;
        queue.jobs.push_back(job);
        let waits = std::mem::take(&mut queue.idle);
        drop(queue);
        if waits {
            self.wake.notify_one();
        }
    }

    /// Next group of jobs, or `None` when closed and empty.
    fn next_group(&self) -> Option<(Frame, Answers)> {
        let mut queue = held(&self.queue);
        while queue.jobs.is_empty() {
            if queue.closed {
                return None;
            }
            queue.idle = true;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut group, mut bytes, mut batches) = (Vec::new(), 0, 0);
        while queue.jobs.front().is_some_and(|job| group.is_empty() || bytes + job.payload.len() <= GROUP_BYTES_MAX) {
            let Some(job) = queue.jobs.pop_front() else { break };
            bytes += job.payload.len();
            batches += job.answer.batches;
            group.push(job);
        }
        queue.bytes -= bytes;
        queue.batches -= batches;
        metrics::gauge!(STORE_QUEUE).set(queue.batches as f64);
        drop(queue);
        let (mut frame, mut answers) = (Frame::with_capacity(bytes), Answers(Vec::with_capacity(group.len())));
        for Job { payload, answer } in group {
            frame.extend(&payload);
            answers.0.push(answer);
        }
        Some((frame, answers))
    }

    /// Runs until the queue is closed and empty, or nobody publishes any more.
    pub(super) fn commit_loop(&self, mut segment: Segment, publish: &SyncSender<Step>, merge: &SyncSender<()>) {
        let _closes = CloseOnExit(self);
        while let Some((frame, answers)) = self.next_group() {
            if (segment.abandoned || segment.synced >= self.segment_bytes)
                && let Err(error) = self.next_segment(&mut segment, publish)
            {
                tracing::error!(%error, "no new log segment; writes are refused");
                let _ = self.hand_over(Step::Failed(answers, unavailable(error)), publish); // C2
                continue;
            }
            let (bytes, batches) = (frame.payload().len(), answers.batches());
            match self.append(&mut segment, frame, answers) {
                Step::Durable(frame, answers) if self.may_publish(&answers) => self.publish(frame, answers, merge),
                step => {
                    if self.hand_over(step, publish).is_err() {
                        return; // C2: what the publisher cannot take is dropped
                    }
                }
            }
            self.rest(bytes);
            if batches >= CROWD {
                std::thread::yield_now(); // C4
            }
        }
        segment.close();
    }

    /// Leaves time to those who are behind (C3).
    fn rest(&self, bytes: usize) {
        let segments = self.unflushed.load(Ordering::Relaxed).saturating_sub(UNFLUSHED_EASY);
        let behind = segments + self.unmerged.load(Ordering::Relaxed).saturating_sub(UNMERGED_EASY).div_ceil(2);
        if behind > 0 && !held(&self.queue).closed {
            let rest = REST_PER_KIB * (bytes.div_ceil(1024) as u32) * (1 << behind.min(REST_DOUBLINGS_MAX));
            std::thread::sleep(rest.min(REST_MAX));
        }
    }

    /// Whether this thread may publish a group itself: it is small, and everything before it is published (P1). To wake
    /// the publisher would take longer.
    fn may_publish(&self, answers: &Answers) -> bool {
        answers.batches() <= OWN_BATCHES_MAX && self.unpublished.load(Ordering::Acquire) == 0
    }

    fn hand_over(&self, step: Step, publish: &SyncSender<Step>) -> Result<(), SendError<Step>> {
        self.unpublished.fetch_add(1, Ordering::Relaxed);
        publish.send(step)
    }

    /// One frame per group: pages of an unsynced group reach the disk in any order, so a tear may lie anywhere in it,
    /// and must not look like damage in front of a good frame.
    fn append(&self, segment: &mut Segment, mut frame: Frame, answers: Answers) -> Step {
        let started = Instant::now();
        let appended = segment.append(&mut frame, &self.faults);
        metrics::histogram!(STORE_SYNC_SECONDS).record(started.elapsed().as_secs_f64());
        match appended {
            Ok(()) => {
                metrics::counter!(STORE_LOG_BYTES).increment(frame.payload().len() as u64);
                *held(&self.position) = (segment.number, segment.synced); // B1
                Step::Durable(frame, answers)
            }
            Err(AppendError::NotWritten(error)) => {
                tracing::error!(%error, "log write failed; nothing of it is kept");
                metrics::counter!(STORE_FAILURES, "outcome" => "not_written").increment(1);
                Step::Failed(answers, unavailable(error))
            }
            Err(AppendError::Unknown(error)) => {
                tracing::error!(%error, "log sync failed; outcome of the group is unknown");
                metrics::counter!(STORE_FAILURES, "outcome" => "unknown").increment(1);
                Step::Failed(answers, StoreError::Timeout)
            }
        }
    }

    fn next_segment(&self, segment: &mut Segment, publish: &SyncSender<Step>) -> io::Result<()> {
        // Until the next segment exists nothing more goes into this one: a failed attempt may have left a header on
        // disk that fixes this one's length (L1), and what came after it would not be replayed.
        segment.abandoned = true;
        *segment = Segment::create(&self.dir, segment.number + 1, segment.synced, &self.faults)?;
        *held(&self.position) = (segment.number, segment.synced); // B1: the one before may be flushed and go away
        // A publisher that is gone takes no group either: the one that follows says so.
        let _ = self.hand_over(Step::Closed(segment.number), publish);
        Ok(())
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
        let outcome = Err(unavailable("committer ended"));
        waiting.into_iter().for_each(|job| job.answer.give(&outcome));
    }
}
