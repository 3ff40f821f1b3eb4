//! `churn`: recipients connect and disconnect all the time while they are written to. Nothing may be lost in between.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::Outcome;
use crate::drive::Load;
use crate::error::LoadError;
use crate::exchange::{self, Pairs};
use crate::listen::Manner;
use crate::meter::{Count, Meter};
use crate::world::World;

/// Options of `churn`.
#[derive(Debug, Clone, Args)]
pub struct Churn {
    #[command(flatten)]
    pairs: Pairs,
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
        let whole = |seconds: f64| (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds));
        let churn = whole(self.life).zip(whole(self.away));
        if churn.is_none() {
            return Err(LoadError::Usage("life and away have to be more than 0".to_owned()));
        }
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
