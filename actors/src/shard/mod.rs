//! One shard: activates its entities on their first event, steps them, passivates them when idle.
//!
//! H1  An entity sees nothing before it is loaded; what arrives meanwhile waits in order.
//! H2  An entity leaves memory only when it says that nothing is under way.
//! H3  `step` never awaits: what an entity wants is carried out by `host` and comes back as an event.
//! H4  Who has a socket forgotten is answered at once, whether or not its entity is in memory.

pub mod host;
mod queue;
pub mod reads;
pub mod supervisor;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cluster::routes::NodeId;
use schema::rows::Timestamp;
use schema::store::{Batch, Fence};

use crate::agent::Agent;
use crate::agent::events::{AgentEvent, AgentRequest};
use crate::api::{Hook, Refusal, SessionId, Snapshot, ToSession};
use crate::conversation::Conversation;
use crate::conversation::events::ConversationEvent;
use crate::effects::{Effects, EntityId, Event, Found, Port, Read, Reply, Stored};
use crate::limits::Limits;
use crate::owner::Owner;
use crate::owner::events::{OwnerEvent, OwnerRequest};

/// What the world has to do after a step, in this order: commits first, then everything that needs no write.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Batches to store, at most one per entity at a time.
    pub commits: Vec<(EntityId, Batch)>,
    /// Reads to run.
    pub reads: Vec<(EntityId, Read)>,
    /// Events for entities, here or elsewhere.
    pub tells: Vec<Event>,
    /// Answers.
    pub replies: Vec<(Port, Result<Reply, Refusal>)>,
    /// Frames.
    pub pushes: Vec<(SessionId, ToSession)>,
    /// Calls of webhooks.
    pub hooks: Vec<Hook>,
    /// How agents are seen from now on.
    pub snapshots: Vec<Snapshot>,
}

/// What happens to a shard.
#[derive(Debug)]
pub enum ShardEvent {
    /// An event for one of its entities.
    Entity(Event),
    /// Outcomes of commits, by entity.
    Stored(Vec<(EntityId, Stored)>),
    /// A read of this entity came back.
    Found(EntityId, Found),
    /// Time passed.
    Tick,
    /// Other shards have new owners: what was on its way to them may be lost.
    Moved,
    /// A node is gone, and its sockets with it.
    Gone(NodeId),
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "slots are boxed, and most of them are agents")]
enum State {
    Loading(Vec<Event>),
    Agent(Agent),
    Conversation(Box<Conversation>),
    Owner(Box<Owner>),
}

/// An entity in memory. Boxed, so that the room that a map keeps free is a word for each.
#[derive(Debug)]
struct Slot {
    state: State,
    used_at: Timestamp,
    /// Its one entry in `wakes`.
    wake_at: Timestamp,
}

/// The allocator's next larger class has 64 bytes more, for each of a million agents.
const _: () = assert!(size_of::<Slot>() <= 256);

/// The entities of one shard.
#[derive(Debug)]
pub struct Shard {
    /// Shared by all agents: a million of them, and one set of numbers.
    limits: Arc<Limits>,
    /// Under which everything is written.
    fence: Fence,
    entities: HashMap<EntityId, Box<Slot>>,
    wakes: BTreeSet<(Timestamp, EntityId)>,
}

impl Shard {
    /// An empty shard that writes under `fence`.
    pub fn new(limits: Limits, fence: Fence) -> Self {
        Self { limits: Arc::new(limits), fence, entities: HashMap::new(), wakes: BTreeSet::new() }
    }

    /// When [`ShardEvent::Tick`] is due next.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// How many entities are in memory.
    pub fn resident(&self) -> usize {
        self.entities.len()
    }

    /// Nothing is under way in any entity.
    pub fn is_quiet(&self) -> bool {
        self.entities.values().all(|slot| match &slot.state {
            State::Loading(_) => false,
            State::Agent(agent) => agent.is_quiet(),
            State::Conversation(conversation) => conversation.is_idle(),
            State::Owner(owner) => owner.is_quiet(),
        })
    }

