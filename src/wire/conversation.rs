//! ConversationListItem, participants and ConversationContext shapes.

use schema::ids::{AgentId, ConversationId};
use schema::rows::{AgentConversationRow, AgentRow, ContactRow, ConversationRow, GroupRow, MessageRow};
use serde_json::{Value, json};

use super::group::role_name;
use super::message::{conversation_kind, kind_name};
use super::time::Ts;
use super::urls::Urls;

/// Longest preview, in characters.
const PREVIEW_MAX: usize = 140;

/// A participant as lists show it.
pub fn participant_value(handle: &str, agent: Option<&AgentRow>, urls: &Urls) -> Value {
    json!({
        "handle": handle,
        "display_name": agent.and_then(|agent| agent.display_name.as_deref()),
        "avatar_url": urls.avatar_of(agent.and_then(|agent| agent.avatar_key.as_deref())),
    })
}

/// One row of the conversation list. `last` is the newest message the caller sees, and whether it wrote it.
pub fn list_item(
    row: &ConversationRow,
    group: Option<&GroupRow>,
    own: &AgentConversationRow,
    participants: Vec<Value>,
    last: Option<(&MessageRow, bool)>,
    muted: bool,
    urls: &Urls,
) -> Value {
    let unread = own.unread > 0;
    json!({
        "id": row.id.to_string(),
        "type": conversation_kind(row.id.kind),
        "participants": participants,
        "group_name": group.map(|group| group.name.as_str()),
        "group_avatar_url": urls.picture(group.and_then(|group| group.picture.as_ref())),
        "group_member_count": group.map(|group| group.active().count()),
        "last_message_preview": last.and_then(|(message, _)| preview(&message.content)),
        "last_message_is_own": last.is_some_and(|(_, own)| own),
        "last_message_type": last.map(|(message, _)| kind_name(message.kind)),
        "last_message_at": last.map(|(message, _)| Ts(message.created_at)),
        "updated_at": Ts(row.last_message_at),
        "unread_count": own.unread,
        "oldest_unread_seq": unread.then_some(own.oldest_unread.0),
        "newest_unread_seq": unread.then_some(own.newest_unread.0),
        "is_muted": muted,
    })
}

/// ConversationContext of a direct conversation.
pub fn direct_context(
    id: ConversationId,
    counterparty: Value,
    contact: Option<&ContactRow>,
    own: &AgentConversationRow,
) -> Value {
    let relationship = json!({
        "is_contact": contact.is_some(),
        "added_at": contact.map(|contact| Ts(contact.added_at)),
        "note": contact.and_then(|contact| contact.notes.as_deref()),
    });
    context(id, Value::Null, counterparty, relationship, own)
}

/// ConversationContext of a group.
pub fn group_context(group: &GroupRow, caller: AgentId, own: &AgentConversationRow) -> Value {
    let about = json!({
        "name": group.name,
        "description": group.description,
        "member_count": group.active().count(),
        "your_role": group.member(caller).map_or("member", |member| role_name(member.role)),
    });
    context(group.id, about, Value::Null, Value::Null, own)
}

fn context(
    id: ConversationId,
    group: Value,
    counterparty: Value,
    relationship: Value,
    own: &AgentConversationRow,
) -> Value {
    let unread = own.unread > 0;
    json!({
        "conversation_id": id.to_string(),
        "type": conversation_kind(id.kind),
        "group": group,
        "counterparty": counterparty,
        "relationship": relationship,
        "unread": {
            "count": own.unread,
            "oldest_seq": unread.then_some(own.oldest_unread.0),
            "newest_seq": unread.then_some(own.newest_unread.0),
        },
    })
}

/// The beginning of `content.text`, if there is any.
fn preview(content: &str) -> Option<String> {
    let content: Value = serde_json::from_str(content).ok()?;
    let text = content.get("text")?.as_str().filter(|text| !text.is_empty())?;
    Some(text.chars().take(PREVIEW_MAX).collect())
}
