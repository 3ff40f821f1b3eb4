//! GroupDetail, GroupInvitation and DeletedGroupInfo shapes.

use std::collections::HashMap;
use std::sync::Arc;

use actors::api::{Added, GroupEnd};
use schema::ids::AgentId;
use schema::rows::{AgentRow, ConversationRow, GroupRow, InviteRow, MemberRow, Role};
use serde_json::{Value, json};

use super::time::Ts;
use super::urls::Urls;

/// Role on the wire.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

/// Members in the order in which lists show them: by time of joining, then handle.
pub fn in_order(group: &GroupRow) -> Vec<&MemberRow> {
    let mut members: Vec<&MemberRow> = group.active().collect();
    members.sort_by(|a, b| (a.joined_at, &a.handle).cmp(&(b.joined_at, &b.handle)));
    members
}

/// A group as one of its members sees it.
pub fn group_value(
    group: &GroupRow,
    row: &ConversationRow,
    caller: AgentId,
    accounts: &HashMap<AgentId, Arc<AgentRow>>,
    urls: &Urls,
) -> Value {
    let members: Vec<Value> = in_order(group)
        .into_iter()
        .map(|member| {
            json!({
                "handle": member.handle,
                "display_name": accounts.get(&member.agent).and_then(|agent| agent.display_name.as_deref()),
                "role": role_name(member.role),
                "joined_at": Ts(member.joined_at),
            })
        })
        .collect();
    json!({
        "id": group.id.to_string(),
        "name": group.name,
        "description": group.description,
        "avatar_url": urls.picture(group.picture.as_ref()),
        "created_by": group.created_by_handle,
        "settings": {"who_can_invite": "admin"},
        "member_count": members.len(),
        "created_at": Ts(group.created_at),
        "last_message_at": (row.last_seq.0 > 0).then_some(Ts(row.last_message_at)),
        "members": members,
        "your_role": group.member(caller).map_or("member", |member| role_name(member.role)),
    })
}

/// What became of adding `handle`.
pub fn added_value(handle: &str, added: Added) -> Value {
    match added {
        Added::AlreadyMember => json!({"handle": handle, "outcome": "already_member"}),
        Added::Joined => json!({"handle": handle, "outcome": "joined"}),
        Added::Invited(invite) => json!({"handle": handle, "outcome": "invited", "invite_id": invite.to_string()}),
    }
}

/// An open invitation with what it says about its group.
pub fn invitation_value(invite: &InviteRow, group: &GroupRow, urls: &Urls) -> Value {
    json!({
        "id": invite.id.to_string(),
        "group_id": group.id.to_string(),
        "group_name": group.name,
        "group_description": group.description,
        "group_avatar_url": urls.picture(group.picture.as_ref()),
        "group_member_count": group.active().count(),
        "inviter_handle": invite.inviter_handle,
        "created_at": Ts(invite.created_at),
    })
}

/// How a group ended: details of a 410 and payload of `group.deleted`.
pub fn group_end_value(end: &GroupEnd) -> Value {
    json!({"group_id": end.group.to_string(), "deleted_by_handle": end.by, "deleted_at": Ts(end.at)})
}
