//! `loadtest accept`: the table by which the server is judged, every figure beside a yardstick of the same minutes.
//!
//! A1  Ratios travel between machines, rates do not: each round measures yardstick and server one after the other, so that
//!     what else the machine does meets both.
//! A2  A figure is the median of all rounds with the lowest and the highest; fewer than five rounds are for trying out.
//! A3  Targets are those of the project, for two cores with the client on the same machine; a row says whether its median meets it.
//! A4  What is measured below full load begins when the server has done what full load left behind: it rests, or
//!     [`REST_MAX`] is over. What is measured at full load pays for what it leaves, so there nothing is waited for.
//! A5  A round in which anything was lost, repeated or out of order makes the whole table worthless, and the exit code 1.

mod apart;
mod many;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use self::table::{Table, Target};
use crate::agents::Roster;
use crate::bare::{Bare, BareSends};
use crate::baseline::{Appends, synced_appends};
use crate::drive::{Driven, Load, drive};
use crate::error::LoadError;
use crate::exchange::{self, Pairs, texts};
use crate::ledger::Ledger;
use crate::listen::Manner;
use crate::meter::{Clock, Meter, Timing};
use crate::run::machine;
use crate::sample::process_cpu;
use crate::scenarios::{Group, IdleSockets, OfflineBurst, Provision, Scenario};
use crate::schedule::Distribution;
use crate::server::{OPERATOR_TOKEN, Server};
use crate::target::Fleet;
use crate::world::{Inject, World};

/// Length of a look at the disk or the echo.
const YARDSTICK: Duration = Duration::from_secs(1);
/// Members of the measured group; the contract's most.
const GROUP: u64 = 256;
/// Members that send to the group at the same time.
const GROUP_SENDERS: usize = 8;
/// Messages that wait for each socket of a storm.
const DEPTH: u64 = 20;
/// Text of every message: a short chat line.
const TEXT_BYTES: usize = 84;
/// Numbers of the first agents of the group and of the storm; pairs begin at 0.
const GROUP_FIRST: u64 = 10_000;
const STORM_FIRST: u64 = 20_000;

/// Longest wait for a server to rest (A4), how often it is looked at, and the share of a processor below which it does.
const REST_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(1);
const RESTS: f64 = 0.05;

/// Options of `accept`.
#[derive(Debug, Clone, Args)]
pub struct Accept {
    /// Server binary to start on a loopback port with its own directory
    #[arg(long, default_value = "target/release/agentchat")]
    server: PathBuf,
    /// Where the directories are made: the disk that is measured
    #[arg(long, default_value = ".")]
    disk: PathBuf,
    /// Times that everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,
    /// Length of each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Keep-alive clients, each with its own pair
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4_000))]
    clients: u64,
    /// Sockets whose memory is measured
    #[arg(long, default_value_t = 15_000)]
    sockets: u64,
    /// Sockets of the reconnect storm, with 20 undelivered messages each
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    storm: u64,
    /// The sources: benches of parts are run from there; where there are none, they are left out
    #[arg(long, default_value = ".")]
    sources: PathBuf,
    /// Agents of the last measurement: all are made, write and acknowledge; 0 leaves it out. A million is meant
    #[arg(long, default_value_t = 0)]
    agents: u64,
    /// Also what takes long, once: 96,000 sockets of six nodes, and --soak-minutes of churn
    #[arg(long)]
    long: bool,
    /// Minutes of the soak of --long
    #[arg(long, default_value_t = 30.0)]
    soak_minutes: f64,
}

/// A server of our own with its agents.
struct Site {
    world: Arc<World>,
    _server: Server,
}

impl Site {
    /// On a server with `more` settings.
    async fn start(options: &Accept, more: &[String]) -> Result<Self, LoadError> {
        let server = Server::start(&options.server, &options.disk, more).await?;
        let world = World {
            fleet: Fleet::at(server.address),
            roster: Roster::new("load", &Roster::public_seed(1)),
            ledger: Ledger::default(),
            clock: Clock::default(),
            run: rand::random(),
            seed: 1,
            operator_token: Some(OPERATOR_TOKEN.to_owned()),
            redelivery_allowed: false,
            inject: Inject::default(),
            server_pids: server.pid().into_iter().collect(),
        };
        Ok(Self { world: Arc::new(world), _server: server })
    }