    /// One step.
    pub fn step(&mut self, now: Timestamp, event: ShardEvent, out: &mut Outbox) {
        match event {
            ShardEvent::Entity(event) => self.entity(now, event, out),
            ShardEvent::Stored(outcomes) => {
                for (id, outcome) in outcomes {
                    self.entity(now, completion(id, outcome), out);
                }
            }
            ShardEvent::Found(id, found) => self.found(now, id, found, out),
            ShardEvent::Tick => self.tick(now, out),
            ShardEvent::Moved => self.tell_busy(now, out),
            ShardEvent::Gone(node) => self.detach_all(now, node, out),
        }
    }

    /// Whoever has something under way asks for it again.
    fn tell_busy(&mut self, now: Timestamp, out: &mut Outbox) {
        let busy = self.entities.iter().filter_map(|(id, slot)| match (&slot.state, id) {
            (State::Agent(agent), EntityId::Agent(id)) if !agent.is_quiet() => {
                Some(Event::Agent(*id, AgentEvent::Moved))
            }
            (State::Conversation(conversation), EntityId::Conversation(id)) if !conversation.is_idle() => {
                Some(Event::Conversation(*id, ConversationEvent::Wake))
            }
            _ => None,
        });
        for event in busy.collect::<Vec<_>>() {
            self.entity(now, event, out);
        }
    }

    fn detach_all(&mut self, now: Timestamp, node: NodeId, out: &mut Outbox) {
        let mut gone = Vec::new();
        for (id, slot) in &self.entities {
            match (&slot.state, *id) {
                (State::Agent(agent), EntityId::Agent(id)) => {
                    let detach = |session| Event::Agent(id, AgentEvent::Detach(session));
                    gone.extend(agent.sockets_of(node).map(detach));
                }
                (State::Owner(owner), EntityId::Owner(id)) => {
                    let detach = |session| Event::Owner(id, OwnerEvent::Detach(session));
                    gone.extend(owner.sockets_of(node).map(detach));
                }
                _ => {}
            }
        }
        gone.into_iter().for_each(|event| self.entity(now, event, out));
    }

    /// H4: the store has no part in it, or the question would come again and again while the store is away, and wait with
    /// the others. What would have registered the socket later goes back.
    fn forget_unknown(&mut self, event: Event, out: &mut Outbox) -> Option<Event> {
        let Some((port, session)) = forgets(&event) else { return Some(event) };
        match self.entities.get_mut(&event.to()).map(|slot| &mut slot.state) {
            Some(State::Loading(waiting)) => {
                let late = waiting.extract_if(.., |event| registers(event) == Some(session));
                let back = late.filter_map(|event| event.port()).map(|port| (port, Err(Refusal::Unavailable)));
                out.replies.extend(back);
            }
            Some(_) => return Some(event),
            None => {}
        }
        out.replies.push((port, Ok(Reply::Done)));
        None
    }

