//! `/mcp`: the agent API as tools of the Model Context Protocol, for hosts that know a URL and a key and
//! install nothing.
//!
//! ```text
//!   mod           who may come in, and what a refusal before any tool looks like
//!   host          the protocol's requests: what this server is, its tools, a call
//!   tools/        the table: tool, route, arguments
//!   request       arguments to a request
//!   outcome       an answer to the result of a call
//! ```
//! P1  A call is a request to the router of the agent API, with the caller's key and address: same rules, same codes,
//!     same budgets. It is counted once, when the caller is checked.
//! P2  Who has no valid key is refused before anything of the body is looked at, as everywhere.
//! P3  Nothing is kept between two requests, so any node answers any of them.
//! P4  Who is over its budget learns it from the result of its call, where a model can read it.

mod host;
mod outcome;
mod request;
mod tools;

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post_service;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use url::Url;

use self::host::Host;
use crate::app::App;
use crate::http::body::BODY_MAX;
use crate::http::extract::{AnyCaller, Caller};
use crate::wire::error::ApiError;

/// Longest complaint of the protocol's own checks that is passed on.
const COMPLAINT_MAX: usize = 4 * 1024;

/// How the check of the caller ended: well, or over its budget.
#[derive(Debug, Clone)]
struct Admission(Result<Caller, ApiError>);

/// `/mcp`, over the routes of the agent API.
pub fn routes(app: &App, api: Router) -> Router<App> {
    // No sessions (P3), and a plain answer to each request: nothing here is sent before the result.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(BODY_MAX)
        // A page that rebinds a name to this address has no key, and its `Origin` is refused. The names under which
        // this server is reached are not known to it: proxies and addresses of the local network are many.
        .disable_allowed_hosts()
        .with_allowed_origins(origins(app))
        .enforce_origin_validation();
    let host = Arc::new(Host::new(app, api));
    let service =
        StreamableHttpService::new(move || Ok(Arc::clone(&host)), Arc::new(NeverSessionManager::default()), config);
    Router::new().route("/mcp", post_service(service).route_layer(from_fn_with_state(app.clone(), door)))
}

/// Web pages that may call: our own, those of the same machine, and those that the settings name. `*` is for the agent
/// API alone: the protocol wants pages named.
fn origins(app: &App) -> Vec<String> {
    let named = app.config.cors_origins.iter().map(String::as_str).chain([app.urls.base()]);
    let loopback = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"].map(str::to_owned);
    named.filter_map(origin).chain(loopback).collect()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    Some(format!("{}://{}:{}", url.scheme(), url.host_str()?, url.port_or_known_default()?))
}

/// Lets callers with a valid key in, once (P1, P2).
async fn door(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let admission = match AnyCaller::from_request_parts(&mut parts, &app).await {
        Ok(AnyCaller(caller)) => Ok(caller),
        Err(shed @ ApiError::RateLimited { .. }) => Err(shed), // told by the call (P4)
        Err(refused) => return challenged(refused),
    };
    parts.extensions.insert(Admission(admission));
    if let Some(key) = parts.headers.get_mut(header::AUTHORIZATION) {
        key.set_sensitive(true); // never to be seen in a log, whoever prints the headers
    }
    enveloped(next.run(Request::from_parts(parts, body)).await).await
}

/// A refusal as everywhere; to one without a valid key, hosts want to be told the scheme too.
fn challenged(refused: ApiError) -> Response {
    let mut response = refused.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"agentchat\""));
    }
    response
}

/// What the protocol's own checks say in plain text, in the envelope of all errors.
async fn enveloped(response: Response) -> Response {
    let status = response.status();
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if json || status.as_u16() < 400 {
        return response;
    }
    let text = to_bytes(response.into_body(), COMPLAINT_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if status.is_server_error() {
        tracing::error!(%status, %text, "a request of the model context protocol failed");
        return ApiError::Internal.into_response();
    }
    match status {
        StatusCode::FORBIDDEN => ApiError::Forbidden.into_response(),
        _ => ApiError::form(text).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn an_origin_has_its_port() {
        let of = |url: &str| origin(url);
        assert_eq!(of("https://chat.example.com/base/"),  Some("https://chat.example.com:443".to_owned()));
        assert_eq!(of("http://127.0.0.1:8080"),           Some("http://127.0.0.1:8080".to_owned()));
        assert_eq!(of("http://[::1]:81"),                 Some("http://[::1]:81".to_owned()));
        assert_eq!(of("*"),                               None);
    }

    #[tokio::test]
    async fn plain_complaints_get_the_envelope_and_json_stays() {
        let body = |response: Response| async {
            let status = response.status().as_u16();
            let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (status, String::from_utf8(bytes.to_vec()).unwrap())
        };
        let told = body(enveloped((StatusCode::NOT_ACCEPTABLE, "accept both").into_response()).await).await;
        assert_eq!(told.0, 400);
        assert!(told.1.contains("VALIDATION_ERROR") && told.1.contains("accept both"), "{}", told.1);
        assert!(body(enveloped((StatusCode::FORBIDDEN, "origin").into_response()).await).await.1.contains("FORBIDDEN"));
        let hidden = body(enveloped((StatusCode::BAD_GATEWAY, "secret").into_response()).await).await;
        assert!(hidden.0 == 500 && !hidden.1.contains("secret"));
        let json = (StatusCode::BAD_REQUEST, axum::Json("as it is")).into_response();
        assert_eq!(body(enveloped(json).await).await, (400, "\"as it is\"".to_owned()));
    }
}
