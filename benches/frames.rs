//! One message for N sockets: encoded once and shared, beside encoded for each of them.
//!
//! `cargo bench --bench frames`. How to read it: the two differ by what sharing is worth. With one socket they are the same; with 256,
//! a large group, all but one of the encodings are saved and what is left is counting references.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the server is a binary: its module of message bodies is taken in as a file"
)]

use std::hint::black_box;

use axum::extract::ws::Utf8Bytes;
use criterion::{Criterion, Throughput};
use schema::rows::MessageRow;

/// The parts of the server that write a message.
#[path = "../src/wire"]
mod wire {
    pub mod message;
    pub mod time;
}

#[path = "shared/row.rs"]
mod row;

use row::row;
use wire::message::{About, MessageState, message_value};

fn encode(row: &MessageRow) -> Utf8Bytes {
    let about = About { display_name: Some("Alice"), is_system: false, group: Some(("the group", 256)) };
    serde_json::to_string(&message_value(row, about, MessageState::default())).expect("encodes").into()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("frames");
    let row = row();
    for sockets in [1_u64, 16, 256] {
        group.throughput(Throughput::Elements(sockets));
        group.bench_function(format!("{sockets} sockets, encoded once"), |bench| {
            bench.iter(|| {
                let frame = encode(&row);
                (0..sockets).map(|_| black_box(frame.clone()).len()).sum::<usize>()
            });
        });
        group.bench_function(format!("{sockets} sockets, each its own"), |bench| {
            bench.iter(|| (0..sockets).map(|_| black_box(encode(&row)).len()).sum::<usize>());
        });
    }
    group.finish();
    criterion.final_summary();
}
