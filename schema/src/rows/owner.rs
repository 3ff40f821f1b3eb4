//! What the dashboard keeps: owners, their sign-ins, claims, and the activity of an agent.
//!
//! D1  Tokens are kept as hashes only. The tokens that a refresh makes follow from the old token and a stored seed, so
//!     that whoever repeats the refresh gets the same pair although nothing here would give it away.
//! D2  The activity of one agent, and of one owner, is bounded: the newest [`EVENTS_KEPT`] entries.

use serde::{Deserialize, Serialize};

use super::{AgentStatus, Pause, Timestamp};
use crate::ids::OwnerId;

/// Entries of one activity log; an older one goes with each that comes.
pub const EVENTS_KEPT: u64 = 1_000;

/// An owner of an agent. In the agent's account, so that one agent has one at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRow {
    /// Who.
    pub owner: OwnerId,
    /// Since when.
    pub at: Timestamp,
    /// Claims by others that were rejected lately, oldest first.
    pub rejected: Vec<Timestamp>,
}

/// A token at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// When it stops working.
    pub until: Timestamp,
}

/// Tokens that a refresh has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatedRow {
    /// SHA-256 of the refresh token that was used.
    pub refresh: [u8; 32],
    /// SHA-256 of the access token beside it.
    pub access: [u8; 32],
    /// What the tokens after it follow from, beside the old refresh token (D1).
    pub seed: [u8; 32],
    /// When.
    pub at: Timestamp,
}

/// One browser that is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignInRow {
    /// Counted from 1 within its owner; never used twice.
    pub number: u64,
    /// Opens requests.
    pub access: TokenRow,
    /// Buys the next pair, once.
    pub refresh: TokenRow,
    /// Refreshes of the last moments.
    pub rotated: Vec<RotatedRow>,
}

/// A person with a dashboard. Written by its `Owner` entity only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRow {
    /// Key of the row; follows from the email.
    pub id: OwnerId,
    /// Lower case, trimmed.
    pub email: String,
    /// As shown.
    pub display_name: Option<String>,
    /// First sign-in.
    pub created_at: Timestamp,
    /// Number of the newest activity entry.
    pub events: u64,
    /// Number of the newest sign-in.
    pub last_sign_in: u64,
    /// Oldest first.
    pub sign_ins: Vec<SignInRow>,
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventActor {
    /// An owner.
    Owner,
    /// The agent itself.
    Agent,
    /// The server, or whoever runs it.
    System,
}

/// Why the state of an account changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatusReason {
    /// Others block or report it.
    Standing,
    /// What others held against it is over.
    Expired,
    /// Whoever runs the server decided.
    Operator,
}

/// Why an owner lost its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevokedReason {
    /// The key was replaced.
    KeyRotated,
    /// The agent was deleted.
    Deleted,
}

/// What happened, with all that is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventAction {
    /// The account moved between active, restricted and suspended.
    StatusChanged {
        /// Before.
        from: AgentStatus,
        /// After.
        to: AgentStatus,
        /// Why.
        reason: StatusReason,
    },
    /// The key was replaced.
    KeyRotated,
    /// The account was deleted.
    Deleted,
    /// The agent blocked somebody.
    Blocked {
        /// Whom.
        handle: String,
    },
    /// The agent reported somebody.
    Reported {
        /// Whom.
        handle: String,
    },
    /// An owner claimed it.
    Claimed,
    /// Its owner released it.
    Released,
    /// Somebody else tried to claim it.
    ClaimAttempted {
        /// From where.
        ip: String,
        /// With what, at most 200 characters.
        user_agent: Option<String>,
    },
    /// Its owner lost it.
    ClaimRevoked(RevokedReason),
    /// It was paused.
    Paused(Pause),
    /// The pause ended.
    Unpaused,
    /// An owner signed in for the first time.
    OwnerCreated,
    /// An owner signed in.
    OwnerSignedIn,
    /// An owner ended all its sign-ins.
    OwnerSignedOutAll,
}

/// An activity entry of an agent or of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Counted from 1 within its log.
    pub number: u64,
    /// Who did it.
    pub actor: EventActor,
    /// What.
    pub action: EventAction,
    /// The only one who may read it; `None`: every owner that the agent has.
    pub owner: Option<OwnerId>,
    /// When.
    pub at: Timestamp,
}
