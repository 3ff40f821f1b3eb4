//! The store contract on top of ordered keys and values.
//!
//! Owns the mapping to keys; a [`Backend`] owns durability, order and what has to be unique. `local` makes one out of
//! an engine with a single writer, `crate::cql` is the other.
//!
//! V1  Backends see only complete batches: one domain batch is one atomic key-value batch.

pub(crate) mod check;
pub(crate) mod keys;
pub(crate) mod local;
pub(crate) mod sweep;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use serde::de::DeserializeOwned;

pub use keys::KvOp;

use crate::ids::{AgentId, ConversationId, KeyHash, OwnerId, Pos, Seq};
use crate::rows::{
    AgentConversationRow, AgentRow, AgentStateRow, AttachmentRow, BlockRow, ContactRow, ConversationRow, EVENTS_KEPT,
    EmailRow, EventRow, GroupRow, IdempotencyRow, InboxHeadRow, InboxRow, InviteRow, MessageRow, OwnerRow, PendingRow,
    ReceiptRow, ReportRow, Timestamp,
};
use crate::store::{Batch, CreateAgentError, Done, EmailBudget, Fence, PAGE_MAX, Store, StoreError};

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

/// A batch as a backend takes it.
pub(crate) type Sealed = (Fence, Vec<KvOp>);

/// What an email's budget goes through, beside creations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailChange {
    /// A deleted agent leaves the live list.
    Release(AgentId),
    /// Everything is forgotten.
    Reset,
}

/// Ordered keys and values with atomic, durable batches, and with unique names.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Longest body that is copied into each delivery. A copy costs bytes, a reference costs whoever reads the inbox one
    /// more read for each message.
    const COPIED_MAX: usize;

    /// Makes each batch durable and visible, atomically and in order, then calls `done`. Never blocks.
    fn apply(&self, batches: Vec<Sealed>, done: Done);

    /// Value of a key.
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Pairs with `from <= key <= through`, at most `limit`. Never called with `from > through`.
    async fn scan(&self, from: &[u8], through: &[u8], limit: usize, direction: Direction) -> Result<Pairs, StoreError>;

    /// See [`Store::create_agent`].
    async fn create_agent(
        &self,
        row: AgentRow,
        pending: Option<String>,
        budget: Option<EmailBudget>,
    ) -> Result<(), CreateAgentError>;

    /// See [`Store::create_agents`].
    async fn create_agents(&self, rows: Vec<AgentRow>) -> Result<(), CreateAgentError>;

    /// Changes what an email has used. Repeating it changes nothing.
    async fn change_email(&self, email: &str, change: EmailChange) -> Result<(), StoreError>;

    /// See [`Store::put_pending`].
    async fn put_pending(&self, row: PendingRow) -> Result<(), StoreError>;

    /// See [`Store::replace_pending`].
    async fn replace_pending(&self, before: &PendingRow, after: PendingRow) -> Result<bool, StoreError>;

    /// See [`Store::take_pending`].
    async fn take_pending(&self, id: &str) -> Result<bool, StoreError>;

    /// See [`Store::sweep`].
    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError>;

    /// See [`Store::ready`].
    async fn ready(&self) -> Result<(), StoreError>;

    /// Finishes what was submitted and releases what is held.
    async fn close(&self) -> Result<(), StoreError>;
}

/// The store contract kept by `B`.
pub struct KvStore<B> {
    pub(crate) backend: B,
}

impl<B: Backend> KvStore<B> {
    pub(crate) fn over(backend: B) -> Self {
        Self { backend }
    }

