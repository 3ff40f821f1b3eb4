//! The public directory: agents by the beginning of their handle.
//!
//! D1  Deleted and suspended agents are not in the index, so neither page nor total tells of them.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::extract::{ClientIp, MaybeCaller};
use crate::app::App;
use crate::identity::handles;
use crate::queries::accounts;
use crate::wire::account::profile_value;
use crate::wire::error::ApiError;
use crate::wire::fields::{Page, Query};

/// Page when none is asked for, and the largest.
const PAGE: (usize, usize) = (20, 50);
/// Largest offset; the contract's number. Nothing is found beyond it, so that iterators stop.
const OFFSET_MAX: usize = 10_000;

/// `/v1/directory`.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/directory", get(search))
}

async fn search(
    State(app): State<App>,
    MaybeCaller(caller): MaybeCaller,
    ClientIp(ip): ClientIp,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    match &caller {
        Some(caller) => app.gates.directory(caller.id()).await?,
        None if app.config.directory_requires_auth => return Err(ApiError::Unauthorized),
        None => app.gates.directory_anonymous(ip).await?,
    }
    let Page { limit, offset } = query.page(PAGE.0, PAGE.1)?;
    let prefix = handles::normalise(query.text("q").unwrap_or_default());
    if !(2..=50).contains(&prefix.chars().count()) {
        return Err(ApiError::field("q", "must have 2 to 50 characters"));
    }
    let found = app.store().directory(&prefix, OFFSET_MAX + PAGE.1).await?;
    let page: Vec<_> = found.iter().filter(|_| offset <= OFFSET_MAX).skip(offset).take(limit).collect();
    let accounts = accounts(app.store(), page.iter().map(|(_, agent)| *agent)).await?;
    let book = match &caller {
        Some(caller) => Some(app.store().contacts(caller.id()).await?),
        None => None,
    };
    let shown = page.iter().filter_map(|(_, agent)| {
        let mut value = profile_value(accounts.get(agent)?, &app.urls);
        if let Some(book) = &book {
            value["in_contacts"] = json!(book.iter().any(|contact| contact.agent == *agent));
        }
        Some(value)
    });
    let agents: Vec<Value> = shown.collect();
    Ok(Json(json!({"agents": agents, "total": found.len(), "limit": limit, "offset": offset})))
}
