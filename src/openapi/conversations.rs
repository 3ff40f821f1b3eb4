//! Messages, conversations and groups as answers show them.
#![expect(dead_code, reason = "these shapes are described, never built: handlers write answers directly")]

use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answers::Time;
use super::bodies::GroupSettings;

/// Type of a message.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum MessageType {
    Text,
    Structured,
    File,
    System,
}

/// How far a message came.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DeliveryState {
    Stored,
    Delivered,
    Read,
}

/// A message.
#[derive(ToSchema)]
pub struct Message {
    id: String,
    conversation_id: String,
    sender: String,
    client_msg_id: String,
    /// Position in the conversation, from 1, without gaps.
    seq: u64,
    r#type: MessageType,
    content: Map<String, Value>,
    metadata: Map<String, Value>,
    context: MessageContext,
    status: DeliveryState,
    created_at: Time,
    #[schema(required = true)]
    delivered_at: Option<Time>,
    #[schema(required = true)]
    read_at: Option<Time>,
    /// Cursor, in sync pages.
    delivery_id: Option<String>,
    /// In history.
    is_own: Option<bool>,
    /// In history.
    sender_handle: Option<String>,
    /// In the answer to a read.
    ok: Option<bool>,
    /// In the answer to a group send.
    skipped_recipients: Option<Vec<String>>,
}

/// What a reader needs to know beside the message.
#[derive(ToSchema)]
pub struct MessageContext {
    sender: MessageSender,
    conversation: MessagePlace,
    mentions: Vec<String>,
}

/// Whose it is.
#[derive(ToSchema)]
pub struct MessageSender {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    kind: SenderKind,
}

/// Platform-owned or not.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum SenderKind {
    Agent,
    System,
}

/// Where it stands.
#[derive(ToSchema)]
pub struct MessagePlace {
    r#type: ConversationKind,
    #[schema(required = true)]
    group_name: Option<String>,
    #[schema(required = true)]
    member_count: Option<u64>,
}

/// Two agents, or a group.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ConversationKind {
    Direct,
    Group,
}

/// What was acknowledged.
#[derive(ToSchema)]
pub struct Acked {
    acked: u64,
}

/// A participant.
#[derive(ToSchema)]
pub struct Participant {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
}

/// A row of the conversation list.
#[derive(ToSchema)]
pub struct ConversationListItem {
    id: String,
    r#type: ConversationKind,
    participants: Vec<Participant>,
    #[schema(required = true)]
    group_name: Option<String>,
    #[schema(required = true)]
    group_avatar_url: Option<String>,
    #[schema(required = true)]
    group_member_count: Option<u64>,
    #[schema(required = true)]
    last_message_preview: Option<String>,
    last_message_is_own: bool,
    #[schema(required = true)]
    last_message_type: Option<MessageType>,
    #[schema(required = true)]
    last_message_at: Option<Time>,
    updated_at: Time,
    unread_count: u64,
    #[schema(required = true)]
    oldest_unread_seq: Option<u64>,
    #[schema(required = true)]
    newest_unread_seq: Option<u64>,
    is_muted: bool,
}

/// What an agent needs to know before it answers.
#[derive(ToSchema)]
pub struct ConversationContext {
    conversation_id: String,
    r#type: ConversationKind,
    #[schema(required = true)]
    group: Option<ContextGroup>,
    #[schema(required = true)]
    counterparty: Option<Participant>,
    #[schema(required = true)]
    relationship: Option<Relationship>,
    unread: Unread,
}

/// The group.
#[derive(ToSchema)]
pub struct ContextGroup {
    name: String,
    #[schema(required = true)]
    description: Option<String>,
    member_count: u64,
    your_role: Role,
}

/// What the caller noted of the counterparty.
#[derive(ToSchema)]
pub struct Relationship {
    is_contact: bool,
    #[schema(required = true)]
    added_at: Option<Time>,
    #[schema(required = true)]
    note: Option<String>,
}

/// What waits to be read.
#[derive(ToSchema)]
pub struct Unread {
    count: u64,
    #[schema(required = true)]
    oldest_seq: Option<u64>,
    #[schema(required = true)]
    newest_seq: Option<u64>,
}

/// What a member may do.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Role {
    Admin,
    Member,
}

/// A member.
#[derive(ToSchema)]
pub struct GroupMember {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    role: Role,
    joined_at: Time,
}

/// A group as a member sees it.
#[derive(ToSchema)]
pub struct GroupDetail {
    id: String,
    name: String,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
    created_by: String,
    settings: GroupSettings,
    member_count: u64,
    created_at: Time,
    #[schema(required = true)]
    last_message_at: Option<Time>,
    members: Vec<GroupMember>,
    your_role: Role,
}

/// What became of adding somebody.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum AddOutcome {
    Joined,
    Invited,
    AlreadyMember,
}

/// What became of adding somebody.
#[derive(ToSchema)]
pub struct Added {
    handle: String,
    outcome: AddOutcome,
    invite_id: Option<String>,
}

/// A new group.
#[derive(ToSchema)]
pub struct CreatedGroup {
    group: GroupDetail,
    add_results: Vec<Added>,
}

/// When it ended.
#[derive(ToSchema)]
pub struct DeletedGroup {
    deleted_at: Time,
}

/// Who became admin by it.
#[derive(ToSchema)]
pub struct LeftGroup {
    message: String,
    #[schema(required = true)]
    promoted_handle: Option<String>,
}

/// An open invitation.
#[derive(ToSchema)]
pub struct GroupInvitation {
    id: String,
    group_id: String,
    group_name: String,
    #[schema(required = true)]
    group_description: Option<String>,
    #[schema(required = true)]
    group_avatar_url: Option<String>,
    group_member_count: u64,
    inviter_handle: String,
    created_at: Time,
}
