//! What goes wrong, one thing after the other: chosen by the seed, bounded, and mended before the next.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use crate::Failure;
use crate::agents::World;
use crate::fleet::Fleet;
use crate::net::End;

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// kill -9 of a server, and its start.
    Kill,
    /// SIGSTOP of a server, for longer or shorter than its lease.
    Pause,
    /// Two servers do not reach each other.
    Partition,
    /// One server does not reach another, which reaches it.
    OneWay,
    /// A server and the ring do not reach each other.
    NoStore,
    /// A server's writes get lost, or the answers to them.
    StoreOneWay,
    /// A node of the ring stops for a while.
    PauseStore,
    /// A node of the ring is killed and started.
    KillStore,
    /// All servers are replaced, one after the other.
    Rolling,
    /// A server drains and comes back.
    Drain,
    /// One more server joins, and leaves after a while.
    Join,
    /// A server's time of day jumps, and jumps back.
    Clock,
    /// Nothing, for comparison: only if asked for.
    Calm,
}

impl Fault {
    /// All, as often as they should be.
    const DICE: [Self; 17] = [
        Self::Kill,
        Self::Kill,
        Self::Kill,
        Self::Pause,
        Self::Pause,
        Self::Pause,
        Self::Partition,
        Self::OneWay,
        Self::NoStore,
        Self::StoreOneWay,
        Self::PauseStore,
        Self::KillStore,
        Self::Rolling,
        Self::Drain,
        Self::Drain,
        Self::Join,
        Self::Clock,
    ];

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Pause => "SIGSTOP",
            Self::Partition => "partition",
            Self::OneWay => "one-way partition",
            Self::NoStore => "server without store",
            Self::StoreOneWay => "store one-way",
            Self::PauseStore => "store node paused",
            Self::KillStore => "store node killed",
            Self::Rolling => "rolling restart",
            Self::Drain => "drain",
            Self::Join => "join and leave",
            Self::Clock => "clock jump",
            Self::Calm => "calm",
        }
    }

    /// All kinds that are possible and wanted, in an order that the seed decides.
    pub fn shuffled(rng: &mut StdRng, fleet: &Fleet, only: &[String]) -> Vec<Self> {
        let named = |fault: &Self| only.iter().any(|name| fault.name().replace(' ', "-").starts_with(name.as_str()));
        let mut kinds = Self::DICE.to_vec();
        if !only.is_empty() {
            kinds = kinds.into_iter().chain([Self::Calm]).filter(named).collect();
        }
        kinds.retain(|fault| *fault != Self::Clock || fleet.clocks_jump());
        for n in (1..kinds.len()).rev() {
            kinds.swap(n, rng.random_range(0..=n));
        }
        kinds
    }
}

/// A fault that was.
#[derive(Debug, Clone, Copy)]
pub struct Struck {
    /// What.
    pub fault: Fault,
    /// From when.
    pub since: Instant,
    /// Until it was mended.
    pub until: Instant,
}

fn seconds(rng: &mut StdRng, range: std::ops::Range<f64>) -> Duration {
    Duration::from_secs_f64(rng.random_range(range))
}

/// What is cut between servers, or between one and the ring.
fn cuts(fault: Fault, victim: usize, other: usize, rng: &mut StdRng) -> Vec<(End, End)> {
    let (a, b) = (End::Server(victim), End::Server(other));
    match fault {
        Fault::Partition => vec![(a, b), (b, a)],
        Fault::OneWay => vec![(a, b)],
        Fault::NoStore => vec![(a, End::Store), (End::Store, a)],
        _ if rng.random_bool(0.5) => vec![(a, End::Store)],
        _ => vec![(End::Store, a)],
    }
}

fn cut(fleet: &Fleet, pairs: &[(End, End)], cut: bool) -> Result<(), Failure> {
    pairs.iter().try_for_each(|(from, to)| fleet.net().cut(*from, *to, cut)).map_err(Failure::Net)
}

/// Lets one thing go wrong, and mends it.
pub async fn strike(
    fault: Fault,
    fleet: &mut Fleet,
    world: &World,
    rng: &mut StdRng,
    servers: usize,
) -> Result<Struck, Failure> {
    let since = Instant::now();
    let victim = rng.random_range(1..=servers);
    let mut mended = Instant::now();
    match fault {
        Fault::Kill => {
            fleet.kill(victim).await;
            tokio::time::sleep(seconds(rng, 0.5..9.0)).await;
            fleet.start(victim)?;
            fleet.ready(victim).await?;
        }
        Fault::Pause => {
            fleet.pause(victim, true);
            tokio::time::sleep(seconds(rng, 1.0..20.0)).await;
            fleet.pause(victim, false);
            mended = Instant::now();
            fleet.ready(victim).await?;
        }
        Fault::Partition | Fault::OneWay | Fault::NoStore | Fault::StoreOneWay => {
            let all = cuts(fault, victim, (victim % servers) + 1, rng);
            cut(fleet, &all, true)?;
            tokio::time::sleep(seconds(rng, 1.0..15.0)).await;
            cut(fleet, &all, false)?;
            mended = Instant::now();
            fleet.ready(victim).await?;
        }
        Fault::PauseStore => {
            let node = rng.random_range(1..=3);
            fleet.ring_node(node, "pause").await?;
            tokio::time::sleep(seconds(rng, 1.0..10.0)).await;
            fleet.ring_node(node, "resume").await?;
        }
        Fault::KillStore => {
            let node = rng.random_range(1..=3);
            fleet.ring_node(node, "kill").await?;
            tokio::time::sleep(seconds(rng, 0.5..4.0)).await;
            fleet.ring_node(node, "start").await?;
        }
        Fault::Rolling | Fault::Drain | Fault::Join => orderly(fault, fleet, world, rng, (victim, servers)).await?,
        Fault::Clock => {
            let far = rng.random_range(20..7_200);
            fleet.set_clock(victim, if rng.random_bool(0.5) { far } else { -far })?;
            tokio::time::sleep(seconds(rng, 4.0..12.0)).await;
            fleet.set_clock(victim, 0)?;
            fleet.ready(victim).await?;
        }
        Fault::Calm => tokio::time::sleep(seconds(rng, 10.0..20.0)).await,
    }
    Ok(Struck { fault, since, until: mended.max(since) })
}

/// Servers that go and come as operators let them.
async fn orderly(
    fault: Fault,
    fleet: &mut Fleet,
    world: &World,
    rng: &mut StdRng,
    (victim, servers): (usize, usize),
) -> Result<(), Failure> {
    match fault {
        Fault::Rolling => {
            for n in 1..=servers {
                fleet.drain(n).await?;
                fleet.start(n)?;
                fleet.ready(n).await?;
            }
        }
        Fault::Join => {
            let extra = servers + 1;
            fleet.start(extra)?;
            fleet.ready(extra).await?;
            world.servers.store(extra, Ordering::Relaxed);
            tokio::time::sleep(seconds(rng, 2.0..8.0)).await;
            world.servers.store(servers, Ordering::Relaxed);
            fleet.drain(extra).await?;
        }
        _ => {
            fleet.drain(victim).await?;
            tokio::time::sleep(seconds(rng, 0.5..4.0)).await;
            fleet.start(victim)?;
            fleet.ready(victim).await?;
        }
    }
    Ok(())
}
