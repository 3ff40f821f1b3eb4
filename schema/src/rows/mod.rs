//! The rows that engines keep. Plain data, no behaviour beyond small derivations.
//!
//! R1  Times are milliseconds since the Unix epoch, UTC.
//! R2  `content` and `metadata` are compact JSON objects that the gateway validated; no layer below parses them.
//! R3  Fields are only ever appended, each with a default, so that older rows stay readable.

mod books;
mod group;
mod media;
mod owner;
mod state;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::books::{Book, Books};
pub use self::group::{DeletedRow, GroupRow, InviteRow, MemberRow, Picture, Role};
pub use self::media::{AttachmentRow, IdempotencyRow};
pub use self::owner::{
    ClaimRow, EVENTS_KEPT, EventAction, EventActor, EventRow, OwnerRow, RevokedReason, RotatedRow, SignInRow,
    StatusReason, TokenRow,
};
pub use self::state::{
    AgentStateRow, HookKind, MuteRow, MuteTarget, PresenceRow, PresenceStatus, ReportRow, SignalRow, WebhookRow,
};

use crate::ids::{AgentId, ConversationId, KeyHash, OwnerId, Pos, Seq};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time plus `millis`.
    pub fn plus_ms(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds since `earlier`; 0 if that lies ahead.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Account state, as shown on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentStatus {
    /// Everything is open.
    #[default]
    Active,
    /// Cold outreach is closed.
    Restricted,
    /// Only `GET /v1/agents/me` and recovery work.
    Suspended,
    /// Gone; the handle stays taken.
    Deleted,
}

/// Owner pause, as shown on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pause {
    /// Not paused.
    #[default]
    None,
    /// Sends are refused.
    Send,
    /// Sends are refused and nothing is pushed or drained.
    Full,
}

/// Who may open a conversation with an agent, or add it to a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Audience {
    /// Anybody.
    #[default]
    Open,
    /// Only agents in its contact book.
    ContactsOnly,
}

/// One agent's account. Written by its `Agent` entity only, once created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// Key of the row.
    pub id: AgentId,
    /// Bare, lower case, immutable.
    pub handle: String,
    /// Lower case, trimmed.
    pub email: String,
    /// SHA-256 of the one live API key.
    pub key_hash: KeyHash,
    /// 1–100 characters.
    pub display_name: Option<String>,
    /// At most 500 characters.
    pub description: Option<String>,
    /// Content-addressed key of the avatar object.
    pub avatar_key: Option<String>,
    /// Account state.
    pub status: AgentStatus,
    /// Owner pause.
    pub paused: Pause,
    /// Direct messages: who may start.
    pub inbox_mode: Audience,
    /// Group invites: who may send them.
    pub group_invite_policy: Audience,
    /// Platform-owned.
    pub is_system: bool,
    /// Creation.
    pub created_at: Timestamp,
    /// Last profile or state change.
    pub updated_at: Timestamp,
    /// Its owner. Nobody else is shown any trace of it.
    #[serde(default)]
    pub claim: Option<Box<ClaimRow>>,
    /// Number of the newest activity entry.
    #[serde(default)]
    pub events: u64,
    /// What else it has.
    #[serde(default = "Books::all")]
    pub books: Books,
}

impl AgentRow {
    /// A fresh account with nothing set: active, open to everybody.
    pub fn new(id: AgentId, handle: impl Into<String>, email: impl Into<String>, key: KeyHash, at: Timestamp) -> Self {
        Self {
            id,
            handle: handle.into(),
            email: email.into(),
            key_hash: key,
            display_name: None,
            description: None,
            avatar_key: None,
            status: AgentStatus::Active,
            paused: Pause::None,
            inbox_mode: Audience::Open,
            group_invite_policy: Audience::Open,
            is_system: false,
            created_at: at,
            updated_at: at,
            claim: None,
            events: 0,
            books: Books::NONE,
        }
    }
}

/// What an email address has used of its budget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailRow {
    /// Agents that are not deleted, oldest first.
    pub live: Vec<AgentId>,
    /// Registrations ever made, deleted ones included.
    pub lifetime: u32,
}

/// What a mailed code will do. Purposes never mix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PendingPurpose {
    /// Create the agent.
    Register {
        /// Wanted handle; not reserved.
        handle: String,
        /// As sent.
        display_name: Option<String>,
        /// As sent.
        description: Option<String>,
    },
    /// Give the agent a new key; `None` in a decoy (no such pair) and when the email backs several.
    Recover {
        /// The agent named or implied.
        agent: Option<AgentId>,
        /// A decoy never matches any code.
        decoy: bool,
    },
    /// Replace the key of a signed-in agent.
    RotateKey {
        /// The caller.
        agent: AgentId,
    },
    /// Sign an owner in.
    SignIn,
    /// Open one dashboard socket. There is no code: whoever knows the ticket, of which the id is a hash, may take it.
    Ticket {
        /// Whose.
        owner: OwnerId,
        /// For which of its sign-ins.
        sign_in: u64,
    },
}