    async fn row<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.backend.get(key).await?.map(|value| keys::decode(key, &value)).transpose()
    }

    async fn scan(&self, from: &[u8], through: &[u8], limit: usize, direction: Direction) -> Result<Pairs, StoreError> {
        if from > through || limit == 0 {
            return Ok(Vec::new());
        }
        if from == through {
            // A range has to look everywhere, a key only where filters let it.
            let value = self.backend.get(from).await?;
            return Ok(value.map(|value| (from.to_vec(), value)).into_iter().collect());
        }
        self.backend.scan(from, through, limit, direction).await
    }

    async fn rows<T: DeserializeOwned>(
        &self,
        from: &[u8],
        through: &[u8],
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<T>, StoreError> {
        let pairs = self.scan(from, through, limit, direction).await?;
        pairs.iter().map(|(key, value)| keys::decode(key, value)).collect()
    }

    /// Every pair under `prefix`, ascending (K3).
    async fn under(&self, prefix: &[u8]) -> Result<Pairs, StoreError> {
        self.scan(prefix, &above(prefix), usize::MAX, Direction::Up).await
    }

    async fn rows_under<T: DeserializeOwned>(&self, prefix: &[u8]) -> Result<Vec<T>, StoreError> {
        self.under(prefix).await?.iter().map(|(key, value)| keys::decode(key, value)).collect()
    }

    async fn by_conversation<T: DeserializeOwned>(
        &self,
        prefix: &[u8],
    ) -> Result<Vec<(ConversationId, T)>, StoreError> {
        let pairs = self.under(prefix).await?;
        pairs
            .iter()
            .map(|(key, value)| Ok((keys::trailing_conversation(key, prefix.len())?, keys::decode(key, value)?)))
            .collect()
    }

    /// A whole activity log, newest first.
    async fn newest(&self, from: &[u8], through: &[u8]) -> Result<Vec<EventRow>, StoreError> {
        let kept = usize::try_from(EVENTS_KEPT).unwrap_or(PAGE_MAX);
        self.rows(from, through, kept, Direction::Down).await
    }

    /// A waiting delivery with its message.
    pub(crate) async fn delivery(&self, key: &[u8], value: &[u8]) -> Result<InboxRow, StoreError> {
        match keys::decode::<keys::InboxValue<'_>>(key, value)? {
            keys::InboxValue::Whole(row) => Ok(row.into_owned()),
            keys::InboxValue::Refers(pos, id, seq) => {
                let message = self.row::<Arc<MessageRow>>(&keys::message(id, seq)).await?;
                Ok(InboxRow { pos, message: message.ok_or_else(|| keys::dangling(id, seq))? })
            }
        }
    }
}

/// A key above every key that starts with `prefix` (K3).
pub(crate) fn above(prefix: &[u8]) -> Vec<u8> {
    [prefix, &[0xFF]].concat()
}

/// Refuses keys that the index cannot hold, before anything is written.
pub(crate) fn fits(ops: &[KvOp]) -> Result<(), StoreError> {
    match ops.iter().map(|op| op.key().len()).find(|len| *len > keys::KEY_MAX) {
        Some(len) => Err(StoreError::Unavailable(format!("key of {len} bytes, at most {} fit", keys::KEY_MAX))),
        None => Ok(()),
    }
}

fn seal<B: Backend>(batch: &Batch) -> Result<Sealed, StoreError> {
    let mut ops = Vec::with_capacity(batch.writes.len() + 1);
    batch.writes.iter().try_for_each(|write| keys::encode(write, B::COPIED_MAX, &mut ops))?;
    fits(&ops)?;
    Ok((batch.fence, ops))
}

#[async_trait]
impl<B: Backend> Store for KvStore<B> {
    fn submit(&self, batches: Vec<Batch>, done: Done) {
        match batches.iter().map(seal::<B>).collect() {
            Ok(sealed) => self.backend.apply(sealed, done),
            Err(error) => done(vec![Err(error); batches.len()]),
        }
    }

    async fn create_agent(
        &self,
        row: AgentRow,
        pending: Option<String>,
        budget: Option<EmailBudget>,
    ) -> Result<(), CreateAgentError> {
        self.backend.create_agent(row, pending, budget).await
    }

    async fn release_email(&self, email: &str, agent: AgentId) -> Result<(), StoreError> {
        self.backend.change_email(email, EmailChange::Release(agent)).await
    }

    async fn email(&self, email: &str) -> Result<EmailRow, StoreError> {
        Ok(self.row(&keys::email(email)).await?.unwrap_or_default())
    }

    async fn put_pending(&self, row: PendingRow) -> Result<(), StoreError> {
        self.backend.put_pending(row).await
    }

