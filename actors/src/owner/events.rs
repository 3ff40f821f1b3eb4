//! What can happen to an owner.

use std::sync::Arc;

use schema::ids::{AgentId, Pos};
use schema::rows::MessageRow;
use serde::{Deserialize, Serialize};

use crate::api::{Change, SessionId};
use crate::effects::{Found, Port, Stored};

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// A pair of tokens, by their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Opens requests.
    pub access: TokenHash,
    /// Buys the next pair.
    pub refresh: TokenHash,
}

/// What the gateway asks of an owner. Each is answered on its port.
#[derive(Debug, Serialize, Deserialize)]
pub enum OwnerRequest {
    /// Sign in by an address that was proved; the first time makes the owner.
    SignIn(String, Pair),
    /// Who signed in with this access token?
    Admit(TokenHash),
    /// Replace the pair of this refresh token.
    Refresh {
        /// The one that is used up by this.
        old: TokenHash,
        /// What the new ones follow from, beside the old one.
        seed: [u8; 32],
        /// The new ones.
        next: Pair,
    },
    /// End the sign-in that one of these tokens belongs to.
    SignOut(Vec<TokenHash>),
    /// End all sign-ins; asked with this access token.
    SignOutAll(TokenHash),
    /// Register a dashboard socket of this sign-in.
    Watch(u64, SessionId),
    /// Forget a dashboard socket, and say so; see [`OwnerEvent::Detach`].
    Forget(SessionId),
}

/// A message in the eyes of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Which agent.
    pub agent: AgentId,
    /// Its handle.
    pub handle: String,
    /// Its inbox place; `None` for own ones.
    pub pos: Option<Pos>,
}

/// A message that agents of one owner sent and took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The message.
    pub message: Arc<MessageRow>,
    /// Its author first.
    pub views: Vec<View>,
}

/// What can happen to one owner.
#[derive(Debug, Serialize, Deserialize)]
pub enum OwnerEvent {
    /// A gateway request.
    Request(Port, Box<OwnerRequest>),
    /// A socket is gone.
    Detach(SessionId),
    /// A message was sent or taken by its agents.
    Seen(Box<Seen>),
    /// Something about one of its agents changed.
    Changed {
        /// The agent's handle.
        handle: String,
        /// What.
        change: Change,
    },
    /// The batch in flight has this outcome.
    #[serde(skip)]
    Stored(Stored),
    /// A read came back.
    #[serde(skip)]
    Found(Found),
    /// A wish to be woken came due.
    Wake,
}
