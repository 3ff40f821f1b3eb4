//! What is not in tables yet: sorted runs of changes in memory.
//!
//! R1  A run never changes. A group becomes visible in one step, as a run, so nobody sees half a batch; a reader goes
//!     on with the runs it began with.
//! R2  A run has one change of a key: the last one. Of several runs the newest has the word, and any run has it over
//!     the tables.
//! R3  Small runs are merged by eights, so that a read looks at few and a change is moved a few times at most.
//! R4  Whoever publishes merges only what takes no time ([`MERGED_IN_PASSING_MAX`]); the rest is left to the merger, which
//!     takes a suffix of the runs. Runs that come meanwhile lie behind it, and what is in passing merged of them holds none
//!     of the suffix: to reach one of its runs it would have to hold all, and then it is too large.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::codec::{Change, change, key, push};
use super::scan::Part;

/// As many small runs make a larger one (R3).
const FAN_IN: usize = 8;
/// Most bytes that are merged at once.
const MERGED_BYTES_MAX: usize = 16 << 20;
/// Most bytes that are merged while others wait (R4): a fraction of a millisecond.
const MERGED_IN_PASSING_MAX: usize = 64 << 10;
/// Bits of a run's filter per change: of a hundred runs without a key, two or three are searched for it in vain.
const FILTER_BITS: usize = 16;

/// Where a change is. Ordered by key, most of them by its beginning alone.
#[derive(Debug, Clone, Copy)]
struct Place {
    head: u64,
    run: u32,
    at: u32,
}

fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(8);
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}

/// Sorts by key what is ordered from new to old, and keeps the newest change of each key (R2).
fn newest_by_key<'a>(places: &mut Vec<Place>, bytes: impl Fn(u32) -> &'a [u8]) {
    let key = |place: &Place| key(bytes(place.run), place.at as usize);
    // Stable: of one key the newer change stays in front. It finds what is sorted already, and merges it.
    places.sort_by(|a, b| a.head.cmp(&b.head).then_with(|| key(a).cmp(key(b))));
    places.dedup_by(|older, newer| older.head == newer.head && key(older) == key(newer));
}

/// Changes that became visible together, or were merged, sorted by key.
#[derive(Debug)]
pub(super) struct Run {
    bytes: Vec<u8>,
    places: Vec<Place>,
    filter: Filter,
}

impl Run {
    /// A run of the changes that `bytes` holds from `start` on; `None` if they are none.
    pub(super) fn of(bytes: Vec<u8>, start: usize) -> Option<Self> {
        let (mut places, mut at) = (Vec::new(), start);
        while at < bytes.len() {
            let (change, end) = change(&bytes, at)?;
            places.push(Place { head: head(change.key), run: 0, at: at as u32 });
            at = end;
        }
        places.reverse();
        newest_by_key(&mut places, |_| &bytes);
        Some(Self::filtered(bytes, places))
    }

    /// One run out of several, the newest first.
    pub(super) fn merge(runs: &[Arc<Self>]) -> Self {
        let mut bytes = Vec::with_capacity(runs.iter().map(|run| run.bytes.len()).sum());
        let mut places = merged(runs);
        for place in &mut places {
            let at = bytes.len();
            push(runs[place.run as usize].change(place), &mut bytes);
            (place.run, place.at) = (0, at as u32);
        }
        Self::filtered(bytes, places)
    }

    fn filtered(bytes: Vec<u8>, places: Vec<Place>) -> Self {
        let mut filter = Filter::of_size(places.len());
        places.iter().for_each(|place| filter.add(hash(key(&bytes, place.at as usize))));
        Self { bytes, places, filter }
    }

    /// The change at an index below the end of what `between` returned.
    pub(super) fn at(&self, index: usize) -> Change<'_> {
        self.change(&self.places[index])
    }

    fn change(&self, place: &Place) -> Change<'_> {
        change(&self.bytes, place.at as usize).map_or(Change { key: &[], value: None }, |(change, _)| change)
    }

    fn compare(&self, place: &Place, sought: &[u8]) -> Ordering {
        place.head.cmp(&head(sought)).then_with(|| key(&self.bytes, place.at as usize).cmp(sought))
    }

    fn find(&self, sought: &[u8], hash: u64) -> Option<Change<'_>> {
        if !self.filter.may_have(hash) {
            return None;
        }
        let found = self.places.binary_search_by(|place| self.compare(place, sought)).ok()?;
        Some(self.at(found))
    }

    fn between(&self, from: &[u8], through: &[u8]) -> Range<usize> {
        let start = self.places.partition_point(|place| self.compare(place, from) == Ordering::Less);
        let end = self.places.partition_point(|place| self.compare(place, through) != Ordering::Greater);
        start..end.max(start)
    }
}

