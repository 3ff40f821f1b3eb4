//! What an owner sees of an agent: what the agent itself sees, through the same queries.
//!
//! R1  The agent is the reader: what it hid is hidden, a group starts where it joined, and what it left is gone.
//! R2  Nothing here asks an entity for more than a view: no budget, receipt or presence changes.

use std::sync::Arc;

use actors::api::{ConversationView, Presence, Refusal};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::try_join_all;
use schema::ids::{AgentId, ConversationId, ConversationKind, Seq};
use schema::rows::{AgentRow, AgentStatus, AttachmentRow, BlockRow, ContactRow, MessageRow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::agents::owned;
use super::session::SignedIn;
use super::shapes::{Row, block_value, contact_value, message_row, profile_value};
use crate::app::App;
use crate::http::attachment_location;
use crate::http::extract::Segment;
use crate::queries::history::{self, Cursor};
use crate::queries::{accounts, conversations, live_account};
use crate::wire::error::ApiError;
use crate::wire::fields::{Page, Query};
use crate::wire::group::group_value;
use crate::wire::social::presence_value;

/// Conversations shown; the contract's number.
const CONVERSATIONS: usize = 50;
/// Messages of a page; the contract's number.
const MESSAGES: usize = 50;
/// Contacts and blocks of a page, and the most; the contract's number.
const BOOK: usize = 100;
/// What the list of an agent has and that of its owner has not: the owner learns nothing of what is read.
const OF_THE_READER: [&str; 4] = ["unread_count", "oldest_unread_seq", "newest_unread_seq", "is_muted"];

/// `/dashboard/agents/{handle}/…`, the activity excepted.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/dashboard/agents/{handle}/conversations", get(list))
        .route("/dashboard/agents/{handle}/messages", get(messages))
        .route("/dashboard/agents/{handle}/contacts", get(contacts))
        .route("/dashboard/agents/{handle}/blocks", get(blocks))
        .route("/dashboard/agents/{handle}/presence", get(presence))
        .route("/dashboard/agents/{handle}/profiles/{target}", get(profile))
        .route("/dashboard/agents/{handle}/groups/{id}", get(group))
        .route("/dashboard/agents/{handle}/attachments/{id}", get(attachment))
}

type TwoSegments = Result<Path<(String, String)>, axum::extract::rejection::PathRejection>;

/// Two decoded segments of a path. Those that do not decode name nothing.
fn two(segments: TwoSegments) -> Result<(String, String), ApiError> {
    segments.map(|Path(both)| both).map_err(|_| ApiError::NotFound)
}

async fn list(State(app): State<App>, caller: SignedIn, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    let agent = owned(&app, &caller, &handle).await?;
    let mut rows = conversations::list(&app, agent.id, CONVERSATIONS, 0).await?;
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        OF_THE_READER.iter().for_each(|key| drop(row.remove(*key)));
    }
    Ok(Json(json!({"conversations": rows})))
}

/// What the agent may see of a conversation. To its owner a group that ended is as gone as one that it never knew.
async fn view(app: &App, agent: AgentId, id: ConversationId) -> Result<ConversationView, ApiError> {
    history::view(app, id, agent).await.map_err(|error| match error {
        ApiError::GroupDeleted(_) => ApiError::ConversationNotFound,
        error => error,
    })
}

#[derive(Serialize)]
struct Messages<'a> {
    messages: Vec<Row<'a>>,
}

async fn messages(
    State(app): State<App>,
    caller: SignedIn,
    Segment(handle): Segment,
    query: Query,
) -> Result<Response, ApiError> {
    let agent = owned(&app, &caller, &handle).await?;
    let id = query.text("conversation_id").filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| ApiError::field("conversation_id", "is required"))?;
    let before = query.parsed::<u64>("before_seq", "must be a non-negative integer")?;
    let id = id.parse().map_err(|_| ApiError::ConversationNotFound)?;
    let view = view(&app, agent.id, id).await?;
    let cursor = before.map_or(Cursor::Newest, |seq| Cursor::Before(Seq(seq)));
    let rows = history::page(app.store().as_ref(), &view, agent.id, cursor, MESSAGES).await?;
    let senders = accounts(app.store(), rows.iter().map(|row| row.message.sender)).await?;
    let files = try_join_all(rows.iter().map(|row| attached(&app, &row.message))).await?;
    let shown = rows.iter().zip(&files).map(|(row, file)| {
        let sender = senders.get(&row.message.sender).map(Arc::as_ref);
        let state = (row.pos, row.state);
        message_row(&row.message, agent.id, state, sender, &app.urls).with_attachment(file.as_ref())
    });
    Ok(Json(Messages { messages: shown.collect() }).into_response())
}

/// The file that a message refers to. That it may, was judged when the message was sent.
pub(super) async fn attached(app: &App, message: &MessageRow) -> Result<Option<AttachmentRow>, ApiError> {
    #[derive(Deserialize)]
    struct File {
        attachment_id: Option<String>,
    }
    match serde_json::from_str(&message.content) {
        Ok(File { attachment_id: Some(id) }) => Ok(app.store().attachment(&id).await?),
        _ => Ok(None),
    }
}

