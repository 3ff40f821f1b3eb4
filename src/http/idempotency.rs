//! `Idempotency-Key`: the answer to a request is remembered for 24 h and given again to the same request.
//!
//! K1  Per agent. The same key with another request is a conflict; while the first runs, here or on another node, the
//!     second is refused. The agent's entity decides between nodes.
//! K2  Remembered are answers that say something about the request: 2xx and most 4xx; never 401, 408, 413, 429, 5xx.
//! K3  No secret is stored: routes that answer with keys ignore the header, and a new webhook's secret is left out.
//! K4  A request that has begun goes on to its end although its client is gone: what it did would not be remembered
//!     otherwise, and the client that comes again is the one whom the key is for.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use schema::ids::AgentId;
use schema::rows::IdempotencyRow;
use schema::store::{self, Store, Write};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tracing::Instrument;

use super::body::BODY_MAX;
use super::extract::bearer;
use crate::app::App;
use crate::wire::error::ApiError;

/// Largest answer that is remembered.
const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// An answer is given again for this long; the contract's number.
const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1_000;

/// What runs now, and where answers are remembered.
pub struct Answers {
    store: Arc<dyn Store>,
    running: Mutex<HashSet<(AgentId, String)>>,
}

impl Answers {
    /// Nothing runs yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, running: Mutex::default() }
    }
}

/// A request that runs; it ends with this value.
struct Running<'a> {
    app: &'a App,
    place: (AgentId, String),
    /// The agent knows (K1).
    begun: bool,
}

impl<'a> Running<'a> {
    /// `None`: another one runs.
    async fn begin(app: &'a App, agent: AgentId, key: &str) -> Result<Option<Self>, ApiError> {
        let place = (agent, key.to_owned());
        if !app.answers.running.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone()) {
            return Ok(None);
        }
        let mut running = Self { app, place, begun: false };
        running.begun = app.domain.begin_once(agent, key).await?;
        Ok(running.begun.then_some(running))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (agent, key) = &self.place;
        if self.begun {
            self.app.domain.end_once(*agent, key);
        }
        self.app.answers.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place);
    }
}

/// Whether the header means anything here.
fn applies(method: &Method, path: &str) -> bool {
    let mutates = matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    let open = ["/v1/register", "/v1/register/verify", "/v1/agents/recover", "/v1/agents/recover/verify"];
    let ignored = path == "/v1/messages" || path.ends_with("/rotate-key/verify") || open.contains(&path);
    mutates && path.starts_with("/v1/") && !ignored
}

/// Gives a remembered answer, or remembers the one that is given now.
pub async fn remembered(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(value) = request.headers().get("idempotency-key") else { return next.run(request).await };
    if !applies(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let key = match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => key.to_owned(),
        _ => return ApiError::field("Idempotency-Key", "must be 1 to 255 visible ASCII characters").into_response(),
    };
    // Without a valid key the request is refused further in; nothing is remembered for nobody.
    let agent = match bearer(request.headers()).flatten() {
        Some(api_key) => app.auth.resolve(api_key).await,
        None => Ok(None),
    };
    match agent {
        Ok(Some(agent)) => {
            let run = async move { run(&app, agent, key, request, next).await }; // K4
            match tokio::spawn(run.in_current_span()).await {
                Ok(answer) => answer.unwrap_or_else(IntoResponse::into_response),
                Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()), // answered further out
                Err(_) => ApiError::Internal.into_response(),                                    // the process ends
            }
        }
        Ok(None) => next.run(request).await,
        Err(error) => ApiError::from(error).into_response(),
    }
}

async fn run(app: &App, agent: AgentId, key: String, request: Request, next: Next) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let limit = super::attachments::ATTACHMENT_MAX.max(BODY_MAX);
    let body = to_bytes(body, limit).await.map_err(|_| ApiError::Internal)?;
    let mut hash = Sha256::new();
    hash.update(parts.method.as_str());
    hash.update([0]);
    hash.update(parts.uri.path_and_query().map_or("", |path| path.as_str()));
    hash.update([0]);
    hash.update(&body);
    let fingerprint: [u8; 32] = hash.finalize().into();
    let Some(_running) = Running::begin(app, agent, &key).await? else { return Err(ApiError::IdempotentInProgress) };
    let now = app.clock.now();
    let known = app.answers.store.idempotency(agent, &key).await?.filter(|row| now.ms_since(row.at) < REMEMBERED_MS);
    let request = Request::from_parts(parts, Body::from(body));
    match known {
        Some(row) if row.fingerprint != fingerprint => Err(ApiError::IdempotencyConflict),
        Some(row) => replay(app, row, request).await,
        None => {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let response = next.run(request).await;
            let secret = method == Method::POST && path == "/v1/webhooks";
            remember(app, agent, (key, fingerprint), response, secret).await
        }
    }
}

/// The answer again, to whoever still holds a valid key.
async fn replay(app: &App, row: IdempotencyRow, request: Request) -> Result<Response, ApiError> {
    use axum::extract::FromRequestParts;
    let (mut parts, _) = request.into_parts();
    super::extract::Caller::from_request_parts(&mut parts, app).await?;
    let status = StatusCode::from_u16(row.status).map_err(|_| ApiError::Internal)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::HeaderName::from_static("idempotent-replay"), HeaderValue::from_static("true")),
    ];
    Ok((status, headers, row.body).into_response())
}

async fn remember(
    app: &App,
    agent: AgentId,
    (key, fingerprint): (String, [u8; 32]),
    response: Response,
    secret: bool,
) -> Result<Response, ApiError> {
    let status = response.status();
    let says_nothing = matches!(status.as_u16(), 401 | 408 | 413 | 429);
    if status.is_server_error() || says_nothing {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, ANSWER_MAX).await.map_err(|_| ApiError::Internal)?;
    let kept = if secret { without_secret(&body) } else { body.to_vec() };
    let row = IdempotencyRow { key, fingerprint, status: status.as_u16(), body: kept, at: app.clock.now() };
    store::commit(app.store().as_ref(), vec![Write::Idempotency(agent, Box::new(row))]).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn without_secret(body: &Bytes) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    if let Some(object) = value.as_object_mut() {
        object.remove("secret");
    }
    value.to_string().into_bytes()
}
