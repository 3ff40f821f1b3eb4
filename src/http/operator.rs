//! The operator surface: bulk provisioning, suspension, system agents, email budgets, reports.
//!
//! P1  Without a token in the settings none of this exists; with one, every request has to carry it. The comparison takes
//!     the same time whatever was sent.
//! P2  Keys are shown once, in the answer that makes them; keys that the operator derives itself are not shown at all.
//! P3  A key seed is as secret as the keys: it is used for one request and neither stored nor logged.

use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use schema::ids::{AgentId, KeyHash};
use schema::rows::{AgentRow, Pause, ReportRow};
use schema::store::CreateAgentError;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::extract::{Segment, bearer};
use crate::app::App;
use crate::identity::{fresh_api_key, fresh_key, handles};
use crate::node::snapshots_directory;
use crate::wire::account::{agent_value, pause_name};
use crate::wire::error::ApiError;
use crate::wire::fields::{Fields, Query};
use crate::wire::time::Ts;

/// Agents of one request.
pub const PROVISION_MAX: u64 = 10_000;
/// Longest prefix: with the largest number behind it, it is the longest handle.
const PREFIX_MAX: usize = 16;
/// Characters of a key seed: the shortest still has the 256 bits of a key of ours, if it is hexadecimal or richer.
const KEY_SEED: std::ops::RangeInclusive<usize> = 64..=256;
/// Keys of other purposes will never be derived under this name.
const KEY_LABEL: &[u8] = b"agentchat provisioned key 1\n";
/// Reports of one page when none are asked for, and the most.
const REPORTS: (usize, usize) = (100, 1_000);

/// `/operator/…`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/operator/agents", post(provision))
        .route("/operator/agents/{handle}", get(show))
        .route("/operator/agents/{handle}/suspend", post(suspend))
        .route("/operator/agents/{handle}/unsuspend", post(unsuspend))
        .route("/operator/agents/{handle}/pause", post(pause))
        .route("/operator/agents/{handle}/system", post(make_system).delete(make_ordinary))
        .route("/operator/emails/{email}", delete(release_email))
        .route("/operator/reports", get(reports))
        .route("/operator/snapshot", post(snapshot))
        .merge(super::cluster::routes())
}

/// Snapshots that are kept for whoever copies them; older ones go.
const SNAPSHOTS_KEPT: usize = 3;

/// A request that carries the operator's token (P1).
pub struct Operator;

impl FromRequestParts<App> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let token = app.config.operator_token.as_deref().filter(|token| !token.is_empty());
        let token = token.ok_or(ApiError::NotFound)?;
        let sent = bearer(&parts.headers).flatten().unwrap_or_default();
        // Hashes are of one length, so that nothing is told by the time of the comparison.
        let same = Sha256::digest(sent).ct_eq(&Sha256::digest(token));
        if bool::from(same) { Ok(Self) } else { Err(ApiError::Unauthorized) }
    }
}

