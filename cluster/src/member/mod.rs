//! A node's part in its cluster: keeps its lease, takes and gives up shards, buries the dead.
//!
//! ```text
//!   renew    every ttl / 6: own row by compare-and-set                       → held.lease
//!   tend     every ttl / 6: leases; when one changed, or when nudged: shards, then leases   → routes, links
//!              leases silent for a whole ttl are removed                     → their shards are free
//!              take: epoch + 1 → held → settle the log → host → tell all
//!              give up: come to rest → not held → epoch + 1 for its home → tell all
//!              given: held → settle the log, unless it came to rest → host → tell all
//! ```
//! M1  Shards are read before leases: an owner that is missing from the later answer is really gone.
//! M2  A shard is hosted only after its log was settled under the new epoch, and given up only after it is not held.
//! M3  A lost lease ends in `tend` and nowhere else: nothing that was taken under it can be held under the next.

mod moves;
mod news;
mod own;
pub mod plan;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schema::ownership::{NodeRow, Owner, Ownership};
use schema::store::StoreError;
use tokio::sync::Notify;
use tracing::warn;

pub use self::news::News;
use self::own::fresh_lease;
use self::plan::{Local, plan};
use crate::held::Held;
use crate::lease::{OwnLease, Standing, Terms, Watch};
use crate::link::{Envelope, Links, Payload};
use crate::metrics::{LEASES_REMOVED, SHARDS_OWNED};
use crate::routes::{NodeId, Route};
use crate::shard::ShardId;

/// A question to the tables is given up after this: its outcome is open then.
const QUESTION: Duration = Duration::from_secs(2);
/// Shards are read this often although nothing seems to have moved.
const THOROUGH_EVERY: Duration = Duration::from_secs(4);

/// Hosts shards; what the member decides is carried out by it.
#[async_trait]
pub trait Hosts: Send + Sync + 'static {
    /// Hosts a shard under an epoch from now on.
    async fn start(&self, shard: ShardId, epoch: u64);
    /// Lets a shard come to rest, and stops it.
    async fn leave(&self, shard: ShardId);
    /// The epoch under which a shard is hosted.
    fn hosted(&self, shard: ShardId) -> Option<u64>;
    /// Stops everything at once: the lease is lost.
    fn abandon(&self);
    /// Shards have new owners.
    fn moved(&self);
    /// A node lost its lease, and whatever it held.
    fn gone(&self, node: NodeId);
}

/// The way to other members.
pub trait Fabric: Send + Sync + 'static {
    /// All leases.
    fn know(&self, nodes: &[NodeRow]);
    /// Tells all who owns these shards.
    fn announce(&self, routes: Vec<(ShardId, Route)>);
    /// Asks all to look at the tables.
    fn nudge(&self);
    /// Tells one that shards of these groups were given to it.
    fn give(&self, to: NodeId, groups: Vec<u32>);
}

/// The [`Fabric`] of a member that others do not reach: they can only wait for its lease to end.
#[derive(Debug, Clone, Copy)]
pub struct Unlinked;

impl Fabric for Unlinked {
    fn know(&self, _: &[NodeRow]) {}

    fn announce(&self, _: Vec<(ShardId, Route)>) {}

    fn nudge(&self) {}

    fn give(&self, _: NodeId, _: Vec<u32>) {}
}

/// A [`Fabric`] of links.
#[derive(Clone)]
pub struct Linked<M>(pub Arc<Links<M>>);

impl<M: Payload> Fabric for Linked<M> {
    fn know(&self, nodes: &[NodeRow]) {
        self.0.know(nodes);
    }

    fn announce(&self, routes: Vec<(ShardId, Route)>) {
        self.0.tell_all(|| Envelope::News(routes.clone()));
    }

    fn nudge(&self) {
        self.0.tell_all(|| Envelope::Nudge);
    }

    fn give(&self, to: NodeId, groups: Vec<u32>) {
        self.0.tell(to, Envelope::Given(groups));
    }
}

/// What a member has seen.
struct View {
    watch: Watch,
    /// As of the last thorough look.
    nodes: Vec<NodeRow>,
    /// By the clock that leases are measured by.
    looked_at: u64,
    thorough_at: Option<u64>,
}

/// Who this member is.
#[derive(Debug, Clone)]
pub struct MemberOptions {
    /// This process.
    pub id: NodeId,
    /// Name of the node: one process at a time has it.
    pub name: String,
    /// `ip:port` where other nodes reach it.
    pub address: String,
    /// Shards of the deployment.
    pub shards: u32,
    /// How long leases last.
    pub terms: Terms,
}

