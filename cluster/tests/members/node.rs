//! One simulated run of a node: its own clock and runtime, the real member and pipeline, and shards that are registers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use cluster::held::{Clock, Held};
use cluster::link::Gossip;
use cluster::member::{Fabric, Hosts, Member, MemberOptions, News};
use cluster::routes::{NodeId, Route, Routes};
use cluster::shard::ShardId;
use futures_util::future::join_all;
use rand::Rng;
use schema::cql::Guard;
use schema::cql::pipeline::{Change, KvOp, Log, Pipeline, Unwritten};
use schema::ownership::{NodeRow, Ownership, ShardChange, ShardRow};
use schema::store::{Fence, StoreError};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::Broken;
use crate::ledger::{By, Deed, Note, as_number};
use crate::sea::{Asker, Core, Kind, MS, Mail, Shared, ask, lock};

/// What a shard that leaves is given to come to rest, as in the server.
const LEAVE_PATIENCE: Duration = Duration::from_millis(1_500);
/// Pause before rows are read again.
const READ_AGAIN: Duration = Duration::from_millis(50);

/// A node's monotonic clock: that of its paused runtime, which the world moves.
#[derive(Debug, Clone)]
pub(crate) struct NodeClock {
    started: Instant,
    /// True time at which it was 0.
    born: u64,
    /// Its milliseconds in a second of true time.
    rate: u64,
}

impl NodeClock {
    fn elapsed_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// True time, as it is now by this clock.
    pub(crate) fn true_us(&self) -> u64 {
        self.born + self.elapsed_us() * 1_000 / self.rate
    }

    /// What this clock shows at a true time, in whole milliseconds.
    fn at(&self, true_us: u64) -> Duration {
        Duration::from_millis((true_us - self.born) * self.rate / 1_000 / MS)
    }
}

impl Clock for NodeClock {
    fn now_ms(&self) -> u64 {
        self.elapsed_us() / MS
    }
}

pub(crate) fn head_key(shard: u32) -> Vec<u8> {
    [&shard.to_be_bytes()[..], b"h"].concat()
}

pub(crate) fn row_key(shard: u32, number: u64) -> Vec<u8> {
    [&shard.to_be_bytes()[..], b"r", &number.to_be_bytes()].concat()
}

fn rows_of(shard: u32) -> Vec<u8> {
    [&shard.to_be_bytes()[..], b"r"].concat()
}

/// The log and the rows, as one node reaches them.
struct SimLog {
    core: Shared,
    from: Asker,
    broken: Broken,
}

impl Log for SimLog {
    async fn put_entry(&self, of: Fence, entry: &[u8], at: i64) -> Result<(), StoreError> {
        let entry = entry.to_vec();
        ask(&self.core, &self.from, Kind::Write, move |core, _| core.put_entry(of.shard, of.epoch, &entry, at)).await
    }

    async fn entry(&self, of: Fence) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
        ask(&self.core, &self.from, Kind::Read, move |core, _| core.entry(of.shard, of.epoch)).await
    }

    async fn drop_entry(&self, of: Fence, at: i64) -> Result<(), StoreError> {
        ask(&self.core, &self.from, Kind::Write, move |core, _| core.drop_entry(of.shard, of.epoch, at)).await
    }

    async fn put_rows(&self, changes: &[&Change], at: i64) -> Result<(), Unwritten> {
        let at = if self.broken == Broken::Stamps { at & 0xFFFF_FFFF } else { at };
        // Every row has a partition of its own, and its own fate.
        let rows = changes.iter().map(|Change(key, value)| {
            let (key, value) = (key.clone(), value.clone());
            let shard = u32::from_be_bytes(key[..4].try_into().expect("a shard"));
            let put = move |core: &mut Core, _| core.put_row(shard, Change(key, value), at);
            ask(&self.core, &self.from, Kind::Write, put)
        });
        Unwritten::gather(join_all(rows).await.into_iter().enumerate().map(|(row, outcome)| (vec![row], outcome)))
    }
}

/// The tables, as one node reaches them.
struct SimTable {
    core: Shared,
    from: Asker,
    pipeline: Arc<Pipeline<SimLog>>,
    broken: Broken,
    /// Leases that were read too early ([`Broken::LeasesFirst`]).
    early: Mutex<Option<Vec<NodeRow>>>,
}

impl SimTable {
    /// A read of many partitions is not of one moment.
    async fn scan<T: Send + 'static>(&self, read: fn(&Core) -> Vec<(usize, T)>) -> Result<Vec<T>, StoreError> {
        let mask: u64 = lock(&self.core).rng.random();
        let half = |which: u64| {
            let part = move |core: &mut Core, _| {
                let rows = read(core).into_iter();
                rows.filter(|(number, _)| mask >> (number % 64) & 1 == which).collect::<Vec<_>>()
            };
            ask(&self.core, &self.from, Kind::Table, part)
        };
        let mut found = half(0).await?;
        found.extend(half(1).await?);
        found.sort_by_key(|(number, _)| *number);
        Ok(found.into_iter().map(|(_, row)| row).collect())
    }
}

