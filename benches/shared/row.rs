//! An ordinary message, for the benches of what carries it.

use schema::ids::{AgentId, ConversationId, Key, Seq};
use schema::rows::{MessageRow, MessageType, Timestamp};

pub(crate) fn agent(n: u8) -> AgentId {
    AgentId(Key::from_bytes([n; 16]))
}

/// From agent 1 to agent 2.
pub(crate) fn row() -> MessageRow {
    MessageRow {
        conversation: ConversationId::direct(agent(1), agent(2)),
        seq: Seq(17),
        sender: agent(1),
        sender_handle: "alice".into(),
        client_msg_id: "0198c0de-0000-7000-8000-000000000000".into(),
        kind: MessageType::Text,
        content: r#"{"text":"an ordinary line of chat, as long as such lines are, more or less"}"#.into(),
        metadata: "{}".into(),
        mentions: Vec::new(),
        created_at: Timestamp(1_764_000_000_000),
    }
}
