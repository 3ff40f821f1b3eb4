//! `presence-storm`: agents change their presence, and everybody who has them in the book and holds a socket is told.
//!
//! S1  Agents sit in a ring; each has the next `watchers` agents in its book. The storm begins with all sockets coming up at
//!     once, which is a change as well.
//! S2  Presence is live-only, and changes in quick succession may be told as one. So the storm is timed and counted, and the
//!     verdict is on what comes after it: one last change of everybody, which every watcher has to see.

use std::sync::Arc;

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::Outcome;
use super::idle::room_for;
use crate::client::Client;
use crate::drive::{Arrival, Job, Load, drive};
use crate::error::LoadError;
use crate::ledger::{Audience, Lane};
use crate::listen::{Listeners, Manner, every};
use crate::meter::{Count, Meter, Timing};
use crate::settle;
use crate::wire::Tag;
use crate::world::{Task, World, each};

/// Connections that set up and that make the last change.
const HANDS: usize = 32;

/// Options of `presence-storm`.
#[derive(Debug, Clone, Args)]
pub struct PresenceStorm {
    /// Agents in the ring, one socket each
    #[arg(long, default_value_t = 100)]
    pub(super) agents: u64,
    /// Number of the first
    #[arg(long, default_value_t = 0)]
    pub(super) first: u64,
    /// Agents that watch each of them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    watchers: u64,
    #[command(flatten)]
    load: Load,
}

impl PresenceStorm {
    pub(super) async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        let (first, agents, watchers) = (self.first, self.agents, self.watchers);
        if agents <= watchers {
            return Err(LoadError::Usage("a ring has more agents than each has watchers".to_owned()));
        }
        room_for(agents)?;
        let book = Book { world: Arc::clone(world), first, agents, watchers };
        each(world, agents * watchers, HANDS, book).await?;
        let storm_meter = Arc::clone(meter);
        let storm = world.ledger.open(Audience::Ring { first, agents, watchers }, &storm_meter);
        let listeners = Listeners::open(world, meter, every(first..first + agents, 1), Manner::default()).await?;
        let changes = |lane: &Arc<Lane>| Changes { world: Arc::clone(world), lane: Arc::clone(lane), first, agents };
        let driven = drive(&world.fleet, meter, &self.load, world.seed, changes(&storm)).await?;
        settle::wait(&storm).await;
        let seen = storm.verdict();
        let told = seen.delivered as f64 / (seen.expected as f64).max(1.0);
        let last = world.ledger.open(Audience::Ring { first, agents, watchers }, meter);
        each(world, agents, HANDS, changes(&last)).await?;
        settle::wait(&last).await;
        listeners.close().await?;
        let mut outcome = Outcome::of(&last);
        outcome.verdict.astray += seen.astray;
        Ok(outcome
            .figure("changes", driven.acknowledged_per_s, "changes/s")
            .figure("told", driven.delivered_per_s, "frames/s")
            .figure("changes told one by one", told * 100.0, "%")
            .figure("presence p99", meter.quantile_ms(Timing::Presence, 0.99), "ms"))
    }
}

/// Each has the next ones in its book (S1).
struct Book {
    world: Arc<World>,
    first: u64,
    agents: u64,
    watchers: u64,
}

impl Task for Book {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        let (watcher, distance) = (n / self.watchers, n % self.watchers + 1);
        let watched = self.first + (watcher + distance) % self.agents;
        let body = json!({"handle": self.world.roster.handle(watched)}).to_string();
        self.world.ask(client, Method::POST, "/v1/contacts", self.first + watcher, &body).await?;
        Ok(())
    }
}

struct Changes {
    world: Arc<World>,
    lane: Arc<Lane>,
    first: u64,
    agents: u64,
}

impl Changes {
    /// One change of one agent.
    async fn change(&self, client: &mut Client, number: u64, intended_us: u64) -> Result<(), LoadError> {
        let full = || LoadError::Usage("too many changes for one scenario: split it".to_owned());
        let index = self.lane.next().ok_or_else(full)?;
        let agent = self.first + number % self.agents;
        let tag = Tag { run: self.world.run, lane: self.lane.id(), index, to: agent, at_us: intended_us };
        let status = if (number / self.agents).is_multiple_of(2) { "busy" } else { "online" };
        let body = json!({"status": status, "custom_message": tag.encode()}).to_string();
        self.world.ask(client, Method::PUT, "/v1/presence", agent, &body).await?;
        self.lane.acknowledged(index, 0, None);
        let meter = self.lane.meter();
        meter.done(Timing::Request, intended_us);
        meter.count(Count::Acknowledged);
        Ok(())
    }
}

impl Job for Changes {
    async fn run(&self, client: &mut Client, arrival: Arrival) -> Result<(), LoadError> {
        self.change(client, arrival.number, arrival.intended_us).await
    }
}

impl Task for Changes {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        let now = self.world.clock.now_us();
        self.change(client, n, now).await
    }
}
