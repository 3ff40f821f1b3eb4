//! Sending, history, read, hide, sync.
//!
//! M1  A send is answered only by the domain; a replay is found there, before any gate (contract S5).
//! M2  Conversations and messages that the caller may not see answer as if they had never existed (contract S20).

use actors::api::{ConversationView, Refusal, Sent, Target};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use schema::ids::{ConversationId, DeliveryId, MessageId, Pos, Seq};
use schema::rows::{DeliveryState, InboxRow, MessageRow};
use serde_json::{Value, json};

use super::attachments;
use super::extract::{Caller, Presented, Segment};
use crate::app::App;
use crate::queries::context::{Context, about, place};
use crate::queries::history::{self, Cursor, Seen};
use crate::queries::inbox;
use crate::wire::content::{self, Address};
use crate::wire::error::ApiError;
use crate::wire::fields::{Fields, Query};
use crate::wire::message::{MessageState, message_value};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replay");
const BACKLOG: HeaderName = HeaderName::from_static("x-backlog-warning");
/// History page when none is asked for, and the largest.
const HISTORY_PAGE: (usize, usize) = (50, 200);
/// Sync page when none is asked for, and the largest.
const SYNC_PAGE: (usize, usize) = (200, 500);

/// `/v1/messages…`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/messages", post(send))
        .route("/v1/messages/sync", get(sync))
        .route("/v1/messages/sync/ack", post(ack))
        .route("/v1/messages/{id}", get(page).merge(delete(hide)))
        .route("/v1/messages/{id}/read", post(read))
}

/// The key goes to the agent together with the message. What has to be known before a refusal of the body or of the address,
/// or before an attachment is looked at, is asked for on its own.
async fn send(State(app): State<App>, mut sender: Presented, body: Bytes) -> Result<Response, ApiError> {
    let parsed = Fields::parse(&body).and_then(content::draft);
    if !parsed.as_ref().is_ok_and(|(_, draft)| draft.attachment.is_none()) {
        sender.admit(&app).await?;
    }
    let (address, mut draft) = parsed?;
    let found = target(&app, address).await;
    if found.is_err() {
        sender.admit(&app).await?; // who may not ask at all learns nothing of others
    }
    let target = found?;
    if let Some(attachment) = &mut draft.attachment {
        attachment.usable = attachments::usable(&app, sender.id(), &attachment.id, &target).await?;
    }
    let sent = match sender {
        Presented::Key(credential) => app.domain.send_as(credential, target, draft).await,
        Presented::Admitted(caller) => app.domain.send(caller.id(), target, draft).await,
    };
    let mut sent = sent.map_err(|refusal| match refusal {
        Refusal::SelfTarget => ApiError::field("to", "must be another agent"),
        Refusal::ColdLimit { retry_after_ms } => {
            ApiError::ColdLimit { retry_after_ms, limit: app.config.numbers.cold_threads }
        }
        refusal => refusal.into(),
    })?;
    if sent.replayed {
        let state = state_of_own(&app, &sent.message).await?;
        let body = message_json(&app, sent, state).await?;
        return Ok((StatusCode::OK, [(REPLAYED, HeaderValue::from_static("true"))], body).into_response());
    }
    let backlog = sent.backlog.take();
    let body = message_json(&app, sent, MessageState::default()).await?;
    let mut response = (StatusCode::CREATED, body).into_response();
    if let Some((handle, count)) = backlog
        && let Ok(warning) = HeaderValue::from_str(&format!("{handle}={count}"))
    {
        response.headers_mut().insert(BACKLOG, warning);
    }
    Ok(response)
}

/// What cannot exist is left to the domain too: a replay of the same key still answers first.
async fn target(app: &App, address: Address) -> Result<Target, ApiError> {
    Ok(match address {
        Address::Handle(handle) => app.handles.named(&handle).await?.map_or(Target::UnknownAgent, Target::Agent),
        Address::Conversation(id) => id.parse().map_or(Target::UnknownConversation, Target::Conversation),
    })
}

/// How far an own message came with its recipient.
async fn state_of_own(app: &App, message: &MessageRow) -> Result<MessageState, ApiError> {
    let id = MessageId { conversation: message.conversation, seq: message.seq };
    let seen = match history::view(app, message.conversation, message.sender).await {
        Ok(view) => history::one(app.store().as_ref(), &view, message.sender, id).await,
        Err(error) => Err(error),
    };
    match seen {
        Ok(seen) => Ok(seen.state),
        // Hidden by its sender, or its conversation is gone: the message is the answer all the same.
        Err(ApiError::MessageNotFound | ApiError::ConversationNotFound | ApiError::GroupDeleted(_)) => {
            Ok(MessageState::default())
        }
        Err(error) => Err(error),
    }
}

async fn message_json(app: &App, sent: Sent, state: MessageState) -> Result<Response, ApiError> {
    let group = app.groups.get(sent.message.conversation).await?;
    let about = about(Some(&sent.author), group.as_deref());
    Ok(Json(message_value(&sent.message, about, state).with_skipped(sent.skipped)).into_response())
}