async fn contacts(
    State(app): State<App>,
    caller: SignedIn,
    Segment(handle): Segment,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let agent = owned(&app, &caller, &handle).await?;
    let Page { limit, offset } = query.page(BOOK, BOOK)?;
    let book = app.store().contacts(agent.id).await?;
    let page: Vec<&ContactRow> = book.iter().skip(offset).take(limit).collect();
    let accounts = accounts(app.store(), page.iter().map(|contact| contact.agent)).await?;
    let account = |contact: &ContactRow| accounts.get(&contact.agent).map(Arc::as_ref);
    let shown: Vec<Value> = page.iter().map(|contact| contact_value(contact, account(contact), &app.urls)).collect();
    Ok(Json(json!({"contacts": shown, "total": book.len(), "limit": limit, "offset": offset})))
}

async fn blocks(
    State(app): State<App>,
    caller: SignedIn,
    Segment(handle): Segment,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let agent = owned(&app, &caller, &handle).await?;
    let Page { limit, offset } = query.page(BOOK, BOOK)?;
    let mut blocks = app.store().blocks(agent.id).await?;
    let accounts = accounts(app.store(), blocks.iter().map(|block| block.agent)).await?;
    let live = |block: &BlockRow| accounts.get(&block.agent).filter(|row| row.status != AgentStatus::Deleted);
    blocks.retain(|block| live(block).is_some());
    blocks.sort_by(|a, b| b.blocked_at.cmp(&a.blocked_at).then_with(|| a.handle.cmp(&b.handle)));
    let page = blocks.iter().skip(offset).take(limit);
    let shown: Vec<Value> =
        page.filter_map(|block| live(block).map(|account| block_value(block, account, &app.urls))).collect();
    Ok(Json(json!({"blocks": shown, "total": blocks.len(), "limit": limit, "offset": offset})))
}

async fn presence(State(app): State<App>, caller: SignedIn, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    let agent = owned(&app, &caller, &handle).await?;
    let presence = app.domain.presence(agent.id, agent.id).await?;
    Ok(Json(presence_value(&agent.handle, &presence)))
}

/// Whether the agent takes part in a conversation with somebody.
async fn shares_a_conversation(app: &App, agent: AgentId, other: AgentId) -> Result<bool, ApiError> {
    if app.store().agent_conversation(agent, ConversationId::direct(agent, other)).await?.is_some() {
        return Ok(true);
    }
    for (id, _) in app.store().agent_conversations(agent).await? {
        if id.kind == ConversationKind::Group
            && let Some(group) = app.store().group(id).await?.filter(|group| group.deleted.is_none())
            && group.member(agent).is_some()
            && group.member(other).is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Presence of somebody else, hidden by a block in either direction.
async fn presence_of(app: &App, target: &AgentRow, agent: AgentId) -> Result<Presence, ApiError> {
    if app.store().blocks(agent).await?.iter().any(|block| block.agent == target.id) {
        return Ok(Presence::default());
    }
    match app.domain.presence(target.id, agent).await {
        Ok(presence) => Ok(presence),
        Err(Refusal::NoRelation | Refusal::AgentNotFound) => Ok(Presence::default()),
        Err(refusal) => Err(refusal.into()),
    }
}

async fn profile(State(app): State<App>, caller: SignedIn, segments: TwoSegments) -> Result<Json<Value>, ApiError> {
    let (handle, target) = two(segments)?;
    let agent = owned(&app, &caller, &handle).await?;
    let target = live_account(&app, &target).await?;
    let own = target.id == agent.id;
    if target.status == AgentStatus::Suspended || !own && !shares_a_conversation(&app, agent.id, target.id).await? {
        return Err(ApiError::AgentNotFound);
    }
    let presence = presence_of(&app, &target, agent.id).await?;
    Ok(Json(profile_value(&target, own, &presence, &app.urls)))
}

async fn group(State(app): State<App>, caller: SignedIn, segments: TwoSegments) -> Result<Json<Value>, ApiError> {
    let (handle, id) = two(segments)?;
    let agent = owned(&app, &caller, &handle).await?;
    let id = id.parse().map_err(|_| ApiError::ConversationNotFound)?;
    let view = view(&app, agent.id, id).await?;
    let group = view.group.as_ref().ok_or(ApiError::ConversationNotFound)?;
    let accounts = accounts(app.store(), group.active().map(|member| member.agent)).await?;
    Ok(Json(group_value(group, &view.row, agent.id, &accounts, &app.urls)))
}

async fn attachment(State(app): State<App>, caller: SignedIn, segments: TwoSegments) -> Result<Response, ApiError> {
    let (handle, id) = two(segments)?;
    let agent = owned(&app, &caller, &handle).await?;
    attachment_location(&app, agent.id, &id).await
}
