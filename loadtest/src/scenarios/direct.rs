//! `direct`: messages between pairs, at a rate or as fast as answers come.

use std::sync::Arc;

use clap::Args;

use super::Outcome;
use crate::drive::Load;
use crate::error::LoadError;
use crate::exchange::{self, Pairs};
use crate::listen::Manner;
use crate::meter::Meter;
use crate::world::World;

/// Options of `direct`.
#[derive(Debug, Clone, Args)]
pub struct Direct {
    #[command(flatten)]
    pub(super) pairs: Pairs,
    #[command(flatten)]
    load: Load,
}

impl Direct {
    pub(super) async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        let (driven, lane) = exchange::run(world, meter, &self.pairs, &self.load, Manner::default()).await?;
        let outcome = Outcome::of(&lane).driven(&driven);
        Ok(match self.load.rate {
            Some(rate) => outcome.figure("asked for", rate, "sends/s"),
            None => outcome.note("closed loop: latencies begin with each request, not with a timetable"),
        })
    }
}
