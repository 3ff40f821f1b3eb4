//! Attachments and avatars: announcing, uploading, fetching.
//!
//! A1  An attachment is for its uploader, its named recipient, and whoever can see a message that refers to it.
//! A2  It can be referred to only after its bytes arrived and were what was announced, and in no other conversation than
//!     the one it was announced for, or the first that referred to it.

use actors::api::{Refusal, Target};
use actors::conversation::group::GroupPatch;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use schema::ids::{AgentId, ConversationId, Seq};
use schema::rows::{AttachmentRow, Picture};
use schema::store::{self, Write};
use serde_json::{Value, json};

use super::extract::{Caller, Segment};
use super::groups::{actor, parse, to_the_end};
use crate::app::App;
use crate::identity::fresh_key;
use crate::objects::is_sha256_hex;
use crate::objects::{PutError, URL_LIFETIME, disposition, images};
use crate::queries::{history, live_account};
use crate::wire::error::ApiError;
use crate::wire::fields::{Fields, Query};

/// Largest attachment; the contract's number.
pub const ATTACHMENT_MAX: usize = 26_214_400;
/// Largest avatar upload; the contract's number.
pub const AVATAR_MAX: usize = 5 * 1024 * 1024;
/// Longest file name, in characters.
const FILENAME_MAX: usize = 255;
/// What may be attached.
pub const TYPES: [&str; 14] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "application/pdf",
    "application/json",
    "text/plain",
    "text/markdown",
    "text/csv",
    "audio/mpeg",
    "audio/wav",
    "audio/ogg",
    "video/mp4",
    "video/webm",
];

/// Uploads, attachments, avatars, and the objects that signed URLs name.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/uploads", post(announce))
        .route("/v1/attachments/{id}", get(locate))
        .route("/v1/agents/{handle}/avatar", put(set_avatar).delete(clear_avatar))
        .route("/v1/groups/{id}/avatar", put(set_group_avatar).delete(clear_group_avatar))
        .route("/objects/{id}", put(upload).get(download))
        .route("/avatars/{key}", get(avatar))
}

/// What is announced, and for whom.
struct Announced {
    filename: String,
    content_type: String,
    size: u64,
    sha256: String,
    to: Option<String>,
    conversation: Option<String>,
}

fn announced(body: &[u8]) -> Result<Announced, ApiError> {
    let mut fields = Fields::parse(body)?;
    let filename = fields.required("filename");
    if filename.chars().count() > FILENAME_MAX {
        fields.complain("filename", "must be at most 255 characters");
    }
    let clean = |c: char| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c };
    let content_type = fields.required("content_type");
    if !content_type.is_empty() && !TYPES.contains(&content_type.as_str()) {
        fields.complain("content_type", "is not one of the supported types");
    }
    if fields.raw("size").is_none() {
        fields.complain("size", "is required");
    }
    let size = fields.integer("size", 1..=ATTACHMENT_MAX as u64).unwrap_or_default();
    let sha256 = fields.required("sha256");
    if !sha256.is_empty() && !is_sha256_hex(&sha256) {
        fields.complain("sha256", "must be 64 lower-case hex digits");
    }
    let (mut to, mut conversation) = (fields.text("to"), fields.text("conversation_id"));
    if to.is_some() && conversation.is_some() {
        fields.complain("to", "give at most one of to and conversation_id");
    }
    // A plugin passes its raw send target as `to`.
    if to.as_ref().is_some_and(|to| to.starts_with("grp_") || to.starts_with("conv_")) {
        conversation = to.take();
    }
    fields.finish()?;
    Ok(Announced { filename: filename.chars().map(clean).collect(), content_type, size, sha256, to, conversation })
}

