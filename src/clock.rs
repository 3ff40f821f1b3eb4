//! The wall clock of the gateway, injectable for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use schema::rows::Timestamp;

/// Tells the time. Clones share one clock.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Now, plus whatever tests have advanced it by.
    pub fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).plus_ms(self.0.load(Ordering::Relaxed))
    }

    /// Moves this clock ahead of the machine's.
    #[cfg(test)]
    pub fn advance_ms(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}
