//! Promises of the store contract that every engine keeps, checked from outside on memory and embedded.

use std::sync::Arc;

use schema::embedded::{EmbeddedOptions, EmbeddedStore};
use schema::ids::{AgentId, ConversationId, Key, KeyHash, Pos, Seq};
use schema::memory::MemoryStore;
use schema::rows::{AgentRow, AgentStatus, Audience, MessageRow, MessageType, Pause, Timestamp};
use schema::store::{Batch, CreateAgentError, EmailBudget, Store, StoreError, Write};

fn agent(n: u8) -> AgentId {
    AgentId(Key::from_bytes([n; 16]))
}

fn row(n: u8, handle: &str) -> AgentRow {
    AgentRow {
        id: agent(n),
        handle: handle.to_owned(),
        email: "a@b.c".to_owned(),
        key_hash: KeyHash([n; 32]),
        display_name: None,
        description: None,
        avatar_key: None,
        status: AgentStatus::Active,
        paused: Pause::None,
        inbox_mode: Audience::Open,
        group_invite_policy: Audience::Open,
        is_system: false,
        created_at: Timestamp(1),
        updated_at: Timestamp(1),
    }
}

fn message(seq: u64, content: &str) -> Write {
    Write::Message(Arc::new(MessageRow {
        conversation: ConversationId::direct(agent(1), agent(2)),
        seq: Seq(seq),
        sender: agent(1),
        sender_handle: "one".to_owned(),
        client_msg_id: format!("c{seq}"),
        kind: MessageType::Text,
        content: content.to_owned(),
        metadata: "{}".to_owned(),
        mentions: vec![],
        created_at: Timestamp(seq),
    }))
}

async fn submit(store: &dyn Store, writes: Vec<Write>) -> Result<(), StoreError> {
    let (tx, rx) = tokio::sync::oneshot::channel();
    let batch = Batch { writes, ..Batch::default() };
    store.submit(vec![batch], Box::new(move |outcomes| drop(tx.send(outcomes))));
    rx.await.expect("answered").remove(0)
}

async fn keeps_the_contract(store: Arc<dyn Store>) {
    let id = ConversationId::direct(agent(1), agent(2));
    assert_eq!(store.ready().await, Ok(()));
    assert_eq!(store.messages_up(id, Seq(1), Seq(9), 9).await, Ok(vec![]));
    for seq in 1..=300 {
        // The second put of the same row in one batch wins.
        assert_eq!(submit(&*store, vec![message(seq, "old"), message(seq, "new")]).await, Ok(()));
    }
    let up = store.messages_up(id, Seq(2), Seq(299), 3).await.expect("page");
    assert_eq!(
        up.iter().map(|m| (m.seq.0, m.content.as_str())).collect::<Vec<_>>(),
        [(2, "new"), (3, "new"), (4, "new")]
    );
    let down = store.messages_down(id, Seq(2), Seq(299), 2).await.expect("page");
    assert_eq!(down.iter().map(|m| m.seq.0).collect::<Vec<_>>(), [299, 298]);
    assert_eq!(store.replay(agent(1), "c7").await, Ok(Some((id, Seq(7)))));
    assert_eq!(store.replay(agent(2), "c7").await, Ok(None));
    assert_eq!(store.inbox(agent(1), Pos(0), Pos(u64::MAX), 10).await, Ok(vec![]));

    let budget = Some(EmailBudget { live: 2, lifetime: 3 });
    let creators: Vec<_> = (0..32)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create_agent(row(n, "one"), None, budget).await })
        })
        .collect();
    let mut created = 0;
    for creator in creators {
        match creator.await.expect("joins") {
            Ok(()) => created += 1,
            Err(error) => assert_eq!(error, CreateAgentError::HandleTaken),
        }
    }
    assert_eq!(created, 1);
    let owner = store.agent_by_handle("one").await.expect("read").expect("created");
    let stored = store.agent(owner).await.expect("read").expect("row");
    assert_eq!(store.agent_by_key(stored.key_hash).await, Ok(Some(owner)));
    assert_eq!(store.create_agent(row(50, "two"), None, budget).await, Ok(()));
    let third = |n, handle: &'static str| store.create_agent(row(n, handle), None, budget);
    assert_eq!(third(51, "three").await, Err(CreateAgentError::EmailLimit { limit: 2 }));
    assert_eq!(store.release_email("a@b.c", agent(50)).await, Ok(()));
    assert_eq!(third(51, "three").await, Ok(()));
    assert_eq!(third(52, "four").await, Err(CreateAgentError::EmailExhausted { limit: 3 }));
    assert_eq!(store.take_pending("pnd_x").await, Ok(false));
    assert_eq!(store.close().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    keeps_the_contract(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_keeps_the_contract_and_reopens() {
    let dir = tempfile::tempdir().expect("dir");
    keeps_the_contract(Arc::new(EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).expect("opens"))).await;
    for _ in 0..3 {
        let store = EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).expect("opens again");
        let id = ConversationId::direct(agent(1), agent(2));
        assert_eq!(store.messages_up(id, Seq(1), Seq(999), 999).await.expect("page").len(), 300);
        assert!(store.agent_by_handle("one").await.expect("read").is_some());
    }
}
