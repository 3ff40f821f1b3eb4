//! The world of one seed: nodes that stop, die, come back and go, ways that are cut, and clients that write all the time.
//!
//! X1  Nodes run side by side for a step of true time; then what they asked of the store happens, in order. So what one
//!     node does is never seen by another in the same step.

use cluster::lease::Terms;
use cluster::placement;
use cluster::shard::ShardId;
use rand::Rng;
use rand::seq::IndexedRandom;

use std::sync::{Arc, Mutex};

use crate::Broken;
use crate::ledger;
use crate::node::{End, Run};
use crate::sea::{Core, MS, Mail, Shared, Weather, lock};

const SECOND: u64 = 1_000 * MS;
/// Length of a step.
const STEP: std::ops::Range<u64> = 8 * MS..30 * MS;
/// How long things go wrong.
const STORM: std::ops::Range<u64> = 25 * SECOND..45 * SECOND;
/// Once nothing goes wrong any more, every shard serves at its home within this.
pub(crate) const SETTLES_WITHIN: u64 = 25 * SECOND;
/// And it stays so for this long: what was late has arrived by then, and what was open was asked again.
const STAYS: u64 = 4 * SECOND;
/// A node without faults around it has handed everything over and left within this, and its shards serve elsewhere.
pub(crate) const DRAINS_WITHIN: u64 = 12 * SECOND;
/// Slowest and fastest clock, in milliseconds to the second: as far apart as K3 allows.
const RATES: (u64, u64) = (1_000, 1_428);

/// How often something befalls a node: once in so many seconds, on average; 0: never.
#[derive(Debug, Default)]
struct Fates {
    stops: u64,
    dies: u64,
    drains: u64,
    blocked: u64,
    outage: u64,
    cut: u64,
}

struct Node {
    name: String,
    rate: u64,
    run: Option<Run>,
    boots_at: u64,
    stopped_until: u64,
    /// It was stopped, and has not noticed yet.
    stopped: bool,
    ends_at: Option<u64>,
    /// It has gone for good.
    gone: bool,
}

pub(crate) struct World {
    core: Shared,
    nodes: Vec<Node>,
    fates: Fates,
    shards: u32,
    broken: Broken,
    ops: u64,
    storm: bool,
}

/// What a seed came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) acks: u64,
    pub(crate) loads: u64,
    pub(crate) digest: u64,
    /// Milliseconds of true time until everything served again.
    pub(crate) settled: u64,
    pub(crate) drained: u64,
}

impl World {
    pub(crate) fn new(seed: u64, broken: Broken, traced: bool) -> Self {
        let margin_ms = if broken == Broken::Margin { 0 } else { Terms::default().margin_ms };
        let mut core = Core::new(seed, Terms { margin_ms, ..Terms::default() }, traced);
        let rng = &mut core.rng;
        let count = *[1, 2, 3, 3, 3, 4, 4, 5].choose(rng).expect("some");
        let extreme = rng.random_bool(0.5);
        let node = |n: usize| {
            let rate = if extreme {
                RATES.0 + rng.random_range(0..2) * (RATES.1 - RATES.0)
            } else {
                rng.random_range(RATES.0..=RATES.1)
            };
            let boots_at = if rng.random_bool(0.6) { 0 } else { rng.random_range(0..20 * SECOND) };
            let name = ["ada", "bob", "cyd", "dan", "eve"][n].to_owned();
            Node { name, rate, run: None, boots_at, stopped_until: 0, stopped: false, ends_at: None, gone: false }
        };
        let nodes: Vec<Node> = (0..count).map(node).collect();
        core.ledger.names = nodes.iter().map(|node| node.name.clone()).collect();
        let mut often = |seconds: u64| if core.rng.random_bool(0.7) { seconds } else { 0 };
        let calm = Fates::default();
        let fates = Fates {
            stops: often(12),
            dies: often(25),
            drains: often(25),
            blocked: often(10),
            outage: often(30),
            cut: often(4),
        };
        let share = [0.0, 0.01, 0.04].choose(&mut core.rng).copied().unwrap_or_default();
        let mut seldom = |share: f64| if core.rng.random_bool(0.25) { share } else { 0.0 };
        let (read_slowly, decided_late) = (seldom(0.3), seldom(0.2));
        let mut some = || core.rng.random_range(0.0..=share);
        let (lost, never, late, slow, refused) = (some(), some(), some(), some(), some());
        core.weather = Weather { lost, never, late, slow, refused, read_slowly, decided_late };
        let storm = core.rng.random_bool(0.95);
        if !storm {
            core.weather = Weather::default();
        }
        let shards = if core.rng.random_bool(0.8) { 8 } else { 72 };
        let fates = if storm { fates } else { calm };
        core.tell(0, || {
            let rates: Vec<u64> = nodes.iter().map(|node| node.rate).collect();
            format!("{shards} shards, clocks {rates:?}, {fates:?}")
        });
        Self { core: Arc::new(Mutex::new(core)), nodes, fates, shards, broken, ops: 0, storm }
    }

