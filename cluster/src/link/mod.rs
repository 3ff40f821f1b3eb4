//! Links: one connection per pair of nodes, which carries batches of messages both ways.
//!
//! ```text
//!   stream   TCP (TLS), greeting with version and names, kill switch      who may talk at all
//!   session  ractor_cluster: cookie, framing, the one remotable actor     who has shown that it may
//!   frame    a batch of messages, numbered, with what has arrived         bounded, in order, no gaps
//!   pump     one task per peer: queue → frames, heartbeat, window         bounded, with deadlines
//! ```
//! L1  What is sent over one generation of a link arrives in order and without gaps, or the link ends.
//! L2  At most [`pump::WINDOW`] frames are unacknowledged, and a full queue ends the link: a peer that does not keep up
//!     costs bounded memory, and whoever relied on it learns that something was lost.
//! L3  A peer that was not heard of for [`pump::SILENCE`] is gone, whatever TCP thinks.
//! L4  Of two nodes the one with the lower id connects, so there is one link.

mod frame;
mod pump;
mod session;
mod stream;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::gauge;
use schema::ownership::NodeRow;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

pub use self::frame::{Envelope, VERSION};
use self::session::{Sessions, SessionsError};
use self::stream::Security;
pub use self::stream::SecurityError;
use crate::metrics::{LINK_QUEUE, LINK_UNACKED, LINK_UP, LINKS_EXPECTED, LINKS_UP};
use crate::peers::{Peers, Receiver};
use crate::routes::{NodeId, Route};
use crate::shard::ShardId;

/// What may wait for one peer.
const QUEUE: usize = 16_384;

/// What can travel.
pub trait Payload: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<M: Serialize + DeserializeOwned + Send + Sync + 'static> Payload for M {}

/// Takes what members of the cluster tell each other about it.
pub trait Gossip: Send + Sync + 'static {
    /// A peer says who owns shards.
    fn news(&self, routes: Vec<(ShardId, Route)>);
    /// Something has changed in the tables: look soon.
    fn nudged(&self);
    /// Shards of these groups were given to this node.
    fn given(&self, groups: Vec<u32>);
    /// A link came up or went.
    fn linked(&self, peer: NodeId, up: bool);
}

/// How links are made.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// This process.
    pub id: NodeId,
    /// Name of this node.
    pub name: String,
    /// Shared secret of the deployment.
    pub cookie: String,
    /// Directory with `ca.pem`, `cert.pem` and `key.pem`; `None`: no encryption.
    pub tls: Option<PathBuf>,
}

/// The cluster port does not open.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Address in use or not ours.
    #[error("cannot listen on {0}: choose another address with --cluster-listen")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// Certificates.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Actors.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
}

/// One generation of a link.
struct Link<M> {
    peer: NodeId,
    name: String,
    generation: u64,
    queue: mpsc::Sender<Envelope<M>>,
    /// The peer's number for its side of this link; 0: it was not heard of yet.
    theirs: AtomicU64,
    /// Frames of ours that went out, those that have arrived there, and those of theirs that have arrived here.
    sent: AtomicU64,
    acked: AtomicU64,
    received: AtomicU64,
    /// When the peer was heard of last, in milliseconds since the links were opened.
    heard_at: AtomicU64,
    ended: AtomicBool,
    /// Something to look at: an ack, a frame to be acked, an end.
    wake: Notify,
}

/// All links of this node.
pub struct Links<M> {
    options: LinkOptions,
    security: Security,
    receiver: Arc<dyn Receiver<M>>,
    gossip: Arc<dyn Gossip>,
    sessions: Sessions,
    /// Those that are up.
    links: Mutex<HashMap<NodeId, Arc<Link<M>>>>,
    addresses: Mutex<HashMap<NodeId, NodeRow>>,
    /// Names of all peers that were ever linked: their gauges go to 0, they do not go away.
    met: Mutex<BTreeSet<String>>,
    started: std::time::Instant,
}

impl<M: Payload> Links<M> {
    /// Listens, and connects to whoever becomes known.
    pub async fn open(
        listen: SocketAddr,
        options: LinkOptions,
        receiver: Arc<dyn Receiver<M>>,
        gossip: Arc<dyn Gossip>,
    ) -> Result<Arc<Self>, LinkError> {
        let listener = TcpListener::bind(listen).await.map_err(|error| LinkError::Listen(listen, error))?;
        let security = Security::load(options.tls.as_deref())?;
        let (arrived, inbox) = mpsc::unbounded_channel();
        let sessions = Sessions::start(&options, arrived).await?;
        let links = Arc::new(Self {
            options,
            security,
            receiver,
            gossip,
            sessions,
            links: Mutex::default(),
            addresses: Mutex::default(),
            met: Mutex::default(),
            started: std::time::Instant::now(),
        });
        tokio::spawn(stream::accept(Arc::clone(&links), listener));
        tokio::spawn(session::Desk::new(Arc::clone(&links)).attend(inbox));
        Ok(links)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Link<M>>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, to: NodeId) -> Option<Arc<Link<M>>> {
        self.links().get(&to).cloned()
    }

