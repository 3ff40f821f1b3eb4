//! The walk over a whole store finds what does not agree, and nothing in a sound one.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, Key, KeyHash, Pos, Seq};
use schema::memory::MemoryStore;
use schema::rows::{AgentRow, ConversationRow, InboxHeadRow, InboxRow, MessageRow, MessageType, Timestamp};
use schema::store::{Batch, Store, Write};

fn agent(n: u8) -> AgentId {
    AgentId(Key::from_bytes([n; 16]))
}

fn message(seq: u64) -> Arc<MessageRow> {
    Arc::new(MessageRow {
        conversation: ConversationId::direct(agent(1), agent(2)),
        seq: Seq(seq),
        sender: agent(1),
        sender_handle: "one".to_owned(),
        client_msg_id: format!("c{seq}"),
        kind: MessageType::Text,
        content: "{}".to_owned(),
        metadata: "{}".to_owned(),
        mentions: vec![],
        created_at: Timestamp(seq),
    })
}

fn head(last: u64) -> Write {
    Write::Conversation(Box::new(ConversationRow {
        id: ConversationId::direct(agent(1), agent(2)),
        members: vec![],
        established: false,
        cold: None,
        opened_by: agent(1),
        last_seq: Seq(last),
        fanned_out: Seq(last),
        created_at: Timestamp(1),
        last_message_at: Timestamp(1),
    }))
}

async fn sound() -> MemoryStore {
    let store = MemoryStore::new();
    let row = AgentRow::new(agent(1), "one", "a@b.c", KeyHash([1; 32]), Timestamp(1));
    store.create_agent(row, None, None).await.expect("fresh");
    let mut writes =
        vec![head(3), Write::InboxHead(agent(2), InboxHeadRow { last_pos: Pos(3), backlog: 3, floor: Pos(0) })];
    for seq in 1..=3 {
        writes.push(Write::Message(message(seq)));
        writes.push(Write::Inbox(agent(2), InboxRow { pos: Pos(seq), message: message(seq) }));
    }
    write(&store, writes);
    store
}

fn write(store: &MemoryStore, writes: Vec<Write>) {
    let batch = Batch { writes, ..Batch::default() };
    store.submit(vec![batch], Box::new(|outcomes| assert_eq!(outcomes, [Ok(())])));
}

#[tokio::test]
async fn a_sound_store_has_no_faults() {
    let report = sound().await.check().expect("reads");
    assert_eq!((report.faults.as_slice(), report.fault_count), ([].as_slice(), 0));
    assert_eq!((report.rows["messages"], report.rows["waiting deliveries"], report.rows["agents"]), (3, 3, 1));
}

#[tokio::test]
async fn what_does_not_agree_is_named() {
    let check = |writes: Vec<Write>| async move {
        let store = sound().await;
        write(&store, writes);
        store.check().expect("reads").faults
    };
    let hole = check(vec![Write::Message(message(5)), head(5)]).await;
    assert!(matches!(hole.as_slice(), [one] if one.contains("has seq 5 where 4 belongs")), "{hole:?}");
    let behind = check(vec![head(2)]).await;
    assert!(matches!(behind.as_slice(), [one] if one.contains("says that seq 2 is its last")), "{behind:?}");
    let backlog = check(vec![Write::InboxRemove(agent(2), Pos(1))]).await;
    assert!(
        matches!(backlog.as_slice(), [one] if one.contains("counts 3 waiting deliveries and has 2")),
        "{backlog:?}"
    );
    let floor = InboxHeadRow { last_pos: Pos(3), backlog: 3, floor: Pos(2) };
    let hidden = check(vec![Write::InboxHead(agent(2), floor)]).await;
    assert!(matches!(hidden.as_slice(), [one] if one.contains("has 2 deliveries below the floor")), "{hidden:?}");
}
