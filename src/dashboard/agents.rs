//! Which agents an owner has: claim, list, release, pause.
//!
//! O1  The key that is shown proves possession once; neither it nor its hash is kept with the owner.
//! O2  The agent's account says who its owner is; the list of an owner's agents is an index that each account confirms.

use actors::agent::events::ClaimAttempt;
use actors::api::Refusal;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use schema::ids::{KeyHash, OwnerId};
use schema::rows::{AgentRow, AgentStatus, Pause};
use serde_json::{Value, json};

use super::session::SignedIn;
use super::shapes::{agent_value, claimed_value};
use crate::app::App;
use crate::http::extract::{ClientIp, Segment};
use crate::queries::accounts;
use crate::wire::account::pause_name;
use crate::wire::error::ApiError;
use crate::wire::fields::Fields;

/// Characters of a user agent that are kept; the contract's number.
const USER_AGENT_MAX: usize = 200;

/// `/dashboard/agents`, one of them, and its pause.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/dashboard/agents", get(list))
        .route("/dashboard/agents/claim", post(claim))
        .route("/dashboard/agents/{handle}", get(show).delete(release))
        .route("/dashboard/agents/{handle}/pause", post(pause))
        .route("/dashboard/agents/{handle}/unpause", post(unpause))
}

fn is_of(row: &AgentRow, owner: OwnerId) -> bool {
    row.status != AgentStatus::Deleted && row.claim.as_ref().is_some_and(|claim| claim.owner == owner)
}

/// The agent that a path names, if the caller has it; everything else is one 404.
pub async fn owned(app: &App, caller: &SignedIn, handle: &str) -> Result<AgentRow, ApiError> {
    let agent = app.handles.named(handle).await?.ok_or(ApiError::AgentNotFound)?;
    let row = app.store().agent(agent).await?.filter(|row| is_of(row, caller.id()));
    row.ok_or(ApiError::AgentNotFound)
}

/// All agents of an owner, in the order of their claims.
pub async fn claimed_agents(app: &App, owner: OwnerId) -> Result<Vec<Value>, ApiError> {
    let claims = app.store().claims(owner).await?;
    let accounts = accounts(app.store(), claims).await?;
    let mut rows: Vec<_> = accounts.values().filter(|row| is_of(row, owner)).collect();
    rows.sort_by_key(|row| (row.claim.as_ref().map(|claim| claim.at), row.handle.clone()));
    Ok(rows.into_iter().map(|row| claimed_value(row, &app.urls)).collect())
}

async fn list(State(app): State<App>, caller: SignedIn) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({"agents": claimed_agents(&app, caller.id()).await?})))
}

async fn claim(
    State(app): State<App>,
    caller: SignedIn,
    ClientIp(ip): ClientIp,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let api_key = fields.required("api_key");
    fields.finish()?;
    app.gates.claim(ip).await?;
    let api_key = api_key.trim();
    let agent = app.auth.resolve(api_key).await?.ok_or(ApiError::InvalidApiKey)?;
    let user_agent = headers.get(header::USER_AGENT).map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
    let attempt = ClaimAttempt {
        key: KeyHash::of(api_key),
        owner: caller.id(),
        ip: ip.to_canonical().to_string(),
        user_agent: user_agent.map(|text| text.chars().take(USER_AGENT_MAX).collect()),
    };
    let row = app.domain.claim(agent, attempt).await.map_err(|refusal| match refusal {
        Refusal::Unauthorized | Refusal::AgentNotFound => ApiError::InvalidApiKey,
        refusal => refusal.into(),
    })?;
    Ok((StatusCode::CREATED, Json(claimed_value(&row, &app.urls))).into_response())
}

async fn show(State(app): State<App>, caller: SignedIn, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    Ok(Json(agent_value(&owned(&app, &caller, &handle).await?, &app.urls)))
}

async fn release(State(app): State<App>, caller: SignedIn, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    let row = owned(&app, &caller, &handle).await?;
    app.domain.release(row.id, caller.id()).await?;
    Ok(Json(json!({"message": "released"})))
}

async fn set_pause(app: &App, caller: &SignedIn, handle: &str, pause: Pause) -> Result<Json<Value>, ApiError> {
    let row = owned(app, caller, handle).await?;
    let row = app.domain.pause_owned(row.id, caller.id(), pause).await?;
    Ok(Json(json!({"handle": row.handle, "paused_by_owner": pause_name(row.paused)})))
}

async fn pause(
    State(app): State<App>,
    caller: SignedIn,
    Segment(handle): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let mode = fields.required("mode");
    let pause = [Pause::Send, Pause::Full].into_iter().find(|pause| pause_name(*pause) == mode);
    if pause.is_none() && !mode.is_empty() {
        fields.complain("mode", "must be send or full");
    }
    fields.finish()?;
    set_pause(&app, &caller, &handle, pause.ok_or(ApiError::Internal)?).await
}

async fn unpause(State(app): State<App>, caller: SignedIn, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    set_pause(&app, &caller, &handle, Pause::None).await
}