    async fn replace_pending(&self, before: &PendingRow, after: PendingRow) -> Result<bool, StoreError> {
        self.backend.replace_pending(before, after).await
    }

    async fn take_pending(&self, id: &str) -> Result<bool, StoreError> {
        self.backend.take_pending(id).await
    }

    async fn pending(&self, id: &str) -> Result<Option<PendingRow>, StoreError> {
        self.row(&keys::pending(id)).await
    }

    async fn agent_by_handle(&self, handle: &str) -> Result<Option<AgentId>, StoreError> {
        self.row(&keys::handle(handle)).await
    }

    async fn agent_by_key(&self, key: KeyHash) -> Result<Option<AgentId>, StoreError> {
        self.row(&keys::key_hash(key)).await
    }

    async fn agent(&self, id: AgentId) -> Result<Option<AgentRow>, StoreError> {
        self.row(&keys::agent(id)).await
    }

    async fn contacts(&self, agent: AgentId) -> Result<Vec<ContactRow>, StoreError> {
        self.rows_under(&keys::contact(agent, "")).await
    }

    async fn blocks(&self, agent: AgentId) -> Result<Vec<BlockRow>, StoreError> {
        self.rows_under(&keys::block(agent, "")).await
    }

    async fn blocking(&self, agents: &[AgentId], handle: &str) -> Result<Vec<bool>, StoreError> {
        let each = agents.iter().map(async |agent| self.backend.get(&keys::block(*agent, handle)).await);
        let found = try_join_all(each).await?;
        Ok(found.iter().map(Option::is_some).collect())
    }

    async fn watchers(&self, agent: AgentId, after: Option<AgentId>, limit: usize) -> Result<Vec<AgentId>, StoreError> {
        let prefix = keys::watchers(agent);
        let from = after.map_or_else(|| prefix.clone(), |after| [&keys::watcher(agent, after)[..], &[0]].concat());
        let pairs = self.scan(&from, &above(&prefix), limit.min(PAGE_MAX), Direction::Up).await?;
        pairs.iter().map(|(key, _)| keys::trailing_agent(key)).collect()
    }

    async fn agent_state(&self, agent: AgentId) -> Result<Option<AgentStateRow>, StoreError> {
        self.row(&keys::agent_state(agent)).await
    }

    async fn reports(&self, agent: AgentId) -> Result<Vec<ReportRow>, StoreError> {
        self.rows_under(&keys::report(agent, "")).await
    }

    async fn all_reports(
        &self,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<(Vec<ReportRow>, Option<Vec<u8>>), StoreError> {
        let all = keys::all_reports();
        let from = after.map_or_else(|| all.clone(), |after| [&all[..], &after, &[0]].concat());
        let limit = limit.min(PAGE_MAX);
        let pairs = self.scan(&from, &above(&all), limit, Direction::Up).await?;
        let last = pairs.last().filter(|_| pairs.len() == limit).map(|(key, _)| key[all.len()..].to_vec());
        let rows = pairs.iter().map(|(key, value)| keys::decode(key, value)).collect::<Result<_, _>>()?;
        Ok((rows, last))
    }

    async fn directory(&self, prefix: &str, limit: usize) -> Result<Vec<(String, AgentId)>, StoreError> {
        let prefix = keys::directory(prefix);
        let pairs = self.scan(&prefix, &above(&prefix), limit, Direction::Up).await?;
        let entry = |(key, value): &(Vec<u8>, Vec<u8>)| {
            Ok((String::from_utf8_lossy(&key[1..]).into_owned(), keys::decode(key, value)?))
        };
        pairs.iter().map(entry).collect()
    }

    async fn group(&self, id: ConversationId) -> Result<Option<GroupRow>, StoreError> {
        self.row(&keys::group(id)).await
    }

    async fn invites(&self, agent: AgentId) -> Result<Vec<InviteRow>, StoreError> {
        self.rows_under(&keys::invites(agent)).await
    }

    async fn attachment(&self, id: &str) -> Result<Option<AttachmentRow>, StoreError> {
        self.row(&keys::attachment(id)).await
    }

    async fn attachment_uses(&self, id: &str) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
        self.rows_under(&keys::attachment_uses(id)).await
    }

