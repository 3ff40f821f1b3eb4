//! What crosses a link: a delivery in its envelope, to MessagePack and back.
//!
//! `cargo bench -p actors --bench envelope`. How to read it: throughput is messages; the batch is what a pump puts into one frame when
//! there is enough, so the two differ by what a frame costs. A message that crosses nodes pays encoding once and decoding once.

use std::hint::black_box;
use std::sync::Arc;

use actors::agent::events::AgentEvent;
use actors::conversation::events::Delivery;
use actors::effects::Event;
use actors::node::wire::Wire;
use cluster::link::Envelope;
use criterion::{Criterion, Throughput};
use schema::ids::{AgentId, ConversationId, Key, Seq};
use schema::rows::{MessageRow, MessageType, Timestamp};

/// Messages of a full frame.
const BATCH: u64 = 64;

fn agent(n: u8) -> AgentId {
    AgentId(Key::from_bytes([n; 16]))
}

fn delivery() -> Envelope<Wire> {
    let message = MessageRow {
        conversation: ConversationId::direct(agent(1), agent(2)),
        seq: Seq(17),
        sender: agent(1),
        sender_handle: "alice".into(),
        client_msg_id: "0198c0de-0000-7000-8000-000000000000".into(),
        kind: MessageType::Text,
        content: r#"{"text":"an ordinary line of chat, as long as such lines are, more or less"}"#.into(),
        metadata: "{}".into(),
        mentions: Vec::new(),
        created_at: Timestamp(1_764_000_000_000),
    };
    let delivery = Delivery {
        message: Arc::new(message),
        after: Seq(16),
        peer: Some((agent(1), "alice".into())),
        cold: false,
        established: None,
        ends: false,
    };
    let event = Event::Agent(agent(2), AgentEvent::Deliver(Box::new(delivery)));
    Envelope::Message(Wire::Event { epoch: 3, event: Box::new(event) })
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("envelope");
    for messages in [1, BATCH] {
        let batch: Vec<Envelope<Wire>> = (0..messages).map(|_| delivery()).collect();
        let bytes = rmp_serde::to_vec(&batch).expect("encodes");
        group.throughput(Throughput::Elements(messages));
        group.bench_function(format!("encode {messages}, {} bytes", bytes.len()), |bench| {
            bench.iter(|| black_box(rmp_serde::to_vec(&batch)));
        });
        group.bench_function(format!("decode {messages}"), |bench| {
            bench.iter(|| black_box(rmp_serde::from_slice::<Vec<Envelope<Wire>>>(&bytes)));
        });
    }
    group.finish();
    criterion.final_summary();
}
