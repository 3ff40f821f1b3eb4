//! REST: routes, what wraps every request, and one module of handlers per kind of resource.
//!
//! R1  Every answer carries `x-request-id`, errors the one envelope, also those raised before any handler runs.
//! R2  Order: request id, body size, key, account state, request budget, shape, permission, existence, conflict.

mod attachments;
pub mod body;
mod cluster;
mod contacts;
mod conversations;
mod directory;
pub mod extract;
mod groups;
pub mod idempotency;
mod identity;
mod messages;
mod mutes;
pub mod observe;
mod operations;
pub mod operator;
mod pages;
mod presence;
mod replies;
pub mod serve;
mod webhooks;

use std::any::Any;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

pub use self::attachments::{TYPES as ATTACHMENT_TYPES, location as attachment_location};
use crate::app::App;
use crate::wire::error::ApiError;
use crate::{dashboard, mcp, openapi, ws};

/// All routes.
pub fn router(app: &App) -> Router<App> {
    let tools = mcp::routes(app, wrapped(app, resources()).with_state(app.clone()));
    wrapped(app, resources().merge(tools))
}

/// A module of handlers per kind of resource.
fn resources() -> Router<App> {
    Router::new()
        .merge(identity::routes())
        .merge(contacts::routes())
        .merge(messages::routes())
        .merge(conversations::routes())
        .merge(groups::routes())
        .merge(mutes::routes())
        .merge(presence::routes())
        .merge(directory::routes())
        .merge(attachments::routes())
        .merge(webhooks::routes())
        .merge(replies::routes())
        .merge(ws::routes())
        .merge(operations::routes())
        .merge(operator::routes())
        .merge(pages::routes())
        .merge(dashboard::pages::routes())
        .merge(openapi::routes())
        .merge(dashboard::routes())
}

/// What every request passes on its way to a handler and back.
fn wrapped(app: &App, routes: Router<App>) -> Router<App> {
    routes
        .fallback(|| async { ApiError::NotFound })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        // One layer, the outermost first: each one by itself would be boxed and cloned for every request.
        .layer((
            from_fn_with_state(app.clone(), observe::observe),
            cors(&app.config.cors_origins),
            CatchPanicLayer::custom(panicked),
            from_fn_with_state(app.clone(), body::buffered),
            from_fn_with_state(app.clone(), idempotency::remembered),
            DefaultBodyLimit::disable(), // `body` bounds every route by itself
        ))
}

fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
    tracing::error!(cause = text.unwrap_or("unknown"), "a handler panicked");
    ApiError::Internal.into_response()
}

fn cors(origins: &[String]) -> CorsLayer {
    let name = HeaderName::from_static;
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            name("idempotency-key"),
            name("x-request-id"),
            name("x-agentchat-client"),
            name("x-agentchat-client-version"),
            name("mcp-protocol-version"),
            name("mcp-method"),
            name("mcp-name"),
        ])
        .expose_headers([
            name("x-request-id"),
            name("x-backlog-warning"),
            header::RETRY_AFTER,
            header::LOCATION,
            name("idempotent-replay"),
        ])
}
