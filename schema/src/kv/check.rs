//! A walk over every row of a store, for operators: does it decode, and does it agree with the rows it points to?
//!
//! X1  One page in memory at a time; a store of any size can be checked.
//! X2  A fault is reported and the walk goes on: one bad row must not hide the next.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::keys::{self, Table};
use super::local::{Engine, Local};
use super::{Direction, KvStore};
use crate::ids::{AgentId, ConversationId, Pos, Seq};
use crate::rows::{
    AgentConversationRow, AgentRow, AgentStateRow, AttachmentRow, BlockRow, Book, ContactRow, ConversationRow,
    EmailRow, EventRow, GroupRow, IdempotencyRow, InboxHeadRow, InviteRow, MessageRow, OwnerRow, PendingRow,
    ReceiptRow, ReportRow, Timestamp,
};
use crate::store::StoreError;

/// Rows per page of the walk.
const PAGE: usize = 1_000;
/// Faults that are described; the rest is counted.
const FAULTS_SHOWN: usize = 100;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Rows per table.
    pub rows: BTreeMap<&'static str, u64>,
    /// Descriptions of the first faults.
    pub faults: Vec<String>,
    /// All faults.
    pub fault_count: u64,
}

impl CheckReport {
    fn fault(&mut self, what: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_SHOWN {
            self.faults.push(what);
        }
    }
}

/// Where the walk is in the log of one conversation.
#[derive(Default)]
struct Log {
    conversation: Option<ConversationId>,
    last: Seq,
}

