//! O1, O2: leases and owners change by compare-and-set.

use futures_util::future::join_all;
use schema::memory::MemoryOwnership;
use schema::ownership::{NodeRow, Owner, Ownership, ShardChange, ShardRow};
use schema::store::StoreError;

fn node(name: &str, version: u64) -> NodeRow {
    NodeRow { name: name.to_owned(), incarnation: 7, version, address: "127.0.0.1:1".to_owned(), draining: false }
}

fn taken(row: &ShardRow, by: &str) -> ShardRow {
    let owner = Owner { name: by.to_owned(), incarnation: 7 };
    ShardRow { epoch: row.epoch + 1, owner: Some(owner), ..row.clone() }
}

pub(crate) async fn leases_and_shards_change_only_as_they_were_seen(store: &dyn Ownership) {
    assert_eq!(store.nodes().await, Ok(vec![]));
    let (one, two) = (node("a", 1), node("a", 2));
    assert_eq!(store.change_node("a", Some(&one), Some(&two)).await, Ok(false), "there is none");
    assert_eq!(store.change_node("a", None, Some(&one)).await, Ok(true));
    assert_eq!(store.change_node("a", None, Some(&two)).await, Ok(false), "there is one");
    assert_eq!(store.change_node("a", Some(&one), Some(&two)).await, Ok(true));
    assert_eq!(store.change_node("a", Some(&one), None).await, Ok(false), "it was renewed meanwhile");
    assert_eq!(store.change_node("b", None, Some(&node("b", 1))).await, Ok(true));
    assert_eq!(store.nodes().await, Ok(vec![two.clone(), node("b", 1)]));
    assert_eq!(store.change_node("a", Some(&two), None).await, Ok(true));
    assert_eq!((store.node("a").await, store.node("b").await), (Ok(None), Ok(Some(node("b", 1)))));

    let fresh = ShardRow::new(3);
    let names = ["a", "b", "c", "d"];
    let first = join_all(names.map(|name| {
        let to = taken(&fresh, name);
        async move { store.change_shards(&[change(None, &to)]).await }
    }))
    .await;
    only_one(&first);
    let seen = store.group(0).await.expect("reads").pop().expect("taken");
    let next = join_all(names.map(|name| {
        let (seen, to) = (seen.clone(), taken(&seen, name));
        async move { store.change_shards(&[change(Some(&seen), &to)]).await }
    }))
    .await;
    only_one(&next);
    let last = store.group(0).await.expect("reads").pop().expect("taken");
    assert_eq!(last.epoch, 2);
    let free = ShardRow { owner: None, recovered: 2, ..last.clone() };
    let other = taken(&ShardRow::new(4), "a");
    let both = [change(Some(&seen), &free), change(None, &other)];
    assert_eq!(store.change_shards(&both).await, Ok(false), "O1: one of them is not as it was seen");
    assert_eq!(store.shards().await, Ok(vec![last.clone()]), "all or none");
    let both = [change(Some(&last), &free), change(None, &other)];
    assert_eq!(store.change_shards(&both).await, Ok(true));
    assert_eq!((store.shards().await, store.group(1).await), (Ok(vec![free, other]), Ok(vec![])));
}

/// O1: one of all is applied. Whose answer got lost learns it from the row.
#[track_caller]
fn only_one(outcomes: &[Result<bool, StoreError>]) {
    let applied = outcomes.iter().filter(|outcome| **outcome == Ok(true)).count();
    let open = outcomes.contains(&Err(StoreError::Timeout));
    assert!(applied == 1 || (applied == 0 && open), "O1: {outcomes:?}");
}

fn change(before: Option<&ShardRow>, after: &ShardRow) -> ShardChange {
    ShardChange { before: before.cloned(), after: after.clone() }
}

#[tokio::test]
async fn in_memory() {
    leases_and_shards_change_only_as_they_were_seen(&MemoryOwnership::default()).await;
}
