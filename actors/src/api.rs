//! What the gateway asks of the domain, and what it is told: plain data, no I/O.
//!
//! A request names the entity that owns the answer; [`crate::domain::Domain`] carries it there and back.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, InviteId, KeyHash, OwnerId, Pos, Seq};
use schema::rows::{
    AgentRow, Audience, ConversationRow, DeliveryState, GroupRow, InviteRow, MessageRow, MessageType, PresenceStatus,
    ReceiptRow, Timestamp, WebhookRow,
};
use serde::{Deserialize, Serialize};

mod sockets;
pub use self::sockets::{AckMode, CloseReason, PeerRead, SessionId, ToSession};

/// Why the domain refused, before any state changed. The gateway turns each into one status and code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
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
    /// The caller is a member without the role that this takes, or the target is protected.
    #[error("this takes another role")]
    NotAdmin,
    /// The group has ended; only former members are told.
    #[error("the group was deleted")]
    GroupDeleted(Box<GroupEnd>),
    /// All members together send too much.
    #[error("the group sends too much")]
    GroupLimit {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// No place is left.
    #[error("the group is full")]
    GroupFull,
    /// No such invitation, or not the caller's.
    #[error("invite not found")]
    InviteNotFound,
    /// There is no picture to remove.
    #[error("no picture is set")]
    NoPicture,
    /// The caller has reported this agent before.
    #[error("already reported")]
    AlreadyReported,
    /// The caller has as many of these as it may have.
    #[error("no more than {limit} are allowed")]
    TooMany {
        /// How many it may have.
        limit: usize,
    },
    /// The attachment cannot be referenced by the caller.
    #[error("attachment not found")]
    AttachmentNotFound,
    /// Somebody has this agent already.
    #[error("already claimed")]
    AlreadyClaimed,
    /// Claims on this agent were rejected too often.
    #[error("too many claims")]
    TooManyClaims {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// The owner does not have this agent (any more).
    #[error("no such claim")]
    ClaimNotFound,
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallerView {
    /// The account as of this request.
    pub account: Arc<AgentRow>,
}

/// Who has a dashboard, and by which of its sign-ins the request came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerView {
    /// Who.
    pub id: OwnerId,
    /// Its address.
    pub email: String,
    /// As shown.
    pub display_name: Option<String>,
    /// First sign-in.
    pub created_at: Timestamp,
    /// Number of the sign-in.
    pub sign_in: u64,
}

/// What changed about an owned agent; the owner's page reads it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Profile, state, pause, presence, or whether it is owned.
    Agent,
    /// Its activity.
    Activity,
}

/// Where a message is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What `content.attachment_id` names, if anything.
    pub attachment: Option<Attachment>,
}

/// A file that a draft refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its id.
    pub id: String,
    /// The sender uploaded it, and for no other conversation than this.
    pub usable: bool,
}

/// What became of an attempt to add somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Added {
    /// Nothing changed.
    AlreadyMember,
    /// An invitation is open, now or since earlier.
    Invited(InviteId),
    /// It is a member now.
    Joined,
}

/// An invitation with what it says about its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The invitation.
    pub row: InviteRow,
    /// The group as it is now.
    pub group: Arc<GroupRow>,
}

/// How a group ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEnd {
    /// Which.
    pub group: ConversationId,
    /// Handle of who ended it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Availability of an agent as others see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Status.
    pub status: PresenceStatus,
    /// At most 200 characters.
    pub message: Option<String>,
    /// Last socket close or manual refresh.
    pub last_seen: Option<Timestamp>,
}

/// How an agent is seen, for whoever keeps copies of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Who.
    pub agent: AgentId,
    /// As of now.
    pub presence: Presence,
    /// For how long it may be believed, in milliseconds.
    pub holds_ms: u64,
}

/// What a webhook is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// A message arrived.
    Message(Arc<MessageRow>),
    /// Anything that a socket would be told as well.
    Frame(ToSession),
    /// The agent itself blocked somebody.
    Blocked {
        /// Whom.
        handle: String,
        /// When.
        at: Timestamp,
    },
}

/// A notice for the webhooks of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Whose.
    pub agent: AgentId,
    /// Where to, all of them active and subscribed.
    pub targets: Vec<WebhookRow>,
    /// What.
    pub notice: Notice,
}

/// Leases and claims by which several repliers of one agent agree on one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyCommand {
    /// Somebody replies by hand for a while.
    Activate {
        /// Which session; `""` is the one without a name.
        session: String,
        /// For how long.
        ttl_ms: u64,
    },
    /// That is over.
    Deactivate(String),
    /// Does somebody?
    Ask,
    /// Claim the answers to these messages, as many as nobody else holds before the first that somebody does.
    Claim {
        /// In order.
        messages: Vec<String>,
        /// Who claims.
        holder: String,
        /// Not while somebody replies by hand.
        defer: bool,
    },
}

/// What became of a [`ReplyCommand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyState {
    /// Whether somebody replies by hand, and until when at least.
    Active(bool, Timestamp),
    /// How many were claimed, and whether it was put off.
    Claimed(usize, bool),
}

/// What a message says about its author beside the handle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// As the agent set it.
    pub display_name: Option<String>,
    /// Platform-owned.
    pub is_system: bool,
}

/// A send that the domain accepted now or earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The stored message.
    pub message: Arc<MessageRow>,
    /// `true`: this `client_msg_id` had been stored before, and nothing was written now.
    pub replayed: bool,
    /// Recipient's handle and backlog after a direct store.
    pub backlog: Option<(String, u32)>,
    /// Members of a group whose inbox was full; `None` for a direct message.
    pub skipped: Option<Vec<String>>,
    /// Of the sender, who has it at hand.
    pub author: Profile,
}

/// Changes to an account; `None` leaves a field alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfilePatch {
    /// `Some(None)` clears.
    #[serde(with = "crate::node::twice")]
    pub display_name: Option<Option<String>>,
    /// `Some(None)` clears.
    #[serde(with = "crate::node::twice")]
    pub description: Option<Option<String>>,
    /// Who may start direct conversations.
    pub inbox_mode: Option<Audience>,
    /// Who may invite to groups.
    pub group_invite_policy: Option<Audience>,
    /// Key of the uploaded picture; `Some(None)` clears.
    #[serde(with = "crate::node::twice")]
    pub avatar_key: Option<Option<String>>,
}

/// What a participant may read of a conversation. Obtained from its entity, so it never shows an uncommitted row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationView {
    /// Head as committed: messages up to `row.last_seq` are durable.
    pub row: ConversationRow,
    /// The group, if it is one.
    pub group: Option<Arc<GroupRow>>,
    /// First seq the caller may see.
    pub from: Seq,
}

/// What an agent may read of its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxView {
    /// Nothing waits at or below.
    pub from: Pos,
    /// Every position at or below is durable or will never exist.
    pub through: Pos,
    /// Deliveries waiting.
    pub backlog: u32,
    /// Full pause: show nothing.
    pub held: bool,
}

/// One receipt with its place, as the gateway shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// The receipt after the change.
    pub receipt: ReceiptRow,
    /// The state before.
    pub before: DeliveryState,
}

/// A credential presented with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Agent that the key resolved to.
    pub agent: AgentId,
    /// The key's hash; the entity compares it with the current one.
    pub key: KeyHash,
}