#[async_trait]
impl Ownership for SimTable {
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let early = self.early.lock().expect("no step panics").take();
        match early {
            Some(nodes) => Ok(nodes),
            None => self.scan(Core::nodes_seen).await,
        }
    }

    async fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        let name = name.to_owned();
        ask(&self.core, &self.from, Kind::Table, move |core, _| core.node(&name)).await
    }

    async fn change_node(
        &self,
        name: &str,
        before: Option<&NodeRow>,
        after: Option<&NodeRow>,
    ) -> Result<bool, StoreError> {
        let (name, before, after, sent) = (name.to_owned(), before.cloned(), after.cloned(), self.from.clock.now_ms());
        let change =
            move |core: &mut Core, answered| core.change_node(&name, (before.as_ref(), after.as_ref()), answered, sent);
        ask(&self.core, &self.from, Kind::Decide, change).await
    }

    async fn shards(&self) -> Result<Vec<ShardRow>, StoreError> {
        if self.broken == Broken::LeasesFirst {
            let nodes = self.scan(Core::nodes_seen).await?;
            *self.early.lock().expect("no step panics") = Some(nodes);
        }
        self.scan(Core::shards_seen).await
    }

    async fn group(&self, group: u32) -> Result<Vec<ShardRow>, StoreError> {
        ask(&self.core, &self.from, Kind::Table, move |core, _| core.group(group)).await
    }

    async fn change_shards(&self, changes: &[ShardChange]) -> Result<bool, StoreError> {
        let changes = changes.to_vec();
        ask(&self.core, &self.from, Kind::Decide, move |core, answered| core.change_shards(&changes, answered)).await
    }

    async fn settle(&self, shard: u32, epoch: u64, from: u64) -> Result<(), StoreError> {
        if self.broken == Broken::Settle {
            return Ok(());
        }
        self.pipeline.settle(Fence { shard, epoch }, from).await
    }

    fn at_rest(&self, shard: u32, epoch: u64) -> bool {
        self.broken == Broken::Rest || self.pipeline.at_rest(Fence { shard, epoch })
    }
}

/// A guard that never objects.
struct Blind;

impl Guard for Blind {
    fn holds(&self, _: Fence) -> bool {
        true
    }
}

#[derive(Debug)]
struct Guest {
    fence: Fence,
    /// Tells two lives under one epoch apart.
    token: u64,
    /// Number of the last operation, once it was read.
    head: Option<u64>,
    under_way: usize,
    /// Something was not stored: what is stored has to be read again.
    stale: bool,
    leaving: bool,
}

/// Hosts shards as the server does: N4, a shard does nothing once its epoch or its node's lease has ended.
pub(crate) struct Guests {
    core: Shared,
    from: Asker,
    by: By,
    held: Arc<Held>,
    pipeline: Arc<Pipeline<SimLog>>,
    shards: Mutex<(u64, BTreeMap<u32, Guest>)>,
    this: std::sync::Weak<Guests>,
}

