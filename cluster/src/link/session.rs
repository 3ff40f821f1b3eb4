//! ractor_cluster sessions: who has proved itself, and the one actor per node that takes frames.
//!
//! Z1  One remotable actor per node: everything that is remotable is mirrored on every peer.
//! Z2  A frame counts only in its place: of the newest connection of its sender, and next in number.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{NodeEventSubscription, NodeServer, NodeServerMessage};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::warn;

use super::frame::Frame;
use super::stream::{Greeted, Kill};
use super::{Envelope, Link, LinkOptions, Links, Payload, QUEUE, VERSION, pump};
use crate::routes::NodeId;

/// Largest frame on the wire.
const FRAME_MAX: u64 = 16 << 20;
/// How often, and for how long, the peer's actor is looked for once a session is ready.
const LOOK: (Duration, u32) = (Duration::from_millis(5), 200);

/// The session layer does not start.
#[derive(Debug, thiserror::Error)]
#[error("the cluster's session layer does not start: {0}")]
pub struct SessionsError(String);

/// A stream whose other end has said who it is.
pub(super) struct Introduced {
    pub(super) id: NodeId,
    pub(super) name: String,
    pub(super) label: String,
    pub(super) kill: Kill,
}

/// What happens in the session layer.
pub(super) enum Arrived {
    Frame(Vec<u8>),
    Up(NodeServerSessionInformation),
    Down(String),
}

struct Inbox;

/// Takes frames from all peers (Z1).
impl Actor for Inbox {
    type Msg = Vec<u8>;
    type State = mpsc::UnboundedSender<Arrived>;
    type Arguments = mpsc::UnboundedSender<Arrived>;

    async fn pre_start(
        &self,
        _: ActorRef<Vec<u8>>,
        arrived: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(arrived)
    }

    async fn handle(
        &self,
        _: ActorRef<Vec<u8>>,
        frame: Vec<u8>,
        arrived: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // Bounded by the windows of all peers (L2).
        let _ = arrived.send(Arrived::Frame(frame));
        Ok(())
    }
}

struct Watcher(mpsc::UnboundedSender<Arrived>);

impl NodeEventSubscription for Watcher {
    fn node_session_opened(&self, _: NodeServerSessionInformation) {}

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        let _ = self.0.send(Arrived::Down(session.peer_addr));
    }

    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        let _ = self.0.send(Arrived::Up(session));
    }
}

struct Pending {
    introduced: Introduced,
    ready: oneshot::Sender<oneshot::Receiver<()>>,
}

/// The session layer.
pub(super) struct Sessions {
    server: ActorRef<NodeServerMessage>,
    pending: Mutex<HashMap<String, Pending>>,
    labels: AtomicU64,
}

fn group(id: NodeId) -> String {
    format!("link-{:016x}", id.0)
}

impl Sessions {
    pub(super) async fn start(
        options: &LinkOptions,
        arrived: mpsc::UnboundedSender<Arrived>,
    ) -> Result<Self, SessionsError> {
        let failed = |error: &dyn std::fmt::Display| SessionsError(error.to_string());
        let (inbox, _) = Actor::spawn(None, Inbox, arrived.clone()).await.map_err(|e| failed(&e))?;
        ractor::pg::join(group(options.id), vec![inbox.get_cell()]);
        // Connections come from our own listener; the crate insists on one, which therefore listens to this machine only.
        let server = NodeServer::new(
            0,
            options.cookie.clone(),
            format!("{:016x}", options.id.0),
            "agentchat".to_owned(),
            None,
            Some(NodeConnectionMode::Isolated),
        )
        .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .with_max_inbound_frame_size(FRAME_MAX);
        let (server, _) = Actor::spawn(None, server, ()).await.map_err(|e| failed(&e))?;
        let subscription = Box::new(Watcher(arrived));
        server
            .cast(NodeServerMessage::SubscribeToEvents { id: "links".to_owned(), subscription })
            .map_err(|e| failed(&e))?;
        Ok(Self { server, pending: Mutex::default(), labels: AtomicU64::new(0) })
    }

    /// A name for a stream, by which its session is recognised.
    pub(super) fn label(&self) -> String {
        format!("stream-{}", self.labels.fetch_add(1, Ordering::Relaxed))
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a session of a stream. What it gives is told when the session is ready, with what ends when the link ends.
    pub(super) fn introduce(
        &self,
        stream: Greeted,
        introduced: Introduced,
        is_server: bool,
    ) -> Result<oneshot::Receiver<oneshot::Receiver<()>>, String> {
        let (ready, told) = oneshot::channel();
        let label = introduced.label.clone();
        self.pending().insert(label.clone(), Pending { introduced, ready });
        let opened = NodeServerMessage::ConnectionOpenedExternal { stream: Box::new(stream), is_server };
        self.server.cast(opened).map_err(|error| {
            self.dismiss(&label);
            error.to_string()
        })?;
        Ok(told)
    }

    /// Ends a stream whose session did not become ready.
    pub(super) fn dismiss(&self, label: &str) {
        drop(self.pending().remove(label));
    }
}

/// The actor of the peer behind a session.
async fn inbox_of(id: NodeId, session: &NodeServerSessionInformation) -> Option<ActorRef<Vec<u8>>> {
    let of_this_session = |id: ActorId| matches!(id, ActorId::Remote { node_id, .. } if node_id == session.node_id);
    for _ in 0..LOOK.1 {
        let found = ractor::pg::get_members(&group(id)).into_iter().find(|cell| of_this_session(cell.get_id()));
        if let Some(cell) = found {
            return Some(cell.into());
        }
        tokio::time::sleep(LOOK.0).await;
    }
    None
}

/// Takes everything that arrives, one after the other.
pub(super) struct Desk<M> {
    links: Arc<Links<M>>,
    /// Newest connection of each peer, and its last frame.
    heard: HashMap<NodeId, (u64, u64)>,
    /// Links that are up or about to be.
    open: HashMap<NodeId, (String, Arc<Link<M>>)>,
    /// Ends the pump of a stream.
    streams: HashMap<String, oneshot::Sender<()>>,
    /// Newest connection of each peer that a link here has heard of.
    used: HashMap<NodeId, u64>,
    made: u64,
}

impl<M: Payload> Desk<M> {
    pub(super) fn new(links: Arc<Links<M>>) -> Self {
        Self {
            links,
            heard: HashMap::new(),
            open: HashMap::new(),
            streams: HashMap::new(),
            used: HashMap::new(),
            made: 0,
        }
    }

