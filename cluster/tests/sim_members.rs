//! Seeded simulation of members: the real lease, member, routes and pipeline, under faults; one seed is one run.
//!
//! Every node has a paused runtime of its own, so its clock has a rate (K3), and it can be stopped while its clock goes
//! on. Nodes are stopped, die, come back under their names, join, drain; the store loses and delays questions and
//! answers, applies what was given up long ago, or refuses; what nodes tell each other is lost one way.
//! After every step: an acknowledgement comes from whom the tables say, under a lease that its own clock lets hold, of
//! a write that is stored, and in order; a new owner sees all of them, no half of a batch, and nothing changes under it;
//! epochs rise. In the end, without faults, every shard serves at its home and everybody knows; a drain leaves nothing.
//!
//! What the simulation misses is checked as well, `Broken` says what is taken away: the margin, the look at the lease
//! after a write, leases read after shards (M1), settling before hosting (M2), epochs in stamps (P3),
//! that only what came to rest is not settled (P6).
//!
//! `AGENTCHAT_SIM_SEEDS=N` runs N seeds (default 150); `AGENTCHAT_SIM_SEED=S` runs one, and tells what happened in it if
//! it goes wrong.

#[path = "members/ledger.rs"]
mod ledger;
#[path = "members/node.rs"]
mod node;
#[path = "members/sea.rs"]
mod sea;
#[path = "members/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Outcome, World};

/// What is taken away from the protocol, to see that the simulation misses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// The holder stops no earlier than others take over.
    Margin,
    /// An owner acknowledges without looking at its lease after the write.
    Guard,
    /// Leases are read before shards (M1).
    LeasesFirst,
    /// Shards are hosted before their log was settled (M2).
    Settle,
    /// Stamps without epochs (P3).
    Stamps,
    /// A shard that is given up counts as at rest, whatever is under way (P6).
    Rest,
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs seeds on all cores; the first that goes wrong, and what came of the others.
fn run_seeds(seeds: std::ops::RangeInclusive<u64>, broken: Broken) -> (Vec<Outcome>, Option<(u64, String)>) {
    let (next, found) = (AtomicU64::new(*seeds.start()), Mutex::new((Vec::new(), None::<(u64, String)>)));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > *seeds.end() || found.lock().expect("no seed panics").1.is_some() {
                        return;
                    }
                    match World::new(seed, broken, false).run() {
                        Ok(outcome) => found.lock().expect("no seed panics").0.push(outcome),
                        Err((what, _)) => {
                            let first = &mut found.lock().expect("no seed panics").1;
                            if first.as_ref().is_none_or(|(other, _)| seed < *other) {
                                *first = Some((seed, what));
                            }
                        }
                    }
                }
            });
        }
    });
    found.into_inner().expect("no seed panics")
}

/// Broken worlds run until one is noticed, so many at most.
const NOTICED_WITHIN: u64 = 500;

#[test]
fn the_simulation_sees_what_each_rule_is_for() {
    for broken in [Broken::Margin, Broken::Guard, Broken::LeasesFirst, Broken::Settle, Broken::Stamps, Broken::Rest] {
        let wrong = run_seeds(1..=NOTICED_WITHIN, broken).1;
        let (seed, what) = wrong.unwrap_or_else(|| panic!("{broken:?} goes unnoticed"));
        println!("{broken:?}: seed {seed}: {what}");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 5, 8] {
        let run = || World::new(seed, Broken::Nothing, false).run().map_err(|(what, _)| what);
        let (first, second) = (run(), run());
        assert_eq!(first, second);
        assert!(first.is_ok_and(|outcome| outcome.acks > 0));
    }
}

#[test]
fn acknowledged_writes_survive_whatever_happens() {
    if let Some(seed) = setting("AGENTCHAT_SIM_SEED") {
        let outcome = World::new(seed, Broken::Nothing, true).run();
        if let Err((what, trace)) = outcome {
            trace.iter().for_each(|line| println!("{line}"));
            panic!("seed {seed}: {what}");
        }
        return;
    }
    let seeds = setting("AGENTCHAT_SIM_SEEDS").unwrap_or(150);
    let started = std::time::Instant::now();
    let (outcomes, wrong) = run_seeds(1..=seeds, Broken::Nothing);
    let most = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).max().unwrap_or_default();
    let all = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    println!(
        "{} seeds in {} ms: {} acknowledged, {} takeovers, settled within {} ms, drained within {} ms",
        outcomes.len(),
        started.elapsed().as_millis(),
        all(|o| o.acks),
        all(|o| o.loads),
        most(|o| o.settled),
        most(|o| o.drained),
    );
    if let Some((seed, what)) = wrong {
        panic!("AGENTCHAT_SIM_SEED={seed}: {what}");
    }
    assert!(all(|o| o.acks) > 100 * seeds && all(|o| o.loads) > 10 * seeds, "hardly anything happened");
}
