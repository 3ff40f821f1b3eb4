//! The store contract on top of any ordered key-value engine.
//!
//! Owns the mapping to keys and the identity transactions; engines own durability and order.
//!
//! V1  Engines see only complete batches: one domain batch is one atomic key-value batch.
//! V2  Identity changes (creation, email, pending codes) are read-modify-write and run one at a time. The lock lives
//!     in the completion, not in the caller, so that a caller that gives up does not let the next one read early.

pub(crate) mod check;
mod keys;
mod sweep;

use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

pub(crate) use keys::KvOp;

use crate::ids::{AgentId, ConversationId, KeyHash, Pos, Seq};
use crate::rows::{
    AgentConversationRow, AgentRow, AgentStateRow, AttachmentRow, BlockRow, ContactRow, ConversationRow, EmailRow,
    GroupRow, IdempotencyRow, InboxHeadRow, InboxRow, InviteRow, MessageRow, PendingRow, ReceiptRow, ReportRow,
    Timestamp,
};
use crate::store::{Batch, CreateAgentError, Done, EmailBudget, PAGE_MAX, Store, StoreError, Write};

/// Pairs of a scan, in scan order.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// From which end a scan starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending, from the lower bound.
    Up,
    /// Descending, from the upper bound.
    Down,
}

/// An ordered key-value engine with atomic, durable batches.
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

/// The store contract kept by `E`.
pub struct KvStore<E> {
    pub(crate) engine: E,
    identity: Arc<Mutex<()>>,
}

impl<E: Engine> KvStore<E> {
    pub(crate) fn over(engine: E) -> Self {
        Self { engine, identity: Arc::default() }
    }

