//! The owner dashboard: JSON under `/dashboard/…` and its socket. Pages are files of their own and know only this.
//!
//! ```text
//!   tokens    cookies, and the tokens in them
//!   session   sign-in, refresh, sign-out, who is signed in
//!   agents    claim, release, pause, which agents an owner has
//!   reads     what an agent sees, through the queries that serve the agent itself
//!   activity  its activity and messages as one feed
//!   socket    tickets, and what happens now
//!   shapes    JSON
//!   pages     what a browser loads
//! ```
//! B1  An agent that the caller has not claimed is one and the same 404, whoever else has it or nobody.
//! B2  Everything but sign-in, claim, release and pause is read-only, and no agent can tell that it was read.
//! B3  A browser is only obeyed on behalf of our own pages: whoever changes something says by `Origin` where it comes
//!     from, or is no browser.

mod activity;
mod agents;
pub mod pages;
mod reads;
mod session;
mod shapes;
mod socket;
mod tokens;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use url::Url;

pub use self::tokens::{ACCESS as ACCESS_COOKIE, REFRESH as REFRESH_COOKIE, is_for_this_machine};
use crate::app::App;
use crate::wire::error::ApiError;

/// `/dashboard/…` and `/v1/ws/dashboard`.
pub fn routes() -> Router<App> {
    let json = session::routes().merge(agents::routes()).merge(reads::routes()).merge(activity::routes());
    json.merge(socket::routes()).layer(from_fn(from_our_pages))
}

/// Refuses what other sites make a browser do (B3), and bodies that a plain form could send. No answer is kept by
/// anything between us and the browser, nor by the browser after its owner has signed out.
async fn from_our_pages(request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        if let Err(refused) = same_origin(request.headers()) {
            return refused.into_response();
        }
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_json = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        if !is_json && request.body().size_hint().exact() != Some(0) {
            return ApiError::form("the body must be application/json").into_response();
        }
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// 403 if the request says that it comes from a page of another host.
fn same_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok()).ok_or(ApiError::Forbidden)?;
    // The host header leaves out the port that the scheme implies.
    let here = Url::parse(&format!("{}://{host}", origin.scheme())).map_err(|_| ApiError::Forbidden)?;
    let place = |url: &Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
    if origin.has_host() && place(&origin) == place(&here) { Ok(()) } else { Err(ApiError::Forbidden) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn only_pages_of_this_host_are_obeyed() {
        let check = |origin: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            headers.insert(header::HOST, host.parse().unwrap());
            same_origin(&headers).is_ok()
        };
        assert_eq!(same_origin(&HeaderMap::new()), Ok(()), "no browser");
        assert!(check("http://127.0.0.1:8080",   "127.0.0.1:8080"));
        assert!(check("https://Chat.example",    "chat.example"));
        assert!(check("https://chat.example",    "chat.example:443"));
        assert!(check("http://[::1]:80",         "[::1]"));
        for (origin, host) in [
            ("http://evil.example",              "chat.example"),
            ("http://chat.example.evil.example", "chat.example"),
            ("http://127.0.0.1:8081",            "127.0.0.1:8080"),
            ("http://chat.example",              "chat.example:443"),
            ("null",                             "chat.example"),
            ("file:///",                         ""),
            ("data:text/html,x",                 "chat.example"),
            ("",                                 "chat.example"),
        ] {
            assert!(!check(origin, host), "{origin} {host}");
        }
    }
}