    fn entity(&mut self, now: Timestamp, event: Event, out: &mut Outbox) {
        let Some(event) = self.forget_unknown(event, out) else { return };
        let id = event.to();
        let Some(slot) = self.entities.get_mut(&id) else {
            // Nothing outlives an entity that is worth loading it for.
            let pointless = matches!(
                event,
                Event::Agent(
                    _,
                    AgentEvent::Stored(_)
                        | AgentEvent::Found(_)
                        | AgentEvent::Wake
                        | AgentEvent::Moved
                        | AgentEvent::Detach(_)
                        | AgentEvent::EndOnce(_)
                        | AgentEvent::Written(..)
                        | AgentEvent::Settled { .. }
                        | AgentEvent::Located(..)
                        | AgentEvent::InviteDone(false)
                        | AgentEvent::PeerTyping { .. }
                ) | Event::Conversation(
                    _,
                    ConversationEvent::Stored(_)
                        | ConversationEvent::Found(_)
                        | ConversationEvent::Wake
                        | ConversationEvent::Permit { .. }
                        | ConversationEvent::Taken { .. }
                )
                    // A dashboard that is open keeps its owner in memory; without one there is nobody to show it to.
                    | Event::Owner(
                    _,
                    OwnerEvent::Stored(_)
                        | OwnerEvent::Found(_)
                        | OwnerEvent::Wake
                        | OwnerEvent::Detach(_)
                        | OwnerEvent::Seen(_)
                        | OwnerEvent::Changed { .. }
                )
            );
            if !pointless {
                let wake_at = now.plus_ms(self.limits.idle_ms);
                let slot = Slot { state: State::Loading(vec![event]), used_at: now, wake_at };
                self.entities.insert(id, Box::new(slot));
                self.wakes.insert((wake_at, id));
                let read = match id {
                    EntityId::Agent(id) => Read::Agent(id),
                    EntityId::Conversation(id) => Read::Conversation(id),
                    EntityId::Owner(id) => Read::Owner(id),
                };
                out.reads.push((id, read));
            }
            return;
        };
        slot.used_at = now;
        let mut fx = Effects::default();
        match (&mut slot.state, event) {
            (State::Loading(waiting), event) => waiting.push(event),
            (State::Agent(agent), Event::Agent(_, event)) => agent.on(now, event, &mut fx),
            (State::Conversation(conversation), Event::Conversation(_, event)) => {
                conversation.on(now, event, &mut fx);
            }
            (State::Owner(owner), Event::Owner(_, event)) => owner.on(now, event, &mut fx),
            (State::Agent(_) | State::Conversation(_) | State::Owner(_), _) => {
                debug_assert!(false, "an id names one kind");
            }
        }
        self.collect(id, fx, out);
    }

    fn is_loading(&self, id: EntityId) -> bool {
        self.entities.get(&id).is_some_and(|slot| matches!(slot.state, State::Loading(_)))
    }

    fn found(&mut self, now: Timestamp, id: EntityId, found: Found, out: &mut Outbox) {
        let loading = self.is_loading(id);
        let mut fx = Effects::default();
        let state = match (id, found) {
            (_, Found::Agent(_) | Found::Conversation(_) | Found::Owner(_)) if !loading => return,
            (EntityId::Agent(_), Found::Agent(Some(loaded))) => {
                State::Agent(Agent::activate(*loaded, Arc::clone(&self.limits)))
            }
            (EntityId::Conversation(id), Found::Conversation(loaded)) => {
                let loaded = loaded.map(|loaded| *loaded);
                State::Conversation(Box::new(Conversation::activate(id, loaded, Arc::clone(&self.limits), &mut fx)))
            }
            (EntityId::Owner(id), Found::Owner(row)) => State::Owner(Box::new(Owner::activate(id, row))),
            (_, Found::Agent(_)) => return self.nobody(id, out),
            (EntityId::Agent(agent), found) => {
                return self.entity(now, Event::Agent(agent, AgentEvent::Found(found)), out);
            }
            (EntityId::Conversation(conversation), found) => {
                let event = Event::Conversation(conversation, ConversationEvent::Found(found));
                return self.entity(now, event, out);
            }
            (EntityId::Owner(owner), found) => {
                return self.entity(now, Event::Owner(owner, OwnerEvent::Found(found)), out);
            }
        };
        let Some(slot) = self.entities.get_mut(&id) else { return };
        let before = std::mem::replace(&mut slot.state, state);
        // A conversation that repeats deliveries watches for their answers from the start.
        fx.wake(now.plus_ms(crate::limits::REDELIVER_MS));
        self.collect(id, fx, out);
        if let State::Loading(waiting) = before {
            for event in waiting {
                self.entity(now, event, out);
            }
        }
    }

    /// No such agent: whoever waits is told.
    fn nobody(&mut self, id: EntityId, out: &mut Outbox) {
        let Some(State::Loading(waiting)) = self.entities.remove(&id).map(|slot| slot.state) else { return };
        for event in waiting {
            match event {
                Event::Agent(
                    _,
                    AgentEvent::Request(
                        port,
                        AgentRequest::Admit(_) | AgentRequest::SendAs(..) | AgentRequest::Attach(..),
                    ),
                ) => {
                    out.replies.push((port, Err(Refusal::Unauthorized)));
                }
                Event::Agent(_, AgentEvent::Request(port, _)) => out.replies.push((port, Err(Refusal::AgentNotFound))),
                Event::Agent(_, AgentEvent::PermitAsked { conversation, sender, client_msg_id }) => {
                    let event = ConversationEvent::Permit { sender, client_msg_id, facts: None };
                    out.tells.push(Event::Conversation(conversation, event));
                }
                _ => {}
            }
        }
    }