    fn row<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.engine.get(key)?.map(|value| keys::decode(key, &value)).transpose()
    }

    fn scan(&self, from: &[u8], through: &[u8], limit: usize, direction: Direction) -> Result<Pairs, StoreError> {
        if from > through || limit == 0 {
            return Ok(Vec::new());
        }
        self.engine.scan(from, through, limit, direction)
    }

    fn rows<T: DeserializeOwned>(
        &self,
        from: &[u8],
        through: &[u8],
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<T>, StoreError> {
        let pairs = self.scan(from, through, limit, direction)?;
        pairs.iter().map(|(key, value)| keys::decode(key, value)).collect()
    }

    /// Every pair under `prefix`, ascending (K3).
    fn under(&self, prefix: &[u8]) -> Result<Pairs, StoreError> {
        self.scan(prefix, &above(prefix), usize::MAX, Direction::Up)
    }

    fn rows_under<T: DeserializeOwned>(&self, prefix: &[u8]) -> Result<Vec<T>, StoreError> {
        self.under(prefix)?.iter().map(|(key, value)| keys::decode(key, value)).collect()
    }

    fn by_conversation<T: DeserializeOwned>(&self, prefix: &[u8]) -> Result<Vec<(ConversationId, T)>, StoreError> {
        let pairs = self.under(prefix)?;
        pairs
            .iter()
            .map(|(key, value)| Ok((keys::trailing_conversation(key, prefix.len())?, keys::decode(key, value)?)))
            .collect()
    }

    /// A waiting delivery with its message.
    pub(crate) fn delivery(&self, key: &[u8], value: &[u8]) -> Result<InboxRow, StoreError> {
        match keys::decode::<keys::InboxValue<'_>>(key, value)? {
            keys::InboxValue::Whole(row) => Ok(row.into_owned()),
            keys::InboxValue::Refers(pos, id, seq) => {
                let message = self.row::<Arc<MessageRow>>(&keys::message(id, seq))?;
                let gone = || StoreError::Corrupt(format!("a delivery names {id} seq {}, which is not there", seq.0));
                Ok(InboxRow { pos, message: message.ok_or_else(gone)? })
            }
        }
    }

    /// Applies one identity change and releases `guard` only when it is visible (V2).
    async fn commit(&self, guard: OwnedMutexGuard<()>, ops: Vec<KvOp>) -> Result<(), StoreError> {
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

/// A key above every key that starts with `prefix` (K3).
fn above(prefix: &[u8]) -> Vec<u8> {
    [prefix, &[0xFF]].concat()
}

/// Refuses keys that the index cannot hold, before anything is written.
fn fits(ops: &[KvOp]) -> Result<(), StoreError> {
    match ops.iter().map(|op| op.key().len()).find(|len| *len > keys::KEY_MAX) {
        Some(len) => Err(StoreError::Unavailable(format!("key of {len} bytes, at most {} fit", keys::KEY_MAX))),
        None => Ok(()),
    }
}

fn encode(batch: &Batch) -> Result<Vec<KvOp>, StoreError> {
    let mut ops = Vec::with_capacity(batch.writes.len() + 1);
    batch.writes.iter().try_for_each(|write| keys::encode(write, &mut ops))?;
    fits(&ops)?;
    Ok(ops)
}

/// What a creation writes about its email, or why it may not.
fn charge(row: &mut EmailRow, agent: AgentId, budget: EmailBudget) -> Result<(), CreateAgentError> {
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

#[async_trait]
impl<E: Engine> Store for KvStore<E> {
    fn submit(&self, batches: Vec<Batch>, done: Done) {
        match batches.iter().map(encode).collect() {
            Ok(encoded) => self.engine.apply(encoded, done),
            Err(error) => done(vec![Err(error); batches.len()]),
        }
    }

    async fn create_agent(
        &self,
        row: AgentRow,
        pending: Option<String>,
        budget: Option<EmailBudget>,
    ) -> Result<(), CreateAgentError> {
        let guard = Arc::clone(&self.identity).lock_owned().await;
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
        keys::encode(&Write::Agent(Box::new(row)), &mut ops)?;
        Ok(self.commit(guard, ops).await?)
    }

    async fn release_email(&self, email: &str, agent: AgentId) -> Result<(), StoreError> {
        let guard = Arc::clone(&self.identity).lock_owned().await;
        let Some(mut row) = self.row::<EmailRow>(&keys::email(email))? else {
            return Ok(());
        };
        let before = row.live.len();
        row.live.retain(|live| *live != agent);
        if row.live.len() == before {
            return Ok(());
        }
        self.commit(guard, vec![keys::put_email(email, &row)?]).await
    }

    async fn email(&self, email: &str) -> Result<EmailRow, StoreError> {
        Ok(self.row(&keys::email(email))?.unwrap_or_default())
    }

    async fn put_pending(&self, row: PendingRow) -> Result<(), StoreError> {
        let guard = Arc::clone(&self.identity).lock_owned().await;
        let put = KvOp::put(keys::pending(&row.id), &row)?;
        self.commit(guard, vec![put]).await
    }

    async fn take_pending(&self, id: &str) -> Result<bool, StoreError> {
        let guard = Arc::clone(&self.identity).lock_owned().await;
        let key = keys::pending(id);
        if self.engine.get(&key)?.is_none() {
            return Ok(false);
        }
        self.commit(guard, vec![KvOp::Remove(key)]).await.map(|()| true)
    }

    async fn pending(&self, id: &str) -> Result<Option<PendingRow>, StoreError> {
        self.row(&keys::pending(id))
    }

    async fn agent_by_handle(&self, handle: &str) -> Result<Option<AgentId>, StoreError> {
        self.row(&keys::handle(handle))
    }

    async fn agent_by_key(&self, key: KeyHash) -> Result<Option<AgentId>, StoreError> {
        self.row(&keys::key_hash(key))
    }

    async fn agent(&self, id: AgentId) -> Result<Option<AgentRow>, StoreError> {
        self.row(&keys::agent(id))
    }

    async fn contacts(&self, agent: AgentId) -> Result<Vec<ContactRow>, StoreError> {
        self.rows_under(&keys::contact(agent, ""))
    }

    async fn blocks(&self, agent: AgentId) -> Result<Vec<BlockRow>, StoreError> {
        self.rows_under(&keys::block(agent, ""))
    }

    async fn watchers(&self, agent: AgentId, after: Option<AgentId>, limit: usize) -> Result<Vec<AgentId>, StoreError> {
        let prefix = keys::watchers(agent);
        let from = after.map_or_else(|| prefix.clone(), |after| [&keys::watcher(agent, after)[..], &[0]].concat());
        let pairs = self.scan(&from, &above(&prefix), limit.min(PAGE_MAX), Direction::Up)?;
        pairs.iter().map(|(key, _)| keys::trailing_agent(key)).collect()
    }

    async fn agent_state(&self, agent: AgentId) -> Result<Option<AgentStateRow>, StoreError> {
        self.row(&keys::agent_state(agent))
    }

    async fn reports(&self, agent: AgentId) -> Result<Vec<ReportRow>, StoreError> {
        self.rows_under(&keys::report(agent, ""))
    }

    async fn all_reports(
        &self,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<(Vec<ReportRow>, Option<Vec<u8>>), StoreError> {
        let all = keys::all_reports();
        let from = after.map_or_else(|| all.clone(), |after| [&all[..], &after, &[0]].concat());
        let limit = limit.min(PAGE_MAX);
        let pairs = self.scan(&from, &above(&all), limit, Direction::Up)?;
        let last = pairs.last().filter(|_| pairs.len() == limit).map(|(key, _)| key[all.len()..].to_vec());
        let rows = pairs.iter().map(|(key, value)| keys::decode(key, value)).collect::<Result<_, _>>()?;
        Ok((rows, last))
    }

    async fn directory(&self, prefix: &str, limit: usize) -> Result<Vec<(String, AgentId)>, StoreError> {
        let prefix = keys::directory(prefix);
        let pairs = self.scan(&prefix, &above(&prefix), limit, Direction::Up)?;
        let entry = |(key, value): &(Vec<u8>, Vec<u8>)| {
            Ok((String::from_utf8_lossy(&key[1..]).into_owned(), keys::decode(key, value)?))
        };
        pairs.iter().map(entry).collect()
    }

    async fn group(&self, id: ConversationId) -> Result<Option<GroupRow>, StoreError> {
        self.row(&keys::group(id))
    }

    async fn invites(&self, agent: AgentId) -> Result<Vec<InviteRow>, StoreError> {
        self.rows_under(&keys::invites(agent))
    }

    async fn attachment(&self, id: &str) -> Result<Option<AttachmentRow>, StoreError> {
        self.row(&keys::attachment(id))
    }

    async fn attachment_uses(&self, id: &str) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
        self.rows_under(&keys::attachment_uses(id))
    }

    async fn idempotency(&self, agent: AgentId, key: &str) -> Result<Option<IdempotencyRow>, StoreError> {
        self.row(&keys::idempotency(agent, key))
    }

    async fn create_agents(&self, rows: Vec<AgentRow>) -> Result<(), CreateAgentError> {
        let guard = Arc::clone(&self.identity).lock_owned().await;
        let mut ops = Vec::with_capacity(4 * rows.len());
        for row in rows {
            let handle = keys::handle(&row.handle);
            if self.engine.get(&handle)?.is_some() {
                return Err(CreateAgentError::HandleTaken);
            }
            ops.push(KvOp::put(handle, &row.id)?);
            keys::encode(&Write::Agent(Box::new(row)), &mut ops)?;
        }
        Ok(self.commit(guard, ops).await?)
    }

    async fn reset_email(&self, email: &str) -> Result<(), StoreError> {
        let guard = Arc::clone(&self.identity).lock_owned().await;
        self.commit(guard, vec![keys::put_email(email, &EmailRow::default())?]).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.sweep_expired(now).await
    }

    async fn cold_threads(&self, agent: AgentId) -> Result<Vec<(ConversationId, Timestamp)>, StoreError> {
        self.by_conversation(&keys::cold_threads(agent))
    }

    async fn conversation(&self, id: ConversationId) -> Result<Option<ConversationRow>, StoreError> {
        self.row(&keys::conversation(id))
    }

    async fn replay(&self, sender: AgentId, client_msg_id: &str) -> Result<Option<(ConversationId, Seq)>, StoreError> {
        self.row(&keys::replay(sender, client_msg_id))
    }

    async fn messages_up(
        &self,
        id: ConversationId,
        from: Seq,
        through: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<MessageRow>>, StoreError> {
        self.rows(&keys::message(id, from), &keys::message(id, through), limit.min(PAGE_MAX), Direction::Up)
    }

    async fn messages_down(
        &self,
        id: ConversationId,
        from: Seq,
        through: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<MessageRow>>, StoreError> {
        self.rows(&keys::message(id, from), &keys::message(id, through), limit.min(PAGE_MAX), Direction::Down)
    }

    async fn inbox_head(&self, agent: AgentId) -> Result<InboxHeadRow, StoreError> {
        Ok(self.row(&keys::inbox_head(agent))?.unwrap_or_default())
    }

    async fn inbox(&self, agent: AgentId, after: Pos, through: Pos, limit: usize) -> Result<Vec<InboxRow>, StoreError> {
        if after >= through {
            return Ok(Vec::new());
        }
        let (from, through) = (keys::inbox(agent, after.next()), keys::inbox(agent, through));
        let pairs = self.scan(&from, &through, limit.min(PAGE_MAX), Direction::Up)?;
        pairs.iter().map(|(key, value)| self.delivery(key, value)).collect()
    }

    async fn receipts(
        &self,
        agent: AgentId,
        id: ConversationId,
        from: Seq,
        through: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, ReceiptRow)>, StoreError> {
        let (from, through) = (keys::receipt(agent, id, from), keys::receipt(agent, id, through));
        let pairs = self.scan(&from, &through, limit.min(PAGE_MAX), Direction::Up)?;
        pairs.iter().map(|(key, value)| Ok((keys::trailing_seq(key)?, keys::decode(key, value)?))).collect()
    }

    async fn agent_conversation(
        &self,
        agent: AgentId,
        id: ConversationId,
    ) -> Result<Option<AgentConversationRow>, StoreError> {
        self.row(&keys::agent_conversation(agent, id))
    }

    async fn agent_conversations(
        &self,
        agent: AgentId,
    ) -> Result<Vec<(ConversationId, AgentConversationRow)>, StoreError> {
        self.by_conversation(&keys::agent_conversations(agent))
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
