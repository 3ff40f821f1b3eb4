//! Contacts, blocks, cold threads.

use schema::rows::{BlockRow, ContactRow, Timestamp};
use schema::store::{Store, Write};

use crate::fixtures::{agent, direct, submit};

fn contact(n: u8, handle: &str) -> ContactRow {
    ContactRow { agent: agent(n), handle: handle.to_owned(), notes: None, added_at: Timestamp(u64::from(n)) }
}

pub(crate) async fn books_are_sorted_by_handle(store: &dyn Store) {
    let owner = agent(1);
    for (n, handle) in [(2, "bob"), (3, "alice"), (4, "bob-2"), (5, "carol")] {
        assert_eq!(submit(store, vec![Write::Contact(owner, contact(n, handle))]).await, Ok(()));
    }
    let noted = ContactRow { notes: Some("met".into()), ..contact(3, "alice") };
    assert_eq!(submit(store, vec![Write::Contact(owner, noted.clone())]).await, Ok(()));
    assert_eq!(submit(store, vec![Write::ContactRemove(owner, agent(5), "carol".into())]).await, Ok(()));
    let expected = vec![noted, contact(2, "bob"), contact(4, "bob-2")];
    assert_eq!(store.contacts(owner).await, Ok(expected));
    assert_eq!(store.contacts(agent(2)).await, Ok(vec![]));
}

pub(crate) async fn blocks_end(store: &dyn Store) {
    let owner = agent(1);
    let block = |n: u8, handle: &str| BlockRow { agent: agent(n), handle: handle.into(), blocked_at: Timestamp(1) };
    let writes = vec![Write::Block(owner, block(3, "zoe")), Write::Block(owner, block(2, "bob"))];
    assert_eq!(submit(store, writes).await, Ok(()));
    assert_eq!(store.blocks(owner).await, Ok(vec![block(2, "bob"), block(3, "zoe")]));
    let asked = [agent(7), owner, owner];
    assert_eq!(store.blocking(&asked[..2], "bob").await, Ok(vec![false, true]));
    assert_eq!(store.blocking(&asked, "bo").await, Ok(vec![false; 3]), "a handle, not the beginning of one");
    assert_eq!(submit(store, vec![Write::BlockRemove(owner, "bob".into())]).await, Ok(()));
    assert_eq!(store.blocking(&asked[1..], "bob").await, Ok(vec![false; 2]));
    assert_eq!(store.blocks(owner).await, Ok(vec![block(3, "zoe")]));
}

pub(crate) async fn cold_threads_come_and_go(store: &dyn Store) {
    let owner = agent(1);
    for peer in [2, 3] {
        let write = Write::ColdThread(owner, direct(1, peer), Timestamp(u64::from(peer)));
        assert_eq!(submit(store, vec![write]).await, Ok(()));
    }
    assert_eq!(submit(store, vec![Write::ColdThreadRemove(owner, direct(1, 2))]).await, Ok(()));
    assert_eq!(store.cold_threads(owner).await, Ok(vec![(direct(1, 3), Timestamp(3))]));
    assert_eq!(store.cold_threads(agent(2)).await, Ok(vec![]));
}
