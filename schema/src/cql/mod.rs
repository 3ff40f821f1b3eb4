//! The store of a cluster: ScyllaDB or Apache Cassandra, by CQL.
//!
//! ```text
//!   layout    key → table, partition, bucket, place
//!   merge     ranges over buckets of a hash
//!   session   one connection, its statements, what errors mean
//!   pipeline  batches → commit log of the shard → rows
//!   log       its statements
//!   unowned   times of rows that no shard has
//!   identity  what has to be unique, by lightweight transactions
//!   ownership leases of nodes and owners of shards, the same way
//!   migrate   schema/cql, applied
//! ```
//! L1  No lightweight transaction is on the way of a message.
//! L2  Several processes may write, each for shards that it owns: see `pipeline` for what keeps them apart.

mod identity;
mod layout;
mod log;
mod merge;
mod migrate;
mod ownership;
pub mod pipeline;
mod probe;
mod session;
mod unowned;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::migrate::migrate;
pub use self::probe::{Probe, probe};

use self::identity::Identity;
use self::layout::{Home, Partition, Place, key_at, spread};
use self::log::Tables;
use self::pipeline::Pipeline;
use self::session::{Cql, connect, failed, misshapen};
use crate::kv::keys::{self, Table};
use crate::kv::{Backend, Direction, EmailChange, KvStore, Pairs, Sealed, sweep};
use crate::rows::{AgentRow, PendingRow, Timestamp};
use crate::store::{CreateAgentError, Done, EmailBudget, Fence, StoreError};

/// Most partitions that one range may touch: a caller that asks for more has no bound (W6).
const BUCKETS_MAX: i64 = 1 << 16;

/// The store over CQL.
pub type CqlStore = KvStore<CqlBackend>;

/// Where the cluster is, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CqlOptions {
    /// `host:port` of some of its nodes.
    pub nodes: Vec<String>,
    /// 1–48 of `a-z`, `0-9`, `_`, starting with a letter.
    pub keyspace: String,
    /// User and password, if the cluster wants them.
    pub credentials: Option<(String, String)>,
    /// Copies of each row in a keyspace that is created.
    pub replication: u8,
    /// How long to wait for the first connection.
    pub patience: Duration,
}

/// A store's address that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a store: write cql://host:port[,host:port]/keyspace, the keyspace in a-z, 0-9 and _")]
pub struct NotCql;

impl std::str::FromStr for CqlOptions {
    type Err = NotCql;

    fn from_str(text: &str) -> Result<Self, NotCql> {
        let (nodes, keyspace) = text.strip_prefix("cql://").and_then(|rest| rest.split_once('/')).ok_or(NotCql)?;
        let (user, nodes) = nodes.rsplit_once('@').map_or((None, nodes), |(user, nodes)| (Some(user), nodes));
        let credentials = match user.map(|user| user.split_once(':')) {
            Some(Some((user, password))) => Some((user.to_owned(), password.to_owned())),
            Some(None) => return Err(NotCql),
            None => None,
        };
        let node = |node: &str| {
            let (host, port) = node.rsplit_once(':').unwrap_or((node, "9042"));
            (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| format!("{host}:{port}"))
        };
        let nodes: Vec<String> = nodes.split(',').map(node).collect::<Option<_>>().ok_or(NotCql)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !keyspace.starts_with(|c: char| c.is_ascii_lowercase())
            || !keyspace.chars().all(plain)
            || keyspace.len() > 48
        {
            return Err(NotCql);
        }
        let patience = Duration::from_secs(30);
        Ok(Self { nodes, keyspace: keyspace.to_owned(), credentials, replication: 3, patience })
    }
}

/// The store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No node answers.
    #[error("no node of the cluster answers ({nodes}): {reason}")]
    Unreachable {
        /// Who was asked.
        nodes: String,
        /// What the last one said.
        reason: String,
    },
    /// The keyspace lacks something.
    #[error("the schema is not there or not as expected: {0}; run `agentchat migrate`")]
    Schema(String),
    /// The keyspace is older.
    #[error("the keyspace has schema version {found}, this binary needs {known}; run `agentchat migrate`")]
    Older {
        /// Its version.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// The keyspace is newer.
    #[error("the keyspace has schema version {found}, this binary knows {known}; run a newer agentchat")]
    Newer {
        /// Its version.
        found: i32,
        /// Ours.
        known: i32,
    },
}

/// Says whether an epoch is still ours, by a clock that cannot be set. Never blocks.
pub trait Guard: Send + Sync + 'static {
    /// The shard is ours under this epoch, and our lease has not ended. Once it said no, it says no for good.
    fn holds(&self, fence: Fence) -> bool;
}

