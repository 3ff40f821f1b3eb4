//! What the gateway asks of the domain, and what it is told: plain data, no I/O.
//!
//! A request names the entity that owns the answer; [`crate::domain::Domain`] carries it there and back.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, KeyHash, Pos, Seq};
use schema::rows::{
    AgentRow, Audience, ConversationRow, DeliveryState, MessageRow, MessageType, ReceiptRow, Timestamp,
};

/// Why the domain refused, before any state changed. The gateway turns each into one status and code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Key unknown, rotated away, or the account is deleted.
    #[error("key is not valid")]
    Unauthorized,
    /// The caller is suspended.
    #[error("account is suspended")]
    Suspended,
    /// More requests or sends than allowed.
    #[error("too many requests")]
    RateLimited {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// Recipient unknown or deleted.
    #[error("agent not found")]
    AgentNotFound,
    /// Not a participant, or no such conversation.
    #[error("conversation not found")]
    ConversationNotFound,
    /// No such message, or not visible to the caller.
    #[error("message not found")]
    MessageNotFound,
    /// The caller wrote this message.
    #[error("own messages cannot be marked read")]
    OwnMessage,
    /// The recipient is the caller.
    #[error("an agent cannot message itself")]
    SelfTarget,
    /// The owner paused the caller.
    #[error("the owner has paused this agent")]
    PausedByOwner,
    /// A block in either direction.
    #[error("blocked")]
    Blocked,
    /// The block is already in place.
    #[error("already blocked")]
    AlreadyBlocked,
    /// The target is platform-owned.
    #[error("system agents are protected")]
    SystemAgentProtected,
    /// The recipient accepts contacts only.
    #[error("recipient accepts messages from contacts only")]
    InboxRestricted {
        /// The recipient.
        handle: String,
    },
    /// The caller is restricted and the message is cold.
    #[error("restricted accounts cannot start conversations")]
    Restricted,
    /// An earlier cold message is still unanswered.
    #[error("waiting for a reply")]
    AwaitingReply {
        /// The recipient.
        handle: String,
        /// Creation of the pending message.
        waiting_since: Timestamp,
    },
    /// The cold allowance is used up.
    #[error("too many unanswered conversations")]
    ColdLimit {
        /// Until the oldest counted thread leaves the window.
        retry_after_ms: u64,
    },
    /// The recipient's backlog is full.
    #[error("recipient has too many undelivered messages")]
    RecipientBacklogged {
        /// The recipient.
        handle: String,
        /// Its backlog.
        undelivered: u32,
    },
    /// The attachment cannot be referenced by the caller.
    #[error("attachment not found")]
    AttachmentNotFound,
    /// Not in the caller's book or block list.
    #[error("no such relation")]
    NoRelation,
    /// Shed before anything happened, or the store refuses; retry.
    #[error("temporarily unavailable")]
    Unavailable,
    /// The deadline passed: the outcome is unknown; retry with the same `client_msg_id`.
    #[error("timed out")]
    TimedOut,
}

/// What the gateway knows about an authenticated caller.
#[derive(Debug, Clone)]
pub struct CallerView {
    /// The account as of this request.
    pub account: Arc<AgentRow>,
}

/// Where a message is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A handle that resolved to this agent.
    Agent(AgentId),
    /// A handle that nobody ever registered, or that is malformed.
    UnknownAgent,
    /// An existing conversation.
    Conversation(ConversationId),
    /// Something that is no conversation's id.
    UnknownConversation,
}

/// A message that the gateway has validated and the domain has not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Deduplication key, 1–128 characters.
    pub client_msg_id: String,
    /// Kind; never `System`.
    pub kind: MessageType,
    /// Compact JSON object.
    pub content: String,
    /// Compact JSON object.
    pub metadata: String,
    /// Handles mentioned in the text, lower case, in order, unique, at most 50; the conversation keeps participants.
    pub mentions: Vec<String>,
    /// `content.attachment_id`, if any.
    pub attachment_id: Option<String>,
}

/// A send that the domain accepted now or earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The stored message.
    pub message: Arc<MessageRow>,
    /// `true`: this `client_msg_id` had been stored before, and nothing was written now.
    pub replayed: bool,
    /// Recipient's handle and backlog after a direct store.
    pub backlog: Option<(String, u32)>,
}

/// Changes to an account; `None` leaves a field alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfilePatch {
    /// `Some(None)` clears.
    pub display_name: Option<Option<String>>,
    /// `Some(None)` clears.
    pub description: Option<Option<String>>,
    /// Who may start direct conversations.
    pub inbox_mode: Option<Audience>,
    /// Who may invite to groups.
    pub group_invite_policy: Option<Audience>,
}

/// What a participant may read of a conversation. Obtained from its entity, so it never shows an uncommitted row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationView {
    /// Head as committed: messages up to `row.last_seq` are durable.
    pub row: ConversationRow,
    /// First seq the caller may see.
    pub from: Seq,
}

/// What an agent may read of its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxView {
    /// Every position at or below is durable or will never exist.
    pub through: Pos,
    /// Deliveries waiting.
    pub backlog: u32,
    /// Full pause: show nothing.
    pub held: bool,
}

/// How a socket learns that a delivery reached its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckMode {
    /// The client acks; at most `window` frames are out at a time.
    Explicit {
        /// Most unacked frames on this socket.
        window: u32,
    },
    /// A frame written to the transport counts as delivered.
    OnWrite,
}

/// One live socket on this node. Unique per process lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What an agent entity tells one of its sockets. Order is the order on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToSession {
    /// A message; `pos` is `None` for the echo of an own send.
    Message {
        /// The message.
        message: Arc<MessageRow>,
        /// Inbox place, for `delivery_id` and [`Domain::written`](crate::domain::Domain::written).
        pos: Option<Pos>,
        /// `true` when it comes from the backlog (the frame then carries `delivery_id`).
        drained: bool,
    },
    /// A peer read messages of this agent.
    Read {
        /// Where.
        conversation: ConversationId,
        /// Reader's handle.
        reader: String,
        /// Highest newly read seq.
        through: Seq,
        /// When.
        at: Timestamp,
    },
    /// A peer types or stopped.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Typist's handle.
        sender: String,
        /// Start or stop.
        start: bool,
    },
    /// Little is left of an allowance.
    RateWarning {
        /// Of how many.
        limit: u32,
        /// What is left.
        remaining: u32,
        /// When more is there.
        reset_at: Timestamp,
    },
    /// Close the socket with this code and reason.
    Close(CloseReason),
}

/// Why the domain ends a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Key rotated or account deleted: 4401.
    KeyRevoked,
    /// Suspended: 4403.
    Suspended,
    /// More than the sockets allowed per agent: 1013.
    TooManySockets,
    /// The socket is too slow for what must not be dropped: 1013.
    SlowConsumer,
    /// The owning shard restarted: 1012.
    Restart,
}

/// One receipt with its place, as the gateway shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    /// The receipt after the change.
    pub receipt: ReceiptRow,
    /// The state before.
    pub before: DeliveryState,
}

/// A credential presented with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credential {
    /// Agent that the key resolved to.
    pub agent: AgentId,
    /// The key's hash; the entity compares it with the current one.
    pub key: KeyHash,
}
