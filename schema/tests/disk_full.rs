//! A full disk refuses writes, loses nothing, and serves again when there is room. On a real file system of 32 MiB, in a
//! mount namespace of its own that ends with the test.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use schema::embedded::{EmbeddedOptions, EmbeddedStore};
use schema::ids::{AgentId, ConversationId, Key};
use schema::rows::Timestamp;
use schema::store::{Batch, Store, StoreError, Write};

/// Directory in which this process is the child on the small file system.
const CHILD: &str = "AGENTCHAT_DISK_FULL_CHILD";
/// Room that the test takes away and gives back.
const FILLER_BYTES: usize = 20 << 20;
/// The store has to serve again within this.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(30);
/// Writes that must work after the disk had room again.
const AFTER: u64 = 200;

fn agent(n: u64) -> AgentId {
    let mut entropy = [0; 16];
    (0..16).for_each(|digit| entropy[digit] = (n >> (4 * digit) & 15) as u8);
    AgentId(Key::from_bytes(entropy))
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, EmbeddedOptions { cache_bytes: 1 << 20, segment_bytes: 256 << 10 }).expect("opens")
}

/// Writes row `n`, about 8 KiB in all.
fn write(store: &EmbeddedStore, n: u64) -> Result<(), StoreError> {
    let (done, answer) = channel();
    let thread = |peer| Write::ColdThread(agent(n), ConversationId::direct(agent(n), agent(peer)), Timestamp(n));
    let batch = Batch { writes: (1 << 32..(1 << 32) + 120).map(thread).collect(), ..Batch::default() };
    store.submit(vec![batch], Box::new(move |outcomes| drop(done.send(outcomes))));
    answer.recv().expect("answered").remove(0)
}

#[tokio::test]
#[ignore = "the child of the test below"]
async fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let dir = Path::new(&dir);
    std::fs::write(dir.join("filler"), vec![7; FILLER_BYTES]).expect("room for the filler");
    let store = open(&dir.join("store"));
    let (mut acked, mut refused) = (Vec::new(), Vec::new());
    for n in 0.. {
        match write(&store, n) {
            Ok(()) => acked.push(n),
            Err(StoreError::Unavailable(_)) => {
                refused.push(n);
                if refused.len() > 50 {
                    break;
                }
            }
            Err(other) => panic!("a full disk answered {other:?}"),
        }
    }
    assert!(!acked.is_empty());
    std::fs::remove_file(dir.join("filler")).expect("room again");
    let started = Instant::now();
    let mut next = 1 << 20;
    let resumed = next + AFTER;
    while next < resumed {
        match write(&store, next) {
            Ok(()) => {
                acked.push(next);
                next += 1;
            }
            Err(error) => {
                assert!(started.elapsed() < RECOVERY_DEADLINE, "still refusing: {error}");
                std::thread::yield_now();
            }
        }
    }
    check(&store, &acked, &refused).await;
    store.close().await.expect("closes");
    drop(store);
    check(&open(&dir.join("store")), &acked, &refused).await;
    println!("{} acknowledged, {} refused", acked.len(), refused.len());
}

async fn check(store: &EmbeddedStore, acked: &[u64], refused: &[u64]) {
    for n in acked {
        assert_eq!(store.cold_threads(agent(*n)).await.expect("reads").len(), 120, "acknowledged batch {n}");
    }
    for n in refused {
        assert_eq!(store.cold_threads(agent(*n)).await.expect("reads").len(), 0, "refused batch {n}");
    }
}

#[test]
fn a_full_disk_refuses_and_resumes() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().to_str().expect("utf-8");
    let mount = format!("mount -t tmpfs -o size=32m none '{path}'");
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c"]);
        command
    };
    if !unshare().arg(&mount).status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: this machine allows no mount namespace of our own");
        return;
    }
    let exe = std::env::current_exe().expect("exe");
    let run = format!("{mount} && exec '{}' child --exact --ignored --nocapture", exe.display());
    let status = unshare().arg(run).env(CHILD, path).status().expect("runs");
    assert!(status.success());
}
