//! Presence: of one agent in the book, of many, of the caller.
//!
//! P1  Only agents in the caller's book are shown, and the caller itself; a block in either direction hides. In a batch
//!     everybody else looks offline, so that nothing can be told from it.
//! P2  A batch takes what snapshots there are and asks the entities for the rest, and for the caller's own. Scope is never
//!     taken from a snapshot: book and blocks of both sides are read from the store, as of now.

use std::collections::HashMap;

use actors::api::{Presence, Refusal};
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use schema::ids::AgentId;
use schema::rows::{BlockRow, ContactRow};
use serde_json::{Map, Value, json};

use super::extract::{Caller, Segment};
use crate::app::App;
use crate::identity::handles;
use crate::wire::error::ApiError;
use crate::wire::fields::Fields;
use crate::wire::social::{presence_fields, presence_value};

/// Most handles of a batch; the contract's number.
const BATCH_MAX: usize = 100;
/// Agents asked at a time.
const ASKED_AT_ONCE: usize = 16;

/// `/v1/presence…`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/presence", put(set))
        .route("/v1/presence/batch", post(batch))
        .route("/v1/presence/{handle}", get(one))
}

async fn set(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let (status, message) = presence_fields(&mut fields);
    fields.finish()?;
    let presence = app.domain.set_presence(caller.id(), status, message).await?;
    let mut value = presence_value(&caller.account.handle, &presence);
    value["ok"] = json!(true);
    Ok(Json(value))
}

/// Whom the caller may see (P1).
struct Scope {
    own: (AgentId, String),
    book: Vec<ContactRow>,
    blocks: Vec<BlockRow>,
}

impl Scope {
    async fn read(app: &App, caller: &Caller) -> Result<Self, ApiError> {
        Ok(Self {
            own: (caller.id(), caller.account.handle.clone()),
            book: app.store().contacts(caller.id()).await?,
            blocks: app.store().blocks(caller.id()).await?,
        })
    }

    fn agent(&self, handle: &str) -> Option<AgentId> {
        if handle == self.own.1 {
            return Some(self.own.0);
        }
        let contact = self.book.binary_search_by(|contact| contact.handle.as_str().cmp(handle)).ok()?;
        let agent = self.book[contact].agent;
        (!self.blocks.iter().any(|block| block.agent == agent)).then_some(agent)
    }

    /// What snapshots say of those whom the caller may see; a block by one of them hides it (P2).
    async fn snapshots(&self, app: &App, handles: &[String]) -> Result<HashMap<AgentId, Presence>, ApiError> {
        let known = handles.iter().filter_map(|handle| self.agent(handle)).filter(|agent| *agent != self.own.0);
        let known: Vec<(AgentId, u64)> = known.map(|agent| (agent, app.domain.tenure(agent))).collect();
        let mut seen = app.shared.seen(&known).await;
        let agents: Vec<AgentId> = seen.keys().copied().collect();
        let blocking = app.store().blocking(&agents, &self.own.1).await?;
        for (agent, _) in agents.into_iter().zip(blocking).filter(|(_, blocks)| *blocks) {
            seen.insert(agent, Presence::default());
        }
        Ok(seen)
    }

    async fn presence(&self, app: &App, handle: &str) -> Result<Option<Presence>, ApiError> {
        let Some(agent) = self.agent(handle) else { return Ok(None) };
        match app.domain.presence(agent, self.own.0).await {
            Ok(presence) => Ok(Some(presence)),
            Err(Refusal::NoRelation | Refusal::AgentNotFound) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

async fn one(State(app): State<App>, caller: Caller, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    let handle = handles::normalise(&handle);
    let presence = Scope::read(&app, &caller).await?.presence(&app, &handle).await?;
    Ok(Json(presence_value(&handle, &presence.ok_or(ApiError::AgentNotFound)?)))
}

async fn batch(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let asked = fields.required_strings("handles").unwrap_or_default();
    fields.finish()?;
    if !(1..=BATCH_MAX).contains(&asked.len()) {
        return Err(ApiError::field("handles", "must have 1 to 100 entries"));
    }
    let mut handles: Vec<String> = Vec::with_capacity(asked.len());
    for handle in asked.iter().map(|handle| handles::normalise(handle)) {
        if !handles.contains(&handle) {
            handles.push(handle);
        }
    }
    let scope = Scope::read(&app, &caller).await?;
    let seen = scope.snapshots(&app, &handles).await?;
    let found: Vec<(String, Value)> = stream::iter(handles)
        .map(|handle| async {
            let presence = match scope.agent(&handle).and_then(|agent| seen.get(&agent)) {
                Some(presence) => presence.clone(),
                None => scope.presence(&app, &handle).await?.unwrap_or_default(),
            };
            let value = presence_value(&handle, &presence);
            Ok::<_, ApiError>((handle, value))
        })
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    let presences: Vec<Value> = found.iter().map(|(_, value)| value.clone()).collect();
    let results: Map<String, Value> = found.into_iter().collect();
    Ok(Json(json!({"presences": presences, "results": results})))
}
