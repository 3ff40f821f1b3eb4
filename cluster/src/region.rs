//! The region: the local door to any entity. Counts what it admits, per shard and in all, and sheds above a limit.
//!
//! G1  A request is admitted only while fewer than `per_shard` admitted requests of its shard are unanswered, and fewer
//!     than `in_all` of this node, whosever shards they are for. What entities tell each other is never shed: it was
//!     caused by something admitted, and dropping it would strand that.
//! G2  A permit returns its places exactly once, when it is dropped.
//! G3  A shard that leaves takes no requests any more, but what entities tell it: so it comes to rest.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::metrics::REQUESTS_SHED;
use crate::shard::ShardId;

/// Where a shard takes its messages. Implemented by whatever hosts it.
pub trait Mailbox<M>: Send + Sync + 'static {
    /// Hands `message` over; gives it back if the shard is gone.
    fn post(&self, message: M) -> Result<(), M>;

    /// What the shard has to do, for whoever watches.
    fn load(&self) -> Load {
        Load::default()
    }
}

/// What one shard has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages in its mailbox.
    pub waiting: usize,
    /// Entities in memory.
    pub resident: usize,
}

/// One shard as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Which.
    pub shard: ShardId,
    /// If it is hosted here: under which epoch, and whether it takes requests.
    pub hosted: Option<(u64, bool)>,
    /// Requests of this node that it has not answered, wherever it is hosted.
    pub admitted: usize,
    /// If it is hosted here: what it has to do.
    pub load: Load,
}

/// The shard, or the node, has as many unanswered requests as it may have. Nothing happened; a retry is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shard or node is overloaded")]
pub struct Overloaded;

struct Installed<M> {
    mailbox: Arc<dyn Mailbox<M>>,
    epoch: u64,
    leaving: bool,
}

struct Slot<M> {
    installed: RwLock<Option<Installed<M>>>,
    admitted: Arc<AtomicUsize>,
}

impl<M> Slot<M> {
    fn read(&self) -> RwLockReadGuard<'_, Option<Installed<M>>> {
        self.installed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Installed<M>>> {
        self.installed.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that are counted here (G2).
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(counted: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let place = Self(Arc::clone(counted));
        (counted.fetch_add(1, Ordering::Relaxed) < limit).then_some(place) // dropped, it gives back what it counted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "G2");
    }
}

/// One admitted request's places in its node and its shard.
#[derive(Debug)]
pub struct Permit {
    _node: Place,
    _shard: Place,
}

/// How many requests may be unanswered (G1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For one shard.
    pub per_shard: usize,
    /// For all shards.
    pub in_all: usize,
}

/// All shards, as this node hosts them.
pub struct Region<M> {
    slots: Box<[Slot<M>]>,
    admitted: Arc<AtomicUsize>,
    limits: Limits,
}

impl<M> std::fmt::Debug for Region<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("shards", &self.slots.len()).finish_non_exhaustive()
    }
}

