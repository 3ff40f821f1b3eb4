//! From the key of an entity to the mailbox of its shard, and to the node that owns it.
//!
//! `cargo bench -p cluster --bench routing`. How to read it: every message between entities pays `shard of a key` and `post` once,
//! and `owner of a shard` as well when it goes to another node. The mailbox takes what it is given and does nothing.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster::region::{Limits, Mailbox, Region};
use cluster::routes::{NodeId, Route, Routes};
use cluster::shard::ShardId;
use criterion::Criterion;

/// Shards of a default deployment.
const SHARDS: u32 = 1_024;

/// Nothing is shed.
const UNBOUNDED: Limits = Limits { per_shard: usize::MAX, in_all: usize::MAX };

struct Sink(AtomicU64);

impl Mailbox<u64> for Sink {
    fn post(&self, message: u64) -> Result<(), u64> {
        self.0.fetch_add(message, Ordering::Relaxed);
        Ok(())
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let (region, routes) = (Region::<u64>::new(SHARDS, UNBOUNDED), Routes::new(SHARDS));
    for shard in (0..SHARDS).map(ShardId) {
        region.install(shard, 1, Arc::new(Sink(AtomicU64::new(0))));
        routes.learn([(shard, Route { epoch: 1, owner: Some(NodeId(u64::from(shard.0 % 3))) })]);
    }
    let mut group = criterion.benchmark_group("routing");
    let mut key = *b"0123456789abcdef";
    let mut next = 0_u64;
    let mut turn = move || {
        next = next.wrapping_add(0x9e37_79b9_7f4a_7c15);
        key[..8].copy_from_slice(&next.to_be_bytes());
        key
    };
    group.bench_function("shard of a key", |bench| bench.iter(|| black_box(region.shard_of(&turn()))));
    group.bench_function("post", |bench| bench.iter(|| black_box(region.post(region.shard_of(&turn()), 1))));
    group.bench_function("owner of a shard", |bench| bench.iter(|| black_box(routes.get(region.shard_of(&turn())))));
    group.finish();
    criterion.final_summary();
}
