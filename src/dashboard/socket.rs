//! The dashboard's socket: a ticket buys it, the owner's entity feeds it, and nothing that it sends is listened to.
//!
//! W1  A ticket works once, for 30 s, on any node, and only while its sign-in lasts.
//! W2  Frames follow what is durable; nothing is replayed. A socket that cannot follow is closed, and whoever comes back
//!     reads everything anew.

use std::time::Duration;

use actors::api::{Change, CloseReason, Refusal, SessionId, ToSession};
use actors::domain::Domain;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{any, post};
use axum::{Json, Router};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use schema::ids::OwnerId;
use schema::rows::{PendingPurpose, PendingRow, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::reads::attached;
use super::same_origin;
use super::session::SignedIn;
use super::shapes::{Row, message_row};
use crate::app::{App, draining};
use crate::metrics::DASHBOARD_SOCKETS;
use crate::wire::error::ApiError;
use crate::wire::fields::Query;
use crate::wire::message::MessageState;
use crate::ws::{Beat, Closing, End, Pulse, Transport, bounded, close, in_time, send};

/// A ticket works for this long; the contract's number.
const TICKET: Duration = Duration::from_secs(30);
/// Frames written between two flushes.
const FLUSH_EVERY: usize = 32;

/// `/dashboard/ws/ticket` and `/v1/ws/dashboard`.
pub fn routes() -> Router<App> {
    Router::new().route("/dashboard/ws/ticket", post(ticket)).route("/v1/ws/dashboard", any(upgrade))
}

/// A random UUID, version 4.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Under which a ticket is kept: its hash, so that the store gives none away.
fn ticket_id(ticket: &str) -> String {
    format!("tkt_{}", hex::encode(Sha256::digest(ticket)))
}

fn ticket_row(ticket: &str, owner: OwnerId, sign_in: u64, now: Timestamp) -> PendingRow {
    PendingRow {
        id: ticket_id(ticket),
        email: String::new(),
        purpose: PendingPurpose::Ticket { owner, sign_in },
        code_hash: [0; 32],
        attempts: 0,
        expires_at: now.plus_ms(TICKET.as_millis() as u64),
    }
}

async fn ticket(State(app): State<App>, caller: SignedIn) -> Result<Json<Value>, ApiError> {
    let ticket = uuid(rand::random());
    app.store().put_pending(ticket_row(&ticket, caller.id(), caller.owner.sign_in, app.clock.now())).await?;
    Ok(Json(json!({"ticket": ticket, "expires_in": TICKET.as_secs()})))
}

async fn upgrade(
    State(app): State<App>,
    headers: HeaderMap,
    query: Query,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    same_origin(&headers)?;
    let upgrade = upgrade.map_err(|_| ApiError::form("this address takes WebSocket upgrades only"))?;
    if *app.shutdown.borrow() {
        return Err(ApiError::Unavailable);
    }
    let place = app.sockets.take()?;
    let ticket = query.text("ticket").unwrap_or_default().to_owned();
    Ok(bounded(upgrade).on_upgrade(move |socket| async move {
        serve(&app, Transport::new(socket), &ticket).await;
        drop(place);
    }))
}

/// Uses a ticket up (W1); `Ok(None)` for one that is worth nothing.
async fn redeem(app: &App, ticket: &str) -> Result<Option<(OwnerId, u64)>, ApiError> {
    let id = ticket_id(ticket);
    let Some(row) = app.store().pending(&id).await? else { return Ok(None) };
    let taken = app.store().take_pending(&id).await?;
    Ok(worth(&row, app.clock.now()).filter(|_| taken))
}

/// Whose ticket a row is, and of which sign-in, if it is one and its time is not over.
fn worth(row: &PendingRow, now: Timestamp) -> Option<(OwnerId, u64)> {
    match row.purpose {
        PendingPurpose::Ticket { owner, sign_in } => (now <= row.expires_at).then_some((owner, sign_in)),
        _ => None,
    }
}

/// Tells the owner's entity that its socket is gone, whatever way.
struct Watching {
    domain: Domain,
    owner: OwnerId,
    session: SessionId,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.domain.unwatch(self.owner, self.session);
        metrics::gauge!(DASHBOARD_SOCKETS).decrement(1);
    }
}

async fn serve(app: &App, mut transport: Transport, ticket: &str) {
    let watched = match redeem(app, ticket).await {
        Ok(Some((owner, sign_in))) => app.domain.watch(owner, sign_in).await.map(|(session, frames)| {
            metrics::gauge!(DASHBOARD_SOCKETS).increment(1);
            (Watching { domain: app.domain.clone(), owner, session }, frames)
        }),
        Ok(None) => Err(Refusal::Unauthorized),
        Err(_) => Err(Refusal::Unavailable),
    };
    let (watching, frames) = match watched {
        Ok(watched) => watched,
        Err(Refusal::Unauthorized) => return close(&mut transport, Closing::new(1008, "Invalid ticket")).await,
        Err(_) => return close(&mut transport, Closing::new(1011, "the ticket cannot be checked now")).await,
    };
    if transport.send(json!({"type": "hello.ok"}).to_string()).await.is_err() {
        return;
    }
    let (pongs, heard) = mpsc::channel(1);
    let Transport { stream, sink } = &mut transport;
    let mut writer = Writer { app, sink };
    let end = tokio::select! {
        () = listen(stream, pongs) => End::Gone,
        end = writer.write(frames, heard) => end,
    };
    drop(watching);
    if let End::Close(closing) = end {
        close(&mut transport, closing).await;
    }
}