/// Where the newest change of each key is in `runs`, the newest of them first.
fn merged(runs: &[Arc<Run>]) -> Vec<Place> {
    let numbered = runs.iter().zip(0_u32..);
    let mut places: Vec<Place> = numbered
        .flat_map(|(run, number)| run.places.iter().map(move |place| Place { run: number, ..*place }))
        .collect();
    newest_by_key(&mut places, |run| &runs[run as usize].bytes);
    places
}

fn hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// Says of most keys that are not in a run that they are not.
#[derive(Debug)]
struct Filter(Vec<u64>);

impl Filter {
    fn of_size(changes: usize) -> Self {
        Self(vec![0; (changes * FILTER_BITS).div_ceil(64).next_power_of_two()])
    }

    /// Two bits of one word: one look at memory.
    fn place(&self, hash: u64) -> (usize, u64) {
        ((hash >> 16) as usize & (self.0.len() - 1), 1 << (hash & 63) | 1 << (hash >> 6 & 63))
    }

    fn add(&mut self, hash: u64) {
        let (word, bits) = self.place(hash);
        self.0[word] |= bits;
    }

    fn may_have(&self, hash: u64) -> bool {
        let (word, bits) = self.place(hash);
        self.0[word] & bits == bits
    }
}

/// All runs.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Of the segment that is written, from old to new.
    active: Vec<Arc<Run>>,
    /// Of closed segments, from old to new; each with the number of the first segment after it.
    sealed: Vec<(u64, Vec<Arc<Run>>)>,
}

impl Memory {
    fn newest_first(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.active.iter().rev().chain(self.sealed.iter().rev().flat_map(|(_, runs)| runs.iter().rev()))
    }

    /// What became of `key`; `None`: the tables know.
    pub(super) fn find(&self, key: &[u8]) -> Option<Change<'_>> {
        let hash = hash(key);
        self.newest_first().find_map(|run| run.find(key, hash))
    }

    /// The parts of all runs with `from <= key <= through`, the newest first.
    pub(super) fn between(&self, from: &[u8], through: &[u8]) -> Vec<Part> {
        let part = |run: &Arc<Run>| Part::new(run, run.between(from, through));
        self.newest_first().filter_map(part).collect()
    }

    /// Makes a run visible.
    pub(super) fn push(&mut self, run: Run) {
        if !run.places.is_empty() {
            self.active.push(Arc::new(run));
        }
    }

    /// The runs that are to become one, the newest first (R3), and whether that may be done in passing (R4).
    pub(super) fn due(&self) -> Option<(Vec<Arc<Run>>, bool)> {
        let class = |run: &Arc<Run>| run.places.len().ilog(FAN_IN);
        let newest = self.active.last().map_or(0, class);
        let mut bytes = 0;
        let fits = |run: &&Arc<Run>| {
            bytes += run.bytes.len();
            class(run) <= newest && bytes <= MERGED_BYTES_MAX
        };
        let due: Vec<_> = self.active.iter().rev().take_while(fits).cloned().collect();
        let in_passing = due.iter().map(|run| run.bytes.len()).sum::<usize>() <= MERGED_IN_PASSING_MAX;
        (due.len() >= FAN_IN).then_some((due, in_passing))
    }

    /// Puts what became of runs that were due into their place. Their segment may have been closed meanwhile, and even
    /// be in tables already; then nobody needs it.
    pub(super) fn replace(&mut self, due: &[Arc<Run>], merged: Run) {
        let Some(newest) = due.first() else { return };
        let lists = std::iter::once(&mut self.active).chain(self.sealed.iter_mut().map(|(_, runs)| runs));
        for runs in lists {
            if let Some(last) = runs.iter().rposition(|run| Arc::ptr_eq(run, newest)) {
                runs.splice(last + 1 - due.len()..=last, [Arc::new(merged)]);
                return;
            }
        }
    }

    /// Merges what is due, while nobody reads.
    pub(super) fn merge_due(&mut self) {
        while let Some((due, _)) = self.due() {
            self.replace(&due, Run::merge(&due));
        }
    }

    /// The segments below `number` are closed.
    pub(super) fn seal(&mut self, number: u64) {
        self.sealed.push((number, std::mem::take(&mut self.active)));
    }

    /// Runs of the closed segments below `number`, the newest first.
    pub(super) fn below(&self, number: u64) -> Vec<Arc<Run>> {
        let sealed = self.sealed.iter().rev().filter(|(below, _)| *below <= number);
        sealed.flat_map(|(_, runs)| runs.iter().rev().cloned()).collect()
    }

    /// What `below` returned is in tables.
    pub(super) fn forget_below(&mut self, number: u64) {
        self.sealed.retain(|(below, _)| *below > number);
    }
}

