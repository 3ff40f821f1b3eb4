//! One direct send through the state machines: sender, conversation and recipient on one shard, a store that is done at once.
//!
//! `cargo bench -p actors --bench step`. How to read it: the time is what deciding costs, all steps of one message together (about a
//! dozen), and nothing else: no mailbox, no thread, no disk. A send over HTTP costs the server many times this; when the two come near
//! each other, the state machines are worth a look. `admit` is one step, for comparison.

use std::hint::black_box;

use actors::agent::events::{AgentEvent, AgentRequest};
use actors::api::{Draft, Target};
use actors::effects::{EntityId, Event, Found, LoadedAgent, Port, Read, Reply};
use actors::limits::Limits;
use actors::shard::{Outbox, Shard, ShardEvent};
use cluster::routes::NodeId;
use criterion::Criterion;
use schema::ids::{AgentId, Key, KeyHash};
use schema::rows::{AgentRow, MessageType, Timestamp};
use schema::store::Fence;

const KEY: KeyHash = KeyHash([7; 32]);

fn agent(n: u8) -> AgentId {
    AgentId(Key::from_bytes([n; 16]))
}

/// A shard with everything that a send takes part in, and the world around it.
struct World {
    shard: Shard,
    now: u64,
    requests: u64,
}

impl World {
    fn new() -> Self {
        let open = Limits { requests_per_second: None, sends_per_second: None, ..Limits::default() };
        Self { shard: Shard::new(Limits { backlog_max: u32::MAX, ..open }, Fence::default()), now: 1, requests: 0 }
    }

    /// What a read finds: the accounts of everybody, and nothing else yet.
    fn found(read: &Read) -> Found {
        match read {
            Read::Agent(id) => {
                let row = AgentRow::new(*id, format!("agent-{id}"), "a@example.com", KEY, Timestamp(1));
                Found::Agent(Some(Box::new(LoadedAgent::bare(row))))
            }
            Read::Conversation(_) => Found::Conversation(None),
            Read::Replay(sender, key) => Found::Replay(*sender, key.clone(), None),
            Read::AgentConversation(_, conversation) => Found::AgentConversation(*conversation, None),
            other => panic!("a send does not read {other:?}"),
        }
    }

    /// Runs one request to its end.
    fn ask(&mut self, to: AgentId, request: AgentRequest) -> Reply {
        self.now += 1;
        self.requests += 1;
        let port = Port { node: NodeId::default(), number: self.requests };
        let mut pending = vec![ShardEvent::Entity(Event::Agent(to, AgentEvent::Request(port, request)))];
        let mut answer = None;
        while let Some(event) = pending.pop() {
            let mut out = Outbox::default();
            self.shard.step(Timestamp(self.now), event, &mut out);
            let stored: Vec<(EntityId, _)> = out.commits.into_iter().map(|(id, _)| (id, Ok(()))).collect();
            pending.extend((!stored.is_empty()).then_some(ShardEvent::Stored(stored)));
            pending.extend(out.reads.iter().map(|(id, read)| ShardEvent::Found(*id, Self::found(read))));
            pending.extend(out.tells.into_iter().rev().map(ShardEvent::Entity));
            answer = out.replies.into_iter().next().map(|(_, reply)| reply).or(answer);
        }
        answer.expect("an answer").expect("no refusal")
    }

    fn send(&mut self, from: AgentId, to: AgentId) -> Reply {
        let draft = Draft {
            client_msg_id: format!("message-{}", self.requests),
            kind: MessageType::Text,
            content: r#"{"text":"an ordinary line of chat, as long as such lines are, more or less"}"#.into(),
            metadata: "{}".into(),
            mentions: Vec::new(),
            attachment: None,
        };
        self.ask(from, AgentRequest::Send(Target::Agent(to), Box::new(draft)))
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let (mut world, alice, bob) = (World::new(), agent(1), agent(2));
    world.send(alice, bob);
    world.send(bob, alice); // both may write from now on
    criterion.bench_function("direct send, all steps", |bench| bench.iter(|| black_box(world.send(alice, bob))));
    criterion.bench_function("admit", |bench| {
        bench.iter(|| black_box(world.ask(alice, AgentRequest::Admit(KEY))));
    });
    criterion.final_summary();
}
