//! Groups: create, read, change, members, invitations.
//!
//! G1  The conversation judges; here bodies are read and handles resolved. A handle that names nobody is judged too, after
//!     the caller's role.
//! G2  A change runs to its end even if the client goes away: half a change would be seen by others.

use std::future::Future;

use actors::conversation::group::{Actor, GroupCommand, GroupPatch};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use schema::ids::{AgentId, ConversationId, ConversationKind, InviteId};
use schema::rows::{Pause, Picture, Role};
use serde_json::{Value, json};

use super::extract::{Caller, Segment};
use crate::app::App;
use crate::config::GroupAddMode;
use crate::identity::{fresh_key, handles};
use crate::queries::{accounts, history};
use crate::wire::error::ApiError;
use crate::wire::fields::Fields;
use crate::wire::group::{added_value, group_value, invitation_value};
use crate::wire::time::Ts;

/// Most initial members beside the creator; the contract's number.
const INITIAL_MAX: usize = 255;
/// Longest name and description, in characters.
const NAME_MAX: usize = 100;
/// See [`NAME_MAX`].
const DESCRIPTION_MAX: usize = 500;
/// Longest picture URL.
const URL_MAX: usize = 2_048;

/// `/v1/groups…`, avatars excepted.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/groups", post(create))
        .route("/v1/groups/invites", get(invites))
        .route("/v1/groups/invites/{id}", delete(reject))
        .route("/v1/groups/invites/{id}/accept", post(accept))
        .route("/v1/groups/{id}", get(show).patch(update).delete(end))
        .route("/v1/groups/{id}/members", post(add))
        .route("/v1/groups/{id}/members/{handle}", delete(remove))
        .route("/v1/groups/{id}/members/{handle}/promote", post(promote))
        .route("/v1/groups/{id}/members/{handle}/demote", post(demote))
        .route("/v1/groups/{id}/leave", post(leave))
}

/// The group that a path names.
pub(super) fn parse(id: &str) -> Result<ConversationId, ApiError> {
    let id: ConversationId = id.parse().map_err(|_| ApiError::ConversationNotFound)?;
    if id.kind == ConversationKind::Group { Ok(id) } else { Err(ApiError::ConversationNotFound) }
}

/// The caller as the conversation knows it.
pub(super) fn actor(caller: &Caller) -> Actor {
    Actor { agent: caller.id(), handle: caller.account.handle.clone() }
}

/// Runs a change to its end (G2).
pub(super) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change).await.map_err(|_| ApiError::Internal)?
}

/// Agents that reach other agents need leave of their owner.
fn unpaused(caller: &Caller) -> Result<(), ApiError> {
    if caller.account.paused == Pause::None { Ok(()) } else { Err(ApiError::PausedByOwner) }
}

/// GroupDetail for the caller.
async fn detail(app: &App, caller: AgentId, id: ConversationId) -> Result<Value, ApiError> {
    let view = history::view(app, id, caller).await?;
    let group = view.group.as_ref().ok_or(ApiError::ConversationNotFound)?;
    let accounts = accounts(app.store(), group.active().map(|member| member.agent)).await?;
    Ok(group_value(group, &view.row, caller, &accounts, &app.urls))
}

fn name(fields: &mut Fields, required: bool) -> Option<String> {
    let name = fields.text("name");
    if name.is_none() && required && fields.raw("name").is_none() {
        fields.complain("name", "is required");
    }
    let name = name?.trim().to_owned();
    if name.is_empty() || name.chars().count() > NAME_MAX {
        fields.complain("name", "must be 1 to 100 characters");
    }
    if name.chars().any(char::is_control) {
        fields.complain("name", "must not contain control characters");
    }
    Some(name)
}

/// `Some(None)` clears.
fn picture(fields: &mut Fields) -> Option<Option<Picture>> {
    let url = fields.clearable("avatar_url", URL_MAX)?;
    let web = |url: &str| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) && !url.contains(char::is_whitespace)
    };
    if url.as_deref().is_some_and(|url| !web(url)) {
        fields.complain("avatar_url", "must be an absolute http or https URL");
    }
    Some(url.map(Picture::Url))
}

fn settings(fields: &mut Fields) -> bool {
    let Some(raw) = fields.raw("settings").map(str::to_owned) else { return false };
    match Fields::parse(raw.as_bytes()) {
        Ok(mut inner) => {
            if inner.text("who_can_invite").is_some_and(|who| who != "admin") || inner.finish().is_err() {
                fields.complain("settings.who_can_invite", "must be admin");
            }
        }
        Err(_) => fields.complain("settings", "must be an object"),
    }
    true
}

fn initial_members(fields: &mut Fields) -> Vec<String> {
    let handles = fields.strings("member_handles").unwrap_or_default();
    if handles.len() > INITIAL_MAX {
        fields.complain("member_handles", "must have at most 255 entries");
    }
    let mut unique = Vec::new();
    for handle in handles.iter().map(|handle| handles::normalise(handle)) {
        if !unique.contains(&handle) {
            unique.push(handle);
        }
    }
    unique
}

