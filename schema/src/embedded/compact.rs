//! The compactor: one thread that merges tables, so that a read looks at few of them. Flushes go on meanwhile.
//!
//! M1  Each flush asks for one step. Only so many of them wait; then flushes do, then closed segments, and then writers
//!     are refused: tables never become more than a read can look at. Long before, writers are slowed (C3).
//! M2  A store that closes does not begin another step: what is not merged costs nothing but time, after the next start.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use lsm_tree::AbstractTree;
use lsm_tree::compaction::Leveled;

use super::{Shared, held, read};

/// Most flushes that wait for their step: so many tables more has a read to look at (M1).
pub(super) const STEPS_MAX: usize = 16;

impl Shared {
    /// Runs until the flusher has ended.
    pub(super) fn compact_loop(&self, steps: &Receiver<()>) {
        for () in steps {
            if !held(&self.queue).closed {
                self.compact();
            }
            self.unmerged.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn compact(&self) {
        let _no_snapshot = read(&self.files); // B2
        if let Err(error) = self.tree.compact(Arc::new(Leveled::default()), self.watermark()) {
            tracing::error!(%error, "compaction failed; reads stay correct and get slower");
        }
    }
}
