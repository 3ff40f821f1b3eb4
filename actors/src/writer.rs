//! What an entity has changed and not yet stored: one batch in flight, the next one filling (effects E1).
//!
//! A1  What follows a write (an answer, a push, an ack to a conversation) runs only after that write is durable, and in
//!     the order in which it was asked for.
//! A2  A refused or unknown batch is submitted again unchanged: writes are absolute, so repeating is harmless.

use schema::rows::Timestamp;
use schema::store::Write;

use crate::compact::Spare;
use crate::effects::{Effects, Stored};
use crate::limits::BATCH_RETRY_MS;

/// The write side of one entity. `A` is what may follow a write. At rest it is one word: most entities write nothing.
#[derive(Debug)]
pub(crate) struct Writer<A>(Spare<Pending<A>>);

#[derive(Debug)]
struct Pending<A> {
    in_flight: Option<(Vec<Write>, Vec<A>)>,
    failed: bool,
    writes: Vec<Write>,
    after: Vec<A>,
}

impl<A> Default for Pending<A> {
    fn default() -> Self {
        Self { in_flight: None, failed: false, writes: Vec::new(), after: Vec::new() }
    }
}

impl<A> Pending<A> {
    fn is_empty(&self) -> bool {
        self.in_flight.is_none() && self.writes.is_empty() && self.after.is_empty()
    }
}

impl<A> Default for Writer<A> {
    fn default() -> Self {
        Self(Spare::default())
    }
}

impl<A> Writer<A> {
    /// Adds a write to the next batch.
    pub(crate) fn write(&mut self, write: Write) {
        self.0.make().writes.push(write);
    }

    /// Runs `after` once everything written so far is durable.
    pub(crate) fn then(&mut self, after: A) {
        self.0.make().after.push(after);
    }

    /// What waits for a write, in order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &A> {
        let pending = self.0.get().into_iter();
        pending.flat_map(|pending| pending.in_flight.iter().flat_map(|(_, after)| after).chain(&pending.after))
    }

    /// Nothing in flight and nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.get().is_none_or(Pending::is_empty)
    }

    /// Starts the next batch if none is in flight; returns what needs no batch to become true.
    pub(crate) fn flush(&mut self, fx: &mut Effects) -> Vec<A> {
        let Some(pending) = self.0.get_mut().filter(|pending| pending.in_flight.is_none()) else { return Vec::new() };
        let (writes, after) = (std::mem::take(&mut pending.writes), std::mem::take(&mut pending.after));
        if writes.is_empty() {
            self.0.drop_if(Pending::is_empty);
            return after;
        }
        fx.writes = Some(writes.clone());
        pending.in_flight = Some((writes, after));
        Vec::new()
    }

    /// The batch in flight ended so; returns what may happen now.
    pub(crate) fn stored(&mut self, now: Timestamp, outcome: Stored, fx: &mut Effects) -> Vec<A> {
        let Some(pending) = self.0.get_mut() else { return Vec::new() };
        if outcome.is_ok() {
            return pending.in_flight.take().map(|(_, after)| after).unwrap_or_default();
        }
        pending.failed = true;
        fx.wake(now.plus_ms(BATCH_RETRY_MS));
        Vec::new()
    }

    /// Submits a failed batch again.
    pub(crate) fn retry(&mut self, fx: &mut Effects) {
        let Some(pending) = self.0.get_mut().filter(|pending| pending.failed) else { return };
        if let Some((writes, _)) = &pending.in_flight {
            pending.failed = false;
            fx.writes = Some(writes.clone());
        }
    }
}
