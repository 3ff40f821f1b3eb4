//! Commit log and rows over CQL: the statements of the pipeline.
//!
//! G1  What one request holds is of one partition, and becomes visible together.
//! G2  A request that failed says which rows it had; those of the others are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::OpenError;
use super::layout::{Partition, Place};
use super::pipeline::{Change, Log, Unwritten};
use super::session::{Cql, Either, failed};
use crate::store::{Fence, StoreError};

/// Statements and bytes of one request to the cluster.
const REQUEST_ROWS: usize = 64;
const REQUEST_BYTES: usize = 64 << 10;
/// Requests of one entry that are under way together: a message to a group of 256 has about as many partitions, and no
/// entry alone takes more than a part of what the node may have under way.
const REQUESTS_AT_ONCE: usize = 128;

/// A row to write: its number in what was asked for, its place, and what becomes of it.
type Row<'a> = (usize, Vec<u8>, &'a Change);

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

    async fn put_partition(&self, at: &Partition, rows: &[Row<'_>], time: i64) -> Result<(), StoreError> {
        let home = self.cql.home(at.home);
        if let [(_, place, Change(_, value))] = rows {
            let outcome = match value {
                Some(value) => self.cql.run(&home.put, (&at.key, at.bucket, place, value, time)).await,
                None => self.cql.run(&home.remove, (time, &at.key, at.bucket, place)).await,
            };
            return outcome.map(drop);
        }
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        let mut values = Vec::with_capacity(rows.len());
        for (_, place, Change(_, value)) in rows {
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
        let _turn = self.cql.turns.take().await?;
        self.cql.session.batch(&batch, values).await.map(drop).map_err(|e| failed(&e))
    }
}

impl Log for Tables {
    async fn put_entry(&self, of: Fence, entry: &[u8], at: i64) -> Result<(), StoreError> {
        let values = (of.shard.cast_signed(), of.epoch.cast_signed(), entry, at);
        self.cql.run(&self.put_entry, values).await.map(drop)
    }

    async fn entry(&self, of: Fence) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
        let values = (of.shard.cast_signed(), of.epoch.cast_signed());
        self.cql.first(&self.get_entry, values).await
    }

    async fn drop_entry(&self, of: Fence, at: i64) -> Result<(), StoreError> {
        let values = (at, of.shard.cast_signed(), of.epoch.cast_signed());
        self.cql.run(&self.drop_entry, values).await.map(drop)
    }

    /// Partitions side by side.
    async fn put_rows(&self, changes: &[&Change], at: i64) -> Result<(), Unwritten> {
        let mut partitions: BTreeMap<Partition, Vec<Row<'_>>> = BTreeMap::new();
        for (number, change) in changes.iter().enumerate() {
            let Place { partition, place } =
                Place::of(&change.0).map_err(|error| Unwritten { rows: (0..changes.len()).collect(), error })?;
            partitions.entry(partition).or_default().push((number, place, change));
        }
        let mut requests = Vec::with_capacity(partitions.len());
        for (partition, rows) in &partitions {
            let mut rest = rows.as_slice();
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = rest.iter().take(REQUEST_ROWS).take_while(|(_, _, change)| {
                    bytes += change.1.as_ref().map_or(0, Vec::len);
                    bytes <= REQUEST_BYTES
                });
                let (now, later) = rest.split_at(fits.count().max(1));
                requests.push(async move {
                    (now.iter().map(|row| row.0).collect(), self.put_partition(partition, now, at).await)
                });
                rest = later;
            }
        }
        let outcomes: Vec<_> = stream::iter(requests).buffer_unordered(REQUESTS_AT_ONCE).collect().await;
        Unwritten::gather(outcomes) // G2
    }
}