/// A one-time code that was mailed and not yet used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRow {
    /// `pnd_` or `dpnd_` and 16 characters; of a ticket `tkt_` and its hash.
    pub id: String,
    /// Where the code went.
    pub email: String,
    /// What it does.
    pub purpose: PendingPurpose,
    /// SHA-256 over id and code.
    pub code_hash: [u8; 32],
    /// Wrong codes so far.
    pub attempts: u8,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// Message kinds on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageType {
    /// Plain text.
    Text,
    /// JSON data.
    Structured,
    /// References an attachment.
    File,
    /// Written by the server.
    System,
}

/// One message in the log of its conversation. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    /// Log it stands in.
    pub conversation: ConversationId,
    /// Its place.
    pub seq: Seq,
    /// Author.
    pub sender: AgentId,
    /// Author's handle, immutable.
    pub sender_handle: String,
    /// Author's deduplication key.
    pub client_msg_id: String,
    /// Kind.
    pub kind: MessageType,
    /// Compact JSON object (R2).
    pub content: String,
    /// Compact JSON object (R2).
    pub metadata: String,
    /// Handles mentioned, frozen at send.
    pub mentions: Vec<String>,
    /// Creation.
    pub created_at: Timestamp,
}

/// A cold message that nobody has answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdRow {
    /// Its author.
    pub sender: AgentId,
    /// Its creation.
    pub since: Timestamp,
}

/// Head of one conversation. Written by its `Conversation` entity only, with every append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationRow {
    /// Key of the row.
    pub id: ConversationId,
    /// Both participants of a direct conversation; a group keeps its own in [`GroupRow`].
    pub members: Vec<MemberRow>,
    /// Both sides have written.
    pub established: bool,
    /// First message's author and time while unanswered; also who opened the thread.
    pub cold: Option<ColdRow>,
    /// Author of seq 1.
    pub opened_by: AgentId,
    /// Seq of the newest message.
    pub last_seq: Seq,
    /// Every message at or below has all its deliveries.
    pub fanned_out: Seq,
    /// Creation.
    pub created_at: Timestamp,
    /// Newest message's time.
    pub last_message_at: Timestamp,
}

/// State of one delivery. Ordered: it only ever moves right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeliveryState {
    /// Waits in the backlog.
    #[default]
    Stored,
    /// Acknowledged.
    Delivered,
    /// Read.
    Read,
}

/// One agent's copy of one message, by (agent, conversation, seq). A sender has one only if it hid its own message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRow {
    /// Place in the inbox; `None` for own messages.
    pub pos: Option<Pos>,
    /// How far it came.
    pub state: DeliveryState,
    /// When acknowledged.
    pub delivered_at: Option<Timestamp>,
    /// When read.
    pub read_at: Option<Timestamp>,
    /// Hidden by this agent.
    pub hidden: bool,
}

impl ReceiptRow {
    /// Of a delivery that waits at `pos`.
    pub fn waiting(pos: Pos) -> Self {
        Self { pos: Some(pos), state: DeliveryState::Stored, ..Self::default() }
    }
}

/// A delivery that waits in the inbox. Exists exactly while its receipt is `Stored`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxRow {
    /// Place.
    pub pos: Pos,
    /// The message.
    pub message: Arc<MessageRow>,
}

/// Head of one inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxHeadRow {
    /// Last position ever assigned.
    pub last_pos: Pos,
    /// Deliveries in state `Stored`.
    pub backlog: u32,
    /// Nothing waits at or below: reads begin behind it, or they would pass over everything that was ever acked.
    #[serde(default)]
    pub floor: Pos,
}

/// One agent's view of one conversation it takes part in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConversationRow {
    /// Highest seq this agent has handled, delivered or own. Repeats at or below are dropped.
    pub last_seq: Seq,
    /// Hidden from the list until the next message.
    pub hidden: bool,
    /// Seq at the last hide: unread counters start after it.
    pub hidden_through: Seq,
    /// Deliveries after `hidden_through` that are not read and not hidden.
    pub unread: u32,
    /// Smallest unread seq; meaningless while `unread` is 0.
    pub oldest_unread: Seq,
    /// Largest unread seq; meaningless while `unread` is 0.
    pub newest_unread: Seq,
}

/// An entry of one agent's contact book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactRow {
    /// Who.
    pub agent: AgentId,
    /// Sort key of the book; immutable.
    pub handle: String,
    /// At most 1000 characters.
    pub notes: Option<String>,
    /// First added.
    pub added_at: Timestamp,
}

/// An agent that one agent blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRow {
    /// Who.
    pub agent: AgentId,
    /// Immutable.
    pub handle: String,
    /// When.
    pub blocked_at: Timestamp,
}
