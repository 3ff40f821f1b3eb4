//! What wraps every request: its id, its log line, its metrics.
//!
//! O1  A request id that the client sent is echoed if it is harmless, else replaced; every answer has one.
//! O2  Labels are few: routes are those of the router, methods and clients those that are known.

use std::array;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Counter, Histogram, counter, histogram};
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

/// Methods that are counted by name; others together.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Handles of what every request counts: names and labels are put together for the first request of a kind only.
pub struct Meters {
    routes: RwLock<HashMap<String, Route>>,
    clients: [Counter; CLIENTS.len()],
    other_clients: Counter,
}

struct Route {
    seconds: Histogram,
    /// By method and status: a route has a few.
    answers: Vec<(Option<Method>, StatusCode, Counter)>,
}

impl Meters {
    /// Of the recorder that is installed now.
    pub fn new() -> Self {
        let client = |name: &'static str| counter!(HTTP_CLIENTS, "client" => name);
        Self {
            routes: RwLock::default(),
            clients: array::from_fn(|n| client(CLIENTS[n])),
            other_clients: client("other"),
        }
    }

    fn client(&self, name: Option<&HeaderValue>) -> &Counter {
        let known = name.and_then(|name| CLIENTS.iter().position(|known| *name == **known));
        known.map_or(&self.other_clients, |known| &self.clients[known])
    }

    fn answered(&self, route: &str, method: Option<&Method>, status: StatusCode, took: Duration) {
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if known.get(route).is_some_and(|route| route.count(method, status, took)) {
            return;
        }
        drop(known);
        let label = ("route", route.to_owned());
        let name = method.map_or("other", Method::as_str).to_owned();
        let status_label = ("status", status.as_u16().to_string());
        let counter = counter!(HTTP_REQUESTS, &[label.clone(), ("method", name), status_label]);
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let known = routes
            .entry(route.to_owned())
            .or_insert_with(|| Route { seconds: histogram!(HTTP_SECONDS, &[label]), answers: Vec::new() });
        if !known.count(method, status, took) {
            known.answers.push((method.cloned(), status, counter));
            known.count(method, status, took);
        }
    }
}

impl Route {
    /// Counts an answer of a kind that was seen before.
    fn count(&self, method: Option<&Method>, status: StatusCode, took: Duration) -> bool {
        let known = self.answers.iter().find(|(seen, with, _)| seen.as_ref() == method && *with == status);
        let Some((.., counter)) = known else { return false };
        counter.increment(1);
        self.seconds.record(took.as_secs_f64());
        true
    }
}

/// Gives the request its id and counts it.
pub async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request.headers().get(REQUEST_ID).filter(|id| harmless(id)).cloned().unwrap_or_else(fresh_id);
    let method = METHODS.into_iter().find(|known| known == request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("unknown", MatchedPath::as_str);
    app.meters.client(request.headers().get(CLIENT)).increment(1);
    let span = tracing::debug_span!("request", id = id.to_str().unwrap_or_default(), method = %request.method(), route);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    let took = started.elapsed();
    span.in_scope(|| tracing::debug!(status = status.as_u16(), took_us = took.as_micros() as u64, "answered"));
    app.meters.answered(route, method.as_ref(), status, took);
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
