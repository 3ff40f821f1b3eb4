//! Very many agents: all of them made, each receives and acknowledges, and what a send costs the server then.
//!
//! N1  Cost is processor time of the server per acknowledged send: what else the machine does hardly changes it.

use std::time::Instant;

use super::table::{Table, Target};
use super::{Accept, Site, TEXT_BYTES, load};
use crate::drive::drive;
use crate::error::LoadError;
use crate::exchange::{Pairs, Sender};
use crate::ledger::Audience;
use crate::meter::Count;
use crate::sample::process_cpu;
use crate::scenarios::{Activate, Scenario};
use crate::schedule::Distribution;

/// Agents of the deployment to which the large one is compared.
const FEW: u64 = 10_000;
/// Clients of the measured sends.
const CLIENTS: usize = 64;

/// Minutes until all have received and acknowledged, and what a send costs beside one among few.
pub(super) async fn agents(options: &Accept, table: &mut Table) -> Result<(), LoadError> {
    let fewer = FEW.min(options.agents);
    let few = one(options, fewer, table).await?.1;
    let (minutes, many) = one(options, options.agents, table).await?;
    let name = format!("{} agents made, each has received and acknowledged", options.agents);
    table.put(&name, (minutes, "min"), None, Target::None);
    let name = format!("processor time per send among {} agents ÷ among {fewer}", options.agents);
    table.put(&name, (many, "µs"), Some((few, "µs")), Target::AtMost(1.3));
    Ok(())
}

/// Minutes, and microseconds per send.
async fn one(options: &Accept, agents: u64, table: &mut Table) -> Result<(f64, f64), LoadError> {
    let (site, begun) = (Site::start(options).await?, Instant::now());
    site.provision(0, agents).await?;
    let activate = Scenario::Activate(Activate { agents, first: 0, clients: CLIENTS });
    table.judge(activate.run(&site.world, &site.meter()?).await?.verdict);
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let pairs = Pairs {
        pairs: agents / 2,
        first: 0,
        distribution: Distribution::Uniform,
        exponent: 1.0,
        bytes: vec![TEXT_BYTES],
        online: Some(0),
    };
    let meter = site.meter()?;
    let lane = site.world.ledger.open(Audience::Direct, &meter); // what is sent here waits in inboxes, and is not judged
    let sender = Sender::new(&site.world, &lane, &pairs)?;
    let cpu = || site.world.server_pids.iter().copied().filter_map(process_cpu).sum::<f64>();
    let before = cpu();
    drive(&site.world.fleet, &meter, &load(options, None, CLIENTS), 1, sender).await?;
    Ok((minutes, (cpu() - before) * 1e6 / meter.total(Count::Acknowledged).max(1) as f64))
}
