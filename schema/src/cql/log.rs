//! Commit log and rows over CQL: the statements of the pipeline.
//!
//! G1  What one request holds is of one partition, and becomes visible together.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::OpenError;
use super::layout::{Partition, Place};
use super::pipeline::{Change, Log};
use super::session::{Cql, Either, failed, misshapen};
use crate::store::{Fence, StoreError};

/// Statements and bytes of one request to the cluster.
const REQUEST_ROWS: usize = 64;
const REQUEST_BYTES: usize = 64 << 10;

/// Tables of a keyspace.
pub(super) struct Tables {
    cql: Arc<Cql>,
    put_entry: PreparedStatement,
    get_entry: PreparedStatement,
    drop_entry: PreparedStatement,
}

impl Tables {
    pub(super) async fn new(cql: Arc<Cql>) -> Result<Self, OpenError> {
        let put = "INSERT INTO shard_logs (shard, epoch, entry) VALUES (?, ?, ?) USING TIMESTAMP ?";
        let (put_entry, get_entry, drop_entry) = (
            cql.statement(put).await?,
            cql.statement("SELECT entry, WRITETIME(entry) FROM shard_logs WHERE shard=? AND epoch=?").await?,
            cql.statement("DELETE FROM shard_logs USING TIMESTAMP ? WHERE shard=? AND epoch=?").await?,
        );
        Ok(Self { cql, put_entry, get_entry, drop_entry })
    }

    async fn put_partition(&self, at: &Partition, rows: &[(Vec<u8>, &Change)], time: i64) -> Result<(), StoreError> {
        let home = self.cql.home(at.home);
        let session = &self.cql.session;
        if let [(place, Change(_, value))] = rows {
            let outcome = match value {
                Some(value) => session.execute_unpaged(&home.put, (&at.key, at.bucket, place, value, time)).await,
                None => session.execute_unpaged(&home.remove, (time, &at.key, at.bucket, place)).await,
            };
            return outcome.map(drop).map_err(|e| failed(&e));
        }
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        let mut values = Vec::with_capacity(rows.len());
        for (place, Change(_, value)) in rows {
            let key = at.key.as_slice();
            match value {
                Some(value) => {
                    batch.append_statement(home.put.clone());
                    values.push(Either::One((key, at.bucket, place, value, time)));
                }
                None => {
                    batch.append_statement(home.remove.clone());
                    values.push(Either::Other((time, key, at.bucket, place)));
                }
            }
        }
        session.batch(&batch, values).await.map(drop).map_err(|e| failed(&e))
    }
}

impl Log for Tables {
    async fn put_entry(&self, of: Fence, entry: &[u8], at: i64) -> Result<(), StoreError> {
        let values = (of.shard.cast_signed(), of.epoch.cast_signed(), entry, at);
        self.cql.session.execute_unpaged(&self.put_entry, values).await.map(drop).map_err(|e| failed(&e))
    }

    async fn entry(&self, of: Fence) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
        let values = (of.shard.cast_signed(), of.epoch.cast_signed());
        let answer = self.cql.session.execute_unpaged(&self.get_entry, values).await.map_err(|e| failed(&e))?;
        let rows = answer.into_rows_result().map_err(misshapen)?;
        rows.maybe_first_row::<(Vec<u8>, i64)>().map_err(misshapen)
    }

    async fn drop_entry(&self, of: Fence, at: i64) -> Result<(), StoreError> {
        let values = (at, of.shard.cast_signed(), of.epoch.cast_signed());
        self.cql.session.execute_unpaged(&self.drop_entry, values).await.map(drop).map_err(|e| failed(&e))
    }

    /// Partitions side by side.
    async fn put_rows(&self, changes: &[Change], at: i64) -> Result<(), StoreError> {
        let mut partitions: BTreeMap<Partition, Vec<(Vec<u8>, &Change)>> = BTreeMap::new();
        for change in changes {
            let Place { partition, place } = Place::of(&change.0)?;
            partitions.entry(partition).or_default().push((place, change));
        }
        let mut requests = Vec::with_capacity(partitions.len());
        for (partition, rows) in &partitions {
            let mut rest = rows.as_slice();
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = rest.iter().take(REQUEST_ROWS).take_while(|(_, change)| {
                    bytes += change.1.as_ref().map_or(0, Vec::len);
                    bytes <= REQUEST_BYTES
                });
                let (now, later) = rest.split_at(fits.count().max(1));
                requests.push(self.put_partition(partition, now, at));
                rest = later;
            }
        }
        try_join_all(requests).await.map(drop)
    }
}
