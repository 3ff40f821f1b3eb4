//! The faults that the memory store plays on demand.

use schema::ids::{AgentId, ConversationId, Key};
use schema::memory::MemoryStore;
use schema::rows::Timestamp;
use schema::store::{Batch, Store, StoreError, Write};
use tokio::sync::oneshot::{Receiver, channel, error::TryRecvError};

fn agent(n: u8) -> AgentId {
    AgentId(Key::from_bytes([n; 16]))
}

fn submit(store: &MemoryStore, peer: u8) -> Receiver<Vec<Result<(), StoreError>>> {
    let (done, answer) = channel();
    let write = Write::ColdThread(agent(1), ConversationId::direct(agent(1), agent(peer)), Timestamp(1));
    let batch = Batch { writes: vec![write], ..Batch::default() };
    store.submit(vec![batch], Box::new(move |outcomes| drop(done.send(outcomes))));
    answer
}

async fn rows(store: &MemoryStore) -> usize {
    store.cold_threads(agent(1)).await.expect("reads").len()
}

#[tokio::test]
async fn failing_writes_are_refused_and_not_applied() {
    let store = MemoryStore::new();
    store.fail_writes(true);
    assert!(matches!(submit(&store, 2).await.as_deref(), Ok([Err(StoreError::Unavailable(_))])));
    assert_eq!(rows(&store).await, 0);
    store.fail_writes(false);
    assert_eq!(submit(&store, 2).await, Ok(vec![Ok(())]));
    assert_eq!(rows(&store).await, 1);
}

#[tokio::test]
async fn held_writes_are_neither_visible_nor_answered() {
    let store = MemoryStore::new();
    store.hold_writes(true);
    let (mut first, mut second) = (submit(&store, 2), submit(&store, 3));
    assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(rows(&store).await, 0);
    assert_eq!(store.release(1), 1);
    assert_eq!(first.try_recv(), Ok(vec![Ok(())]), "in the order of submission");
    assert_eq!(second.try_recv(), Err(TryRecvError::Empty));
    let after = store.crash();
    assert_eq!(rows(&after).await, 1, "a crash keeps what was applied, and only that");
}
