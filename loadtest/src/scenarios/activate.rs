//! `activate`: every agent is touched; it receives, reads and acknowledges at least one message.
//!
//! Neighbours take turns: the even one writes, the odd one reads, acknowledges and answers, the even one reads and
//! acknowledges. Afterwards every agent was in memory once, and each pair is established.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;

use super::Outcome;
use crate::client::Client;
use crate::error::LoadError;
use crate::ledger::{Audience, Lane};
use crate::meter::{Count, Meter, Timing};
use crate::sample::resident_bytes;
use crate::settle::drain;
use crate::world::{Outgoing, Task, World, each};

/// Options of `activate`.
#[derive(Debug, Clone, Args)]
pub struct Activate {
    /// How many; an even number
    #[arg(long, default_value_t = 1_000)]
    pub agents: u64,
    /// Number of the first
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Keep-alive connections, each with one pair at a time
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
}

struct Turns {
    world: Arc<World>,
    meter: Arc<Meter>,
    lane: Arc<Lane>,
    first: u64,
}

impl Activate {
    pub(super) async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        if self.agents < 2 || !self.agents.is_multiple_of(2) {
            return Err(LoadError::Usage("activate takes an even number of agents".to_owned()));
        }
        let lane = world.ledger.open(Audience::Direct, meter);
        let (begun, before) = (Instant::now(), resident_bytes(world).await);
        let turns =
            Turns { world: Arc::clone(world), meter: Arc::clone(meter), lane: Arc::clone(&lane), first: self.first };
        each(world, self.agents / 2, self.clients, turns).await?;
        let took = begun.elapsed().as_secs_f64();
        let outcome = Outcome::of(&lane).figure("rate", self.agents as f64 / took, "agents/s");
        Ok(match (before, resident_bytes(world).await) {
            (Some(before), Some(after)) => {
                let outcome = outcome.figure("server memory after", after / 1_048_576.0, "MiB");
                outcome.figure("server memory per agent touched", (after - before) / self.agents as f64, "bytes")
            }
            _ => outcome,
        })
    }
}

impl Task for Turns {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        let even = self.first + 2 * n;
        for (sender, to) in [(even, even + 1), (even + 1, even)] {
            let target = format!(r#""to":"{}""#, self.world.roster.handle(to));
            let intended_us = self.world.clock.now_us();
            let message = Outgoing { sender, target, to, text: "are you there?", intended_us };
            self.world.send(&self.lane, client, message).await?;
            let begun = self.world.clock.now_us();
            drain(&self.world, client, to).await?;
            self.meter.done(Timing::Request, begun);
            self.meter.count(Count::Done);
        }
        Ok(())
    }
}
