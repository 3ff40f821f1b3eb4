//! The region: the local door to any entity. Counts what it admits per shard and sheds above a limit.
//!
//! G1  A request is admitted only while fewer than `limit` admitted requests of its shard are unanswered. What entities
//!     tell each other is never shed: it was caused by something admitted, and dropping it would strand that.
//! G2  A permit returns its place exactly once, when it is dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::shard::ShardId;

/// Where a shard takes its messages. Implemented by whatever hosts it.
pub trait Mailbox<M>: Send + Sync + 'static {
    /// Hands `message` over; gives it back if the shard is gone.
    fn post(&self, message: M) -> Result<(), M>;
}

/// The request was refused before anything happened; a retry is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The shard has as many unanswered requests as it may have.
    #[error("shard is overloaded")]
    Overloaded,
    /// No mailbox is installed: starting, restarting or handed off.
    #[error("shard is not here")]
    NotHere,
}

struct Slot<M> {
    mailbox: RwLock<Option<Arc<dyn Mailbox<M>>>>,
    admitted: Arc<AtomicUsize>,
}

/// One admitted request's place in its shard (G2).
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "G2");
    }
}

/// All shards of this node.
pub struct Region<M> {
    slots: Box<[Slot<M>]>,
    limit: usize,
}

impl<M> std::fmt::Debug for Region<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("shards", &self.slots.len()).finish_non_exhaustive()
    }
}

impl<M: Send + 'static> Region<M> {
    /// A region of `shards` shards (a power of two) that each admit `limit` unanswered requests.
    pub fn new(shards: u32, limit: usize) -> Self {
        let slot = |_| Slot { mailbox: RwLock::new(None), admitted: Arc::new(AtomicUsize::new(0)) };
        Self { slots: (0..shards).map(slot).collect(), limit }
    }

    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        ShardId::of(key, self.shards())
    }

    /// Puts a mailbox in place (activation, restart) or takes it away.
    pub fn install(&self, shard: ShardId, mailbox: Option<Arc<dyn Mailbox<M>>>) {
        *self.slots[shard.0 as usize].mailbox.write().unwrap_or_else(PoisonError::into_inner) = mailbox;
    }

    /// Takes a place for one request (G1).
    pub fn admit(&self, shard: ShardId) -> Result<Permit, Refused> {
        let admitted = &self.slots[shard.0 as usize].admitted;
        if admitted.fetch_add(1, Ordering::Relaxed) >= self.limit {
            admitted.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Overloaded);
        }
        Ok(Permit(Arc::clone(admitted)))
    }

    /// Hands a message to a shard of this node. Never shed (G1).
    pub fn post(&self, shard: ShardId, message: M) -> Result<(), Refused> {
        let slot = self.slots[shard.0 as usize].mailbox.read().unwrap_or_else(PoisonError::into_inner);
        let mailbox = slot.as_ref().ok_or(Refused::NotHere)?;
        mailbox.post(message).map_err(|_| Refused::NotHere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_above_the_limit_are_shed_and_places_come_back() {
        let region = Region::<u8>::new(2, 2);
        let (a, b) = (ShardId(0), ShardId(1));
        let first = region.admit(a);
        let _second = region.admit(a);
        assert_eq!(region.admit(a).err(), Some(Refused::Overloaded));
        assert!(region.admit(b).is_ok(), "shards are counted apart");
        drop(first);
        assert!(region.admit(a).is_ok());
        assert_eq!(region.post(a, 1), Err(Refused::NotHere));
    }
}
