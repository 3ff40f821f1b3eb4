//! Leases, fences and handoff, every interleaving of two nodes and one shard to a bounded time.
//!
//! The real [`OwnLease`] and [`Watch`] run in it; the store, its lost and late answers, and a node that stops anywhere
//! for as long as it likes are the model's. The clock of one node runs a third faster than the other's.
//!
//! Safety: whatever an owner acknowledged, every later owner had found when it took over. That is: a write is
//! acknowledged only if the log of its epoch held it when the next epoch settled that log.

use cluster::lease::{OwnLease, Renewal, Standing, Terms, Watch};
use schema::ownership::NodeRow;
use stateright::{Checker, HasDiscoveries, Model, Property};

/// True time ends here.
const END: u8 = 6;
/// Renewals that one node sends.
const RENEWALS: u64 = 3;
/// Units of a node's clock per unit of true time: rates differ by 4:3.
const RATES: [u64; 2] = [3, 4];

/// What is taken away from the protocol, to see that the model misses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// The holder stops no earlier than others take over.
    Margin,
    /// Silent leases count as ended although they were not removed.
    Removal,
    /// An owner acknowledges without looking at its lease after the write.
    CheckAfterWrite,
    /// An owner hands the shard over and still holds it.
    GiveUp,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Write {
    None,
    Sent,
    Durable,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    own: OwnLease,
    watch: Watch,
    /// Sent and not yet decided by the store.
    sent: Option<Renewal>,
    /// The epoch it owns, and whether it has settled the one before.
    epoch: Option<(u8, bool)>,
    write: Write,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    time: u8,
    rows: [Option<NodeRow>; 2],
    /// Given up by its sender, and still on its way to the store.
    late: Option<(usize, Renewal)>,
    owner: Option<(usize, u64)>,
    epoch: u8,
    /// By epoch: entries in its log, how many of them were acknowledged, how many the next owner found.
    logs: Vec<(u8, u8, Option<u8>)>,
    nodes: [Node; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Tick,
    Renew(usize),
    Decide(usize),
    GiveUp(usize),
    Late,
    Reread(usize),
    Look(usize),
    Remove(usize),
    Take(usize),
    Settle(usize),
    Write(usize),
    Land(usize),
    Acknowledge(usize),
    HandOver,
}

struct Leases(Broken);

impl Leases {
    fn terms(&self) -> Terms {
        Terms { ttl_ms: 12, margin_ms: if self.0 == Broken::Margin { 0 } else { 4 } }
    }

    /// Nobody's lease, or one that has ended.
    fn free(&self, world: &World, by: usize) -> bool {
        let Some((owner, incarnation)) = world.owner else { return true };
        let there = world.rows[owner].as_ref().is_some_and(|row| row.incarnation == incarnation);
        let silent = || world.nodes[by].watch.silent().any(|row| row.name == name(owner));
        !there || (self.0 == Broken::Removal && silent())
    }

    /// What is under way is not acknowledged any more; what was is found, because its rows are written.
    fn hand_over(&self, world: &mut World) -> Option<()> {
        let (epoch, _) = world.nodes[0].epoch?;
        let log = &mut world.logs[usize::from(epoch)];
        log.2 = Some(log.1);
        if self.0 != Broken::GiveUp {
            (world.nodes[0].epoch, world.nodes[0].write) = (None, Write::None);
        }
        world.epoch += 1;
        world.owner = Some((1, 1));
        world.logs.push((0, 0, None));
        world.nodes[1].epoch = Some((world.epoch, true));
        Some(())
    }
}

fn name(node: usize) -> String {
    ["a", "b"][node].to_owned()
}

fn clock(world: &World, node: usize) -> u64 {
    u64::from(world.time) * RATES[node]
}

fn decide(rows: &mut [Option<NodeRow>; 2], node: usize, renewal: &Renewal) -> bool {
    let as_seen = rows[node] == renewal.before;
    if as_seen {
        rows[node] = Some(renewal.after.clone());
    }
    as_seen
}

impl Model for Leases {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let node = |n: usize| {
            let row = NodeRow { name: name(n), incarnation: 1, version: 0, address: String::new(), draining: false };
            Node {
                own: OwnLease::new(row, self.terms()),
                watch: Watch::new(self.terms()),
                sent: None,
                epoch: None,
                write: Write::None,
            }
        };
        vec![World {
            time: 0,
            rows: [None, None],
            late: None,
            owner: None,
            epoch: 0,
            logs: vec![(0, 0, None)],
            nodes: [node(0), node(1)],
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.time < END {
            steps.push(Step::Tick);
        }
        if world.late.is_some() {
            steps.push(Step::Late);
        }
        for (n, node) in world.nodes.iter().enumerate() {
            let mut may = |possible: bool, step: Step| {
                if possible {
                    steps.push(step);
                }
            };
            // The first node begins and may stop anywhere; the second watches it and takes over.
            let (first, second) = (n == 0, n == 1);
            let renewed = node.own.until() >= clock(world, n) + self.terms().ttl_ms - self.terms().margin_ms;
            let due =
                !renewed && if first { world.time < 3 } else { world.time >= 3 } && node.own.renewals() < RENEWALS;
            may(node.sent.is_none() && due && node.own.standing() == Standing::Ready, Step::Renew(n));
            may(node.sent.is_some(), Step::Decide(n));
            may(first && node.sent.is_some() && world.late.is_none(), Step::GiveUp(n));
            may(node.sent.is_none() && node.own.standing() == Standing::Unsure, Step::Reread(n));
            may(second, Step::Look(n));
            may(second && node.watch.silent().any(|row| row.name == "a"), Step::Remove(n));
            let holds = node.own.holds(clock(world, n));
            may(holds && usize::from(world.epoch) == n && self.free(world, n), Step::Take(n));
            may(node.epoch.is_some_and(|(_, settled)| !settled), Step::Settle(n));
            let owns = node.epoch.filter(|(_, settled)| *settled);
            let room = owns.is_some_and(|(epoch, _)| world.logs[usize::from(epoch)].0 < 1);
            may(room && node.write == Write::None, Step::Write(n));
            may(node.write == Write::Sent, Step::Land(n));
            may(node.write == Write::Durable, Step::Acknowledge(n));
            may(first && owns.is_some() && world.owner == Some((n, 1)) && world.rows[1].is_some(), Step::HandOver);
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        let now = |n: usize| clock(before, n);
        match step {
            Step::Tick => world.time += 1,
            Step::Renew(n) => world.nodes[n].sent = Some(world.nodes[n].own.renewal(now(n))),
            Step::Decide(n) => {
                let renewal = world.nodes[n].sent.take()?;
                let applied = decide(&mut world.rows, n, &renewal);
                world.nodes[n].own.answered(renewal, Some(applied));
            }
            Step::GiveUp(n) => {
                let renewal = world.nodes[n].sent.take()?;
                world.nodes[n].own.answered(renewal.clone(), None);
                world.late = Some((n, renewal));
            }
            Step::Late => {
                let (n, renewal) = world.late.take()?;
                decide(&mut world.rows, n, &renewal);
            }
            Step::Reread(n) => {
                let row = world.rows[n].clone();
                world.nodes[n].own.reread(row);
            }
            Step::Look(n) => {
                let rows: Vec<NodeRow> = world.rows[..1].iter().flatten().cloned().collect();
                world.nodes[n].watch.saw(now(n), now(n), &rows);
            }
            Step::Remove(n) => {
                let silent = world.nodes[n].watch.silent().find(|row| row.name == "a").cloned();
                if world.rows[0] == silent && self.0 != Broken::Removal {
                    world.rows[0] = None;
                }
            }
            Step::Take(n) => {
                world.epoch += 1;
                world.owner = Some((n, 1));
                world.logs.push((0, 0, None));
                world.nodes[n].epoch = Some((world.epoch, false));
            }
            Step::Settle(n) => {
                let (epoch, _) = world.nodes[n].epoch?;
                let log = &mut world.logs[usize::from(epoch) - 1];
                log.2 = Some(log.0);
                world.nodes[n].epoch = Some((epoch, true));
            }
            Step::Write(n) => world.nodes[n].write = Write::Sent,
            Step::Land(n) => {
                let (epoch, _) = world.nodes[n].epoch?;
                world.logs[usize::from(epoch)].0 += 1;
                world.nodes[n].write = Write::Durable;
            }
            Step::Acknowledge(n) => {
                let (epoch, _) = world.nodes[n].epoch?;
                if world.nodes[n].own.holds(now(n)) || self.0 == Broken::CheckAfterWrite {
                    let log = &mut world.logs[usize::from(epoch)];
                    log.1 = log.0;
                }
                world.nodes[n].write = Write::None;
            }
            Step::HandOver => self.hand_over(&mut world)?,
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a later owner has found whatever was acknowledged", |_, world: &World| {
                world.logs.iter().all(|(_, acknowledged, found)| found.is_none_or(|found| *acknowledged <= found))
            }),
            Property::sometimes("the second owner acknowledges after the first has", |_, world: &World| {
                world.logs.len() > 2 && world.logs[1].1 > 0 && world.logs[2].1 > 0
            }),
            Property::sometimes("a write is durable and never acknowledged", |_, world: &World| {
                world.logs.len() > 2 && world.logs[1].0 > 0 && world.logs[1].1 == 0 && world.logs[2].1 > 0
            }),
        ]
    }
}

fn checked(broken: Broken) -> impl Checker<Leases> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    Leases(broken).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join()
}

#[test]
fn no_acknowledged_write_is_missed_by_a_later_owner() {
    let checker = checked(Broken::Nothing);
    println!("{} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

#[test]
fn the_model_sees_what_each_rule_is_for() {
    for broken in [Broken::Margin, Broken::Removal, Broken::CheckAfterWrite, Broken::GiveUp] {
        let checker = checked(broken);
        let seen = checker.discovery("a later owner has found whatever was acknowledged");
        assert!(seen.is_some(), "{broken:?} goes unnoticed");
    }
}
