//! The batch of one direct message, for all benches of the store.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, Key, Pos, Seq};
use schema::rows::{
    ConversationRow, InboxHeadRow, InboxRow, MemberRow, MessageRow, MessageType, ReceiptRow, Role, Timestamp,
};
use schema::store::{Batch, Fence, Write};

fn agent(n: u64) -> AgentId {
    let mut entropy = [0; 16];
    entropy[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    AgentId(Key::from_bytes(entropy))
}

/// What message `n` of a pair writes: itself with its conversation, and its delivery.
pub(crate) fn batch(pair: u64, n: u64, text: usize) -> Batch {
    let (sender, recipient, seq) = (agent(2 * pair), agent(2 * pair + 1), Seq(n));
    let conversation = ConversationId::direct(sender, recipient);
    let message = Arc::new(MessageRow {
        conversation,
        seq,
        sender,
        sender_handle: "alice".into(),
        client_msg_id: format!("0198c0de-{pair:04}-7000-8000-{n:012}"),
        kind: MessageType::Text,
        content: format!(r#"{{"text":"{}"}}"#, "x".repeat(text)),
        metadata: "{}".into(),
        mentions: Vec::new(),
        created_at: Timestamp(1_764_000_000_000 + n),
    });
    let member = |agent, handle: &str| MemberRow {
        agent,
        handle: handle.into(),
        role: Role::Member,
        joined_at: Timestamp(1),
        joined_at_seq: Seq(1),
        left_at_seq: None,
    };
    let head = ConversationRow {
        id: conversation,
        members: vec![member(sender, "alice"), member(recipient, "bob")],
        established: true,
        cold: None,
        opened_by: sender,
        last_seq: seq,
        fanned_out: seq,
        created_at: Timestamp(1),
        last_message_at: message.created_at,
    };
    let writes = vec![
        Write::Message(Arc::clone(&message)),
        Write::Conversation(Box::new(head)),
        Write::Inbox(recipient, InboxRow { pos: Pos(seq.0), message }),
        Write::Receipt(recipient, conversation, seq, ReceiptRow { pos: Some(Pos(seq.0)), ..ReceiptRow::default() }),
        Write::InboxHead(recipient, InboxHeadRow { last_pos: Pos(seq.0), backlog: 1, floor: Pos(0) }),
    ];
    Batch { fence: Fence::default(), writes }
}
