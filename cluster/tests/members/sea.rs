//! The world's clock and queue, and the store: two tables, logs and rows, behind a network that loses and delays.
//!
//! C1  Everything that reaches the store happens at one moment of true time, in the order of those moments.
//! C2  An answer that says so is true. An error leaves open whether the question took effect, or still will.
//! C3  A decision whose outcome is open may stay invisible to plain reads until something serial meets it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use cluster::lease::Terms;
use cluster::routes::{NodeId, Route};
use cluster::shard::ShardId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schema::cql::pipeline::Change;
use schema::ownership::{NodeRow, ShardChange, ShardRow, group_of};
use schema::store::StoreError;
use tokio::sync::oneshot;

use crate::ledger::Ledger;
use crate::node::NodeClock;

/// Microseconds of true time in a millisecond.
pub(crate) const MS: u64 = 1_000;
/// The driver gives a request up after this.
const REQUEST: u64 = 6_000 * MS;

pub(crate) type Due = Box<dyn FnOnce(&mut Core) + Send>;

/// A value, or its removal, and the time of the write.
type Stamped = (Option<Vec<u8>>, i64);

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Leases and owners: plain and serial reads.
    Table,
    /// A decision of the tables.
    Decide,
    /// Rows and entries.
    Read,
    Write,
}

impl Kind {
    fn reads(self) -> bool {
        matches!(self, Self::Table | Self::Read)
    }

    /// The part of the store that it needs.
    pub(crate) fn part(self) -> usize {
        usize::from(matches!(self, Self::Read | Self::Write))
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) node: usize,
    pub(crate) clock: NodeClock,
}

/// How often things go wrong, of 1.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) lost: f64,
    pub(crate) never: f64,
    pub(crate) late: f64,
    pub(crate) slow: f64,
    pub(crate) refused: f64,
    /// Reads of the tables that take seconds.
    pub(crate) read_slowly: f64,
    /// Decisions that take effect long after they were given up.
    pub(crate) decided_late: f64,
}

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    /// Takes up to seconds, both ways.
    Slow,
    /// Never takes effect, and says so.
    Refused,
    /// Takes effect; the answer does not arrive.
    Lost,
    Never,
    /// Takes effect long after it was given up.
    Late,
}

/// A row of a table.
#[derive(Debug)]
struct Cell<T> {
    now: Option<T>,
    /// What a plain read finds (C3).
    seen: Option<T>,
}

impl<T> Default for Cell<T> {
    fn default() -> Self {
        Self { now: None, seen: None }
    }
}

/// What waits for a node.
#[derive(Debug, Clone)]
pub(crate) enum Mail {
    News(Vec<(ShardId, Route)>),
    Nudge,
    Given(NodeId, Vec<u32>),
    Linked(NodeId, bool),
    /// A client writes `1` to this shard.
    Write(u32, u64),
}

/// All that is shared. Locked for moments only, and by one thread.
pub(crate) struct Core {
    pub(crate) rng: StdRng,
    /// Microseconds of true time.
    pub(crate) now: u64,
    number: u64,
    queue: BTreeMap<(u64, u64), Due>,
    pub(crate) mail: Vec<(usize, Mail)>,
    pub(crate) weather: Weather,
    pub(crate) terms: Terms,
    /// Until when a part of the store does not answer a node.
    pub(crate) blocked: BTreeMap<(usize, usize), u64>,
    /// Until when what one node tells another is lost.
    pub(crate) cut: BTreeMap<(usize, usize), u64>,
    nodes: BTreeMap<String, Cell<NodeRow>>,
    shards: BTreeMap<u32, Cell<ShardRow>>,
    /// Entries and their times; removals have a time as well.
    logs: BTreeMap<(u32, u64), Stamped>,
    rows: BTreeMap<Vec<u8>, Stamped>,
    /// By incarnation: until when its applied renewals let it hold, by its own clock (K1).
    pub(crate) leases: BTreeMap<u64, u64>,
    pub(crate) ledger: Ledger,
    pub(crate) broken: Option<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) digest: u64,
}

pub(crate) type Shared = Arc<Mutex<Core>>;

pub(crate) fn lock(core: &Shared) -> MutexGuard<'_, Core> {
    core.lock().expect("no step panics")
}

/// Asks the store, over its network.
pub(crate) async fn ask<T: Send + 'static>(
    core: &Shared,
    from: &Asker,
    kind: Kind,
    op: impl FnOnce(&mut Core, bool) -> T + Send + 'static,
) -> Result<T, StoreError> {
    let answer = lock(core).send(from, kind, op);
    answer.await.unwrap_or(Err(StoreError::Timeout))
}

