//! Mutes, presence and webhooks: shapes and names.

use actors::api::Presence;
use schema::ids::AgentId;
use schema::rows::{HookKind, MuteRow, MuteTarget, PresenceStatus, WebhookRow};
use serde_json::{Value, json};

use super::fields::Fields;
use super::time::Ts;

/// A mute of `muter`.
pub fn mute_value(muter: AgentId, mute: &MuteRow) -> Value {
    let (kind, id, handle) = match &mute.target {
        MuteTarget::Agent(_, handle) => ("agent", handle.clone(), Some(handle)),
        MuteTarget::Conversation(id) => ("conversation", id.to_string(), None),
    };
    json!({
        "muter_agent_id": muter.to_string(),
        "target_kind": kind,
        "target_id": id,
        "target_handle": handle,
        "muted_until": mute.until.map(Ts),
        "created_at": Ts(mute.created_at),
    })
}

/// Presence of an agent.
pub fn presence_value(handle: &str, presence: &Presence) -> Value {
    json!({
        "handle": handle,
        "status": presence_name(presence.status),
        "custom_message": presence.message,
        "last_seen": presence.last_seen.map(Ts),
    })
}

/// Presence on the wire.
pub fn presence_name(status: PresenceStatus) -> &'static str {
    match status {
        PresenceStatus::Online => "online",
        PresenceStatus::Offline => "offline",
        PresenceStatus::Busy => "busy",
    }
}

/// Presence from the wire.
pub fn presence_status(name: &str) -> Option<PresenceStatus> {
    match name {
        "online" => Some(PresenceStatus::Online),
        "offline" => Some(PresenceStatus::Offline),
        "busy" => Some(PresenceStatus::Busy),
        _ => None,
    }
}

/// Events a webhook can ask for, with their names.
pub const HOOK_KINDS: [(&str, HookKind); 6] = [
    ("message.new", HookKind::MessageNew),
    ("message.read", HookKind::MessageRead),
    ("presence.update", HookKind::PresenceUpdate),
    ("contact.blocked", HookKind::ContactBlocked),
    ("group.invite.received", HookKind::GroupInvite),
    ("group.deleted", HookKind::GroupDeleted),
];

/// A webhook without its secret.
pub fn webhook_value(hook: &WebhookRow) -> Value {
    let wanted = HOOK_KINDS.iter().filter(|(_, kind)| hook.events.contains(kind)).map(|(name, _)| name);
    json!({
        "id": hook.id.to_string(),
        "url": hook.url,
        "events": wanted.collect::<Vec<_>>(),
        "active": hook.active,
        "created_at": Ts(hook.created_at),
    })
}

/// Longest message beside a presence, in characters.
const MESSAGE_MAX: usize = 200;

/// Status and message of a presence change; what is wrong is complained about in `fields`.
pub fn presence_fields(fields: &mut Fields) -> (PresenceStatus, Option<String>) {
    let name = fields.required("status");
    let status = presence_status(&name);
    if status.is_none() && !name.is_empty() {
        fields.complain("status", "must be online, offline or busy");
    }
    let message =
        fields.clearable("custom_message", MESSAGE_MAX).or_else(|| fields.clearable("custom_status", MESSAGE_MAX));
    (status.unwrap_or_default(), message.flatten())
}
