//! What an agent did and what happened to it, with its messages, as one feed.
//!
//! ```text
//!   activity log (bounded, stored)  ─┐
//!   its creation (from the account) ─┼─ newest first, before a time ─▶ a page
//!   its messages (from the logs)    ─┘
//! ```
//! F1  Messages are read where they lie when somebody asks: nothing of them is copied into the activity log. Those that
//!     the agent does not see are not in the feed.
//! F2  A page ends between two times, never within one: the next page starts before a time, so what shares it would be
//!     lost.
//! F3  Metadata is made here, field by field, from what the contract lists.
//! F4  Nobody learns of an entry that is for another owner, not by its absence either.
//! F5  Work is bounded: a page reads the logs that can add to it and no more of them than it shows, messages without
//!     their receipts, and few pages are put together at a time. Which logs, the heads of all conversations say.

use std::cmp::Reverse;
use std::sync::Arc;

use actors::api::ConversationView;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::try_join_all;
use schema::ids::{AgentId, MessageId, OwnerId, Seq};
use schema::rows::{
    AgentRow, EventAction, EventActor, EventRow, MessageRow, MessageType, RevokedReason, StatusReason, Timestamp,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::agents::owned;
use super::session::SignedIn;
use crate::app::App;
use crate::http::extract::Segment;
use crate::queries::conversations::{self, Listed, counterparty};
use crate::queries::history;
use crate::wire::account::{pause_name, status_name};
use crate::wire::error::ApiError;
use crate::wire::fields::Query;
use crate::wire::time::{self, Ts};

/// Entries of a page; the contract's number.
const PAGE: usize = 50;
/// Conversations whose logs are read side by side.
const LOGS_AT_ONCE: usize = 8;
/// Pages that a node puts together at a time. Each reads the heads of all conversations of its agent, which may be
/// thousands: owners wait for each other, and agents for none of them (F5).
const PAGES_AT_ONCE: usize = 4;

static TURNS: Semaphore = Semaphore::const_new(PAGES_AT_ONCE);

/// `/dashboard/agents/{handle}/events`.
pub fn routes() -> Router<App> {
    Router::new().route("/dashboard/agents/{handle}/events", get(events))
}

/// One entry of the feed.
struct Entry {
    at: Timestamp,
    /// Breaks ties: newest last.
    order: (u8, u64),
    value: Value,
}

async fn events(
    State(app): State<App>,
    caller: SignedIn,
    Segment(handle): Segment,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let agent = owned(&app, &caller, &handle).await?;
    let before = match query.text("before") {
        Some(text) => time::parse(text).ok_or_else(|| ApiError::field("before", "must be an RFC 3339 time"))?,
        None => Timestamp(u64::MAX),
    };
    let _turn = TURNS.acquire().await.map_err(|_| ApiError::Internal)?;
    let mut entries = logged(&app, &agent, caller.id()).await?;
    entries.retain(|entry| entry.at < before);
    newest(&mut entries);
    messages(&app, agent.id, before, &mut entries).await?;
    let shown: Vec<Value> = entries.into_iter().map(|entry| entry.value).collect();
    Ok(Json(json!({"events": shown})))
}

/// Keeps the newest page of entries, newest first (F2).
fn newest(entries: &mut Vec<Entry>) {
    entries.sort_by_key(|entry| Reverse((entry.at, entry.order)));
    if let Some(last) = entries.get(PAGE - 1).map(|last| last.at) {
        entries.truncate(entries.partition_point(|entry| entry.at >= last));
    }
}

/// The activity log as this owner may read it, and the beginning of the account.
async fn logged(app: &App, agent: &AgentRow, owner: OwnerId) -> Result<Vec<Entry>, ApiError> {
    let rows = app.store().events(agent.id).await?;
    let mut entries: Vec<Entry> = rows
        .iter()
        .filter(|row| row.owner.is_none_or(|only| only == owner))
        .map(|row| Entry { at: row.at, order: (1, row.number), value: event_value(agent.id, row) })
        .collect();
    let created = entry(event_id(agent.id, 0), EventActor::Agent, "agent.created", json!({}), agent.created_at);
    entries.push(Entry { at: agent.created_at, order: (0, 0), value: created });
    Ok(entries)
}

fn entry(id: String, actor: EventActor, action: &str, metadata: Value, at: Timestamp) -> Value {
    let actor = match actor {
        EventActor::Owner => "owner",
        EventActor::Agent => "agent",
        EventActor::System => "system",
    };
    json!({"id": id, "actor_type": actor, "action": action, "metadata": metadata, "created_at": Ts(at)})
}

/// The number of an entry, as a hash: gaps between numbers would tell that there are entries for somebody else (F4).
fn event_id(agent: AgentId, number: u64) -> String {
    let digest = Sha256::new().chain_update(agent.0.as_bytes()).chain_update(number.to_be_bytes()).finalize();
    format!("evt_{}", hex::encode(&digest[..12]))
}

fn event_value(agent: AgentId, row: &EventRow) -> Value {
    let (action, metadata) = described(&row.action);
    entry(event_id(agent, row.number), row.actor, action, metadata, row.at)
}

/// Name and metadata of an action (F3).
fn described(action: &EventAction) -> (&'static str, Value) {
    match action {
        EventAction::StatusChanged { from, to, reason } => {
            let reason = match reason {
                StatusReason::Standing => "enforcement",
                StatusReason::Expired => "expired",
                StatusReason::Operator => "operator",
            };
            ("agent.status_changed", json!({"from": status_name(*from), "to": status_name(*to), "reason": reason}))
        }
        EventAction::KeyRotated => ("agent.key_rotated", json!({})),
        EventAction::Deleted => ("agent.deleted", json!({})),
        EventAction::Blocked { handle } => ("agent.blocked", json!({"handle": handle})),
        EventAction::Reported { handle } => ("agent.reported", json!({"handle": handle})),
        EventAction::Claimed => ("agent.claimed", json!({})),
        EventAction::Released => ("agent.released", json!({})),
        EventAction::ClaimAttempted { ip, user_agent } => {
            ("agent.claim_attempted", json!({"ip": ip, "user_agent": user_agent}))
        }
        EventAction::ClaimRevoked(reason) => {
            let reason = match reason {
                RevokedReason::KeyRotated => "key_rotated",
                RevokedReason::Deleted => "deleted",
            };
            ("agent.claim_revoked", json!({"reason": reason}))
        }
        EventAction::Paused(mode) => ("agent.paused", json!({"mode": pause_name(*mode)})),
        EventAction::Unpaused => ("agent.unpaused", json!({})),
        EventAction::OwnerCreated => ("owner.created", json!({})),
        EventAction::OwnerSignedIn => ("owner.signed_in", json!({})),
        EventAction::OwnerSignedOutAll => ("owner.signed_out_all", json!({})),
    }
}

/// Merges the agent's messages before a time into `entries` (F1).
async fn messages(app: &App, agent: AgentId, before: Timestamp, entries: &mut Vec<Entry>) -> Result<(), ApiError> {
    let mut listed = conversations::visible(app, agent).await?;
    listed.retain(|one| one.row.created_at < before);
    let mut rest = listed.as_slice();
    while !rest.is_empty() {
        // Conversations come newest first: once a page is full of newer entries, no older log can add to it.
        let full = entries.get(PAGE - 1).map(|last| last.at);
        if full.is_some_and(|last| rest[0].row.last_message_at < last) {
            return Ok(());
        }
        let (now, later) = rest.split_at(rest.len().min(LOGS_AT_ONCE));
        let span = (full.unwrap_or_default(), before);
        let logs: Vec<_> = now.iter().map(|one| log_within(app, agent, one, span)).collect();
        entries.extend(try_join_all(logs).await?.into_iter().flatten());
        newest(entries);
        rest = later;
    }
    Ok(())
}

/// The newest page of one conversation before a time, as far as it is not older than another.
async fn log_within(
    app: &App,
    agent: AgentId,
    listed: &Listed,
    (oldest, before): (Timestamp, Timestamp),
) -> Result<Vec<Entry>, ApiError> {
    let Some(view) = listed.view(agent) else { return Ok(Vec::new()) };
    let (store, mut end) = (app.store().as_ref(), end_before(app, &view, before).await?);
    let mut found = Vec::new();
    while found.len() < PAGE {
        let rows = history::messages_before(store, &view, agent, end, PAGE).await?;
        let Some(last) = rows.last() else { break };
        let exhausted = rows.len() < PAGE || last.created_at < oldest;
        end = last.seq;
        let shown = rows.iter().filter(|message| message.kind != MessageType::System && message.created_at >= oldest);
        found.extend(shown.map(|message| message_entry(message, agent, &view)));
        if exhausted {
            break;
        }
    }
    Ok(found)
}

/// The first seq at or after a time: times in a log never run backwards, so halving finds it.
async fn end_before(app: &App, view: &ConversationView, before: Timestamp) -> Result<Seq, ApiError> {
    let (mut low, mut high) = (view.from.0, view.row.last_seq.0.saturating_add(1));
    if view.row.last_message_at < before {
        return Ok(Seq(high));
    }
    while low < high {
        let middle = low + (high - low) / 2;
        let row = app.store().messages_up(view.row.id, Seq(middle), Seq(middle), 1).await?.pop();
        if row.is_some_and(|row| row.created_at < before) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(Seq(low))
}

fn message_entry(message: &Arc<MessageRow>, agent: AgentId, view: &ConversationView) -> Entry {
    let own = message.sender == agent;
    // Of a group, whoever wrote; an own message there is for all.
    let peer = match (&view.group, own) {
        (None, _) => counterparty(&view.row, agent).map(|(_, handle)| handle),
        (Some(_), false) => Some(message.sender_handle.as_str()),
        (Some(_), true) => None,
    };
    let action = if own { "message.sent" } else { "message.received" };
    let metadata = json!({"conversation_id": message.conversation.to_string(), "peer": peer});
    let id = MessageId { conversation: message.conversation, seq: message.seq }.to_string();
    let value = entry(id, EventActor::Agent, action, metadata, message.created_at);
    Entry { at: message.created_at, order: (2, message.seq.0), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_never_ends_within_one_time() {
        let entries = |times: &[u64]| {
            let entry = |(n, at): (usize, &u64)| Entry { at: Timestamp(*at), order: (1, n as u64), value: json!(n) };
            let mut entries: Vec<Entry> = times.iter().enumerate().map(entry).collect();
            newest(&mut entries);
            entries
        };
        let all: Vec<u64> = (1..=60).collect();
        let page = entries(&all);
        assert_eq!((page.len(), page[0].at, page[PAGE - 1].at), (PAGE, Timestamp(60), Timestamp(11)));
        let mut tied = vec![5; 7];
        tied.extend(10..10 + PAGE as u64 - 3);
        let page = entries(&tied);
        assert_eq!(page.len(), PAGE + 4, "all seven of the last time");
        assert!(page.windows(2).all(|pair| (pair[0].at, pair[0].order) > (pair[1].at, pair[1].order)));
        assert_eq!(entries(&[]).len(), 0);
    }

    #[test]
    fn actions_have_their_published_names_and_nothing_else_beside_them() {
        let attempt = EventAction::ClaimAttempted { ip: "::1".to_owned(), user_agent: Some("x".to_owned()) };
        assert_eq!(described(&attempt), ("agent.claim_attempted", json!({"ip": "::1", "user_agent": "x"})));
        let revoked = EventAction::ClaimRevoked(RevokedReason::KeyRotated);
        assert_eq!(described(&revoked), ("agent.claim_revoked", json!({"reason": "key_rotated"})));
        assert_eq!(described(&EventAction::OwnerSignedIn), ("owner.signed_in", json!({})));
    }
}
