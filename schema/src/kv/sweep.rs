//! Removes rows whose time is over: remembered answers, one-time codes, files that were announced and never came.
//!
//! S1  A row is judged and removed by its own key only; a row that was replaced meanwhile has a later time and was not
//!     expired, or is expired as well.

use super::keys::{self, Table};
use super::local::{Engine, Local};
use super::{Direction, KvOp, above};
use crate::rows::{AttachmentRow, IdempotencyRow, PendingRow, Timestamp};
use crate::store::{PAGE_MAX, StoreError};

/// Answers are remembered for this long; the contract's number.
const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1_000;

/// An announced file is waited for this long; the contract's number.
const ANNOUNCED_MS: u64 = 24 * 60 * 60 * 1_000;

/// Whether the time of a row in one of the swept tables is over.
pub(crate) fn expired(table: Table, key: &[u8], value: &[u8], now: Timestamp) -> Result<bool, StoreError> {
    Ok(match table {
        Table::Idempotency => now.ms_since(keys::decode::<IdempotencyRow>(key, value)?.at) >= REMEMBERED_MS,
        Table::Pending => keys::decode::<PendingRow>(key, value)?.expires_at < now,
        Table::Attachment => {
            let file = keys::decode::<AttachmentRow>(key, value)?;
            !file.uploaded && now.ms_since(file.created_at) >= ANNOUNCED_MS
        }
        _ => false,
    })
}

impl<E: Engine> Local<E> {
    pub(super) async fn sweep_expired(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut removed = 0;
        for table in [Table::Idempotency, Table::Pending, Table::Attachment] {
            removed += self.sweep_table(table, now).await?;
        }
        Ok(removed)
    }

    /// Walks a table page by page and removes what is expired.
    async fn sweep_table(&self, table: Table, now: Timestamp) -> Result<usize, StoreError> {
        let through = above(&keys::table(table));
        let (mut from, mut removed) = (keys::table(table), 0);
        loop {
            let guard = self.alone().await;
            let page = self.engine.scan(&from, &through, PAGE_MAX, Direction::Up)?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            from = [last.as_slice(), &[0]].concat();
            let mut ops = Vec::new();
            for (key, value) in &page {
                if expired(table, key, value, now)? {
                    ops.push(KvOp::Remove(key.clone()));
                }
            }
            removed += ops.len();
            if !ops.is_empty() {
                self.commit(guard, ops).await?;
            }
        }
    }
}
