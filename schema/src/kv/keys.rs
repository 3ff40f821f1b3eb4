//! The one mapping from domain writes to ordered keys and values.
//!
//! ```text
//!   key    table byte | fixed parts, big-endian | at most one text, last
//!   value  MessagePack arrays (rmp_serde)
//! ```
//! K1  Byte order of keys is the order that the store contract promises: by seq, by pos, by id, by handle.
//! K2  Table bytes are part of the format: never reused, never renumbered.
//! K3  Text ends a key and is UTF-8, so `prefix + 0xFF` is above every key that starts with `prefix`.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, ConversationId, ConversationKind, KeyHash, OwnerId, Pos, Seq};
use crate::rows::{AgentRow, AgentStatus, EVENTS_KEPT, EmailRow, EventRow, InboxRow, MessageType};
use crate::store::{StoreError, Write};

/// Room for a row that is being encoded: with its text, a message of usual length fits without growing.
const ROW_BYTES: usize = 512;

/// Longest key that an engine is given. Clients' texts are bounded far below; the index cannot take more than 64 KiB.
pub(crate) const KEY_MAX: usize = 8 * 1024;

/// The tables. Their bytes are part of the format (K2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Message = 1,
    Conversation = 2,
    Inbox = 3,
    InboxHead = 4,
    Receipt = 5,
    AgentConversation = 6,
    Agent = 7,
    KeyHash = 8,
    Handle = 9,
    Email = 10,
    Pending = 11,
    Contact = 12,
    Block = 13,
    ColdThread = 14,
    Replay = 15,
    Group = 16,
    Invite = 17,
    Watcher = 18,
    AgentState = 19,
    Report = 20,
    Directory = 21,
    Attachment = 22,
    AttachmentUse = 23,
    Idempotency = 24,
    Owner = 25,
    Claim = 26,
    Event = 27,
    OwnerEvent = 28,
}

impl Table {
    const ALL: [Self; 28] = [
        Self::Message,
        Self::Conversation,
        Self::Inbox,
        Self::InboxHead,
        Self::Receipt,
        Self::AgentConversation,
        Self::Agent,
        Self::KeyHash,
        Self::Handle,
        Self::Email,
        Self::Pending,
        Self::Contact,
        Self::Block,
        Self::ColdThread,
        Self::Replay,
        Self::Group,
        Self::Invite,
        Self::Watcher,
        Self::AgentState,
        Self::Report,
        Self::Directory,
        Self::Attachment,
        Self::AttachmentUse,
        Self::Idempotency,
        Self::Owner,
        Self::Claim,
        Self::Event,
        Self::OwnerEvent,
    ];

    /// The table of a key.
    pub(crate) fn of(key: &[u8]) -> Option<Self> {
        let byte = key.first()?;
        Self::ALL.into_iter().find(|table| *table as u8 == *byte)
    }

    /// What its rows are called in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Message => "messages",
            Self::Conversation => "conversations",
            Self::Inbox => "waiting deliveries",
            Self::InboxHead => "inbox heads",
            Self::Receipt => "receipts",
            Self::AgentConversation => "views of conversations",
            Self::Agent => "agents",
            Self::KeyHash => "API keys",
            Self::Handle => "handles",
            Self::Email => "email addresses",
            Self::Pending => "pending codes",
            Self::Contact => "contacts",
            Self::Block => "blocks",
            Self::ColdThread => "cold threads",
            Self::Replay => "replay records",
            Self::Group => "groups",
            Self::Invite => "invitations",
            Self::Watcher => "watchers",
            Self::AgentState => "agent states",
            Self::Report => "reports",
            Self::Directory => "directory entries",
            Self::Attachment => "attachments",
            Self::AttachmentUse => "uses of attachments",
            Self::Idempotency => "remembered answers",
            Self::Owner => "owners",
            Self::Claim => "claims",
            Self::Event => "activity entries of agents",
            Self::OwnerEvent => "activity entries of owners",
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvOp {
    /// Key and its new value.
    Put(Vec<u8>, Vec<u8>),
    /// Key that goes away.
    Remove(Vec<u8>),
}

impl KvOp {
    /// A put of `row` under `key`.
    pub(crate) fn put(key: Vec<u8>, row: &impl Serialize) -> Result<Self, StoreError> {
        let mut value = Vec::with_capacity(ROW_BYTES);
        rmp_serde::encode::write(&mut value, row)
            .map_err(|e| StoreError::Corrupt(format!("row does not encode: {e}")))?;
        Ok(Self::Put(key, value))
    }

    /// Bytes of key and value.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Remove(key) => key.len(),
        }
    }

    /// The key, whatever happens to it.
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Remove(key) => key,
        }
    }
}

