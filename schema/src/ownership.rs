//! Who is alive and who owns a shard: two small tables that change by compare-and-set only.
//!
//! O1  A change happens only if the row is exactly as the caller last saw it; of several callers that saw the same, one
//!     succeeds.
//! O2  An error leaves open whether the change happened: the caller reads again and recognises its own row.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// A node's lease. It is alive while `version` keeps changing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name, unique in the deployment.
    pub name: String,
    /// Which run of the process: random.
    pub incarnation: u64,
    /// Raised with every renewal.
    pub version: u64,
    /// `ip:port` of its cluster listener; empty when it has none.
    pub address: String,
    /// It takes no shards, any more or yet, and gives up those that it has.
    pub draining: bool,
}

/// A run of a node, as shards name their owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Which run.
    pub incarnation: u64,
}

/// Who owns a shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShardRow {
    /// Which shard.
    pub shard: u32,
    /// Raised whenever it is taken.
    pub epoch: u64,
    /// `None` while nobody has it.
    pub owner: Option<Owner>,
    /// Logs of epochs below need no settling: a new owner starts from here.
    pub recovered: u64,
}

impl ShardRow {
    /// A shard that nobody ever had.
    pub fn new(shard: u32) -> Self {
        Self { shard, epoch: 0, owner: None, recovered: 1 }
    }
}

/// A change of one shard's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardChange {
    /// As it was seen; `None`: there was none.
    pub before: Option<ShardRow>,
    /// As it shall be.
    pub after: ShardRow,
}

/// Shards of one group change together: a decision takes several round trips, whatever it is about.
const GROUP: u32 = 64;

/// The group of a shard.
pub fn group_of(shard: u32) -> u32 {
    shard / GROUP
}

/// The two tables.
#[async_trait]
pub trait Ownership: Send + Sync + 'static {
    /// All leases, by name.
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError>;

    /// One lease, as it is once everything under way has been decided.
    async fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError>;

    /// Replaces `before` by `after`, either of which may be absent; `false` when the row is not `before` (O1).
    async fn change_node(
        &self,
        name: &str,
        before: Option<&NodeRow>,
        after: Option<&NodeRow>,
    ) -> Result<bool, StoreError>;

    /// All shards that anybody ever had, by number.
    async fn shards(&self) -> Result<Vec<ShardRow>, StoreError>;

    /// Shards of one group (see [`group_of`]), as they are once everything under way has been decided.
    async fn group(&self, group: u32) -> Result<Vec<ShardRow>, StoreError>;

    /// Makes all changes, which are of one group, or none: `false` when any row is not as it was seen (O1).
    async fn change_shards(&self, changes: &[ShardChange]) -> Result<bool, StoreError>;

    /// Writes again what owners of a shard from epoch `from` up to `epoch` may have left unfinished, and forgets their
    /// logs; with `from` equal to `epoch` there is nothing to write, and the last log goes in its own time. The owner of `epoch` calls it before it reads anything; to do it twice changes nothing.
    async fn settle(&self, shard: u32, epoch: u64, from: u64) -> Result<(), StoreError>;

    /// Whatever this process wrote for a shard under `epoch` is stored in full, and nothing is under way: the next owner
    /// has nothing to settle.
    fn at_rest(&self, shard: u32, epoch: u64) -> bool;
}
