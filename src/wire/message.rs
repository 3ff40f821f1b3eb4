//! The Message shape: every key always present, on REST and on sockets alike.
//!
//! M1  `content` and `metadata` are copied as stored: compact JSON objects, never parsed again here.
//! M2  `status` is a matter between one message and one reader, so it comes in as an argument.

use schema::ids::{ConversationKind, DeliveryId, MessageId};
use schema::rows::{DeliveryState, MessageRow, MessageType, ReceiptRow, Timestamp};
use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;

use super::time::Ts;

/// Stored JSON, written out as it is.
#[derive(Debug, Clone, Copy)]
pub struct RawJson<'a>(pub &'a str);

impl Serialize for RawJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// How far a message came, as its reader may know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageState {
    /// stored, delivered or read.
    pub status: DeliveryState,
    /// First acknowledgement.
    pub delivered_at: Option<Timestamp>,
    /// First read.
    pub read_at: Option<Timestamp>,
}

impl From<ReceiptRow> for MessageState {
    fn from(receipt: ReceiptRow) -> Self {
        Self { status: receipt.state, delivered_at: receipt.delivered_at, read_at: receipt.read_at }
    }
}

/// What `context` says beside the handle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct About<'a> {
    /// Display name as of now.
    pub display_name: Option<&'a str>,
    /// Platform-owned.
    pub is_system: bool,
    /// Name and number of members of the group, as of now.
    pub group: Option<(&'a str, u32)>,
}

/// A message on the wire. Serialise it directly, or flatten it into a larger object.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    id: String,
    conversation_id: String,
    sender: &'a str,
    client_msg_id: &'a str,
    seq: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    content: RawJson<'a>,
    metadata: RawJson<'a>,
    context: Context<'a>,
    status: &'static str,
    created_at: Ts,
    delivered_at: Option<Ts>,
    read_at: Option<Ts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_own: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_handle: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped_recipients: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Context<'a> {
    sender: ContextSender<'a>,
    conversation: ContextConversation<'a>,
    mentions: &'a [String],
}

#[derive(Debug, Serialize)]
struct ContextSender<'a> {
    handle: &'a str,
    display_name: Option<&'a str>,
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct ContextConversation<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    group_name: Option<&'a str>,
    member_count: Option<u32>,
}

/// Builds the Message JSON of `row` for one reader. A frame in `ws` is `{"type": "message.new", "payload": <this>}`.
pub fn message_value<'a>(row: &'a MessageRow, about: About<'a>, state: MessageState) -> Message<'a> {
    Message {
        id: MessageId { conversation: row.conversation, seq: row.seq }.to_string(),
        conversation_id: row.conversation.to_string(),
        sender: &row.sender_handle,
        client_msg_id: &row.client_msg_id,
        seq: row.seq.0,
        kind: kind_name(row.kind),
        content: RawJson(&row.content),
        metadata: RawJson(&row.metadata),
        context: Context {
            sender: ContextSender {
                handle: &row.sender_handle,
                display_name: about.display_name,
                kind: if about.is_system { "system" } else { "agent" },
            },
            conversation: ContextConversation {
                kind: conversation_kind(row.conversation.kind),
                group_name: about.group.map(|(name, _)| name),
                member_count: about.group.map(|(_, count)| count),
            },
            mentions: &row.mentions,
        },
        status: status_name(state.status),
        created_at: Ts(row.created_at),
        delivered_at: state.delivered_at.map(Ts),
        read_at: state.read_at.map(Ts),
        delivery_id: None,
        is_own: None,
        sender_handle: None,
        ok: None,
        skipped_recipients: None,
    }
}

impl<'a> Message<'a> {
    /// Adds `delivery_id`: sync rows and drained frames.
    pub fn with_delivery(mut self, id: DeliveryId) -> Self {
        self.delivery_id = Some(id.to_string());
        self
    }

    /// Adds `is_own` and `sender_handle`: history rows.
    pub fn with_ownership(mut self, own: bool) -> Self {
        self.is_own = Some(own);
        self.sender_handle = Some(self.sender);
        self
    }

    /// Adds `skipped_recipients`: the answer to a group send.
    pub fn with_skipped(mut self, skipped: Option<Vec<String>>) -> Self {
        self.skipped_recipients = skipped;
        self
    }

    /// Adds `ok: true`: the answer to a read.
    pub fn with_ok(mut self) -> Self {
        self.ok = Some(true);
        self
    }
}

/// `direct` or `group`.
pub fn conversation_kind(kind: ConversationKind) -> &'static str {
    match kind {
        ConversationKind::Direct => "direct",
        ConversationKind::Group => "group",
    }
}

/// Message type on the wire.
pub fn kind_name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Text => "text",
        MessageType::Structured => "structured",
        MessageType::File => "file",
        MessageType::System => "system",
    }
}

/// Delivery state on the wire.
pub fn status_name(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Stored => "stored",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Read => "read",
    }
}
