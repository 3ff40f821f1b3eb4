//! A real ring for the promises, and what only a store with several writers promises.
//!
//! Needs `AGENTCHAT_TEST_CQL=host:port[,host:port]`; `tests/run-cql` starts a ring and sets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use schema::cql::{Alone, CqlOptions, CqlStore, Guard, OpenError, migrate};
use schema::ids::{AgentId, Seq};
use schema::ownership::Ownership;
use schema::rows::{AgentRow, Timestamp};
use schema::store::{Batch, CreateAgentError, EmailBudget, Fence, Store, StoreError, Write, commit};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

use crate::fixtures::{FENCE, account, agent, direct, head, message, pending};
use crate::groups::file;

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

impl Ring {
    /// A row of the table of handles, as a node that died left it.
    async fn put_handle(&self, handle: &str, owner: AgentId, claimed_at: Option<i64>, creation: Option<&AgentRow>) {
        let keyspace = &self.options.keyspace;
        let insert =
            format!("INSERT INTO {keyspace}.handles (p, b, c, v, claimed_at, creation) VALUES (?, 0, ?, ?, ?, ?)");
        let encoded = |row: &AgentRow| rmp_serde::to_vec(row).expect("encodes");
        let owner = rmp_serde::to_vec(&owner).expect("encodes");
        let values = (handle.as_bytes(), &[][..] as &[u8], owner, claimed_at, creation.map(encoded));
        self.session.query_unpaged(insert, values).await.expect("written");
    }

    /// Whose a handle is, and whether that is confirmed.
    async fn owner(&self, handle: &str) -> Option<(Vec<u8>, bool)> {
        let select = format!("SELECT v, claimed_at FROM {}.handles WHERE p=? AND b=0 AND c=?", self.options.keyspace);
        let rows = self.session.query_unpaged(select, (handle.as_bytes(), &[][..] as &[u8])).await.expect("reads");
        let row = rows.into_rows_result().expect("rows").maybe_first_row::<(Vec<u8>, Option<i64>)>().expect("a row");
        row.map(|(owner, since)| (owner, since.is_none()))
    }