    async fn owner(&self, id: OwnerId) -> Result<Option<OwnerRow>, StoreError> {
        self.row(&keys::owner(id)).await
    }

    async fn claims(&self, owner: OwnerId) -> Result<Vec<AgentId>, StoreError> {
        let pairs = self.under(&keys::claims(owner)).await?;
        pairs.iter().map(|(key, _)| keys::trailing_agent(key)).collect()
    }

    async fn events(&self, agent: AgentId) -> Result<Vec<EventRow>, StoreError> {
        self.newest(&keys::event(agent, 0), &keys::event(agent, u64::MAX)).await
    }

    async fn owner_events(&self, owner: OwnerId) -> Result<Vec<EventRow>, StoreError> {
        self.newest(&keys::owner_event(owner, 0), &keys::owner_event(owner, u64::MAX)).await
    }

    async fn idempotency(&self, agent: AgentId, key: &str) -> Result<Option<IdempotencyRow>, StoreError> {
        self.row(&keys::idempotency(agent, key)).await
    }

    async fn create_agents(&self, rows: Vec<AgentRow>) -> Result<(), CreateAgentError> {
        self.backend.create_agents(rows).await
    }

    async fn reset_email(&self, email: &str) -> Result<(), StoreError> {
        self.backend.change_email(email, EmailChange::Reset).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.backend.sweep(now).await
    }

    async fn cold_threads(&self, agent: AgentId) -> Result<Vec<(ConversationId, Timestamp)>, StoreError> {
        self.by_conversation(&keys::cold_threads(agent)).await
    }

    async fn conversation(&self, id: ConversationId) -> Result<Option<ConversationRow>, StoreError> {
        self.row(&keys::conversation(id)).await
    }

    async fn replay(&self, sender: AgentId, client_msg_id: &str) -> Result<Option<(ConversationId, Seq)>, StoreError> {
        self.row(&keys::replay(sender, client_msg_id)).await
    }

    async fn messages_up(
        &self,
        id: ConversationId,
        from: Seq,
        through: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<MessageRow>>, StoreError> {
        self.rows(&keys::message(id, from), &keys::message(id, through), limit.min(PAGE_MAX), Direction::Up).await
    }

    async fn messages_down(
        &self,
        id: ConversationId,
        from: Seq,
        through: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<MessageRow>>, StoreError> {
        self.rows(&keys::message(id, from), &keys::message(id, through), limit.min(PAGE_MAX), Direction::Down).await
    }

    async fn inbox_head(&self, agent: AgentId) -> Result<InboxHeadRow, StoreError> {
        Ok(self.row(&keys::inbox_head(agent)).await?.unwrap_or_default())
    }

    async fn inbox(&self, agent: AgentId, after: Pos, through: Pos, limit: usize) -> Result<Vec<InboxRow>, StoreError> {
        if after >= through {
            return Ok(Vec::new());
        }
        let (from, through) = (keys::inbox(agent, after.next()), keys::inbox(agent, through));
        let pairs = self.scan(&from, &through, limit.min(PAGE_MAX), Direction::Up).await?;
        let mut rows = Vec::with_capacity(pairs.len());
        for (key, value) in &pairs {
            rows.push(self.delivery(key, value).await?);
        }
        Ok(rows)
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
        let pairs = self.scan(&from, &through, limit.min(PAGE_MAX), Direction::Up).await?;
        pairs.iter().map(|(key, value)| Ok((keys::trailing_seq(key)?, keys::decode(key, value)?))).collect()
    }

    async fn agent_conversation(
        &self,
        agent: AgentId,
        id: ConversationId,
    ) -> Result<Option<AgentConversationRow>, StoreError> {
        self.row(&keys::agent_conversation(agent, id)).await
    }

    async fn agent_conversations(
        &self,
        agent: AgentId,
    ) -> Result<Vec<(ConversationId, AgentConversationRow)>, StoreError> {
        self.by_conversation(&keys::agent_conversations(agent)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.backend.ready().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.backend.close().await
    }
}
