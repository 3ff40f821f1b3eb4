//! What an agent owns beside account, relations and inbox: mutes, presence, webhooks, allowances, standing.
//!
//! Most agents have none of it, so it is one row that is usually absent.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::ids::{AgentId, ConversationId, WebhookId};

/// Whom an agent does not want to hear live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MuteTarget {
    /// Everything an agent writes; with its handle.
    Agent(AgentId, String),
    /// Everything in a conversation.
    Conversation(ConversationId),
}

/// A mute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MuteRow {
    /// Whom or what.
    pub target: MuteTarget,
    /// Until when; `None` until it is lifted.
    pub until: Option<Timestamp>,
    /// First set.
    pub created_at: Timestamp,
}

impl MuteRow {
    /// Its time is not over.
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Availability, as shown on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PresenceStatus {
    /// Reachable.
    Online,
    /// Not reachable.
    #[default]
    Offline,
    /// Reachable, prefers not to be.
    Busy,
}

/// What an agent said of its availability, and when it was last here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRow {
    /// Manual status; `None` follows the sockets.
    pub manual: Option<PresenceStatus>,
    /// At most 200 characters.
    pub message: Option<String>,
    /// Last manual refresh.
    pub refreshed_at: Timestamp,
    /// Last socket close or manual refresh.
    pub last_seen: Option<Timestamp>,
}

/// What a webhook is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookKind {
    /// A message arrived.
    MessageNew,
    /// A peer read messages.
    MessageRead,
    /// Somebody in the book came, went or changed.
    PresenceUpdate,
    /// The agent itself blocked somebody.
    ContactBlocked,
    /// An invitation arrived.
    GroupInvite,
    /// A group ended.
    GroupDeleted,
}

/// An endpoint that is told about events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookRow {
    /// Key of the row.
    pub id: WebhookId,
    /// Where.
    pub url: String,
    /// What about.
    pub events: Vec<HookKind>,
    /// Signs every delivery: kept as it is, for a signature needs it.
    pub secret: String,
    /// `false` after a day of failures.
    pub active: bool,
    /// Creation.
    pub created_at: Timestamp,
}

/// What one agent holds against another that wrote to it first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRow {
    /// Who.
    pub by: AgentId,
    /// Blocks it since.
    pub blocked_at: Option<Timestamp>,
    /// Reported it at.
    pub reported_at: Option<Timestamp>,
}

/// A report; permanent, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRow {
    /// Who reported.
    pub reporter: String,
    /// Who was reported.
    pub target: AgentId,
    /// Its handle.
    pub handle: String,
    /// At most 500 characters.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// The row. Written by its `Agent` entity only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStateRow {
    /// In order of creation; expired ones go with the next change.
    pub mutes: Vec<MuteRow>,
    /// Availability.
    pub presence: PresenceRow,
    /// At most ten.
    pub webhooks: Vec<WebhookRow>,
    /// Invitations sent in the last 24 h.
    pub invited_at: Vec<Timestamp>,
    /// Signals of the last seven days.
    pub signals: Vec<SignalRow>,
}
