//! What an entity has changed and not yet stored: one batch in flight, the next one filling (effects E1).
//!
//! A1  What follows a write (an answer, a push, an ack to a conversation) runs only after that write is durable, and in
//!     the order in which it was asked for.
//! A2  A refused or unknown batch is submitted again unchanged: writes are absolute, so repeating is harmless.

use schema::rows::Timestamp;
use schema::store::Write;

use crate::effects::{Effects, Stored};
use crate::limits::BATCH_RETRY_MS;

/// The write side of one entity. `A` is what may follow a write.
#[derive(Debug)]
pub(crate) struct Writer<A> {
    in_flight: Option<(Vec<Write>, Vec<A>)>,
    failed: bool,
    writes: Vec<Write>,
    after: Vec<A>,
}

impl<A> Default for Writer<A> {
    fn default() -> Self {
        Self { in_flight: None, failed: false, writes: Vec::new(), after: Vec::new() }
    }
}

impl<A> Writer<A> {
    /// Adds a write to the next batch.
    pub(crate) fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Runs `after` once everything written so far is durable.
    pub(crate) fn then(&mut self, after: A) {
        self.after.push(after);
    }

    /// Nothing in flight and nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.writes.is_empty() && self.after.is_empty()
    }

    /// Starts the next batch if none is in flight; returns what needs no batch to become true.
    pub(crate) fn flush(&mut self, fx: &mut Effects) -> Vec<A> {
        if self.in_flight.is_some() {
            return Vec::new();
        }
        let (writes, after) = (std::mem::take(&mut self.writes), std::mem::take(&mut self.after));
        if writes.is_empty() {
            return after;
        }
        fx.writes = Some(writes.clone());
        self.in_flight = Some((writes, after));
        Vec::new()
    }

    /// The batch in flight ended so; returns what may happen now.
    pub(crate) fn stored(&mut self, now: Timestamp, outcome: Stored, fx: &mut Effects) -> Vec<A> {
        if outcome.is_ok() {
            return self.in_flight.take().map(|(_, after)| after).unwrap_or_default();
        }
        self.failed = true;
        fx.wake(now.plus_ms(BATCH_RETRY_MS));
        Vec::new()
    }

    /// Submits a failed batch again.
    pub(crate) fn retry(&mut self, fx: &mut Effects) {
        if let Some((writes, _)) = self.in_flight.as_ref().filter(|_| self.failed) {
            self.failed = false;
            fx.writes = Some(writes.clone());
        }
    }
}
