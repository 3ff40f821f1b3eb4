//! What one scenario measures: counts, latencies, and what they were in the second just past.
//!
//! M1  A latency runs from the moment that something was meant to happen, not from when somebody got round to it.
//! M2  What was meant for the warm-up is left out of latencies; the verdict leaves nothing out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::error::LoadError;
use crate::report::model::{Distribution, Quantile};

/// Longest latency that is told apart, in microseconds.
pub const LATENCY_MAX_US: u64 = 600_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// Quantiles that a report shows.
const QUANTILES: [f64; 14] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999, 1.0];

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Answers with success.
    Acknowledged,
    /// Answers that refuse.
    Refused,
    /// Deliveries seen.
    Delivered,
    /// Sockets that were greeted.
    Connected,
    /// Sockets that ended.
    Disconnected,
    /// Other things done: agents made, presences changed.
    Done,
}

impl Count {
    /// All, with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Acknowledged, "acknowledged"),
        (Self::Refused, "refused"),
        (Self::Delivered, "delivered"),
        (Self::Connected, "connected"),
        (Self::Disconnected, "disconnected"),
        (Self::Done, "done"),
    ];
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// From the intended send to its answer.
    Send,
    /// From the intended send to the frame on a recipient's socket.
    Receipt,
    /// From the intended connect to `hello.ok`.
    Hello,
    /// From the beginning of a storm to the last waiting message on a socket.
    Drain,
    /// From the intended change of presence to the frame at a watcher.
    Presence,
    /// From the intended request to its answer, for other requests.
    Request,
}

impl Timing {
    /// All, with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Send, "send"),
        (Self::Receipt, "receipt"),
        (Self::Hello, "hello"),
        (Self::Drain, "drain"),
        (Self::Presence, "presence"),
        (Self::Request, "request"),
    ];
}

/// Since when a run runs.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Of latencies in microseconds.
pub fn histogram() -> Result<Histogram<u64>, LoadError> {
    Histogram::new_with_max(LATENCY_MAX_US, DIGITS).map_err(LoadError::answer)
}

/// Since the beginning, and since the last look.
struct Timed {
    all: Histogram<u64>,
    lately: Histogram<u64>,
}

/// What one scenario measures.
pub struct Meter {
    name: String,
    clock: Clock,
    counts: [AtomicU64; Count::ALL.len()],
    timed: Vec<Mutex<Timed>>,
    warm_us: AtomicU64,
    refusals: Mutex<BTreeMap<String, u64>>,
}

impl Meter {
    /// Nothing measured yet.
    pub fn new(name: &str, clock: Clock) -> Result<Self, LoadError> {
        let timed = |_| Ok(Mutex::new(Timed { all: histogram()?, lately: histogram()? }));
        let timed: Result<Vec<_>, LoadError> = Timing::ALL.iter().map(timed).collect();
        Ok(Self {
            name: name.to_owned(),
            clock,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            timed: timed?,
            warm_us: AtomicU64::new(0),
            refusals: Mutex::default(),
        })
    }

    /// Whose it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Latencies of what was meant before this moment are left out (M2).
    pub fn warm_from(&self, us: u64) {
        self.warm_us.store(us, Ordering::Release);
    }

    /// One more.
    pub fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Several more.
    pub fn add(&self, what: Count, more: u64) {
        self.counts[what as usize].fetch_add(more, Ordering::Relaxed);
    }

    /// A refusal, by its code.
    pub fn refused(&self, code: String) {
        self.count(Count::Refused);
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    /// Refusals so far, by code.
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many so far.
    pub fn total(&self, what: Count) -> u64 {
        self.counts[what as usize].load(Ordering::Relaxed)
    }

    /// Sockets that are up.
    pub fn sockets(&self) -> u64 {
        self.total(Count::Connected).saturating_sub(self.total(Count::Disconnected))
    }

    /// Something that was meant for `intended_us` is done now (M1).
    pub fn done(&self, what: Timing, intended_us: u64) {
        if intended_us < self.warm_us.load(Ordering::Acquire) {
            return;
        }
        let took = self.clock.now_us().saturating_sub(intended_us);
        let mut timed = self.timed[what as usize].lock().unwrap_or_else(PoisonError::into_inner);
        timed.all.saturating_record(took);
        timed.lately.saturating_record(took);
    }

    /// Quantiles since the last call of this, in milliseconds; `None` if nothing happened.
    pub fn lately(&self, what: Timing) -> Option<[f64; 2]> {
        let mut timed = self.timed[what as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let found = (!timed.lately.is_empty())
            .then(|| [0.5, 0.99].map(|quantile| ms(timed.lately.value_at_quantile(quantile))));
        timed.lately.reset();
        found
    }

    /// One quantile since the beginning, in milliseconds; 0 if nothing was timed.
    pub fn quantile_ms(&self, what: Timing, quantile: f64) -> f64 {
        let timed = self.timed[what as usize].lock().unwrap_or_else(PoisonError::into_inner);
        ms(timed.all.value_at_quantile(quantile))
    }

    /// Everything timed since the beginning.
    pub fn distributions(&self) -> Vec<Distribution> {
        let one = |(what, name): &(Timing, &str)| {
            let timed = self.timed[*what as usize].lock().unwrap_or_else(PoisonError::into_inner);
            let all = &timed.all;
            (!all.is_empty()).then(|| Distribution {
                name: (*name).to_owned(),
                count: all.len(),
                mean_ms: all.mean() / 1_000.0,
                quantiles: QUANTILES.map(|at| Quantile { at, ms: ms(all.value_at_quantile(at)) }).to_vec(),
            })
        };
        Timing::ALL.iter().filter_map(one).collect()
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn latency_runs_from_the_intended_moment_and_the_warm_up_is_left_out() {
        let meter = Meter::new("x", Clock(Instant::now() - Duration::from_secs(10))).unwrap();
        meter.warm_from(5_000_000);
        meter.done(Timing::Send, 4_999_999);
        assert_eq!(meter.lately(Timing::Send), None);
        meter.done(Timing::Send, 6_000_000); // meant four seconds ago
        let [p50, p99] = meter.lately(Timing::Send).unwrap();
        assert!((4_000.0..5_000.0).contains(&p50) && p50 == p99, "{p50} {p99}");
        assert_eq!(meter.lately(Timing::Send), None, "only what is new");
        let all = meter.distributions();
        assert_eq!((all.len(), all[0].name.as_str(), all[0].count), (1, "send", 1));
    }
}
