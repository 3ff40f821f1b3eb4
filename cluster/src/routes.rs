//! Who owns which shard, as this node knows it. A hint: the owner checks every message against what it holds.
//!
//! T1  What is known of a shard never goes back to an older epoch; within one epoch an owner may only vanish.

use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::shard::ShardId;

/// One process of a deployment. Never used twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// Bits of an incarnation that tell the leases of one process apart.
const LEASE_BITS: u32 = 16;

impl NodeId {
    /// The process that holds, or held, a lease of this incarnation.
    pub fn of(incarnation: u64) -> Self {
        Self(incarnation >> LEASE_BITS)
    }

    /// The incarnation of this process's lease number `lease`.
    pub fn incarnation(self, lease: u16) -> u64 {
        (self.0 << LEASE_BITS) | u64::from(lease)
    }
}

/// Who owns a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Of the owner, or of the last one.
    pub epoch: u64,
    /// `None`: nobody, for the moment.
    pub owner: Option<NodeId>,
}

impl Route {
    fn replaces(self, known: Self) -> bool {
        self.epoch > known.epoch || (self.epoch == known.epoch && self.owner.is_none() && known.owner.is_some())
    }
}

/// What is known of all shards.
#[derive(Debug)]
pub struct Routes {
    slots: RwLock<Box<[Route]>>,
    changed: watch::Sender<u64>,
}

impl Routes {
    /// Nothing is known.
    pub fn new(shards: u32) -> Self {
        Self { slots: RwLock::new(vec![Route::default(); shards as usize].into()), changed: watch::Sender::new(0) }
    }

    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).len() as u32
    }

    /// What is known of a shard.
    pub fn get(&self, shard: ShardId) -> Route {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)[shard.0 as usize]
    }

    /// All that is known, by shard.
    pub fn all(&self) -> Vec<Route> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).to_vec()
    }

    /// Takes news; `true` if anything was new (T1).
    pub fn learn(&self, news: impl IntoIterator<Item = (ShardId, Route)>) -> bool {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let mut learned = false;
        for (shard, route) in news {
            if let Some(slot) = slots.get_mut(shard.0 as usize).filter(|slot| route.replaces(**slot)) {
                (*slot, learned) = (route, true);
            }
        }
        drop(slots);
        if learned {
            self.touch();
        }
        learned
    }

    /// Wakes whoever waits, although no route changed: a way to an owner did.
    pub fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// The same, if something seems to have changed.
    pub fn touch_if(&self, changed: bool) {
        if changed {
            self.touch();
        }
    }

    /// Counts changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_never_go_back() {
        let (routes, shard, changes) = (Routes::new(2), ShardId(1), |routes: &Routes| *routes.changes().borrow());
        let route = |epoch, owner: Option<u64>| (shard, Route { epoch, owner: owner.map(NodeId) });
        assert!(routes.learn([route(2, Some(1))]));
        assert!(!routes.learn([route(1, Some(7)), route(2, Some(7))]), "T1");
        assert!(routes.learn([route(2, None)]));
        assert!(!routes.learn([route(2, Some(1))]), "T1: what ended has ended");
        assert_eq!((routes.get(shard), changes(&routes)), (route(2, None).1, 2));
        assert!(routes.learn([route(3, Some(2))]));
        assert_eq!(routes.get(ShardId(0)), Route::default());
        assert_eq!(NodeId::of(NodeId(5).incarnation(9)), NodeId(5));
    }
}
