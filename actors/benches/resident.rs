//! Bytes per resident idle agent: activates a million in one process and divides what the process grew by.
//!
//! `cargo bench -p actors --bench resident [-- COUNT [CONTACTS]]`. The rows come from here, not from a store: what is measured is
//! what an activated entity keeps. Target: at most 768 bytes.

use actors::agent::events::{AgentEvent, AgentRequest};
use actors::effects::{EntityId, Event, Found, LoadedAgent, Port};
use actors::limits::Limits;
use actors::shard::{Outbox, Shard, ShardEvent};
use cluster::routes::NodeId;
use schema::ids::{AgentId, Key, KeyHash};
use schema::rows::{AgentRow, ContactRow, Timestamp};
use schema::store::Fence;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Shards of a default deployment.
const SHARDS: u64 = 1_024;

fn agent(n: u64) -> AgentId {
    let mut entropy = [0; 16];
    entropy[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    entropy[8..].copy_from_slice(&n.to_be_bytes());
    AgentId(Key::from_bytes(entropy))
}

fn loaded(n: u64, contacts: u64) -> LoadedAgent {
    let (handle, email) = (format!("agent-{n:010}"), format!("agent-{n:010}@example.com"));
    let mut row = AgentRow::new(agent(n), handle, email, KeyHash([7; 32]), Timestamp(1));
    row.display_name = Some(format!("Agent {n}"));
    let contact = |peer: u64| ContactRow {
        agent: agent(n + peer + 1),
        handle: format!("agent-{:010}", n + peer + 1),
        notes: None,
        added_at: Timestamp(1),
    };
    LoadedAgent { contacts: (0..contacts).map(contact).collect(), ..LoadedAgent::bare(row) }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm");
    pages * 4_096
}

fn measure(count: u64, contacts: u64) -> u64 {
    let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::new(Limits::default(), Fence::default())).collect();
    let before = resident_bytes();
    for n in 0..count {
        let shard = &mut shards[(n % SHARDS) as usize];
        let mut out = Outbox::default();
        let admit =
            AgentEvent::Request(Port { node: NodeId::default(), number: n }, AgentRequest::Admit(KeyHash([7; 32])));
        shard.step(Timestamp(1), ShardEvent::Entity(Event::Agent(agent(n), admit)), &mut out);
        let found = Found::Agent(Some(Box::new(loaded(n, contacts))));
        shard.step(Timestamp(1), ShardEvent::Found(EntityId::Agent(agent(n)), found), &mut out);
        assert_eq!(out.replies.len(), 1, "the agent is active and has answered");
    }
    assert_eq!(shards.iter().map(Shard::resident).sum::<usize>() as u64, count);
    (resident_bytes() - before) / count
}

fn main() {
    let mut numbers = std::env::args().filter_map(|text| text.parse().ok());
    let (count, contacts) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(0));
    let bytes = measure(count, contacts);
    println!("{count} resident idle agents with {contacts} contacts: {bytes} bytes each");
    println!("the entity itself: {} bytes", size_of::<actors::agent::Agent>());
}
