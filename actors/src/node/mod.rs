//! What every shard and gateway of a node shares, and the way from it to any entity, request or socket of the deployment.
//!
//! ```text
//!   tell, hand ─▶ is the shard hosted here? ─▶ its mailbox
//!                 else its owner, as routes know ─▶ link ─▶ receive: same epoch? ─▶ its mailbox
//!                                                                      else requests go back, the rest is dropped
//! ```
//! X1  An event reaches an entity only under the epoch that its sender meant: what arrives late finds another owner.
//! X2  A request that did not reach an owner changed nothing, and is handed over again while its deadline lasts.
//! X3  A request whose owner has lost the shard is not answered any more: whoever waits for it learns that soon, and may
//!     repeat what can be repeated.

pub mod ports;
pub mod registrar;
pub mod sessions;
pub(crate) mod twice;
pub mod wire;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cluster::held::Held;
use cluster::member::News;
use cluster::peers::{Peers, Receiver};
use cluster::region::Region;
use cluster::routes::{NodeId, Routes};
use cluster::shard::ShardId;
use schema::store::Store;
use tokio::sync::{oneshot, watch};

use self::ports::{Answer, Open, Ports};
use self::sessions::{Known, Sessions};
use self::wire::Wire;
use crate::agent::events::AgentEvent;
use crate::api::{Hook, Refusal, SessionId, Snapshot, ToSession};
use crate::effects::{EntityId, Event, Port, Reply};
use crate::limits::Limits;
use crate::metrics::{ANSWERS_WITHOUT_WAY, EVENTS_WITHOUT_SHARD, Meters};
use crate::owner::events::OwnerEvent;
use crate::shard::ShardEvent;

/// A request waits this long for its shard to have an owner.
const OWNER_PATIENCE: Duration = Duration::from_secs(8);
/// A request is answered within this, or with `TimedOut`. Below the clients' own 30 s.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How soon a request that was not taken is handed over again although no route changed.
const HAND_AGAIN: Duration = Duration::from_millis(100);
/// What an owner answered before it lost a shard arrives within this (X3).
const LAST_WORDS: Duration = Duration::from_millis(250);

/// What every shard of a node shares.
pub struct Node {
    /// This process.
    pub id: NodeId,
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Shards hosted here.
    pub region: Region<ShardEvent>,
    /// Owners of all others.
    pub routes: Arc<Routes>,
    /// What may be acknowledged.
    pub held: Arc<Held>,
    /// Pending requests.
    pub ports: Ports,
    /// Sockets.
    pub sessions: Sessions,
    /// Numbers.
    pub limits: Limits,
    /// Who calls webhooks.
    pub hooks: Arc<dyn Hooks>,
    /// Who decides what happens to a shard that failed; `None`: it starts again by itself.
    pub failures: Option<Arc<News>>,
    pub(crate) meters: Meters,
    pub(crate) peers: OnceLock<Arc<dyn Peers<Wire>>>,
}

/// Calls webhooks and shows presences; lives in the gateway, which knows JSON, HTTP and who keeps copies.
pub trait Hooks: Send + Sync + 'static {
    /// Takes a notice for delivery. Never blocks.
    fn call(&self, hook: Hook);

    /// Takes how an agent is seen, as the owner of its shard under `epoch`. Never blocks.
    fn show(&self, _epoch: u64, _snapshot: Snapshot) {}
}

/// Calls nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn call(&self, _: Hook) {}
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("region", &self.region).finish_non_exhaustive()
    }
}

impl Node {
    fn send(&self, to: NodeId, message: Wire) -> Result<(), Wire> {
        match self.peers.get() {
            Some(peers) => peers.send(to, message),
            None => Err(message),
        }
    }

    /// The owner of a shard, if it is another node.
    fn owner(&self, shard: ShardId) -> Option<(NodeId, u64)> {
        let route = self.routes.get(shard);
        route.owner.filter(|owner| *owner != self.id).map(|owner| (owner, route.epoch))
    }

