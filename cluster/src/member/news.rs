//! What links tell a member: who owns shards, and that it should look.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::held::Held;
use crate::link::Gossip;
use crate::routes::{NodeId, Route, Routes};
use crate::shard::ShardId;

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
    pub(super) met: Mutex<Vec<NodeId>>,
}

impl News {
    /// For the member of process `id`.
    pub fn new(id: NodeId, routes: Arc<Routes>, held: Arc<Held>) -> Arc<Self> {
        let (wake, thorough, moved) = (Notify::new(), AtomicBool::new(true), AtomicBool::new(false));
        Arc::new(Self { routes, held, id, wake, thorough, moved, met: Mutex::default() })
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
        let foreign = |(shard, route): &(ShardId, Route)| shard.0 < shards && route.owner != Some(self.id);
        let news: Vec<_> =
            routes.into_iter().filter(foreign).filter(|(shard, _)| self.held.epoch(*shard) == 0).collect();
        if self.routes.learn(news) {
            self.moved.store(true, Ordering::Release);
            self.wake();
        }
    }

    fn nudged(&self) {
        self.wake();
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
