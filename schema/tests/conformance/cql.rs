//! A real ring for the promises, and what only a store with several writers promises.
//!
//! Needs `AGENTCHAT_TEST_CQL=host:port[,host:port]`; `tests/run-cql` starts a ring and sets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use schema::cql::{Alone, CqlOptions, CqlStore, Guard, OpenError, migrate};
use schema::ids::Seq;
use schema::ownership::Ownership;
use schema::store::{Batch, Fence, Store, StoreError, Write};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

use crate::fixtures::{FENCE, direct, head, message};

/// Shards of the test deployment.
const SHARDS: u32 = 4;
/// Tables that hold something of their own, and so outlive an emptying.
const KEPT: [&str; 2] = ["schema_version", "schema_lock"];

/// A keyspace of the ring, with a store over it.
pub(crate) struct Ring {
    pub(crate) store: CqlStore,
    options: CqlOptions,
    session: Session,
}

impl Ring {
    /// A fresh keyspace on the ring that the environment names; says so when it names none.
    pub(crate) async fn of_environment(keyspace: &str) -> Option<Self> {
        let Ok(nodes) = std::env::var("AGENTCHAT_TEST_CQL") else {
            println!("skipped: set AGENTCHAT_TEST_CQL=host:port, or run tests/run-cql");
            return None;
        };
        let mut options: CqlOptions = format!("cql://{nodes}/agentchat_{keyspace}").parse().expect("an address");
        options.replication = if options.nodes.len() >= 3 { 3 } else { 1 };
        let session = SessionBuilder::new().known_nodes(&options.nodes).build().await.expect("the ring answers");
        let drop = format!("DROP KEYSPACE IF EXISTS {}", options.keyspace);
        session.query_unpaged(drop, ()).await.expect("dropped");
        migrate(&options).await.expect("migrated");
        session.refresh_metadata().await.expect("known");
        let store = Self::open(&options, Arc::new(Alone)).await;
        Some(Self { store, options, session })
    }

    async fn open(options: &CqlOptions, guard: Arc<dyn Guard>) -> CqlStore {
        CqlStore::open(options, guard, SHARDS).await.expect("opens")
    }

    /// Empties every table that has rows.
    pub(crate) async fn empty(&self) {
        let state = self.session.get_cluster_state();
        let tables = state.get_keyspace(&self.options.keyspace).expect("keyspace").tables.keys().cloned();
        let truncate = tables.filter(|table| !KEPT.contains(&table.as_str())).map(async |table| {
            let table = format!("{}.{table}", self.options.keyspace);
            let some = self.session.query_unpaged(format!("SELECT * FROM {table} LIMIT 1"), ()).await.expect("read");
            if some.into_rows_result().expect("rows").rows_num() > 0 {
                self.session.query_unpaged(format!("TRUNCATE {table}"), ()).await.expect("emptied");
            }
        });
        join_all(truncate).await;
    }
}

/// A lease that is found to hold so many times.
struct Lease(AtomicU64);

impl Guard for Lease {
    fn holds(&self, _: Fence) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |times| times.checked_sub(1)).is_ok()
    }
}

async fn submit(store: &CqlStore, epoch: u64, writes: Vec<Write>) -> Result<(), StoreError> {
    let (done, answer) = tokio::sync::oneshot::channel();
    let batch = Batch { fence: Fence { shard: 0, epoch }, writes };
    store.submit(vec![batch], Box::new(move |mut outcomes| drop(done.send(outcomes.remove(0)))));
    answer.await.expect("answered")
}

