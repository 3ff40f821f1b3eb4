//! `cargo xtask`: work on the project that is more than a test.
//!
//! `cost` measures what it costs that messages cross nodes.
//! `chaos` runs servers, a database ring and clients in network namespaces of its own, lets things go wrong, and holds what
//! the clients saw against the contract.

#![expect(unreachable_pub, reason = "a binary has no outside: `pub` means used by other modules")]

mod agents;
mod checker;
mod cost;
mod faults;
mod fleet;
mod history;
mod net;
mod owners;
mod redis;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::agents::World;
use self::faults::Fault;
use self::fleet::Fleet;
use self::net::Net;

/// Work on the project that is more than a test.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Break a cluster in every way, under load, and prove from the clients' histories that nothing is lost, repeated in
    /// a log, or out of order. Needs root (network namespaces), Java 17 and mvn.
    Chaos(Chaos),
    /// Measure what it costs that messages cross nodes: three nodes beside one, over the same store. Needs Java 17 and mvn.
    Cost(cost::Cost),
}

/// What a run is like.
#[derive(Debug, Clone, Args)]
pub struct Chaos {
    /// How long things go wrong
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Decides what goes wrong, and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Server binary
    #[arg(long, default_value = "target/release/agentchat")]
    server: PathBuf,
    /// Starts and breaks the database ring
    #[arg(long, default_value = "tests/bin/cassandra-dev")]
    cassandra: PathBuf,
    /// Servers, to begin with
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// Clients
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Mean pause of a client between two sends, in milliseconds
    #[arg(long, default_value_t = 6_000)]
    pace: u64,
    /// Only these faults, by the beginning of their names: kill, SIGSTOP, store, ...; pairs, or kill+store-pause, ...
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// These rules have to be broken, or the run has failed; it ends when all of them were. For servers that are known
    /// to be wrong: S2, O1, ...
    #[arg(long, value_delimiter = ',')]
    expect: Vec<String>,
    /// Leave logs and data here instead of a directory that goes away
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Namespaces that exist already (used by the harness itself)
    #[arg(long, hide = true)]
    inside: Option<String>,
}

/// Why a run could not be made. Violations are no failure of the run, but of the servers.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file or a process.
    #[error("{0}")]
    Io(String, #[source] std::io::Error),
    /// The network.
    #[error(transparent)]
    Net(#[from] net::NetError),
    /// A request that has to succeed.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// Anything else, in words.
    #[error("{0}")]
    Said(String),
}

/// Everything has to be answered and delivered within this, once all is mended.
const CALM: Duration = Duration::from_secs(90);
/// Load without faults, to begin with, until the ring has compiled what it runs; then as long again to compare with.
const WARM: Duration = Duration::from_secs(15);
/// The ends that all servers meet when all is over, clients draining anew after each: SIGTERM, kill -9.
const ENDS: [&str; 2] = ["stopped", "killed"];
/// Pause between two faults, and how old an unanswered send may be at its end: what one fault delayed is not blamed on
/// the next. After the longest wait the next one strikes anyway.
const BETWEEN: Duration = Duration::from_secs(3);
const SETTLED: Duration = Duration::from_secs(1);
const UNSETTLED: Duration = Duration::from_secs(45);

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Task::Cost(options) => working(cost::run(&options)).map(|()| ExitCode::SUCCESS),
        Task::Chaos(options) => match options.inside.clone() {
            None => outside(&options),
            Some(prefix) => working(run(&options, prefix)),
        },
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            let cause = std::error::Error::source(&failure).map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("xtask: {failure}{cause}");
            ExitCode::from(2)
        }
    }
}

/// Makes the namespaces and runs itself in the hub.
fn outside(options: &Chaos) -> Result<ExitCode, Failure> {
    // One more than there are servers to begin with: somebody may join.
    let net = Net::create(options.servers + 1)?;
    let myself = std::env::current_exe().map_err(|e| Failure::Io("this binary".to_owned(), e))?;
    let status = std::process::Command::new("ip")
        .args(["netns", "exec", &net.hub()])
        .arg(myself)
        .args(std::env::args_os().skip(1))
        .args(["--inside", net.prefix()])
        .status()
        .map_err(|e| Failure::Io("ip netns exec".to_owned(), e))?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(2)).unwrap_or(2)))
}

fn working<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Failure::Io("runtime".to_owned(), e))?.block_on(work)
}

