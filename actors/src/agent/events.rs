//! What can happen to an agent.

use schema::ids::{AgentId, ConversationId, KeyHash, MessageId, Pos, Seq};
use schema::rows::Timestamp;

use crate::api::{AckMode, Draft, ProfilePatch, SessionId, Target};
use crate::conversation::events::{Delivery, Outcome};
use crate::effects::{Found, Port, Stored};

/// What the gateway asks of an agent. Each is answered on its port.
#[derive(Debug)]
pub enum AgentRequest {
    /// Check the key and charge one request.
    Admit(KeyHash),
    /// Send a message.
    Send(Target, Box<Draft>),
    /// Change the account.
    UpdateProfile(Box<ProfilePatch>),
    /// Replace the key.
    ReplaceKey(KeyHash),
    /// Delete the account.
    Delete,
    /// Add or annotate a contact whose account is known to exist.
    PutContact {
        /// Who.
        target: AgentId,
        /// Its handle.
        handle: String,
        /// `Some` overwrites.
        notes: Option<Option<String>>,
    },
    /// Change the notes of an existing contact.
    Annotate(String, Option<String>),
    /// Remove a contact.
    RemoveContact(String),
    /// Block an agent that is known to exist.
    Block(AgentId, String),
    /// End a block.
    Unblock(String),
    /// What may be read of the inbox.
    Inbox,
    /// Acknowledge everything at or before a position.
    AckThrough(Pos),
    /// Mark one message read.
    MarkRead(MessageId),
    /// Hide one message.
    HideMessage(MessageId),
    /// Hide a conversation from the list.
    HideConversation(ConversationId),
    /// Register a socket.
    Attach(KeyHash, SessionId, AckMode),
}

/// What can happen to one agent.
#[derive(Debug)]
pub enum AgentEvent {
    /// A gateway request.
    Request(Port, AgentRequest),
    /// A socket is gone.
    Detach(SessionId),
    /// A socket wrote frames.
    Written(SessionId, u32, Option<Pos>),
    /// A socket acknowledged a message.
    Ack(MessageId),
    /// A socket marked everything up to a seq read.
    ReadThrough(ConversationId, Seq),
    /// A socket types.
    Typing(ConversationId, bool),
    /// A conversation asks whether this agent takes a message.
    PermitAsked {
        /// Which conversation.
        conversation: ConversationId,
        /// From whom.
        sender: AgentId,
        /// Key of the draft.
        client_msg_id: String,
    },
    /// A stored message arrives, or an own one echoes.
    Deliver(Box<Delivery>),
    /// An own send ended.
    Settled {
        /// Its key.
        client_msg_id: String,
        /// How.
        outcome: Box<Outcome>,
    },
    /// Answer to `Locate`: the other member, if the caller is one.
    Located(String, Option<AgentId>),
    /// A peer read messages that this agent wrote.
    PeerRead {
        /// Where.
        conversation: ConversationId,
        /// Reader's handle.
        reader: String,
        /// Highest newly read seq.
        through: Seq,
        /// When.
        at: Timestamp,
    },
    /// A peer types.
    PeerTyping {
        /// Where.
        conversation: ConversationId,
        /// Who.
        peer: AgentId,
        /// Its handle.
        handle: String,
        /// Start or stop.
        start: bool,
    },
    /// The batch in flight has this outcome.
    Stored(Stored),
    /// A read came back.
    Found(Found),
    /// A wish to be woken came due.
    Wake,
}
