//! What wraps every request: its id, its log line, its metrics.
//!
//! O1  A request id that the client sent is echoed if it is harmless, else replaced; every answer has one.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use rand::Rng;
use rand::distr::Alphanumeric;
use tracing::Instrument;

use crate::app::App;
use crate::metrics::{HTTP_CLIENTS, HTTP_REQUESTS, HTTP_SECONDS};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT: HeaderName = HeaderName::from_static("x-agentchat-client");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// Clients that are counted by name; others together.
const CLIENTS: [&str; 6] = ["python_sdk", "hermes", "typescript_sdk", "openclaw", "mcp", "coding_agents"];
/// Longest request id that is echoed.
const ID_MAX: usize = 64;

/// Gives the request its id and counts it.
pub async fn observe(State(_): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request.headers().get(REQUEST_ID).filter(|id| harmless(id)).cloned().unwrap_or_else(fresh_id);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", |path| path.as_str()).to_owned();
    let client = request.headers().get(CLIENT).and_then(|name| CLIENTS.into_iter().find(|known| *name == **known));
    let span = tracing::debug_span!("request", id = id.to_str().unwrap_or_default(), %method, route);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    let took = started.elapsed();
    span.in_scope(|| tracing::debug!(status = status.as_u16(), took_us = took.as_micros() as u64, "answered"));
    let labels = [("route", route), ("method", method.to_string()), ("status", status.as_u16().to_string())];
    metrics::counter!(HTTP_REQUESTS, &labels).increment(1);
    metrics::histogram!(HTTP_SECONDS, "route" => labels[0].1.clone()).record(took.as_secs_f64());
    metrics::counter!(HTTP_CLIENTS, "client" => client.unwrap_or("other")).increment(1);
    let headers = response.headers_mut();
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json") {
        headers.insert(header::CONTENT_TYPE, JSON);
    }
    headers.insert(REQUEST_ID, id);
    response
}

fn harmless(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=ID_MAX).contains(&bytes.len()) && bytes.iter().all(allowed)
}

fn fresh_id() -> HeaderValue {
    let suffix: String = rand::rng().sample_iter(Alphanumeric).take(12).map(char::from).collect();
    HeaderValue::from_str(&format!("req_{suffix}")).unwrap_or(HeaderValue::from_static("req_000000000000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_ids_are_echoed() {
        let check = |id: &str| harmless(&HeaderValue::from_str(id).unwrap());
        assert!(check("a.B-9_") && check(&"x".repeat(64)));
        assert!(!check("") && !check("a b") && !check("a/b") && !check(&"x".repeat(65)));
        assert!(harmless(&fresh_id()));
        assert_eq!(fresh_id().len(), 16);
    }
}
