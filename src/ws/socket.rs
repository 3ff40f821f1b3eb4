//! The task that owns one socket: reads, writes, heartbeat, closing.
//!
//! K1  A frame counts as written only after its flush; only then does a socket without acks count it as delivered.
//! K2  Reading and writing go on side by side: a client that is slow to read can still ack and answer pings.
//! K3  The agent hears of the socket's end whatever way it ends.
//! K4  A socket that rests holds no buffer but that of its transport, and its task little: what is large and rare is boxed
//!     where it begins.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::api::{AckMode, CloseReason, Credential, Refusal, SessionId, ToSession};
use actors::domain::Domain;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use schema::ids::{AgentId, DeliveryId, MessageId, Pos};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;

use super::frames;
use super::greeting::refuse;
use super::protocol::{Action, Protocol};
use super::pulse::{Beat, Pulse};
use crate::app::{App, draining};
use crate::metrics::{FRAMES_IN, FRAMES_OUT, SOCKET_CLOSES, SOCKETS};
use crate::queries::context::{Context, place};
use crate::queries::history;
use crate::wire::error::ApiError;

/// A transport that takes nothing for this long belongs to a slow consumer.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a peer may take to answer our close frame.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Frames written between two flushes.
const FLUSH_EVERY: usize = 32;
/// Answers that wait for the writer; when they are this many the client is read no further.
const REPLIES: usize = 64;

/// Why a socket is closed by us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    code: u16,
    reason: &'static str,
}

impl Closing {
    /// A code of the contract and a short text.
    pub fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

impl From<CloseReason> for Closing {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::KeyRevoked => Self::new(4401, "key revoked"),
            CloseReason::Suspended => Self::new(4403, "suspended"),
            CloseReason::TooManySockets => Self::new(1013, "too many sockets"),
            CloseReason::SlowConsumer => Self::new(1013, "slow consumer"),
            CloseReason::Restart => Self::new(1012, "restart"),
            CloseReason::SignedOut => Self::new(4401, "signed out"),
        }
    }
}

/// How serving ended.
pub enum End {
    /// The peer is gone.
    Gone,
    /// We close.
    Close(Closing),
}

/// Both halves of a WebSocket.
pub struct Transport {
    /// What the client says.
    pub stream: SplitStream<WebSocket>,
    /// What it is told.
    pub sink: SplitSink<WebSocket, Message>,
}

impl Transport {
    /// Over an upgraded socket.
    pub fn new(socket: WebSocket) -> Self {
        let (sink, stream) = socket.split();
        Self { stream, sink }
    }

    /// Writes one frame through to the transport.
    pub async fn send(&mut self, text: String) -> Result<(), axum::Error> {
        send(&mut self.sink, Message::Text(text.into())).await
    }
}

/// Sends one frame at once, within its deadline.
pub async fn send(sink: &mut SplitSink<WebSocket, Message>, message: Message) -> Result<(), axum::Error> {
    timeout(WRITE_DEADLINE, sink.send(message)).await.map_err(axum::Error::new)?
}

/// One step of writing, within its deadline; how serving ends if it does not come to its end.
pub async fn in_time(step: impl Future<Output = Result<(), axum::Error>>) -> Result<(), End> {
    match timeout(WRITE_DEADLINE, step).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Close(CloseReason::SlowConsumer.into())),
    }
}

/// From the reading side to the writing side.
enum Note {
    Reply(String),
    Pong,
}

/// Notes that wait. A channel would allocate room for 32 of them with every socket (K4).
#[derive(Default)]
struct Notes {
    waiting: Mutex<VecDeque<Note>>,
    put: Notify,
    taken: Notify,
}

impl Notes {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Note>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a note, once there are fewer than [`REPLIES`].
    async fn put(&self, note: Note) {
        while self.waiting().len() >= REPLIES {
            self.taken.notified().await;
        }
        self.waiting().push_back(note);
        self.put.notify_one();
    }