impl Core {
    pub(crate) fn new(seed: u64, terms: Terms, traced: bool) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            number: 0,
            queue: BTreeMap::new(),
            mail: Vec::new(),
            weather: Weather::default(),
            terms,
            blocked: BTreeMap::new(),
            cut: BTreeMap::new(),
            nodes: BTreeMap::new(),
            shards: BTreeMap::new(),
            logs: BTreeMap::new(),
            rows: BTreeMap::new(),
            leases: BTreeMap::new(),
            ledger: Ledger::default(),
            broken: None,
            trace: traced.then(Vec::new),
            digest: 0,
        }
    }

    /// Something happened that is worth telling.
    pub(crate) fn tell(&mut self, at: u64, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {}", at as f64 / (1_000 * MS) as f64, what()));
        }
    }

    pub(crate) fn digest(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.digest, what).hash(&mut hasher);
        self.digest = hasher.finish();
    }

    /// A promise is broken. The first one counts.
    pub(crate) fn broken(&mut self, what: String) {
        let now = self.now;
        self.tell(now, || format!("BROKEN {what}"));
        self.broken.get_or_insert(what);
    }

    pub(crate) fn at(&mut self, time: u64, due: Due) {
        self.number += 1;
        self.queue.insert((time.max(self.now), self.number), due);
    }

    /// Lets happen what is due until `time`.
    pub(crate) fn pass(&mut self, time: u64) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= time) {
            let ((at, _), due) = entry.remove_entry();
            self.now = self.now.max(at);
            due(self);
        }
        self.now = time;
    }

    /// The weather clears up: what is late arrives within a second.
    pub(crate) fn clear_up(&mut self) {
        (self.weather, self.now) = (Weather::default(), self.now);
        (self.blocked, self.cut) = (BTreeMap::new(), BTreeMap::new());
        let soon = self.now + 1_000 * MS;
        for ((at, _), due) in std::mem::take(&mut self.queue) {
            self.at(at.min(soon), due);
        }
    }

    fn fate(&mut self, from: &Asker, kind: Kind) -> Fate {
        let draw: f64 = self.rng.random();
        if self.blocked.get(&(from.node, kind.part())).is_some_and(|until| self.now < *until) {
            return match draw {
                ..0.5 => Fate::Refused,
                ..0.8 => Fate::Never,
                ..0.9 => Fate::Lost,
                _ => Fate::Late,
            };
        }
        let weather = self.weather;
        let slow = weather.slow + if kind == Kind::Table { weather.read_slowly } else { 0.0 };
        let mut bound = 0.0;
        for (share, fate) in [
            (weather.lost, Fate::Lost),
            (weather.never, Fate::Never),
            (weather.late, Fate::Late),
            (slow, Fate::Slow),
            (weather.refused, Fate::Refused),
            (if kind == Kind::Decide { weather.decided_late } else { 0.0 }, Fate::Late),
        ] {
            bound += share;
            if draw < bound {
                return fate;
            }
        }
        Fate::Fine
    }

    fn send<T: Send + 'static>(
        &mut self,
        from: &Asker,
        kind: Kind,
        op: impl FnOnce(&mut Self, bool) -> T + Send + 'static,
    ) -> oneshot::Receiver<Result<T, StoreError>> {
        let (answer, receiver) = oneshot::channel();
        let (sent, fate) = (from.clock.true_us(), self.fate(from, kind));
        let mut soon = |below: u64| self.rng.random_range(300..below * MS);
        let (there, back, given_up) = match fate {
            Fate::Slow => (sent + soon(1_500), soon(1_500), 0),
            Fate::Late if !kind.reads() => {
                (sent + if soon(1_000) & 1 == 0 { soon(5_000) } else { soon(40_000) }, 0, soon(6_000))
            }
            _ => (sent + soon(15), soon(15), soon(6_000)),
        };
        match fate {
            Fate::Fine | Fate::Slow => {
                let happens = move |core: &mut Self| {
                    let found = op(core, true);
                    let arrives = move |_: &mut Self| drop(answer.send(Ok(found)));
                    core.at(there + back, Box::new(arrives));
                };
                self.at(there, Box::new(happens));
                return receiver;
            }
            Fate::Refused => {
                let refused = Err(StoreError::Unavailable("injected".to_owned()));
                self.at(there + back, Box::new(move |_| drop(answer.send(refused))));
                return receiver;
            }
            Fate::Lost | Fate::Late => self.at(there, Box::new(move |core| drop(op(core, false)))),
            Fate::Never => {}
        }
        let given_up = sent + given_up.min(REQUEST);
        self.at(given_up, Box::new(move |_| drop(answer.send(Err(StoreError::Timeout)))));
        receiver
    }

    /// Something is said to a node, unless the way to it is cut.
    pub(crate) fn post(&mut self, from: usize, to: usize, sent: u64, mail: Mail) {
        if self.cut.get(&(from, to)).is_some_and(|until| self.now < *until) {
            return;
        }
        let arrives = sent + self.rng.random_range(300..20 * MS);
        self.at(arrives, Box::new(move |core| core.mail.push((to, mail))));
    }
}