impl<M: Send + 'static> Region<M> {
    /// A region of `shards` shards (a power of two) that admit as many unanswered requests as `limits` say.
    pub fn new(shards: u32, limits: Limits) -> Self {
        let slot = |_| Slot { installed: RwLock::new(None), admitted: Arc::default() };
        Self { slots: (0..shards).map(slot).collect(), admitted: Arc::default(), limits }
    }

    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        ShardId::of(key, self.shards())
    }

    /// Puts the mailbox of a shard in place that is hosted under `epoch` from now on.
    pub fn install(&self, shard: ShardId, epoch: u64, mailbox: Arc<dyn Mailbox<M>>) {
        *self.slots[shard.0 as usize].write() = Some(Installed { mailbox, epoch, leaving: false });
    }

    /// Lets a shard come to rest (G3).
    pub fn leave(&self, shard: ShardId, epoch: u64) {
        if let Some(installed) = self.slots[shard.0 as usize].write().as_mut().filter(|i| i.epoch == epoch) {
            installed.leaving = true;
        }
    }

    /// Takes the mailbox of a shard away, unless it is hosted under another epoch meanwhile.
    pub fn remove(&self, shard: ShardId, epoch: u64) {
        self.slots[shard.0 as usize].write().take_if(|installed| installed.epoch == epoch);
    }

    /// Takes all mailboxes away.
    pub fn remove_all(&self) {
        self.slots.iter().for_each(|slot| *slot.write() = None);
    }

    /// Under which epoch a shard is hosted here, and whether it takes requests.
    pub fn hosted(&self, shard: ShardId) -> Option<(u64, bool)> {
        self.slots[shard.0 as usize].read().as_ref().map(|installed| (installed.epoch, !installed.leaving))
    }

    /// Every shard as it is now. Not one moment for all of them: shards go on meanwhile.
    pub fn occupancy(&self) -> Vec<Occupancy> {
        let slots = (0..self.shards()).map(ShardId).zip(&self.slots);
        let view = |(shard, slot): (ShardId, &Slot<M>)| {
            let installed = slot.read();
            Occupancy {
                shard,
                hosted: installed.as_ref().map(|installed| (installed.epoch, !installed.leaving)),
                admitted: slot.admitted.load(Ordering::Relaxed),
                load: installed.as_ref().map_or(Load::default(), |installed| installed.mailbox.load()),
            }
        };
        slots.map(view).collect()
    }

    /// Takes places for one request (G1).
    pub fn admit(&self, shard: ShardId) -> Result<Permit, Overloaded> {
        let places = || {
            let node = Place::take(&self.admitted, self.limits.in_all)?;
            let shard = Place::take(&self.slots[shard.0 as usize].admitted, self.limits.per_shard)?;
            Some(Permit { _node: node, _shard: shard })
        };
        places().ok_or_else(|| {
            metrics::counter!(REQUESTS_SHED).increment(1);
            Overloaded
        })
    }

    /// Hands what an entity tells another to a shard of this node, or gives it back. Never shed (G1).
    pub fn post(&self, shard: ShardId, message: M) -> Result<(), M> {
        match self.slots[shard.0 as usize].read().as_ref() {
            Some(installed) => installed.mailbox.post(message),
            None => Err(message),
        }
    }

    /// Hands a request to a shard of this node, or gives it back (G3).
    pub fn request(&self, shard: ShardId, message: M) -> Result<(), M> {
        match self.slots[shard.0 as usize].read().as_ref() {
            Some(installed) if !installed.leaving => installed.mailbox.post(message),
            _ => Err(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Box8(Mutex<Vec<u8>>);

    impl Mailbox<u8> for Box8 {
        fn post(&self, message: u8) -> Result<(), u8> {
            self.0.lock().unwrap().push(message);
            Ok(())
        }

        fn load(&self) -> Load {
            Load { waiting: self.0.lock().unwrap().len(), resident: 7 }
        }
    }

    const FEW: Limits = Limits { per_shard: 2, in_all: 4 };

    #[test]
    fn a_node_admits_less_than_all_its_shards_might() {
        let region = Region::<u8>::new(4, Limits { per_shard: 2, in_all: 3 });
        let mut permits: Vec<Permit> = [0, 1, 2].map(|shard| region.admit(ShardId(shard)).expect("room")).into();
        assert_eq!(region.admit(ShardId(3)).err(), Some(Overloaded), "the node has three");
        permits.remove(0);
        permits.push(region.admit(ShardId(1)).expect("a place came back"));
        let admitted = || region.occupancy().iter().map(|shard| shard.admitted).collect::<Vec<_>>();
        assert_eq!(admitted(), [0, 2, 1, 0], "what was refused left no trace");
        drop(permits);
        for _ in 0..2 {
            assert_eq!(region.admit(ShardId(0)).map(drop), Ok(()), "all places came back");
        }
        let held = [region.admit(ShardId(0)), region.admit(ShardId(0))];
        assert!(held.iter().all(Result::is_ok) && region.admit(ShardId(0)).is_err(), "the shard has two");
        assert!(region.admit(ShardId(1)).is_ok(), "the place in the node of what a shard refused came back");
    }

    #[test]
    fn requests_above_the_limit_are_shed_and_places_come_back() {
        let region = Region::<u8>::new(2, FEW);
        let (a, b) = (ShardId(0), ShardId(1));
        let first = region.admit(a);
        let _second = region.admit(a);
        assert_eq!(region.admit(a).err(), Some(Overloaded));
        assert!(region.admit(b).is_ok(), "shards are counted apart");
        drop(first);
        assert!(region.admit(a).is_ok());
        assert_eq!(region.post(a, 1), Err(1));
    }

    #[test]
    fn a_leaving_shard_takes_what_it_is_told_and_no_requests() {
        let (region, shard, mailbox) = (Region::<u8>::new(1, FEW), ShardId(0), Arc::new(Box8::default()));
        region.install(shard, 3, mailbox.clone());
        assert_eq!((region.request(shard, 1), region.hosted(shard)), (Ok(()), Some((3, true))));
        region.leave(shard, 3);
        assert_eq!((region.request(shard, 2), region.post(shard, 3)), (Err(2), Ok(())));
        region.install(shard, 4, mailbox.clone());
        region.remove(shard, 3);
        assert_eq!(region.hosted(shard), Some((4, true)), "an older epoch removes nothing");
        region.remove(shard, 4);
        assert_eq!(region.hosted(shard), None);
        assert_eq!(*mailbox.0.lock().unwrap(), [1, 3]);
    }

    #[test]
    fn every_shard_is_seen_as_it_is() {
        let (region, mailbox) = (Region::<u8>::new(2, FEW), Arc::new(Box8::default()));
        region.install(ShardId(1), 5, mailbox);
        region.leave(ShardId(1), 5);
        let _permit = region.admit(ShardId(0));
        assert_eq!(region.post(ShardId(1), 1), Ok(()));
        let shard = |shard, hosted, admitted, waiting, resident| Occupancy {
            shard: ShardId(shard),
            hosted,
            admitted,
            load: Load { waiting, resident },
        };
        assert_eq!(region.occupancy(), [shard(0, None, 1, 0, 0), shard(1, Some((5, false)), 0, 1, 7)]);
    }
}
