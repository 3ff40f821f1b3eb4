//! Bounded caches of what the store says.
//!
//! G1  A memo has two generations: when the young one is full it becomes the old one, and the old one is dropped.
//! G2  It is split by key, so that whoever asks waits for few others, and for the growth of one part only.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Entries of one generation: as many agents as a node has in memory. Keys and handles of so many agents, about 60 bytes an
/// entry, take about 110 MiB together, beside 700 MiB of the agents; both generations full, twice as much.
const GENERATION: usize = PARTS * 28_672;
/// The same of what counts for a short time only: more would be kept in vain.
const FRESH_GENERATION: usize = 32_768;
/// Parts of a memo.
const PARTS: usize = 32;

/// A bounded cache.
pub struct Memo<K, V> {
    hasher: RandomState,
    /// Most entries of a generation of a part.
    most: usize,
    parts: [Mutex<[HashMap<K, V>; 2]>; PARTS],
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self::of(GENERATION)
    }
}

impl<K, V> Memo<K, V> {
    fn of(generation: usize) -> Self {
        let parts = std::array::from_fn(|_| Mutex::default());
        Self { hasher: RandomState::new(), most: generation / PARTS, parts }
    }
}

impl<K: Hash + Eq, V: Clone> Memo<K, V> {
    fn part<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, [HashMap<K, V>; 2]>
    where
        K: Borrow<Q>,
    {
        let part = self.hasher.hash_one(key) as usize % PARTS;
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was put for this key, if it is still here.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.part(key).iter().find_map(|generation| generation.get(key).cloned())
    }

    /// Remembers a value.
    pub fn put(&self, key: K, value: V) {
        let mut part = self.part(&key);
        if part[0].len() >= self.most {
            part[1] = std::mem::take(&mut part[0]);
        }
        part[0].insert(key, value);
    }

    /// Drops what is known of this key.
    pub fn forget(&self, key: &K) {
        self.part(key).iter_mut().for_each(|generation| drop(generation.remove(key)));
    }
}

/// A memo whose entries count for some time only.
pub struct Fresh<K, V> {
    lasts: Duration,
    memo: Memo<K, (Instant, Arc<V>)>,
}

impl<K: Hash + Eq, V> Fresh<K, V> {
    /// An empty one.
    pub fn lasting(lasts: Duration) -> Self {
        Self { lasts, memo: Memo::of(FRESH_GENERATION) }
    }

    /// What was put for this key a short time ago.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        let (read_at, value) = self.memo.get(key)?;
        (read_at.elapsed() < self.lasts).then_some(value)
    }

    /// Remembers a value as of now.
    pub fn put(&self, key: K, value: V) -> Arc<V> {
        let value = Arc::new(value);
        self.memo.put(key, (Instant::now(), Arc::clone(&value)));
        value
    }

    /// Drops what is known of this key.
    pub fn forget(&self, key: &K) {
        self.memo.forget(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_keeps_the_newest_generation_and_never_grows_beyond_two() {
        let memo = Memo::<usize, usize>::default();
        (0..3 * GENERATION).for_each(|n| memo.put(n, n));
        assert_eq!(memo.get(&(3 * GENERATION - 1)), Some(3 * GENERATION - 1));
        assert_eq!(memo.get(&0), None);
        let kept =
            |part: &Mutex<[HashMap<usize, usize>; 2]>| part.lock().unwrap().iter().map(HashMap::len).sum::<usize>();
        assert!(memo.parts.iter().map(kept).sum::<usize>() <= 2 * GENERATION);
        memo.forget(&(3 * GENERATION - 1));
        assert_eq!(memo.get(&(3 * GENERATION - 1)), None);
    }

    #[test]
    fn what_is_fresh_ends() {
        let (kept, gone) = (Fresh::lasting(Duration::from_secs(60)), Fresh::lasting(Duration::ZERO));
        assert_eq!((kept.put(1, 2), gone.put(1, 2)), (Arc::new(2), Arc::new(2)));
        assert_eq!((kept.get(&1), gone.get(&1)), (Some(Arc::new(2)), None));
        kept.forget(&1);
        assert_eq!(kept.get(&1), None);
    }
}