/// The tables.
impl Core {
    /// Rows with the number of their partition.
    pub(crate) fn nodes_seen(&self) -> Vec<(usize, NodeRow)> {
        let number = |name: &str| self.ledger.names.iter().position(|known| known == name).expect("a node's name");
        self.nodes.iter().filter_map(|(name, cell)| Some((number(name), cell.seen.clone()?))).collect()
    }

    pub(crate) fn shards_seen(&self) -> Vec<(usize, ShardRow)> {
        self.shards.iter().filter_map(|(shard, cell)| Some((*shard as usize, cell.seen.clone()?))).collect()
    }

    pub(crate) fn node(&mut self, name: &str) -> Option<NodeRow> {
        let cell = self.nodes.get_mut(name)?;
        cell.seen.clone_from(&cell.now);
        cell.now.clone()
    }

    /// As it is, without looking.
    pub(crate) fn node_now(&self, name: &str) -> Option<&NodeRow> {
        self.nodes.get(name)?.now.as_ref()
    }

    pub(crate) fn shard_now(&self, shard: u32) -> Option<&ShardRow> {
        self.shards.get(&shard)?.now.as_ref()
    }

    pub(crate) fn group(&mut self, group: u32) -> Vec<ShardRow> {
        let cells = self.shards.values_mut();
        let rows = cells.filter_map(|cell| {
            cell.seen.clone_from(&cell.now);
            cell.now.clone()
        });
        rows.filter(|row| group_of(row.shard) == group).collect()
    }

    /// An open decision shows at once, or later, or when something serial meets it (C3).
    fn show_later(&mut self, show: impl FnOnce(&mut Self) + Send + 'static) {
        if self.rng.random_bool(0.5) {
            show(self);
        } else {
            let at = self.now + self.rng.random_range(0..5_000 * MS);
            self.at(at, Box::new(show));
        }
    }

    /// `sent_ms` is when its sender asked, by its own clock.
    pub(crate) fn change_node(
        &mut self,
        name: &str,
        (before, after): (Option<&NodeRow>, Option<&NodeRow>),
        answered: bool,
        sent_ms: u64,
    ) -> bool {
        let held = sent_ms + self.terms.ttl_ms - self.terms.margin_ms;
        let cell = self.nodes.entry(name.to_owned()).or_default();
        cell.seen.clone_from(&cell.now);
        if cell.now.as_ref() != before {
            return false;
        }
        cell.now = after.cloned();
        if let Some(row) = after {
            let until = self.leases.entry(row.incarnation).or_default();
            *until = held.max(*until);
        }
        let now = self.now;
        self.digest((now, name, after));
        self.tell(now, || format!("renewal of {name}: {:?} sent at {sent_ms}", after.map(|row| row.version)));
        if before.map(|row| row.incarnation) != after.map(|row| row.incarnation) {
            let show = |row: Option<&NodeRow>| row.map_or("none".to_owned(), |row| format!("{:x}", row.incarnation));
            self.tell(now, || format!("lease {name}: {} -> {}", show(before), show(after)));
        }
        let name = name.to_owned();
        let show = move |core: &mut Self| {
            let cell = core.nodes.entry(name).or_default();
            cell.seen.clone_from(&cell.now);
        };
        if answered {
            show(self)
        } else {
            self.show_later(show)
        }
        true
    }

