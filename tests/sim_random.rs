//! Seeded simulation of the entities over the memory store: one seed is one run.
//!
//! The world delivers events, reads and store outcomes in random order, refuses writes, loses answers, and crashes one
//! shard or all of them between any two steps; what was on its way to a shard that crashed may be lost. After every step the checks named after the contract's invariants run.
//! `AGENTCHAT_SIM_SEEDS=N` runs N seeds (default 500); `AGENTCHAT_SIM_SEED=S` runs one.

#[path = "simulation/groups.rs"]
mod groups;

use cluster::routes::NodeId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use actors::agent::events::{AgentEvent, AgentRequest};
use actors::api::{Draft, Refusal, SessionId, Target, ToSession};
use actors::effects::{EntityId, Event, Port, Read, Reply};
use actors::limits::Limits;
use actors::shard::{Outbox, Shard, ShardEvent, reads};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schema::ids::{AgentId, ConversationId, Key, KeyHash, MessageId, Pos, Seq};
use schema::memory::MemoryStore;
use schema::rows::{AgentRow, Book, DeliveryState, MessageRow, MessageType, Timestamp};
use schema::store::{Batch, Fence, PAGE_MAX, Store, StoreError, Write};

const AGENTS: usize = 4;
const SHARDS: u32 = 3;
const STEPS: usize = 600;
/// A client's patience.
const DEADLINE_MS: u64 = 10_000;
/// Steps within which a world without faults must come to rest.
const QUIET_STEPS: usize = 200_000;

/// A client's send and what it knows of it.
struct Send {
    from: usize,
    to: usize,
    /// Into this group instead.
    group: Option<ConversationId>,
    answered: Option<Result<MessageId, Refusal>>,
    port: Option<Port>,
    asked_at: Timestamp,
}

/// A socket as its client sees it.
struct Socket {
    agent: usize,
    explicit: bool,
    /// Highest seq shown per conversation on this socket (S3, S4), and highest one that was no echo.
    shown: HashMap<ConversationId, (Seq, Seq)>,
    unacked: Vec<MessageId>,
}

struct World {
    rng: StdRng,
    now: Timestamp,
    store: MemoryStore,
    shards: Vec<Shard>,
    /// Mailbox per entity: order is kept for one addressee, nothing else.
    mail: BTreeMap<EntityId, VecDeque<Event>>,
    commits: Vec<(EntityId, Batch)>,
    reads: Vec<(EntityId, Read)>,
    ids: Vec<AgentId>,
    sends: Vec<Send>,
    sockets: BTreeMap<SessionId, Socket>,
    /// Messages ever shown to each agent as deliveries.
    seen: Vec<BTreeSet<MessageId>>,
    /// What each agent's sync reader was ever served, by position (S7, S10).
    served: Vec<BTreeMap<Pos, MessageId>>,
    /// Readers that wait for their bounds.
    readers: HashMap<Port, usize>,
    states: HashMap<(AgentId, ConversationId, Seq), DeliveryState>,
    /// Every message that was ever applied, by its place.
    log: HashMap<(ConversationId, Seq), Arc<MessageRow>>,
    groups: groups::Groups,
    faults: bool,
    stormy: bool,
    /// Half of the worlds know groups.
    grouped: bool,
    next_id: u64,
}

fn account(n: usize) -> AgentRow {
    let id = AgentId(Key::from_bytes([n as u8 + 1; 16]));
    let key = KeyHash::of(&format!("key-{n}"));
    let row = AgentRow::new(id, format!("agent-{n}"), format!("{n}@example.com"), key, Timestamp(1));
    AgentRow { books: row.books.with(Book::Contacts), ..row } // some worlds fill it at once
}

fn shards() -> Vec<Shard> {
    (0..SHARDS).map(|_| Shard::new(limits(), Fence::default())).collect()
}

fn shard_of(id: &EntityId) -> u32 {
    // Not the shard of a deployment: here their number need not be a power of two.
    id.key().iter().fold(0, |sum, byte| sum + u32::from(*byte)) % SHARDS
}

fn limits() -> Limits {
    Limits {
        requests_per_second: None,
        sends_per_second: None,
        group_sends_per_second: None,
        invites_per_day: None,
        cold_threads: None,
        ..Limits::default()
    }
}

