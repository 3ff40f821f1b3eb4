//! The store contract. Domain-shaped: entities say what happened, engines decide how it lies on disk.
//!
//! W1  A [`Batch`] is atomic: after a crash at any point either all of its writes are visible or none.
//! W2  `Ok` means durable: the batch survives kill -9 and power loss.
//! W3  Batches from one entity take effect in the order in which they were submitted, also while pipelined.
//! W4  Every write is an absolute put or remove: applying a batch again changes nothing, so a batch whose outcome is
//!     unknown may be submitted again.
//! W5  A read that starts after a batch was answered `Ok` sees it.
//! W6  Bounds of a range come from a head (last seq, last position): engines may take time for how far they are apart.

use std::sync::Arc;

use async_trait::async_trait;

use crate::ids::{AgentId, ConversationId, KeyHash, Pos, Seq};
use crate::rows::{
    AgentConversationRow, AgentRow, AgentStateRow, AttachmentRow, BlockRow, ContactRow, ConversationRow, EmailRow,
    GroupRow, IdempotencyRow, InboxHeadRow, InboxRow, InviteRow, MessageRow, PendingRow, ReceiptRow, ReportRow,
    Timestamp,
};

/// Most rows that one page of any read returns.
pub const PAGE_MAX: usize = 1_000;

/// Why an engine could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not done, and certainly not applied; try again later (disk full, queue full, quorum missing).
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// Unknown outcome: the write may have happened.
    #[error("store timed out")]
    Timeout,
    /// A newer owner has written here.
    #[error("fenced by a newer epoch")]
    Fenced,
    /// Stored bytes do not decode: an operator has to look.
    #[error("corrupt row: {0}")]
    Corrupt(String),
}

/// Right to write for a shard; engines that have several writers stamp every row with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fence {
    /// Which shard.
    pub shard: u32,
    /// Owner's epoch; 0 on engines with a single writer, and for rows that no entity owns: one to a batch.
    pub epoch: u64,
}

/// One row change. Puts are absolute (W4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A message, and with it, unless the server wrote it, the replay record (sender, client_msg_id) → (conversation, seq).
    Message(Arc<MessageRow>),
    /// Head of a conversation.
    Conversation(Box<ConversationRow>),
    /// A delivery waiting in an inbox.
    Inbox(AgentId, InboxRow),
    /// A delivery left the backlog.
    InboxRemove(AgentId, Pos),
    /// Head of an inbox.
    InboxHead(AgentId, InboxHeadRow),
    /// State of one agent's copy of a message.
    Receipt(AgentId, ConversationId, Seq, ReceiptRow),
    /// One agent's view of a conversation.
    AgentConversation(AgentId, ConversationId, AgentConversationRow),
    /// An account. Also keeps the key index: the row's `key_hash` resolves to it from now on.
    Agent(Box<AgentRow>),
    /// A key that no longer resolves.
    KeyRemove(KeyHash),
    /// A contact book entry.
    Contact(AgentId, ContactRow),
    /// Removal of this agent, with this handle, from the contact book.
    ContactRemove(AgentId, AgentId, String),
    /// A block.
    Block(AgentId, BlockRow),
    /// End of a block.
    BlockRemove(AgentId, String),
    /// An outstanding cold thread of its opener.
    ColdThread(AgentId, ConversationId, Timestamp),
    /// End of it.
    ColdThreadRemove(AgentId, ConversationId),
    /// A group beside its log.
    Group(Box<GroupRow>),
    /// An open invitation, in the invitee's list.
    Invite(Box<InviteRow>),
    /// End of the invitation of this agent into this group.
    InviteRemove(AgentId, ConversationId),
    /// Mutes, presence, webhooks and the like.
    AgentState(AgentId, Box<AgentStateRow>),
    /// A report by this agent.
    Report(AgentId, Box<ReportRow>),
    /// An announced file.
    Attachment(Box<AttachmentRow>),
    /// The attachment with this id is referenced by this message.
    AttachmentUse(String, ConversationId, Seq),
    /// A remembered answer of this agent.
    Idempotency(AgentId, Box<IdempotencyRow>),
}

/// Writes of one entity that become visible together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Right to write.
    pub fence: Fence,
    /// In order; later puts of the same row win.
    pub writes: Vec<Write>,
}