    /// Takes a claim over as soon as there is one, as somebody does for whom its time is over; until `stop`.
    async fn take_over(&self, handle: &str, by: AgentId, stop: &AtomicBool) {
        let keyspace = &self.options.keyspace;
        let update =
            format!("UPDATE {keyspace}.handles SET v=?, claimed_at=null WHERE p=? AND b=0 AND c=? IF claimed_at>?");
        let update = self.session.prepare(update).await.expect("prepared");
        let by = rmp_serde::to_vec(&by).expect("encodes");
        while !stop.load(Ordering::SeqCst) {
            match self.owner(handle).await {
                Some((_, true)) => return,
                // Whatever comes of it: the row tells in the end.
                Some((_, false)) => {
                    let values = (&by, handle.as_bytes(), &[][..] as &[u8], 0_i64);
                    drop(self.session.execute_unpaged(&update, values).await);
                }
                None => tokio::task::yield_now().await,
            }
        }
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("small")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_not_confirmed_is_free_again_and_a_confirmed_one_never() {
    let Some(ring) = Ring::of_environment("claims").await else { return };
    let store = &ring.store;
    // Somebody began a moment ago.
    ring.put_handle("fresh", agent(1), Some(now_ms()), None).await;
    assert_eq!(store.agent_by_handle("fresh").await, Ok(None), "I2: nobody's yet, and so in nobody's memory");
    assert_eq!(store.create_agent(account(2, "fresh"), None, None).await, Err(CreateAgentError::HandleTaken));
    // Somebody died more than a minute ago.
    ring.put_handle("stale", agent(1), Some(now_ms() - 61_000), None).await;
    assert_eq!(store.create_agent(account(2, "stale"), None, None).await, Ok(()));
    assert_eq!(store.agent_by_handle("stale").await, Ok(Some(agent(2))));
    // Somebody died between the confirmation and the account: whoever asks finishes it.
    let begun = account(3, "begun");
    ring.put_handle("begun", agent(3), None, Some(&begun)).await;
    assert_eq!(store.create_agent(account(4, "begun"), None, None).await, Err(CreateAgentError::HandleTaken), "I3");
    assert_eq!(store.agent_by_handle("begun").await, Ok(Some(agent(3))));
    assert_eq!(store.agent(agent(3)).await, Ok(Some(begun.clone())), "I4");
    assert_eq!(store.agent_by_key(begun.key_hash).await, Ok(Some(agent(3))));
    assert_eq!(store.directory("begun", 9).await, Ok(vec![("begun".to_owned(), agent(3))]));
    // What the entity wrote since is not replaced.
    let later = AgentRow { description: Some("later".into()), ..begun };
    assert_eq!(submit(store, 1, vec![Write::Agent(Box::new(later.clone()))]).await, Ok(()));
    assert_eq!(store.agent_by_handle("begun").await, Ok(Some(agent(3))));
    assert_eq!(store.agent(agent(3)).await, Ok(Some(later)));
}

/// The first owner is in the middle of its creation when its claim is taken over.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_slow_owner_and_whoever_takes_over_exactly_one_gets_the_handle() {
    let Some(ring) = Ring::of_environment("slow_owners").await else { return };
    let store = &ring.store;
    let budget = EmailBudget { live: 60, lifetime: 60 };
    let (mut lost, mut live) = (0, Vec::new());
    for n in 1..=50 {
        let (handle, code, stop) = (format!("slow-{n}"), format!("code-{n}"), AtomicBool::new(false));
        assert_eq!(store.put_pending(pending(&code)).await, Ok(()));
        let slow = async {
            let created = store.create_agent(account(n, &handle), Some(code.clone()), Some(budget)).await;
            stop.store(true, Ordering::SeqCst);
            created
        };
        let (created, ()) = tokio::join!(slow, ring.take_over(&handle, agent(61), &stop));
        let theirs = rmp_serde::to_vec(&agent(61)).expect("encodes");
        let taken = ring.owner(&handle).await == Some((theirs, true));
        assert_eq!(created, if taken { Err(CreateAgentError::HandleTaken) } else { Ok(()) }, "I3: {handle}");
        let owner = if taken { agent(61) } else { agent(n) };
        assert_eq!(store.agent_by_handle(&handle).await, Ok(Some(owner)));
        assert_eq!(store.agent(agent(n)).await.expect("reads").is_some(), !taken, "I3: {handle}");
        assert_eq!(store.pending(&code).await.expect("reads").is_some(), taken, "I2: the code is given back");
        if taken {
            lost += 1;
        } else {
            live.push(agent(n));
        }
        let email = store.email("a@b.c").await.expect("reads");
        assert_eq!((email.live, email.lifetime as usize), (live.clone(), live.len()), "I2: and what the email paid");
        if lost > 2 {
            return;
        }
    }
    panic!("nobody was ever taken over");
}

/// One node announces a file, another is given its bytes; neither knows the other's clock.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_later_than_its_announcement_whatever_order_they_arrive_in() {
    const DAY: u64 = 24 * 60 * 60 * 1_000;
    let Some(ring) = Ring::of_environment("files").await else { return };
    let row = |uploaded| vec![Write::Attachment(Box::new(file("att_0123456789abcdef", uploaded)))];
    let found = async || ring.store.attachment("att_0123456789abcdef").await.expect("reads");
    assert_eq!(commit(&ring.store, row(false)).await, Ok(()));
    // The bytes come when the sweep has just found that they did not.
    assert_eq!(ring.store.sweep(Timestamp(2 * DAY)).await, Ok(1));
    assert_eq!(found().await, None);
    assert_eq!(commit(&ring.store, row(true)).await, Ok(()));
    assert_eq!(found().await, Some(file("att_0123456789abcdef", true)));
    // What the first node still sends changes nothing.
    assert_eq!(commit(&ring.store, row(false)).await, Ok(()));
    assert_eq!(found().await, Some(file("att_0123456789abcdef", true)), "U1");
    assert_eq!(ring.store.sweep(Timestamp(2 * DAY)).await, Ok(0));
    let entity = vec![Write::AgentState(agent(1), Box::default())];
    assert!(matches!(commit(&ring.store, entity).await, Err(StoreError::Unavailable(_))), "U2");
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
    let seven = account(7, "seven");
    assert_eq!(ring.store.create_agent(seven, None, None).await, Ok(()), "transactions need a quorum only");
    assert!(on_node("start"));
    write_log(&ring, 101, 110).await;
    let rows = ring.store.messages_up(direct(1, 2), Seq(1), Seq(200), 200).await.expect("reads");
    assert_eq!(rows.iter().map(|row| row.seq.0).collect::<Vec<_>>(), (1..=110).collect::<Vec<_>>());
}