impl World {
    async fn new(seed: u64) -> Self {
        let store = MemoryStore::new();
        let ids: Vec<AgentId> = (0..AGENTS).map(|n| account(n).id).collect();
        for n in 0..AGENTS {
            store.create_agent(account(n), None, None).await.expect("fresh store");
        }
        let mut rng = StdRng::seed_from_u64(seed);
        // In half of the worlds everybody knows everybody, so that no cold rule ends a conversation early.
        if rng.random_bool(0.5) {
            let contact = |n: usize| schema::rows::ContactRow {
                agent: account(n).id,
                handle: account(n).handle,
                notes: None,
                added_at: Timestamp(1),
            };
            let pairs = (0..AGENTS).flat_map(|a| (0..AGENTS).map(move |b| (a, b))).filter(|(a, b)| a != b);
            let writes = pairs.map(|(a, b)| Write::Contact(account(a).id, contact(b))).collect();
            store.submit(vec![Batch { writes, ..Batch::default() }], Box::new(|_| {}));
        }
        Self {
            stormy: rng.random_bool(0.3),
            grouped: rng.random_bool(0.5),
            rng,
            now: Timestamp(1_000_000),
            store,
            shards: shards(),
            mail: BTreeMap::new(),
            commits: Vec::new(),
            reads: Vec::new(),
            ids,
            sends: Vec::new(),
            sockets: BTreeMap::new(),
            seen: vec![BTreeSet::new(); AGENTS],
            served: vec![BTreeMap::new(); AGENTS],
            readers: HashMap::new(),
            states: HashMap::new(),
            log: HashMap::new(),
            groups: groups::Groups::default(),
            faults: true,
            next_id: 1,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn mail(&mut self, event: Event) {
        self.mail.entry(event.to()).or_default().push_back(event);
    }

    fn request(&mut self, agent: usize, request: AgentRequest) -> Port {
        let port = Port { node: NodeId::default(), number: self.fresh() };
        self.mail(Event::Agent(self.ids[agent], AgentEvent::Request(port, request)));
        port
    }

    /// One random thing happens: in the world's machinery mostly, else by a client, else a fault.
    async fn tick(&mut self) {
        self.now = self.now.plus_ms(self.rng.random_range(0..40));
        if self.grouped && self.rng.random_bool(0.06) {
            return self.client_groups();
        }
        match self.rng.random_range(0..100) {
            0..60 => self.machinery().await,
            60..70 => self.client_sends(),
            70..80 => self.client_acks(),
            80..84 => self.client_connects(),
            84..86 => self.client_reads(),
            86 => self.disconnect_one(),
            87 => self.client_relates(),
            88 if self.faults => match self.rng.random_range(0..=SHARDS) {
                SHARDS => self.crash().await,
                shard => self.crash_one(shard),
            },
            _ => self.pass_time().await,
        }
    }

    async fn machinery(&mut self) {
        let waiting = self.mail.len() + self.commits.len() + self.reads.len();
        if waiting == 0 {
            return;
        }
        let mut pick = self.rng.random_range(0..waiting);
        if pick < self.mail.len() {
            let id = *self.mail.keys().nth(pick).expect("in range");
            return self.deliver(id).await;
        }
        pick -= self.mail.len();
        if pick < self.commits.len() {
            return self.commit(pick).await;
        }
        let (id, read) = self.reads.swap_remove(pick - self.commits.len());
        let found = reads::run(&self.store, read).await.expect("memory reads do not fail");
        self.step(id, ShardEvent::Found(id, found)).await;
    }

    /// A shard takes something that waits for `id`, and now and then more of what waits for it, in one batch.
    async fn deliver(&mut self, id: EntityId) {
        let shard = shard_of(&id);
        let mut events = vec![ShardEvent::Entity(self.next_for(id))];
        while self.rng.random_bool(0.4) {
            let here: Vec<EntityId> = self.mail.keys().filter(|id| shard_of(id) == shard).copied().collect();
            if here.is_empty() {
                break;
            }
            let id = here[self.rng.random_range(0..here.len())];
            events.push(ShardEvent::Entity(self.next_for(id)));
        }
        self.step_shard(shard, events).await;
    }

    fn next_for(&mut self, id: EntityId) -> Event {
        let queue = self.mail.get_mut(&id).expect("present");
        let event = queue.pop_front().expect("never empty");
        if queue.is_empty() {
            self.mail.remove(&id);
        }
        event
    }

    async fn commit(&mut self, pick: usize) {
        let (id, batch) = self.commits.remove(pick);
        // In stormy worlds every third write fails one way or another, so that failures meet failures.
        let fate = if self.faults { self.rng.random_range(0..if self.stormy { 24 } else { 100 }) } else { 99 };
        let outcome = match fate {
            0..4 => Err(StoreError::Unavailable("no space".into())),
            4..6 => Err(StoreError::Timeout),
            6..8 => {
                self.apply(batch);
                Err(StoreError::Timeout)
            }
            _ => {
                self.apply(batch);
                Ok(())
            }
        };
        self.step(id, ShardEvent::Stored(vec![(id, outcome)])).await;
    }

    fn apply(&mut self, batch: Batch) {
        for write in &batch.writes {
            if let Write::Message(message) = write {
                let place = self.log.entry((message.conversation, message.seq)).or_insert_with(|| message.clone());
                assert_eq!(place, message, "S1: a seq was used twice");
            }
            if let Write::Receipt(agent, conversation, seq, receipt) = write {
                let state = self.states.entry((*agent, *conversation, *seq)).or_default();
                assert!(receipt.state >= *state, "S17: {agent} {conversation} {seq:?} went back to {receipt:?}");
                *state = receipt.state;
            }
        }
        self.note_groups(&batch.writes);
        self.store.submit(vec![batch], Box::new(|outcomes| assert!(outcomes.iter().all(Result::is_ok))));
    }

    async fn pass_time(&mut self) {
        for shard in 0..SHARDS {
            self.step_shard(shard, vec![ShardEvent::Tick]).await;
        }
    }

    async fn step(&mut self, id: EntityId, event: ShardEvent) {
        self.step_shard(shard_of(&id), vec![event]).await;
    }

    async fn step_shard(&mut self, shard: u32, events: Vec<ShardEvent>) {
        let mut out = Outbox::default();
        events.into_iter().for_each(|event| self.shards[shard as usize].step(self.now, event, &mut out));
        self.commits.extend(out.commits);
        let busy: BTreeSet<EntityId> = self.commits.iter().map(|(id, _)| *id).collect();
        assert_eq!(busy.len(), self.commits.len(), "E1: one batch in flight per entity");
        self.reads.extend(out.reads);
        out.tells.into_iter().for_each(|event| self.mail(event));
        for (port, reply) in out.replies {
            self.answered(port, reply).await;
        }
        for (session, frame) in out.pushes {
            self.pushed(session, frame).await;
        }
    }

    async fn answered(&mut self, port: Port, reply: Result<Reply, Refusal>) {
        if let Some(agent) = self.readers.remove(&port)
            && let Ok(Reply::Inbox(view)) = reply
        {
            return self.read_inbox(agent, view.through).await;
        }
        self.group_answered(port, &reply);
        let Some(send) = self.sends.iter_mut().find(|send| send.port == Some(port)) else {
            return;
        };
        send.port = None;
        let (from, to, group) = (send.from, send.to, send.group);
        match reply {
            Ok(Reply::Sent(sent)) => {
                let id = MessageId { conversation: sent.message.conversation, seq: sent.message.seq };
                send.answered = Some(Ok(id));
                assert_eq!(sent.message.sender, self.ids[from], "S5: replayed to its own sender");
                let log = self.store.messages_up(id.conversation, id.seq, id.seq, 1).await.expect("reads");
                assert_eq!(log.first(), Some(&sent.message), "S6: answered before the message was durable");
                if group.is_some() {
                    return self.check_takers(id, self.ids[from], false).await;
                }
                let copy = self.store.receipts(self.ids[to], id.conversation, id.seq, id.seq, 1).await.expect("reads");
                assert_eq!(copy.len(), 1, "S6: answered before the delivery was durable");
            }
            Err(Refusal::Unavailable | Refusal::TimedOut) => {}
            Err(refusal) => send.answered = Some(Err(refusal)),
            Ok(other) => panic!("a send was answered with {other:?}"),
        }
    }

    /// One page of sync from the start: full (S8), and never a row below what was served that was not there (S7, S10).
    async fn read_inbox(&mut self, agent: usize, through: Pos) {
        let limit = self.rng.random_range(1..20);
        let rows = self.store.inbox(self.ids[agent], Pos(0), through, limit).await.expect("reads");
        let available = self.store.inbox(self.ids[agent], Pos(0), through, PAGE_MAX).await.expect("reads").len();
        let floor = self.store.inbox_head(self.ids[agent]).await.expect("reads").floor;
        assert!(rows.first().is_none_or(|row| row.pos > floor), "{agent}: a delivery waits below the floor {floor:?}");
        assert_eq!(rows.len(), limit.min(available), "S8: a short page");
        let served = &mut self.served[agent];
        let highest = served.keys().next_back().copied().unwrap_or_default();
        for row in rows {
            let id = MessageId { conversation: row.message.conversation, seq: row.message.seq };
            if row.pos <= highest {
                assert_eq!(served.get(&row.pos), Some(&id), "S7: {id} appeared at {:?}, below {highest:?}", row.pos);
            }
            served.insert(row.pos, id);
        }
    }

    async fn pushed(&mut self, session: SessionId, frame: ToSession) {
        let Some(socket) = self.sockets.get_mut(&session) else {
            return;
        };
        let (message, pos) = match frame {
            ToSession::Message { message, pos, .. } => (message, pos),
            ToSession::Close(_) => {
                self.sockets.remove(&session);
                return;
            }
            _ => return, // live-only
        };
        let id = MessageId { conversation: message.conversation, seq: message.seq };
        Self::check_order(socket, session, id, pos.is_none());
        let (agent, explicit) = (socket.agent, socket.explicit);
        self.check_shown(agent, id);
        assert_eq!(pos.is_none(), message.sender == self.ids[agent], "S4: only own messages are echoes");
        let log = self.store.messages_up(id.conversation, id.seq, id.seq, 1).await.expect("reads");
        assert_eq!(log.first(), Some(&message), "S6: pushed before it was durable");
        let head = self.store.conversation(id.conversation).await.expect("reads");
        assert!(head.is_some_and(|head| head.last_seq >= id.seq), "S16: pushed before history shows it");
        if pos.is_some() {
            let copy = self.store.receipts(self.ids[agent], id.conversation, id.seq, id.seq, 1).await.expect("reads");
            assert_eq!(copy.len(), 1, "S6: pushed before its delivery was durable");
            self.seen[agent].insert(id);
            socket_of(&mut self.sockets, session).unacked.push(id);
        }
        let through = if explicit { None } else { pos };
        self.mail(Event::Agent(self.ids[agent], AgentEvent::Written(session, 1, through)));
    }

    /// Clients give up waiting, as the gateway does, and ask again with the same key.
    fn client_sends(&mut self) {
        if !self.retry_sends() {
            let n = {
                let from = self.rng.random_range(0..AGENTS);
                let to = (from + self.rng.random_range(1..AGENTS)) % AGENTS;
                let group = self.group_for_send(from);
                self.sends.push(Send { from, to, group, answered: None, port: None, asked_at: self.now });
                self.sends.len() - 1
            };
            self.ask(n);
        }
    }

    /// Repeats one send that has no answer and no request under way.
    fn retry_sends(&mut self) -> bool {
        let now = self.now;
        let late = |send: &&mut Send| send.port.is_some() && now.ms_since(send.asked_at) >= DEADLINE_MS;
        self.sends.iter_mut().filter(late).for_each(|send| send.port = None);
        let retry = self.sends.iter().position(|send| send.answered.is_none() && send.port.is_none());
        if let Some(n) = retry {
            self.ask(n);
        }
        retry.is_some()
    }

    fn ask(&mut self, n: usize) {
        let from = self.sends[n].from;
        let draft = Draft {
            client_msg_id: format!("c{n}"),
            kind: MessageType::Text,
            content: format!("{{\"text\":\"{n}\"}}"),
            metadata: "{}".into(),
            mentions: Vec::new(),
            attachment: None,
        };
        let target = match self.sends[n].group {
            Some(group) => Target::Conversation(group),
            None => self.direct_target(n),
        };
        self.sends[n].asked_at = self.now;
        self.sends[n].port = Some(self.request(from, AgentRequest::Send(target, Box::new(draft))));
    }

    fn direct_target(&mut self, n: usize) -> Target {
        let (from, to) = (self.sends[n].from, self.sends[n].to);
        match self.rng.random_range(0..20) {
            0..3 => Target::Conversation(ConversationId::direct(self.ids[from], self.ids[to])),
            // A retry whose target is gone meanwhile: the stored message is still the answer (S5).
            3 if self.sends[n].asked_at < self.now => Target::UnknownAgent,
            _ => Target::Agent(self.ids[to]),
        }
    }

    fn client_acks(&mut self) {
        if self.sockets.is_empty() {
            return;
        }
        let pick = self.rng.random_range(0..self.sockets.len());
        let socket = self.sockets.values_mut().nth(pick).expect("in range");
        if socket.unacked.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..socket.unacked.len());
        let (agent, message) = (socket.agent, socket.unacked.swap_remove(at));
        self.mail(Event::Agent(self.ids[agent], AgentEvent::Ack(message)));
    }

    fn client_reads(&mut self) {
        let agent = self.rng.random_range(0..AGENTS);
        let port = self.request(agent, AgentRequest::Inbox);
        self.readers.insert(port, agent);
        if let Some(message) = self.seen[agent].iter().next_back().copied() {
            match self.rng.random_range(0..5) {
                0 => drop(self.request(agent, AgentRequest::MarkRead(message))),
                1 => drop(self.request(agent, AgentRequest::HideMessage(message))),
                2 => drop(self.request(agent, AgentRequest::AckThrough(Pos(self.next_id % 50)))),
                3 => drop(self.request(agent, AgentRequest::HideConversation(message.conversation))),
                _ => {
                    let event = AgentEvent::ReadThrough(message.conversation, message.seq);
                    self.mail(Event::Agent(self.ids[agent], event));
                }
            }
        }
    }

    /// Contacts come and go, profiles change, now and then somebody is blocked for a while.
    fn client_relates(&mut self) {
        let agent = self.rng.random_range(0..AGENTS);
        let other = (agent + self.rng.random_range(1..AGENTS)) % AGENTS;
        let (target, handle) = (self.ids[other], account(other).handle);
        let request = match self.rng.random_range(0..8) {
            0..2 => AgentRequest::PutContact { target, handle, notes: None },
            2 => AgentRequest::RemoveContact(handle),
            3 => AgentRequest::Block(target, handle),
            4..7 => AgentRequest::Unblock(handle),
            _ => AgentRequest::UpdateProfile(Box::default()),
        };
        self.request(agent, request);
    }

    fn client_connects(&mut self) {
        let agent = self.rng.random_range(0..AGENTS);
        let explicit = self.rng.random_bool(0.7);
        self.connect(agent, explicit);
    }

    fn connect(&mut self, agent: usize, explicit: bool) {
        let session = SessionId::new(NodeId::default(), self.fresh());
        let mode = Self::attach_mode(explicit);
        let socket = Socket { agent, explicit, shown: HashMap::new(), unacked: Vec::new() };
        self.sockets.insert(session, socket);
        self.request(agent, AgentRequest::Attach(KeyHash::of(&format!("key-{agent}")), session, mode));
    }

    fn disconnect_one(&mut self) {
        if let Some(session) = self.sockets.keys().next().copied() {
            let agent = self.sockets[&session].agent;
            self.sockets.remove(&session);
            self.mail(Event::Agent(self.ids[agent], AgentEvent::Detach(session)));
        }
    }

    /// The process dies: what was applied stays, each batch in flight may or may not have made it.
    async fn crash(&mut self) {
        for (_, batch) in std::mem::take(&mut self.commits) {
            if self.rng.random_bool(0.5) {
                self.apply(batch);
            }
        }
        self.store = self.store.crash();
        self.shards = shards();
        self.mail.clear();
        self.reads.clear();
        self.sockets.clear();
        self.readers.clear();
        self.sends.iter_mut().for_each(|send| send.port = None);
        self.check_logs().await;
    }

    /// One shard loses its memory: its batches in flight may have made it, what was on its way to it may be lost, and
    /// its agents' sockets are closed. Everybody else goes on.
    fn crash_one(&mut self, shard: u32) {
        let here = |id: &EntityId| shard_of(id) == shard;
        let (dead, alive): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.commits).into_iter().partition(|(id, _)| here(id));
        self.commits = alive;
        for (_, batch) in dead {
            if self.rng.random_bool(0.5) {
                self.apply(batch);
            }
        }
        self.shards[shard as usize] = Shard::new(limits(), Fence::default());
        self.reads.retain(|(id, _)| !here(id));
        for queue in self.mail.iter_mut().filter(|(id, _)| here(id)).map(|(_, queue)| queue) {
            queue.retain(|_| self.rng.random_bool(0.5));
        }
        self.mail.retain(|_, queue| !queue.is_empty());
        let ids = &self.ids;
        self.sockets.retain(|_, socket| !here(&EntityId::Agent(ids[socket.agent])));
    }

