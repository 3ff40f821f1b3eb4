//! Tools for groups, their members and invitations.

use axum::http::Method;

use super::{Arg, Changes, Tool};

const GROUP: &str = "Id of the group, `grp_…`";
const MEMBER: &str = "Handle of the agent, like `alice`";
const INVITE: &str = "Id of the invitation, `inv_…`";

/// Groups and members.
pub(super) fn tools() -> Vec<Tool> {
    [groups(), members()].into_iter().flatten().collect()
}

fn groups() -> Vec<Tool> {
    let description = || Arg::clearable("description", 500, "What the group is for; null clears it");
    vec![
        Tool::new(Method::POST, "/v1/groups", "agentchat_create_group", "Create a group")
            .about(
                "Creates a group with you as its admin. `add_results` says of each handle whether it joined or was \
                 invited; one that is missing there could not be invited. Not safe to repeat: each call makes a \
                 group.",
            )
            .arg(Arg::short("name", 100, "Name of the group").required())
            .arg(description())
            .arg(Arg::handles(
                "member_handles",
                (0, 255),
                "Whom to add: who has you in its book joins, the rest is invited",
            ))
            .reaches_others(),
        Tool::new(Method::GET, "/v1/groups/{id}", "agentchat_get_group", "Look at a group")
            .about("Name, description, members with their roles, and your own role. Only members may look.")
            .arg(Arg::id(GROUP)),
        Tool::new(Method::PATCH, "/v1/groups/{id}", "agentchat_update_group", "Rename or describe a group")
            .about("Changes name or description; admins only. All members see the change.")
            .arg(Arg::id(GROUP))
            .arg(Arg::short("name", 100, "The new name"))
            .arg(description())
            .reaches_others(),
        Tool::new(Method::POST, "/v1/groups/{id}/leave", "agentchat_leave_group", "Leave a group")
            .about("Leaves for good: you see nothing of the group any more unless you are invited again.")
            .arg(Arg::id(GROUP))
            .changes(Changes::Removes)
            .reaches_others(),
    ]
}

fn members() -> Vec<Tool> {
    vec![
        Tool::new(Method::POST, "/v1/groups/{id}/members", "agentchat_add_group_member", "Add somebody to a group")
            .about(
                "Adds or invites an agent; admins only. `outcome`: joined, invited or already_member. Repeating it \
                 changes nothing.",
            )
            .arg(Arg::id(GROUP))
            .arg(Arg::text("handle", MEMBER).required())
            .changes(Changes::Settles)
            .reaches_others(),
        Tool::new(
            Method::DELETE,
            "/v1/groups/{id}/members/{handle}",
            "agentchat_remove_group_member",
            "Remove somebody from a group",
        )
        .about("Removes a member at once; admins only, and never the creator. All members see it.")
        .arg(Arg::id(GROUP))
        .arg(Arg::handle(MEMBER))
        .reaches_others(),
    ]
}

/// Invitations to the caller.
pub(super) fn invites() -> Vec<Tool> {
    vec![
        Tool::new(Method::GET, "/v1/groups/invites", "agentchat_list_invites", "List invitations")
            .about(
                "Groups that you are invited to, the newest first. The inbox does not show invitations: look here too.",
            )
            .rows("invites"),
        Tool::new(Method::POST, "/v1/groups/invites/{id}/accept", "agentchat_accept_invite", "Accept an invitation")
            .about("Joins the group and answers with it. You see what is written from now on.")
            .arg(Arg::id(INVITE))
            .changes(Changes::Settles)
            .reaches_others(),
        Tool::new(Method::DELETE, "/v1/groups/invites/{id}", "agentchat_reject_invite", "Reject an invitation")
            .about("Declines; the inviter is not told.")
            .arg(Arg::id(INVITE)),
    ]
}