    /// The next note. Nothing is lost if the wait is given up.
    async fn next(&self) -> Note {
        loop {
            if let Some(note) = self.take() {
                return note;
            }
            self.put.notified().await;
        }
    }

    fn take(&self) -> Option<Note> {
        let mut waiting = self.waiting();
        let note = waiting.pop_front()?;
        if waiting.is_empty() {
            *waiting = VecDeque::new(); // K4
        }
        self.taken.notify_one();
        Some(note)
    }
}

/// Tells the agent that its socket is gone (K3).
struct Attached {
    domain: Domain,
    agent: AgentId,
    session: SessionId,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.domain.detach(self.agent, self.session);
        metrics::gauge!(SOCKETS).decrement(1);
    }
}

/// Serves an authenticated socket to its end.
pub async fn serve(app: App, mut transport: Transport, who: Credential, mode: AckMode) {
    let (session, frames) = match Box::pin(app.domain.attach(who, mode)).await {
        Ok((session, frames, _)) => (session, frames),
        Err(refusal) => return Box::pin(refused(&mut transport, refusal)).await,
    };
    metrics::gauge!(SOCKETS).increment(1);
    let attached = Attached { domain: app.domain.clone(), agent: who.agent, session };
    if Box::pin(transport.send(frames::hello_ok(mode))).await.is_err() {
        return;
    }
    let notes = Notes::default();
    let Transport { stream, sink } = &mut transport;
    let mut writer = Writer { app: &app, attached: &attached, sink };
    let end = tokio::select! {
        end = read(&app, &attached, stream, &notes) => end,
        end = writer.write(frames, &notes) => end,
    };
    drop(attached);
    if let End::Close(closing) = end {
        Box::pin(close(&mut transport, closing)).await;
    }
}

async fn refused(transport: &mut Transport, refusal: Refusal) {
    match refusal {
        Refusal::Unauthorized => {
            refuse(transport, &ApiError::Unauthorized, Closing::new(1008, "unauthorized")).await;
        }
        Refusal::Suspended => refuse(transport, &ApiError::AgentSuspended, Closing::new(4403, "suspended")).await,
        _ => close(transport, Closing::new(1011, "the key cannot be checked now")).await,
    }
}