    async fn check_logs(&self) {
        self.check_groups(false).await;
        let mut keys = BTreeSet::new();
        for (a, b) in (0..AGENTS).flat_map(|a| (a + 1..AGENTS).map(move |b| (a, b))) {
            let id = ConversationId::direct(self.ids[a], self.ids[b]);
            let log = self.store.messages_up(id, Seq(1), Seq(u64::MAX), PAGE_MAX).await.expect("reads");
            for (n, message) in log.iter().enumerate() {
                assert_eq!(message.seq, Seq(n as u64 + 1), "S1: a hole in {id}");
                assert!(keys.insert((message.sender, message.client_msg_id.clone())), "S5: stored twice: {message:?}");
            }
        }
        for agent in &self.ids {
            let mut last = HashMap::new();
            for row in self.store.inbox(*agent, Pos(0), Pos(u64::MAX), PAGE_MAX).await.expect("reads") {
                let before = last.insert(row.message.conversation, row.message.seq);
                assert!(before < Some(row.message.seq), "S2: {agent} {before:?} then {:?}", row.message.seq);
            }
        }
    }

    /// No more faults: everything asked for is answered, everything stored is shown and acked.
    async fn settle(&mut self) {
        self.faults = false;
        if self.rng.random_bool(0.5) {
            self.crash().await;
        }
        self.visit_groups();
        (0..AGENTS).for_each(|agent| self.connect(agent, true));
        for _ in 0..QUIET_STEPS {
            self.now = self.now.plus_ms(20);
            self.machinery().await;
            self.pass_time().await;
            if self.sends.iter().any(|send| send.answered.is_none()) && self.mail.len() < AGENTS {
                self.retry_sends();
            }
            self.client_acks();
            let unacked = self.sockets.values().any(|socket| !socket.unacked.is_empty());
            let open = self.sends.iter().any(|send| send.answered.is_none());
            if self.mail.is_empty() && self.commits.is_empty() && self.reads.is_empty() && !unacked && !open {
                return self.check_rest().await;
            }
        }
        panic!("S15: the world did not come to rest");
    }