impl Guests {
    fn shards(&self) -> MutexGuard<'_, (u64, BTreeMap<u32, Guest>)> {
        self.shards.lock().expect("no step panics")
    }

    /// The shard's fence, if this is still the life that is meant; a life whose epoch has ended ends here (N4).
    fn living(&self, shard: u32, token: u64) -> Option<Fence> {
        let shards = &mut self.shards().1;
        let fence = shards.get(&shard).filter(|guest| guest.token == token)?.fence;
        if self.held.holds(fence) {
            return Some(fence);
        }
        shards.remove(&shard);
        None
    }

    /// Reads head and rows, until it works.
    async fn load(self: Arc<Self>, shard: u32, token: u64) {
        while let Some(fence) = self.living(shard, token) {
            let head = ask(&self.core, &self.from, Kind::Read, move |core, _| {
                core.row(&head_key(shard)).map_or(0, |(head, _)| as_number(head))
            });
            let rows = ask(&self.core, &self.from, Kind::Read, move |core, _| core.rows(&rows_of(shard)));
            let found = async { Ok::<_, StoreError>((head.await?, rows.await?)) }.await;
            let Ok((head, rows)) = found else {
                tokio::time::sleep(READ_AGAIN).await;
                continue;
            };
            if self.living(shard, token).is_none() {
                return;
            }
            let mut core = lock(&self.core);
            let ops: Vec<u64> = rows.iter().map(|(_, op)| as_number(op)).collect();
            let whole = rows.iter().enumerate().all(|(n, (key, _))| *key == row_key(shard, n as u64 + 1));
            if !whole || ops.len() as u64 != head {
                let (epoch, count) = (fence.epoch, ops.len());
                core.broken(format!(
                    "W1: shard {shard} epoch {epoch} reads {count} rows, whole {whole}, under head {head}"
                ));
            }
            let deed = Deed::Loaded(ops);
            core.ledger.note(Note { at: self.from.clock.true_us(), by: self.by, shard, epoch: fence.epoch, deed });
            drop(core);
            if let Some(guest) = self.shards().1.get_mut(&shard) {
                (guest.head, guest.stale) = (Some(head), false);
            }
            return;
        }
    }

    /// A client's operation.
    fn write(&self, shard: u32, op: u64) {
        let Some(token) = self.shards().1.get(&shard).map(|guest| guest.token) else { return };
        let Some(fence) = self.living(shard, token) else { return };
        let mut shards = self.shards();
        let Some(guest) = shards.1.get_mut(&shard).filter(|guest| !guest.leaving && !guest.stale) else { return };
        let Some(head) = &mut guest.head else { return };
        *head += 1;
        let number = *head;
        guest.under_way += 1;
        drop(shards);
        let put = |key: Vec<u8>, value: u64| KvOp::Put(key, value.to_be_bytes().to_vec());
        let ops = vec![put(head_key(shard), number), put(row_key(shard, number), op)];
        let this = self.this.clone();
        let done = Box::new(move |outcomes: Vec<Result<(), StoreError>>| {
            if let Some(this) = this.upgrade() {
                this.stored(shard, token, (op, number), outcomes.iter().all(Result::is_ok));
            }
        });
        self.pipeline.submit(vec![(fence, ops)], done);
    }

    fn stored(&self, shard: u32, token: u64, (op, number): (u64, u64), stored: bool) {
        let Some(fence) = self.living(shard, token) else { return };
        let mut shards = self.shards();
        let Some(guest) = shards.1.get_mut(&shard) else { return };
        guest.under_way -= 1;
        guest.stale |= !stored;
        if guest.stale && guest.under_way == 0 {
            guest.head = None;
            if let Some(this) = self.this.upgrade() {
                tokio::spawn(this.load(shard, token));
            }
        }
        drop(shards);
        if stored {
            let clock = &self.from.clock;
            let deed = Deed::Acked { op, number, at_ms: clock.now_ms() };
            let note = Note { at: clock.true_us(), by: self.by, shard, epoch: fence.epoch, deed };
            lock(&self.core).ledger.note(note);
        }
    }

    /// Shards that serve: number and epoch.
    pub(crate) fn serving(&self) -> Vec<(u32, u64)> {
        let serving = |guest: &&Guest| guest.head.is_some() && !guest.leaving;
        self.shards().1.values().filter(serving).map(|guest| (guest.fence.shard, guest.fence.epoch)).collect()
    }
}

#[async_trait]
impl Hosts for Guests {
    async fn start(&self, shard: ShardId, epoch: u64) {
        let mut shards = self.shards();
        shards.0 += 1;
        let (token, fence) = (shards.0, Fence { shard: shard.0, epoch });
        let guest = Guest { fence, token, head: None, under_way: 0, stale: false, leaving: false };
        shards.1.insert(shard.0, guest);
        drop(shards);
        if let Some(this) = self.this.upgrade() {
            tokio::spawn(this.load(shard.0, token));
        }
    }