async fn run(options: &Chaos, prefix: String) -> Result<ExitCode, Failure> {
    let scratch = tempfile::tempdir().map_err(|e| Failure::Io("scratch directory".to_owned(), e))?;
    let dir = options.keep.clone().unwrap_or(scratch.path().to_owned());
    std::fs::create_dir_all(&dir).map_err(|e| Failure::Io(dir.display().to_string(), e))?;
    let dir = dir.canonicalize().map_err(|e| Failure::Io(dir.display().to_string(), e))?;
    let net = Net::entered(prefix, options.servers + 1);
    let mut fleet = Fleet::new(&options.server, &options.cassandra, &dir, net, options.servers + 1)?;
    let outcome = storm(options, &mut fleet).await;
    for n in 1..=options.servers + 1 {
        fleet.kill(n).await;
    }
    fleet.wipe_ring().await;
    let clean = outcome?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The run; whether it was without violations, or with those that were expected.
async fn storm(options: &Chaos, fleet: &mut Fleet) -> Result<bool, Failure> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    println!("chaos: seed {}, {} servers, {} clients", options.seed, options.servers, options.clients);
    if !fleet.clocks_jump() {
        println!("chaos: libfaketime is not installed (Debian: faketime): clocks will not jump");
    }
    match fleet.redis() {
        Some(redis) => redis.start().await?,
        None => println!("chaos: redis-server is not installed (Debian: redis-server): Redis will not be lost"),
    }
    fleet.start_ring().await?;
    for n in 1..=options.servers {
        fleet.start(n)?;
    }
    for n in 1..=options.servers {
        fleet.ready(n).await?;
    }
    let world = Arc::new(World::people(options.clients, options.servers).await?);
    println!("chaos: ring, servers and {} clients are there", world.agents.len());
    world.start(options.seed, Duration::from_millis(options.pace));
    let (started, mut struck, mut kinds) = (Instant::now(), Vec::new(), Vec::new());
    tokio::time::sleep(WARM).await;
    let warm = Instant::now();
    tokio::time::sleep(WARM).await;
    let calm = warm..Instant::now() - SETTLED; // what was sent last may have met the first fault
    while started.elapsed().as_secs_f64() < options.minutes * 60.0 {
        if kinds.is_empty() {
            kinds = Fault::shuffled(&mut rng, fleet, &options.only, options.servers);
        }
        let Some(fault) = kinds.pop() else { break };
        if !options.expect.is_empty() && world.history.records().broke(&options.expect) {
            return Ok(true);
        }
        println!("chaos: {:>6.1} s  {}", started.elapsed().as_secs_f64(), fault.name());
        struck.push(faults::strike(fault, fleet, &world, &mut rng, options.servers).await?);
        settle(&world).await;
    }
    calm_down(&world).await;
    // What is wrong with a server may also keep it from starting: it is not asked to where that shows nothing.
    let ends = options.expect.is_empty() || options.expect.iter().any(|rule| rule == "S17");
    for (round, end) in ENDS.into_iter().enumerate().filter(|_| ends) {
        println!("chaos: {:>6.1} s  all servers {end} and started", started.elapsed().as_secs_f64());
        if round == 0 {
            fleet.drain_all(options.servers).await?;
        }
        restart_all(fleet, options.servers).await?;
        let _ = tokio::time::timeout(CALM, world.greet(round)).await; // those without an answer are counted next
        calm_down(&world).await;
    }
    let mut checked = checker::check(&world).await?;
    world.over.store(true, Ordering::Relaxed);
    let (batches, overlaps) = fleet.owners()?.judge();
    checked.batches = batches;
    overlaps.into_iter().for_each(|overlap| world.history.violate(overlap.rule, overlap.what));
    let records = world.history.records();
    report::print(options.seed, started, &calm, &struck, &records, &checked);
    Ok(if options.expect.is_empty() { records.violations.is_empty() } else { records.broke(&options.expect) })
}

/// Kills what runs of the servers before it starts the first again: what a client is offered then, it is offered anew.
async fn restart_all(fleet: &mut Fleet, servers: usize) -> Result<(), Failure> {
    for n in 1..=servers {
        fleet.kill(n).await;
    }
    for n in 1..=servers {
        fleet.start(n)?;
    }
    for n in 1..=servers {
        fleet.ready(n).await?;
    }
    Ok(())
}

/// Waits until what a fault delayed is answered.
async fn settle(world: &World) {
    tokio::time::sleep(BETWEEN).await;
    let end = Instant::now() + UNSETTLED;
    while world.history.oldest_open() > SETTLED && Instant::now() < end {
        tokio::time::sleep(SETTLED / 10).await;
    }
}

/// No new sends; everything sent is answered, everything delivered is acked.
async fn calm_down(world: &World) {
    world.quiet.store(true, Ordering::Relaxed);
    let end = Instant::now() + CALM;
    loop {
        let (open, waiting) = (world.history.open(), world.waiting().await);
        if open == 0 && waiting == 0 {
            return;
        }
        if Instant::now() >= end {
            let left = format!("after {CALM:?} of calm {open} sends are unanswered, {waiting} inboxes not empty");
            return world.history.violate("S15", left);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
