//! Removes rows whose time is over: remembered answers, one-time codes, files that were announced and never came.
//!
//! S1  A row is judged and removed by its own key only; a row that was replaced meanwhile has a later time and was not
//!     expired, or is expired as well.

use std::sync::Arc;

use super::keys::{self, Table};
use super::{Direction, Engine, KvOp, KvStore, above};
use crate::rows::{AttachmentRow, IdempotencyRow, PendingRow, Timestamp};
use crate::store::{PAGE_MAX, StoreError};

/// Answers are remembered for this long; the contract's number.
const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1_000;

/// An announced file is waited for this long; the contract's number.
const ANNOUNCED_MS: u64 = 24 * 60 * 60 * 1_000;

impl<E: Engine> KvStore<E> {
    pub(super) async fn sweep_expired(&self, now: Timestamp) -> Result<usize, StoreError> {
        let answers = self.sweep_table(Table::Idempotency, |key, value| {
            Ok(now.ms_since(keys::decode::<IdempotencyRow>(key, value)?.at) >= REMEMBERED_MS)
        });
        let answers = answers.await?;
        let codes =
            self.sweep_table(Table::Pending, |key, value| Ok(keys::decode::<PendingRow>(key, value)?.expires_at < now));
        let codes = codes.await?;
        let files = self.sweep_table(Table::Attachment, |key, value| {
            let file = keys::decode::<AttachmentRow>(key, value)?;
            Ok(!file.uploaded && now.ms_since(file.created_at) >= ANNOUNCED_MS)
        });
        Ok(answers + codes + files.await?)
    }

    /// Walks a table page by page and removes what is expired.
    async fn sweep_table(
        &self,
        table: Table,
        expired: impl Fn(&[u8], &[u8]) -> Result<bool, StoreError> + Send,
    ) -> Result<usize, StoreError> {
        let through = above(&keys::table(table));
        let (mut from, mut removed) = (keys::table(table), 0);
        loop {
            let guard = Arc::clone(&self.identity).lock_owned().await;
            let page = self.scan(&from, &through, PAGE_MAX, Direction::Up)?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            from = [last.as_slice(), &[0]].concat();
            let mut ops = Vec::new();
            for (key, value) in &page {
                if expired(key, value)? {
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
