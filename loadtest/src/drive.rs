//! Load: an open loop that keeps its timetable, or a closed loop of clients that wait for each answer.
//!
//! D1  In an open loop an arrival is due whether or not the servers keep up; with all clients busy it waits, and its latency
//!     counts from when it was due (no coordinated omission).
//! D2  In a closed loop a latency begins with its own request: it says how long an answer takes, not what users at a given
//!     rate would see.
//! D3  Whatever happens, it ends: after the length, after the count, or [`GRACE`] behind the timetable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::error::LoadError;
use crate::meter::{Count, Meter};
use crate::schedule::Timetable;
use crate::target::Fleet;

/// Arrivals that are still waiting this long after the end are given up, and reported.
const GRACE: Duration = Duration::from_secs(60);
/// Rates that a timetable can be made for.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=1e6;
/// Most connections: more than a process has files for.
const CLIENTS_MAX: usize = 100_000;
/// Longest time of anything: a month.
const SPAN_MAX_S: f64 = 30.0 * 86_400.0;
/// The pace-maker looks this often whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(50);
/// Most arrivals handed over in one go: one second of the largest rate.
const BURST_MAX: usize = 1_000_000;

/// How much, and for how long.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// Open loop: this many a second, however slow the answers are. Without it each client waits for its answers
    #[arg(long)]
    pub rate: Option<f64>,
    /// Open loop: exponential gaps between arrivals, as independent users make them, instead of even ones
    #[arg(long)]
    pub poisson: bool,
    /// Keep-alive connections; in a closed loop, as many requests are under way
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// Length, after the warm-up
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds at the beginning that latencies and rates leave out
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Most requests, whatever the length
    #[arg(long)]
    pub count: Option<u64>,
}

/// Something that is due.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// From 0.
    pub number: u64,
    /// The connection that carries it, from 0.
    pub worker: usize,
    /// When it was meant to happen.
    pub intended_us: u64,
}

/// What is done for each arrival.
pub trait Job: Send + Sync + 'static {
    /// Does it to its end; an error ends the run.
    fn run(&self, client: &mut Client, arrival: Arrival) -> impl Future<Output = Result<(), LoadError>> + Send;
}

/// What came of it; rates are those after the warm-up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Driven {
    /// Arrivals that were given up (D3).
    pub given_up: u64,
    /// Acknowledged a second.
    pub acknowledged_per_s: f64,
    /// Deliveries a second.
    pub delivered_per_s: f64,
}

/// What the workers share.
struct Shared {
    open: Option<Mutex<Timetable>>,
    due: Semaphore,
    number: AtomicU64,
    count: u64,
    begun_us: u64,
    end: Instant,
    over: AtomicBool,
}

impl Shared {
    /// The next arrival, when it is due. `None`: that was the last.
    async fn next(&self, meter: &Meter, worker: usize) -> Option<Arrival> {
        let intended_us = match &self.open {
            None if Instant::now() >= self.end => return None,
            None => meter.clock().now_us(),
            Some(timetable) => {
                self.due.acquire().await.ok()?.forget();
                if Instant::now() >= self.end + GRACE {
                    return None;
                }
                let next = timetable.lock().unwrap_or_else(PoisonError::into_inner).next();
                self.begun_us + next?
            }
        };
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        (number < self.count && !self.over.load(Ordering::Relaxed)).then_some(Arrival { number, worker, intended_us })
    }

    /// Makes arrivals due at their time, from a thread of its own: the timers of the runtime have whole milliseconds.
    fn pace(&self, timetable: Timetable, begun: Instant, workers: usize) {
        let mut timetable = timetable.map(|at| begun + Duration::from_micros(at)).peekable();
        while let Some(due) = timetable.peek().copied() {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait.min(PATIENCE));
                continue;
            }
            let now = Instant::now();
            let mut ripe = 0;
            while ripe < BURST_MAX && timetable.next_if(|due| *due <= now).is_some() {
                ripe += 1;
            }
            self.due.add_permits(ripe);
        }
        self.due.add_permits(workers); // everybody wakes once more, and finds nothing
    }
}

