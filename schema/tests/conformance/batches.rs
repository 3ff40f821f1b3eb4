//! W1–W5: atomic, ordered, repeatable, visible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use schema::ids::Seq;
use schema::store::{Batch, Store, Write};

use crate::fixtures::{FENCE, agent, direct, head, message, submit, submit_all};

/// Rows of one batch in the tests below.
const ROWS: u64 = 3;

pub(crate) async fn a_batch_is_seen_whole_or_not_at_all(store: &dyn Store) {
    let done = AtomicBool::new(false);
    let writer = async {
        for n in 0..100 {
            let rows = (1..=ROWS).map(|row| Write::Message(message(n * ROWS + row, "x")));
            assert_eq!(submit(store, rows.collect()).await, Ok(()));
        }
        done.store(true, Ordering::Relaxed);
    };
    let reader = async {
        while !done.load(Ordering::Relaxed) {
            let seen = store.messages_up(direct(1, 2), Seq(1), Seq(9_999), 1_000).await.expect("reads").len() as u64;
            assert_eq!(seen % ROWS, 0, "W1: {seen} rows");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writer, reader);
}

pub(crate) async fn submitting_again_changes_nothing(store: &dyn Store) {
    let batch = || vec![Write::Message(message(1, "x")), Write::Conversation(Box::new(head(1)))];
    for _ in 0..3 {
        assert_eq!(submit(store, batch()).await, Ok(()));
        assert_eq!(store.messages_up(direct(1, 2), Seq(1), Seq(9), 9).await, Ok(vec![message(1, "x")]));
        assert_eq!(store.conversation(direct(1, 2)).await, Ok(Some(head(1))));
    }
}

pub(crate) async fn batches_of_one_entity_keep_their_order(store: &dyn Store) {
    // Pipelined: the next is submitted before the one before was answered.
    let (done, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for n in 1..=200 {
        let done = done.clone();
        let batch = Batch { writes: vec![Write::Conversation(Box::new(head(n)))], fence: FENCE };
        store.submit(vec![batch], Box::new(move |outcomes| drop(done.send((n, outcomes)))));
    }
    for n in 1..=200 {
        assert_eq!(answers.recv().await, Some((n, vec![Ok(())])), "W3");
    }
    assert_eq!(store.conversation(direct(1, 2)).await, Ok(Some(head(200))));
    // In one submission too, and within one batch the later put wins.
    let put = |n| Write::Conversation(Box::new(head(n)));
    assert_eq!(submit_all(store, vec![vec![put(1)], vec![put(3), put(2)]]).await, [Ok(()), Ok(())]);
    assert_eq!(store.conversation(direct(1, 2)).await, Ok(Some(head(2))));
}

pub(crate) async fn what_was_answered_is_visible(store: &dyn Store) {
    for n in 1..=100 {
        assert_eq!(submit(store, vec![Write::Message(message(n, "x"))]).await, Ok(()));
        let newest = store.messages_down(direct(1, 2), Seq(1), Seq(9_999), 1).await.expect("reads");
        assert_eq!(newest.first().map(|row| row.seq), Some(Seq(n)), "W5");
    }
    assert_eq!(store.ready().await, Ok(()));
}

pub(crate) async fn an_empty_batch_is_answered_after_those_before(store: &dyn Store) {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (done, answered) = tokio::sync::oneshot::channel();
    let first = Arc::clone(&order);
    let thread = Write::ColdThread(agent(1), direct(1, 2), schema::rows::Timestamp(1));
    let batch = Batch { writes: vec![thread], fence: FENCE };
    store.submit(vec![batch], Box::new(move |_| first.lock().expect("lock").push("write")));
    let second = Arc::clone(&order);
    let barrier = Box::new(move |_| {
        second.lock().expect("lock").push("barrier");
        let _ = done.send(());
    });
    store.submit(vec![Batch { writes: Vec::new(), fence: FENCE }], barrier);
    answered.await.expect("answered");
    assert_eq!(*order.lock().expect("lock"), ["write", "barrier"]);
}
