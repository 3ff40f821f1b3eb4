//! The conversation list, participants, context, hide.

use actors::api::ConversationView;
use axum::extract::State;
use axum::routing::{delete, get};
use axum::{Json, Router};
use schema::ids::ConversationId;
use serde_json::{Value, json};

use super::extract::{Caller, Segment};
use crate::app::App;
use crate::queries::accounts;
use crate::queries::conversations::{self, counterparty, own_view};
use crate::queries::history;
use crate::wire::conversation::{direct_context, group_context, participant_value};
use crate::wire::error::ApiError;
use crate::wire::fields::Query;
use crate::wire::group::in_order;

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
    conversations::list(&app, caller.id(), page.limit, page.offset).await.map(Json)
}

fn parse(id: &str) -> Result<ConversationId, ApiError> {
    id.parse().map_err(|_| ApiError::ConversationNotFound)
}

/// The counterparty as participant lists show it.
async fn peer(app: &App, caller: &Caller, view: &ConversationView) -> Result<Option<Value>, ApiError> {
    let Some((agent, handle)) = counterparty(&view.row, caller.id()) else { return Ok(None) };
    Ok(Some(participant_value(handle, app.store().agent(agent).await?.as_ref(), &app.urls)))
}

async fn participants(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Json<Vec<Value>>, ApiError> {
    let view = history::view(&app, parse(&id)?, caller.id()).await?;
    let Some(group) = &view.group else { return Ok(Json(peer(&app, &caller, &view).await?.into_iter().collect())) };
    let members = in_order(group);
    let accounts = accounts(app.store(), members.iter().map(|member| member.agent)).await?;
    let shown = members.iter().map(|member| {
        participant_value(&member.handle, accounts.get(&member.agent).map(|row| row.as_ref()), &app.urls)
    });
    Ok(Json(shown.collect()))
}

async fn context(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    let id = parse(&id)?;
    let view = history::view(&app, id, caller.id()).await?;
    let own = own_view(app.store().as_ref(), caller.id(), id).await?;
    if let Some(group) = &view.group {
        return Ok(Json(group_context(group, caller.id(), &own)));
    }
    let peer = peer(&app, &caller, &view).await?;
    let book = app.store().contacts(caller.id()).await?;
    let contact = book.iter().find(|contact| peer.as_ref().is_some_and(|peer| peer["handle"] == contact.handle));
    Ok(Json(direct_context(id, peer.unwrap_or(Value::Null), contact, &own)))
}

async fn hide(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    let id = parse(&id)?;
    history::view(&app, id, caller.id()).await?;
    app.domain.hide_conversation(caller.id(), id).await?;
    Ok(Json(json!({"ok": true, "hidden": true})))
}
