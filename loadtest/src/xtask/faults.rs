//! What goes wrong, one thing or two after the other: chosen by the seed, bounded, and mended before the next.
//!
//! F1  No fault takes a quorum of the ring. Two at a time may take two servers of three, and have a kind of their own, so
//!     that what they cost is never counted for one alone.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use crate::Failure;
use crate::agents::World;
use crate::fleet::Fleet;
use crate::net::End;

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Redis stops for a while: requests to it hang.
    PauseRedis,
    /// Redis is killed and started: it has forgotten all.
    KillRedis,
    /// One comes and goes while another is there.
    Both(&'static Pair),
    /// Nothing, for comparison: only if asked for.
    Calm,
}

/// Two faults at a time.
#[derive(Debug, PartialEq, Eq)]
pub struct Pair {
    /// Begins first and ends last: one that has a beginning and an end of its own.
    under: Fault,
    /// Begins and ends meanwhile, at another server.
    over: Fault,
    name: &'static str,
}

const fn pair(under: Fault, over: Fault, name: &'static str) -> Pair {
    Pair { under, over, name }
}

/// Pairs that a cluster has to survive: ownership moves while the store is slow, while another server leaves, comes, or
/// has the wrong time.
static PAIRS: [Pair; 9] = [
    pair(Fault::PauseStore, Fault::Kill, "kill+store-pause"),
    pair(Fault::PauseStore, Fault::Pause, "stop+store-pause"),
    pair(Fault::PauseStore, Fault::Partition, "partition+store-pause"),
    pair(Fault::PauseStore, Fault::Rolling, "rolling+store-pause"),
    pair(Fault::KillStore, Fault::Drain, "drain+store-kill"),
    pair(Fault::Kill, Fault::Drain, "drain+kill"),
    pair(Fault::Kill, Fault::Join, "join+kill"),
    pair(Fault::Clock, Fault::Kill, "kill+clock"),
    pair(Fault::KillRedis, Fault::Kill, "kill+redis-kill"),
];
/// So many of them are among the faults of one round of the dice, and all if they are asked for by this name.
const PAIRS_PER_ROUND: usize = 3;
const ALL_PAIRS: &str = "pairs";
/// Fewest servers of which a pair may take two.
const ENOUGH: usize = 3;

impl Fault {
    /// All single ones, as often as they should be.
    const DICE: [Self; 19] = [
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
        Self::PauseRedis,
        Self::KillRedis,
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
            Self::PauseRedis => "redis paused",
            Self::KillRedis => "redis killed",
            Self::Both(pair) => pair.name,
            Self::Calm => "calm",
        }
    }

    /// Whether it can be done to these servers, with what is installed.
    fn possible(self, fleet: &Fleet, servers: usize) -> bool {
        match self {
            Self::Clock => fleet.clocks_jump(),
            Self::PauseRedis | Self::KillRedis => fleet.has_redis(),
            Self::Both(pair) => {
                servers >= ENOUGH && pair.under.possible(fleet, servers) && pair.over.possible(fleet, servers)
            }
            _ => true,
        }
    }

    /// Whether it is asked for: by the beginning of its name, but a pair by nothing that means a single one.
    fn named(self, only: &[String]) -> bool {
        let name = self.name().replace(' ', "-");
        only.iter().any(|wanted| match self {
            Self::Both(_) => wanted == ALL_PAIRS || (wanted.contains('+') && name.starts_with(wanted.as_str())),
            _ => name.starts_with(wanted.as_str()),
        })
    }

    /// All kinds that are possible and wanted, in an order that the seed decides.
    pub fn shuffled(rng: &mut StdRng, fleet: &Fleet, only: &[String], servers: usize) -> Vec<Self> {
        let mut pairs: Vec<Self> = PAIRS.iter().map(Self::Both).collect();
        pairs.retain(|fault| fault.possible(fleet, servers));
        shuffle(rng, &mut pairs);
        let mut kinds = Self::DICE.to_vec();
        if only.is_empty() {
            kinds.extend(pairs.into_iter().take(PAIRS_PER_ROUND));
        } else {
            kinds = kinds.into_iter().chain(pairs).chain([Self::Calm]).filter(|fault| fault.named(only)).collect();
        }
        kinds.retain(|fault| fault.possible(fleet, servers));
        shuffle(rng, &mut kinds);
        kinds
    }

    /// For how long it lasts, in seconds, if it is one with a beginning and an end.
    fn lasts(self) -> std::ops::Range<f64> {
        match self {
            Self::Kill => 0.5..9.0,
            Self::Pause => 1.0..20.0,
            Self::Partition | Self::OneWay | Self::NoStore | Self::StoreOneWay => 1.0..15.0,
            Self::PauseStore => 1.0..10.0,
            Self::KillStore => 0.5..4.0,
            Self::Clock => 4.0..12.0,
            Self::PauseRedis | Self::KillRedis => 1.0..10.0,
            Self::Calm => 10.0..20.0,
            Self::Rolling | Self::Drain | Self::Join | Self::Both(_) => 0.0..0.1,
        }
    }
}

