//! The publisher: one thread that makes durable groups visible and answers them, while the committer syncs the next.
//!
//! P1  Groups are taken in the order in which they were written, failed ones too: that is the order of their answers.
//! P2  A group is visible before it is answered, and durable before it is visible (E1).
//! P3  The runs of a segment are sealed after its last group and before the first of the next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

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
    pub(super) fn publish_loop(&self, steps: &Receiver<Step>, flush: &Sender<u64>) {
        for step in steps {
            match step {
                Step::Durable(frame, answers) => self.publish(frame, answers),
                Step::Failed(answers, error) => answers.fail(&error),
                Step::Closed(number) => self.rotate(number, flush),
            }
            self.unpublished.fetch_sub(1, Ordering::Release);
        }
    }

    /// Makes a group visible and answers it. One at a time: by this thread, or by the committer while this one has
    /// nothing to do.
    pub(super) fn publish(&self, frame: Frame, answers: Answers) {
        // The committer encoded it: there is nothing in it that does not decode.
        if let Some(run) = frame.into_run() {
            write(&self.memory).push(run);
        }
        metrics::counter!(STORE_BATCHES).increment(answers.batches() as u64);
        answers.succeed();
        self.merge_runs();
    }

    /// Merges what is due. Nobody else changes these runs meanwhile, so they are the same after the merge.
    fn merge_runs(&self) {
        loop {
            let due: Vec<Arc<Run>> = read(&self.memory).due();
            if due.is_empty() {
                return;
            }
            let merged = Run::merge(&due);
            write(&self.memory).replace(due.len(), merged);
        }
    }
}