/// Called once, from any thread, with one outcome per batch in submission order. Must not block.
pub type Done = Box<dyn FnOnce(Vec<Result<(), StoreError>>) + Send>;

/// Commits one batch outside any entity and waits for it.
pub async fn commit(store: &dyn Store, writes: Vec<Write>) -> Result<(), StoreError> {
    let (answer, outcome) = tokio::sync::oneshot::channel();
    let done: Done = Box::new(move |outcomes| {
        // A caller that gave up does not want the answer.
        let _ = answer.send(outcomes.into_iter().next().unwrap_or(Err(StoreError::Timeout)));
    });
    store.submit(vec![Batch { writes, ..Batch::default() }], done);
    outcome.await.unwrap_or(Err(StoreError::Timeout))
}

/// Why an agent could not be created. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateAgentError {
    /// The handle is or was in use.
    #[error("handle taken")]
    HandleTaken,
    /// The email backs `limit` live agents.
    #[error("email backs {limit} live agents")]
    EmailLimit {
        /// The limit in force.
        limit: u32,
    },
    /// The email made `limit` registrations.
    #[error("email made {limit} registrations")]
    EmailExhausted {
        /// The limit in force.
        limit: u32,
    },
    /// The pending row that paid for this creation is gone.
    #[error("pending code already used")]
    PendingGone,
    /// The engine failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Limits on one email address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmailBudget {
    /// Most agents that are not deleted.
    pub live: u32,
    /// Most registrations ever.
    pub lifetime: u32,
}

