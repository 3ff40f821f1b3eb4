//! Leases and shards by lightweight transactions: a row is one value, compared as a whole.

use std::sync::Arc;

use async_trait::async_trait;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::session::{Cql, Either, failed, misshapen, verdict};
use super::{CqlStore, OpenError};
use crate::ownership::{NodeRow, Ownership, ShardChange, ShardRow, group_of};
use crate::store::{Fence, StoreError};

/// Statements of one of the two tables.
pub(super) struct Table {
    all: PreparedStatement,
    one: PreparedStatement,
    first: PreparedStatement,
    next: PreparedStatement,
    remove: PreparedStatement,
}

impl Table {
    /// The first of `keys` is the partition.
    pub(super) async fn new<const N: usize>(cql: &Cql, name: &str, keys: [&str; N]) -> Result<Self, OpenError> {
        let mut one = cql.statement(&format!("SELECT row FROM {name} WHERE {}=?", keys[0])).await?;
        // Sees a transaction that is under way, or ends it.
        one.set_consistency(Consistency::LocalSerial);
        let names = keys.join(", ");
        let (marks, whole) = (vec!["?"; keys.len()].join(", "), keys.map(|key| format!("{key}=?")).join(" AND "));
        Ok(Self {
            all: cql.statement(&format!("SELECT row FROM {name}")).await?,
            one,
            first: cql.urgent(&format!("INSERT INTO {name} ({names}, row) VALUES ({marks}, ?) IF NOT EXISTS")).await?,
            next: cql.urgent(&format!("UPDATE {name} SET row=? WHERE {whole} IF row=?")).await?,
            remove: cql.urgent(&format!("DELETE FROM {name} WHERE {whole} IF row=?")).await?,
        })
    }
}

fn decoded<T: DeserializeOwned>(rows: &QueryRowsResult) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::with_capacity(rows.rows_num());
    for row in rows.rows::<(Option<Vec<u8>>,)>().map_err(misshapen)? {
        if let Some(bytes) = row.map_err(misshapen)?.0 {
            found.push(rmp_serde::from_slice(&bytes).map_err(misshapen)?);
        }
    }
    Ok(found)
}

fn encoded(row: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec(row).map_err(misshapen)
}

impl CqlStore {
    async fn every<T: DeserializeOwned>(&self, table: &Table) -> Result<Vec<T>, StoreError> {
        let (mut page, mut found) = (scylla::response::PagingState::start(), Vec::new());
        loop {
            let answer = self.backend.cql.session.execute_single_page(&table.all, (), page).await;
            let (answer, next) = answer.map_err(|e| failed(&e))?;
            found.extend(decoded(&answer.into_rows_result().map_err(misshapen)?)?);
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => return Ok(found),
                std::ops::ControlFlow::Continue(next) => page = next,
            }
        }
    }

    /// Rows of one partition.
    async fn some<T: DeserializeOwned>(
        &self,
        one: &PreparedStatement,
        key: impl SerializeRow,
    ) -> Result<Vec<T>, StoreError> {
        let answer = self.backend.cql.session.execute_unpaged(one, key).await.map_err(|e| failed(&e))?;
        decoded(&answer.into_rows_result().map_err(misshapen)?)
    }
}

#[async_trait]
impl Ownership for CqlStore {
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let mut nodes: Vec<NodeRow> = self.every(&self.backend.nodes).await?;
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    async fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        Ok(self.some(&self.backend.nodes.one, (name,)).await?.pop())
    }

    async fn change_node(
        &self,
        name: &str,
        before: Option<&NodeRow>,
        after: Option<&NodeRow>,
    ) -> Result<bool, StoreError> {
        let (cql, table) = (&self.backend.cql, &self.backend.nodes);
        match (before, after) {
            (None, None) => Ok(self.node(name).await?.is_none()),
            (None, Some(after)) => cql.decide_now(&table.first, (name, encoded(after)?)).await,
            (Some(before), Some(after)) => cql.decide_now(&table.next, (encoded(after)?, name, encoded(before)?)).await,
            (Some(before), None) => cql.decide_now(&table.remove, (name, encoded(before)?)).await,
        }
    }

    async fn shards(&self) -> Result<Vec<ShardRow>, StoreError> {
        let mut shards: Vec<ShardRow> = self.every(&self.backend.shards).await?;
        shards.sort_by_key(|row| row.shard);
        Ok(shards)
    }

    async fn group(&self, group: u32) -> Result<Vec<ShardRow>, StoreError> {
        self.some(&self.backend.shards.one, (group.cast_signed(),)).await
    }

    async fn change_shards(&self, changes: &[ShardChange]) -> Result<bool, StoreError> {
        let (cql, table) = (&self.backend.cql, &self.backend.shards);
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(false);
        batch.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        batch.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        let mut values = Vec::with_capacity(changes.len());
        for ShardChange { before, after } in changes {
            let (group, shard) = (group_of(after.shard).cast_signed(), after.shard.cast_signed());
            match before {
                None => {
                    batch.append_statement(table.first.clone());
                    values.push(Either::One((group, shard, encoded(after)?)));
                }
                Some(before) => {
                    batch.append_statement(table.next.clone());
                    values.push(Either::Other((encoded(after)?, group, shard, encoded(before)?)));
                }
            }
        }
        verdict(cql.session.batch(&batch, values).await.map_err(|e| failed(&e))?)
    }

    async fn settle(&self, shard: u32, epoch: u64, from: u64) -> Result<(), StoreError> {
        self.backend.pipeline.settle(Fence { shard, epoch }, from).await
    }

    fn at_rest(&self, shard: u32, epoch: u64) -> bool {
        self.backend.pipeline.at_rest(Fence { shard, epoch })
    }
}
