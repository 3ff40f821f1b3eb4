//! Everything that goes into an entity step and comes out of one: plain data, so that a server and a simulator can
//! both carry it.
//!
//! E1  An entity has at most one batch in flight; what it writes meanwhile becomes the next batch. So batches of one
//!     entity take effect in order, a failed one has no successor to tear a hole before, and a busy entity commits
//!     in groups.
//! E2  Reads carry what they need; their answers come back as events, to the entity that asked.

use std::sync::Arc;

use cluster::routes::NodeId;
use schema::ids::{AgentId, ConversationId, MessageId, OwnerId, Pos, Seq};
use schema::rows::{
    AgentConversationRow, AgentRow, AgentStateRow, BlockRow, ContactRow, ConversationRow, GroupRow, InboxHeadRow,
    InboxRow, MessageRow, MuteRow, OwnerRow, ReceiptRow, Timestamp, WebhookRow,
};
use schema::store::{StoreError, Write};
use serde::{Deserialize, Serialize};

use crate::agent::events::AgentEvent;
use crate::api::{
    Added, CallerView, ConversationView, Hook, InboxView, OwnerView, Presence, Refusal, ReplyState, Sent, SessionId,
    Snapshot, ToSession,
};
use crate::conversation::events::ConversationEvent;
use crate::conversation::group::{InviteeFacts, InviterFacts};
use crate::owner::events::OwnerEvent;

/// Where an answer goes: a pending request of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// The gateway's node.
    pub node: NodeId,
    /// Which of its requests.
    pub number: u64,
}

/// An entity of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntityId {
    /// An agent.
    Agent(AgentId),
    /// A conversation.
    Conversation(ConversationId),
    /// An owner.
    Owner(OwnerId),
}

impl EntityId {
    /// Bytes that decide its shard.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Agent(id) => id.0.as_bytes(),
            Self::Conversation(id) => id.key.as_bytes(),
            Self::Owner(id) => id.0.as_bytes(),
        }
    }
}

/// An event with its addressee.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// For an agent.
    Agent(AgentId, AgentEvent),
    /// For a conversation.
    Conversation(ConversationId, ConversationEvent),
    /// For an owner.
    Owner(OwnerId, OwnerEvent),
}

impl Event {
    /// Where its answer goes, if it is a request.
    pub fn port(&self) -> Option<Port> {
        match self {
            Self::Agent(_, AgentEvent::Request(port, _))
            | Self::Conversation(_, ConversationEvent::View(port, _) | ConversationEvent::Group { port, .. })
            | Self::Owner(_, OwnerEvent::Request(port, _)) => Some(*port),
            _ => None,
        }
    }

    /// Who gets it.
    pub fn to(&self) -> EntityId {
        match self {
            Self::Agent(id, _) => EntityId::Agent(*id),
            Self::Conversation(id, _) => EntityId::Conversation(*id),
            Self::Owner(id, _) => EntityId::Owner(*id),
        }
    }
}

/// Answers to gateway requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// To `admit` and `attach`.
    Caller(CallerView),
    /// To `send`.
    Sent(Sent),
    /// To profile and key changes.
    Account(Arc<AgentRow>),
    /// To contact changes; `true` when created.
    Contact(ContactRow, bool),
    /// To `block`.
    Block(BlockRow),
    /// To `conversation`.
    Conversation(Box<ConversationView>),
    /// To `inbox`.
    Inbox(InboxView),
    /// To `ack_through`.
    Acked(u32),
    /// To `mark_read`.
    Receipt(ReceiptRow),
    /// To the two questions before somebody is added to a group.
    Invitee(Box<InviteeFacts>),
    /// See [`Reply::Invitee`].
    Inviter(InviterFacts),
    /// To adding somebody.
    Added(Added),
    /// To leaving: who became admin by it.
    Left(Option<String>),
    /// To deleting a group: when.
    Ended(Timestamp),
    /// To a mute; `true` when created.
    Muted(MuteRow, bool),
    /// To the question for mutes in force.
    Mutes(Vec<MuteRow>),
    /// To presence questions and changes.
    Presence(Presence),
    /// To the question for webhooks.
    Webhooks(Vec<WebhookRow>),
    /// To taking a key: whether it was free.
    Begun(bool),
    /// To reply coordination.
    Coordination(ReplyState),
    /// To signing in and to the question whether somebody is.
    Owner(OwnerView),
    /// To a refresh: what the new tokens follow from.
    Seed([u8; 32]),
    /// To signing out everywhere: of how many places.
    SignedOut(u32),
}