/// A guard for processes that are alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Guard for Alone {
    fn holds(&self, _: Fence) -> bool {
        true
    }
}

/// The way to the cluster.
pub struct CqlBackend {
    cql: Arc<Cql>,
    pipeline: Arc<Pipeline<Tables>>,
    identity: Identity,
    nodes: ownership::Table,
    shards: ownership::Table,
}

impl CqlStore {
    /// Opens a keyspace of exactly this binary's schema version, for a deployment of `shards` shards.
    pub async fn open(options: &CqlOptions, guard: Arc<dyn Guard>, shards: u32) -> Result<Self, OpenError> {
        let session = connect(options).await?;
        match migrate::version(&session, &options.keyspace).await? {
            Some(found) if found > migrate::VERSION => {
                return Err(OpenError::Newer { found, known: migrate::VERSION });
            }
            Some(migrate::VERSION) => {}
            older => return Err(OpenError::Older { found: older.unwrap_or(0), known: migrate::VERSION }),
        }
        let cql = Arc::new(Cql::prepare(session, &options.keyspace).await?);
        let pipeline = Arc::new(Pipeline::new(Tables::new(Arc::clone(&cql)).await?, guard, shards));
        let identity = Identity::new(Arc::clone(&cql), Arc::clone(&pipeline)).await?;
        let nodes = ownership::Table::new(&cql, "nodes", ["name"]).await?;
        let shards = ownership::Table::new(&cql, "shards", ["grp", "shard"]).await?;
        Ok(Self::over(CqlBackend { cql, pipeline, identity, nodes, shards }))
    }
}

impl CqlBackend {
    /// Removes expired rows of a table that gateways write, each at the time at which it was written: what replaced it
    /// meanwhile has a later time (U1) and is not touched.
    async fn sweep_table(&self, table: Table, home: Home, now: Timestamp) -> Result<usize, StoreError> {
        let select = format!("SELECT p, c, v, WRITETIME(v) FROM {}", home.name());
        let select = self.cql.statement(&select).await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let (mut page, mut removed) = (scylla::response::PagingState::start(), 0);
        loop {
            let (answer, next) =
                self.cql.session.execute_single_page(&select, (), page).await.map_err(|e| failed(&e))?;
            let rows = answer.into_rows_result().map_err(misshapen)?;
            for row in rows.rows::<(Vec<u8>, Vec<u8>, Vec<u8>, i64)>().map_err(misshapen)? {
                let (key, place, value, written) = row.map_err(misshapen)?;
                let whole = [&[table as u8][..], &key, &place].concat();
                if sweep::expired(table, &whole, &value, now)? {
                    let values = (written, &key, 0_i64, &place);
                    let remove = &self.cql.home(home).remove;
                    self.cql.session.execute_unpaged(remove, values).await.map_err(|e| failed(&e))?;
                    removed += 1;
                }
            }
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => return Ok(removed),
                std::ops::ControlFlow::Continue(next) => page = next,
            }
        }
    }

    /// Rows of one bucket between two places, after the one that was read last.
    async fn page(
        &self,
        low: &Place,
        high: &Place,
        (bucket, after): (i64, Option<Vec<u8>>),
        most: usize,
        direction: Direction,
    ) -> Result<Pairs, StoreError> {
        let at = Partition { bucket, ..low.partition.clone() };
        let mut found = Pairs::new();
        let Some(after) = after else {
            self.cql.range(&at, (&low.place, &high.place), most, direction, &mut found).await?;
            return Ok(found);
        };
        let range = match direction {
            Direction::Up => (after.as_slice(), high.place.as_slice()),
            Direction::Down => (low.place.as_slice(), after.as_slice()),
        };
        // Bounds are inclusive, so that one comes again, if it is still there.
        self.cql.range(&at, range, most.saturating_add(1), direction, &mut found).await?;
        found.retain(|(place, _)| *place != after);
        Ok(found)
    }

    /// Codes are only ever removed by a transaction. One that was taken is gone already, so it does not count.
    async fn sweep_codes(&self, now: Timestamp) -> Result<usize, StoreError> {
        let select = self.cql.statement("SELECT v, taker FROM pendings").await;
        let select = select.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let (mut page, mut removed) = (scylla::response::PagingState::start(), 0);
        loop {
            let (answer, next) =
                self.cql.session.execute_single_page(&select, (), page).await.map_err(|e| failed(&e))?;
            let rows = answer.into_rows_result().map_err(misshapen)?;
            for row in rows.rows::<(Option<Vec<u8>>, Option<Vec<u8>>)>().map_err(misshapen)? {
                let (Some(value), taker) = row.map_err(misshapen)? else { continue };
                let code: PendingRow = keys::decode(&[Table::Pending as u8], &value)?;
                if sweep::expired(Table::Pending, &[], &value, now)? && self.identity.remove_pending(&code.id).await? {
                    removed += usize::from(taker.is_none());
                }
            }
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => return Ok(removed),
                std::ops::ControlFlow::Continue(next) => page = next,
            }
        }
    }
}