/// Calls `each` with the newest change of each key in `runs`, ascending; the newest run comes first.
pub(super) fn changes(runs: &[Arc<Run>]) -> impl Iterator<Item = Change<'_>> {
    merged(runs).into_iter().map(|place| runs[place.run as usize].change(&place))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::*;
    use crate::kv::Direction;
    use crate::store::StoreError;

    /// A key, and its new value or its end.
    type Op = (Vec<u8>, Option<Vec<u8>>);

    /// Few bytes, so that keys meet, and are prefixes of each other, in front of the ninth byte and behind it.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        (0..3_u8, vec(0..2_u8, 0..4)).prop_map(|(head, tail)| {
            let mut key = vec![head; if head == 2 { 7 } else { 1 }];
            key.extend(tail);
            key
        })
    }

    fn group() -> impl Strategy<Value = Vec<Op>> {
        vec((key(), proptest::option::of(vec(any::<u8>(), 0..3))), 0..12)
    }

    fn run(group: &[Op]) -> Run {
        let mut bytes = vec![7; 3];
        group.iter().for_each(|(key, value)| push(Change { key, value: value.as_deref() }, &mut bytes));
        Run::of(bytes, 3).expect("decodes")
    }

    proptest! {
        /// R2, R3, R4, S1: whatever is merged, at once or while groups come and segments close, is sealed, written to tables
        /// and forgotten: reads answer as a map does.
        #[test]
        fn reads_are_those_of_a_map(
            groups in vec((group(), 0..8_u8), 1..60),
            bounds in (key(), key()),
            limit in 0..12_usize,
        ) {
            let (mut memory, mut tables, mut model) = (Memory::default(), BTreeMap::new(), BTreeMap::new());
            let mut merging = None;
            for (number, (group, event)) in (1..).zip(&groups) {
                memory.push(run(group));
                for (key, value) in group {
                    match value {
                        Some(value) => drop(model.insert(key.clone(), value.clone())),
                        None => drop(model.remove(key)),
                    }
                }
                match event {
                    0 => memory.seal(number),
                    1 => {
                        for change in changes(&memory.below(number)) {
                            match change.value {
                                Some(value) => drop(tables.insert(change.key.to_vec(), value.to_vec())),
                                None => drop(tables.remove(change.key)),
                            }
                        }
                        memory.forget_below(number);
                    }
                    2 if merging.is_none() => merging = memory.due().map(|(due, _)| (Run::merge(&due), due)),
                    3 => merging.take().into_iter().for_each(|(merged, due)| memory.replace(&due, merged)),
                    _ if merging.is_none() => memory.merge_due(),
                    _ => {}
                }
            }
            let (from, through) = if bounds.0 <= bounds.1 { bounds } else { (bounds.1, bounds.0) };
            let get = |key: &Vec<u8>| match memory.find(key) {
                Some(change) => change.value.map(<[u8]>::to_vec),
                None => tables.get(key).cloned(),
            };
            for key in model.keys().chain([&from, &through]) {
                prop_assert_eq!(get(key), model.get(key).cloned());
            }
            let stored = tables.range(from.clone()..=through.clone()).map(Ok::<_, StoreError>);
            let inside = model.range(from.clone()..=through.clone()).map(|(key, value)| (key.clone(), value.clone()));
            let scan = |direction| crate::embedded::scan::pairs(memory.between(&from, &through), stored.clone(), limit, direction);
            let up: Vec<_> = inside.clone().take(limit).collect();
            prop_assert_eq!(scan(Direction::Up), Ok(up));
            let stored = stored.clone().rev();
            let down = crate::embedded::scan::pairs(memory.between(&from, &through), stored, limit, Direction::Down);
            prop_assert_eq!(down, Ok(inside.rev().take(limit).collect()));
        }
    }

    /// R3: whatever the sizes of the groups, a read looks at some tens of runs at most.
    #[test]
    fn runs_stay_few() {
        for size in [1_u32, 6, 500] {
            let mut memory = Memory::default();
            for n in 0..30_000 / size {
                let op = |m: u32| ((n * size + m).to_be_bytes().to_vec(), Some(vec![0; 100]));
                memory.push(run(&(0..size).map(op).collect::<Vec<_>>()));
                memory.merge_due();
                assert!(memory.active.len() < 7 * FAN_IN, "{} runs after {n} groups of {size}", memory.active.len());
            }
            let merged = changes(&memory.newest_first().cloned().collect::<Vec<_>>()).count();
            assert_eq!(merged as u32, 30_000 / size * size, "and hold everything");
        }
    }

    #[test]
    fn a_filter_knows_what_it_has_and_little_else() {
        let mut filter = Filter::of_size(10_000);
        let key = |n: u32| hash(&n.to_be_bytes());
        (0..10_000).for_each(|n| filter.add(key(n)));
        assert!((0..10_000).all(|n| filter.may_have(key(n))));
        let wrong = (10_000..20_000).filter(|n| filter.may_have(key(*n))).count();
        assert!(wrong < 500, "{wrong} of 10,000");
    }
}
