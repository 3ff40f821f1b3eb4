//! The WebSocket: upgrade, greeting, and one task per socket.
//!
//! ```text
//!   mod       who may upgrade, and how many
//!   greeting  hello mode: the first frame, within its deadline
//!   protocol  what a client frame asks for: a state machine without I/O
//!   frames    JSON of frames, both ways
//!   pulse     when to ping, to give up, to go
//!   socket    the task: reads, writes, heartbeat, closing
//! ```
//! W1  `hello.ok` is the first frame, once; durable frames come from the agent entity alone, in its order (contract S3).
//! W2  Codes that end a client for good (1008, 4401, 4403) are for credentials and account state only (contract S12).

mod frames;
mod greeting;
mod protocol;
mod pulse;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use actors::api::AckMode;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::any;
use schema::rows::AgentStatus;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::frames::notice_payload;
pub use self::pulse::{Beat, Pulse};
pub use self::socket::{Closing, End, Transport, close, in_time, send};
use crate::app::App;
use crate::http::extract::{bearer, credential};
use crate::wire::error::ApiError;

/// Largest client frame; the contract's number.
const FRAME_MAX: usize = 64 * 1024;
/// Read buffer of one socket: client frames are small, there may be very many sockets, and every one keeps it.
const READ_BUFFER: usize = 512;
/// Frames are handed to the transport once they are this much: the buffer that they wait in never shrinks again.
const WRITE_CHUNK: usize = 2 * 1024;
/// Bytes that may wait for one socket's transport; the contract's number.
const WRITE_BUFFER: usize = 4 * 1024 * 1024;
/// Unacked frames out at once: in hello mode what Python can take in one burst, in header mode the daemon's own bound.
const WINDOWS: (u32, u32) = (12, 2_000);
/// Sockets of one node.
const SOCKETS_MAX: u32 = 1_000_000;
/// Sockets that have not yet said who they are.
const GREETINGS_MAX: usize = 4_096;
/// Name of the header in which header-mode clients offer capabilities.
const CAPABILITIES: &str = "x-agentchat-capabilities";

/// Places for sockets of this node.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    greeting: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(SOCKETS_MAX as usize)), greeting: Arc::new(Semaphore::new(GREETINGS_MAX)) }
    }
}

impl Places {
    /// A place for one more socket.
    pub fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        place(&self.all)
    }

    /// Waits until no socket is left, at most `patience`.
    pub async fn drained(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.all.acquire_many(SOCKETS_MAX)).await.is_err() {
            tracing::warn!("some sockets were cut after the drain's deadline");
        }
    }
}

fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(places).try_acquire_owned().map_err(|_| ApiError::Unavailable)
}

/// `/v1/ws`.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/ws", any(upgrade))
}

/// Header mode answers bad keys before the upgrade; hello mode upgrades first and asks then.
async fn upgrade(
    State(app): State<App>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let presented = bearer(&headers);
    let who = match presented {
        None => None,
        Some(key) => {
            let who = credential(&app, key.ok_or(ApiError::Unauthorized)?).await?;
            if app.domain.admit(who).await?.account.status == AgentStatus::Suspended {
                return Err(ApiError::AgentSuspended);
            }
            Some(who)
        }
    };
    let upgrade = upgrade.map_err(|_| ApiError::form("this address takes WebSocket upgrades only"))?;
    if *app.shutdown.borrow() {
        return Err(ApiError::Unavailable);
    }
    let place = app.sockets.take()?;
    let upgrade = bounded(upgrade);
    let Some(who) = who else {
        let waiting = self::place(&app.sockets.greeting)?;
        return Ok(upgrade.on_upgrade(move |socket| async move {
            greeting::greet(app, Transport::new(socket), waiting).await;
            drop(place);
        }));
    };
    let offered = headers.get_all(CAPABILITIES).iter().filter_map(|value| value.to_str().ok());
    let ack = offered.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case("ack"));
    Ok(upgrade.on_upgrade(move |socket| async move {
        socket::serve(app, Transport::new(socket), who, mode(ack, WINDOWS.1)).await;
        drop(place);
    }))
}

/// An upgrade whose frames and buffers are bounded.
pub fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    let upgrade = upgrade.max_message_size(FRAME_MAX).max_frame_size(FRAME_MAX);
    upgrade.read_buffer_size(READ_BUFFER).write_buffer_size(WRITE_CHUNK).max_write_buffer_size(WRITE_BUFFER)
}

fn mode(ack: bool, window: u32) -> AckMode {
    if ack { AckMode::Explicit { window } } else { AckMode::OnWrite }
}
