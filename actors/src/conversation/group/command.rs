//! What can be wanted of a group, with everything that the judgement needs.

use schema::ids::{AgentId, InviteId};
use schema::rows::{AgentStatus, Audience, Picture, Role};
use serde::{Deserialize, Serialize};

/// Who wants a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Who.
    pub agent: AgentId,
    /// Its handle.
    pub handle: String,
}

/// The side of the one that is to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteeFacts {
    /// Who.
    pub agent: AgentId,
    /// Its handle.
    pub handle: String,
    /// Account state.
    pub status: AgentStatus,
    /// It blocks the inviter.
    pub blocks_inviter: bool,
    /// The inviter is in its book.
    pub has_contact: bool,
    /// Who may invite it.
    pub policy: Audience,
}

/// The side of the one that adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviterFacts {
    /// Account state.
    pub status: AgentStatus,
    /// It blocks the target.
    pub blocks_target: bool,
    /// `Err`: no invitation left; wait so many milliseconds.
    pub allowance: Result<(), u64>,
}

/// New values; `None` leaves a field alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPatch {
    /// New name.
    pub name: Option<String>,
    /// New description; `Some(None)` clears.
    #[serde(with = "crate::node::twice")]
    pub description: Option<Option<String>>,
    /// New picture; `Some(None)` clears.
    #[serde(with = "crate::node::twice")]
    pub picture: Option<Option<Picture>>,
    /// An upload or removal tells of itself, also when the same picture was there before.
    pub picture_always_tells: bool,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupCommand {
    /// Make it; the actor becomes its creator and first admin.
    Create {
        /// 1–100 characters.
        name: String,
        /// At most 500 characters.
        description: Option<String>,
        /// As given.
        picture: Option<Picture>,
    },
    /// Change settings.
    Update(GroupPatch),
    /// Add or invite somebody.
    Add {
        /// The target's side and the actor's; `None`: no such agent.
        sides: Option<Box<(InviteeFacts, InviterFacts)>>,
        /// Id of the invitation, should one be made.
        invite: InviteId,
        /// A target that knows the actor joins at once.
        auto_join: bool,
    },
    /// Remove a member; `None`: no such agent.
    Remove(Option<AgentId>),
    /// Change a member's role; `None`: no such agent.
    SetRole(Option<AgentId>, Role),
    /// Leave.
    Leave,
    /// Take an invitation.
    Accept {
        /// Which.
        invite: InviteId,
        /// A block between invitee and inviter came in between.
        blocked: bool,
    },
    /// Decline an invitation.
    Reject(InviteId),
    /// End the group.
    Delete {
        /// The creator is suspended or deleted, so the right is the oldest admin's.
        creator_gone: bool,
    },
}
