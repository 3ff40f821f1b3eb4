//! The door to the domain: requests in, answers out, each with a deadline.
//!
//! D1  A request is admitted against its shard's limit before anything happens, and answered within its deadline.
//! D2  `Unavailable` before admission means that nothing happened; `TimedOut` means that the outcome is unknown.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use cluster::held::Held;
use cluster::member::{Hosts, News};
use cluster::peers::Peers;
use cluster::region::{Occupancy, Region};
use cluster::routes::{NodeId, Routes};
use cluster::shard::{SHARDS_DEFAULT, ShardId};
use ractor::{Actor, ActorRef};
use schema::ids::{AgentId, ConversationId, KeyHash, MessageId, Pos, Seq};
use schema::rows::{AgentRow, AgentStatus, BlockRow, ContactRow, ReceiptRow};
use schema::store::{Fence, Store};
use tokio::sync::{mpsc, oneshot};

use crate::agent::events::{AgentEvent, AgentRequest};
use crate::api::{
    AckMode, CallerView, CloseReason, ConversationView, Credential, Draft, InboxView, ProfilePatch, Refusal, Sent,
    SessionId, Target, ToSession,
};
use crate::conversation::events::ConversationEvent;
use crate::effects::{EntityId, Event, Port, Reply};
use crate::limits::Limits;
use crate::metrics::{self, Meters};
use crate::node::ports::Ports;
use crate::node::sessions::{Holder, Known, Sessions};
use crate::node::wire::Wire;
use crate::node::{Hooks, Node, registrar};
use crate::shard::ShardEvent;
use crate::shard::supervisor::{Command, Supervisor};

/// Unanswered requests that one shard admits: several seconds of work for an actor, and what waits longer has been given
/// up by its client. A node that has few shards lets each have its part of what it admits in all, if that is more.
const ADMIT_PER_SHARD: usize = 4_096;
/// Unanswered requests that a node admits for all shards, its own and others', for each of its cores: as many as four
/// shards that are full. A core answers some thousand requests a second, so that more could not be answered within
/// the deadline of a request anyhow, and each holds a task, a body and a place in a mailbox meanwhile.
const ADMIT_PER_CORE: usize = 4 * ADMIT_PER_SHARD;
/// The least that a node admits: a burst of everybody who reconnects to a small node is work of seconds, not overload.
const ADMIT_PER_NODE_MIN: usize = 65_536;
/// Shards per core of a node that is alone: one works while others wait for the store.
const SHARDS_PER_CORE: usize = 2;
/// Fewest shards of a node that is alone: a panic costs one.
const SHARDS_ALONE_MIN: usize = 4;
/// Frames that wait for one socket; the contract's number.
const SESSION_QUEUE: usize = 1_024;

/// How the domain is to run.
#[derive(Debug, Clone, Copy)]
pub struct DomainOptions {
    /// Numbers of the contract, or none.
    pub limits: Limits,
    /// Shards of this deployment; a power of two, fixed for good where several nodes share them.
    pub shards: u32,
}

/// Requests that a node of `shards` shards on this machine admits.
fn admits(shards: u32) -> cluster::region::Limits {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let in_all = (cores * ADMIT_PER_CORE).max(ADMIT_PER_NODE_MIN);
    cluster::region::Limits { per_shard: ADMIT_PER_SHARD.max(in_all / shards as usize), in_all }
}

/// How many shards a node has that is alone, and agrees on it with nobody: its store keeps no shard. Few, so that each
/// finds several events whenever it wakes, and hands the batches of all of them to the store at once.
pub fn shards_alone() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shards = (SHARDS_PER_CORE * cores).next_power_of_two().max(SHARDS_ALONE_MIN);
    u32::try_from(shards).unwrap_or(SHARDS_DEFAULT).min(SHARDS_DEFAULT)
}

impl Default for DomainOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), shards: SHARDS_DEFAULT }
    }
}

