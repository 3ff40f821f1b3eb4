//! Rows of groups: who belongs, since when, and who was asked to.
//!
//! M1  A member sees and is delivered exactly the messages with `joined_at_seq <= seq <= left_at_seq`; one that left stays
//!     in the row until everything through its last seq is delivered.
//! M2  At most one member entry of an agent has no `left_at_seq`: that one is active.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::ids::{AgentId, ConversationId, InviteId, Seq};

/// What a member may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Send and leave.
    #[default]
    Member,
    /// Also metadata, members and roles.
    Admin,
}

/// A participant and the seqs it may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// Who.
    pub agent: AgentId,
    /// Its handle, immutable.
    pub handle: String,
    /// History cut: visible is `seq >= joined_at_seq`.
    pub joined_at_seq: Seq,
    /// What it may do; meaningless in a direct conversation.
    #[serde(default)]
    pub role: Role,
    /// When it joined; meaningless in a direct conversation.
    #[serde(default)]
    pub joined_at: Timestamp,
    /// Its last message, once it has left or was removed.
    #[serde(default)]
    pub left_at_seq: Option<Seq>,
}

impl MemberRow {
    /// Has not left.
    pub fn is_active(&self) -> bool {
        self.left_at_seq.is_none()
    }

    /// Whether this member takes the message with this seq (M1).
    pub fn takes(&self, seq: Seq) -> bool {
        self.joined_at_seq <= seq && self.left_at_seq.is_none_or(|left| seq <= left)
    }
}

/// An invitation that was neither accepted nor rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRow {
    /// Key of the row.
    pub id: InviteId,
    /// Into which group.
    pub group: ConversationId,
    /// Who is invited.
    pub agent: AgentId,
    /// By whom.
    pub inviter: AgentId,
    /// Its handle.
    pub inviter_handle: String,
    /// When.
    pub created_at: Timestamp,
}

/// What a group shows as its picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Picture {
    /// Content-addressed key of an uploaded one.
    Object(String),
    /// Somebody else's URL.
    Url(String),
}

/// Who ended a group, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedRow {
    /// Its handle.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A group beside its log. Written by its `Conversation` entity only, in one batch with the event that changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Key of the row.
    pub id: ConversationId,
    /// 1–100 characters.
    pub name: String,
    /// At most 500 characters.
    pub description: Option<String>,
    /// As set by an admin.
    pub picture: Option<Picture>,
    /// Who made it: admin for good while a member.
    pub created_by: AgentId,
    /// Its handle.
    pub created_by_handle: String,
    /// Active members and those whose last deliveries are under way (M1).
    pub members: Vec<MemberRow>,
    /// Open invitations.
    pub invites: Vec<InviteRow>,
    /// Set once; `members` then keeps who was active at the end.
    pub deleted: Option<DeletedRow>,
    /// Creation.
    pub created_at: Timestamp,
}

impl GroupRow {
    /// The active member entry of an agent (M2).
    pub fn member(&self, agent: AgentId) -> Option<&MemberRow> {
        self.members.iter().find(|member| member.agent == agent && member.is_active())
    }

    /// The same, to be changed.
    pub fn member_mut(&mut self, agent: AgentId) -> Option<&mut MemberRow> {
        self.members.iter_mut().find(|member| member.agent == agent && member.is_active())
    }

    /// Members that have not left.
    pub fn active(&self) -> impl Iterator<Item = &MemberRow> + Clone {
        self.members.iter().filter(|member| member.is_active())
    }
}