#[async_trait]
impl Backend for CqlBackend {
    // Reads go over the network: most inboxes are read with one.
    const COPIED_MAX: usize = 1_024;

    fn apply(&self, batches: Vec<Sealed>, done: Done) {
        self.pipeline.submit(batches, done);
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match Table::of(key) {
            Some(Table::Handle) => self.identity.resolve(key).await,
            Some(Table::Pending) => self.identity.untaken(key).await,
            _ => {
                let at = Place::of(key)?;
                self.cql.get(&at.partition, &at.place).await
            }
        }
    }

    async fn scan(&self, from: &[u8], through: &[u8], limit: usize, direction: Direction) -> Result<Pairs, StoreError> {
        let (low, high) = (Place::bound(from, 0x00)?, Place::bound(through, 0xFF)?);
        debug_assert!(low.partition.home == high.partition.home, "Y2");
        if let Some(buckets) = spread(from)? {
            let page = |bucket, after, most| self.page(&low, &high, (bucket, after), most, direction);
            let mut found = merge::merged(buckets, limit, direction, page).await?;
            found.iter_mut().for_each(|(place, _)| *place = key_at(from, place));
            return Ok(found);
        }
        let (first, last) = (low.partition.bucket, high.partition.bucket);
        if last.saturating_sub(first) > BUCKETS_MAX {
            return Err(StoreError::Unavailable(format!("a range over {} partitions", last - first)));
        }
        let (mut at, mut found) = (low.partition, Pairs::new());
        for n in 0..=last - first {
            at.bucket = match direction {
                Direction::Up => first + n,
                Direction::Down => last - n,
            };
            let wanted = limit - found.len();
            if wanted == 0 {
                break;
            }
            self.cql.range(&at, (&low.place, &high.place), wanted, direction, &mut found).await?;
        }
        for (place, _) in &mut found {
            *place = key_at(from, place);
        }
        Ok(found)
    }

    async fn create_agent(
        &self,
        row: AgentRow,
        pending: Option<String>,
        budget: Option<EmailBudget>,
    ) -> Result<(), CreateAgentError> {
        self.identity.create_agent(row, pending, budget).await
    }

    async fn create_agents(&self, rows: Vec<AgentRow>) -> Result<(), CreateAgentError> {
        self.identity.create_agents(rows).await
    }

    async fn change_email(&self, email: &str, change: EmailChange) -> Result<(), StoreError> {
        self.identity.change_email(email, change).await
    }

    async fn put_pending(&self, row: PendingRow) -> Result<(), StoreError> {
        self.identity.put_pending(row).await
    }

    async fn replace_pending(&self, before: &PendingRow, after: PendingRow) -> Result<bool, StoreError> {
        self.identity.replace_pending(before, &after).await
    }

    async fn take_pending(&self, id: &str) -> Result<bool, StoreError> {
        self.identity.take_pending(id).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        let answers = self.sweep_table(Table::Idempotency, Home::Answers, now).await?;
        let files = self.sweep_table(Table::Attachment, Home::Attachments, now).await?;
        Ok(answers + files + self.sweep_codes(now).await?)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        // A quorum that reads can also write: both ask the same replicas.
        let nobody = Place::of(&keys::handle("-"))?;
        self.cql.get(&nobody.partition, &nobody.place).await.map(drop)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.pipeline.drained().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let options: CqlOptions = "cql://a:9042,b/agentchat".parse().expect("an address");
        assert_eq!(
            (options.nodes, options.keyspace.as_str()),
            (vec!["a:9042".to_owned(), "b:9042".to_owned()], "agentchat")
        );
        let options: CqlOptions = "cql://me:secret@a:1/k".parse().expect("an address");
        assert_eq!(options.credentials, Some(("me".to_owned(), "secret".to_owned())));
        for bad in ["embedded", "cql://", "cql://a", "cql:///k", "cql://a/K", "cql://a:x/k", "cql://a/1k", "cql://a/k;"]
        {
            assert_eq!(bad.parse::<CqlOptions>(), Err(NotCql), "{bad}");
        }
    }
}
