//! Reply coordination: several local repliers of one agent agree on who answers.

use actors::api::{ReplyCommand, ReplyState};
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{post, put};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::extract::Caller;
use crate::app::App;
use crate::wire::error::ApiError;
use crate::wire::fields::Fields;
use crate::wire::time::Ts;

/// Longest name of a session, a holder or a message, in characters.
const NAME_MAX: usize = 128;
/// Seconds of a lease when none are asked for, and the most.
const LEASE_SECONDS: (u64, u64) = (120, 3_600);
/// Most messages of one claim; the contract's number.
const CLAIM_MAX: usize = 200;

/// `/v1/reply/…`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/reply/active", put(activate).get(ask).delete(deactivate))
        .route("/v1/reply/claim", post(claim))
        .route("/v1/reply/claim-batch", post(claim_batch))
}

/// A name of 1–128 characters; `None` when it is not there.
fn name(fields: &mut Fields, key: &str) -> Option<String> {
    let name = fields.text(key)?;
    if !(1..=NAME_MAX).contains(&name.chars().count()) {
        fields.complain(key, "must be 1 to 128 characters");
    }
    Some(name)
}

fn required(fields: &mut Fields, key: &str) -> String {
    let given = name(fields, key);
    if given.is_none() && fields.raw(key).is_none() {
        fields.complain(key, "is required");
    }
    given.unwrap_or_default()
}

fn flag(fields: &mut Fields, key: &str) -> bool {
    match fields.raw(key) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            fields.complain(key, "must be a boolean");
            false
        }
    }
}

async fn active(app: &App, caller: &Caller, command: ReplyCommand) -> Result<Value, ApiError> {
    match app.domain.coordinate(caller.id(), command).await? {
        ReplyState::Active(true, until) => Ok(json!({"active": true, "expires_at": Ts(until)})),
        _ => Ok(json!({"active": false})),
    }
}

async fn activate(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let session = name(&mut fields, "session_id").unwrap_or_default();
    let ttl = fields.integer("ttl_seconds", 1..=LEASE_SECONDS.1).unwrap_or(LEASE_SECONDS.0);
    fields.finish()?;
    active(&app, &caller, ReplyCommand::Activate { session, ttl_ms: ttl * 1_000 }).await.map(Json)
}

async fn ask(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    active(&app, &caller, ReplyCommand::Ask).await.map(Json)
}

async fn deactivate(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let session = name(&mut fields, "session_id").unwrap_or_default();
    fields.finish()?;
    active(&app, &caller, ReplyCommand::Deactivate(session)).await.map(Json)
}

async fn run_claim(
    app: &App,
    caller: &Caller,
    messages: Vec<String>,
    holder: String,
    defer: bool,
) -> Result<(usize, bool), ApiError> {
    match app.domain.coordinate(caller.id(), ReplyCommand::Claim { messages, holder, defer }).await? {
        ReplyState::Claimed(count, deferred) => Ok((count, deferred)),
        ReplyState::Active(..) => Err(ApiError::Internal),
    }
}

async fn claim(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let (message, holder) = (required(&mut fields, "message_id"), required(&mut fields, "holder"));
    let defer = flag(&mut fields, "defer_if_active");
    fields.finish()?;
    let (claimed, deferred) = run_claim(&app, &caller, vec![message], holder, defer).await?;
    Ok(Json(json!({"claimed": claimed == 1, "deferred": deferred})))
}

async fn claim_batch(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let messages = fields.required_strings("message_ids").unwrap_or_default();
    let bad = |id: &String| !(1..=NAME_MAX).contains(&id.chars().count());
    if messages.len() > CLAIM_MAX || messages.iter().any(bad) {
        fields.complain("message_ids", "must have at most 200 ids of 1 to 128 characters");
    }
    let holder = required(&mut fields, "holder");
    let defer = flag(&mut fields, "defer_if_active");
    fields.finish()?;
    let (claimed, deferred) = run_claim(&app, &caller, messages, holder, defer).await?;
    Ok(Json(json!({"claimed_count": claimed, "deferred": deferred})))
}
