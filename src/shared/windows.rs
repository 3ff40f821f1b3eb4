//! Windows that all nodes count together: the same limits as the process-local ones, by the same rule.
//!
//! W1  N per span admits a burst of N, then one each span/N. The time to live of a key is how far its window is used,
//!     so nothing is kept of a window that is whole again, and no clock but that of Redis counts.
//! W2  Several windows are taken from together or not at all, in one step of Redis.

use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{PREFIX, Purpose, Shared};

/// `KEYS`: windows. `ARGV`: for each, the milliseconds that one costs, and those of the whole window.
/// Answers 0, or in how many milliseconds all of them would have passed.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local used, wait = {}, 0
         for i, key in ipairs(KEYS) do
           used[i] = math.max(redis.call('PTTL', key), 0) + ARGV[2 * i - 1]
           wait = math.max(wait, used[i] - ARGV[2 * i])
         end
         if wait > 0 then return wait end
         for i, key in ipairs(KEYS) do redis.call('SET', key, '', 'PX', string.format('%.0f', used[i])) end
         return 0",
    )
});

/// One limit: how many in which span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    name: &'static str,
    cost_ms: u64,
    span_ms: u64,
}

impl Window {
    /// `per_span` of a span of at least a millisecond; more than one each millisecond count as one.
    pub fn new(name: &'static str, per_span: u32, span: Duration) -> Self {
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        // Rounded down, so that a whole burst fits.
        Self { name, cost_ms: (span_ms / u64::from(per_span.max(1))).max(1), span_ms }
    }

    /// The place where one client is counted.
    pub fn of(&self, client: impl Display) -> Taking {
        Taking { key: format!("{PREFIX}:window:{}:{client}", self.name), window: *self }
    }
}

/// One to be taken from a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taking {
    key: String,
    window: Window,
}

impl Shared {
    /// Takes one from each window, or none and says in how many milliseconds all would pass. `None`: judge alone.
    pub async fn take(&self, takings: &[Taking]) -> Option<Result<(), u64>> {
        self.0.as_ref()?;
        let mut script = TAKE.prepare_invoke();
        for Taking { key, window } in takings {
            script.key(key).arg(window.cost_ms).arg(window.span_ms);
        }
        let ask = |mut connection| async move { script.invoke_async::<u64>(&mut connection).await };
        let wait_ms = self.call(Purpose::Windows, ask).await?;
        Some(if wait_ms == 0 { Ok(()) } else { Err(wait_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn a_burst_fits_its_window() {
        //          per     span in ms           cost in ms
        check(      5,      3_600_000,           720_000);
        check(      7,      3_600_000,           514_285); // rounded up, the seventh would be refused
        check(      1_000,  86_400_000,          86_400);
        check(      10,     1_000,               100);
        check(      90_000, 60_000,              1); // more than one a millisecond
    }

    #[track_caller]
    fn check(per_span: u32, span_ms: u64, cost_ms: u64) {
        let window = Window::new("w", per_span, Duration::from_millis(span_ms));
        assert_eq!(window, Window { name: "w", cost_ms, span_ms });
        let burst = u64::from(per_span).min(span_ms);
        assert!(burst * cost_ms <= span_ms, "W1");
    }

    #[test]
    fn clients_and_windows_are_kept_apart() {
        let window = |name| Window::new(name, 1, Duration::from_secs(1));
        assert_eq!(window("a").of("192.0.2.1").key, "agentchat:window:a:192.0.2.1");
        assert_ne!(window("a").of("192.0.2.1"), window("b").of("192.0.2.1"));
    }
}
