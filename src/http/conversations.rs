//! The conversation list, participants, context, hide.

use axum::extract::State;
use axum::routing::{delete, get};
use axum::{Json, Router};
use schema::ids::ConversationId;
use serde_json::{Value, json};

use super::extract::{Caller, Segment};
use crate::app::App;
use crate::queries::conversations::{self, counterparty, own_view};
use crate::queries::history;
use crate::wire::conversation::{context_value, participant_value};
use crate::wire::error::ApiError;
use crate::wire::fields::Query;

/// Rows when no limit is asked for: older clients expect the whole list and slice it.
const LIST_DEFAULT: usize = 1_000;
/// Largest limit that is honoured.
const LIST_MAX: usize = 500;

/// `/v1/conversations…`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/conversations", get(list))
        .route("/v1/conversations/{id}", delete(hide))
        .route("/v1/conversations/{id}/participants", get(participants))
        .route("/v1/conversations/{id}/context", get(context))
}

async fn list(State(app): State<App>, caller: Caller, query: Query) -> Result<Json<Vec<Value>>, ApiError> {
    let page = query.page(LIST_DEFAULT, LIST_MAX)?;
    conversations::list(app.store(), caller.id(), page.limit, page.offset).await.map(Json)
}

fn parse(id: &str) -> Result<ConversationId, ApiError> {
    id.parse().map_err(|_| ApiError::ConversationNotFound)
}

/// The counterparty as participant lists show it.
async fn peer(app: &App, caller: &Caller, id: ConversationId) -> Result<Option<Value>, ApiError> {
    let view = history::view(app, id, caller.id()).await?;
    let Some((agent, handle)) = counterparty(&view.row, caller.id()) else { return Ok(None) };
    Ok(Some(participant_value(handle, app.store().agent(agent).await?.as_ref())))
}

async fn participants(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Json<Vec<Value>>, ApiError> {
    Ok(Json(peer(&app, &caller, parse(&id)?).await?.into_iter().collect()))
}

async fn context(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    let id = parse(&id)?;
    let peer = peer(&app, &caller, id).await?;
    let own = own_view(app.store().as_ref(), caller.id(), id).await?;
    let book = app.store().contacts(caller.id()).await?;
    let contact = book.iter().find(|contact| peer.as_ref().is_some_and(|peer| peer["handle"] == contact.handle));
    Ok(Json(context_value(id, peer.unwrap_or(Value::Null), contact, &own)))
}

async fn hide(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    let id = parse(&id)?;
    history::view(&app, id, caller.id()).await?;
    app.domain.hide_conversation(caller.id(), id).await?;
    Ok(Json(json!({"ok": true, "hidden": true})))
}
