//! Collections for entities of which a million lie in memory, each with little in them.
//!
//! M1  What is empty or at rest owns no heap memory, however much it held before.
//! M2  What holds a few takes no more room than these few; what holds many stays fast.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Entries up to which [`Table`] is a sorted vector. A B-tree's smallest node has room for eleven.
const FEW: usize = 16;

/// A value that is rarely other than its default, and takes one word while it is not there.
#[derive(Debug)]
pub(crate) struct Spare<T>(Option<Box<T>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default> Spare<T> {
    /// The value, if it was ever made and not dropped since.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// The value to change, if it is there.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// The value to change; made if it is not there.
    pub(crate) fn make(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// Gives the memory back if the value is as good as its default (M1).
    pub(crate) fn drop_if(&mut self, at_rest: impl FnOnce(&T) -> bool) {
        if self.0.as_deref().is_some_and(at_rest) {
            self.0 = None;
        }
    }
}

/// A sorted map: a vector while it is small, a tree beyond.
#[derive(Debug)]
pub(crate) enum Table<K, V> {
    /// In order of keys, with next to no spare room (M2).
    Few(Vec<(K, V)>),
    /// More than [`FEW`], at least once.
    #[expect(clippy::box_collection, reason = "in place it would make every small table larger")]
    Many(Box<BTreeMap<K, V>>),
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<K: Ord, V> Table<K, V> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(few) => place(few, key).ok().map(|at| &few[at].1),
            Self::Many(many) => many.get(key),
        }
    }

    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(few) => place(few, key).ok().map(|at| &mut few[at].1),
            Self::Many(many) => many.get_mut(key),
        }
    }

    /// Puts a value in; returns the one that it replaces.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            Self::Few(few) => match place(few, &key) {
                Ok(at) => Some(std::mem::replace(&mut few[at].1, value)),
                Err(at) if few.len() < FEW => {
                    few.reserve_exact(1); // a copy of at most `FEW`, and no room that most never use
                    few.insert(at, (key, value));
                    None
                }
                Err(_) => {
                    let mut many: BTreeMap<K, V> = std::mem::take(few).into_iter().collect();
                    let before = many.insert(key, value);
                    *self = Self::Many(Box::new(many));
                    before
                }
            },
            Self::Many(many) => many.insert(key, value),
        }
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = match self {
            Self::Few(few) => {
                let at = place(few, key).ok()?;
                Some(few.remove(at).1)
            }
            Self::Many(many) => many.remove(key),
        };
        self.give_back();
        removed
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        match self {
            Self::Few(few) => few.retain_mut(|(key, value)| keep(key, value)),
            Self::Many(many) => many.retain(keep),
        }
        self.give_back();
    }

    /// What is empty owns nothing (M1).
    fn give_back(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// In order of keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(key, value)| (key, value));
        few.chain(many.into_iter().flat_map(|many| many.iter()))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(_, value)| value);
        few.chain(many.into_iter().flat_map(|many| many.values_mut()))
    }
}

/// Where a key is, or belongs.
fn place<K: Borrow<Q>, V, Q: Ord + ?Sized>(few: &[(K, V)], key: &Q) -> Result<usize, usize> {
    few.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

impl<K: Ord, V> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        if entries.len() > FEW {
            return Self::Many(Box::new(entries.into_iter().collect()));
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.dedup_by(|(a, _), (b, _)| a == b);
        entries.shrink_to_fit();
        Self::Few(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small and large, growing and shrinking: the same as a tree at every step.
    #[test]
    fn a_table_is_a_sorted_map_of_any_size() {
        let (mut table, mut tree) = (Table::default(), BTreeMap::new());
        for n in 0..400_u32 {
            let key = n.wrapping_mul(37) % 61;
            if n % 5 == 4 || n > 300 {
                assert_eq!(table.remove(&key), tree.remove(&key));
            } else {
                assert_eq!(table.insert(key, n), tree.insert(key, n));
            }
            assert!(table.iter().eq(tree.iter()), "after {n}");
            assert_eq!((table.len(), table.get(&key)), (tree.len(), tree.get(&key)));
        }
        table.retain(|_, _| false);
        assert!(matches!(&table, Table::Few(few) if few.capacity() == 0), "M1");
    }

    #[test]
    fn few_take_the_room_of_few() {
        let mut table = Table::default();
        assert!((0..3_u8).all(|n| table.insert(n, [0; 64]).is_none()));
        assert!(matches!(&table, Table::Few(few) if few.capacity() == 3), "M2");
        assert_eq!(size_of::<Table<u8, u8>>(), size_of::<Vec<u8>>());
    }

    #[test]
    fn what_is_at_rest_owns_nothing() {
        let mut spare: Spare<Vec<u8>> = Spare::default();
        assert!(spare.get().is_none());
        spare.make().push(1);
        spare.drop_if(Vec::is_empty);
        assert_eq!(spare.get().map(Vec::len), Some(1));
        spare.make().clear();
        spare.drop_if(Vec::is_empty);
        assert!(spare.get().is_none() && size_of::<Spare<Vec<u8>>>() == size_of::<usize>());
    }
}
