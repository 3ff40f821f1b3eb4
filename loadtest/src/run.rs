//! A run: servers, stages of scenarios, samples every second, a report at the end.
//!
//! N1  The scenarios of a stage run at the same time, each with its own meter; the next stage begins when all have ended.
//! N2  Every run ends with a verdict: exit code 0 if it passed, 1 if it did not, 2 if it could not be made.
//! N3  A server elsewhere gets no load by default, and never with keys that everybody can derive.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::agents::{KEY_SEED_MIN, Roster};
use crate::error::LoadError;
use crate::ledger::Ledger;
use crate::meter::{Clock, Count, Meter, Timing};
use crate::plan::Entry;
use crate::report;
use crate::report::model::{Run, Scenario as Reported, Series};
use crate::sample::Sampler;
use crate::server::{OPERATOR_TOKEN, Server};
use crate::target::Fleet;
use crate::world::{Inject, World};

/// Without a terminal, progress is a line this often, in seconds.
const LINE_EVERY: u64 = 10;

/// Where a run goes and what becomes of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Servers, agents, reports")]
pub struct Options {
    /// Base URL of a server; several for the nodes of a cluster [default: http://127.0.0.1:8080]
    #[arg(long, global = true, value_name = "URL")]
    url: Vec<String>,
    /// Start this server binary on a free loopback port, with a directory that goes away, instead of using a running one
    #[arg(long, global = true, value_name = "BINARY", conflicts_with = "url")]
    server: Option<PathBuf>,
    /// Where the directory of --server is made
    #[arg(long, global = true, default_value = ".", value_name = "DIR")]
    disk: PathBuf,
    /// Token of the operator surface, for `provision`
    #[arg(long, global = true, env = "AGENTCHAT_OPERATOR_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    operator_token: Option<String>,
    /// Beginning of every handle
    #[arg(long, global = true, default_value = "load")]
    prefix: String,
    /// Secret that all keys are derived from, 64 characters or more. Loopback servers may do without: then --seed decides
    #[arg(long, global = true, env = "AGENTCHAT_LOAD_KEY_SEED", hide_env_values = true, value_name = "SECRET")]
    key_seed: Option<String>,
    /// Decides every random choice
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Line of the settings file of --server, for example 'store_cache_mib = 16'; several are allowed
    #[arg(long, global = true, value_name = "KEY = VALUE", requires = "server")]
    server_setting: Vec<String>,
    /// Process of a server, for memory and processor time (known for --server); several are added up
    #[arg(long, global = true, value_name = "PID")]
    server_pid: Vec<u32>,
    /// Write the run as JSON, for comparisons
    #[arg(long, global = true, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the run as a page with plots
    #[arg(long, global = true, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Name of the run in comparisons
    #[arg(long, global = true, default_value = "run")]
    label: String,
    /// A connection may be shown a message twice: shards move or nodes die meanwhile
    #[arg(long, global = true)]
    allow_redelivery: bool,
    #[arg(long, global = true, hide = true)]
    drop_delivery: Option<u64>,
    #[arg(long, global = true, hide = true)]
    repeat_delivery: Option<u64>,
    #[arg(long, global = true, hide = true)]
    swap_delivery: Option<u64>,
}

impl Options {
    /// Whether the servers are our own, and new.
    pub fn starts_server(&self) -> bool {
        self.server.is_some()
    }

    fn world(&self, server: Option<&Server>) -> Result<World, LoadError> {
        let urls = match server {
            Some(server) => vec![format!("http://{}", server.address)],
            None if self.url.is_empty() => vec!["http://127.0.0.1:8080".to_owned()],
            None => self.url.clone(),
        };
        let fleet = Fleet::new(&urls)?;
        let key_seed = match &self.key_seed {
            Some(seed) if seed.len() < KEY_SEED_MIN => {
                return Err(LoadError::Usage(format!("a key seed has {KEY_SEED_MIN} characters or more")));
            }
            Some(seed) => seed.clone(),
            None if fleet.all().iter().all(|target| target.is_loopback()) => Roster::public_seed(self.seed),
            None => {
                return Err(LoadError::Usage(
                    "a server elsewhere needs a secret --key-seed: everybody can derive the default one".to_owned(),
                ));
            }
        };
        let token = server.map(|_| OPERATOR_TOKEN.to_owned()).or_else(|| self.operator_token.clone());
        Ok(World {
            fleet,
            roster: Roster::new(&self.prefix, &key_seed),
            ledger: Ledger::default(),
            clock: Clock::default(),
            run: rand::random(),
            seed: self.seed,
            operator_token: token,
            redelivery_allowed: self.allow_redelivery,
            inject: Inject::new(self.drop_delivery, self.repeat_delivery, self.swap_delivery),
            server_pids: server.and_then(Server::pid).map_or_else(|| self.server_pid.clone(), |pid| vec![pid]),
        })
    }
}