async fn create(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    app.gates.group_change(caller.id()).await?;
    let mut fields = Fields::parse(&body)?;
    let name = name(&mut fields, true);
    let description = fields.clearable("description", DESCRIPTION_MAX).flatten();
    let picture = picture(&mut fields).flatten();
    settings(&mut fields);
    let handles = initial_members(&mut fields);
    fields.finish()?;
    unpaused(&caller)?;
    let command = GroupCommand::Create { name: name.unwrap_or_default(), description, picture };
    let id = ConversationId { kind: ConversationKind::Group, key: fresh_key() };
    let body = to_the_end(async move {
        app.domain.create_group(id, actor(&caller), command).await?;
        let mut results = Vec::new();
        for handle in handles.into_iter().filter(|handle| *handle != caller.account.handle) {
            let Some(target) = app.handles.named(&handle).await? else { continue };
            match add_one(&app, id, &caller, Some(target)).await {
                Ok(added) => results.push(added_value(&handle, added)),
                Err(error @ (ApiError::Unavailable | ApiError::Internal)) => return Err(error),
                Err(_) => {} // a handle that is missing from the results was not invited
            }
        }
        Ok(json!({"group": detail(&app, caller.id(), id).await?, "add_results": results}))
    });
    Ok((StatusCode::CREATED, Json(body.await?)).into_response())
}

async fn add_one(
    app: &App,
    id: ConversationId,
    caller: &Caller,
    target: Option<AgentId>,
) -> Result<actors::api::Added, ApiError> {
    let auto_join = app.config.group_add_mode == GroupAddMode::ContactsAutoJoin;
    let added = app.domain.add_to_group(id, actor(caller), target, InviteId(fresh_key()), auto_join).await?;
    app.groups.forget(id);
    Ok(added)
}

async fn show(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    detail(&app, caller.id(), parse(&id)?).await.map(Json)
}

async fn update(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    app.gates.group_change(caller.id()).await?;
    let mut fields = Fields::parse(&body)?;
    let patch = GroupPatch {
        name: name(&mut fields, false),
        description: fields.clearable("description", DESCRIPTION_MAX),
        picture: picture(&mut fields),
        picture_always_tells: false,
    };
    settings(&mut fields);
    fields.finish()?;
    let id = parse(&id)?;
    to_the_end(async move {
        app.domain.update_group(id, actor(&caller), patch).await?;
        app.groups.forget(id);
        detail(&app, caller.id(), id).await.map(Json)
    })
    .await
}

async fn end(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    app.gates.group_change(caller.id()).await?;
    let id = parse(&id)?;
    let at = to_the_end(async move { Ok(app.domain.delete_group(id, actor(&caller)).await?) }).await?;
    Ok(Json(json!({"deleted_at": Ts(at)})))
}

async fn add(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    app.gates.group_change(caller.id()).await?;
    let mut fields = Fields::parse(&body)?;
    let handle = fields.required("handle");
    fields.finish()?;
    unpaused(&caller)?;
    let id = parse(&id)?;
    let target = app.handles.named(&handle).await?;
    let added = to_the_end(async move { add_one(&app, id, &caller, target).await }).await?;
    Ok(Json(added_value(&handles::normalise(&handle), added)))
}

/// The two `{...}` segments of a member's path.
type Member = axum::extract::Path<(String, String)>;

async fn remove(
    State(app): State<App>,
    caller: Caller,
    axum::extract::Path((id, handle)): Member,
) -> Result<Json<Value>, ApiError> {
    app.gates.group_change(caller.id()).await?;
    let (id, target) = (parse(&id)?, app.handles.named(&handle).await?);
    app.domain.remove_member(id, actor(&caller), target).await?;
    app.groups.forget(id);
    Ok(Json(json!({"ok": true, "message": "removed"})))
}

async fn set_role(app: App, caller: Caller, id: &str, handle: &str, role: Role) -> Result<Json<Value>, ApiError> {
    app.gates.group_change(caller.id()).await?;
    let (id, target) = (parse(id)?, app.handles.named(handle).await?);
    app.domain.set_role(id, actor(&caller), target, role).await?;
    let message = if role == Role::Admin { "promoted" } else { "demoted" };
    Ok(Json(json!({"ok": true, "message": message})))
}

async fn promote(
    State(app): State<App>,
    caller: Caller,
    axum::extract::Path((id, handle)): Member,
) -> Result<Json<Value>, ApiError> {
    set_role(app, caller, &id, &handle, Role::Admin).await
}

async fn demote(
    State(app): State<App>,
    caller: Caller,
    axum::extract::Path((id, handle)): Member,
) -> Result<Json<Value>, ApiError> {
    set_role(app, caller, &id, &handle, Role::Member).await
}

async fn leave(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    app.gates.group_change(caller.id()).await?;
    let id = parse(&id)?;
    let heir = app.domain.leave_group(id, actor(&caller)).await?;
    app.groups.forget(id);
    Ok(Json(json!({"message": "left the group", "promoted_handle": heir})))
}

async fn invites(State(app): State<App>, caller: Caller) -> Result<Json<Vec<Value>>, ApiError> {
    let mut open = app.store().invites(caller.id()).await?;
    open.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    let mut shown = Vec::with_capacity(open.len());
    for invite in &open {
        if let Some(group) = app.store().group(invite.group).await? {
            shown.push(invitation_value(invite, &group, &app.urls));
        }
    }
    Ok(Json(shown))
}

fn invite(id: &str) -> Result<InviteId, ApiError> {
    id.parse().map_err(|_| ApiError::InviteNotFound)
}

async fn accept(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    app.gates.group_change(caller.id()).await?;
    let invite = invite(&id)?;
    to_the_end(async move {
        let view = app.domain.accept_invite(actor(&caller), invite).await?;
        app.groups.forget(view.row.id);
        detail(&app, caller.id(), view.row.id).await.map(Json)
    })
    .await
}

async fn reject(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    app.gates.group_change(caller.id()).await?;
    app.domain.reject_invite(actor(&caller), invite(&id)?).await?;
    Ok(Json(json!({"ok": true, "message": "rejected"})))
}