/// A member of a cluster.
pub struct Member {
    options: MemberOptions,
    table: Arc<dyn Ownership>,
    hosts: Arc<dyn Hosts>,
    fabric: Arc<dyn Fabric>,
    news: Arc<News>,
    lease: Mutex<OwnLease>,
    leases: AtomicUsize,
    draining: AtomicBool,
    /// When it begins to take shards, by the clock of leases; 0: it does.
    joins_at: AtomicU64,
    /// Shards whose home this node is but which it does not host yet.
    missing: AtomicUsize,
    stopped: AtomicBool,
    renewed: Notify,
}

impl Member {
    /// A member that takes part from now on.
    pub fn start(
        options: MemberOptions,
        table: Arc<dyn Ownership>,
        hosts: Arc<dyn Hosts>,
        fabric: Arc<dyn Fabric>,
        news: Arc<News>,
    ) -> Arc<Self> {
        let lease = Mutex::new(fresh_lease(&options, 1));
        let this = Arc::new(Self {
            options,
            table,
            hosts,
            fabric,
            news,
            lease,
            leases: AtomicUsize::new(1),
            draining: AtomicBool::new(false),
            joins_at: AtomicU64::new(0),
            missing: AtomicUsize::new(usize::MAX),
            stopped: AtomicBool::new(false),
            renewed: Notify::new(),
        });
        tokio::spawn(Arc::clone(&this).renew());
        tokio::spawn(Arc::clone(&this).tend());
        this
    }