async fn page(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
    query: Query,
) -> Result<Response, ApiError> {
    let limit = query.limit(HISTORY_PAGE.0, HISTORY_PAGE.1)?;
    let wanted = cursor(&query)?;
    let id = id.parse().map_err(|_| ApiError::ConversationNotFound)?;
    let view = history::view(&app, id, caller.id()).await?;
    let cursor = wanted.ok_or(ApiError::MessageNotFound)?;
    let rows = history::page(app.store().as_ref(), &view, caller.id(), cursor, limit).await?;
    let context = Context::read(&app, rows.iter().map(|row| place(&row.message)).collect()).await?;
    let shown = rows.iter().map(|Seen { message, state, .. }| {
        message_value(message, context.about(message), *state).with_ownership(message.sender == caller.id())
    });
    Ok(Json(shown.collect::<Vec<_>>()).into_response())
}

/// At most one cursor. `Ok(None)`: the message it names cannot exist.
fn cursor(query: &Query) -> Result<Option<Cursor>, ApiError> {
    const COMPLAINT: &str = "must be a non-negative integer";
    let before = query.parsed::<u64>("before_seq", COMPLAINT)?.map(|seq| Some(Cursor::Before(Seq(seq))));
    let after = query.parsed::<u64>("after_seq", COMPLAINT)?.map(|seq| Some(Cursor::After(Seq(seq))));
    let around = query.text("around_message_id").map(|id| id.parse().ok().map(Cursor::EndingAt));
    let mut given = [before, after, around].into_iter().flatten();
    match (given.next(), given.next()) {
        (_, Some(_)) => Err(ApiError::form("give at most one of before_seq, after_seq and around_message_id")),
        (Some(cursor), None) => Ok(cursor),
        (None, None) => Ok(Some(Cursor::Newest)),
    }
}

/// A message that the caller can see, from the id in a path.
async fn visible(app: &App, caller: &Caller, id: &str) -> Result<(MessageId, ConversationView), ApiError> {
    let id: MessageId = id.parse().map_err(|_| ApiError::MessageNotFound)?;
    let view = history::view_around(app, id, caller.id()).await?;
    if id.seq < view.from || id.seq > view.row.last_seq {
        return Err(ApiError::MessageNotFound);
    }
    Ok((id, view))
}

async fn read(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Response, ApiError> {
    let (id, view) = visible(&app, &caller, &id).await?;
    let Seen { message, .. } = history::one(app.store().as_ref(), &view, caller.id(), id).await?;
    if message.sender == caller.id() {
        return Err(ApiError::Forbidden);
    }
    let receipt = app.domain.mark_read(caller.id(), id).await?;
    if receipt.state < DeliveryState::Read {
        // The message is in the log and its delivery still on the way: a moment later this works.
        return Err(ApiError::Unavailable);
    }
    let context = Context::read(&app, vec![place(&message)]).await?;
    let value = message_value(&message, context.about(&message), receipt.into()).with_ok();
    Ok(Json(value).into_response())
}

async fn hide(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    let (id, _) = visible(&app, &caller, &id).await?;
    app.domain.hide_message(caller.id(), id).await?;
    Ok(Json(json!({"ok": true, "message": "hidden"})))
}

async fn sync(State(app): State<App>, caller: Caller, query: Query) -> Result<Response, ApiError> {
    let limit = query.limit(SYNC_PAGE.0, SYNC_PAGE.1)?;
    let after = match query.parsed::<DeliveryId>("after", "must be a delivery id")? {
        Some(id) if id.belongs_to(caller.id()) => id.pos,
        Some(_) => return Err(ApiError::field("after", "must be one of your delivery ids")),
        None => Pos(0),
    };
    let only = query.text("conversation_id").map(str::parse::<ConversationId>);
    let view = app.domain.inbox(caller.id()).await?;
    let rows = match only {
        _ if view.held => Vec::new(),
        Some(Err(_)) => Vec::new(), // no such conversation, so nothing waits in it
        Some(Ok(only)) => inbox::page(app.store().as_ref(), caller.id(), view, after, Some(only), limit).await?,
        None => inbox::page(app.store().as_ref(), caller.id(), view, after, None, limit).await?,
    };
    let context = Context::read(&app, rows.iter().map(|row| place(&row.message)).collect()).await?;
    let shown = rows.iter().map(|InboxRow { pos, message }| {
        message_value(message, context.about(message), MessageState::default())
            .with_delivery(DeliveryId::new(caller.id(), *pos))
    });
    Ok(Json(shown.collect::<Vec<_>>()).into_response())
}

async fn ack(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Json<Value>, ApiError> {
    let view = app.domain.inbox(caller.id()).await?;
    if view.held {
        return Ok(Json(json!({"acked": 0}))); // nothing was served, whatever the body says
    }
    let mut fields = Fields::parse(&body)?;
    let id = fields.required("last_delivery_id");
    fields.finish()?;
    let id: DeliveryId = id.parse().map_err(|_| ApiError::field("last_delivery_id", "must be a delivery id"))?;
    // A position that was never released was never served: acknowledging it would commit rows unseen (contract S7).
    let known = id.belongs_to(caller.id()) && id.pos <= view.through;
    let acked = if known { app.domain.ack_through(caller.id(), id.pos).await? } else { 0 };
    Ok(Json(json!({"acked": acked})))
}
