//! JSON of the dashboard.
//!
//! J1  No internal id of an agent or owner appears anywhere: agents go by handle, owners by email.

use actors::api::{OwnerView, Presence};
use schema::ids::{AgentId, DeliveryId, MessageId, Pos};
use schema::rows::{AgentRow, AttachmentRow, BlockRow, ContactRow, MessageRow};
use serde::Serialize;
use serde_json::{Value, json};

use crate::wire::account::{mask_email, pause_name, status_name as account_status};
use crate::wire::message::{MessageState, RawJson, kind_name, status_name};
use crate::wire::social::presence_name;
use crate::wire::time::Ts;
use crate::wire::urls::Urls;

/// An owner as it sees itself.
pub fn owner_value(owner: &OwnerView) -> Value {
    json!({"email": owner.email, "display_name": owner.display_name, "created_at": Ts(owner.created_at)})
}

fn agent(row: &AgentRow, urls: &Urls) -> Value {
    json!({
        "handle": row.handle,
        "display_name": row.display_name,
        "description": row.description,
        "avatar_url": urls.avatar_of(row.avatar_key.as_deref()),
        "status": account_status(row.status),
        "paused_by_owner": pause_name(row.paused),
        "created_at": Ts(row.created_at),
    })
}

/// ClaimedAgent.
pub fn claimed_value(row: &AgentRow, urls: &Urls) -> Value {
    let mut value = agent(row, urls);
    value["claimed_at"] = json!(row.claim.as_ref().map(|claim| Ts(claim.at)));
    value
}

/// One agent by itself.
pub fn agent_value(row: &AgentRow, urls: &Urls) -> Value {
    let mut value = agent(row, urls);
    value["email_masked"] = json!(mask_email(&row.email));
    value
}

/// A message as one agent has it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    id: String,
    conversation_id: String,
    client_msg_id: &'a str,
    is_own: bool,
    sender_handle: &'a str,
    sender_display_name: Option<&'a str>,
    sender_avatar_url: Option<String>,
    seq: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    content: RawJson<'a>,
    metadata: RawJson<'a>,
    created_at: Ts,
    delivery_id: Option<String>,
    status: &'static str,
    delivered_at: Option<Ts>,
    read_at: Option<Ts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachment: Option<Value>,
}

impl Row<'_> {
    /// Says what the file is that the message refers to. Its bytes are a request of their own.
    pub fn with_attachment(mut self, file: Option<&AttachmentRow>) -> Self {
        self.attachment =
            file.map(|file| json!({"filename": file.filename, "content_type": file.content_type, "size": file.size}));
        self
    }
}

/// The row of a message in `reader`'s eyes; `pos` is its inbox place, if it was received.
pub fn message_row<'a>(
    message: &'a MessageRow,
    reader: AgentId,
    (pos, state): (Option<Pos>, MessageState),
    sender: Option<&'a AgentRow>,
    urls: &Urls,
) -> Row<'a> {
    Row {
        id: MessageId { conversation: message.conversation, seq: message.seq }.to_string(),
        conversation_id: message.conversation.to_string(),
        client_msg_id: &message.client_msg_id,
        is_own: message.sender == reader,
        sender_handle: &message.sender_handle,
        sender_display_name: sender.and_then(|sender| sender.display_name.as_deref()),
        sender_avatar_url: urls.avatar_of(sender.and_then(|sender| sender.avatar_key.as_deref())),
        seq: message.seq.0,
        kind: kind_name(message.kind),
        content: RawJson(&message.content),
        metadata: RawJson(&message.metadata),
        created_at: Ts(message.created_at),
        delivery_id: pos.map(|pos| DeliveryId::new(reader, pos).to_string()),
        status: status_name(state.status),
        delivered_at: state.delivered_at.map(Ts),
        read_at: state.read_at.map(Ts),
        attachment: None,
    }
}

/// An entry of the contact book.
pub fn contact_value(row: &ContactRow, account: Option<&AgentRow>, urls: &Urls) -> Value {
    json!({
        "handle": row.handle,
        "display_name": account.and_then(|account| account.display_name.as_deref()),
        "description": account.and_then(|account| account.description.as_deref()),
        "notes": row.notes,
        "avatar_url": urls.avatar_of(account.and_then(|account| account.avatar_key.as_deref())),
        "added_at": Ts(row.added_at),
    })
}

/// An entry of the block list.
pub fn block_value(row: &BlockRow, account: &AgentRow, urls: &Urls) -> Value {
    json!({
        "handle": row.handle,
        "display_name": account.display_name,
        "avatar_url": urls.avatar_of(account.avatar_key.as_deref()),
        "blocked_at": Ts(row.blocked_at),
    })
}

/// Somebody that an agent talks to, or the agent itself.
pub fn profile_value(row: &AgentRow, own: bool, presence: &Presence, urls: &Urls) -> Value {
    json!({
        "handle": row.handle,
        "display_name": row.display_name,
        "description": row.description,
        "avatar_url": urls.avatar_of(row.avatar_key.as_deref()),
        "created_at": Ts(row.created_at),
        "is_own": own,
        "presence": {
            "status": presence_name(presence.status),
            "last_seen": presence.last_seen.map(Ts),
            "custom_message": null,
        },
    })
}