/// Turns stored bytes back into a row.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(value).map_err(|e| StoreError::Corrupt(format!("key {}: {e}", hex::encode(key))))
}

/// Everything that `write` changes, appended to `ops` in order. A body of up to `copied_max` bytes is copied into each
/// delivery; a larger one is stored once, in the log, and referred to.
pub(crate) fn encode(write: &Write, copied_max: usize, ops: &mut Vec<KvOp>) -> Result<(), StoreError> {
    let op = match write {
        Write::Message(row) => {
            // What the server writes is never sent again, and must not take a key that its author may use.
            if row.kind != MessageType::System {
                let place = (row.conversation, row.seq);
                ops.push(KvOp::put(replay(row.sender, &row.client_msg_id), &place)?);
            }
            KvOp::put(message(row.conversation, row.seq), row)?
        }
        Write::Conversation(row) => KvOp::put(conversation(row.id), row)?,
        Write::Inbox(agent, row) => KvOp::put(inbox(*agent, row.pos), &InboxValue::of(row, copied_max))?,
        Write::InboxRemove(agent, pos) => KvOp::Remove(inbox(*agent, *pos)),
        Write::InboxHead(agent, row) => KvOp::put(inbox_head(*agent), row)?,
        Write::Receipt(agent, id, seq, row) => KvOp::put(receipt(*agent, *id, *seq), row)?,
        Write::AgentConversation(agent, id, row) => KvOp::put(agent_conversation(*agent, *id), row)?,
        Write::Agent(row) => return put_agent(row, ops),
        Write::KeyRemove(hash) => KvOp::Remove(key_hash(*hash)),
        Write::Contact(agent, row) => {
            ops.push(KvOp::put(watcher(row.agent, *agent), &())?);
            KvOp::put(contact(*agent, &row.handle), row)?
        }
        Write::ContactRemove(agent, target, handle) => {
            ops.push(KvOp::Remove(watcher(*target, *agent)));
            KvOp::Remove(contact(*agent, handle))
        }
        Write::Block(agent, row) => KvOp::put(block(*agent, &row.handle), row)?,
        Write::BlockRemove(agent, handle) => KvOp::Remove(block(*agent, handle)),
        Write::ColdThread(agent, id, since) => KvOp::put(cold_thread(*agent, *id), since)?,
        Write::ColdThreadRemove(agent, id) => KvOp::Remove(cold_thread(*agent, *id)),
        Write::Group(row) => KvOp::put(group(row.id), row)?,
        Write::Invite(row) => KvOp::put(invite(row.agent, row.group), row)?,
        Write::InviteRemove(agent, group) => KvOp::Remove(invite(*agent, *group)),
        Write::AgentState(agent, row) => KvOp::put(agent_state(*agent), row)?,
        Write::Report(agent, row) => KvOp::put(report(*agent, &row.handle), row)?,
        Write::Attachment(row) => KvOp::put(attachment(&row.id), row)?,
        Write::AttachmentUse(id, at, seq) => KvOp::put(attachment_use(id, *at, *seq), &(at, seq))?,
        Write::Idempotency(agent, row) => KvOp::put(idempotency(*agent, &row.key), row)?,
        Write::Owner(row) => KvOp::put(owner(row.id), row)?,
        Write::Claim(owner, agent) => KvOp::put(claim(*owner, *agent), &())?,
        Write::ClaimRemove(owner, agent) => KvOp::Remove(claim(*owner, *agent)),
        Write::Event(agent, row) => {
            ops.extend(outlived(row).map(|number| KvOp::Remove(event(*agent, number))));
            KvOp::put(event(*agent, row.number), row)?
        }
        Write::OwnerEvent(owner, row) => {
            ops.extend(outlived(row).map(|number| KvOp::Remove(owner_event(*owner, number))));
            KvOp::put(owner_event(*owner, row.number), row)?
        }
    };
    ops.push(op);
    Ok(())
}

/// The entry that goes when this one comes.
fn outlived(row: &EventRow) -> Option<u64> {
    row.number.checked_sub(EVENTS_KEPT).filter(|number| *number > 0)
}

/// A delivery as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InboxValue<'a> {
    /// With its message.
    Whole(Cow<'a, InboxRow>),
    /// By the place of its message, which was durable before any delivery of it was made.
    Refers(Pos, ConversationId, Seq),
}

impl<'a> InboxValue<'a> {
    fn of(row: &'a InboxRow, copied_max: usize) -> Self {
        let message = &row.message;
        if message.content.len() + message.metadata.len() <= copied_max {
            return Self::Whole(Cow::Borrowed(row));
        }
        Self::Refers(row.pos, message.conversation, message.seq)
    }
}

