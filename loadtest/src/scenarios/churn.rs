//! `churn`: recipients connect and disconnect all the time while they are written to. Nothing may be lost in between.

use std::sync::Arc;

use clap::Args;

use super::Outcome;
use crate::drive::{Load, span};
use crate::error::LoadError;
use crate::exchange::{self, Pairs};
use crate::listen::Manner;
use crate::meter::{Count, Meter};
use crate::world::World;

/// Options of `churn`.
#[derive(Debug, Clone, Args)]
pub struct Churn {
    #[command(flatten)]
    pub(super) pairs: Pairs,
    #[command(flatten)]
    load: Load,
    /// Mean seconds that a socket lives; each draws its own
    #[arg(long, default_value_t = 2.0)]
    life: f64,
    /// Mean seconds between two sockets of an agent
    #[arg(long, default_value_t = 0.5)]
    away: f64,
    /// Handshakes under way together
    #[arg(long, default_value_t = 128)]
    at_once: usize,
}

impl Churn {
    pub(super) async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        let churn = Some((span("life", self.life)?, span("away", self.away)?));
        let manner = Manner { at_once: self.at_once, churn, ..Manner::default() };
        let begun = meter.clock().now_us();
        let (driven, lane) = exchange::run(world, meter, &self.pairs, &self.load, manner).await?;
        let took = (meter.clock().now_us() - begun) as f64 / 1e6;
        Ok(Outcome::of(&lane).driven(&driven).figure(
            "handshakes a second",
            meter.total(Count::Connected) as f64 / took,
            "sockets/s",
        ))
    }
}