async fn announce(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    app.gates.upload(caller.id()).await?;
    let wanted = announced(&body)?;
    let to = match &wanted.to {
        Some(handle) => Some(recipient(&app, handle).await?),
        None => None,
    };
    let scope = match (&wanted.conversation, to) {
        (Some(id), _) => {
            let id: ConversationId = id.parse().map_err(|_| ApiError::ConversationNotFound)?;
            history::view(&app, id, caller.id()).await?;
            Some(id)
        }
        (None, Some(to)) if to != caller.id() => Some(ConversationId::direct(caller.id(), to)),
        (None, _) => None,
    };
    let row = AttachmentRow {
        id: format!("att_{}", fresh_key().as_str()),
        uploader: caller.id(),
        to,
        scope,
        filename: wanted.filename,
        content_type: wanted.content_type,
        size: wanted.size,
        sha256: wanted.sha256,
        uploaded: false,
        created_at: app.clock.now(),
    };
    store::commit(app.store().as_ref(), vec![Write::Attachment(Box::new(row.clone()))]).await?;
    let body = json!({
        "attachment_id": row.id,
        "upload_url": app.objects.upload_url(&row.id, app.clock.now()),
        "expires_in": URL_LIFETIME.as_secs(),
    });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

async fn recipient(app: &App, handle: &str) -> Result<AgentId, ApiError> {
    Ok(live_account(app, handle).await?.id)
}

/// Whether `sender` may refer to an attachment in a message to `target` (A2).
pub(super) async fn usable(app: &App, sender: AgentId, id: &str, target: &Target) -> Result<bool, ApiError> {
    let here = match target {
        Target::Agent(peer) => ConversationId::direct(sender, *peer),
        Target::Conversation(id) => *id,
        Target::UnknownAgent | Target::UnknownConversation => return Ok(false),
    };
    let Some(row) = app.store().attachment(id).await? else { return Ok(false) };
    if !row.uploaded || row.uploader != sender || row.scope.is_some_and(|scope| scope != here) {
        return Ok(false);
    }
    let uses = app.store().attachment_uses(id).await?;
    Ok(row.scope.is_some() || uses.iter().all(|(conversation, _)| *conversation == here))
}

/// Whether `reader` may have an attachment (A1).
async fn entitled(app: &App, row: &AttachmentRow, reader: AgentId) -> Result<bool, ApiError> {
    if row.uploader == reader || row.to == Some(reader) {
        return Ok(true);
    }
    let uses: Vec<(ConversationId, Seq)> = app.store().attachment_uses(&row.id).await?;
    for (conversation, seq) in uses {
        match app.domain.conversation(conversation, reader).await {
            Ok(view) if view.from <= seq && seq <= view.row.last_seq => return Ok(true),
            Ok(_) | Err(Refusal::ConversationNotFound | Refusal::GroupDeleted(_)) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(false)
}

async fn locate(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Response, ApiError> {
    let row = app.store().attachment(&id).await?.filter(|row| row.uploaded).ok_or(ApiError::AttachmentNotFound)?;
    if !entitled(&app, &row, caller.id()).await? {
        return Err(ApiError::AttachmentNotFound);
    }
    let url = app.objects.download_url(&row, app.clock.now()).await.map_err(unreachable)?;
    let location = HeaderValue::from_str(&url).map_err(|_| ApiError::Internal)?;
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

fn unreachable(error: object_store::Error) -> ApiError {
    tracing::warn!(%error, "objects cannot be reached");
    ApiError::Unavailable
}

async fn upload(
    State(app): State<App>,
    Segment(id): Segment,
    query: Query,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    if !app.objects.signer().opens(&Method::PUT, &id, &query, app.clock.now()) {
        return Err(ApiError::Forbidden);
    }
    let mut row = app.store().attachment(&id).await?.ok_or(ApiError::Forbidden)?;
    match app.objects.put(&row, body).await {
        Ok(()) => {}
        Err(error @ PutError::Mismatch) => return Err(ApiError::form(error.to_string())),
        Err(PutError::Store(error)) => return Err(unreachable(error)),
    }
    if !row.uploaded {
        row.uploaded = true;
        store::commit(app.store().as_ref(), vec![Write::Attachment(Box::new(row))]).await?;
    }
    Ok(Json(json!({"ok": true})))
}

async fn download(State(app): State<App>, Segment(id): Segment, query: Query) -> Result<Response, ApiError> {
    if !app.objects.signer().opens(&Method::GET, &id, &query, app.clock.now()) {
        return Err(ApiError::Forbidden);
    }
    let row = app.store().attachment(&id).await?.ok_or(ApiError::AttachmentNotFound)?;
    let bytes = app.objects.read(&id).await.map_err(unreachable)?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| ApiError::Internal);
    let headers = [
        (header::CONTENT_TYPE, value(&row.content_type)?),
        (header::CONTENT_LENGTH, HeaderValue::from(row.size)),
        (header::CONTENT_DISPOSITION, value(&disposition(&row.filename))?),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
    ];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

/// The avatar made of an upload: its key.
async fn picture(app: &App, body: Bytes) -> Result<String, ApiError> {
    if body.is_empty() {
        return Err(ApiError::form("the body must be an image"));
    }
    let _turn = app.image_turns.acquire().await.map_err(|_| ApiError::Internal)?;
    let made = tokio::task::spawn_blocking(move || images::avatar(&body)).await.map_err(|_| ApiError::Internal)?;
    let webp = made.map_err(|error| ApiError::form(format!("the image {error}")))?;
    app.objects.put_avatar(webp).await.map_err(unreachable)
}

fn shown(app: &App, key: &str) -> Json<Value> {
    Json(json!({"avatar_key": key, "avatar_url": app.urls.avatar(key)}))
}

async fn change_avatar(app: &App, caller: &Caller, key: Option<String>) -> Result<(), ApiError> {
    let patch = actors::api::ProfilePatch { avatar_key: Some(key), ..Default::default() };
    app.domain.update_profile(caller.id(), patch).await?;
    Ok(())
}

async fn set_avatar(
    State(app): State<App>,
    caller: Caller,
    Segment(handle): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    caller.must_be(&handle)?;
    app.gates.avatar(caller.id()).await?;
    let key = picture(&app, body).await?;
    change_avatar(&app, &caller, Some(key.clone())).await?;
    Ok(shown(&app, &key))
}

async fn clear_avatar(
    State(app): State<App>,
    caller: Caller,
    Segment(handle): Segment,
) -> Result<Json<Value>, ApiError> {
    caller.must_be(&handle)?;
    if caller.account.avatar_key.is_none() {
        return Err(ApiError::AvatarNotFound);
    }
    change_avatar(&app, &caller, None).await?;
    Ok(Json(json!({"ok": true})))
}

async fn change_group_avatar(
    app: App,
    caller: Caller,
    id: ConversationId,
    key: Option<String>,
) -> Result<(), ApiError> {
    let patch =
        GroupPatch { picture: Some(key.map(Picture::Object)), picture_always_tells: true, ..GroupPatch::default() };
    to_the_end(async move {
        app.domain.update_group(id, actor(&caller), patch).await?;
        Ok(())
    })
    .await
}

async fn set_group_avatar(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let id = parse(&id)?;
    history::view(&app, id, caller.id()).await?;
    app.gates.group_avatar(id).await?;
    let key = picture(&app, body).await?;
    change_group_avatar(app.clone(), caller, id, Some(key.clone())).await?;
    Ok(shown(&app, &key))
}

async fn clear_group_avatar(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Json<Value>, ApiError> {
    let id = parse(&id)?;
    app.gates.group_avatar(id).await?;
    change_group_avatar(app, caller, id, None).await?;
    Ok(Json(json!({"ok": true})))
}

async fn avatar(State(app): State<App>, Segment(key): Segment) -> Result<Response, ApiError> {
    let webp = app.objects.avatar(&key).await.map_err(unreachable)?.ok_or(ApiError::NotFound)?;
    let headers = [
        (header::CONTENT_TYPE, "image/webp"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, webp).into_response())
}