/// Puts of an account and of what leads to it, the account last.
pub(crate) fn put_agent(row: &AgentRow, ops: &mut Vec<KvOp>) -> Result<(), StoreError> {
    ops.push(KvOp::put(key_hash(row.key_hash), &row.id)?);
    let listed = matches!(row.status, AgentStatus::Active | AgentStatus::Restricted);
    let entry = directory(&row.handle);
    ops.push(if listed { KvOp::put(entry, &row.id)? } else { KvOp::Remove(entry) });
    ops.push(KvOp::put(agent(row.id), row)?);
    Ok(())
}

/// A put of an email row.
pub(crate) fn put_email(email_text: &str, row: &EmailRow) -> Result<KvOp, StoreError> {
    KvOp::put(email(email_text), row)
}

/// A delivery refers to a message that is not there.
pub(crate) fn dangling(id: ConversationId, seq: Seq) -> StoreError {
    StoreError::Corrupt(format!("a delivery names {id} seq {}, which is not there", seq.0))
}

fn key(table: Table, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table as u8);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// Kind before key, so that byte order is the order of ids.
fn conversation_bytes(id: ConversationId) -> [u8; 17] {
    let mut bytes = [0; 17];
    bytes[0] = match id.kind {
        ConversationKind::Direct => 0,
        ConversationKind::Group => 1,
    };
    bytes[1..].copy_from_slice(id.key.as_bytes());
    bytes
}

/// Reads the conversation that ends a key, after `prefix` bytes.
pub(crate) fn trailing_conversation(key: &[u8], prefix: usize) -> Result<ConversationId, StoreError> {
    let parse = || {
        let (kind, id) = key.get(prefix..)?.split_first()?;
        let prefix = match kind {
            0 => "conv",
            1 => "grp",
            _ => return None,
        };
        format!("{prefix}_{}", std::str::from_utf8(id).ok()?).parse().ok()
    };
    parse().ok_or_else(|| StoreError::Corrupt(format!("key {} names no conversation", hex::encode(key))))
}

/// Reads the agent that follows the table byte.
pub(crate) fn leading_agent(key: &[u8]) -> Result<AgentId, StoreError> {
    let id = key.get(1..17).and_then(|id| std::str::from_utf8(id).ok()).and_then(|id| format!("agt_{id}").parse().ok());
    id.ok_or_else(|| StoreError::Corrupt(format!("key {} names no agent", hex::encode(key))))
}

/// Reads the agent that ends a key.
pub(crate) fn trailing_agent(key: &[u8]) -> Result<AgentId, StoreError> {
    let id = key.last_chunk::<16>().and_then(|id| std::str::from_utf8(id).ok());
    let id = id.and_then(|id| format!("agt_{id}").parse().ok());
    id.ok_or_else(|| StoreError::Corrupt(format!("key {} names no agent", hex::encode(key))))
}

/// Reads the seq that ends a key.
pub(crate) fn trailing_seq(key: &[u8]) -> Result<Seq, StoreError> {
    let tail = key.last_chunk::<8>().ok_or_else(|| StoreError::Corrupt("key without seq".to_owned()))?;
    Ok(Seq(u64::from_be_bytes(*tail)))
}

pub(crate) fn message(id: ConversationId, seq: Seq) -> Vec<u8> {
    key(Table::Message, &[&conversation_bytes(id), &seq.0.to_be_bytes()])
}

pub(crate) fn conversation(id: ConversationId) -> Vec<u8> {
    key(Table::Conversation, &[&conversation_bytes(id)])
}

pub(crate) fn inbox(agent: AgentId, pos: Pos) -> Vec<u8> {
    key(Table::Inbox, &[agent.0.as_bytes(), &pos.0.to_be_bytes()])
}

pub(crate) fn inbox_head(agent: AgentId) -> Vec<u8> {
    key(Table::InboxHead, &[agent.0.as_bytes()])
}

pub(crate) fn receipt(agent: AgentId, id: ConversationId, seq: Seq) -> Vec<u8> {
    key(Table::Receipt, &[agent.0.as_bytes(), &conversation_bytes(id), &seq.0.to_be_bytes()])
}

pub(crate) fn agent_conversation(agent: AgentId, id: ConversationId) -> Vec<u8> {
    key(Table::AgentConversation, &[agent.0.as_bytes(), &conversation_bytes(id)])
}

pub(crate) fn agent_conversations(agent: AgentId) -> Vec<u8> {
    key(Table::AgentConversation, &[agent.0.as_bytes()])
}

pub(crate) fn agent(id: AgentId) -> Vec<u8> {
    key(Table::Agent, &[id.0.as_bytes()])
}

