//! Second by second: what the servers say at `/metrics`, what the kernel says of their process, and of ours.
//!
//! M1  A server that does not answer in time has no value for that second: a hole is shown as a hole.
//! M2  Gauges are taken as they are, counters as their rise per second; labels and servers are added up. Histograms are left
//!     out: latencies are measured outside.
//! M3  The memory of the server comes from its process, if that is known, else from `process_resident_memory_bytes`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::client::Client;
use crate::report::model::Series;
use crate::world::World;

/// A server has this long for its metrics: a second has to be enough for all of them.
const SCRAPE_DEADLINE: Duration = Duration::from_millis(700);
/// Names of one server that are kept.
const NAMES_MAX: usize = 200;
/// The kernel counts processor time in hundredths of a second; this has not changed in thirty years.
const TICKS_PER_S: f64 = 100.0;
/// What Prometheus clients call their memory.
const RESIDENT: &str = "process_resident_memory_bytes";
/// And their processor time.
const PROCESSOR: &str = "process_cpu_seconds_total";

/// Values at one moment: gauges, and counters.
#[derive(Debug, Default, PartialEq)]
pub struct Metrics {
    /// By name, labels added up.
    pub gauges: BTreeMap<String, f64>,
    /// The same.
    pub counters: BTreeMap<String, f64>,
}

/// Reads the text format; what is neither gauge nor counter is skipped (M2).
pub fn parse(text: &str, into: &mut Metrics) {
    let mut kinds = BTreeMap::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            kinds.extend(kind.split_once(' '));
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let value = line.rsplit_once(['}', ' ']).and_then(|(_, value)| value.trim().parse::<f64>().ok());
        let Some(value) = value.filter(|value| value.is_finite()) else { continue };
        let values = match kinds.get(name) {
            Some(&"gauge") => &mut into.gauges,
            Some(&"counter") => &mut into.counters,
            _ => continue,
        };
        if values.len() < NAMES_MAX || values.contains_key(name) {
            *values.entry(name.to_owned()).or_default() += value;
        }
    }
}

/// Bytes that a process holds.
pub fn process_resident(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1_024.0)
}

/// Seconds of processor time that a process has used.
pub fn process_cpu(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses; what follows it does not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_S)
}

/// Memory of the servers now (M3).
pub async fn resident_bytes(world: &World) -> Option<f64> {
    if world.server_pids.is_empty() {
        return scrape(&mut clients(world)).await?.gauges.remove(RESIDENT);
    }
    world.server_pids.iter().copied().map(process_resident).sum()
}

/// A connection to each server.
fn clients(world: &World) -> Vec<Client> {
    world.fleet.all().iter().map(|target| Client::new(Arc::clone(target))).collect()
}

/// All servers, added up; `None`: one did not answer (M1).
async fn scrape(clients: &mut [Client]) -> Option<Metrics> {
    let mut metrics = Metrics::default();
    for client in clients {
        let answered = timeout(SCRAPE_DEADLINE, client.send(Method::GET, "/metrics", "", String::new())).await;
        let answer = answered.ok()?.ok()?;
        if !answer.status.is_success() {
            return None;
        }
        parse(std::str::from_utf8(&answer.body).ok()?, &mut metrics);
    }
    Some(metrics)
}

/// Collects series until the run is over.
pub struct Sampler {
    world: Arc<World>,
    clients: Vec<Client>,
    counters: Option<BTreeMap<String, f64>>,
    cpu: [Option<f64>; 2],
    rows: usize,
    series: Series,
}

impl Sampler {
    /// Nothing sampled yet.
    pub fn new(world: &Arc<World>) -> Self {
        Self {
            world: Arc::clone(world),
            clients: clients(world),
            counters: None,
            cpu: [None; 2],
            rows: 0,
            series: Series::new(),
        }
    }

    /// One second more.
    pub async fn sample(&mut self) {
        let metrics = scrape(&mut self.clients).await;
        let (mut resident, mut cpu) = (None, None);
        if let Some(Metrics { gauges, counters }) = metrics {
            (resident, cpu) = (gauges.get(RESIDENT).copied(), counters.get(PROCESSOR).copied());
            for (name, value) in gauges {
                self.put(&format!("gauge {name}"), value);
            }
            if let Some(before) = self.counters.take() {
                for (name, value) in &counters {
                    let rise = value - before.get(name).copied().unwrap_or(0.0);
                    if rise >= 0.0 {
                        self.put(&format!("rate {name}"), rise); // it falls when a server was started again
                    }
                }
            }
            self.counters = Some(counters);
        }
        let pids = &self.world.server_pids;
        if !pids.is_empty() {
            resident = pids.iter().copied().map(process_resident).sum();
            cpu = pids.iter().copied().map(process_cpu).sum();
        }
        let own = std::process::id();
        let memory = [("server", resident), ("harness", process_resident(own))];
        for (who, bytes) in memory {
            if let Some(bytes) = bytes {
                self.put(&format!("memory {who}"), bytes / 1_048_576.0);
            }
        }
        for (n, (who, now)) in [("server", cpu), ("harness", process_cpu(own))].into_iter().enumerate() {
            if let (Some(before), Some(now)) = (self.cpu[n], now) {
                self.put(&format!("cpu {who}"), ((now - before) * 100.0).max(0.0));
            }
            self.cpu[n] = now;
        }
        self.rows += 1;
    }

    fn put(&mut self, name: &str, value: f64) {
        let values = self.series.entry(name.to_owned()).or_default();
        values.resize(self.rows, None);
        values.push(Some(value));
    }

    /// Everything, in rows of the same length; what never was anything but 0 is left out.
    pub fn finish(mut self) -> Series {
        self.series.values_mut().for_each(|values| values.resize(self.rows, None));
        self.series.retain(|_, values| values.iter().flatten().any(|value| *value != 0.0));
        self.series
    }
}

/// Memory of the servers over time, until it is dropped.
pub struct MemoryWatch {
    task: JoinHandle<()>,
    memory: Arc<Mutex<Vec<(f64, f64)>>>,
}

impl MemoryWatch {
    /// Looks every so often.
    pub fn start(world: &Arc<World>, every: Duration) -> Self {
        let (memory, world) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(world));
        let kept = Arc::clone(&memory);
        let task = tokio::spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                if let Some(bytes) = resident_bytes(&world).await {
                    let at = world.clock.now_us() as f64 / 1e6;
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push((at, bytes));
                }
            }
        });
        Self { task, memory }
    }

    /// Seconds and bytes of every look that had an answer.
    pub fn seen(&self) -> Vec<(f64, f64)> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format() {
        let text = "# HELP a_total x\n# TYPE a_total counter\na_total{code=\"1\"} 2\na_total{code=\"a b}\"} 3\n\n\
                    # TYPE b gauge\nb 1.5\n# TYPE c histogram\nc_bucket{le=\"1\"} 7\nc_sum 1\nd 4\n# TYPE e gauge\ne NaN\n";
        let mut metrics = Metrics::default();
        parse(text, &mut metrics);
        parse("# TYPE b gauge\nb 2\n", &mut metrics); // another server
        assert_eq!(metrics.counters, BTreeMap::from([("a_total".to_owned(), 5.0)]));
        assert_eq!(metrics.gauges, BTreeMap::from([("b".to_owned(), 3.5)]));
    }

    #[test]
    fn the_kernel_knows_this_process() {
        let own = std::process::id();
        assert!(process_resident(own).is_some_and(|bytes| bytes > 100_000.0));
        assert!(process_cpu(own).is_some_and(|seconds| seconds >= 0.0));
        assert_eq!(process_resident(u32::MAX), None);
    }
}
