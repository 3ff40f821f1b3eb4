//! What passes between an agent and its live sockets.

use std::cmp::Ordering;
use std::sync::Arc;

use cluster::routes::NodeId;
use schema::ids::{AgentId, ConversationId, Pos, Seq};
use schema::rows::{MessageRow, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Change, GroupEnd, Invitation, Presence};

/// How a socket learns that a delivery reached its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AckMode {
    /// The client acks; at most `window` frames are out at a time.
    Explicit {
        /// Most unacked frames on this socket.
        window: u32,
    },
    /// A frame written to the transport counts as delivered.
    OnWrite,
}

/// One live socket. Never used twice. Whichever life is meant, it is the same socket.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SessionId {
    /// The node that holds it.
    pub node: NodeId,
    /// Which of that node.
    pub number: u64,
    /// How often it was registered again: what was meant for an earlier life is not for a later one, whose owner begins
    /// with everything that is not acked.
    pub life: u32,
}

impl SessionId {
    /// A socket that is registered for the first time.
    pub fn new(node: NodeId, number: u64) -> Self {
        Self { node, number, life: 0 }
    }

    /// The same life of the same socket.
    pub fn is_same_life(self, other: Self) -> bool {
        self == other && self.life == other.life
    }
}

impl Ord for SessionId {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.node, self.number).cmp(&(other.node, other.number))
    }
}

impl PartialOrd for SessionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SessionId {}

/// A peer read messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRead {
    /// Where.
    pub conversation: ConversationId,
    /// Reader's handle.
    pub reader: String,
    /// Highest newly read seq.
    pub through: Seq,
    /// When.
    pub at: Timestamp,
}

/// What an agent entity tells one of its sockets. Order is the order on the wire. Every socket's queue has room for 32 from
/// the beginning, so what is large and no message is boxed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    Read(Box<PeerRead>),
    /// A peer types or stopped.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Typist's handle.
        sender: String,
        /// Start or stop.
        start: bool,
    },
    /// Somebody in the book came, went or changed.
    Presence {
        /// Who.
        handle: String,
        /// Now.
        presence: Box<Presence>,
    },
    /// An invitation arrived.
    Invited(Arc<Invitation>),
    /// A group ended.
    GroupDeleted(Box<GroupEnd>),
    /// Little is left of an allowance.
    RateWarning {
        /// Of how many.
        limit: u32,
        /// What is left.
        remaining: u32,
        /// When more is there.
        reset_at: Timestamp,
    },
    /// A message of an agent of this owner, as that agent has it; on dashboards only.
    Seen {
        /// Which agent.
        agent: AgentId,
        /// Its handle.
        handle: Box<str>,
        /// The message.
        message: Arc<MessageRow>,
        /// Its inbox place; `None` for own ones.
        pos: Option<Pos>,
    },
    /// Something about an agent of this owner changed; on dashboards only.
    Changed {
        /// Its handle.
        handle: String,
        /// What.
        change: Change,
    },
    /// Close the socket with this code and reason.
    Close(CloseReason),
}

/// Why the domain ends a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The owner signed out: 4401.
    SignedOut,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_wait_are_small() {
        assert!(size_of::<ToSession>() <= 56, "{} bytes", size_of::<ToSession>());
    }
}