impl<E: Engine> KvStore<Local<E>> {
    /// Reads and judges every row. Run it on a store that nobody writes to.
    ///
    /// Errors when the engine cannot be read; what does not decode or agree is in the report.
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        let (mut report, mut log) = (CheckReport::default(), Log::default());
        let mut from = vec![0];
        loop {
            let page = self.backend.engine.scan(&from, &[0xFF], PAGE, Direction::Up)?;
            let Some((last, _)) = page.last() else { return Ok(report) };
            from = [last.as_slice(), &[0]].concat();
            for (key, value) in &page {
                let Some(table) = Table::of(key) else {
                    report.fault(format!("key {} is of no known table", hex::encode(key)));
                    continue;
                };
                *report.rows.entry(table.name()).or_default() += 1;
                match self.judge(table, key, value, &mut log) {
                    Ok(None) => {}
                    Ok(Some(fault)) => report.fault(fault),
                    Err(StoreError::Corrupt(what)) => report.fault(what),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// A waiting delivery decodes, and the message that it refers to is there.
    fn delivered(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if let keys::InboxValue::Refers(_, id, seq) = keys::decode::<keys::InboxValue<'_>>(key, value)? {
            self.backend.engine.get(&keys::message(id, seq))?.ok_or_else(|| keys::dangling(id, seq))?;
        }
        Ok(())
    }

    /// One row: `Some` says what it does not agree with.
    fn judge(&self, table: Table, key: &[u8], value: &[u8], log: &mut Log) -> Result<Option<String>, StoreError> {
        match table {
            Table::Message => Ok(in_order(&keys::decode(key, value)?, log)),
            Table::Conversation => self.judge_head(&keys::decode(key, value)?),
            Table::InboxHead => self.judge_inbox(key, keys::decode(key, value)?),
            Table::Replay => {
                let (id, seq): (ConversationId, Seq) = keys::decode(key, value)?;
                let found = self.backend.engine.get(&keys::message(id, seq))?.is_some();
                Ok((!found).then(|| format!("a replay record names {id} seq {}, which is not there", seq.0)))
            }
            Table::KeyHash | Table::Handle | Table::Directory => {
                let agent: AgentId = keys::decode(key, value)?;
                let found = self.backend.engine.get(&keys::agent(agent))?.is_some();
                Ok((!found).then(|| format!("an index of {} names {agent}, which is not there", table.name())))
            }
            Table::Inbox => self.delivered(key, value).map(|()| None),
            Table::Receipt => decodes::<ReceiptRow>(key, value),
            Table::AgentConversation => decodes::<AgentConversationRow>(key, value),
            Table::Agent => decodes::<AgentRow>(key, value),
            Table::Email => decodes::<EmailRow>(key, value),
            Table::Pending => decodes::<PendingRow>(key, value),
            Table::Contact => self.judge_entry::<ContactRow>(Book::Contacts, key, value),
            Table::Block => self.judge_entry::<BlockRow>(Book::Blocks, key, value),
            Table::ColdThread => self.judge_entry::<Timestamp>(Book::Cold, key, value),
            Table::Group => decodes::<GroupRow>(key, value),
            Table::Invite => self.judge_invite(&keys::decode(key, value)?),
            Table::Watcher => decodes::<()>(key, value),
            Table::AgentState => self.judge_entry::<AgentStateRow>(Book::State, key, value),
            Table::Report => self.judge_entry::<ReportRow>(Book::Reports, key, value),
            Table::Attachment => decodes::<AttachmentRow>(key, value),
            Table::AttachmentUse => decodes::<(ConversationId, Seq)>(key, value),
            Table::Idempotency => decodes::<IdempotencyRow>(key, value),
            Table::Owner => decodes::<OwnerRow>(key, value),
            Table::Claim => self.judge_claim(key),
            Table::Event | Table::OwnerEvent => decodes::<EventRow>(key, value),
        }
    }

    fn judge_head(&self, row: &ConversationRow) -> Result<Option<String>, StoreError> {
        let there = |seq: Seq| self.backend.engine.get(&keys::message(row.id, seq)).map(|found| found.is_some());
        let (last, next) = (row.last_seq, row.last_seq.next());
        let agrees = (last == Seq(0) || there(last)?) && !there(next)?;
        Ok((!agrees).then(|| format!("{} says that seq {} is its last, and its log does not", row.id, last.0)))
    }

    /// An entry of a book that the account does not name would never be read.
    fn judge_entry<T: DeserializeOwned>(
        &self,
        book: Book,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<String>, StoreError> {
        keys::decode::<T>(key, value)?;
        let agent = keys::leading_agent(key)?;
        let named = self.backend.row::<AgentRow>(&keys::agent(agent))?.is_some_and(|row| row.books.has(book));
        Ok((!named).then(|| format!("{agent} has {book:?}, and its account does not say so")))
    }

    fn judge_claim(&self, key: &[u8]) -> Result<Option<String>, StoreError> {
        let agent = keys::trailing_agent(key)?;
        let claim = self.backend.row::<AgentRow>(&keys::agent(agent))?.and_then(|row| row.claim);
        let agrees = claim.is_some_and(|claim| keys::claim(claim.owner, agent) == key);
        Ok((!agrees).then(|| format!("an owner has {agent}, whose account does not say so")))
    }

    fn judge_invite(&self, row: &InviteRow) -> Result<Option<String>, StoreError> {
        let group = self.backend.row::<GroupRow>(&keys::group(row.group))?;
        let agrees = group.is_some_and(|group| group.invites.contains(row));
        Ok((!agrees).then(|| format!("{} is an invitation that {} does not know", row.id, row.group)))
    }

    fn judge_inbox(&self, key: &[u8], head: InboxHeadRow) -> Result<Option<String>, StoreError> {
        let agent = keys::leading_agent(key)?;
        let (from, through) = (keys::inbox(agent, Pos(0)), keys::inbox(agent, Pos(u64::MAX)));
        let waiting = self.backend.engine.scan(&from, &through, usize::MAX, Direction::Up)?;
        let (rows, floor) = (waiting.len(), keys::inbox(agent, head.floor));
        let below = waiting.iter().filter(|(key, _)| *key <= floor).count();
        if below > 0 {
            return Ok(Some(format!("{agent} has {below} deliveries below the floor of its inbox")));
        }
        let agrees = rows as u64 == u64::from(head.backlog);
        Ok((!agrees).then(|| format!("{agent} counts {} waiting deliveries and has {rows}", head.backlog)))
    }
}

fn decodes<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<Option<String>, StoreError> {
    keys::decode::<T>(key, value).map(|_| None)
}

/// Messages come by conversation and seq: 1, 2, 3, without a hole (contract S1).
fn in_order(message: &MessageRow, log: &mut Log) -> Option<String> {
    let id = message.conversation;
    let expected = if log.conversation == Some(id) { log.last.next() } else { Seq(1) };
    (log.conversation, log.last) = (Some(id), message.seq);
    (message.seq != expected).then(|| format!("{id} has seq {} where {} belongs", message.seq.0, expected.0))
}
