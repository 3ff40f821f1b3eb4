//! What happened lately: a map that forgets, and the spacing of codes built on it.
//!
//! R1  An entry lives at least `span` after it was last put, unless [`GENERATION_MAX`] newer ones came since, and at
//!     most until the second change of generation after that. So memory is bounded by count and by time.
//! R2  Between two codes to one (email, purpose) lie `cooldown_ms`, and within any hour there are `per_hour` at most.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use schema::rows::Timestamp;

/// Entries of one generation; two are kept.
const GENERATION_MAX: usize = 50_000;
/// The window of `per_hour`.
pub(super) const HOUR_MS: u64 = 60 * 60 * 1_000;

/// A map of recent things (R1).
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    span_ms: u64,
    state: Mutex<State<K, V>>,
}

#[derive(Debug)]
struct State<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    since: Timestamp,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    /// Empty; entries matter for `span_ms`.
    pub(super) fn new(span_ms: u64) -> Self {
        let state = State { young: HashMap::new(), old: HashMap::new(), since: Timestamp(0) };
        Self { span_ms, state: Mutex::new(state) }
    }

    /// Each method leaves the maps whole at every step, so a panic elsewhere does not spoil them.
    fn state(&self, now: Timestamp) -> MutexGuard<'_, State<K, V>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.young.len() >= GENERATION_MAX || now.ms_since(state.since) >= self.span_ms {
            state.old = std::mem::take(&mut state.young);
            state.since = now;
        }
        state
    }

    /// Puts an entry and returns the one it replaces.
    pub(super) fn put(&self, now: Timestamp, key: K, value: V) -> Option<V> {
        let mut state = self.state(now);
        let old = state.old.remove(&key);
        state.young.insert(key, value).or(old)
    }

    /// Changes an entry in place, or a new default one, and renews it.
    fn change<R>(&self, now: Timestamp, key: K, change: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        let mut state = self.state(now);
        let old = state.old.remove(&key);
        change(state.young.entry(key).or_insert_with(|| old.unwrap_or_default()))
    }
}

/// Spacing of codes (R2); `None` lifts either rule.
#[derive(Debug)]
pub(super) struct Spacing<K> {
    cooldown_ms: Option<u64>,
    per_hour: Option<u32>,
    sent: Recent<K, VecDeque<Timestamp>>,
}

impl<K: Hash + Eq> Spacing<K> {
    /// With nothing sent yet.
    pub(super) fn new(cooldown_ms: Option<u64>, per_hour: Option<u32>) -> Self {
        Self { cooldown_ms, per_hour, sent: Recent::new(HOUR_MS.max(cooldown_ms.unwrap_or(0))) }
    }

    /// Counts one code, or says for how many milliseconds none may be sent.
    pub(super) fn take(&self, now: Timestamp, key: K) -> Result<(), u64> {
        if self.cooldown_ms.is_none() && self.per_hour.is_none() {
            return Ok(());
        }
        self.sent.change(now, key, |sent| {
            let keep_ms = HOUR_MS.max(self.cooldown_ms.unwrap_or(0));
            while sent.front().is_some_and(|first| now.ms_since(*first) >= keep_ms) {
                sent.pop_front();
            }
            let wait = self.wait_ms(now, sent);
            if wait > 0 {
                return Err(wait);
            }
            sent.push_back(now);
            Ok(())
        })
    }

    fn wait_ms(&self, now: Timestamp, sent: &VecDeque<Timestamp>) -> u64 {
        let until = |at: Timestamp, span: u64| at.plus_ms(span).ms_since(now);
        let cooldown = self.cooldown_ms.zip(sent.back()).map_or(0, |(span, last)| until(*last, span));
        // With `per_hour` in the hour, the next one waits for the first of them to leave it.
        let first = self.per_hour.and_then(|most| sent.len().checked_sub(most as usize)).and_then(|n| sent.get(n));
        cooldown.max(first.map_or(0, |first| until(*first, HOUR_MS)))
    }

    /// Takes back what [`Self::take`] counted at `at`: that code never left.
    pub(super) fn give_back(&self, at: Timestamp, key: K) {
        self.sent.change(at, key, |sent| {
            if let Some(place) = sent.iter().rposition(|sent| *sent == at) {
                sent.remove(place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_outlive_their_span_and_memory_is_bounded() {
        let recent = Recent::new(1_000);
        assert_eq!(recent.put(Timestamp(10_000), "a", 1), None);
        assert_eq!(recent.put(Timestamp(10_999), "b", 2), None);
        assert_eq!(recent.put(Timestamp(11_998), "b", 3), Some(2));
        assert_eq!(recent.put(Timestamp(14_000), "c", 1), None);
        assert_eq!(recent.put(Timestamp(15_000), "a", 2), None, "two generations later");
        let recent = Recent::new(1_000);
        (0..3 * GENERATION_MAX).for_each(|n| assert_eq!(recent.put(Timestamp(1), n, ()), None));
        let state = recent.state(Timestamp(1));
        assert!(state.young.len() + state.old.len() <= 2 * GENERATION_MAX);
    }

    #[test]
    fn a_minute_between_codes_and_five_in_an_hour() {
        let spacing = Spacing::new(Some(60_000), Some(5));
        let start = 1_000_000;
        let take = |at: u64| spacing.take(Timestamp(start + at), "a");
        assert_eq!(take(0), Ok(()));
        assert_eq!(take(1), Err(59_999));
        assert_eq!(take(60_000), Ok(()));
        (2..5).for_each(|n| assert_eq!(take(n * 60_000), Ok(())));
        assert_eq!(take(600_000), Err(HOUR_MS - 600_000));
        assert_eq!(spacing.take(Timestamp(start + 600_000), "b"), Ok(()));
        assert_eq!(take(HOUR_MS), Ok(()));
        assert_eq!(take(HOUR_MS + 60_000), Ok(()));
    }

    #[test]
    fn what_never_left_does_not_count_and_lifted_rules_count_nothing() {
        let spacing = Spacing::new(Some(60_000), None);
        assert_eq!(spacing.take(Timestamp(5), "a"), Ok(()));
        spacing.give_back(Timestamp(5), "a");
        assert_eq!(spacing.take(Timestamp(6), "a"), Ok(()));
        let lifted = Spacing::new(None, None);
        (0..100).for_each(|_| assert_eq!(lifted.take(Timestamp(5), "a"), Ok(())));
        let hourly = Spacing::new(None, Some(1));
        assert_eq!(hourly.take(Timestamp(0), "a"), Ok(()));
        assert_eq!(hourly.take(Timestamp(1), "a"), Err(HOUR_MS - 1));
    }
}