/// The actors could not be started.
#[derive(Debug, thiserror::Error)]
#[error("shards did not start: {0}")]
pub struct StartError(String);

/// A member's place in its cluster.
#[derive(Debug)]
pub struct Seat {
    /// This process.
    pub id: NodeId,
    /// Owners of all shards.
    pub routes: Arc<Routes>,
    /// What this node holds.
    pub held: Arc<Held>,
    /// Told when a shard failed; `None`: the node is alone.
    pub failures: Option<Arc<News>>,
}

/// Handle to all entities. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Domain {
    node: Arc<Node>,
    supervisor: ActorRef<Command>,
}

macro_rules! expect_reply {
    ($reply:expr, $pattern:pat => $value:expr) => {
        match $reply {
            $pattern => Ok($value),
            other => {
                debug_assert!(false, "an answer to another question: {other:?}");
                Err(Refusal::Unavailable)
            }
        }
    };
}

impl Domain {
    /// Starts supervisor and all shards on the current runtime: this node is alone.
    pub async fn start(
        store: Arc<dyn Store>,
        options: DomainOptions,
        hooks: Arc<dyn Hooks>,
    ) -> Result<Self, StartError> {
        let (routes, held) = (Arc::new(Routes::new(options.shards)), Arc::new(Held::everything(options.shards)));
        Self::assemble(store, options, hooks, Seat { id: NodeId::default(), routes, held, failures: None }).await
    }

    /// Starts a supervisor without shards: a member of a cluster says which to host, and connects the node.
    pub async fn join(
        store: Arc<dyn Store>,
        options: DomainOptions,
        hooks: Arc<dyn Hooks>,
        seat: Seat,
    ) -> Result<Self, StartError> {
        let this = Self::assemble(store, options, hooks, seat).await?;
        tokio::spawn(registrar::keep_registered(Arc::clone(&this.node)));
        tokio::spawn(registrar::keep_told(Arc::clone(&this.node)));
        Ok(this)
    }

    async fn assemble(
        store: Arc<dyn Store>,
        options: DomainOptions,
        hooks: Arc<dyn Hooks>,
        seat: Seat,
    ) -> Result<Self, StartError> {
        let alone = seat.failures.is_none();
        let node = Arc::new(Node {
            id: seat.id,
            store,
            region: Region::new(options.shards, admits(options.shards)),
            routes: seat.routes,
            held: seat.held,
            ports: Ports::new(seat.id),
            sessions: Sessions::new(seat.id),
            limits: options.limits,
            hooks,
            failures: seat.failures,
            meters: Meters::new(),
            peers: OnceLock::new(),
        });
        let started = Actor::spawn(None, Supervisor, (Arc::clone(&node), alone)).await;
        let (supervisor, _) = started.map_err(|error| StartError(error.to_string()))?;
        Ok(Self { node, supervisor })
    }

    fn tell_supervisor(&self, command: Command) {
        if self.supervisor.cast(command).is_err() {
            tracing::warn!("the shard supervisor is gone");
        }
    }

    /// What every shard has to do on this node, now.
    pub fn occupancy(&self) -> Vec<Occupancy> {
        self.node.region.occupancy()
    }

    /// Brings the gauges up to date.
    pub fn observe(&self) {
        metrics::observe(&self.occupancy());
    }

    /// Where other nodes' messages arrive.
    pub fn receiver(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Gives the node its way to others. Once.
    pub fn connect(&self, peers: Arc<dyn Peers<Wire>>) {
        let _ = self.node.peers.set(peers); // a second one would be a mistake of ours, and changes nothing
    }

    /// The rows, for reads inside the bounds that an entity gave.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.node.store
    }

    async fn ask(&self, event: impl FnOnce(Port) -> Event) -> Result<Reply, Refusal> {
        let open = self.node.ports.open();
        self.node.ask(&open, event(open.port)).await
    }

