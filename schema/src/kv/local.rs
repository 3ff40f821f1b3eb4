//! A backend out of an engine with a single writer: its reads are local, and identity changes are kept apart by a lock.
//!
//! V2  Identity changes (creation, email, pending codes) are read-modify-write and run one at a time. The lock lives
//!     in the completion, not in the caller, so that a caller that gives up does not let the next one read early.

use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::{Backend, Direction, EmailChange, KvOp, Pairs, Sealed, fits, keys};
use crate::ids::AgentId;
use crate::rows::{AgentRow, EmailRow, PendingRow, Timestamp};
use crate::store::{CreateAgentError, Done, EmailBudget, StoreError};

/// An ordered key-value engine with atomic, durable batches and one writer.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Makes each batch durable and visible, atomically and in order, then calls `done`. Never blocks.
    fn apply(&self, batches: Vec<Vec<KvOp>>, done: Done);

    /// Value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Pairs with `from <= key <= through`, at most `limit`; one consistent snapshot. Never called with `from > through`.
    fn scan(&self, from: &[u8], through: &[u8], limit: usize, direction: Direction) -> Result<Pairs, StoreError>;

    /// Finishes what was submitted and releases the engine's files.
    async fn close(&self) -> Result<(), StoreError>;
}

/// An engine and the lock of its identity changes.
pub struct Local<E> {
    pub(crate) engine: E,
    identity: Arc<Mutex<()>>,
}

impl<E: Engine> Local<E> {
    pub(crate) fn over(engine: E) -> Self {
        Self { engine, identity: Arc::default() }
    }

    /// One identity change at a time (V2).
    pub(super) async fn alone(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.identity).lock_owned().await
    }

    pub(super) fn row<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.engine.get(key)?.map(|value| keys::decode(key, &value)).transpose()
    }

    /// Applies one identity change and releases `guard` only when it is visible (V2).
    pub(super) async fn commit(&self, guard: OwnedMutexGuard<()>, ops: Vec<KvOp>) -> Result<(), StoreError> {
        fits(&ops)?;
        let (answer, outcome) = oneshot::channel();
        let done: Done = Box::new(move |outcomes| {
            drop(guard);
            // A caller that gave up does not want the answer.
            let _ = answer.send(outcomes.into_iter().next().unwrap_or(Err(StoreError::Timeout)));
        });
        self.engine.apply(vec![ops], done);
        outcome.await.unwrap_or(Err(StoreError::Timeout))
    }
}

/// What a creation writes about its email, or why it may not.
pub(crate) fn charge(row: &mut EmailRow, agent: AgentId, budget: EmailBudget) -> Result<(), CreateAgentError> {
    // The permanent reason first: deleting an agent would not help.
    if row.lifetime >= budget.lifetime {
        return Err(CreateAgentError::EmailExhausted { limit: budget.lifetime });
    }
    if row.live.len() >= budget.live as usize {
        return Err(CreateAgentError::EmailLimit { limit: budget.live });
    }
    row.live.push(agent);
    row.lifetime += 1;
    Ok(())
}

/// An email's row after a change.
pub(crate) fn changed(mut row: EmailRow, change: EmailChange) -> EmailRow {
    match change {
        EmailChange::Release(agent) => row.live.retain(|live| *live != agent),
        EmailChange::Reset => row = EmailRow::default(),
    }
    row
}

#[async_trait]
impl<E: Engine> Backend for Local<E> {
    // A read is a matter of microseconds, and every byte of the log is written several times until it has its place.
    const COPIED_MAX: usize = 0;

    fn apply(&self, batches: Vec<Sealed>, done: Done) {
        self.engine.apply(batches.into_iter().map(|(_, ops)| ops).collect(), done);
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.engine.get(key)
    }

    async fn scan(&self, from: &[u8], through: &[u8], limit: usize, direction: Direction) -> Result<Pairs, StoreError> {
        self.engine.scan(from, through, limit, direction)
    }

    async fn create_agent(
        &self,
        row: AgentRow,
        pending: Option<String>,
        budget: Option<EmailBudget>,
    ) -> Result<(), CreateAgentError> {
        let guard = self.alone().await;
        let mut ops = Vec::new();
        if let Some(id) = pending {
            let key = keys::pending(&id);
            if self.engine.get(&key)?.is_none() {
                return Err(CreateAgentError::PendingGone);
            }
            ops.push(KvOp::Remove(key));
        }
        let handle = keys::handle(&row.handle);
        if self.engine.get(&handle)?.is_some() {
            return Err(CreateAgentError::HandleTaken);
        }
        ops.push(KvOp::put(handle, &row.id)?);
        if let Some(budget) = budget {
            let mut email: EmailRow = self.row(&keys::email(&row.email))?.unwrap_or_default();
            charge(&mut email, row.id, budget)?;
            ops.push(keys::put_email(&row.email, &email)?);
        }
        keys::put_agent(&row, &mut ops)?;
        Ok(self.commit(guard, ops).await?)
    }

    async fn create_agents(&self, rows: Vec<AgentRow>) -> Result<(), CreateAgentError> {
        let guard = self.alone().await;
        let mut ops = Vec::with_capacity(4 * rows.len());
        for row in rows {
            let handle = keys::handle(&row.handle);
            if self.engine.get(&handle)?.is_some() {
                return Err(CreateAgentError::HandleTaken);
            }
            ops.push(KvOp::put(handle, &row.id)?);
            keys::put_agent(&row, &mut ops)?;
        }
        Ok(self.commit(guard, ops).await?)
    }

    async fn change_email(&self, email: &str, change: EmailChange) -> Result<(), StoreError> {
        let guard = self.alone().await;
        let before: EmailRow = self.row(&keys::email(email))?.unwrap_or_default();
        let after = changed(before.clone(), change);
        if after == before {
            return Ok(());
        }
        self.commit(guard, vec![keys::put_email(email, &after)?]).await
    }

    async fn put_pending(&self, row: PendingRow) -> Result<(), StoreError> {
        let guard = self.alone().await;
        let put = KvOp::put(keys::pending(&row.id), &row)?;
        self.commit(guard, vec![put]).await
    }

    async fn replace_pending(&self, before: &PendingRow, after: PendingRow) -> Result<bool, StoreError> {
        let guard = self.alone().await;
        let key = keys::pending(&before.id);
        if self.row::<PendingRow>(&key)?.as_ref() != Some(before) {
            return Ok(false);
        }
        let put = KvOp::put(key, &after)?;
        self.commit(guard, vec![put]).await.map(|()| true)
    }

    async fn take_pending(&self, id: &str) -> Result<bool, StoreError> {
        let guard = self.alone().await;
        let key = keys::pending(id);
        if self.engine.get(&key)?.is_none() {
            return Ok(false);
        }
        self.commit(guard, vec![KvOp::Remove(key)]).await.map(|()| true)
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.sweep_expired(now).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let (answer, outcome) = oneshot::channel();
        // An empty batch goes through the whole durable path and changes nothing.
        let done: Done = Box::new(move |outcomes| {
            let _ = answer.send(outcomes.into_iter().next().unwrap_or(Err(StoreError::Timeout)));
        });
        self.engine.apply(vec![Vec::new()], done);
        outcome.await.unwrap_or(Err(StoreError::Timeout))
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.engine.close().await
    }
}
