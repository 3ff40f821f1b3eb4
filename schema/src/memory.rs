//! The store in memory, for tests and the simulator, with faults on demand.
//!
//! M1  Applied means durable here: [`MemoryStore::crash`] keeps exactly what was applied.
//! M2  Held batches are neither visible nor answered; they are released in submission order.
//! M3  Completions are called inline by `submit` when nothing is held, and by `release` otherwise.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::kv::local::{Engine, Local};
use crate::kv::{Direction, KvOp, KvStore, Pairs};
use crate::ownership::{NodeRow, Ownership, ShardChange, ShardRow, group_of};
use crate::store::{Done, StoreError};

/// The store in memory.
pub type MemoryStore = KvStore<Local<MemoryEngine>>;

/// A sorted map and the writes that wait in front of it.
#[derive(Default)]
pub struct MemoryEngine {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    held: VecDeque<(Vec<Vec<KvOp>>, Done)>,
    holding: bool,
    failing: bool,
}

impl State {
    fn apply(&mut self, batches: &[Vec<KvOp>]) {
        for op in batches.iter().flatten() {
            match op {
                KvOp::Put(key, value) => drop(self.rows.insert(key.clone(), value.clone())),
                KvOp::Remove(key) => drop(self.rows.remove(key)),
            }
        }
    }
}

impl MemoryEngine {
    /// A panic while the lock is held leaves the map as consistent as it was: every step is one insert or remove.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    /// An empty store without faults.
    pub fn new() -> Self {
        Self::over(Local::over(MemoryEngine::default()))
    }

    /// While on, every write is answered `Unavailable` and not applied.
    pub fn fail_writes(&self, on: bool) {
        self.backend.engine.state().failing = on;
    }

    /// While on, writes wait for [`Self::release`]. Turning it off releases what waits.
    pub fn hold_writes(&self, on: bool) {
        self.backend.engine.state().holding = on;
        if !on {
            self.release(usize::MAX);
        }
    }

    /// Applies and answers the oldest `n` held submissions; returns how many there were.
    pub fn release(&self, n: usize) -> usize {
        for released in 0..n {
            let mut state = self.backend.engine.state();
            let Some((batches, done)) = state.held.pop_front() else {
                return released;
            };
            state.apply(&batches);
            drop(state); // `done` may submit again
            done(vec![Ok(()); batches.len()]);
        }
        n
    }

    /// What a restart would find: everything applied, nothing held.
    pub fn crash(&self) -> Self {
        let rows = self.backend.engine.state().rows.clone();
        Self::over(Local::over(MemoryEngine { state: Mutex::new(State { rows, ..State::default() }) }))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    fn apply(&self, batches: Vec<Vec<KvOp>>, done: Done) {
        let mut state = self.state();
        if state.failing {
            drop(state);
            return done(vec![Err(StoreError::Unavailable("injected fault".to_owned())); batches.len()]);
        }
        // Also behind held ones that are being released: order is by submission.
        if state.holding || !state.held.is_empty() {
            return state.held.push_back((batches, done));
        }
        state.apply(&batches);
        drop(state);
        done(vec![Ok(()); batches.len()]);
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], through: &[u8], limit: usize, direction: Direction) -> Result<Pairs, StoreError> {
        let state = self.state();
        let range = state.rows.range::<[u8], _>((Bound::Included(from), Bound::Included(through)));
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(match direction {
            Direction::Up => range.take(limit).map(owned).collect(),
            Direction::Down => range.rev().take(limit).map(owned).collect(),
        })
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Leases and owners in memory, for tests and the simulator.
#[derive(Debug, Default)]
pub struct MemoryOwnership {
    tables: Mutex<(BTreeMap<String, NodeRow>, BTreeMap<u32, ShardRow>)>,
}

impl MemoryOwnership {
    fn tables(&self) -> MutexGuard<'_, (BTreeMap<String, NodeRow>, BTreeMap<u32, ShardRow>)> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Ownership for MemoryOwnership {
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        Ok(self.tables().0.values().cloned().collect())
    }

    async fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        Ok(self.tables().0.get(name).cloned())
    }

    async fn change_node(
        &self,
        name: &str,
        before: Option<&NodeRow>,
        after: Option<&NodeRow>,
    ) -> Result<bool, StoreError> {
        let nodes = &mut self.tables().0;
        if nodes.get(name) != before {
            return Ok(false);
        }
        match after {
            Some(after) => drop(nodes.insert(name.to_owned(), after.clone())),
            None => drop(nodes.remove(name)),
        }
        Ok(true)
    }

    async fn shards(&self) -> Result<Vec<ShardRow>, StoreError> {
        Ok(self.tables().1.values().cloned().collect())
    }

    async fn group(&self, group: u32) -> Result<Vec<ShardRow>, StoreError> {
        Ok(self.tables().1.values().filter(|row| group_of(row.shard) == group).cloned().collect())
    }

    async fn change_shards(&self, changes: &[ShardChange]) -> Result<bool, StoreError> {
        let shards = &mut self.tables().1;
        let as_seen = changes.iter().all(|change| shards.get(&change.after.shard) == change.before.as_ref());
        if as_seen {
            shards.extend(changes.iter().map(|change| (change.after.shard, change.after.clone())));
        }
        Ok(as_seen)
    }

    async fn settle(&self, _: u32, _: u64, _: u64) -> Result<(), StoreError> {
        Ok(()) // a memory has no log: what was stored is there
    }

    fn at_rest(&self, _: u32, _: u64) -> bool {
        true
    }
}