    async fn ask_agent(&self, agent: AgentId, request: AgentRequest) -> Result<Reply, Refusal> {
        self.ask(|port| Event::Agent(agent, AgentEvent::Request(port, request))).await
    }

    fn tell_agent(&self, agent: AgentId, event: AgentEvent) {
        self.node.tell(Event::Agent(agent, event));
    }

    /// Checks the key against the current one and charges one request. Suspended accounts are returned as well.
    pub async fn admit(&self, who: Credential) -> Result<CallerView, Refusal> {
        let reply = self.ask_agent(who.agent, AgentRequest::Admit(who.key)).await?;
        expect_reply!(reply, Reply::Caller(view) => view)
    }

    /// Sends a message.
    pub async fn send(&self, sender: AgentId, target: Target, draft: Draft) -> Result<Sent, Refusal> {
        let reply = self.ask_agent(sender, AgentRequest::Send(target, Box::new(draft))).await?;
        expect_reply!(reply, Reply::Sent(sent) => sent)
    }

    /// [`Self::admit`] and [`Self::send`] at once. Suspended accounts are refused.
    pub async fn send_as(&self, who: Credential, target: Target, draft: Draft) -> Result<Sent, Refusal> {
        let reply = self.ask_agent(who.agent, AgentRequest::SendAs(who.key, target, Box::new(draft))).await?;
        expect_reply!(reply, Reply::Sent(sent) => sent)
    }