/// Reads until the peer is gone. Only pongs mean anything.
async fn listen(stream: &mut SplitStream<WebSocket>, pongs: mpsc::Sender<()>) {
    while let Some(Ok(message)) = stream.next().await {
        if matches!(message, Message::Pong(_)) {
            let _ = pongs.try_send(()); // one that waits says as much
        }
    }
}

/// The writing side.
struct Writer<'a> {
    app: &'a App,
    sink: &'a mut SplitSink<WebSocket, Message>,
}

impl Writer<'_> {
    /// Until the socket has to close or the transport is gone.
    async fn write(&mut self, mut frames: mpsc::Receiver<ToSession>, mut pongs: mpsc::Receiver<()>) -> End {
        let mut shutdown = self.app.shutdown.clone();
        let mut batch = Vec::with_capacity(FLUSH_EVERY);
        let mut pulse = Pulse::new();
        loop {
            let end = tokio::select! {
                count = frames.recv_many(&mut batch, FLUSH_EVERY) => match count {
                    0 => Some(End::Close(Closing::new(1013, "slow consumer"))),
                    _ => self.deliver(&mut batch).await,
                },
                Some(()) = pongs.recv() => {
                    pulse.heard();
                    None
                }
                () = tokio::time::sleep_until(pulse.next()) => match pulse.beat() {
                    Beat::Rest => None,
                    Beat::Ping => send(self.sink, Message::Ping(Vec::new().into())).await.err().map(|_| End::Gone),
                    Beat::Dead => Some(End::Close(Closing::new(1001, "Heartbeat timeout"))),
                    Beat::Leave => Some(End::Close(stopping())),
                },
                () = draining(&mut shutdown), if !pulse.is_leaving() => {
                    pulse.leave();
                    None
                },
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Writes a batch in order and flushes it.
    async fn deliver(&mut self, batch: &mut Vec<ToSession>) -> Option<End> {
        let mut closing = None;
        for frame in batch.drain(..) {
            let text = match frame {
                ToSession::Close(reason) => {
                    closing = Some(End::Close(ended(reason)));
                    break;
                }
                frame => match self.text(frame).await {
                    Ok(text) => text,
                    // The page cannot be told: it comes back and reads.
                    Err(_) => return Some(End::Close(Closing::new(1011, "come back"))),
                },
            };
            if let Err(end) = in_time(self.sink.feed(Message::Text(text.into()))).await {
                return Some(end);
            }
        }
        in_time(self.sink.flush()).await.err().or(closing)
    }

    async fn text(&self, frame: ToSession) -> Result<String, ApiError> {
        match frame {
            ToSession::Seen { agent, handle, message, pos } => {
                let sender = self.app.store().agent(message.sender).await?;
                let state = (pos, MessageState::default());
                let file = attached(self.app, &message).await?;
                let payload = message_row(&message, agent, state, sender.as_ref(), &self.app.urls);
                let payload = payload.with_attachment(file.as_ref());
                let conversation_id = message.conversation.to_string();
                let frame = New { kind: "message.new", agent_handle: &handle, conversation_id, payload };
                serde_json::to_string(&frame).map_err(|_| ApiError::Internal)
            }
            ToSession::Changed { handle, change } => {
                let kind = match change {
                    Change::Agent => "agent.updated",
                    Change::Activity => "activity.new",
                };
                Ok(json!({"type": kind, "agent_handle": handle}).to_string())
            }
            _ => Err(ApiError::Internal), // no other frame is meant for a dashboard
        }
    }
}

#[derive(Serialize)]
struct New<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    agent_handle: &'a str,
    conversation_id: String,
    payload: Row<'a>,
}

fn stopping() -> Closing {
    Closing::new(1001, "restart")
}

fn ended(reason: CloseReason) -> Closing {
    match reason {
        CloseReason::Restart => stopping(),
        reason => reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_uuids_of_version_4_and_kept_as_hashes() {
        let uuid = uuid([0xFF; 16]);
        assert_eq!(uuid, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let id = ticket_id(&uuid);
        assert!(id.starts_with("tkt_") && id.len() == 68 && !id.contains(&uuid));
    }

    #[test]
    fn a_ticket_is_worth_something_for_30_seconds_and_nothing_else_is_a_ticket() {
        let owner = OwnerId::of_email("o@example.com");
        let row = ticket_row("x", owner, 7, Timestamp(1_000));
        assert_eq!(worth(&row, Timestamp(31_000)), Some((owner, 7)));
        assert_eq!(worth(&row, Timestamp(31_001)), None);
        assert_eq!(worth(&PendingRow { purpose: PendingPurpose::SignIn, ..row }, Timestamp(1_000)), None);
    }
}