    pub(crate) fn change_shards(&mut self, changes: &[ShardChange], answered: bool) -> bool {
        let Some(first) = changes.first() else { return true };
        self.group(group_of(first.after.shard));
        if changes.iter().any(|change| self.shard_now(change.after.shard) != change.before.as_ref()) {
            return false;
        }
        for ShardChange { before, after } in changes {
            self.check_change(before.as_ref(), after);
            self.shards.entry(after.shard).or_default().now = Some(after.clone());
            let now = self.now;
            self.digest((now, after));
            let by = after.owner.as_ref().map(|owner| format!("{} {:x}", owner.name, owner.incarnation));
            let (shard, epoch, recovered) = (after.shard, after.epoch, after.recovered);
            self.tell(now, || format!("shard {shard}: epoch {epoch}, owner {by:?}, recovered {recovered}"));
        }
        let shards: Vec<u32> = changes.iter().map(|change| change.after.shard).collect();
        let show = move |core: &mut Self| {
            for shard in shards {
                let cell = core.shards.entry(shard).or_default();
                cell.seen.clone_from(&cell.now);
            }
        };
        if answered {
            show(self)
        } else {
            self.show_later(show)
        }
        true
    }

    /// Epochs only rise, with every new owner; what counts as settled only grows.
    fn check_change(&mut self, before: Option<&ShardRow>, after: &ShardRow) {
        let Some(before) = before else { return };
        let taken = after.owner.is_some() && (after.owner != before.owner || after.epoch != before.epoch);
        let rises = if taken { after.epoch > before.epoch } else { after.epoch == before.epoch };
        if !rises || after.recovered < before.recovered || after.recovered > after.epoch {
            self.broken(format!("an owner changes without a higher epoch: {before:?} -> {after:?}"));
        }
    }
}

/// Logs and rows.
impl Core {
    pub(crate) fn put_entry(&mut self, shard: u32, epoch: u64, entry: &[u8], at: i64) {
        let now = self.now;
        self.tell(now, || format!("entry {epoch}.{} of shard {shard}", at & 0xFFFF_FFFF));
        if self.logs.get(&(shard, epoch)).is_none_or(|(_, there)| *there < at) {
            self.logs.insert((shard, epoch), (Some(entry.to_vec()), at));
        }
    }

    pub(crate) fn entry(&self, shard: u32, epoch: u64) -> Option<(Vec<u8>, i64)> {
        self.logs.get(&(shard, epoch)).and_then(|(entry, at)| Some((entry.clone()?, *at)))
    }

    /// An entry of which some rows were written and others were not is lost with its log.
    pub(crate) fn drop_entry(&mut self, shard: u32, epoch: u64, until: i64) {
        let now = self.now;
        self.tell(now, || format!("log {epoch} of shard {shard} is dropped"));
        let Some((Some(entry), at)) = self.logs.insert((shard, epoch), (None, until)) else { return };
        let changes: Vec<Change> = rmp_serde::from_slice(&entry).expect("what the pipeline wrote");
        let times = changes.iter().map(|Change(key, _)| self.rows.get(key).map_or(i64::MIN, |(_, at)| *at));
        let (mut written, mut missing) = (false, false);
        for time in times {
            (written, missing) = (written || time == at, missing || time < at);
        }
        if written && missing {
            self.broken(format!("the log of shard {shard} epoch {epoch} is forgotten before it was settled"));
        }
    }

    pub(crate) fn put_row(&mut self, shard: u32, Change(key, value): Change, at: i64) {
        let now = self.now;
        self.tell(now, || format!("row {}.{} of shard {shard}: {:?}", at >> 32, at & 0xFFFF_FFFF, &key[4..]));
        let known = self.rows.get(&key);
        if known.is_some_and(|(there, time)| *time == at && *there != value) {
            return self.broken(format!("P3: two values of shard {shard} at {}.{}", at >> 32, at & 0xFFFF_FFFF));
        }
        if known.is_some_and(|(_, time)| *time >= at) {
            return;
        }
        let (epoch, loaded) = ((at >> 32) as u64, self.ledger.loaded(shard));
        if epoch < loaded && known.map(|(there, _)| there) != Some(&value) {
            self.broken(format!("shard {shard}: a row of epoch {epoch} shows after epoch {loaded} has read"));
        }
        self.rows.insert(key, (value, at));
    }

    /// A value and its time.
    pub(crate) fn row(&self, key: &[u8]) -> Option<(&[u8], i64)> {
        self.rows.get(key).and_then(|(value, at)| value.as_deref().map(|value| (value, *at)))
    }

    /// Rows whose keys begin so.
    pub(crate) fn rows(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let from = self.rows.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        from.filter_map(|(key, (value, _))| value.clone().map(|value| (key.clone(), value))).collect()
    }
}