pub(crate) fn key_hash(hash: KeyHash) -> Vec<u8> {
    key(Table::KeyHash, &[&hash.0])
}

pub(crate) fn handle(handle: &str) -> Vec<u8> {
    key(Table::Handle, &[handle.as_bytes()])
}

pub(crate) fn email(email: &str) -> Vec<u8> {
    key(Table::Email, &[email.as_bytes()])
}

pub(crate) fn pending(id: &str) -> Vec<u8> {
    key(Table::Pending, &[id.as_bytes()])
}

pub(crate) fn contact(agent: AgentId, handle: &str) -> Vec<u8> {
    key(Table::Contact, &[agent.0.as_bytes(), handle.as_bytes()])
}

pub(crate) fn block(agent: AgentId, handle: &str) -> Vec<u8> {
    key(Table::Block, &[agent.0.as_bytes(), handle.as_bytes()])
}

pub(crate) fn cold_thread(agent: AgentId, id: ConversationId) -> Vec<u8> {
    key(Table::ColdThread, &[agent.0.as_bytes(), &conversation_bytes(id)])
}

pub(crate) fn cold_threads(agent: AgentId) -> Vec<u8> {
    key(Table::ColdThread, &[agent.0.as_bytes()])
}

pub(crate) fn replay(sender: AgentId, client_msg_id: &str) -> Vec<u8> {
    key(Table::Replay, &[sender.0.as_bytes(), client_msg_id.as_bytes()])
}

pub(crate) fn group(id: ConversationId) -> Vec<u8> {
    key(Table::Group, &[&conversation_bytes(id)])
}

pub(crate) fn invite(agent: AgentId, group: ConversationId) -> Vec<u8> {
    key(Table::Invite, &[agent.0.as_bytes(), &conversation_bytes(group)])
}

pub(crate) fn invites(agent: AgentId) -> Vec<u8> {
    key(Table::Invite, &[agent.0.as_bytes()])
}

/// `holder` has `target` in its book.
pub(crate) fn watcher(target: AgentId, holder: AgentId) -> Vec<u8> {
    key(Table::Watcher, &[target.0.as_bytes(), holder.0.as_bytes()])
}

pub(crate) fn watchers(target: AgentId) -> Vec<u8> {
    key(Table::Watcher, &[target.0.as_bytes()])
}

pub(crate) fn agent_state(agent: AgentId) -> Vec<u8> {
    key(Table::AgentState, &[agent.0.as_bytes()])
}

pub(crate) fn report(reporter: AgentId, handle: &str) -> Vec<u8> {
    key(Table::Report, &[reporter.0.as_bytes(), handle.as_bytes()])
}

pub(crate) fn all_reports() -> Vec<u8> {
    key(Table::Report, &[])
}

pub(crate) fn directory(handle: &str) -> Vec<u8> {
    key(Table::Directory, &[handle.as_bytes()])
}

pub(crate) fn attachment(id: &str) -> Vec<u8> {
    key(Table::Attachment, &[id.as_bytes()])
}

/// Ids of attachments are of one length, so no id is the beginning of another.
pub(crate) fn attachment_use(id: &str, conversation: ConversationId, seq: Seq) -> Vec<u8> {
    key(Table::AttachmentUse, &[id.as_bytes(), &conversation_bytes(conversation), &seq.0.to_be_bytes()])
}

pub(crate) fn attachment_uses(id: &str) -> Vec<u8> {
    key(Table::AttachmentUse, &[id.as_bytes()])
}

pub(crate) fn idempotency(agent: AgentId, text: &str) -> Vec<u8> {
    key(Table::Idempotency, &[agent.0.as_bytes(), text.as_bytes()])
}

pub(crate) fn owner(id: OwnerId) -> Vec<u8> {
    key(Table::Owner, &[id.0.as_bytes()])
}

pub(crate) fn claim(owner: OwnerId, agent: AgentId) -> Vec<u8> {
    key(Table::Claim, &[owner.0.as_bytes(), agent.0.as_bytes()])
}

pub(crate) fn claims(owner: OwnerId) -> Vec<u8> {
    key(Table::Claim, &[owner.0.as_bytes()])
}

pub(crate) fn event(agent: AgentId, number: u64) -> Vec<u8> {
    key(Table::Event, &[agent.0.as_bytes(), &number.to_be_bytes()])
}

pub(crate) fn owner_event(owner: OwnerId, number: u64) -> Vec<u8> {
    key(Table::OwnerEvent, &[owner.0.as_bytes(), &number.to_be_bytes()])
}

pub(crate) fn table(table: Table) -> Vec<u8> {
    key(table, &[])
}