    /// Seconds of processor time that the server has used.
    fn cpu(&self) -> f64 {
        self.world.server_pids.iter().copied().filter_map(process_cpu).sum()
    }

    /// Waits until the server rests (A4).
    async fn rests(&self) {
        let (begun, mut before) = (Instant::now(), self.cpu());
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.cpu();
            if now - before < RESTS * LOOK.as_secs_f64() || begun.elapsed() > REST_MAX {
                return;
            }
            before = now;
        }
    }

    fn meter(&self) -> Result<Arc<Meter>, LoadError> {
        Ok(Arc::new(Meter::new("accept", self.world.clock)?))
    }

    async fn provision(&self, first: u64, agents: u64) -> Result<(), LoadError> {
        let scenario = Scenario::Provision(Provision { agents, first, batch: 5_000, clients: 2 });
        scenario.run(&self.world, &self.meter()?).await.map(|_| ())
    }
}

/// Measures everything and prints the table. Whether the verdict is good.
pub async fn run(options: &Accept) -> Result<bool, LoadError> {
    let (bare, mut table) = (Bare::start().await?, Table::default());
    println!("{}", machine());
    println!(
        "{} rounds of {} s; {} clients; text of {TEXT_BYTES} bytes; median (lowest–highest)\n",
        options.rounds, options.seconds, options.clients
    );
    let site = Site::start(options, &[]).await?;
    site.provision(0, 2 * options.clients).await?;
    site.provision(GROUP_FIRST, GROUP).await?;
    site.provision(STORM_FIRST, 2 * options.storm).await?;
    let group = group(options);
    let groups = group.assemble(&site.world).await?;
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        let ones = messages(options, &bare, &site, &mut table).await?;
        fan_out(&site, (&group, groups.clone()), ones, &mut table).await?;
        storm(options, &site, &mut table).await?;
        idle(options, &mut table).await?;
    }
    drop(site);
    if options.agents > 0 {
        many::agents(options, &mut table).await?;
    }
    if options.long {
        apart::long(options, &mut table).await?;
    }
    println!("{}", table.markdown());
    println!("verdict {}", table.verdict.line());
    Ok(table.verdict.passed())
}

fn load(options: &Accept, rate: Option<f64>, clients: usize) -> Load {
    Load { rate, poisson: true, clients, seconds: options.seconds, warmup: 1.0, count: None }
}

/// Direct messages between pairs; `online` of the recipients hold sockets.
async fn direct(
    options: &Accept,
    site: &Site,
    table: &mut Table,
    (rate, online): (Option<f64>, u64),
) -> Result<(Driven, Arc<Meter>), LoadError> {
    let (pairs, distribution) = (options.clients, Distribution::Own);
    let pairs = Pairs { pairs, first: 0, distribution, exponent: 1.0, bytes: vec![TEXT_BYTES], online: Some(online) };
    let (meter, clients) = (site.meter()?, usize::try_from(options.clients).unwrap_or(usize::MAX));
    let load = load(options, rate, clients);
    let (driven, lane) = exchange::run(&site.world, &meter, &pairs, &load, Manner::default()).await?;
    table.judge(lane.verdict());
    Ok((driven, meter))
}

/// Sends a second beside the bare handler; receipt at half of what recipients on sockets take, beside one durable append.
/// Direct deliveries a second, for the group.
async fn messages(options: &Accept, bare: &Bare, site: &Site, table: &mut Table) -> Result<f64, LoadError> {
    let disk = options.disk.clone();
    let appends = tokio::task::spawn_blocking(move || synced_appends(&disk, YARDSTICK)).await;
    let appends: Appends = appends.map_err(LoadError::answer)??;
    let echo = bare.round_trips(YARDSTICK).await?.value_at_quantile(0.5) as f64 / 1_000.0;
    let (meter, text) = (site.meter()?, texts(&[TEXT_BYTES])?.remove(0));
    let closed = load(options, None, usize::try_from(options.clients).unwrap_or(usize::MAX));
    let sends = BareSends { meter: Arc::clone(&meter), text };
    let bare_rate = drive(&Fleet::at(bare.http), &meter, &closed, 1, sends).await?.acknowledged_per_s;
    let ours = direct(options, site, table, (None, 0)).await?.0.acknowledged_per_s;
    let bare_rate = (bare_rate, "answers/s");
    let name = "durable acknowledged direct sends ÷ bare 201 handler";
    table.put(name, (ours, "sends/s"), Some(bare_rate), Target::AtLeast(0.4));
    let appends_rate = (appends.rate, "appends/s");
    table.put("the same ÷ appends with fdatasync, one by one", (ours, "sends/s"), Some(appends_rate), Target::None);
    let whole = direct(options, site, table, (None, options.clients)).await?.0;
    let name = "the same with every recipient on a socket ÷ bare 201 handler";
    table.put(name, (whole.acknowledged_per_s, "sends/s"), Some(bare_rate), Target::None);
    let half = Some(whole.acknowledged_per_s / 2.0);
    site.rests().await;
    let (_, half) = direct(options, site, table, (half, options.clients)).await?;
    for (name, quantile, target) in [("p50", 0.5, 3.0), ("p99", 0.99, 10.0)] {
        let receipt = half.quantile_ms(Timing::Receipt, quantile);
        let name = format!("send to live receipt at half load, {name} ÷ append with fdatasync, p50");
        table.put(&name, (receipt, "ms"), Some((appends.p50_ms, "ms")), Target::AtMost(target));
    }
    table.put("TCP echo over loopback, p50", (echo, "ms"), None, Target::None);
    apart::parts(options, appends.rate, table).await?;
    Ok(whole.delivered_per_s)
}

