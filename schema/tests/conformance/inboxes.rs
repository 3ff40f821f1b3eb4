//! Deliveries, receipts, views of conversations.

use schema::ids::{Pos, Seq};
use schema::rows::{AgentConversationRow, DeliveryState, InboxHeadRow, ReceiptRow, Timestamp};
use schema::store::{Store, Write};

use crate::fixtures::{agent, delivered, delivery, direct, submit};

const ALL: (Pos, Pos) = (Pos(0), Pos(9_999));

async fn positions(store: &dyn Store, owner: u8, after: u64, through: u64, limit: usize) -> Vec<u64> {
    let rows = store.inbox(agent(owner), Pos(after), Pos(through), limit).await.expect("reads");
    rows.into_iter().map(|row| row.pos.0).collect()
}

pub(crate) async fn pages_are_bounded_and_in_order(store: &dyn Store) {
    assert_eq!(store.inbox(agent(1), ALL.0, ALL.1, 10).await, Ok(vec![]));
    assert_eq!(store.inbox_head(agent(1)).await, Ok(InboxHeadRow::default()));
    // More than a byte's worth, and not in order: keys sort as numbers do.
    for pos in (1..=300).rev() {
        assert_eq!(submit(store, delivered(1, pos)).await, Ok(()));
    }
    assert_eq!(submit(store, delivered(2, 5)).await, Ok(()));
    assert_eq!(positions(store, 1, 0, 9_999, 1_000).await, (1..=300).collect::<Vec<_>>());
    assert_eq!(positions(store, 1, 254, 258, 1_000).await, [255, 256, 257, 258], "after is exclusive");
    assert_eq!(positions(store, 1, 10, 9_999, 2).await, [11, 12]);
    assert_eq!(positions(store, 1, 300, 9_999, 2).await, [0; 0]);
    assert_eq!(positions(store, 2, 0, 9_999, 9).await, [5], "inboxes are kept apart");
    assert_eq!(store.inbox(agent(2), ALL.0, ALL.1, 9).await, Ok(vec![delivery(5)]));
}

pub(crate) async fn removed_deliveries_are_gone(store: &dyn Store) {
    let (owner, head) = (agent(1), InboxHeadRow { last_pos: Pos(3), backlog: 2, floor: Pos(1) });
    let put = (1..=3).flat_map(|pos| delivered(1, pos)).collect();
    assert_eq!(submit(store, put).await, Ok(()));
    let ack = vec![Write::InboxRemove(owner, Pos(2)), Write::InboxHead(owner, head)];
    assert_eq!(submit(store, ack).await, Ok(()));
    assert_eq!(positions(store, 1, 0, 9, 9).await, [1, 3]);
    assert_eq!(store.inbox_head(owner).await, Ok(head));
    assert_eq!(submit(store, vec![Write::InboxRemove(owner, Pos(2))]).await, Ok(()), "removing twice is fine");
}

pub(crate) async fn receipts_keep_their_last_state(store: &dyn Store) {
    let (owner, id) = (agent(1), direct(1, 2));
    let stored = |seq: u64| ReceiptRow { pos: Some(Pos(seq)), ..ReceiptRow::default() };
    for seq in 1..=5 {
        assert_eq!(submit(store, vec![Write::Receipt(owner, id, Seq(seq), stored(seq))]).await, Ok(()));
    }
    let read = ReceiptRow { state: DeliveryState::Read, read_at: Some(Timestamp(9)), ..stored(3) };
    assert_eq!(submit(store, vec![Write::Receipt(owner, id, Seq(3), read)]).await, Ok(()));
    let page = store.receipts(owner, id, Seq(2), Seq(4), 9).await;
    assert_eq!(page, Ok(vec![(Seq(2), stored(2)), (Seq(3), read), (Seq(4), stored(4))]));
    assert_eq!(store.receipts(owner, id, Seq(1), Seq(5), 2).await.map(|page| page.len()), Ok(2));
    assert_eq!(store.receipts(agent(2), id, Seq(1), Seq(5), 9).await, Ok(vec![]));
    assert_eq!(store.receipts(owner, direct(1, 3), Seq(1), Seq(5), 9).await, Ok(vec![]));
}

pub(crate) async fn views_of_conversations_are_kept_apart(store: &dyn Store) {
    let view = |unread| AgentConversationRow { unread, last_seq: Seq(7), ..AgentConversationRow::default() };
    for (peer, unread) in [(2, 1), (3, 2)] {
        let write = Write::AgentConversation(agent(1), direct(1, peer), view(unread));
        assert_eq!(submit(store, vec![write]).await, Ok(()));
    }
    assert_eq!(store.agent_conversation(agent(1), direct(1, 2)).await, Ok(Some(view(1))));
    assert_eq!(store.agent_conversation(agent(2), direct(1, 2)).await, Ok(None));
    let mut expected = vec![(direct(1, 2), view(1)), (direct(1, 3), view(2))];
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(store.agent_conversations(agent(1)).await, Ok(expected));
    assert_eq!(store.agent_conversations(agent(3)).await, Ok(vec![]));
}