    fn tick(&mut self, now: Timestamp, out: &mut Outbox) {
        while let Some((at, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, id));
            let Some(slot) = self.entities.get(&id) else { continue };
            let idle = match &slot.state {
                State::Loading(_) => false,
                State::Agent(agent) => agent.is_idle(),
                State::Conversation(conversation) => conversation.is_idle(),
                State::Owner(owner) => owner.is_idle(),
            };
            let used_at = slot.used_at;
            if slot.wake_at != at {
                continue;
            }
            if idle && now.ms_since(used_at) >= self.limits.idle_ms {
                self.entities.remove(&id);
                continue;
            }
            let event = match id {
                EntityId::Agent(id) => Event::Agent(id, AgentEvent::Wake),
                EntityId::Conversation(id) => Event::Conversation(id, ConversationEvent::Wake),
                EntityId::Owner(id) => Event::Owner(id, OwnerEvent::Wake),
            };
            let idle_ms = self.limits.idle_ms;
            self.wake_at(id, used_at.plus_ms(idle_ms).max(now.plus_ms(idle_ms / 4)), true);
            if !self.is_loading(id) {
                self.entity(now, event, out);
            }
            // Waking is not use: it must not keep an idle entity.
            if let Some(slot) = self.entities.get_mut(&id) {
                slot.used_at = used_at;
            }
        }
    }

    fn collect(&mut self, id: EntityId, fx: Effects, out: &mut Outbox) {
        if let Some(writes) = fx.writes {
            out.commits.push((id, Batch { fence: self.fence, writes }));
        }
        out.reads.extend(fx.reads.into_iter().map(|read| (id, read)));
        out.tells.extend(fx.tells);
        out.replies.extend(fx.replies);
        out.pushes.extend(fx.pushes);
        out.hooks.extend(fx.hooks);
        out.snapshots.extend(fx.snapshot);
        if let Some(at) = fx.wake_at {
            self.wake_at(id, at, false);
        }
    }

    /// Moves an entity's one wake-up: to an earlier time, or anywhere after it fired.
    fn wake_at(&mut self, id: EntityId, at: Timestamp, fired: bool) {
        if let Some(slot) = self.entities.get_mut(&id).filter(|slot| fired || at < slot.wake_at) {
            self.wakes.remove(&(slot.wake_at, id));
            slot.wake_at = at;
            self.wakes.insert((at, id));
        }
    }
}

/// Which socket is to be forgotten, and who waits for that.
fn forgets(event: &Event) -> Option<(Port, SessionId)> {
    match event {
        Event::Agent(_, AgentEvent::Request(port, AgentRequest::Forget(session))) => Some((*port, *session)),
        Event::Owner(_, OwnerEvent::Request(port, request)) => match **request {
            OwnerRequest::Forget(session) => Some((*port, session)),
            _ => None,
        },
        _ => None,
    }
}

/// Which socket is to be registered.
fn registers(event: &Event) -> Option<SessionId> {
    match event {
        Event::Agent(_, AgentEvent::Request(_, AgentRequest::Attach(_, session, _))) => Some(*session),
        Event::Owner(_, OwnerEvent::Request(_, request)) => match **request {
            OwnerRequest::Watch(_, session) => Some(session),
            _ => None,
        },
        _ => None,
    }
}

fn completion(id: EntityId, outcome: Stored) -> Event {
    match id {
        EntityId::Agent(id) => Event::Agent(id, AgentEvent::Stored(outcome)),
        EntityId::Conversation(id) => Event::Conversation(id, ConversationEvent::Stored(outcome)),
        EntityId::Owner(id) => Event::Owner(id, OwnerEvent::Stored(outcome)),
    }
}