    pub(super) async fn attend(mut self, mut inbox: mpsc::UnboundedReceiver<Arrived>) {
        while let Some(arrived) = inbox.recv().await {
            match arrived {
                Arrived::Frame(bytes) => self.frame(&bytes),
                Arrived::Up(session) => self.up(session).await,
                Arrived::Down(label) => {
                    self.links.sessions.dismiss(&label);
                    self.streams.remove(&label);
                    self.open.retain(|_, (of, _)| *of != label);
                }
            }
        }
    }

    async fn up(&mut self, session: NodeServerSessionInformation) {
        let pending = self.links.sessions.pending().remove(&session.peer_addr);
        let Some(Pending { introduced, ready }) = pending else { return };
        let Introduced { id, name, label, kill } = introduced;
        let proved = session.peer_name.as_ref().is_some_and(|peer| peer.name.starts_with(&format!("{:016x}@", id.0)));
        let inbox = if proved { inbox_of(id, &session).await } else { None };
        let Some(inbox) = inbox else {
            warn!(peer = name, "a session is not of the node that greeted, and ends");
            return; // the kill switch goes, and with it the stream
        };
        self.made += 1;
        let (queue, waiting) = mpsc::channel(QUEUE);
        // Its first frame may have come before its session was ready here (Z2).
        let used = self.used.get(&id).copied().unwrap_or(0);
        let early = self.heard.get(&id).filter(|(connection, _)| *connection > used);
        let link = Arc::new(Link {
            peer: id,
            name,
            generation: self.made,
            queue,
            theirs: AtomicU64::new(early.map_or(0, |(connection, _)| *connection)),
            sent: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            received: AtomicU64::new(early.map_or(0, |(_, number)| *number)),
            heard_at: AtomicU64::new(self.links.now_ms()),
            ended: AtomicBool::new(false),
            wake: Notify::new(),
        });
        if let Some((_, before)) = self.open.insert(id, (label.clone(), Arc::clone(&link))) {
            before.end();
        }
        let (down, is_down) = oneshot::channel();
        let (ended, has_ended) = oneshot::channel();
        self.streams.insert(label, down);
        let pump = pump::Pump::new(Arc::clone(&self.links), link, inbox, waiting);
        tokio::spawn(async move {
            pump.run(is_down).await;
            drop((kill, ended));
        });
        let _ = ready.send(has_ended); // whoever made the stream may have given up
    }

    fn frame(&mut self, bytes: &[u8]) {
        let frame: Frame<M> = match rmp_serde::from_slice(bytes) {
            Ok(frame) => frame,
            Err(error) => return warn!(%error, "a frame of a peer does not decode and is dropped"),
        };
        if frame.version != VERSION || frame.to != self.links.options.id {
            return;
        }
        let last = self.heard.entry(frame.from).or_default();
        if frame.connection > last.0 {
            *last = (frame.connection, 0);
        }
        // Z2: late ones of an earlier connection, and repeats.
        if frame.connection < last.0 || frame.number < last.1 {
            return;
        }
        let link = self.open.get(&frame.from).map(|(_, link)| link);
        let next = last.1 + u64::from(!frame.messages.is_empty());
        if frame.number != next {
            warn!(number = frame.number, expected = next, "frames of a peer are missing: its link ends");
            return link.into_iter().for_each(|link| link.end());
        }
        last.1 = frame.number;
        if let Some(link) = link {
            heard(link, &frame, self.links.now_ms());
            self.used.insert(frame.from, frame.connection);
        }
        for envelope in frame.messages {
            match envelope {
                Envelope::Message(message) => self.links.receiver.receive(message),
                Envelope::News(routes) => self.links.gossip.news(routes),
                Envelope::Nudge => self.links.gossip.nudged(),
                Envelope::Given(groups) => self.links.gossip.given(groups),
            }
        }
    }
}

fn heard<M>(link: &Link<M>, frame: &Frame<M>, now: u64) {
    link.theirs.store(frame.connection, Ordering::Release);
    if frame.received.0 == link.generation {
        link.acked.fetch_max(frame.received.1, Ordering::AcqRel);
    }
    link.received.store(frame.number, Ordering::Release);
    link.heard_at.store(now, Ordering::Release);
    link.wake.notify_one();
}
