//! The publisher: one thread that makes durable groups visible and answers them, while the committer syncs the next.
//!
//! P1  Groups are taken in the order in which they were written, failed ones too: that is the order of their answers.
//! P2  A group is visible before it is answered, and durable before it is visible (E1).
//! P3  The runs of a segment are sealed after its last group and before the first of the next one.
//! P4  What merges runs while others wait is bounded (R4); the rest is done by the merger, one thread beside this one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use super::commit::Answers;
use super::runs::Run;
use super::wal::Frame;
use super::{Shared, read, write};
use crate::metrics::STORE_BATCHES;
use crate::store::StoreError;

/// Most groups that are durable and not yet visible. More would only wait longer.
pub(super) const GROUPS_MAX: usize = 2;

/// What the committer did.
pub(super) enum Step {
    /// A group is durable.
    Durable(Frame, Answers),
    /// It is not, or nobody knows.
    Failed(Answers, StoreError),
    /// Segments below this number are closed.
    Closed(u64),
}

impl Shared {
    /// Runs until the committer has ended.
    pub(super) fn publish_loop(&self, steps: &Receiver<Step>, flush: &Sender<u64>, merge: &SyncSender<()>) {
        for step in steps {
            match step {
                Step::Durable(frame, answers) => self.publish(frame, answers, merge),
                Step::Failed(answers, error) => answers.fail(&error),
                Step::Closed(number) => self.rotate(number, flush),
            }
            self.unpublished.fetch_sub(1, Ordering::Release);
        }
    }

    /// Makes a group visible and answers it. One at a time: by this thread, or by the committer while this one has
    /// nothing to do.
    pub(super) fn publish(&self, frame: Frame, answers: Answers, merge: &SyncSender<()>) {
        // The committer encoded it: there is nothing in it that does not decode.
        if let Some(run) = frame.into_run() {
            write(&self.memory).push(run);
        }
        metrics::counter!(STORE_BATCHES).increment(answers.batches() as u64);
        answers.succeed();
        self.merge_in_passing(merge);
    }

    /// Merges what is due and small. What is due stays as it is meanwhile: the merger works on other runs (R4).
    fn merge_in_passing(&self, merge: &SyncSender<()>) {
        loop {
            let due = read(&self.memory).due();
            match due {
                Some((due, true)) => self.merge_runs(&due),
                Some((_, false)) => {
                    let _ = merge.try_send(()); // it has been told already, or it is gone and reads look at more runs
                    return;
                }
                None => return,
            }
        }
    }

    fn merge_runs(&self, due: &[Arc<Run>]) {
        let merged = Run::merge(due);
        write(&self.memory).replace(due, merged);
    }

    /// Merges whatever is due, each time it is told; ends with those who tell it.
    pub(super) fn merge_loop(&self, told: &Receiver<()>) {
        for () in told {
            loop {
                let due = read(&self.memory).due();
                let Some((due, false)) = due else { break }; // small ones are merged in passing
                self.merge_runs(&due);
            }
        }
    }
}
