//! Leases and shards by lightweight transactions: a row is one value, compared as a whole.

use async_trait::async_trait;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::session::{Cql, failed, misshapen};
use super::{CqlStore, OpenError};
use crate::ownership::{NodeRow, Ownership, ShardRow};
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
    pub(super) async fn new(cql: &Cql, name: &str, key: &str) -> Result<Self, OpenError> {
        let mut one = cql.statement(&format!("SELECT row FROM {name} WHERE {key}=?")).await?;
        // Sees a transaction that is under way, or ends it.
        one.set_consistency(Consistency::LocalSerial);
        Ok(Self {
            all: cql.statement(&format!("SELECT row FROM {name}")).await?,
            one,
            first: cql.conditional(&format!("INSERT INTO {name} ({key}, row) VALUES (?, ?) IF NOT EXISTS")).await?,
            next: cql.conditional(&format!("UPDATE {name} SET row=? WHERE {key}=? IF row=?")).await?,
            remove: cql.conditional(&format!("DELETE FROM {name} WHERE {key}=? IF row=?")).await?,
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

    async fn single<T: DeserializeOwned>(
        &self,
        table: &Table,
        key: impl scylla::serialize::row::SerializeRow,
    ) -> Result<Option<T>, StoreError> {
        let answer = self.backend.cql.session.execute_unpaged(&table.one, key).await.map_err(|e| failed(&e))?;
        Ok(decoded(&answer.into_rows_result().map_err(misshapen)?)?.pop())
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
        self.single(&self.backend.nodes, (name,)).await
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
            (None, Some(after)) => cql.decide(&table.first, (name, encoded(after)?)).await,
            (Some(before), Some(after)) => cql.decide(&table.next, (encoded(after)?, name, encoded(before)?)).await,
            (Some(before), None) => cql.decide(&table.remove, (name, encoded(before)?)).await,
        }
    }

    async fn shards(&self) -> Result<Vec<ShardRow>, StoreError> {
        let mut shards: Vec<ShardRow> = self.every(&self.backend.shards).await?;
        shards.sort_by_key(|row| row.shard);
        Ok(shards)
    }

    async fn shard(&self, shard: u32) -> Result<Option<ShardRow>, StoreError> {
        self.single(&self.backend.shards, (shard.cast_signed(),)).await
    }

    async fn change_shard(&self, before: Option<&ShardRow>, after: &ShardRow) -> Result<bool, StoreError> {
        let (cql, table) = (&self.backend.cql, &self.backend.shards);
        let key = after.shard.cast_signed();
        match before {
            None => cql.decide(&table.first, (key, encoded(after)?)).await,
            Some(before) => cql.decide(&table.next, (encoded(after)?, key, encoded(before)?)).await,
        }
    }

    async fn settle(&self, shard: u32, epoch: u64, from: u64) -> Result<(), StoreError> {
        self.backend.pipeline.settle(Fence { shard, epoch }, from).await
    }

    async fn forget(&self, shard: u32, epoch: u64) -> Result<(), StoreError> {
        self.backend.pipeline.forget(shard, epoch).await
    }
}
