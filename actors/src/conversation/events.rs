//! What can happen to a conversation.

use std::sync::Arc;

use schema::ids::{AgentId, OwnerId, Pos, Seq};
use schema::rows::{AgentStatus, Audience, MessageRow, Pause};
use serde::{Deserialize, Serialize};

use super::group::{Actor, GroupCommand};
use crate::agent::events::Signal;
use crate::api::{Draft, Refusal};
use crate::effects::{Found, Port, Stored};

/// What the sender's agent knows and the gates need. Taken when the send leaves the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderFacts {
    /// Sender.
    pub agent: AgentId,
    /// Its handle.
    pub handle: String,
    /// Account state.
    pub status: AgentStatus,
    /// Owner pause.
    pub paused: Pause,
    /// Platform-owned.
    pub is_system: bool,
    /// It blocks the peer.
    pub blocks_peer: bool,
    /// `Err`: no cold slot; wait so many milliseconds.
    pub cold_slot: Result<(), u64>,
    /// `Err`: over the send rate; wait so many milliseconds.
    pub rate: Result<(), u64>,
}

/// What the recipient's agent says about taking a message from this sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitFacts {
    /// Recipient's handle.
    pub handle: String,
    /// Account state.
    pub status: AgentStatus,
    /// It blocks the sender.
    pub blocks_sender: bool,
    /// The sender is in its book.
    pub has_contact: bool,
    /// Who may start a conversation with it.
    pub inbox_mode: Audience,
    /// Waiting deliveries.
    pub backlog: u32,
}

/// A member whose owner may be watching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Whose it is.
    pub owner: OwnerId,
    /// Where the message lies in its inbox; `None` for own ones.
    pub pos: Option<Pos>,
}

/// What can happen to one conversation.
#[derive(Debug, Serialize, Deserialize)]
pub enum ConversationEvent {
    /// A member, or for a new pair its opener, wants to write.
    Send {
        /// The sender's side of the gates.
        sender: Box<SenderFacts>,
        /// The other member of a direct conversation; `None` in a group.
        peer: Option<AgentId>,
        /// The message.
        draft: Box<Draft>,
    },
    /// A change of a group.
    Group {
        /// Where the answer goes.
        port: Port,
        /// Who wants it.
        actor: Actor,
        /// What.
        command: Box<GroupCommand>,
    },
    /// The sender's agent found this message under a repeated key: settle it when its deliveries are durable.
    Confirm(Arc<MessageRow>),
    /// A send that names this conversation: who is the other member?
    Locate {
        /// Who asks.
        sender: AgentId,
        /// To be answered by the sender's agent.
        client_msg_id: String,
    },
    /// Recipient's side of the gates, for the draft with this deduplication key.
    Permit {
        /// Sender of the draft.
        sender: AgentId,
        /// Its key.
        client_msg_id: String,
        /// `None`: no such agent.
        facts: Option<Box<PermitFacts>>,
    },
    /// A member has durably taken this message (or needed to write nothing).
    Taken {
        /// Which member.
        agent: AgentId,
        /// Which message.
        seq: Seq,
        /// Its backlog now.
        backlog: u32,
        /// Its inbox was full, so that it took nothing.
        skipped: bool,
        /// It has an owner, who is told once everybody has the message; `None` also on repeats.
        watched: Option<Watched>,
    },
    /// A member blocks or reports the other, or ends that.
    Accuse {
        /// Who.
        by: AgentId,
        /// Whom.
        target: AgentId,
        /// What.
        signal: Signal,
    },
    /// A request for the caller's view.
    View(Port, AgentId),
    /// A member types.
    Typing {
        /// Who.
        sender: AgentId,
        /// Its handle.
        handle: String,
        /// Start or stop.
        start: bool,
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

/// A message on its way to one member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// The message.
    pub message: Arc<MessageRow>,
    /// The last message before it that the addressee is not known to have taken; 0 when there is none.
    pub after: Seq,
    /// The other member of a direct conversation, as the addressee sees it; `None` in a group.
    pub peer: Option<(AgentId, String)>,
    /// It is the sender's outstanding cold message.
    pub cold: bool,
    /// The thread is established with this message; who opened it.
    pub established: Option<AgentId>,
    /// The group ends with this message: what waits before it is dropped.
    pub ends: bool,
}

/// How a send ended, for the sender's agent.
pub type Outcome = Result<Settled, Refusal>;

/// An accepted send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settled {
    /// The message.
    pub message: Arc<MessageRow>,
    /// It had been stored before.
    pub replayed: bool,
    /// Recipient's handle and backlog.
    pub backlog: Option<(String, u32)>,
    /// Handles of members whose inbox was full; `None` in a direct conversation.
    pub skipped: Option<Vec<String>>,
}
