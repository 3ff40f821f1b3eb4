//! Request bodies: read whole, within bounds, before anything else judges the request.
//!
//! B1  No more than [`BODY_MAX`] bytes of a body are ever held.
//! B2  A little beyond the limit is read and thrown away, so that the client gets the answer and not a reset connection.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::StreamExt;

use crate::wire::error::ApiError;

/// Largest JSON body.
pub const BODY_MAX: usize = 64 * 1024;
/// Largest body that is read to its end only to be refused.
const DRAIN_MAX: usize = 4 * 1024 * 1024;
/// A body has to arrive within this.
const BODY_DEADLINE: Duration = Duration::from_secs(20);

/// Replaces the body by its bytes, or answers.
pub async fn buffered(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match tokio::time::timeout(BODY_DEADLINE, read(body, announced.unwrap_or(0))).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(error)) => error.into_response(),
        Err(_) => ApiError::form("the body did not arrive in time").into_response(),
    }
}

async fn read(body: Body, announced: usize) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut kept = BytesMut::with_capacity(announced.min(BODY_MAX));
    let mut seen = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::form("the body could not be read"))?;
        seen += chunk.len();
        if seen <= BODY_MAX {
            kept.extend_from_slice(&chunk);
        } else if seen > DRAIN_MAX {
            break;
        }
    }
    if seen > BODY_MAX { Err(ApiError::PayloadTooLarge { max_bytes: BODY_MAX }) } else { Ok(kept.freeze()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_bounded() {
        let whole = vec![b'x'; BODY_MAX];
        assert_eq!(read(Body::from(whole.clone()), 0).await.map(|bytes| bytes.len()), Ok(BODY_MAX));
        let over = [whole, vec![b'x']].concat();
        assert_eq!(read(Body::from(over), 0).await, Err(ApiError::PayloadTooLarge { max_bytes: BODY_MAX }));
        let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 8_192])));
        let refused = read(Body::from_stream(endless), usize::MAX).await;
        assert_eq!(refused, Err(ApiError::PayloadTooLarge { max_bytes: BODY_MAX }));
    }
}
