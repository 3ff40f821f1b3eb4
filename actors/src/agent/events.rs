//! What can happen to an agent.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, KeyHash, MessageId, OwnerId, Pos, Seq, WebhookId};
use schema::rows::{MuteTarget, Pause, PresenceStatus, Timestamp, WebhookRow};
use serde::{Deserialize, Serialize};

use crate::api::{
    AckMode, Draft, GroupEnd, Invitation, PeerRead, Presence, ProfilePatch, ReplyCommand, SessionId, Target,
};
use crate::conversation::events::{Delivery, Outcome};
use crate::effects::{Found, Port, Stored};

/// What the gateway asks of an agent. Each is answered on its port.
#[derive(Debug, Serialize, Deserialize)]
pub enum AgentRequest {
    /// Check the key and charge one request.
    Admit(KeyHash),
    /// Send a message.
    Send(Target, Box<Draft>),
    /// Check the key, charge one request and send a message: [`Self::Admit`] and [`Self::Send`] in one way there and back.
    SendAs(KeyHash, Target, Box<Draft>),
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
        #[serde(with = "crate::node::twice")]
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
    /// Forget a socket, and say so; see [`AgentEvent::Detach`].
    Forget(SessionId),
    /// Its side of being added to a group by this agent.
    InviteeFacts(AgentId),
    /// Its side of adding this agent; sets an invitation aside until [`AgentEvent::InviteDone`].
    InviterFacts(AgentId),
    /// Show a group that it just created in its list.
    OpenGroup(ConversationId),
    /// Mute until then, or for good.
    Mute(MuteTarget, Option<Timestamp>),
    /// End a mute.
    Unmute(MuteTarget),
    /// Mutes in force, newest first.
    Mutes,
    /// Set its presence by hand.
    SetPresence(PresenceStatus, Option<String>),
    /// Its presence, as this agent may see it.
    Presence(AgentId),
    /// Add a webhook.
    AddWebhook(Box<WebhookRow>),
    /// Its webhooks, oldest first.
    Webhooks,
    /// Remove a webhook.
    RemoveWebhook(WebhookId),
    /// Report an agent that is known to exist; blocks it as well.
    Report {
        /// Who.
        target: AgentId,
        /// Its handle.
        handle: String,
        /// Why.
        reason: Option<String>,
    },
    /// Take a key, until [`AgentEvent::EndOnce`].
    BeginOnce(Box<str>),
    /// Agree on who replies.
    Coordinate(ReplyCommand),
    /// Its owner pauses it, or ends that; without an owner whoever runs the server does.
    SetPause(Option<OwnerId>, Pause),
    /// Somebody shows the key and wants to be its owner.
    Claim(Box<ClaimAttempt>),
    /// Its owner gives it up.
    Release(OwnerId),
    /// An operator suspends it, or ends that.
    Suspend(bool),
    /// An operator makes it platform-owned, or ends that.
    SetSystem(bool),
}

/// A claim, and what its incumbent is told of it if it is rejected.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClaimAttempt {
    /// The key that was shown.
    pub key: KeyHash,
    /// Who claims.
    pub owner: OwnerId,
    /// From where.
    pub ip: String,
    /// With what, at most 200 characters.
    pub user_agent: Option<String>,
}

/// What somebody whom this agent wrote to first did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// Blocked it.
    Block(Timestamp),
    /// Ended its block.
    Unblock,
    /// Reported it.
    Report(Timestamp),
}

/// What can happen to one agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum AgentEvent {
    /// A gateway request.
    Request(Port, AgentRequest),
    /// A socket is gone.
    Detach(SessionId),
    /// A request that took this key has ended.
    EndOnce(Box<str>),
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
    PeerRead(Box<PeerRead>),
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
        /// In a direct conversation, where a block silences.
        direct: bool,
    },
    /// Somebody that may be in the book came, went or changed.
    PeerPresence {
        /// Who.
        peer: AgentId,
        /// Its handle.
        handle: String,
        /// Now.
        presence: Presence,
    },
    /// An invitation that was set aside was used, or not.
    InviteDone(bool),
    /// Somebody invited this agent.
    Invited(Arc<Invitation>),
    /// A group that it was a member of has ended.
    GroupGone(Box<GroupEnd>),
    /// Somebody holds something against it.
    Signal(AgentId, Signal),
    /// A webhook failed for a day.
    WebhookFailing(WebhookId),
    /// The batch in flight has this outcome.
    #[serde(skip)]
    Stored(Stored),
    /// A read came back.
    #[serde(skip)]
    Found(Found),
    /// A wish to be woken came due.
    Wake,
    /// Other shards have new owners: what they were told may be lost.
    Moved,
}
