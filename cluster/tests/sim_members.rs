//! Seeded simulation of members: the real lease, member, routes and pipeline, under faults; one seed is one run.

#[path = "members/core.rs"]
mod core;
#[path = "members/ledger.rs"]
mod ledger;
#[path = "members/node.rs"]
mod node;
#[path = "members/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Outcome, World};

/// What is taken away from the protocol, to see that the simulation misses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
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
                    if seed > *seeds.end() || found.lock().unwrap().1.is_some() {
                        return;
                    }
                    match World::new(seed, broken, false).run() {
                        Ok(outcome) => found.lock().unwrap().0.push(outcome),
                        Err((what, _)) => {
                            let first = &mut found.lock().unwrap().1;
                            if first.as_ref().is_none_or(|(other, _)| seed < *other) {
                                *first = Some((seed, what));
                            }
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
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
    let seeds = setting("AGENTCHAT_SIM_SEEDS").unwrap_or(200);
    if std::env::var("SURVEY").is_ok() {
        for seed in 1..=seeds {
            if let Err((what, _)) = World::new(seed, Broken::Nothing, false).run() {
                println!("{seed}: {what}");
            }
        }
        return;
    }
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
}
