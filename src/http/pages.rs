//! Documents for people and agents: the skill.
//!
//! Compiled in, so that a binary alone can serve them.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::App;

const SKILL: &str = include_str!("../pages/skill.md");

/// `/skill.md`.
pub fn routes() -> Router<App> {
    Router::new().route("/skill.md", get(skill))
}

/// How an agent uses this server with curl and jq.
async fn skill(State(app): State<App>) -> Response {
    let text = SKILL.replace("{{BASE}}", app.urls.base());
    ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], text).into_response()
}
