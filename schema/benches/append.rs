//! The embedded store: batches of one direct message each, answered after their sync.
//!
//! `cargo bench -p schema --bench append`. How to read it: throughput is batches. One alone is a sync of the disk and little else; of
//! 512 together all share a few syncs, so what a batch costs there is encoding, log and index. On a disk in memory
//! (`TMPDIR=/dev/shm`) only that is left. Other engines beside this one: `schema/benches/candidates`.

use std::sync::mpsc::channel;

use criterion::{Criterion, Throughput};
use schema::embedded::{EmbeddedOptions, EmbeddedStore};
use schema::store::Store;

#[path = "shared/message.rs"]
mod message;

/// Conversations that take turns.
const PAIRS: u64 = 512;
/// Bytes of text: a short chat line.
const TEXT: usize = 84;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let dir = tempfile::tempdir().expect("dir");
    let store = EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).expect("opens");
    let mut group = criterion.benchmark_group("append");
    let mut next = 0;
    for together in [1_u64, 64, 512] {
        group.throughput(Throughput::Elements(together));
        group.bench_function(format!("{together} together"), |bench| {
            bench.iter(|| {
                let (answer, answers) = channel();
                for n in next..next + together {
                    let answer = answer.clone();
                    store.submit(
                        vec![message::batch(n % PAIRS, n / PAIRS + 1, TEXT)],
                        Box::new(move |outcomes| drop(answer.send(outcomes))),
                    );
                }
                next += together;
                drop(answer);
                assert!(answers.iter().flatten().all(|outcome| outcome.is_ok()));
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