/// Everything durable. One implementation per engine, one conformance suite for all.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes `batches` durable, each atomic by itself (W1–W4), and then calls `done`.
    ///
    /// Never blocks the caller: queues inside, and answers `Unavailable` when its queue is full.
    fn submit(&self, batches: Vec<Batch>, done: Done);

    /// Creates an agent: handle, email budget, key index and row in one step, consuming `pending` in the same step.
    /// Operators create without a pending row and, with `budget: None`, outside the email budget.
    async fn create_agent(
        &self,
        row: AgentRow,
        pending: Option<String>,
        budget: Option<EmailBudget>,
    ) -> Result<(), CreateAgentError>;

    /// Takes a deleted agent out of its email's live list. Repeating it changes nothing.
    async fn release_email(&self, email: &str, agent: AgentId) -> Result<(), StoreError>;

    /// What an email has used; default when never seen.
    async fn email(&self, email: &str) -> Result<EmailRow, StoreError>;

    /// Stores or replaces a pending code, durably.
    async fn put_pending(&self, row: PendingRow) -> Result<(), StoreError>;

    /// Changes a pending code that still is as it was read; `false`: it is gone or has changed, and nothing was written.
    /// Errors: after any of them nobody knows whether it was changed.
    async fn replace_pending(&self, before: &PendingRow, after: PendingRow) -> Result<bool, StoreError>;

    /// Removes a pending code; `true` for exactly one caller.
    async fn take_pending(&self, id: &str) -> Result<bool, StoreError>;

    /// A pending code, expired or not.
    async fn pending(&self, id: &str) -> Result<Option<PendingRow>, StoreError>;

    /// Agent that a handle belongs to, deleted ones included. The mapping never changes once made.
    async fn agent_by_handle(&self, handle: &str) -> Result<Option<AgentId>, StoreError>;

    /// Agent that a key resolves to. The agent entity decides whether the key is still the current one.
    async fn agent_by_key(&self, key: KeyHash) -> Result<Option<AgentId>, StoreError>;

    /// An account.
    async fn agent(&self, id: AgentId) -> Result<Option<AgentRow>, StoreError>;

    /// A whole contact book, sorted by handle.
    async fn contacts(&self, agent: AgentId) -> Result<Vec<ContactRow>, StoreError>;

    /// All blocks of an agent, sorted by handle.
    async fn blocks(&self, agent: AgentId) -> Result<Vec<BlockRow>, StoreError>;

    /// Whether each of `agents` blocks the agent of this handle, in the same order.
    async fn blocking(&self, agents: &[AgentId], handle: &str) -> Result<Vec<bool>, StoreError>;

    /// Agents that have `agent` in their book, in id order, after `after`, at most `limit` (≤ [`PAGE_MAX`]).
    async fn watchers(&self, agent: AgentId, after: Option<AgentId>, limit: usize) -> Result<Vec<AgentId>, StoreError>;

    /// Mutes, presence, webhooks and the like; `None` when there never was any.
    async fn agent_state(&self, agent: AgentId) -> Result<Option<AgentStateRow>, StoreError>;

    /// Agents that `agent` has reported.
    async fn reports(&self, agent: AgentId) -> Result<Vec<ReportRow>, StoreError>;

    /// All reports by (reporter, target), after a cursor that a page before returned, at most `limit`.
    async fn all_reports(
        &self,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<(Vec<ReportRow>, Option<Vec<u8>>), StoreError>;

    /// Handles of active and restricted agents that start with `prefix`, ascending, at most `limit`.
    async fn directory(&self, prefix: &str, limit: usize) -> Result<Vec<(String, AgentId)>, StoreError>;

    /// A group beside its log.
    async fn group(&self, id: ConversationId) -> Result<Option<GroupRow>, StoreError>;

    /// Open invitations of an agent, by group.
    async fn invites(&self, agent: AgentId) -> Result<Vec<InviteRow>, StoreError>;

    /// An announced file.
    async fn attachment(&self, id: &str) -> Result<Option<AttachmentRow>, StoreError>;

    /// Messages that reference an attachment.
    async fn attachment_uses(&self, id: &str) -> Result<Vec<(ConversationId, Seq)>, StoreError>;

    /// A remembered answer, expired or not.
    async fn idempotency(&self, agent: AgentId, key: &str) -> Result<Option<IdempotencyRow>, StoreError>;

    /// Creates agents in bulk, outside the email budget, all or none; the index of the first taken handle otherwise.
    async fn create_agents(&self, rows: Vec<AgentRow>) -> Result<(), CreateAgentError>;

    /// Forgets an email's budget: what it registered stays, and it may register as if it never had.
    async fn reset_email(&self, email: &str) -> Result<(), StoreError>;

    /// Removes what expired before `now`: remembered answers and files that never came (after 24 h), codes; how many
    /// rows went.
    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError>;

    /// Outstanding cold threads of an agent.
    async fn cold_threads(&self, agent: AgentId) -> Result<Vec<(ConversationId, Timestamp)>, StoreError>;

    /// Head of a conversation.
    async fn conversation(&self, id: ConversationId) -> Result<Option<ConversationRow>, StoreError>;

    /// Where the message with this deduplication key stands, if it was ever stored.
    async fn replay(&self, sender: AgentId, client_msg_id: &str) -> Result<Option<(ConversationId, Seq)>, StoreError>;

    /// Messages with `from <= seq <= through`, ascending, at most `limit` (≤ [`PAGE_MAX`]) of the lowest.
    async fn messages_up(
        &self,
        id: ConversationId,
        from: Seq,
        through: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<MessageRow>>, StoreError>;

    /// Messages with `from <= seq <= through`, descending, at most `limit` (≤ [`PAGE_MAX`]) of the highest.
    async fn messages_down(
        &self,
        id: ConversationId,
        from: Seq,
        through: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<MessageRow>>, StoreError>;

    /// Head of an inbox; default when nothing was ever delivered.
    async fn inbox_head(&self, agent: AgentId) -> Result<InboxHeadRow, StoreError>;

    /// Waiting deliveries with `after < pos <= through`, ascending, at most `limit` (≤ [`PAGE_MAX`]).
    async fn inbox(&self, agent: AgentId, after: Pos, through: Pos, limit: usize) -> Result<Vec<InboxRow>, StoreError>;

    /// One agent's copies with `from <= seq <= through` in one conversation, ascending, at most `limit`.
    async fn receipts(
        &self,
        agent: AgentId,
        id: ConversationId,
        from: Seq,
        through: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, ReceiptRow)>, StoreError>;

    /// One agent's view of one conversation.
    async fn agent_conversation(
        &self,
        agent: AgentId,
        id: ConversationId,
    ) -> Result<Option<AgentConversationRow>, StoreError>;

    /// All conversations of an agent, in id order.
    async fn agent_conversations(
        &self,
        agent: AgentId,
    ) -> Result<Vec<(ConversationId, AgentConversationRow)>, StoreError>;

    /// `Ok` when reads and durable writes work now.
    async fn ready(&self) -> Result<(), StoreError>;

    /// Finishes what was submitted and releases the engine's files.
    async fn close(&self) -> Result<(), StoreError>;
}
