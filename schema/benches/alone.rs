//! The embedded store alone: 512 writers, or as many as are asked for, each with one durable append under way.
//!
//! `cargo bench -p schema --bench alone [-- DIRECTORY [SECONDS [TEXT_BYTES [WRITERS]]]]`. An append is what one direct message writes to its
//! conversation and to its recipient's inbox: five rows in one batch, answered after its sync. `loadtest accept` sets the rate beside
//! that of single 4 KiB appends, each with `fdatasync`, on the same disk. Writers are tasks, not threads: what is measured
//! is the store, and not how fast a kernel switches between 512 threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schema::embedded::{EmbeddedOptions, EmbeddedStore};
use schema::store::Store;
use tokio::sync::oneshot;

#[path = "shared/message.rs"]
mod message;

/// Writers that wait for an answer each, unless it is said.
const WRITERS: f64 = 512.0;

async fn write(store: Arc<EmbeddedStore>, writer: u64, text: usize, end: Instant, done: Arc<AtomicU64>) {
    for n in 1.. {
        let (answer, answered) = oneshot::channel();
        store.submit(
            vec![message::batch(writer, n, text)],
            Box::new(move |outcomes| {
                let _ = answer.send(outcomes);
            }),
        );
        assert_eq!(answered.await.as_deref(), Ok(&[Ok(())][..]));
        done.fetch_add(1, Ordering::Relaxed);
        if Instant::now() >= end {
            return;
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let disk = words.first().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let number = |at: usize, default: f64| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(default);
    let (length, text) = (Duration::from_secs_f64(number(1, 5.0)), number(2, 84.0) as usize);
    let writers = number(3, WRITERS) as u64;
    let dir = tempfile::tempdir_in(disk).expect("a directory that can be written");
    let store = Arc::new(EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).expect("opens"));
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("threads");
    let (started, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    runtime.block_on(async {
        let end = started + length;
        let tasks: Vec<_> = (0..writers)
            .map(|writer| tokio::spawn(write(Arc::clone(&store), writer, text, end, Arc::clone(&done))))
            .collect();
        for task in tasks {
            task.await.expect("writes");
        }
    });
    let rate = done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    println!("{writers} writers: {rate:.0} appends/s");
}
