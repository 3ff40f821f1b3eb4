//! What operators and their probes ask: alive, ready, metrics. Outside `/v1`, without keys.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::app::App;

/// `/healthz`, `/readyz`, `/metrics`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({"status": "alive"})) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// 200 when requests can be served, 503 while draining, while shards are missing, or while the store refuses.
async fn ready(State(app): State<App>) -> Response {
    let draining = *app.shutdown.borrow();
    let member = app.membership.as_ref().map_or(Ok(()), |membership| membership.member.ready());
    let why_not = match member {
        _ if draining => Err("draining".to_owned()),
        Ok(()) => app.domain.ready().await,
        refused => refused,
    };
    match why_not {
        Ok(()) => Json(json!({"status": "ready"})).into_response(),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready", "reason": reason}))).into_response()
        }
    }
}

async fn metrics(State(app): State<App>) -> Response {
    app.domain.observe();
    if let Some(links) = app.membership.as_ref().and_then(|membership| membership.links.as_ref()) {
        links.observe();
    }
    crate::metrics::observe(*app.shutdown.borrow());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render()).into_response()
}
