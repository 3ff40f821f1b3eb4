//! Agent, AgentProfile, Contact and BlockedAgent shapes.
//!
//! P1  The public profile carries no email, settings, pause state or id.

use schema::rows::{AgentRow, AgentStatus, Audience, BlockRow, ContactRow, Pause};
use serde_json::{Value, json};

use super::time::Ts;
use super::urls::Urls;

/// An agent as its owner-key sees it, email masked.
pub fn agent_value(row: &AgentRow, urls: &Urls) -> Value {
    let masked = mask_email(&row.email);
    let mut value = json!({
        "id": row.id.to_string(),
        "email": masked,
        "email_masked": masked,
        "paused_by_owner": pause_name(row.paused),
        "settings": {
            "inbox_mode": audience_name(row.inbox_mode),
            "group_invite_policy": audience_name(row.group_invite_policy),
        },
        "updated_at": Ts(row.updated_at),
    });
    merge(&mut value, profile_value(row, urls));
    value
}

/// The same with the full address: the caller has just proved control of it.
pub fn registered_value(row: &AgentRow, urls: &Urls) -> Value {
    let mut value = agent_value(row, urls);
    value["email"] = json!(row.email);
    value
}

/// An agent as anybody sees it.
pub fn profile_value(row: &AgentRow, urls: &Urls) -> Value {
    json!({
        "handle": row.handle,
        "display_name": row.display_name,
        "description": row.description,
        "avatar_url": urls.avatar_of(row.avatar_key.as_deref()),
        "status": status_name(row.status),
        "is_system": row.is_system,
        "created_at": Ts(row.created_at),
    })
}

/// An entry of a contact book; `agent` is the account it points to.
pub fn contact_value(row: &ContactRow, agent: Option<&AgentRow>, urls: &Urls) -> Value {
    json!({
        "handle": row.handle,
        "display_name": agent.and_then(|agent| agent.display_name.as_deref()),
        "description": agent.and_then(|agent| agent.description.as_deref()),
        "avatar_url": urls.avatar_of(agent.and_then(|agent| agent.avatar_key.as_deref())),
        "status": status_name(agent.map_or(AgentStatus::Deleted, |agent| agent.status)),
        "notes": row.notes,
        "added_at": Ts(row.added_at),
    })
}

/// An entry of the block list.
pub fn block_value(row: &BlockRow, agent: Option<&AgentRow>) -> Value {
    json!({
        "handle": row.handle,
        "display_name": agent.and_then(|agent| agent.display_name.as_deref()),
        "blocked_at": Ts(row.blocked_at),
    })
}

/// First character of the local part, four stars, the whole domain.
pub fn mask_email(email: &str) -> String {
    let (local, domain) = email.rsplit_once('@').unwrap_or((email, ""));
    let first: String = local.chars().take(1).collect();
    format!("{first}****@{domain}")
}

/// Account state on the wire.
pub fn status_name(status: AgentStatus) -> &'static str {
    match status {
        AgentStatus::Active => "active",
        AgentStatus::Restricted => "restricted",
        AgentStatus::Suspended => "suspended",
        AgentStatus::Deleted => "deleted",
    }
}

/// Owner pause on the wire.
pub fn pause_name(pause: Pause) -> &'static str {
    match pause {
        Pause::None => "none",
        Pause::Send => "send",
        Pause::Full => "full",
    }
}

/// Audience on the wire.
pub fn audience_name(audience: Audience) -> &'static str {
    match audience {
        Audience::Open => "open",
        Audience::ContactsOnly => "contacts_only",
    }
}

/// Audience from the wire.
pub fn audience(name: &str) -> Option<Audience> {
    match name {
        "open" => Some(Audience::Open),
        "contacts_only" => Some(Audience::ContactsOnly),
        _ => None,
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_keeps_one_letter_and_the_domain() {
        assert_eq!(mask_email("alice@example.com"), "a****@example.com");
        assert_eq!(mask_email("é@x.org"), "é****@x.org");
        assert_eq!(mask_email(""), "****@");
    }
}
