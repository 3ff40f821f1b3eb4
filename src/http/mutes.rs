//! Mutes of agents and conversations.

use actors::api::Refusal;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use schema::ids::ConversationId;
use schema::rows::{MuteRow, MuteTarget, Timestamp};
use serde_json::{Value, json};

use super::contacts::other;
use super::extract::{Caller, Segment};
use crate::app::App;
use crate::identity::handles;
use crate::wire::error::ApiError;
use crate::wire::fields::{Fields, Query};
use crate::wire::social::mute_value;
use crate::wire::time;

/// `/v1/mutes…`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/mutes", post(mute).get(list))
        .route("/v1/mutes/agent/{handle}", get(agent).delete(unmute_agent))
        .route("/v1/mutes/conversation/{id}", get(conversation).delete(unmute_conversation))
}

/// What the body wants muted.
enum Wanted {
    Agent(String),
    Conversation(String),
}

fn wanted(body: &[u8], now: Timestamp) -> Result<(Wanted, Option<Timestamp>), ApiError> {
    let mut fields = Fields::parse(body)?;
    let either = |fields: &mut Fields, name: &str, alias: &str| fields.text(name).or_else(|| fields.text(alias));
    let kind = either(&mut fields, "target_kind", "kind");
    let target = match kind.as_deref() {
        Some("agent") => either(&mut fields, "target_handle", "handle").map(Wanted::Agent),
        Some("conversation") => either(&mut fields, "target_id", "conversation_id").map(Wanted::Conversation),
        _ => {
            fields.complain("target_kind", "must be agent or conversation");
            None
        }
    };
    match (kind.as_deref(), &target) {
        (Some("agent"), None) => fields.complain("target_handle", "is required"),
        (Some("conversation"), None) => fields.complain("target_id", "is required"),
        _ => {}
    }
    let until = fields.text("muted_until").map(|text| time::parse(&text));
    let until = match until {
        Some(Some(until)) if until > now => Some(until),
        Some(Some(_)) => {
            fields.complain("muted_until", "must lie in the future");
            None
        }
        Some(None) => {
            fields.complain("muted_until", "must be an RFC 3339 time");
            None
        }
        None => None,
    };
    fields.finish()?;
    target.map(|target| (target, until)).ok_or(ApiError::Internal)
}

async fn mute(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    let (target, until) = wanted(&body, app.clock.now())?;
    let (row, created) = match target {
        Wanted::Agent(handle) => {
            let target = other(&app, &caller, &handle).await?;
            app.domain.mute_agent(caller.id(), target, until).await?
        }
        Wanted::Conversation(id) => {
            let id = id.parse().map_err(|_| ApiError::ConversationNotFound)?;
            app.domain.mute_conversation(caller.id(), id, until).await?
        }
    };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(mute_value(caller.id(), &row))).into_response())
}

async fn list(State(app): State<App>, caller: Caller, query: Query) -> Result<Json<Value>, ApiError> {
    let kind = query.text("kind");
    if kind.is_some_and(|kind| kind != "agent" && kind != "conversation") {
        return Err(ApiError::field("kind", "must be agent or conversation"));
    }
    let wanted = |mute: &&MuteRow| match (&mute.target, kind) {
        (_, None) => true,
        (MuteTarget::Agent(..), Some(kind)) => kind == "agent",
        (MuteTarget::Conversation(_), Some(kind)) => kind == "conversation",
    };
    let mutes = app.domain.mutes(caller.id()).await?;
    let shown: Vec<Value> = mutes.iter().filter(wanted).map(|mute| mute_value(caller.id(), mute)).collect();
    Ok(Json(json!({"mutes": shown})))
}

/// The mute in force that `is` picks, or `missing`.
async fn find(
    app: &App,
    caller: &Caller,
    missing: ApiError,
    is: impl Fn(&MuteTarget) -> bool,
) -> Result<MuteRow, ApiError> {
    app.domain.mutes(caller.id()).await?.into_iter().find(|mute| is(&mute.target)).ok_or(missing)
}

async fn agent_mute(app: &App, caller: &Caller, handle: &str) -> Result<MuteRow, ApiError> {
    let handle = handles::normalise(handle);
    let is = |target: &MuteTarget| matches!(target, MuteTarget::Agent(_, muted) if *muted == handle);
    find(app, caller, ApiError::AgentNotFound, is).await
}

async fn conversation_mute(app: &App, caller: &Caller, id: &str) -> Result<MuteRow, ApiError> {
    let id: Option<ConversationId> = id.parse().ok();
    let is = |target: &MuteTarget| matches!(target, MuteTarget::Conversation(muted) if Some(*muted) == id);
    find(app, caller, ApiError::ConversationNotFound, is).await
}

async fn agent(State(app): State<App>, caller: Caller, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    Ok(Json(mute_value(caller.id(), &agent_mute(&app, &caller, &handle).await?)))
}

async fn conversation(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    Ok(Json(mute_value(caller.id(), &conversation_mute(&app, &caller, &id).await?)))
}

async fn unmute_agent(
    State(app): State<App>,
    caller: Caller,
    Segment(handle): Segment,
) -> Result<Json<Value>, ApiError> {
    let mute = agent_mute(&app, &caller, &handle).await?;
    app.domain.unmute(caller.id(), mute.target).await?;
    Ok(Json(json!({"ok": true})))
}

async fn unmute_conversation(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Json<Value>, ApiError> {
    let mute = conversation_mute(&app, &caller, &id).await?;
    app.domain.unmute(caller.id(), mute.target).await.map_err(|refusal| match refusal {
        Refusal::NoRelation => ApiError::ConversationNotFound,
        refusal => refusal.into(),
    })?;
    Ok(Json(json!({"ok": true})))
}
