//! Messages, replay records, heads of conversations.

use schema::ids::Seq;
use schema::store::{Store, Write};

use crate::fixtures::{agent, direct, head, message, submit};

pub(crate) async fn pages_go_both_ways(store: &dyn Store) {
    let id = direct(1, 2);
    assert_eq!(store.messages_up(id, Seq(1), Seq(9), 9).await, Ok(vec![]));
    for seq in 1..=300 {
        assert_eq!(submit(store, vec![Write::Message(message(seq, "x"))]).await, Ok(()));
    }
    let seqs =
        |page: Vec<std::sync::Arc<schema::rows::MessageRow>>| page.iter().map(|row| row.seq.0).collect::<Vec<_>>();
    assert_eq!(store.messages_up(id, Seq(255), Seq(299), 3).await.map(seqs), Ok(vec![255, 256, 257]));
    assert_eq!(store.messages_down(id, Seq(2), Seq(257), 3).await.map(seqs), Ok(vec![257, 256, 255]));
    assert_eq!(store.messages_up(id, Seq(7), Seq(7), 9).await, Ok(vec![message(7, "x")]));
    assert_eq!(store.messages_down(id, Seq(299), Seq(9_999), 9).await.map(seqs), Ok(vec![300, 299]));
    assert_eq!(store.messages_up(id, Seq(5), Seq(4), 9).await, Ok(vec![]), "an empty range is no error");
    assert_eq!(store.messages_down(id, Seq(5), Seq(4), 9).await, Ok(vec![]));
    assert_eq!(store.messages_up(id, Seq(1), Seq(300), 1_000).await.map(|page| page.len()), Ok(300));
    assert_eq!(store.messages_up(direct(1, 3), Seq(1), Seq(300), 9).await, Ok(vec![]), "logs are kept apart");
}

pub(crate) async fn a_replay_record_comes_with_its_message(store: &dyn Store) {
    assert_eq!(store.replay(agent(1), "c7").await, Ok(None));
    assert_eq!(submit(store, vec![Write::Message(message(7, "x"))]).await, Ok(()));
    assert_eq!(store.replay(agent(1), "c7").await, Ok(Some((direct(1, 2), Seq(7)))));
    assert_eq!(store.replay(agent(2), "c7").await, Ok(None), "per sender");
    assert_eq!(store.replay(agent(1), "c").await, Ok(None), "the whole key counts");
    assert_eq!(store.replay(agent(1), &"c7\0".repeat(60)).await, Ok(None));
}

pub(crate) async fn heads_are_replaced(store: &dyn Store) {
    assert_eq!(store.conversation(direct(1, 2)).await, Ok(None));
    for last in [1, 2, 3] {
        assert_eq!(submit(store, vec![Write::Conversation(Box::new(head(last)))]).await, Ok(()));
        assert_eq!(store.conversation(direct(1, 2)).await, Ok(Some(head(last))));
    }
}
