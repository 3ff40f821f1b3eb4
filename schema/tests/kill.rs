//! kill -9 at random moments loses nothing that was acknowledged. `AGENTCHAT_KILLS` sets the rounds (default 10).

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schema::embedded::{EmbeddedOptions, EmbeddedStore};
use schema::ids::{AgentId, ConversationId, Key};
use schema::rows::Timestamp;
use schema::store::{Batch, Store, StoreError, Write};

/// Directory in which this process is the child that gets killed.
const CHILD: &str = "AGENTCHAT_KILL_CHILD";
/// First number that the child writes.
const FIRST: &str = "AGENTCHAT_KILL_FIRST";
/// Rows of one batch.
const ROWS: u64 = 3;

fn owner(n: u64) -> AgentId {
    let mut entropy = [0; 16];
    (0..16).for_each(|digit| entropy[digit] = (n >> (4 * digit) & 15) as u8);
    AgentId(Key::from_bytes(entropy))
}

fn batch(n: u64) -> Batch {
    let rows = 0..ROWS;
    let thread = |row| Write::ColdThread(owner(n), ConversationId::direct(owner(n), owner(row)), Timestamp(n));
    Batch { writes: rows.map(|row| thread(row + 1_000_000_000)).collect(), ..Batch::default() }
}

fn open(dir: &str) -> EmbeddedStore {
    EmbeddedStore::open(dir.as_ref(), EmbeddedOptions { cache_bytes: 1 << 20, segment_bytes: 64 << 10 })
        .expect("opens after a kill")
}

#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let first = std::env::var(FIRST).ok().and_then(|first| first.parse().ok()).expect("a number");
    let (store, next) = (Arc::new(open(&dir)), Arc::new(AtomicU64::new(first)));
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let writers: Vec<_> = (0..32).map(|_| tokio::spawn(write(Arc::clone(&store), Arc::clone(&next)))).collect();
        for writer in writers {
            writer.await.expect("runs until killed");
        }
    });
}

async fn write(store: Arc<EmbeddedStore>, next: Arc<AtomicU64>) {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = tokio::sync::oneshot::channel();
        store.submit(vec![batch(n)], Box::new(move |outcomes| drop(tx.send(outcomes))));
        match rx.await.expect("answered").remove(0) {
            Ok(()) => println!("acked {n}."),
            // The flusher cannot keep up with such small segments for ever; nothing was applied.
            Err(StoreError::Unavailable(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged() {
    let rounds: u64 = std::env::var("AGENTCHAT_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().to_str().expect("utf-8").to_owned();
    let mut acked: Vec<u64> = Vec::new();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().expect("exe"))
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .envs([(CHILD, path.clone()), (FIRST, (round * 1_000_000).to_string())])
            .stdout(Stdio::piped())
            .spawn()
            .expect("child starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let reader = std::thread::spawn(move || {
            let number = |line: String| line.strip_prefix("acked ")?.strip_suffix('.')?.parse::<u64>().ok();
            output.lines().map_while(Result::ok).filter_map(number).collect::<Vec<_>>()
        });
        // The moment of the kill is the point of the test, not a wait for something.
        std::thread::sleep(Duration::from_millis(rand::random_range(20..200)));
        child.kill().expect("kill -9");
        child.wait().expect("gone");
        let before = acked.len();
        acked.extend(reader.join().expect("read"));
        let store = open(&path);
        // Earlier rounds once more at the end only: the newest acknowledgements are the ones at risk.
        let checked = if round + 1 == rounds { &acked[..] } else { &acked[before..] };
        for n in checked {
            let rows = store.cold_threads(owner(*n)).await.expect("read").len() as u64;
            assert_eq!(rows, ROWS, "batch {n} after round {round}");
        }
    }
    assert!(!acked.is_empty(), "no child lived long enough to write");
    println!("{} acknowledged batches survived {rounds} kills", acked.len());
}
