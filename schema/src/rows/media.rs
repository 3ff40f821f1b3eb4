//! Rows that the gateway writes itself: attachments and remembered answers. No entity owns them.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::ids::{AgentId, ConversationId};

/// A file that was announced and perhaps uploaded. Immutable but for `uploaded`, which is only ever set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentRow {
    /// Key of the row: `att_` and 16 characters.
    pub id: String,
    /// Who announced it.
    pub uploader: AgentId,
    /// Named recipient.
    pub to: Option<AgentId>,
    /// Conversation that it is meant for; `None` until a message binds it.
    pub scope: Option<ConversationId>,
    /// 1–255 characters, cleaned.
    pub filename: String,
    /// One of the contract's types.
    pub content_type: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
    /// Its bytes are there and were verified.
    pub uploaded: bool,
    /// When it was announced.
    pub created_at: Timestamp,
}

/// The answer to a request that carried an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRow {
    /// As sent.
    pub key: String,
    /// SHA-256 of method, path, query and body.
    pub fingerprint: [u8; 32],
    /// HTTP status.
    pub status: u16,
    /// JSON body.
    pub body: Vec<u8>,
    /// When it was given; it is forgotten 24 h later.
    pub at: Timestamp,
}