fn group(options: &Accept) -> Group {
    let load = load(options, None, GROUP_SENDERS);
    Group { groups: 1, size: GROUP, first: GROUP_FIRST, online: 1.0, bytes: TEXT_BYTES, load }
}

/// Deliveries of a large group beside those of direct messages, all recipients on sockets.
async fn fan_out(
    site: &Site,
    (group, ids): (&Group, Vec<String>),
    ones: f64,
    table: &mut Table,
) -> Result<(), LoadError> {
    let (driven, lane) = group.exchange(&site.world, &site.meter()?, ids).await?;
    table.judge(lane.verdict());
    let name = format!("deliveries of a group of {GROUP} ÷ direct deliveries");
    let ours = (driven.delivered_per_s, "deliveries/s");
    table.put(&name, ours, Some((ones, "deliveries/s")), Target::AtLeast(3.0));
    Ok(())
}

async fn storm(options: &Accept, site: &Site, table: &mut Table) -> Result<(), LoadError> {
    let burst = OfflineBurst {
        inboxes: options.storm,
        depth: DEPTH,
        first: STORM_FIRST,
        bytes: TEXT_BYTES,
        clients: 64,
        at_once: 256,
        sources: 64,
    };
    let storm = burst.storm(&site.world, &site.meter()?).await?;
    table.judge(storm.lane.verdict());
    let took = storm.took_s.ok_or_else(|| LoadError::answer("the storm was never over"))?;
    let name = format!("reconnect storm, {} sockets with {DEPTH} undelivered each", options.storm);
    table.put(&name, (took, "s"), None, Target::AtMost(30.0));
    let rate = (options.storm * DEPTH) as f64 / took;
    table.put("deliveries in the storm", (rate, "deliveries/s"), None, Target::None);
    if let Some((before, highest)) = storm.memory {
        let mib = |bytes: f64| (bytes / 1_048_576.0, "MiB");
        let name = "most memory in the storm ÷ memory before it";
        table.put(name, mib(highest), Some(mib(before)), Target::AtMost(2.0));
    }
    Ok(())
}

/// On a server of its own: memory that was used before would be used again, and cost nothing.
async fn idle(options: &Accept, table: &mut Table) -> Result<(), LoadError> {
    let site = Site::start(options, &[]).await?;
    site.provision(0, options.sockets).await?;
    let sockets = options.sockets;
    let idle = IdleSockets { sockets, first: 0, at_once: 64, sources: 64, hold: 1.0, probes: 100 };
    let outcome = Scenario::IdleSockets(idle).run(&site.world, &site.meter()?).await?;
    table.judge(outcome.verdict);
    for (figure, name) in [
        ("server memory per socket", format!("server memory per idle socket, {sockets} of them")),
        ("handshakes a second", "handshakes".to_owned()),
    ] {
        let found = outcome.figures.iter().find(|found| found.name == figure);
        let value = found.ok_or_else(|| LoadError::answer(format!("no figure: {figure}")))?.value;
        let (unit, target) =
            if figure.contains("memory") { ("KiB", Target::AtMost(8.0)) } else { ("sockets/s", Target::None) };
        table.put(&name, (value, unit), None, target);
    }
    Ok(())
}