    fn forward(&self, shard: ShardId, event: Event) -> Result<(), Event> {
        let Some((owner, epoch)) = self.owner(shard) else { return Err(event) };
        match self.send(owner, Wire::Event { epoch, event: Box::new(event) }) {
            Err(Wire::Event { event, .. }) => Err(*event),
            _ => Ok(()),
        }
    }

    /// Hands an event to the shard of its entity, wherever it is. What finds no way is asked for again by its sender.
    pub fn tell(&self, event: Event) {
        let shard = self.region.shard_of(event.to().key());
        let here = self.region.post(shard, ShardEvent::Entity(event));
        if let Err(ShardEvent::Entity(event)) = here
            && self.forward(shard, event).is_err()
        {
            metrics::counter!(EVENTS_WITHOUT_SHARD).increment(1);
        }
    }

    /// Hands a request to its shard, or gives it back.
    fn hand(&self, shard: ShardId, event: Event) -> Result<(), Event> {
        match self.region.request(shard, ShardEvent::Entity(event)) {
            Err(ShardEvent::Entity(event)) => self.forward(shard, event),
            _ => Ok(()),
        }
    }

    /// Carries a request to its entity and its answer back (X2).
    pub async fn ask(&self, open: &Open<'_>, event: Event) -> Result<Reply, Refusal> {
        let shard = self.region.shard_of(event.to().key());
        let _permit = self.region.admit(shard).map_err(|_| Refusal::Unavailable)?;
        let mut handed = false;
        let asked = tokio::time::timeout(REQUEST_DEADLINE, self.carry(open.port, shard, event, &mut handed));
        asked.await.unwrap_or(Err(Refusal::TimedOut)).map_err(|refusal| match refusal {
            Refusal::TimedOut if !handed => Refusal::Unavailable,
            refusal => refusal,
        })
    }

    async fn carry(&self, port: Port, shard: ShardId, mut event: Event, handed: &mut bool) -> Result<Reply, Refusal> {
        let mut changes = self.routes.changes();
        let started = tokio::time::Instant::now();
        loop {
            changes.mark_unchanged();
            let place = self.place(shard);
            let answer = self.ports.wait(port, place.and_then(|(elsewhere, _)| elsewhere));
            match self.hand(shard, event) {
                Ok(()) => {
                    *handed = true;
                    match self.answered(answer, (shard, place), &mut changes).await {
                        Answer::Reply(reply) => return reply,
                        Answer::Returned(back) => (event, *handed) = (*back, false),
                        Answer::Lost => return Err(Refusal::TimedOut),
                    }
                }
                Err(back) => event = back,
            }
            if started.elapsed() >= OWNER_PATIENCE {
                return Err(Refusal::Unavailable);
            }
            let _ = tokio::time::timeout(HAND_AGAIN, changes.changed()).await;
        }
    }

    /// Where a shard is, and under which epoch, as far as is known here; no node: here.
    fn place(&self, shard: ShardId) -> Option<(Option<NodeId>, u64)> {
        match self.region.hosted(shard) {
            Some((epoch, _)) => Some((None, epoch)),
            None => self.owner(shard).map(|(owner, epoch)| (Some(owner), epoch)),
        }
    }

