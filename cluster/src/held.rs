//! What this node holds at this moment: its lease, and the epochs of its shards. Read before anything is acknowledged.
//!
//! E1  A shard is held under one epoch at a time, and only while the lease has not ended by this process's own clock,
//!     which counts what passes while the process is stopped or the machine sleeps.
//! E2  An epoch that was found to have ended stays so, also if the lease is renewed after all: a write of it was refused
//!     and may stand half done in the log, and only a new epoch settles that.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use schema::cql::Guard;
use schema::store::Fence;

use crate::shard::ShardId;

/// A clock that nobody can set, and that goes on while the process is stopped or the machine sleeps.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Milliseconds since a moment of its choice.
    fn now_ms(&self) -> u64;
}

/// Counts while the machine sleeps. The one behind `Instant` stands still then, and a lease would last longer here than
/// for those who watch it.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The machine's, since it was started.
#[derive(Debug)]
struct SinceBoot;

impl Clock for SinceBoot {
    fn now_ms(&self) -> u64 {
        let now = clock_gettime(CLOCK);
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
        seconds.unwrap_or(u64::MAX).saturating_mul(1_000).saturating_add(nanos.unwrap_or(0) / 1_000_000)
    }
}

/// Epochs of shards and the end of the lease.
#[derive(Debug)]
pub struct Held {
    epochs: Box<[AtomicU64]>,
    /// The highest epoch under which each shard was held here, or given up.
    last: Box<[AtomicU64]>,
    until_ms: AtomicU64,
    clock: Box<dyn Clock>,
}

impl Held {
    /// Holds nothing, of `shards` shards.
    pub fn nothing(shards: u32) -> Self {
        Self::timed(shards, Box::new(SinceBoot))
    }

    /// The same, by another clock than the machine's.
    pub fn timed(shards: u32, clock: Box<dyn Clock>) -> Self {
        let none = || (0..shards).map(|_| AtomicU64::new(0)).collect();
        Self { epochs: none(), last: none(), until_ms: AtomicU64::new(0), clock }
    }

    /// Holds all shards for ever, under epoch 0: a node that is alone.
    pub fn everything(shards: u32) -> Self {
        Self { until_ms: AtomicU64::new(u64::MAX), ..Self::nothing(shards) }
    }

    /// Milliseconds of the clock that leases are measured by.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The lease ends at `until_ms`; 0: it has.
    pub fn lease(&self, until_ms: u64) {
        self.until_ms.store(until_ms, Ordering::SeqCst);
    }

    /// The lease has not ended.
    pub fn leased(&self) -> bool {
        self.now_ms() < self.until_ms.load(Ordering::SeqCst)
    }

    /// A shard is held under `epoch` from now on.
    pub fn set(&self, shard: ShardId, epoch: u64) {
        self.last[shard.0 as usize].fetch_max(epoch, Ordering::SeqCst);
        self.epochs[shard.0 as usize].store(epoch, Ordering::SeqCst);
    }

    /// A shard is not held, nor ever will be under this epoch: others may have it already.
    pub fn give_up(&self, shard: ShardId, epoch: u64) {
        self.last[shard.0 as usize].fetch_max(epoch, Ordering::SeqCst);
        self.epochs[shard.0 as usize].store(0, Ordering::SeqCst);
    }

    /// The highest epoch under which this process held a shard, or gave it up; 0: it never did.
    pub fn last(&self, shard: ShardId) -> u64 {
        self.last[shard.0 as usize].load(Ordering::SeqCst)
    }

    /// Under which epoch a shard is held; 0: it is not.
    pub fn epoch(&self, shard: ShardId) -> u64 {
        self.epochs[shard.0 as usize].load(Ordering::SeqCst)
    }

    /// Nothing is held any more.
    pub fn drop_all(&self) {
        self.lease(0);
        self.epochs.iter().for_each(|epoch| epoch.store(0, Ordering::SeqCst));
    }
}

impl Guard for Held {
    fn holds(&self, fence: Fence) -> bool {
        let held = &self.epochs[fence.shard as usize];
        if held.load(Ordering::SeqCst) != fence.epoch {
            return false;
        }
        let leased = self.leased();
        if !leased {
            // E2. If it was set anew meanwhile, that epoch is another one.
            let _ = held.compare_exchange(fence.epoch, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        leased
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_held_under_its_epoch_while_the_lease_lasts() {
        let (held, fence) = (Held::nothing(4), |epoch| Fence { shard: 2, epoch });
        held.set(ShardId(2), 7);
        held.lease(held.now_ms() + 60_000);
        assert!(held.holds(fence(7)) && !held.holds(fence(6)));
        held.lease(0);
        assert!(!held.holds(fence(7)), "no lease");
        held.lease(held.now_ms() + 60_000);
        assert!(!held.holds(fence(7)) && held.epoch(ShardId(2)) == 0, "E2");
        held.set(ShardId(2), 7);
        held.drop_all();
        held.give_up(ShardId(3), 9);
        assert_eq!([1, 2, 3].map(|shard| held.last(ShardId(shard))), [0, 7, 9], "what ended is not forgotten");
        assert!(!held.holds(fence(7)) && !held.holds(fence(0)));
        assert!(Held::everything(4).holds(fence(0)));
    }
}
