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
use schema::ids::Seq;

#[path = "../../benches/shared/row.rs"]
mod row;

use row::{agent, row};

/// Messages of a full frame.
const BATCH: u64 = 64;

fn delivery() -> Envelope<Wire> {
    let delivery = Delivery {
        message: Arc::new(row()),
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