/// Seconds as somebody wrote them; what is no time says so.
pub fn span(name: &str, seconds: f64) -> Result<Duration, LoadError> {
    if (0.0..=SPAN_MAX_S).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(LoadError::Usage(format!("{name} is from 0 to {SPAN_MAX_S} seconds")))
}

/// Runs `job` for every arrival of `load`.
pub async fn drive<J: Job>(
    fleet: &Fleet,
    meter: &Arc<Meter>,
    load: &Load,
    seed: u64,
    job: J,
) -> Result<Driven, LoadError> {
    if load.rate.is_some_and(|rate| !RATES.contains(&rate)) || !(1..=CLIENTS_MAX).contains(&load.clients) {
        return Err(LoadError::Usage(format!("a rate is from 0.001 to a million, clients are 1 to {CLIENTS_MAX}")));
    }
    let (warm, length) = (span("warmup", load.warmup)?, span("seconds", load.seconds)?);
    let (begun, begun_us) = (Instant::now(), meter.clock().now_us());
    let whole_us = u64::try_from((warm + length).as_micros()).unwrap_or(u64::MAX);
    meter.warm_from(begun_us + u64::try_from(warm.as_micros()).unwrap_or(u64::MAX));
    let timetable = load.rate.map(|rate| Timetable::new(rate, whole_us, load.poisson.then_some(seed)));
    let shared = Arc::new(Shared {
        open: timetable.clone().map(Mutex::new),
        due: Semaphore::new(0),
        number: AtomicU64::new(0),
        count: load.count.unwrap_or(u64::MAX),
        begun_us,
        end: begun + warm + length,
        over: AtomicBool::new(false),
    });
    let pacer = timetable.map(|timetable| {
        let (shared, workers) = (Arc::clone(&shared), load.clients);
        std::thread::spawn(move || shared.pace(timetable, begun, workers))
    });
    let job = Arc::new(job);
    let mut workers = JoinSet::new();
    for worker in 0..load.clients {
        let (job, shared, meter) = (Arc::clone(&job), Arc::clone(&shared), Arc::clone(meter));
        let mut client = Client::new(fleet.any());
        workers.spawn(async move {
            while let Some(arrival) = shared.next(&meter, worker).await {
                job.run(&mut client, arrival).await?;
            }
            Ok(())
        });
    }
    let rates = measure(meter, begun, warm, length, &mut workers).await;
    shared.over.store(true, Ordering::Relaxed);
    if let Some(pacer) = pacer {
        let _ = tokio::task::spawn_blocking(move || pacer.join()).await; // it cannot panic, and has no result
    }
    let [acknowledged_per_s, delivered_per_s] = rates?;
    let left = |open: &Mutex<Timetable>| open.lock().unwrap_or_else(PoisonError::into_inner).by_ref().count();
    let left = shared.open.as_ref().filter(|_| load.count.is_none()).map_or(0, left);
    let given_up = left as u64;
    Ok(Driven { given_up, acknowledged_per_s, delivered_per_s })
}

/// Waits for the workers; counts from the end of the warm-up to the end of the length, or to the last worker's end.
async fn measure(
    meter: &Meter,
    begun: Instant,
    warm: Duration,
    length: Duration,
    workers: &mut JoinSet<Result<(), LoadError>>,
) -> Result<[f64; 2], LoadError> {
    let now = || (Instant::now(), [meter.total(Count::Acknowledged), meter.total(Count::Delivered)]);
    let mut from = (begun, now().1);
    let mut until = None;
    let ticks = [begun + warm, begun + warm + length].map(|at| tokio::time::sleep_until(at.into()));
    let [warmed, ended] = ticks;
    tokio::pin!(warmed, ended);
    let (mut is_warm, mut is_over) = (false, false);
    loop {
        tokio::select! {
            () = &mut warmed, if !is_warm => {
                is_warm = true;
                from = now();
            }
            () = &mut ended, if !is_over => {
                is_over = true;
                until = Some(now());
            }
            joined = workers.join_next() => match joined {
                Some(ended) => ended.map_err(LoadError::answer)??,
                None => break,
            },
        }
    }
    let until = until.unwrap_or_else(now);
    let seconds = until.0.saturating_duration_since(from.0).as_secs_f64().max(1e-9);
    Ok([0, 1].map(|n| (until.1[n] - from.1[n]) as f64 / seconds))
}
