//! A scan: what runs and tables hold of a range, as one sequence.
//!
//! S1  A key is given once: as the newest run that has it says, or else as the tables do. One that is gone is left out.

use std::ops::Range;
use std::sync::Arc;

use super::codec::Change;
use super::runs::Run;
use crate::kv::{Direction, Pairs};
use crate::store::StoreError;

/// What a scan still has to take from one run.
#[derive(Debug)]
pub(super) struct Part {
    run: Arc<Run>,
    range: Range<usize>,
}

impl Part {
    /// `None` if there is nothing to take.
    pub(super) fn new(run: &Arc<Run>, range: Range<usize>) -> Option<Self> {
        (!range.is_empty()).then(|| Self { run: Arc::clone(run), range })
    }

    fn next(&self, direction: Direction) -> Option<Change<'_>> {
        let index = match direction {
            Direction::Up => self.range.start,
            Direction::Down => self.range.end.wrapping_sub(1),
        };
        (!self.range.is_empty()).then(|| self.run.at(index))
    }

    fn skip(&mut self, direction: Direction) {
        match direction {
            Direction::Up => self.range.next(),
            Direction::Down => self.range.next_back(),
        };
    }
}

fn precedes(a: &[u8], b: &[u8], direction: Direction) -> bool {
    match direction {
        Direction::Up => a < b,
        Direction::Down => a > b,
    }
}

/// At most `limit` pairs of `parts`, the newest of them first, and of `tables`, in `direction` (S1).
pub(super) fn pairs<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    mut parts: Vec<Part>,
    mut tables: impl Iterator<Item = Result<(K, V), StoreError>>,
    limit: usize,
    direction: Direction,
) -> Result<Pairs, StoreError> {
    let mut pairs = Pairs::new();
    let mut stored = tables.next().transpose()?;
    while pairs.len() < limit {
        let mut next: Option<Change<'_>> = None;
        for change in parts.iter().filter_map(|part| part.next(direction)) {
            if next.is_none_or(|next| precedes(change.key, next.key, direction)) {
                next = Some(change);
            }
        }
        let stored_key = stored.as_ref().map(|(key, _)| key.as_ref());
        if stored_key.is_some_and(|key| next.is_none_or(|next| precedes(key, next.key, direction))) {
            pairs.extend(stored.take().map(|(key, value)| (key.as_ref().to_vec(), value.as_ref().to_vec())));
            stored = tables.next().transpose()?;
            continue;
        }
        let Some(Change { key, value }) = next else { break };
        if stored_key == Some(key) {
            stored = tables.next().transpose()?;
        }
        let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
        for part in &mut parts {
            if part.next(direction).is_some_and(|change| change.key == key) {
                part.skip(direction);
            }
        }
        pairs.extend(value.map(|value| (key, value)));
    }
    Ok(pairs)
}