fn log(last: u64, text: &str) -> Vec<Write> {
    vec![Write::Message(message(last, text)), Write::Conversation(Box::new(head(last)))]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_lease_ended_answers_nothing_and_its_successor_finishes_what_it_began() {
    let Some(ring) = Ring::of_environment("owners").await else { return };
    let lease = Arc::new(Lease(AtomicU64::new(u64::MAX)));
    let before = Ring::open(&ring.options, Arc::clone(&lease) as Arc<dyn Guard>).await;
    assert_eq!(submit(&before, 1, log(1, "one")).await, Ok(()));
    // It sleeps past its lease after the entry of its log was written.
    lease.0.store(1, Ordering::SeqCst);
    assert_eq!(submit(&before, 1, log(2, "two")).await, Err(StoreError::Fenced), "P2: no acknowledgement");
    let read = async |seq| ring.store.messages_up(direct(1, 2), Seq(seq), Seq(seq), 1).await.expect("reads");
    assert_eq!(read(2).await, [], "P2: rows of an entry that was not acknowledged are not written by a stale owner");
    // The next owner finds the entry, writes its rows, and goes on.
    let fence = Fence { epoch: 2, ..FENCE };
    ring.store.settle(fence.shard, fence.epoch, 1).await.expect("settled");
    assert_eq!(read(2).await, [message(2, "two")]);
    assert_eq!(submit(&ring.store, 2, log(3, "three")).await, Ok(()));
    // What the old one still sends, late and without looking at its lease, replaces nothing.
    lease.0.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(submit(&before, 1, log(3, "stale")).await, Ok(()));
    assert_eq!(read(3).await, [message(3, "three")], "P3");
    assert_eq!(ring.store.conversation(direct(1, 2)).await, Ok(Some(head(3))));
    // A store that has seen the newer epoch refuses the older one by itself.
    assert_eq!(submit(&ring.store, 1, log(4, "older")).await, Err(StoreError::Fenced));
    // An entry that arrives after its log was settled is never acted on.
    lease.0.store(1, Ordering::SeqCst);
    assert_eq!(submit(&before, 1, log(4, "late")).await, Err(StoreError::Fenced));
    ring.store.settle(FENCE.shard, 3, 1).await.expect("nothing of epoch 1 is left");
    assert_eq!((read(3).await, read(4).await), (vec![message(3, "three")], Vec::new()), "P2");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_migrate_at_once_and_a_newer_keyspace_is_refused() {
    let Some(ring) = Ring::of_environment("migrations").await else { return };
    let keyspace = &ring.options.keyspace;
    ring.session.query_unpaged(format!("DROP KEYSPACE {keyspace}"), ()).await.expect("dropped");
    let older = CqlStore::open(&ring.options, Arc::new(Alone), SHARDS).await.err();
    assert!(matches!(older, Some(OpenError::Schema(_) | OpenError::Older { .. })), "{older:?}");
    let outcomes = join_all((0..4).map(|_| migrate(&ring.options))).await;
    let versions: Vec<(i32, i32)> = outcomes.into_iter().map(|outcome| outcome.expect("migrated")).collect();
    assert_eq!(versions.iter().filter(|(before, _)| *before == 0).count(), 1, "S1: {versions:?}");
    drop(Ring::open(&ring.options, Arc::new(Alone)).await);
    let newer = format!("INSERT INTO {keyspace}.schema_version (id, version) VALUES (0, 99)");
    ring.session.query_unpaged(newer, ()).await.expect("written");
    let refused = CqlStore::open(&ring.options, Arc::new(Alone), SHARDS).await.err();
    assert!(matches!(refused, Some(OpenError::Newer { found: 99, .. })), "{refused:?}");
    assert!(matches!(migrate(&ring.options).await, Err(OpenError::Newer { found: 99, .. })));
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let mut options: CqlOptions = "cql://127.0.0.1:1/nowhere".parse().expect("an address");
    options.patience = Duration::from_secs(5);
    let refused = CqlStore::open(&options, Arc::new(Alone), SHARDS).await.err();
    assert!(matches!(refused, Some(OpenError::Unreachable { .. })), "{refused:?}");
}

/// Runs `cassandra-dev` against one node of a ring of three; `false` when there is none.
fn on_node(what: &str) -> bool {
    let Ok(tool) = std::env::var("AGENTCHAT_TEST_CASSANDRA") else { return false };
    let done = std::process::Command::new(tool).args(["node", "3", what]).output().expect("runs");
    assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
    true
}

/// Writes `through` messages from `from`, one at a time.
async fn write_log(ring: &Ring, from: u64, through: u64) {
    for seq in from..=through {
        assert_eq!(submit(&ring.store, 1, log(seq, "x")).await, Ok(()), "seq {seq}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_three_over_cql_goes_on_without_one() {
    let nodes = std::env::var("AGENTCHAT_TEST_CQL").unwrap_or_default();
    if nodes.split(',').count() < 3 {
        println!("skipped: needs a ring of three, see tests/run-cql ring");
        return;
    }
    let Some(ring) = Ring::of_environment("faults").await else { return };
    write_log(&ring, 1, 20).await;
    assert!(on_node("pause"));
    write_log(&ring, 21, 60).await;
    assert_eq!(ring.store.ready().await, Ok(()), "a quorum is there");
    assert!(on_node("resume"));
    assert!(on_node("kill"));
    write_log(&ring, 61, 100).await;
    let account = crate::fixtures::account(7, "seven");
    assert_eq!(ring.store.create_agent(account, None, None).await, Ok(()), "transactions need a quorum only");
    assert!(on_node("start"));
    write_log(&ring, 101, 110).await;
    let rows = ring.store.messages_up(direct(1, 2), Seq(1), Seq(200), 200).await.expect("reads");
    assert_eq!(rows.iter().map(|row| row.seq.0).collect::<Vec<_>>(), (1..=110).collect::<Vec<_>>());
}