/// Runs stages to their end, prints what came of them, writes the reports. Whether the verdict is good.
pub async fn run(options: &Options, stages: Vec<Vec<Entry>>) -> Result<bool, LoadError> {
    for entry in stages.iter().flatten() {
        entry.scenario.check()?;
    }
    let server = match &options.server {
        Some(binary) => Some(Server::start(binary, &options.disk, &options.server_setting).await?),
        None => None,
    };
    let world = Arc::new(options.world(server.as_ref())?);
    let begun = Instant::now();
    let mut run = Run {
        label: options.label.clone(),
        started_unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        command: command(&stages),
        machine: machine(),
        urls: world.fleet.all().iter().map(|target| target.url.clone()).collect(),
        seed: world.seed,
        ..Run::default()
    };
    let (stop, stopped) = oneshot::channel();
    let sampler = tokio::spawn(sample(Arc::clone(&world), stopped));
    let mut failed = None;
    for (number, stage) in stages.into_iter().enumerate() {
        match run_stage(&world, number + 1, stage).await {
            Ok(reported) => run.scenarios.extend(reported),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let _ = stop.send(()); // the sampler listens until then
    run.series = sampler.await.map_err(LoadError::answer)?;
    if let Some(error) = failed {
        return Err(error);
    }
    run.took_s = begun.elapsed().as_secs_f64();
    run.verdict = run.scenarios.iter().fold(run.verdict, |sum, scenario| sum.and(scenario.verdict));
    let passed = run.verdict.passed() && run.scenarios.iter().all(|scenario| scenario.verdict.passed());
    println!("{}", report::text::whole(&run));
    report::write(&run, options.out.as_deref(), options.html.as_deref())?;
    Ok(passed)
}

async fn run_stage(world: &Arc<World>, number: usize, stage: Vec<Entry>) -> Result<Vec<Reported>, LoadError> {
    let mut running = JoinSet::new();
    for (place, entry) in stage.into_iter().enumerate() {
        let meter = Arc::new(Meter::new(&format!("{number}.{} {}", place + 1, entry.scenario.name()), world.clock)?);
        let world = Arc::clone(world);
        running.spawn(async move { (place, run_one(&world, &meter, entry).await) });
    }
    let mut done = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (place, reported) = ended.map_err(LoadError::answer)?;
        done.push((place, reported?));
    }
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, reported)| reported).collect())
}

async fn run_one(world: &Arc<World>, meter: &Arc<Meter>, entry: Entry) -> Result<Reported, LoadError> {
    let (from_s, begun) = (world.clock.now_us() as f64 / 1e6, Instant::now());
    let (stop, stopped) = oneshot::channel();
    let watcher = tokio::spawn(watch(Arc::clone(meter), stopped));
    let outcome = entry.scenario.run(world, meter).await;
    let _ = stop.send(()); // the watcher listens until then
    let series = watcher.await.map_err(LoadError::answer)?;
    let outcome = outcome?;
    Ok(Reported {
        name: meter.name().to_owned(),
        options: entry.options,
        from_s,
        took_s: begun.elapsed().as_secs_f64(),
        verdict: outcome.verdict,
        figures: outcome.figures,
        notes: outcome.notes,
        latencies: meter.distributions(),
        series,
    })
}

/// A tick every second; late ones are left out.
fn seconds() -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// Samples the servers until it is stopped.
async fn sample(world: Arc<World>, mut stopped: oneshot::Receiver<()>) -> Series {
    let (mut sampler, mut ticks) = (Sampler::new(&world), seconds());
    loop {
        tokio::select! {
            _ = ticks.tick() => sampler.sample().await,
            _ = &mut stopped => return sampler.finish(),
        }
    }
}

/// Collects the seconds of one scenario and shows its progress.
async fn watch(meter: Arc<Meter>, mut stopped: oneshot::Receiver<()>) -> Series {
    let style = ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    let (mut ticks, mut series, mut before) = (seconds(), Series::new(), Count::ALL.map(|_| 0));
    ticks.tick().await; // the first one comes at once
    for second in 1_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut stopped => break,
        }
        for (n, (what, name)) in Count::ALL.iter().enumerate() {
            let now = meter.total(*what);
            series.entry((*name).to_owned()).or_default().push(Some((now - before[n]) as f64));
            before[n] = now;
        }
        series.entry("sockets".to_owned()).or_default().push(Some(meter.sockets() as f64));
        let mut p99 = None;
        for (what, name) in Timing::ALL {
            let [median, high] = meter.lately(what).map_or([None; 2], |both| both.map(Some));
            series.entry(format!("{name} p50 ms")).or_default().push(median);
            series.entry(format!("{name} p99 ms")).or_default().push(high);
            p99 = p99.or(high.map(|ms| (name, ms)));
        }
        let line = progress(&meter, second, p99);
        if std::io::stderr().is_terminal() {
            bar.set_message(line);
            bar.tick();
        } else if second.is_multiple_of(LINE_EVERY) {
            eprintln!("{line}");
        }
    }
    bar.finish_and_clear();
    series.retain(|_, values| values.iter().flatten().any(|value| *value != 0.0));
    series
}

fn progress(meter: &Meter, second: u64, p99: Option<(&str, f64)>) -> String {
    let counted = Count::ALL.iter().filter(|(what, _)| meter.total(*what) > 0);
    let counted: Vec<String> = counted.map(|(what, name)| format!("{} {name}", meter.total(*what))).collect();
    let p99 = p99.map(|(name, ms)| format!(", {name} p99 {ms:.1} ms")).unwrap_or_default();
    format!("{} {second:>4} s  {}{p99}", meter.name(), counted.join(", "))
}

/// What was run, without secrets.
fn command(stages: &[Vec<Entry>]) -> String {
    let stage = |stage: &Vec<Entry>| {
        let entries: Vec<String> =
            stage.iter().map(|entry| format!("{} {}", entry.scenario.name(), entry.options)).collect();
        entries.join(" & ")
    };
    stages.iter().map(stage).collect::<Vec<_>>().join("; ").replace("  ", " ").trim().to_owned()
}

/// The machine of the harness.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split_whitespace().take(1).collect();
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = model.split_once(':').map_or("", |(_, model)| model.trim());
    format!("{cores} cores, {model}, Linux {}, load {} at the beginning", kernel.trim(), load.join(" "))
}
