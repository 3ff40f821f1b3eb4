//! The flusher: one thread that writes the runs of closed segments into tables and lets log segments go.
//!
//! F1  A segment is removed only after everything in it was flushed: until then a restart replays it.
//! F2  Runs are forgotten only after the tables with their changes are part of the tree. A reader sees the runs, or a
//!     tree with the tables, or both; what they say is the same.
//! F3  A failed flush keeps the log and is tried again; writers are held off by the number of unflushed segments.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

use lsm_tree::{AbstractTree, InternalValue, ValueType};

use super::codec::Change;
use super::runs::changes;
use super::{Shared, read, wal, write};
use crate::metrics::{STORE_FLUSH_FAILURES, STORE_FLUSH_SECONDS, STORE_UNFLUSHED};

/// Pause before a failed flush is tried again.
const FLUSH_RETRY: Duration = Duration::from_secs(1);
/// How long the flusher sleeps when nothing waits; any length works.
const IDLE: Duration = Duration::from_secs(3_600);

impl Shared {
    /// Seals the runs of the segments below `number`; these go once they are in tables.
    pub(super) fn rotate(&self, number: u64, flush: &Sender<u64>) {
        write(&self.memory).seal(number);
        let before = self.unflushed.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!(STORE_UNFLUSHED).set((before + 1) as f64);
        // The flusher ends only after the committer dropped its sender.
        let _ = flush.send(number);
    }

    /// Runs until the committer has ended.
    pub(super) fn flush_loop(&self, flushes: &Receiver<u64>, compact: &SyncSender<()>) {
        let (mut below, mut waiting) = (None, 0);
        loop {
            let wait = if below.is_some() { FLUSH_RETRY } else { IDLE };
            match flushes.recv_timeout(wait) {
                Ok(number) => {
                    below = Some(number);
                    waiting += 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(number) = below else { continue };
            let started = Instant::now();
            let flushed = self.flush_below(number);
            metrics::histogram!(STORE_FLUSH_SECONDS).record(started.elapsed().as_secs_f64());
            match flushed {
                Ok(()) => {
                    let before = self.unflushed.fetch_sub(waiting, Ordering::Relaxed);
                    metrics::gauge!(STORE_UNFLUSHED).set(before.saturating_sub(waiting) as f64);
                    (below, waiting) = (None, 0);
                    self.unmerged.fetch_add(1, Ordering::Relaxed);
                    if compact.send(()).is_err() {
                        return tracing::error!("the compactor is gone; nothing is flushed any more");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "flush failed; the log is kept and it is tried again");
                    metrics::counter!(STORE_FLUSH_FAILURES).increment(1);
                }
            }
        }
    }

    fn flush_below(&self, number: u64) -> Result<(), String> {
        let _no_snapshot = read(&self.files); // B2
        let runs = read(&self.memory).below(number);
        if !runs.is_empty() {
            // One number for all: of each key there is one change, and it is newer than what the tree has of it.
            let seqno = self.seqno.next();
            let flushed = self.tree.flush_to_tables(changes(&runs).map(|change| Ok(item(change, seqno))));
            let (tables, _) = flushed.map_err(|e| e.to_string())?.ok_or("a flush without tables")?;
            let watermark = self.watermark();
            self.tree.register_tables(&tables, None, None, &[], watermark).map_err(|e| e.to_string())?;
            write(&self.memory).forget_below(number); // F2
        }
        wal::remove_below(&self.dir, number).map_err(|e| e.to_string())
    }

    /// No reader works with less than this, now or later.
    pub(super) fn watermark(&self) -> u64 {
        let _no_readers = write(&self.readers);
        self.seqno.get()
    }
}

fn item(change: Change<'_>, seqno: u64) -> InternalValue {
    match change.value {
        Some(value) => InternalValue::from_components(change.key, value, seqno, ValueType::Value),
        None => InternalValue::new_tombstone(change.key, seqno),
    }
}