    async fn leave(&self, shard: ShardId) {
        let token = match self.shards().1.get_mut(&shard.0) {
            Some(guest) => {
                guest.leaving = true;
                guest.token
            }
            None => return,
        };
        let rest = async {
            while self.shards().1.get(&shard.0).is_some_and(|guest| guest.token == token && guest.under_way > 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(LEAVE_PATIENCE, rest).await; // then it is killed
        let mut shards = self.shards();
        if shards.1.get(&shard.0).is_some_and(|guest| guest.token == token) {
            shards.1.remove(&shard.0);
        }
    }

    fn hosted(&self, shard: ShardId) -> Option<u64> {
        self.shards().1.get(&shard.0).map(|guest| guest.fence.epoch)
    }

    fn abandon(&self) {
        self.shards().1.clear();
    }

    fn moved(&self) {}

    fn gone(&self, _: NodeId) {}
}

/// The way to other members: what one says to all may be lost for some.
struct Wires {
    core: Shared,
    from: Asker,
}

impl Wires {
    fn tell_all(&self, mail: &Mail) {
        let mut core = lock(&self.core);
        let (sent, nodes) = (self.from.clock.true_us(), core.ledger.names.len());
        for to in (0..nodes).filter(|to| *to != self.from.node) {
            core.post(self.from.node, to, sent, mail.clone());
        }
    }
}

impl Fabric for Wires {
    fn know(&self, _: &[NodeRow]) {}

    fn announce(&self, routes: Vec<(ShardId, Route)>) {
        self.tell_all(&Mail::News(routes));
    }

    fn nudge(&self) {
        self.tell_all(&Mail::Nudge);
    }

    fn give(&self, to: NodeId, groups: Vec<u32>) {
        self.tell_all(&Mail::Given(to, groups)); // it alone listens
    }
}

/// How far a run has come with its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    No,
    Drains,
    /// It has left; how many shards it could not hand over.
    Left(usize),
}

/// One process.
pub(crate) struct Run {
    pub(crate) id: NodeId,
    pub(crate) member: Arc<Member>,
    pub(crate) guests: Arc<Guests>,
    pub(crate) held: Arc<Held>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) end: Arc<Mutex<End>>,
    pub(crate) mail: Vec<Mail>,
    news: Arc<News>,
    clock: NodeClock,
    runtime: Runtime,
}

impl Run {
    /// Starts at this moment.
    pub(crate) fn start(core: &Shared, node: usize, name: &str, (shards, rate): (u32, u64), broken: Broken) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let guard = runtime.enter();
        let (born, id, terms) = {
            let mut core = lock(core);
            (core.now, NodeId(core.rng.random::<u64>() >> 16), core.terms)
        };
        let clock = NodeClock { started: Instant::now(), born, rate };
        let from = Asker { node, clock: clock.clone() };
        let held = Arc::new(Held::timed(shards, Box::new(clock.clone())));
        let routes = Arc::new(Routes::new(shards));
        let log = SimLog { core: core.clone(), from: from.clone(), broken };
        let checked: Arc<dyn Guard> = if broken == Broken::Guard { Arc::new(Blind) } else { held.clone() };
        let pipeline = Arc::new(Pipeline::new(log, checked, shards));
        let guests = Arc::new_cyclic(|this| Guests {
            core: core.clone(),
            from: from.clone(),
            by: By { node, id: id.0 },
            held: held.clone(),
            pipeline: pipeline.clone(),
            shards: Mutex::default(),
            this: this.clone(),
        });
        let news = News::new(id, routes.clone(), held.clone());
        let table = SimTable { core: core.clone(), from: from.clone(), pipeline, broken, early: Mutex::default() };
        let options = MemberOptions { id, name: name.to_owned(), address: String::new(), shards, terms };
        let wires = Arc::new(Wires { core: core.clone(), from });
        let member = Member::start(options, Arc::new(table), guests.clone(), wires, news.clone());
        drop(guard);
        let end = Arc::new(Mutex::new(End::No));
        Self { id, member, guests, held, routes, end, mail: Vec::new(), news, clock, runtime }
    }

    /// Lives until a true time. `stopped_until`: it was stopped until then, and what it sees is that time has passed.
    pub(crate) fn live(&mut self, until: u64, stopped_until: Option<u64>) {
        let mail = std::mem::take(&mut self.mail);
        let (clock, news, guests, id) = (&self.clock, &self.news, &self.guests, self.id);
        self.runtime.block_on(async move {
            if let Some(at) = stopped_until {
                tokio::time::advance(clock.at(at).saturating_sub(clock.started.elapsed())).await;
            }
            for mail in mail {
                match mail {
                    Mail::News(routes) => news.news(routes),
                    Mail::Nudge => news.nudged(),
                    Mail::Given(to, groups) if to == id => news.given(groups),
                    Mail::Given(..) => {}
                    Mail::Linked(peer, up) => news.linked(peer, up),
                    Mail::Write(shard, op) => guests.write(shard, op),
                }
            }
            tokio::time::sleep_until(clock.started + clock.at(until)).await;
        });
    }

    /// Hands everything over and leaves, as the server does when it is told to end.
    pub(crate) fn drain(&self) {
        let (member, end) = (Arc::clone(&self.member), Arc::clone(&self.end));
        *end.lock().expect("no step panics") = End::Drains;
        let drained = async move {
            member.hand_over().await;
            let kept = member.hosted_here();
            member.leave().await;
            *end.lock().expect("no step panics") = End::Left(kept);
        };
        self.runtime.spawn(drained);
    }

    pub(crate) fn end(&self) -> End {
        *self.end.lock().expect("no step panics")
    }

    /// Asks something that looks at this node's clock.
    pub(crate) fn here<T>(&self, question: impl FnOnce(&Self) -> T) -> T {
        let _guard = self.runtime.enter();
        question(self)
    }
}