    /// Changes profile and settings.
    pub async fn update_profile(&self, agent: AgentId, patch: ProfilePatch) -> Result<Arc<AgentRow>, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::UpdateProfile(Box::new(patch))).await?;
        expect_reply!(reply, Reply::Account(row) => row)
    }

    /// Replaces the key: the old one is dead when this returns, and every socket is told to close.
    pub async fn replace_key(&self, agent: AgentId, key: KeyHash) -> Result<Arc<AgentRow>, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::ReplaceKey(key)).await?;
        expect_reply!(reply, Reply::Account(row) => row)
    }

    /// Deletes an account, leaves its groups, and frees its email's live slot.
    pub async fn delete_agent(&self, agent: AgentId) -> Result<(), Refusal> {
        self.leave_all_groups(agent).await?;
        let reply = self.ask_agent(agent, AgentRequest::Delete).await?;
        let row = expect_reply!(reply, Reply::Account(row) => row)?;
        self.node.store.release_email(&row.email, agent).await.map_err(|_| Refusal::TimedOut)
    }

    async fn live_target(&self, agent: AgentId, target: AgentId) -> Result<AgentRow, Refusal> {
        if agent == target {
            return Err(Refusal::SelfTarget);
        }
        let row = self.node.store.agent(target).await.map_err(|_| Refusal::Unavailable)?;
        row.filter(|row| row.status != AgentStatus::Deleted).ok_or(Refusal::AgentNotFound)
    }

    /// Adds a contact, or overwrites its notes if given; `true` when it is new.
    pub async fn put_contact(
        &self,
        agent: AgentId,
        target: AgentId,
        notes: Option<Option<String>>,
    ) -> Result<(ContactRow, bool), Refusal> {
        let handle = self.live_target(agent, target).await?.handle;
        let reply = self.ask_agent(agent, AgentRequest::PutContact { target, handle, notes }).await?;
        expect_reply!(reply, Reply::Contact(contact, created) => (contact, created))
    }

    /// Changes the notes of a contact.
    pub async fn annotate_contact(
        &self,
        agent: AgentId,
        handle: String,
        notes: Option<String>,
    ) -> Result<ContactRow, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::Annotate(handle, notes)).await?;
        expect_reply!(reply, Reply::Contact(contact, _) => contact)
    }

    /// Removes a contact.
    pub async fn remove_contact(&self, agent: AgentId, handle: String) -> Result<(), Refusal> {
        self.ask_agent(agent, AgentRequest::RemoveContact(handle)).await.map(drop)
    }

    /// Blocks an agent.
    pub async fn block(&self, agent: AgentId, target: AgentId) -> Result<BlockRow, Refusal> {
        let row = self.live_target(agent, target).await?;
        if row.is_system {
            return Err(Refusal::SystemAgentProtected);
        }
        let reply = self.ask_agent(agent, AgentRequest::Block(target, row.handle)).await?;
        expect_reply!(reply, Reply::Block(block) => block)
    }

    /// Ends a block.
    pub async fn unblock(&self, agent: AgentId, handle: String) -> Result<(), Refusal> {
        self.ask_agent(agent, AgentRequest::Unblock(handle)).await.map(drop)
    }

    /// What `caller` may read of a conversation.
    pub async fn conversation(&self, id: ConversationId, caller: AgentId) -> Result<ConversationView, Refusal> {
        let reply = self.ask(|port| Event::Conversation(id, ConversationEvent::View(port, caller))).await?;
        expect_reply!(reply, Reply::Conversation(view) => *view)
    }

    /// What an agent may read of its inbox.
    pub async fn inbox(&self, agent: AgentId) -> Result<InboxView, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::Inbox).await?;
        expect_reply!(reply, Reply::Inbox(view) => view)
    }

    /// Acknowledges everything at or before `pos`; how many deliveries that moved.
    pub async fn ack_through(&self, agent: AgentId, pos: Pos) -> Result<u32, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::AckThrough(pos)).await?;
        expect_reply!(reply, Reply::Acked(count) => count)
    }

    /// Marks one received, visible message read.
    pub async fn mark_read(&self, agent: AgentId, message: MessageId) -> Result<ReceiptRow, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::MarkRead(message)).await?;
        expect_reply!(reply, Reply::Receipt(receipt) => receipt)
    }

    /// Hides one visible message.
    pub async fn hide_message(&self, agent: AgentId, message: MessageId) -> Result<(), Refusal> {
        self.ask_agent(agent, AgentRequest::HideMessage(message)).await.map(drop)
    }

    /// Hides a conversation from the caller's list.
    pub async fn hide_conversation(&self, agent: AgentId, id: ConversationId) -> Result<(), Refusal> {
        self.ask_agent(agent, AgentRequest::HideConversation(id)).await.map(drop)
    }

    /// A socket acknowledged a message.
    pub fn ack(&self, agent: AgentId, message: MessageId) {
        self.tell_agent(agent, AgentEvent::Ack(message));
    }

    /// A socket marked everything up to a seq read.
    pub fn read_through(&self, agent: AgentId, id: ConversationId, through: Seq) {
        self.tell_agent(agent, AgentEvent::ReadThrough(id, through));
    }

    /// A socket types.
    pub fn typing(&self, agent: AgentId, id: ConversationId, start: bool) {
        self.tell_agent(agent, AgentEvent::Typing(id, start));
    }

    /// Registers a socket. Frames arrive on the receiver; its end means that the socket has to close with 1013.
    pub async fn attach(
        &self,
        who: Credential,
        mode: AckMode,
    ) -> Result<(SessionId, mpsc::Receiver<ToSession>, CallerView), Refusal> {
        let shard = self.node.region.shard_of(who.agent.0.as_bytes());
        let (socket, frames) = self.node.sessions.open(Holder::Agent(who, mode), shard, SESSION_QUEUE);
        let (session, known) = (socket.session, self.node.present(shard));
        let reply = self.ask_agent(who.agent, AgentRequest::Attach(who.key, session, mode)).await;
        let view = reply.and_then(|reply| expect_reply!(reply, Reply::Caller(view) => view));
        match view {
            Ok(view) => {
                // Without a way before, or with another one now, the registrar does it again.
                self.node.sessions.registered(session, known.unwrap_or(Known::default()));
                self.node.routes.touch_if(known != self.node.present(shard));
                Ok((session, frames, view))
            }
            Err(refusal) => {
                self.not_attached(EntityId::Agent(who.agent), session, &refusal);
                Err(refusal)
            }
        }
    }

    /// A socket was not registered: only where the outcome is unknown is there an owner that may know it.
    fn not_attached(&self, whose: EntityId, session: SessionId, refusal: &Refusal) {
        match refusal {
            Refusal::TimedOut => self.node.let_go(whose, session),
            _ => self.node.sessions.close(session),
        }
    }

    /// A socket is gone.
    pub fn detach(&self, agent: AgentId, session: SessionId) {
        self.node.let_go(EntityId::Agent(agent), session);
    }

    /// Takes a key of an agent for one request, in the whole deployment; `false`: another has it, here or elsewhere. To be
    /// given back with [`Self::end_once`]. A node that is alone keeps no keys: whoever asks knows what runs in this process.
    pub async fn begin_once(&self, agent: AgentId, key: &str) -> Result<bool, Refusal> {
        if self.node.failures.is_none() {
            return Ok(true);
        }
        let reply = self.ask_agent(agent, AgentRequest::BeginOnce(key.into())).await;
        if reply.as_ref().is_err_and(|refusal| *refusal == Refusal::TimedOut) {
            self.end_once(agent, key); // it may have been taken
        }
        expect_reply!(reply?, Reply::Begun(begun) => begun)
    }

    /// Gives a key back.
    pub fn end_once(&self, agent: AgentId, key: &str) {
        if self.node.failures.is_some() {
            self.tell_agent(agent, AgentEvent::EndOnce(key.into()));
        }
    }

    /// A socket wrote `frames` more frames, the last delivery among them at `through`.
    pub fn written(&self, agent: AgentId, session: SessionId, frames: u32, through: Option<Pos>) {
        self.tell_agent(agent, AgentEvent::Written(session, frames, through));
    }

    /// The shard of an entity.
    pub fn shard_of(&self, entity: &EntityId) -> ShardId {
        self.node.region.shard_of(entity.key())
    }

    /// Whether requests can be served now.
    pub async fn ready(&self) -> Result<(), String> {
        self.node.store.ready().await.map_err(|error| error.to_string())
    }

    /// Ends sockets and shards. Every shard finishes what its mailbox holds; the caller then closes the store.
    pub async fn stop(&self) {
        self.node.sessions.close_all(CloseReason::Restart);
        self.supervisor.drain_children_and_wait(None).await;
        if let Err(error) = self.supervisor.stop_and_wait(None, None).await {
            tracing::warn!(%error, "the shard supervisor had already stopped");
        }
    }
}

#[async_trait]
impl Hosts for Domain {
    async fn start(&self, shard: ShardId, epoch: u64) {
        let (done, started) = oneshot::channel();
        self.tell_supervisor(Command::Start(Fence { shard: shard.0, epoch }, done));
        let _ = started.await; // it failed: the member sees that it is not hosted
    }

    async fn leave(&self, shard: ShardId) {
        let (done, stopped) = oneshot::channel();
        self.tell_supervisor(Command::Leave(shard, done));
        let _ = stopped.await; // it was not hosted
    }

    fn hosted(&self, shard: ShardId) -> Option<u64> {
        self.node.region.hosted(shard).map(|(epoch, _)| epoch)
    }

    fn abandon(&self) {
        self.node.region.remove_all();
        self.node.sessions.forget_registrations();
        self.tell_supervisor(Command::Abandon);
        self.node.routes.touch();
    }

    fn moved(&self) {
        self.node.tell_shards(|| ShardEvent::Moved);
    }

    fn gone(&self, node: NodeId) {
        self.node.ports.lost(node);
        self.node.tell_shards(|| ShardEvent::Gone(node));
    }
}

mod groups;
mod owners;
mod social;
#[cfg(test)]
mod tests;
