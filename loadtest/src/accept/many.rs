//! Very many agents: all of them made, each receives and acknowledges, and what a send costs the server then.
//!
//! N1  Cost is processor time of the server per acknowledged send: what else the machine does hardly changes it.
//! N2  Both deployments keep whoever was used in memory for [`RESIDENT`], so that the number of agents is compared, and not
//!     how many of them have to be read from the store first. That has a row of its own, on servers with the default.

use std::time::Instant;

use super::table::{Table, Target};
use super::{Accept, Site, TEXT_BYTES, load};
use crate::drive::drive;
use crate::error::LoadError;
use crate::exchange::{Pairs, Sender};
use crate::ledger::Audience;
use crate::meter::Count;
use crate::scenarios::{Activate, Scenario};
use crate::schedule::Distribution;

/// Agents of the deployment to which the large one is compared.
const FEW: u64 = 10_000;
/// Clients of the measured sends.
const CLIENTS: usize = 64;
/// Longer than it takes to make and touch a million (N2).
const RESIDENT: &str = "passivate_after_s = 1800";

/// A deployment with its agents, each of which has received and acknowledged.
struct Populated {
    site: Site,
    minutes: f64,
}

/// Minutes until all have received and acknowledged, and what a send costs beside one among few.
pub(super) async fn agents(options: &Accept, table: &mut Table) -> Result<(), LoadError> {
    let (all, fewer) = (options.agents, FEW.min(options.agents));
    let resident = [RESIDENT.to_owned()];
    for (settings, state) in [(&resident[..], "all in memory"), (&[], "most to be read from the store")] {
        let few = populated(options, fewer, settings, table).await?.cost(options, fewer).await?;
        let many = populated(options, all, settings, table).await?;
        let cost = many.cost(options, all).await?;
        let name = format!("{all} agents made, each has received and acknowledged");
        table.put(&name, (many.minutes, "min"), None, Target::None);
        let name = format!("processor time per send among {all} agents, {state} ÷ among {fewer}");
        let target = if settings.is_empty() { Target::None } else { Target::AtMost(1.3) };
        table.put(&name, (cost, "µs"), Some((few, "µs")), target);
    }
    Ok(())
}

async fn populated(
    options: &Accept,
    agents: u64,
    settings: &[String],
    table: &mut Table,
) -> Result<Populated, LoadError> {
    let (site, begun) = (Site::start(options, settings).await?, Instant::now());
    site.provision(0, agents).await?;
    let activate = Scenario::Activate(Activate { agents, first: 0, clients: CLIENTS });
    table.judge(activate.run(&site.world, &site.meter()?).await?.verdict);
    Ok(Populated { site, minutes: begun.elapsed().as_secs_f64() / 60.0 })
}

impl Populated {
    /// Microseconds of the server per send, each between any of the pairs (N1).
    async fn cost(&self, options: &Accept, agents: u64) -> Result<f64, LoadError> {
        let pairs = Pairs {
            pairs: agents / 2,
            first: 0,
            distribution: Distribution::Uniform,
            exponent: 1.0,
            bytes: vec![TEXT_BYTES],
            online: Some(0),
        };
        self.site.rests().await;
        let (world, meter) = (&self.site.world, self.site.meter()?);
        let lane = world.ledger.open(Audience::Direct, &meter); // what is sent here waits in inboxes, and is not judged
        let sender = Sender::new(world, &lane, &pairs)?;
        let before = self.site.cpu();
        drive(&world.fleet, &meter, &load(options, None, CLIENTS), 1, sender).await?;
        Ok((self.site.cpu() - before) * 1e6 / meter.total(Count::Acknowledged).max(1) as f64)
    }
}
