//! Rows to store.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, Key, KeyHash, Pos, Seq};
use schema::rows::{
    AgentRow, ConversationRow, InboxRow, MessageRow, MessageType, PendingPurpose, PendingRow, Timestamp,
};
use schema::store::{Batch, Fence, Store, StoreError, Write};

/// As if we owned a shard: engines with several writers treat batches of nobody otherwise.
pub(crate) const FENCE: Fence = Fence { shard: 0, epoch: 1 };

pub(crate) fn agent(n: u8) -> AgentId {
    AgentId(Key::from_bytes([n; 16]))
}

pub(crate) fn direct(a: u8, b: u8) -> ConversationId {
    ConversationId::direct(agent(a), agent(b))
}

pub(crate) fn account(n: u8, handle: &str) -> AgentRow {
    AgentRow::new(agent(n), handle, "a@b.c", KeyHash([n; 32]), Timestamp(1))
}

pub(crate) fn message(seq: u64, content: &str) -> Arc<MessageRow> {
    Arc::new(MessageRow {
        conversation: direct(1, 2),
        seq: Seq(seq),
        sender: agent(1),
        sender_handle: "one".to_owned(),
        client_msg_id: format!("c{seq}"),
        kind: MessageType::Text,
        content: content.to_owned(),
        metadata: "{}".to_owned(),
        mentions: vec![],
        created_at: Timestamp(seq),
    })
}

pub(crate) fn head(last: u64) -> ConversationRow {
    ConversationRow {
        id: direct(1, 2),
        members: vec![],
        established: last > 1,
        cold: None,
        opened_by: agent(1),
        last_seq: Seq(last),
        fanned_out: Seq(last),
        created_at: Timestamp(1),
        last_message_at: Timestamp(last),
    }
}

pub(crate) fn delivery(pos: u64) -> InboxRow {
    InboxRow { pos: Pos(pos), message: message(pos, "x") }
}

/// A delivery and, before it, its message: a store may keep the text in one place only.
pub(crate) fn delivered(owner: u8, pos: u64) -> Vec<Write> {
    let row = delivery(pos);
    vec![Write::Message(row.message.clone()), Write::Inbox(agent(owner), row)]
}

pub(crate) fn pending(id: &str) -> PendingRow {
    PendingRow {
        id: id.to_owned(),
        email: "a@b.c".to_owned(),
        purpose: PendingPurpose::RotateKey { agent: agent(1) },
        code_hash: [7; 32],
        attempts: 0,
        expires_at: Timestamp(9),
    }
}

/// Submits one batch and waits for its outcome.
pub(crate) async fn submit(store: &dyn Store, writes: Vec<Write>) -> Result<(), StoreError> {
    submit_all(store, vec![writes]).await.remove(0)
}

/// Submits batches together and waits for their outcomes.
pub(crate) async fn submit_all(store: &dyn Store, batches: Vec<Vec<Write>>) -> Vec<Result<(), StoreError>> {
    let (done, answer) = tokio::sync::oneshot::channel();
    let batches = batches.into_iter().map(|writes| Batch { writes, fence: FENCE }).collect();
    store.submit(batches, Box::new(move |outcomes| drop(done.send(outcomes))));
    answer.await.expect("answered")
}