/// The key of a provisioned agent, derived: `ac_live_` and the base64url of HMAC-SHA256(`seed`, label and handle).
fn derived_key(seed: &str, handle: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(seed.as_bytes()).ok()?; // takes keys of any length
    mac.update(KEY_LABEL);
    mac.update(handle.as_bytes());
    Some(format!("ac_live_{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

/// `{prefix, count, start?, key_seed?}`: agents `prefix-start …`, as lines `{handle, api_key}`. With a seed the keys are
/// derived from it, so whoever drives a million agents needs no file of a million keys, and the lines are `{handle}`.
async fn provision(State(app): State<App>, _: Operator, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let prefix = fields.required("prefix");
    let count = fields.integer("count", 1..=PROVISION_MAX).unwrap_or(1);
    let start = fields.integer("start", 0..=1_000_000_000_000).unwrap_or(1);
    let last = format!("{prefix}-{}", start + count);
    if !prefix.is_empty() && (prefix.len() > PREFIX_MAX || !handles::well_formed(&last)) {
        fields.complain("prefix", "must be at most 16 characters, and a handle with a number behind it");
    }
    let seed = fields.text("key_seed");
    let fits = |seed: &String| KEY_SEED.contains(&seed.len()) && seed.bytes().all(|byte| byte.is_ascii_graphic());
    if seed.as_ref().is_some_and(|seed| !fits(seed)) {
        fields.complain("key_seed", "must be 64 to 256 visible ASCII characters; take 32 random bytes in hexadecimal");
    }
    fields.finish()?;
    let now = app.clock.now();
    let (rows, lines): (Vec<AgentRow>, Vec<String>) = (start..start + count)
        .map(|n| {
            let handle = format!("{prefix}-{n}");
            let (api_key, line) = match seed.as_ref().and_then(|seed| derived_key(seed, &handle)) {
                Some(api_key) => (api_key, format!("{{\"handle\":\"{handle}\"}}\n")),
                None => {
                    let api_key = fresh_api_key();
                    let line = format!("{{\"handle\":\"{handle}\",\"api_key\":\"{api_key}\"}}\n");
                    (api_key, line)
                }
            };
            let id = AgentId(fresh_key());
            let email = format!("{handle}@provisioned.invalid");
            (AgentRow::new(id, handle, email, KeyHash::of(&api_key), now), line)
        })
        .unzip();
    app.store().create_agents(rows).await.map_err(|error| match error {
        CreateAgentError::HandleTaken => ApiError::HandleTaken,
        CreateAgentError::Store(error) => error.into(),
        _ => ApiError::Internal,
    })?;
    Ok((StatusCode::CREATED, [(header::CONTENT_TYPE, "application/x-ndjson")], lines.concat()).into_response())
}

pub(super) async fn named(app: &App, handle: &str) -> Result<AgentId, ApiError> {
    app.handles.named(handle).await?.ok_or(ApiError::AgentNotFound)
}

/// The account with what operators may see.
fn account(app: &App, row: &AgentRow) -> Json<Value> {
    let mut value = agent_value(row, &app.urls);
    value["email"] = json!(row.email);
    value["paused_by_owner"] = json!(pause_name(row.paused));
    Json(value)
}

async fn show(State(app): State<App>, _: Operator, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    let agent = named(&app, &handle).await?;
    let row = app.store().agent(agent).await?.ok_or(ApiError::AgentNotFound)?;
    Ok(account(&app, &row))
}

async fn set_suspended(app: App, handle: &str, suspended: bool) -> Result<Json<Value>, ApiError> {
    let row = app.domain.suspend(named(&app, handle).await?, suspended).await?;
    tracing::info!(handle = row.handle, suspended, "an operator decided");
    Ok(account(&app, &row))
}

async fn suspend(State(app): State<App>, _: Operator, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    set_suspended(app, &handle, true).await
}

async fn unsuspend(State(app): State<App>, _: Operator, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    set_suspended(app, &handle, false).await
}

/// `{mode: none|send|full}`: what an owner could do, for agents without one.
async fn pause(
    State(app): State<App>,
    _: Operator,
    Segment(handle): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let mode = fields.required("mode");
    let pause = [Pause::None, Pause::Send, Pause::Full].into_iter().find(|pause| pause_name(*pause) == mode);
    if pause.is_none() && !mode.is_empty() {
        fields.complain("mode", "must be none, send or full");
    }
    fields.finish()?;
    let row = app.domain.set_pause(named(&app, &handle).await?, pause.unwrap_or_default()).await?;
    Ok(account(&app, &row))
}

async fn set_system(app: App, handle: &str, system: bool) -> Result<Json<Value>, ApiError> {
    let row = app.domain.set_system(named(&app, handle).await?, system).await?;
    app.profiles.forget(row.id);
    tracing::info!(handle = row.handle, system, "an operator decided");
    Ok(account(&app, &row))
}

async fn make_system(State(app): State<App>, _: Operator, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    set_system(app, &handle, true).await
}

async fn make_ordinary(State(app): State<App>, _: Operator, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    set_system(app, &handle, false).await
}

async fn release_email(State(app): State<App>, _: Operator, Segment(email): Segment) -> Result<Json<Value>, ApiError> {
    app.store().reset_email(&email.trim().to_lowercase()).await?;
    Ok(Json(json!({"ok": true})))
}

/// Copies the embedded store beside it; a backup takes it from there.
async fn snapshot(State(app): State<App>, _: Operator) -> Result<(StatusCode, Json<Value>), ApiError> {
    let store = app.embedded.clone().ok_or(ApiError::NotFound)?;
    let (directory, name) = (snapshots_directory(&app.config), snapshot_name(&app));
    let to = directory.join(&name);
    let taken = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&directory)?;
        let mut before: Vec<_> = std::fs::read_dir(&directory)?.collect::<Result<Vec<_>, _>>()?;
        before.sort_by_key(std::fs::DirEntry::file_name);
        for old in before.iter().rev().skip(SNAPSHOTS_KEPT - 1) {
            std::fs::remove_dir_all(old.path())?;
        }
        store.snapshot(&to)
    });
    match taken.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(()) => {
            tracing::info!(name, "an operator took a snapshot");
            Ok((StatusCode::CREATED, Json(json!({"snapshot": name}))))
        }
        Err(error) => {
            tracing::error!(%error, "a snapshot was not taken");
            Err(ApiError::Internal)
        }
    }
}

/// Names sort by time; two of one millisecond differ.
fn snapshot_name(app: &App) -> String {
    format!("{:013}-{:08x}", app.clock.now().0, rand::random::<u32>())
}

fn report_value(report: &ReportRow) -> Value {
    json!({
        "reporter": report.reporter,
        "target": report.handle,
        "reason": report.reason,
        "reported_at": Ts(report.at),
    })
}

async fn reports(State(app): State<App>, _: Operator, query: Query) -> Result<Json<Value>, ApiError> {
    let limit = query.limit(REPORTS.0, REPORTS.1)?;
    let after = query.text("after").map(hex::decode).transpose();
    let after = after.map_err(|_| ApiError::field("after", "must be the next_cursor of a page before"))?;
    let (rows, next) = app.store().all_reports(after, limit).await?;
    let shown: Vec<Value> = rows.iter().map(report_value).collect();
    Ok(Json(json!({"reports": shown, "next_cursor": next.map(hex::encode)})))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python: `base64.urlsafe_b64encode(hmac.new(b"0" * 64, label + b"bot-7", "sha256").digest())`.
    #[test]
    fn a_derived_key_is_the_published_function_of_seed_and_handle() {
        let key = derived_key(&"0".repeat(64), "bot-7").unwrap();
        assert_eq!(key, "ac_live_4WzKwMrcn3VKRh_TBelb5lOmdt7LcOL97bYesdQ4BIU");
        assert_ne!(derived_key(&"0".repeat(64), "bot-8").unwrap(), key);
        assert_ne!(derived_key(&"1".repeat(64), "bot-7").unwrap(), key);
    }
}