fn shuffle(rng: &mut StdRng, faults: &mut [Fault]) {
    for n in (1..faults.len()).rev() {
        faults.swap(n, rng.random_range(0..=n));
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

/// Between the beginnings of two at a time, in seconds.
const OVERLAP: std::ops::Range<f64> = 0.0..1.5;

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

/// Something that is wrong now: which server or node of the ring has it, and what is cut.
#[derive(Debug)]
struct Begun {
    fault: Fault,
    at: usize,
    cuts: Vec<(End, End)>,
}

/// Lets one thing or two go wrong, and mends them.
pub async fn strike(
    fault: Fault,
    fleet: &mut Fleet,
    world: &World,
    rng: &mut StdRng,
    servers: usize,
) -> Result<Struck, Failure> {
    let since = Instant::now();
    let victim = rng.random_range(1..=servers);
    let Fault::Both(pair) = fault else {
        let until = single(fault, fleet, world, rng, (victim, servers)).await?;
        return Ok(Struck { fault, since, until });
    };
    let under = begin(pair.under, fleet, rng, ((victim % servers) + 1, servers)).await?;
    tokio::time::sleep(seconds(rng, OVERLAP)).await;
    single(pair.over, fleet, world, rng, (victim, servers)).await?;
    let until = mend(under, fleet).await?;
    Ok(Struck { fault, since, until })
}

/// One fault from its beginning to its end; when it was mended.
async fn single(
    fault: Fault,
    fleet: &mut Fleet,
    world: &World,
    rng: &mut StdRng,
    at: (usize, usize),
) -> Result<Instant, Failure> {
    if let Fault::Rolling | Fault::Drain | Fault::Join = fault {
        orderly(fault, fleet, world, rng, at).await?;
        return Ok(Instant::now());
    }
    let begun = begin(fault, fleet, rng, at).await?;
    tokio::time::sleep(seconds(rng, fault.lasts())).await;
    mend(begun, fleet).await
}

async fn begin(
    fault: Fault,
    fleet: &mut Fleet,
    rng: &mut StdRng,
    (victim, servers): (usize, usize),
) -> Result<Begun, Failure> {
    let mut begun = Begun { fault, at: victim, cuts: Vec::new() };
    match fault {
        Fault::Kill => fleet.kill(victim).await,
        Fault::Pause => fleet.pause(victim, true),
        Fault::Partition | Fault::OneWay | Fault::NoStore | Fault::StoreOneWay => {
            begun.cuts = cuts(fault, victim, (victim % servers) + 1, rng);
            cut(fleet, &begun.cuts, true)?;
        }
        Fault::PauseStore | Fault::KillStore => {
            begun.at = rng.random_range(1..=3);
            fleet.ring_node(begun.at, if fault == Fault::KillStore { "kill" } else { "pause" }).await?;
        }
        Fault::Clock => {
            let far = rng.random_range(20..7_200);
            fleet.set_clock(victim, if rng.random_bool(0.5) { far } else { -far })?;
        }
        Fault::PauseRedis | Fault::KillRedis => {
            if let Some(redis) = fleet.redis() {
                if fault == Fault::KillRedis { redis.kill().await } else { redis.pause(true) }
            }
        }
        Fault::Rolling | Fault::Drain | Fault::Join | Fault::Both(_) | Fault::Calm => {}
    }
    Ok(begun)
}

/// Ends what was begun; when it was mended. Servers that were stopped or cut off only have to get over it then, those
/// that were killed have to be back.
async fn mend(begun: Begun, fleet: &mut Fleet) -> Result<Instant, Failure> {
    let at = begun.at;
    match begun.fault {
        Fault::Kill => {
            fleet.start(at)?;
            fleet.ready(at).await?;
        }
        Fault::Pause => {
            fleet.pause(at, false);
            let mended = Instant::now();
            fleet.ready(at).await?;
            return Ok(mended);
        }
        Fault::Partition | Fault::OneWay | Fault::NoStore | Fault::StoreOneWay => {
            cut(fleet, &begun.cuts, false)?;
            let mended = Instant::now();
            fleet.ready(at).await?;
            return Ok(mended);
        }
        Fault::PauseStore => fleet.ring_node(at, "resume").await?,
        Fault::KillStore => fleet.ring_node(at, "start").await?,
        Fault::Clock => {
            fleet.set_clock(at, 0)?;
            fleet.ready(at).await?;
        }
        Fault::PauseRedis | Fault::KillRedis => {
            if let Some(redis) = fleet.redis() {
                if begun.fault == Fault::KillRedis { redis.start().await? } else { redis.pause(false) }
            }
        }
        Fault::Rolling | Fault::Drain | Fault::Join | Fault::Both(_) | Fault::Calm => {}
    }
    Ok(Instant::now())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_an_end_of_its_own_and_leaves_a_quorum() {
        for pair in &PAIRS {
            assert!(pair.under.lasts().end > 0.1, "{}: what is under has to last", pair.name);
            let takes = |fault: Fault| matches!(fault, Fault::PauseStore | Fault::KillStore);
            assert!(!(takes(pair.under) && takes(pair.over)), "{}: two nodes of the ring", pair.name);
            assert!(!matches!(pair.over, Fault::Both(_)), "{}: three at a time", pair.name);
            assert!(pair.name.contains('+'), "{}: a kind of its own", pair.name);
        }
    }

    #[test]
    fn a_pair_is_asked_for_as_a_pair() {
        let both = Fault::Both(&PAIRS[0]);
        let only = |name: &str| [name.to_owned()];
        assert!(both.named(&only("pairs")) && both.named(&only("kill+")) && both.named(&only("kill+store-pause")));
        assert!(!both.named(&only("kill")), "the single one");
        assert!(Fault::Kill.named(&only("kill")) && Fault::KillRedis.named(&only("redis")));
    }
}