    fn lease(&self) -> MutexGuard<'_, OwnLease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> &Held {
        &self.news.held
    }

    fn period(&self) -> Duration {
        Duration::from_millis(self.options.terms.ttl_ms / 6)
    }

    /// The lease holds, and every shard that belongs here is hosted.
    pub fn ready(&self) -> Result<(), String> {
        if !self.held().leased() {
            return Err("this node has no lease".to_owned());
        }
        if self.draining.load(Ordering::Acquire) {
            return Err("this node drains".to_owned());
        }
        if self.joins_at.load(Ordering::Acquire) != 0 {
            return Err("this node takes shards once others have taken what it had".to_owned());
        }
        match self.missing.load(Ordering::Acquire) {
            0 => Ok(()),
            usize::MAX => Err("shards are not known yet".to_owned()),
            missing => Err(format!("{missing} shards are not hosted yet")),
        }
    }

    /// Shards of the deployment.
    pub fn shards(&self) -> u32 {
        self.options.shards
    }

    /// The lease is one of this process.
    pub fn is_me(&self, node: &NodeRow) -> bool {
        NodeId::of(node.incarnation) == self.options.id
    }

    /// Looks after shards and other members.
    async fn tend(self: Arc<Self>) {
        let (watch, nodes) = (Watch::new(self.options.terms), Vec::new());
        let mut view = View { watch, nodes, looked_at: 0, thorough_at: None };
        while !self.stopped.load(Ordering::Acquire) {
            if self.lease().standing() == Standing::Lost {
                self.start_anew();
            }
            self.hear().await;
            let pause = if view.watch.overdue() { self.period() / 4 } else { self.period() };
            let rest = pause.saturating_sub(Duration::from_millis(self.held().now_ms() - view.looked_at));
            if rest.is_zero() || self.news.thorough.load(Ordering::Acquire) {
                if let Err(error) = self.look(&mut view).await {
                    warn!(%error, "the tables of the cluster could not be read");
                    self.news.thorough.store(true, Ordering::Release);
                    tokio::time::sleep(self.period() / 10).await;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.news.wake.notified() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Does what others told this node to do.
    async fn hear(&self) {
        if self.news.moved.swap(false, Ordering::AcqRel) {
            self.hosts.moved();
        }
        let given = std::mem::take(&mut *self.news.given.lock().unwrap_or_else(PoisonError::into_inner));
        if !given.is_empty() && self.held().leased() && !self.draining.load(Ordering::Acquire) {
            self.accept(&self.me(), given).await;
            metrics::gauge!(SHARDS_OWNED).set(self.hosted_here() as f64);
        }
    }

    /// Leases every time; shards as well when something may have moved, and now and then anyway.
    async fn look(&self, view: &mut View) -> Result<(), StoreError> {
        view.looked_at = self.held().now_ms();
        let nodes = self.leases(view).await?;
        self.join(&nodes);
        let same = |a: &NodeRow, b: &NodeRow| a.incarnation == b.incarnation && a.draining == b.draining;
        let unchanged = nodes.len() == view.nodes.len() && nodes.iter().zip(&view.nodes).all(|(a, b)| same(a, b));
        let now = self.held().now_ms();
        let recent = view.thorough_at.is_some_and(|at| u128::from(now - at) < THOROUGH_EVERY.as_millis());
        if !self.news.thorough.swap(false, Ordering::AcqRel) && unchanged && recent {
            return Ok(());
        }
        view.thorough_at = Some(now);
        let rows = ask(self.table.shards()).await?;
        let nodes = self.leases(view).await?; // M1
        self.fabric.know(&nodes);
        let id = |row: &NodeRow| NodeId::of(row.incarnation); // one with another lease registers its sockets anew
        let gone = |row: &&NodeRow| !self.is_me(row) && !nodes.iter().any(|node| id(node) == id(row));
        view.nodes.iter().filter(gone).for_each(|row| self.hosts.gone(NodeId::of(row.incarnation)));
        view.nodes.clone_from(&nodes);
        let foreign = plan::routes(&nodes, &rows).into_iter().filter(|(shard, _)| self.held().epoch(*shard) == 0);
        if self.news.routes.learn(foreign.collect::<Vec<_>>()) {
            self.hosts.moved();
        }
        self.greet();
        let me = self.me();
        // What has ended is not hosted any more, whether or not it has noticed.
        let local = |shard| {
            let hosted = self.hosts.hosted(shard).filter(|epoch| self.held().epoch(shard) == *epoch);
            Local { hosted, last: self.held().last(shard) }
        };
        let plan = plan(&me, self.options.shards, &nodes, &rows, local);
        if self.held().leased() {
            self.missing.store(plan.take.len() + plan.given.len(), Ordering::Release);
            self.carry_out(&me, plan).await;
        }
        metrics::gauge!(SHARDS_OWNED).set(self.hosted_here() as f64);
        Ok(())
    }

    /// Reads all leases, and removes those that are over.
    async fn leases(&self, view: &mut View) -> Result<Vec<NodeRow>, StoreError> {
        let asked_at = self.held().now_ms();
        let nodes = ask(self.table.nodes()).await?;
        // The clock shows whole milliseconds: the answer arrived before the next one.
        view.watch.saw(asked_at, self.held().now_ms() + 1, &nodes);
        self.bury(&view.watch).await;
        Ok(nodes)
    }

    fn me(&self) -> Owner {
        let number = self.leases.load(Ordering::Relaxed) as u16;
        Owner { name: self.options.name.clone(), incarnation: self.options.id.incarnation(number) }
    }

    /// How many shards are hosted here.
    pub fn hosted_here(&self) -> usize {
        (0..self.options.shards).filter(|shard| self.hosts.hosted(ShardId(*shard)).is_some()).count()
    }

    /// Removes leases that did not change for a whole term (K2). One of this process's own may be among them: a first
    /// renewal that was applied after it was given up.
    async fn bury(&self, watch: &Watch) {
        let own = self.me().incarnation;
        for row in watch.silent().filter(|row| row.incarnation != own) {
            match ask(self.table.change_node(&row.name, Some(row), None)).await {
                Ok(true) => {
                    warn!(node = row.name, "a node was silent for a whole term: its lease is removed");
                    metrics::counter!(LEASES_REMOVED).increment(1);
                    self.news.wake();
                    self.fabric.nudge();
                }
                Ok(false) => {} // it moved, or somebody else was faster
                Err(error) => warn!(node = row.name, %error, "a silent lease could not be removed for sure"),
            }
        }
    }

    /// Tells new peers what is held here.
    fn greet(&self) {
        let met = std::mem::take(&mut *self.news.met.lock().unwrap_or_else(PoisonError::into_inner));
        if met.is_empty() {
            return;
        }
        let routes = (0..self.options.shards).map(ShardId).filter_map(|shard| {
            self.hosts.hosted(shard).map(|epoch| (shard, Route { epoch, owner: Some(self.options.id) }))
        });
        self.fabric.announce(routes.collect());
    }
}

/// A question that does not wait for ever; a late answer is an open outcome.
async fn ask<T>(question: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(QUESTION, question).await.unwrap_or(Err(StoreError::Timeout))
}
