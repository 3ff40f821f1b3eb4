//! Request bodies: read whole, within bounds, before anything else judges the request.
//!
//! B1  No more than the limit of its route is held of a body, and only so many large ones at a time.
//! B2  A little beyond the limit is read and thrown away, so that the client gets the answer and not a reset connection.
//! B3  A large body is read only from somebody who may send it; the handler judges again.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use super::attachments::{ATTACHMENT_MAX, AVATAR_MAX};
use super::extract::{bearer, credential};
use crate::app::App;
use crate::wire::error::ApiError;
use crate::wire::fields::Query;

/// Largest JSON body.
pub const BODY_MAX: usize = 64 * 1024;
/// How much beyond its limit a body is read, only to be refused.
const DRAIN_MAX: usize = 4 * 1024 * 1024;
/// A body has to arrive within this, and a large one within this.
const DEADLINES: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(300));
/// Large bodies held at a time; further ones wait.
static LARGE: Semaphore = Semaphore::const_new(8);

/// Most bytes that this request may carry.
fn limit(method: &Method, path: &str) -> usize {
    if method != Method::PUT {
        BODY_MAX
    } else if path.starts_with("/objects/") {
        ATTACHMENT_MAX
    } else if path.starts_with("/v1/") && path.ends_with("/avatar") {
        AVATAR_MAX
    } else {
        BODY_MAX
    }
}

/// Whether a request may carry a large body at all: strangers must not take the turns of others (B3).
async fn may_be_large(app: &App, parts: &Parts) -> Result<(), ApiError> {
    match parts.uri.path().strip_prefix("/objects/") {
        Some(id) => {
            let text = parts.uri.query().unwrap_or_default();
            let query = Query::new(serde_urlencoded::from_str(text).unwrap_or_default());
            let opens = app.objects.signer().opens(&Method::PUT, id, &query, app.clock.now());
            if opens { Ok(()) } else { Err(ApiError::Forbidden) }
        }
        None => {
            let key = bearer(&parts.headers).flatten().ok_or(ApiError::Unauthorized)?;
            credential(app, key).await.map(drop)
        }
    }
}

/// Replaces the body by its bytes, or answers.
pub async fn buffered(State(app): State<App>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let limit = limit(&parts.method, parts.uri.path());
    let (large, deadline) = if limit > BODY_MAX { (true, DEADLINES.1) } else { (false, DEADLINES.0) };
    if large && let Err(refused) = may_be_large(&app, &parts).await {
        // What is read is thrown away (B2).
        let _ = tokio::time::timeout(DEADLINES.0, read(body, 0, 0)).await;
        return refused.into_response();
    }
    let _turn = if large { LARGE.acquire().await.ok() } else { None };
    match tokio::time::timeout(deadline, read(body, announced.unwrap_or(0), limit)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(error)) => error.into_response(),
        Err(_) => ApiError::form("the body did not arrive in time").into_response(),
    }
}

async fn read(body: Body, announced: usize, limit: usize) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut kept = BytesMut::with_capacity(announced.min(limit).min(DRAIN_MAX));
    let mut seen = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::form("the body could not be read"))?;
        seen += chunk.len();
        if seen <= limit {
            kept.extend_from_slice(&chunk);
        } else if seen > limit + DRAIN_MAX {
            break;
        }
    }
    if seen > limit { Err(ApiError::PayloadTooLarge { max_bytes: limit }) } else { Ok(kept.freeze()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_bounded() {
        let whole = vec![b'x'; BODY_MAX];
        assert_eq!(read(Body::from(whole.clone()), 0, BODY_MAX).await.map(|bytes| bytes.len()), Ok(BODY_MAX));
        let over = [whole, vec![b'x']].concat();
        assert_eq!(read(Body::from(over), 0, BODY_MAX).await, Err(ApiError::PayloadTooLarge { max_bytes: BODY_MAX }));
        let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 8_192])));
        let refused = read(Body::from_stream(endless), usize::MAX, BODY_MAX).await;
        assert_eq!(refused, Err(ApiError::PayloadTooLarge { max_bytes: BODY_MAX }));
    }
}