/// Sends a close frame and gives the peer a moment to answer it.
pub async fn close(transport: &mut Transport, closing: Closing) {
    metrics::counter!(SOCKET_CLOSES, "code" => closing.code.to_string()).increment(1);
    let frame = CloseFrame { code: closing.code, reason: closing.reason.into() };
    if send(&mut transport.sink, Message::Close(Some(frame))).await.is_err() {
        return;
    }
    // A frame that was too large is still arriving: reading ends with an error at once, and dropping the transport
    // now would reset the connection before the peer has read our reason. So the full patience is waited for.
    let answered = async {
        while let Some(message) = transport.stream.next().await {
            if message.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let _ = timeout(CLOSE_PATIENCE, answered).await;
}

/// The reading side: until the peer is gone or sends too much.
async fn read(app: &App, who: &Attached, stream: &mut SplitStream<WebSocket>, notes: &Notes) -> End {
    let mut protocol = Protocol::default();
    while let Some(message) = stream.next().await {
        metrics::counter!(FRAMES_IN).increment(1);
        let note = match message {
            Ok(Message::Text(text)) => act(app, who, protocol.on_text(app.clock.now(), &text)).await.map(Note::Reply),
            Ok(Message::Pong(_)) => Some(Note::Pong),
            // The library answers pings and closes by itself; binary frames mean nothing here.
            Ok(Message::Binary(_) | Message::Ping(_) | Message::Close(_)) => None,
            Err(error) if is_too_large(&error) => return End::Close(Closing::new(1009, "frame too large")),
            Err(_) => return End::Gone,
        };
        if let Some(note) = note {
            notes.put(note).await;
        }
    }
    End::Gone
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(tungstenite::Error::Capacity(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Does what a frame asks for; the answer, if there is one.
async fn act(app: &App, who: &Attached, action: Action) -> Option<String> {
    match action {
        Action::Ack(message) => app.domain.ack(who.agent, message),
        Action::ReadThrough(conversation, through) => app.domain.read_through(who.agent, conversation, through),
        Action::Typing(conversation, start) => app.domain.typing(who.agent, conversation, start),
        Action::Presence(status, message) => {
            let changed = Box::pin(app.domain.set_presence(who.agent, status, message)).await;
            return changed.err().map(|refusal| frames::error(&refusal.into(), None));
        }
        Action::ReadOne(message, id) => {
            let marked = Box::pin(mark_read(app, who.agent, message)).await;
            return marked.err().map(|error| frames::error(&error, id.as_deref()));
        }
        Action::Reply(text) => return Some(text),
        Action::Nothing => {}
    }
    None
}

async fn mark_read(app: &App, agent: AgentId, message: MessageId) -> Result<(), ApiError> {
    let view = history::view_around(app, message, agent).await?;
    let seen = history::one(app.store().as_ref(), &view, agent, message).await?;
    if seen.message.sender == agent {
        return Err(ApiError::Forbidden);
    }
    app.domain.mark_read(agent, message).await?;
    Ok(())
}

/// The writing side.
struct Writer<'a> {
    app: &'a App,
    attached: &'a Attached,
    sink: &'a mut SplitSink<WebSocket, Message>,
}

impl Writer<'_> {
    /// Until the socket has to close or the transport is gone.
    async fn write(&mut self, mut frames: mpsc::Receiver<ToSession>, notes: &Notes) -> End {
        let mut shutdown = self.app.shutdown.clone();
        let mut pulse = Pulse::new();
        loop {
            let end = tokio::select! {
                frame = frames.recv() => match frame {
                    None => Some(End::Close(Closing::new(1013, "slow consumer"))),
                    Some(first) => Box::pin(self.deliver(first, &mut frames)).await,
                },
                note = notes.next() => match note {
                    Note::Reply(text) => Box::pin(self.put(Message::Text(text.into()))).await,
                    Note::Pong => {
                        pulse.heard();
                        None
                    }
                },
                () = tokio::time::sleep_until(pulse.next()) => match pulse.beat() {
                    Beat::Rest => None,
                    Beat::Ping => Box::pin(self.put(Message::Ping(Vec::new().into()))).await,
                    Beat::Dead => Some(End::Close(Closing::new(1001, "Heartbeat timeout"))),
                    Beat::Leave => Some(End::Close(CloseReason::Restart.into())),
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

    async fn put(&mut self, message: Message) -> Option<End> {
        send(self.sink, message).await.err().map(|_| End::Gone)
    }

    /// Writes a frame and what waits behind it in order, flushes that, and reports it as written (K1).
    async fn deliver(&mut self, first: ToSession, frames: &mut mpsc::Receiver<ToSession>) -> Option<End> {
        let (mut messages, mut through, mut closing) = (0, None::<Pos>, None);
        let rest = std::iter::from_fn(|| frames.try_recv().ok());
        for frame in std::iter::once(first).chain(rest).take(FLUSH_EVERY) {
            let text = match frame {
                ToSession::Message { message, pos, drained } => {
                    messages += 1;
                    through = through.max(pos);
                    let context = Context::read(self.app, vec![place(&message)]).await.unwrap_or_default();
                    let delivery = pos.filter(|_| drained).map(|pos| DeliveryId::new(self.attached.agent, pos));
                    frames::message(&message, context.about(&message), delivery)
                }
                ToSession::Close(reason) => {
                    closing = Some(End::Close(reason.into()));
                    break;
                }
                notice => frames::notice(&notice, &self.app.urls),
            };
            metrics::counter!(FRAMES_OUT).increment(1);
            if let Err(end) = in_time(self.sink.feed(Message::Text(text.into()))).await {
                return Some(end);
            }
        }
        if let Err(end) = in_time(self.sink.flush()).await {
            return Some(end);
        }
        if messages > 0 {
            self.app.domain.written(self.attached.agent, self.attached.session, messages, through);
        }
        closing
    }
}