    /// Takes a link away that ended, unless a newer one is in its place.
    fn forget(&self, link: &Arc<Link<M>>) {
        let mut links = self.links();
        if links.get(&link.peer).is_some_and(|present| Arc::ptr_eq(present, link)) {
            links.remove(&link.peer);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// All nodes with a lease. Connects to new ones, and ends the links to those that are gone.
    pub fn know(self: &Arc<Self>, nodes: &[NodeRow]) {
        let known: HashMap<NodeId, NodeRow> = nodes
            .iter()
            .map(|row| (NodeId::of(row.incarnation), row.clone()))
            .filter(|(id, _)| *id != self.options.id)
            .collect();
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<NodeId> = addresses.keys().filter(|id| !known.contains_key(id)).copied().collect();
        let new: Vec<NodeId> = known.keys().filter(|id| !addresses.contains_key(id)).copied().collect();
        *addresses = known;
        drop(addresses);
        for id in gone {
            if let Some(link) = self.link(id) {
                link.end();
            }
        }
        for id in new.into_iter().filter(|id| self.options.id < *id) {
            tokio::spawn(stream::keep_connected(Arc::clone(self), id)); // L4
        }
    }

    /// Where a node with a lease listens, and its name.
    fn address(&self, id: NodeId) -> Option<(String, String)> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.get(&id).map(|row| (row.address.clone(), row.name.clone()))
    }

    /// Tells all peers that are linked.
    pub fn tell_all(&self, envelope: impl Fn() -> Envelope<M>) {
        let links: Vec<Arc<Link<M>>> = self.links().values().cloned().collect();
        for link in links {
            if let Some(place) = link.place() {
                place.send(envelope());
            }
        }
    }

    /// Tells one peer, if it is linked.
    pub fn tell(&self, to: NodeId, envelope: Envelope<M>) {
        if let Some(place) = self.link(to).as_ref().and_then(|link| link.place()) {
            place.send(envelope);
        }
    }

    /// Links that are up: peer, its name, messages that wait for it.
    pub fn status(&self) -> Vec<(NodeId, String, usize)> {
        self.links().values().map(|link| (link.peer, link.name.clone(), QUEUE - link.queue.capacity())).collect()
    }
}

impl<M> Links<M> {
    /// Brings the gauges up to date.
    pub fn observe(&self) {
        let links: Vec<Arc<Link<M>>> =
            self.links.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let expected = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).len();
        gauge!(LINKS_EXPECTED).set(expected as f64);
        gauge!(LINKS_UP).set(links.len() as f64);
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.extend(links.iter().map(|link| link.name.clone()));
        for name in met.iter() {
            let link = links.iter().find(|link| link.name == *name);
            let waiting = link.map_or(0, |link| QUEUE - link.queue.capacity());
            gauge!(LINK_UP, "peer" => name.clone()).set(f64::from(u8::from(link.is_some())));
            gauge!(LINK_QUEUE, "peer" => name.clone()).set(waiting as f64);
            gauge!(LINK_UNACKED, "peer" => name.clone()).set(link.map_or(0, |link| link.unacked()) as f64);
        }
    }
}

impl<M> Link<M> {
    fn unacked(&self) -> u64 {
        self.sent.load(Ordering::Acquire).saturating_sub(self.acked.load(Ordering::Acquire))
    }

    /// A place in the queue; without one the link ends (L2).
    fn place(&self) -> Option<mpsc::Permit<'_, Envelope<M>>> {
        let place = self.queue.try_reserve();
        if place.is_err() {
            self.end();
        }
        place.ok()
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

impl<M: Payload> Peers<M> for Links<M> {
    fn send(&self, to: NodeId, message: M) -> Result<(), M> {
        let link = self.link(to);
        match link.as_ref().and_then(|link| link.place()) {
            Some(place) => {
                place.send(Envelope::Message(message));
                Ok(())
            }
            None => Err(message),
        }
    }

    fn generation(&self, to: NodeId) -> u64 {
        self.link(to).map_or(0, |link| link.generation)
    }
}
