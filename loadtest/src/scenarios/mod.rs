//! The scenarios: each a file, each a set of options that is a command line and an entry of a plan alike.
//!
//! Z1  A scenario leaves nothing behind but agents and read messages: the next one on the same agents starts clean.
//! Z2  Its lane holds every message it sent; its verdict is that of the lane.

mod activate;
mod churn;
mod direct;
mod group;
mod idle;
mod offline;
mod presence;
mod provision;
mod soak;

use std::sync::Arc;

use clap::Subcommand;

pub use self::activate::Activate;
pub use self::group::Group;
pub use self::idle::IdleSockets;
pub use self::offline::OfflineBurst;
pub use self::provision::Provision;
use crate::drive::Driven;
use crate::error::LoadError;
use crate::ledger::{Lane, Verdict};
use crate::meter::{Count, Meter};
use crate::report::model::Figure;
use crate::world::World;

/// What can be run.
#[derive(Debug, Clone, Subcommand)]
pub enum Scenario {
    /// Make agents in bulk through the operator surface; their keys follow from --key-seed
    Provision(provision::Provision),
    /// Touch agents: neighbours write to each other, each reads its inbox and acknowledges
    Activate(activate::Activate),
    /// Direct messages between pairs: open or closed loop, even or Zipf, any sizes
    Direct(direct::Direct),
    /// Groups of 2 to 256: sends, and deliveries to every member
    Group(group::Group),
    /// Hold many sockets: handshakes a second, server memory per socket
    IdleSockets(idle::IdleSockets),
    /// Fill inboxes of agents that are away, then let all of them connect at once
    OfflineBurst(offline::OfflineBurst),
    /// Agents change their presence, contacts of theirs on sockets are told
    PresenceStorm(presence::PresenceStorm),
    /// Recipients connect and disconnect all the time while they are written to
    Churn(churn::Churn),
    /// A moderate load for long, with churn: does memory or latency creep?
    Soak(soak::Soak),
}

/// What a scenario found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What it comes to.
    pub verdict: Verdict,
    /// Single numbers.
    pub figures: Vec<Figure>,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Of a lane.
    pub fn of(lane: &Lane) -> Self {
        Self { verdict: lane.verdict(), ..Self::default() }
    }

    /// With one more number.
    pub fn figure(mut self, name: &str, value: f64, unit: &str) -> Self {
        self.figures.push(Figure::new(name, value, unit));
        self
    }

    /// With one more note.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// With what a driven load comes to.
    pub fn driven(self, driven: &Driven) -> Self {
        let outcome = self.figure("acknowledged", driven.acknowledged_per_s, "sends/s").figure(
            "delivered",
            driven.delivered_per_s,
            "deliveries/s",
        );
        if driven.given_up == 0 {
            return outcome;
        }
        outcome.note(format!(
            "{} arrivals were given up: the servers stayed behind the timetable by more than the grace",
            driven.given_up
        ))
    }
}

impl Scenario {
    /// Its name, as on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Provision(_) => "provision",
            Self::Activate(_) => "activate",
            Self::Direct(_) => "direct",
            Self::Group(_) => "group",
            Self::IdleSockets(_) => "idle-sockets",
            Self::OfflineBurst(_) => "offline-burst",
            Self::PresenceStorm(_) => "presence-storm",
            Self::Churn(_) => "churn",
            Self::Soak(_) => "soak",
        }
    }

    /// The agents that it uses: the first, and how many; `None` for the one that makes them.
    pub fn agents(&self) -> Option<(u64, u64)> {
        match self {
            Self::Provision(_) => None,
            Self::Activate(scenario) => Some((scenario.first, scenario.agents)),
            Self::Direct(scenario) => Some(scenario.pairs.agents()),
            Self::Group(scenario) => Some((scenario.first, scenario.groups.saturating_mul(scenario.size))),
            Self::IdleSockets(scenario) => Some((scenario.first, scenario.sockets)),
            Self::OfflineBurst(scenario) => Some((scenario.first, scenario.inboxes.saturating_mul(2))),
            Self::PresenceStorm(scenario) => Some((scenario.first, scenario.agents)),
            Self::Churn(scenario) => Some(scenario.pairs.agents()),
            Self::Soak(scenario) => Some(scenario.pairs.agents()),
        }
    }

    /// What can be known to fail before anything is started.
    pub fn check(&self) -> Result<(), LoadError> {
        match self {
            Self::IdleSockets(scenario) => idle::room_for(scenario.sockets),
            Self::OfflineBurst(scenario) => idle::room_for(scenario.inboxes),
            Self::PresenceStorm(scenario) => idle::room_for(scenario.agents),
            _ => Ok(()),
        }
    }

    /// Runs it to its end.
    pub async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        let mut outcome = match self {
            Self::Provision(scenario) => scenario.run(world, meter).await,
            Self::Activate(scenario) => scenario.run(world, meter).await,
            Self::Direct(scenario) => scenario.run(world, meter).await,
            Self::Group(scenario) => scenario.run(world, meter).await,
            Self::IdleSockets(scenario) => scenario.run(world, meter).await,
            Self::OfflineBurst(scenario) => scenario.run(world, meter).await,
            Self::PresenceStorm(scenario) => scenario.run(world, meter).await,
            Self::Churn(scenario) => scenario.run(world, meter).await,
            Self::Soak(scenario) => scenario.run(world, meter).await,
        }?;
        for (code, count) in meter.refusals() {
            outcome.notes.push(format!("{count} sends were refused: {code}"));
        }
        if meter.total(Count::Connected) > 0 {
            outcome.figures.push(Figure::new("handshakes", meter.total(Count::Connected) as f64, "sockets"));
        }
        Ok(outcome)
    }
}