    /// Waits for the answer of a shard that was at this place (X3).
    async fn answered(
        &self,
        mut answer: oneshot::Receiver<Answer>,
        (shard, place): (ShardId, Option<(Option<NodeId>, u64)>),
        changes: &mut watch::Receiver<u64>,
    ) -> Answer {
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.unwrap_or(Answer::Lost),
                changed = changes.changed() => {
                    if changed.is_err() || self.place(shard) != place {
                        let last = tokio::time::timeout(LAST_WORDS, answer).await;
                        return last.ok().and_then(Result::ok).unwrap_or(Answer::Lost);
                    }
                }
            }
        }
    }

    /// Returns a request that reached no owner (X2). Nobody is told of anything else: what matters is asked for again.
    pub fn give_back(&self, event: Box<Event>) {
        match event.port() {
            Some(port) if port.node == self.id => self.ports.answer(port.number, Answer::Returned(event)),
            Some(port) => {
                let _ = self.send(port.node, Wire::Returned(event)); // without a way its requester learns that by itself
            }
            None => metrics::counter!(EVENTS_WITHOUT_SHARD).increment(1),
        }
    }

    /// Answers a request, of whatever node.
    pub fn answer(&self, port: Port, reply: Result<Reply, Refusal>) {
        if port.node == self.id {
            self.ports.answer(port.number, Answer::Reply(reply));
        } else if self.send(port.node, Wire::Answer(port.number, Box::new(reply))).is_err() {
            metrics::counter!(ANSWERS_WITHOUT_WAY).increment(1);
        }
    }

    /// Shows a frame on a socket, of whatever node, as the owner of its agent under `epoch`.
    pub fn push(&self, session: SessionId, epoch: u64, frame: ToSession) {
        if session.node == self.id {
            self.sessions.push(session, epoch, frame);
        } else {
            // A way that loses a frame is closed, and the socket registered again: nothing has to be kept here.
            let _ = self.send(session.node, Wire::Push { session, epoch, frame: Box::new(frame) });
        }
    }

    /// A socket is gone. Its owner is told; in a cluster that may be lost, so that it is asked as well, later (Q5).
    pub fn let_go(&self, whose: EntityId, session: SessionId) {
        self.sessions.close(session);
        let event = match whose {
            EntityId::Agent(agent) => Event::Agent(agent, AgentEvent::Detach(session)),
            EntityId::Owner(owner) => Event::Owner(owner, OwnerEvent::Detach(session)),
            EntityId::Conversation(_) => return, // it has none
        };
        self.tell(event);
        if self.failures.is_some() {
            self.sessions.list_gone(session, whose, self.region.shard_of(whose.key()));
        }
    }

    /// How the present owner of a shard would know a socket of this node; `None` while there is no way to one.
    pub fn present(&self, shard: ShardId) -> Option<Known> {
        if let Some((epoch, open)) = self.region.hosted(shard) {
            return open.then_some(Known { epoch, generation: 0 });
        }
        let (owner, epoch) = self.owner(shard)?;
        let generation = self.peers.get().map_or(0, |peers| peers.generation(owner));
        (generation > 0).then_some(Known { epoch, generation })
    }

    /// Tells every shard hosted here.
    pub fn tell_shards(&self, event: impl Fn() -> ShardEvent) {
        for shard in (0..self.region.shards()).map(ShardId) {
            let _ = self.region.post(shard, event()); // not hosted here
        }
    }
}

impl Receiver<Wire> for Node {
    fn receive(&self, message: Wire) {
        match message {
            Wire::Event { epoch, event } => {
                let (shard, request) = (self.region.shard_of(event.to().key()), event.port().is_some());
                let back = match self.region.hosted(shard) {
                    Some((here, open)) if here == epoch && (open || !request) => {
                        match self.region.post(shard, ShardEvent::Entity(*event)) {
                            Err(ShardEvent::Entity(event)) => Box::new(event),
                            _ => return,
                        }
                    }
                    _ => event,
                };
                self.give_back(back); // X1
            }
            Wire::Returned(event) => {
                if let Some(port) = event.port() {
                    self.ports.answer(port.number, Answer::Returned(event));
                }
            }
            Wire::Answer(number, reply) => self.ports.answer(number, Answer::Reply(*reply)),
            Wire::Push { session, epoch, frame } => self.sessions.push(session, epoch, *frame),
        }
    }

    fn lost(&self, peer: NodeId) {
        self.ports.lost(peer);
        self.routes.touch();
    }
}