    async fn check_rest(&self) {
        self.check_logs().await;
        self.check_groups(true).await;
        for send in &self.sends {
            if let Some(Ok(id)) = send.answered {
                let log = self.store.messages_up(id.conversation, id.seq, id.seq, 1).await.expect("reads");
                assert_eq!(log.len(), 1, "S6: an acknowledged message is gone: {id}");
                if send.group.is_some() {
                    continue; // checked with its group
                }
                let copy = (self.ids[send.to], id.conversation, id.seq);
                assert!(self.states[&copy] > DeliveryState::Stored, "S15: {id} still waits");
            }
        }
        for agent in &self.ids {
            let head = self.store.inbox_head(*agent).await.expect("reads");
            let rows = self.store.inbox(*agent, Pos(0), Pos(u64::MAX), PAGE_MAX).await.expect("reads");
            assert_eq!((head.backlog, rows.len()), (0, 0), "backlog of {agent} does not match its inbox");
        }
    }
}

fn socket_of(sockets: &mut BTreeMap<SessionId, Socket>, session: SessionId) -> &mut Socket {
    sockets.get_mut(&session).expect("checked by the caller")
}

async fn run(seed: u64) {
    let mut world = World::new(seed).await;
    // A fan-out to several members takes several steps.
    let steps = if world.grouped { 3 * STEPS } else { STEPS };
    for _ in 0..steps {
        world.tick().await;
    }
    world.settle().await;
}

/// Names the seed when its run panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing seed: AGENTCHAT_SIM_SEED={} cargo test --test sim_random", self.0);
        }
    }
}

#[test]
fn no_seed_breaks_an_invariant() {
    let number = |name| std::env::var(name).ok().and_then(|value: String| value.parse::<u64>().ok());
    let seeds = match number("AGENTCHAT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AGENTCHAT_SIM_SEEDS").unwrap_or(500),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    for seed in seeds {
        let _named = Named(seed);
        runtime.block_on(run(seed));
    }
}
