//! Contact book and block list.
//!
//! K1  A handle that does not exist, is deleted, or is not in the book is one and the same 404.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use schema::ids::AgentId;
use schema::rows::{AgentRow, ContactRow};
use serde_json::{Value, json};

use super::extract::{Caller, Segment};
use crate::app::App;
use crate::identity::handles;
use crate::queries::accounts;
use crate::wire::account::{block_value, contact_value};
use crate::wire::error::ApiError;
use crate::wire::fields::{Fields, Page, Query};

/// Longest note on a contact, in characters.
const NOTES_MAX: usize = 1_000;
/// Longest reason for a report, in characters.
const REASON_MAX: usize = 500;
/// Page of both lists when none is asked for, and the largest.
const PAGE: (usize, usize) = (50, 200);

/// `/v1/contacts…` and `/v1/blocks`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/contacts", post(add).get(list))
        .route("/v1/contacts/{handle}", get(one).patch(annotate).delete(remove))
        .route("/v1/contacts/{handle}/block", post(block).delete(unblock))
        .route("/v1/contacts/{handle}/report", post(report))
        .route("/v1/blocks", get(blocks))
}

/// The agent that a handle in a request names; not the caller.
pub(super) async fn other(app: &App, caller: &Caller, handle: &str) -> Result<AgentId, ApiError> {
    match app.handles.named(handle).await? {
        Some(agent) if agent == caller.id() => Err(ApiError::field("handle", "must be another agent")),
        Some(agent) => Ok(agent),
        None => Err(ApiError::AgentNotFound),
    }
}

async fn contact_body(app: &App, contact: &ContactRow) -> Result<Value, ApiError> {
    Ok(contact_value(contact, app.store().agent(contact.agent).await?.as_ref(), &app.urls))
}

async fn add(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let handle = fields.required("handle");
    let notes = fields.clearable("notes", NOTES_MAX);
    fields.finish()?;
    let target = other(&app, &caller, &handle).await?;
    let (contact, created) = app.domain.put_contact(caller.id(), target, notes).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(contact_body(&app, &contact).await?)).into_response())
}

async fn list(State(app): State<App>, caller: Caller, query: Query) -> Result<Json<Value>, ApiError> {
    let Page { limit, offset } = query.page(PAGE.0, PAGE.1)?;
    let book = app.store().contacts(caller.id()).await?;
    let page: Vec<&ContactRow> = book.iter().skip(offset).take(limit).collect();
    let accounts = accounts(app.store(), page.iter().map(|contact| contact.agent)).await?;
    let account = |contact: &ContactRow| accounts.get(&contact.agent).map(Arc::as_ref);
    let contacts: Vec<Value> = page.iter().map(|contact| contact_value(contact, account(contact), &app.urls)).collect();
    Ok(Json(json!({"contacts": contacts, "total": book.len(), "limit": limit, "offset": offset})))
}

async fn one(State(app): State<App>, caller: Caller, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    let handle = handles::normalise(&handle);
    let book = app.store().contacts(caller.id()).await?;
    let contact = book.iter().find(|contact| contact.handle == handle).ok_or(ApiError::AgentNotFound)?;
    let mut value = contact_body(&app, contact).await?;
    value["is_contact"] = json!(true);
    Ok(Json(value))
}

async fn annotate(
    State(app): State<App>,
    caller: Caller,
    Segment(handle): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let notes = fields.clearable("notes", NOTES_MAX);
    if notes.is_none() {
        fields.complain("notes", "is required");
    }
    fields.finish()?;
    let handle = handles::normalise(&handle);
    let contact = app.domain.annotate_contact(caller.id(), handle, notes.flatten()).await?;
    Ok(Json(contact_body(&app, &contact).await?))
}

async fn remove(State(app): State<App>, caller: Caller, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    app.domain.remove_contact(caller.id(), handles::normalise(&handle)).await?;
    Ok(Json(json!({"ok": true})))
}

async fn block(State(app): State<App>, caller: Caller, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    let target = other(&app, &caller, &handle).await?;
    app.domain.block(caller.id(), target).await?;
    Ok(Json(json!({"ok": true})))
}

async fn report(
    State(app): State<App>,
    caller: Caller,
    Segment(handle): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let reason = fields.clearable("reason", REASON_MAX).flatten();
    fields.finish()?;
    let target = other(&app, &caller, &handle).await?;
    app.domain.report(caller.id(), target, reason).await?;
    Ok(Json(json!({"ok": true})))
}

async fn unblock(State(app): State<App>, caller: Caller, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    app.domain.unblock(caller.id(), handles::normalise(&handle)).await?;
    Ok(Json(json!({"ok": true})))
}

async fn blocks(State(app): State<App>, caller: Caller, query: Query) -> Result<Json<Value>, ApiError> {
    let Page { limit, offset } = query.page(PAGE.0, PAGE.1)?;
    let mut blocks = app.store().blocks(caller.id()).await?;
    blocks.sort_by(|a, b| b.blocked_at.cmp(&a.blocked_at).then_with(|| a.handle.cmp(&b.handle)));
    let total = blocks.len();
    let page: Vec<_> = blocks.into_iter().skip(offset).take(limit).collect();
    let accounts = accounts(app.store(), page.iter().map(|block| block.agent)).await?;
    let account = |agent| accounts.get(&agent).map(|row: &Arc<AgentRow>| row.as_ref());
    let blocks: Vec<Value> = page.iter().map(|block| block_value(block, account(block.agent))).collect();
    Ok(Json(json!({"blocks": blocks, "total": total, "limit": limit, "offset": offset})))
}