    /// The whole life of a world; what is wrong with it otherwise.
    pub(crate) fn run(mut self) -> Result<Outcome, (String, Vec<String>)> {
        let lived = self.live();
        let mut core = lock(&self.core);
        let outcome =
            Outcome { acks: core.ledger.acks, loads: core.ledger.loads, digest: core.digest, ..Outcome::default() };
        let trace = core.trace.take().unwrap_or_default();
        drop(core);
        match lived {
            Ok((settled, drained)) => Ok(Outcome { settled: settled / MS, drained: drained / MS, ..outcome }),
            Err(broken) => Err((broken, trace)),
        }
    }

    fn live(&mut self) -> Result<(u64, u64), String> {
        let until = lock(&self.core).rng.random_range(STORM);
        while self.now() < until {
            self.misfortune();
            self.step()?;
        }
        self.heal();
        let settled = self.await_settled(SETTLES_WITHIN)?;
        let drained = if self.nodes.len() > 1 { self.last_drain()? } else { 0 };
        let mut core = lock(&self.core);
        ledger::final_check(&mut core);
        core.broken.take().map_or(Ok((settled, drained)), Err)
    }

    fn now(&self) -> u64 {
        lock(&self.core).now
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        let mut core = lock(&self.core);
        let now = core.now;
        core.tell(now, what);
    }

    fn chance(&self, p: f64) -> bool {
        lock(&self.core).rng.random_bool(p)
    }

    fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        lock(&self.core).rng.random_range(range)
    }

    /// Everybody lives for a moment, then the store does (X1).
    fn step(&mut self) -> Result<(), String> {
        self.clients();
        let (now, length) = (self.now(), self.draw(STEP));
        for n in 0..self.nodes.len() {
            if self.nodes[n].run.is_none() && self.nodes[n].boots_at <= now && !self.nodes[n].gone {
                self.boot(n);
            }
            let node = &mut self.nodes[n];
            if node.stopped_until > now {
                continue;
            }
            let stopped = std::mem::take(&mut node.stopped).then_some(now);
            if let Some(run) = &mut node.run {
                run.live(now + length, stopped);
            }
        }
        let mut core = lock(&self.core);
        ledger::check(&mut core);
        core.pass(now + length);
        for (to, mail) in std::mem::take(&mut core.mail) {
            if let Some(run) = &mut self.nodes[to].run {
                run.mail.push(mail);
            }
        }
        let broken = core.broken.take();
        drop(core);
        self.endings()?;
        broken.map_or(Ok(()), Err)
    }

    fn boot(&mut self, n: usize) {
        let node = &self.nodes[n];
        let run = Run::start(&self.core, n, &node.name, (self.shards, node.rate), self.broken);
        self.tell(|| format!("{} starts as {:x}", node.name, run.id.0));
        let id = run.id;
        let node = &mut self.nodes[n];
        (node.run, node.ends_at, node.stopped) = (Some(run), None, false);
        for other in (0..self.nodes.len()).filter(|other| *other != n) {
            self.link(n, other);
        }
        let _ = id;
    }

    /// Tells both ends of a way that it is there.
    fn link(&self, a: usize, b: usize) {
        let id = |n: usize| self.nodes[n].run.as_ref().map(|run| run.id);
        if let (Some(first), Some(second)) = (id(a), id(b)) {
            let mut core = lock(&self.core);
            let now = core.now;
            core.post(a, b, now, Mail::Linked(first, true));
            core.post(b, a, now, Mail::Linked(second, true));
        }
    }

    /// Clients write to whoever says that it serves, and to whoever cannot say anything.
    fn clients(&mut self) {
        let shard = match self.draw(0..5) {
            0 => self.draw(0..u64::from(self.shards)) as u32,
            hot if hot < 4 => hot as u32,
            _ => return,
        };
        for node in &mut self.nodes {
            let Some(run) = &mut node.run else { continue };
            if node.stopped || run.guests.serving().iter().any(|(serves, _)| *serves == shard) {
                self.ops += 1;
                run.mail.push(Mail::Write(shard, self.ops));
            }
        }
    }

    /// Nodes that have left do nothing any more, and are stopped soon after.
    fn endings(&mut self) -> Result<(), String> {
        let now = self.now();
        for n in 0..self.nodes.len() {
            let Some(run) = &self.nodes[n].run else { continue };
            let End::Left(_) = run.end() else { continue };
            if run.here(|run| run.held.leased()) {
                return Err(format!("{} has left, and has a lease", self.nodes[n].name));
            }
            let ends_at = match self.nodes[n].ends_at {
                Some(at) => at,
                None => now + self.draw(0..3 * SECOND),
            };
            self.nodes[n].ends_at = Some(ends_at);
            if ends_at <= now {
                let wait = self.draw(0..8 * SECOND);
                self.stop(n, wait);
            }
        }
        Ok(())
    }

    fn stop(&mut self, n: usize, wait: u64) {
        self.tell(|| format!("{} is gone", self.nodes[n].name));
        let now = self.now();
        let node = &mut self.nodes[n];
        (node.run, node.boots_at, node.stopped, node.stopped_until) = (None, now + wait, false, 0);
    }

    /// Whether something that happens once in so many seconds happens in this step.
    fn strikes(&self, seconds: u64) -> bool {
        seconds > 0 && self.chance(0.019 / seconds as f64)
    }

    fn misfortune(&mut self) {
        let now = self.now();
        for n in 0..self.nodes.len() {
            if self.nodes[n].run.is_none() {
                continue;
            }
            if self.nodes[n].stopped_until <= now && self.strikes(self.fates.stops) {
                // About as long as a lease, mostly: what ends just before or just after others take over.
                let length = match self.draw(0..10) {
                    0..3 => self.draw(200 * MS..3 * SECOND),
                    3..8 => self.draw(3 * SECOND..9 * SECOND),
                    _ => self.draw(9 * SECOND..20 * SECOND),
                };
                self.tell(|| format!("{} is stopped for {} ms", self.nodes[n].name, length / MS));
                (self.nodes[n].stopped, self.nodes[n].stopped_until) = (true, now + length);
            }
            if self.strikes(self.fates.dies) {
                let wait = if self.chance(0.5) { self.draw(0..SECOND) } else { self.draw(0..10 * SECOND) };
                self.stop(n, wait);
                continue;
            }
            if self.strikes(self.fates.drains) && self.nodes[n].run.as_ref().is_some_and(|run| run.end() == End::No) {
                self.drain(n);
            }
            if self.strikes(self.fates.blocked) {
                let (part, length) = (self.draw(0..2) as usize, self.draw(SECOND..9 * SECOND));
                self.block(n, part, now + length);
            }
            if self.nodes.len() > 1 && self.strikes(self.fates.cut) {
                let (to, length) = (self.draw(0..self.nodes.len() as u64) as usize, self.draw(SECOND..15 * SECOND));
                self.tell(|| format!("{} is not heard by {}", self.nodes[n].name, self.nodes[to].name));
                lock(&self.core).cut.insert((n, to), now + length);
            }
        }
        if self.strikes(self.fates.outage) {
            let until = now + self.draw(500 * MS..7 * SECOND);
            for n in 0..self.nodes.len() {
                self.block(n, 0, until);
                self.block(n, 1, until);
            }
        }
    }

    fn block(&self, n: usize, part: usize, until: u64) {
        let what = ["tables", "logs and rows"][part];
        self.tell(|| format!("{} does not reach {what} until {:.3}", self.nodes[n].name, until as f64 / SECOND as f64));
        lock(&self.core).blocked.insert((n, part), until);
    }

    fn drain(&self, n: usize) {
        self.tell(|| format!("{} drains", self.nodes[n].name));
        if let Some(run) = &self.nodes[n].run {
            run.drain();
        }
    }

    /// Everything works again, and everybody is there.
    fn heal(&mut self) {
        self.tell(|| "the weather clears up".to_owned());
        lock(&self.core).clear_up();
        let now = self.now();
        for node in &mut self.nodes {
            node.stopped_until = node.stopped_until.min(now);
            node.boots_at = node.boots_at.min(now);
            node.ends_at = node.ends_at.map(|_| now);
        }
        for a in 0..self.nodes.len() {
            (a + 1..self.nodes.len()).for_each(|b| self.link(a, b));
        }
        (self.fates, self.storm) = (Fates::default(), false);
    }

    fn await_settled(&mut self, within: u64) -> Result<u64, String> {
        let (from, mut since) = (self.now(), None);
        loop {
            self.step()?;
            // Who was told to go before comes back at once.
            let now = self.now();
            self.nodes.iter_mut().for_each(|node| node.boots_at = node.boots_at.min(now));
            match self.settled() {
                Ok(()) if since.is_some_and(|since| now > since + STAYS) => return Ok(now - STAYS - from),
                Ok(()) => since = since.or(Some(now)),
                Err(why) if now > from + within => {
                    return Err(format!("not settled within {} s: {why}", within / SECOND));
                }
                Err(_) => since = None,
            }
        }
    }

    /// Every shard serves at its home and nowhere else, and everybody knows.
    fn settled(&self) -> Result<(), String> {
        let names: Vec<&str> =
            self.nodes.iter().filter(|node| node.run.is_some()).map(|node| node.name.as_str()).collect();
        for node in &self.nodes {
            let Some(run) = &node.run else {
                if node.gone {
                    continue;
                }
                return Err(format!("{} is not there", node.name));
            };
            run.here(|run| run.member.ready()).map_err(|why| format!("{}: {why}", node.name))?;
        }
        let core = lock(&self.core);
        for shard in 0..self.shards {
            let row = core.shard_now(shard).ok_or_else(|| format!("nobody ever had shard {shard}"))?;
            let home = placement::home(ShardId(shard), names.iter().copied());
            for node in &self.nodes {
                let Some(run) = &node.run else { continue };
                let serves = run.guests.serving().iter().find(|(serves, _)| *serves == shard).map(|(_, epoch)| *epoch);
                let expected = (Some(node.name.as_str()) == home).then_some(row.epoch);
                let hosted = cluster::member::Hosts::hosted(run.guests.as_ref(), ShardId(shard));
                if (serves, hosted) != (expected, expected) {
                    return Err(format!(
                        "{} hosts shard {shard} as {hosted:?}, serves {serves:?}, {expected:?} is right",
                        node.name
                    ));
                }
                let route = run.routes.get(ShardId(shard));
                let owner = row.owner.as_ref().map(|owner| cluster::routes::NodeId::of(owner.incarnation));
                if (route.epoch, route.owner) != (row.epoch, owner) {
                    return Err(format!("{} knows {route:?} of shard {shard}, the table says {row:?}", node.name));
                }
            }
        }
        Ok(())
    }

    /// A node goes while nothing is wrong: nothing is left behind.
    fn last_drain(&mut self) -> Result<u64, String> {
        let (from, n) = (self.now(), self.draw(0..self.nodes.len() as u64) as usize);
        self.drain(n);
        let mut left = None;
        loop {
            self.step()?;
            let now = self.now();
            let late = now > from + DRAINS_WITHIN;
            if let Some(End::Left(kept)) = self.nodes.get(n).and_then(|node| node.run.as_ref()).map(Run::end) {
                left = Some(kept);
                if lock(&self.core).node_now(&self.nodes[n].name).is_some() {
                    let row = lock(&self.core).node_now(&self.nodes[n].name).cloned();
                    return Err(format!("a node that has drained, with {kept} shards left, leaves {row:?} behind"));
                }
                (self.nodes[n].run, self.nodes[n].gone) = (None, true);
            }
            match (left, left.map(|_| self.settled())) {
                (Some(kept), _) if kept > 0 => return Err(format!("{kept} shards are left after a drain")),
                (Some(_), Some(Ok(()))) => return Ok(now - from),
                (left, settled) if late => return Err(format!("not drained: left {left:?}, {settled:?}")),
                _ => {}
            }
        }
    }
}
