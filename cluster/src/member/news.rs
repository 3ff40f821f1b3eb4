//! What links tell a member: who owns shards, which ones were given to it, and that it should look.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::held::Held;
use crate::link::Gossip;
use crate::routes::{NodeId, Route, Routes};
use crate::shard::ShardId;
use schema::ownership::group_of;

/// What concerns members, told by links.
#[derive(Debug)]
pub struct News {
    pub(super) routes: Arc<Routes>,
    pub(super) held: Arc<Held>,
    id: NodeId,
    pub(super) wake: Notify,
    /// Look at everything, not at leases alone.
    pub(super) thorough: AtomicBool,
    pub(super) moved: AtomicBool,
    /// Groups with shards that others gave to this node.
    pub(super) given: Mutex<BTreeSet<u32>>,
    pub(super) met: Mutex<Vec<NodeId>>,
}

impl News {
    /// For the member of process `id`.
    pub fn new(id: NodeId, routes: Arc<Routes>, held: Arc<Held>) -> Arc<Self> {
        let (wake, thorough, moved) = (Notify::new(), AtomicBool::new(true), AtomicBool::new(false));
        Arc::new(Self { routes, held, id, wake, thorough, moved, given: Mutex::default(), met: Mutex::default() })
    }

    /// Makes the member look at once, and at everything.
    pub fn wake(&self) {
        self.thorough.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

impl Gossip for News {
    fn news(&self, routes: Vec<(ShardId, Route)>) {
        let shards = self.routes.shards();
        // What is held here is known here.
        let foreign = |(shard, route): &(ShardId, Route)| {
            shard.0 < shards && route.owner != Some(self.id) && self.held.epoch(*shard) == 0
        };
        if self.routes.learn(routes.into_iter().filter(foreign)) {
            self.moved.store(true, Ordering::Release);
            self.wake.notify_one(); // the tables say no more than that
        }
    }

    fn nudged(&self) {
        self.wake();
    }

    fn given(&self, groups: Vec<u32>) {
        let possible = groups.into_iter().filter(|group| *group <= group_of(self.routes.shards()));
        self.given.lock().unwrap_or_else(PoisonError::into_inner).extend(possible);
        self.wake.notify_one();
    }

    fn linked(&self, peer: NodeId, up: bool) {
        if up {
            self.met.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
            self.moved.store(true, Ordering::Release);
        }
        self.routes.touch();
        self.wake();
    }
}