/// What an entity asks of the store.
#[derive(Debug, Clone)]
pub enum Read {
    /// Everything an agent needs to be active.
    Agent(AgentId),
    /// Everything a conversation needs to be active.
    Conversation(ConversationId),
    /// An owner as stored.
    Owner(OwnerId),
    /// The message stored under a deduplication key.
    Replay(AgentId, String),
    /// One agent's view of a conversation.
    AgentConversation(AgentId, ConversationId),
    /// Waiting deliveries for one session.
    InboxFor(AgentId, SessionId, Pos, Pos, usize),
    /// Waiting deliveries for an ack.
    Inbox(AgentId, Pos, Pos, usize),
    /// Receipts of single messages.
    Receipts(AgentId, Vec<MessageId>),
    /// Everything needed to change read or hidden state in `from..=through`.
    Unread(AgentId, UnreadRange),
    /// Who has this agent in its book, after the last of the page before.
    Watchers(AgentId, Option<AgentId>),
}

/// Bounds for [`Read::Unread`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadRange {
    /// Where.
    pub conversation: ConversationId,
    /// First seq to change.
    pub from: Seq,
    /// Last seq to change.
    pub through: Seq,
}

/// What came back.
#[derive(Debug)]
pub enum Found {
    /// To [`Read::Agent`].
    Agent(Option<Box<LoadedAgent>>),
    /// To [`Read::Conversation`].
    Conversation(Option<Box<LoadedConversation>>),
    /// To [`Read::Owner`].
    Owner(Option<Box<OwnerRow>>),
    /// To [`Read::Replay`], with the sender and key that were asked.
    Replay(AgentId, String, Option<Arc<MessageRow>>),
    /// To [`Read::AgentConversation`].
    AgentConversation(ConversationId, Option<AgentConversationRow>),
    /// To [`Read::InboxFor`]: rows, and the bound that was asked.
    InboxFor(SessionId, Vec<InboxRow>, Pos, usize),
    /// To [`Read::Inbox`].
    Inbox(Vec<InboxRow>),
    /// To [`Read::Receipts`]: those that exist.
    Receipts(Vec<(MessageId, ReceiptRow)>),
    /// To [`Read::Unread`].
    Unread(Box<FoundUnread>),
    /// To [`Read::Watchers`].
    Watchers(Vec<AgentId>),
}

/// Messages of others in the range with their receipts, and the unread bounds outside of it.
#[derive(Debug, Default)]
pub struct FoundUnread {
    /// Author and receipt of each message in the range.
    pub rows: Vec<(Seq, AgentId, ReceiptRow)>,
    /// Lowest unread seq outside the range, after the last hide.
    pub oldest_left: Option<Seq>,
    /// Highest unread seq outside the range.
    pub newest_left: Option<Seq>,
    /// View of the conversation as stored.
    pub view: AgentConversationRow,
}

/// An agent as stored.
#[derive(Debug)]
pub struct LoadedAgent {
    /// Account.
    pub row: AgentRow,
    /// Inbox head.
    pub head: InboxHeadRow,
    /// Book.
    pub contacts: Vec<ContactRow>,
    /// Blocks.
    pub blocks: Vec<BlockRow>,
    /// Outstanding cold threads.
    pub cold: Vec<(ConversationId, Timestamp)>,
    /// Agents it has reported.
    pub reported: Vec<AgentId>,
    /// Mutes, presence, webhooks and the like.
    pub state: Option<AgentStateRow>,
}

impl LoadedAgent {
    /// An account with nothing else.
    pub fn bare(row: AgentRow) -> Self {
        Self {
            row,
            head: InboxHeadRow::default(),
            contacts: Vec::new(),
            blocks: Vec::new(),
            cold: Vec::new(),
            reported: Vec::new(),
            state: None,
        }
    }
}

/// A conversation as stored.
#[derive(Debug)]
pub struct LoadedConversation {
    /// Head.
    pub row: ConversationRow,
    /// Members and settings, if it is a group.
    pub group: Option<GroupRow>,
    /// Messages above the fan-out watermark.
    pub unfinished: Vec<Arc<MessageRow>>,
}

/// Outcome of a batch.
pub type Stored = Result<(), StoreError>;

/// What one step wants from the world.
#[derive(Debug, Default)]
pub struct Effects {
    /// Commit these (E1).
    pub writes: Option<Vec<Write>>,
    /// Read these (E2).
    pub reads: Vec<Read>,
    /// Tell entities.
    pub tells: Vec<Event>,
    /// Answer requests.
    pub replies: Vec<(Port, Result<Reply, Refusal>)>,
    /// Push to sockets.
    pub pushes: Vec<(SessionId, ToSession)>,
    /// Call webhooks.
    pub hooks: Vec<Hook>,
    /// How this agent is seen from now on.
    pub snapshot: Option<Snapshot>,
    /// Wake this entity at or after this time.
    pub wake_at: Option<Timestamp>,
}

impl Effects {
    /// Answers a request.
    pub fn answer(&mut self, port: Port, reply: Result<Reply, Refusal>) {
        self.replies.push((port, reply));
    }

    /// Asks to be woken; the earliest wish wins.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}
