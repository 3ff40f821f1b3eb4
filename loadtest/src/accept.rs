//! `loadtest accept`: the table by which the server is judged, every figure beside a yardstick of the same minutes.
//!
//! A1  Ratios travel between machines, rates do not: each round measures yardstick and server one after the other, so that
//!     what else the machine does meets both.
//! A2  A figure is the median of all rounds with the lowest and the highest; fewer than five rounds are for trying out.
//! A3  A round in which anything was lost, repeated or out of order makes the whole table worthless, and the exit code 1.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::agents::Roster;
use crate::bare::{Bare, BareSends};
use crate::baseline::{Appends, synced_appends};
use crate::drive::{Driven, Load, drive};
use crate::error::LoadError;
use crate::exchange::{self, Pairs, texts};
use crate::ledger::{Ledger, Verdict};
use crate::listen::Manner;
use crate::meter::{Clock, Meter, Timing};
use crate::report::text::number;
use crate::run::machine;
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
    #[arg(long, default_value_t = 5_000)]
    sockets: u64,
    /// Sockets of the reconnect storm, with 20 undelivered messages each
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    storm: u64,
}

/// One line of the table.
#[derive(Default)]
struct Row {
    name: String,
    ours: (Vec<f64>, &'static str),
    yardstick: (Vec<f64>, &'static str),
    ratio: Vec<f64>,
}

/// Rows in the order of their first figure.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    verdict: Verdict,
}

impl Table {
    /// One figure with its yardstick.
    fn put(&mut self, name: &str, ours: (f64, &'static str), yardstick: Option<(f64, &'static str)>) {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), ..Row::default() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.ours.0.push(ours.0);
        row.ours.1 = ours.1;
        if let Some((value, unit)) = yardstick {
            row.yardstick.0.push(value);
            row.yardstick.1 = unit;
            row.ratio.push(ours.0 / value);
        }
    }

    fn judge(&mut self, verdict: Verdict) {
        self.verdict = self.verdict.and(verdict);
    }

    fn markdown(&self) -> String {
        let mut text = "| Measure | Ratio | Here | Yardstick |\n|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            let ratio = spread(&row.ratio).unwrap_or("–".to_owned());
            let with_unit = |(values, unit): &(Vec<f64>, &str)| {
                spread(values).map_or("–".to_owned(), |spread| format!("{spread} {unit}"))
            };
            let (ours, yardstick) = (with_unit(&row.ours), with_unit(&row.yardstick));
            text.push_str(&format!("| {} | {ratio} | {ours} | {yardstick} |\n", row.name));
        }
        text
    }
}

/// Median and range; `None` of nothing (A2).
fn spread(values: &[f64]) -> Option<String> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.first()?, sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
    Some(format!("**{}** ({}–{})", number(median), number(*low), number(*high)))
}

/// A server of our own with its agents.
struct Site {
    world: Arc<World>,
    _server: Server,
}

impl Site {
    async fn start(options: &Accept) -> Result<Self, LoadError> {
        let server = Server::start(&options.server, &options.disk).await?;
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
    let site = Site::start(options).await?;
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
    table.put("durable acknowledged direct sends ÷ bare 201 handler", (ours, "sends/s"), Some(bare_rate));
    let appends_rate = (appends.rate, "appends/s");
    table.put("the same ÷ appends with fdatasync, one by one", (ours, "sends/s"), Some(appends_rate));
    let whole = direct(options, site, table, (None, options.clients)).await?.0;
    let name = "the same with every recipient on a socket ÷ bare 201 handler";
    table.put(name, (whole.acknowledged_per_s, "sends/s"), Some(bare_rate));
    let half = Some(whole.acknowledged_per_s / 2.0);
    let (_, half) = direct(options, site, table, (half, options.clients)).await?;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let receipt = half.quantile_ms(Timing::Receipt, quantile);
        let name = format!("send to live receipt at half load, {name} ÷ append with fdatasync, p50");
        table.put(&name, (receipt, "ms"), Some((appends.p50_ms, "ms")));
    }
    table.put("TCP echo over loopback, p50", (echo, "ms"), None);
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
    table.put(&name, (driven.delivered_per_s, "deliveries/s"), Some((ones, "deliveries/s")));
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
    table.put(&name, (took, "s"), None);
    table.put("deliveries in the storm", ((options.storm * DEPTH) as f64 / took, "deliveries/s"), None);
    Ok(())
}

/// On a server of its own: memory that was used before would be used again, and cost nothing.
async fn idle(options: &Accept, table: &mut Table) -> Result<(), LoadError> {
    let site = Site::start(options).await?;
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
        table.put(&name, (value, if figure.contains("memory") { "KiB" } else { "sockets/s" }), None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[2.0]).as_deref(), Some("**2.00** (2.00–2.00)"));
        assert_eq!(spread(&[3.0, 1.0, 2.0]).as_deref(), Some("**2.00** (1.00–3.00)"));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).as_deref(), Some("**2.50** (1.00–4.00)"));
    }

    #[test]
    fn the_table_divides_within_a_round() {
        let mut table = Table::default();
        table.put("sends", (50.0, "sends/s"), Some((100.0, "answers/s")));
        table.put("alone", (7.0, "ms"), None);
        table.put("sends", (90.0, "sends/s"), Some((100.0, "answers/s")));
        let lines: Vec<String> = table.markdown().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[2],
            "| sends | **0.70** (0.50–0.90) | **70.0** (50.0–90.0) sends/s | **100** (100–100) answers/s |"
        );
        assert_eq!(lines[3], "| alone | – | **7.00** (7.00–7.00) ms | – |");
    }
}
