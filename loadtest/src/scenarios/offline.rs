//! `offline-burst`: inboxes fill while their agents are away; then everybody connects at once and drains.
//!
//! B1  The storm's clock starts once for all: a socket that has to wait for its turn is late, not new.
//! B2  The storm is over when every socket has seen what waited for it, from the backlog that the server pushes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::Outcome;
use super::idle::room_for;
use crate::client::Client;
use crate::drive::{Arrival, Job};
use crate::error::LoadError;
use crate::exchange::{Pairs, Sender, texts};
use crate::ledger::{Audience, Lane};
use crate::listen::{Listeners, Manner};
use crate::meter::{Meter, Timing};
use crate::sample::{MemoryWatch, resident_bytes};
use crate::schedule::Distribution;
use crate::settle;
use crate::target::SOURCES_MAX;
use crate::world::{Task, World, each};

/// Sockets that have not drained by then are swept over REST, and the storm has no time.
const STORM_MAX: Duration = Duration::from_secs(600);
/// Memory of the server is looked at this often.
const LOOK: Duration = Duration::from_millis(50);
/// Messages that wait for one agent; the contract refuses more than 10,000.
const DEPTH_MAX: u64 = 9_000;

/// Options of `offline-burst`.
#[derive(Debug, Clone, Args)]
pub struct OfflineBurst {
    /// Agents that are away
    #[arg(long, default_value_t = 100)]
    pub inboxes: u64,
    /// Messages that wait for each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=DEPTH_MAX))]
    pub depth: u64,
    /// Number of the first agent; each one away has a neighbour that writes, so there are twice as many
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Bytes of text
    #[arg(long, default_value_t = 80)]
    pub bytes: usize,
    /// Connections that fill
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// Handshakes under way together
    #[arg(long, default_value_t = 256)]
    pub at_once: usize,
    /// Source addresses in 127.0.0.0/8, for servers on this machine
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=SOURCES_MAX))]
    pub sources: u64,
}

/// What a storm came to.
pub struct Storm {
    /// Seconds until every socket had drained; `None`: some never did.
    pub took_s: Option<f64>,
    /// Seconds that filling took.
    pub fill_s: f64,
    /// Bytes of the server before it, and the most during it, if they are known.
    pub memory: Option<(f64, f64)>,
    /// What became of the messages.
    pub lane: Arc<Lane>,
}

impl OfflineBurst {
    pub(super) async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        let storm = self.storm(world, meter).await?;
        let messages = (self.inboxes * self.depth) as f64;
        let outcome = Outcome::of(&storm.lane).figure("filled", messages / storm.fill_s, "sends/s");
        let outcome = match storm.took_s {
            Some(took) => outcome
                .figure("storm", took, "s")
                .figure("sockets in the storm", self.inboxes as f64 / took, "sockets/s")
                .figure("deliveries in the storm", messages / took, "deliveries/s")
                .figure("slowest socket greeted after", meter.quantile_ms(Timing::Hello, 1.0), "ms"),
            None => outcome.note(format!("the storm was not over after {} s", STORM_MAX.as_secs())),
        };
        Ok(match storm.memory {
            Some((before, most)) => outcome.figure("server memory before", before / 1_048_576.0, "MiB").figure(
                "most server memory in the storm",
                most / 1_048_576.0,
                "MiB",
            ),
            None => outcome,
        })
    }

    /// Fills, storms, sweeps.
    pub async fn storm(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Storm, LoadError> {
        room_for(self.inboxes)?;
        let pairs = Pairs {
            pairs: self.inboxes,
            first: self.first,
            distribution: Distribution::Own,
            exponent: 1.0,
            bytes: vec![self.bytes],
            online: Some(0),
        };
        pairs.check()?;
        texts(&pairs.bytes)?;
        let lane = world.ledger.open(Audience::Direct, meter);
        pairs.establish(world).await?;
        // What the hello left behind is not what the storm is about.
        let first = self.first;
        let emptied = Emptied { world: Arc::clone(world), first };
        each(world, self.inboxes, self.clients, emptied).await?;
        let begun = Instant::now();
        let filler = Filler { world: Arc::clone(world), sender: Sender::new(world, &lane, &pairs)? };
        each(world, self.inboxes * self.depth, self.clients, filler).await?;
        let fill_s = begun.elapsed().as_secs_f64();
        let storm = Some((world.clock.now_us(), self.depth));
        let manner = Manner { at_once: self.at_once, sources: self.sources, churn: None, storm };
        let before = resident_bytes(world).await;
        let watch = MemoryWatch::start(world, LOOK);
        let begun = Instant::now();
        let away = (0..self.inboxes).map(|n| first + 2 * n + 1);
        let listeners = Listeners::open(world, meter, away, manner).await?;
        let drained = listeners.finished(STORM_MAX).await?;
        let took_s = drained.then(|| begun.elapsed().as_secs_f64());
        let memory = before.zip(watch.seen().into_iter().map(|(_, bytes)| bytes).reduce(f64::max));
        settle::sweep(world, &lane, self.inboxes, move |n| first + 2 * n + 1).await?;
        Ok(Storm { took_s, fill_s, memory, lane })
    }
}

struct Emptied {
    world: Arc<World>,
    first: u64,
}

impl Task for Emptied {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        settle::drain(&self.world, client, self.first + 2 * n + 1).await?;
        Ok(())
    }
}

struct Filler {
    world: Arc<World>,
    sender: Sender,
}

impl Task for Filler {
    async fn run(&self, client: &mut Client, number: u64) -> Result<(), LoadError> {
        let intended_us = self.world.clock.now_us();
        self.sender.run(client, Arrival { number, worker: 0, intended_us }).await
    }
}
