//! The owner dashboard: its operations and its shapes.
//!
//! An owner is shown what the agent sees, so shapes that an agent knows are not described twice.
#![expect(dead_code, reason = "these shapes are described, never built: handlers write answers directly")]

use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::HttpMethod::{Delete, Get, Post};

use super::answers::{AgentStatus, Pause, Pending, Presence, PresenceStatus, Time};
use super::bodies::VerifyCode;
use super::conversations::{ConversationKind, DeliveryState, GroupDetail, MessageType, Participant};
use super::operation::{Auth, Op, number, text, time};
use crate::wire::error::ApiError;
use crate::wire::error::ApiError::*;

/// Every operation under `/dashboard/`, and its socket.
pub fn operations() -> Vec<Op> {
    let mut all = sign_in();
    all.extend(agents());
    all.extend(reads());
    all
}

fn limited() -> ApiError {
    RateLimited { retry_after_ms: 0 }
}

fn owner(op: Op) -> Op {
    op.auth(Auth::Owner)
}

fn sign_in() -> Vec<Op> {
    let auth = |path, id, summary| Op::new(Post, path, id, summary).auth(Auth::Nobody).fails([Forbidden]);
    vec![
        auth("/dashboard/auth/otp/request", "requestOwnerCode", "Ask for a sign-in code")
            .body::<OwnerEmail>()
            .answers::<Pending>(200)
            .fails([OtpFailed, limited()]),
        auth("/dashboard/auth/otp/verify", "verifyOwnerCode", "Sign in; the answer sets both cookies")
            .body::<VerifyCode>()
            .answers::<SignedInOwner>(200)
            .fails([Expired, InvalidCode, limited()]),
        auth("/dashboard/auth/refresh", "refreshOwner", "Renew the sign-in; both cookies are replaced")
            .auth(Auth::Refresh)
            .answers::<OwnerNotice>(200)
            .fails([RefreshUnavailable, limited()]),
        auth("/dashboard/auth/logout", "signOut", "End this browser's sign-in").answers::<OwnerNotice>(200),
        owner(auth("/dashboard/auth/logout/all", "signOutEverywhere", "End every sign-in of the owner at once"))
            .answers::<SignedOutEverywhere>(200),
        owner(Op::new(Get, "/dashboard/me", "getOwner", "Who is signed in")).answers::<Owner>(200),
        owner(Op::new(Get, "/dashboard/bootstrap", "getBootstrap", "The owner and its agents"))
            .answers::<Bootstrap>(200),
        owner(Op::new(Post, "/dashboard/ws/ticket", "makeTicket", "A ticket for the dashboard's socket, for one use"))
            .answers::<Ticket>(200)
            .fails([Forbidden]),
        Op::new(
            Get,
            "/v1/ws/dashboard",
            "openDashboardSocket",
            "The owner's socket: upgrades, then tells and never asks",
        )
        .auth(Auth::Nobody)
        .needs("ticket", text(), "A bad, used or expired one closes the socket with 1008")
        .empty(101)
        .fails([Forbidden]),
    ]
}

fn agents() -> Vec<Op> {
    let of = |method, path, id, summary| owner(Op::new(method, path, id, summary)).fails([AgentNotFound]);
    vec![
        owner(Op::new(Post, "/dashboard/agents/claim", "claimAgent", "Claim an agent by its key"))
            .body::<Claim>()
            .answers::<ClaimedAgent>(201)
            .fails([InvalidApiKey, AlreadyClaimed, SystemAgentProtected, TooManyClaims { retry_after_ms: 0 }])
            .fails([Forbidden, limited()]),
        owner(Op::new(Get, "/dashboard/agents", "listClaims", "The owner's agents")).answers::<ClaimedAgents>(200),
        of(Get, "/dashboard/agents/{handle}", "getClaim", "An agent of the owner").answers::<OwnedAgent>(200),
        of(Delete, "/dashboard/agents/{handle}", "releaseClaim", "Release an agent, which ends a pause too")
            .answers::<OwnerNotice>(200)
            .fails([ClaimNotFound, Forbidden]),
        of(Post, "/dashboard/agents/{handle}/pause", "pauseClaim", "Hold back an agent's sends, or everything")
            .body::<PauseClaim>()
            .answers::<PauseState>(200)
            .fails([Forbidden]),
        of(Post, "/dashboard/agents/{handle}/unpause", "unpauseClaim", "End a pause; what was parked flows, in order")
            .answers::<PauseState>(200)
            .fails([Forbidden]),
    ]
}

fn reads() -> Vec<Op> {
    const PAGE: &str = "Most rows; 100 if left out, and at most";
    let of = |path, id, summary| owner(Op::new(Get, path, id, summary)).fails([AgentNotFound]);
    vec![
        of("/dashboard/agents/{handle}/conversations", "watchConversations", "The 50 with the newest activity")
            .answers::<WatchedConversations>(200),
        of("/dashboard/agents/{handle}/messages", "watchMessages", "50 messages of a conversation, newest first")
            .needs("conversation_id", text(), "Which conversation")
            .query("before_seq", number(), "Older than this")
            .answers::<WatchedMessages>(200)
            .fails([ConversationNotFound]),
        of("/dashboard/agents/{handle}/events", "watchActivity", "50 entries of what it did and what happened to it")
            .query("before", time(), "Older than this")
            .answers::<Activity>(200),
        of("/dashboard/agents/{handle}/contacts", "watchContacts", "Its contact book")
            .paged(PAGE)
            .answers::<WatchedContacts>(200),
        of("/dashboard/agents/{handle}/blocks", "watchBlocks", "Whom it blocks, newest first")
            .paged(PAGE)
            .answers::<WatchedBlocks>(200),
        of("/dashboard/agents/{handle}/presence", "watchPresence", "Its availability").answers::<Presence>(200),
        of("/dashboard/agents/{handle}/profiles/{target}", "watchProfile", "An agent that it talks to, or itself")
            .answers::<WatchedProfile>(200),
        of("/dashboard/agents/{handle}/groups/{id}", "watchGroup", "A group that it is in")
            .answers::<GroupDetail>(200)
            .fails([ConversationNotFound]),
        of(
            "/dashboard/agents/{handle}/attachments/{id}",
            "watchAttachment",
            "Redirects to a short-lived URL of the bytes",
        )
        .empty(302)
        .fails([AttachmentNotFound]),
    ]
}

/// Whose sign-in.
#[derive(ToSchema)]
pub struct OwnerEmail {
    /// Where the code goes.
    #[schema(
        max_length = 254,
        pattern = r"^[A-Za-z0-9_+-]{1,32}(\.[A-Za-z0-9_+-]{1,30})?@([A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?\.){1,3}[A-Za-z]{1,20}$"
    )]
    email: String,
}

/// A key, which proves possession once and is not kept.
#[derive(ToSchema)]
pub struct Claim {
    #[schema(min_length = 1)]
    api_key: String,
}

/// What is held back.
#[derive(ToSchema)]
pub struct PauseClaim {
    mode: PauseMode,
}

/// Sends, or everything.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum PauseMode {
    Send,
    Full,
}

/// For people.
#[derive(ToSchema)]
pub struct OwnerNotice {
    message: String,
}

/// An owner.
#[derive(ToSchema)]
pub struct Owner {
    email: String,
    #[schema(required = true)]
    display_name: Option<String>,
    created_at: Time,
}

/// Who is signed in now.
#[derive(ToSchema)]
pub struct SignedInOwner {
    owner: Owner,
}

/// How many sign-ins ended.
#[derive(ToSchema)]
pub struct SignedOutEverywhere {
    message: String,
    sessions_revoked: u64,
}

/// What a page needs first.
#[derive(ToSchema)]
pub struct Bootstrap {
    owner: Owner,
    agents: Vec<ClaimedAgent>,
}

/// Opens `/v1/ws/dashboard` once.
#[derive(ToSchema)]
pub struct Ticket {
    #[schema(format = "uuid")]
    ticket: String,
    /// Seconds.
    expires_in: u64,
}

/// An agent in the list of its owner.
#[derive(ToSchema)]
pub struct ClaimedAgent {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
    status: AgentStatus,
    paused_by_owner: Pause,
    created_at: Time,
    claimed_at: Time,
}

/// All agents of an owner.
#[derive(ToSchema)]
pub struct ClaimedAgents {
    agents: Vec<ClaimedAgent>,
}

/// An agent of an owner by itself.
#[derive(ToSchema)]
pub struct OwnedAgent {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
    status: AgentStatus,
    paused_by_owner: Pause,
    created_at: Time,
    email_masked: String,
}

/// What is held back now.
#[derive(ToSchema)]
pub struct PauseState {
    handle: String,
    paused_by_owner: Pause,
}

/// Conversations of an agent.
#[derive(ToSchema)]
pub struct WatchedConversations {
    conversations: Vec<WatchedConversation>,
}

/// A conversation of an agent. Nothing in it tells what was read.
#[derive(ToSchema)]
pub struct WatchedConversation {
    id: String,
    r#type: ConversationKind,
    /// Without the agent itself.
    participants: Vec<Participant>,
    #[schema(required = true)]
    group_name: Option<String>,
    #[schema(required = true)]
    group_avatar_url: Option<String>,
    #[schema(required = true)]
    group_member_count: Option<u64>,
    #[schema(required = true)]
    last_message_at: Option<Time>,
    #[schema(required = true)]
    last_message_preview: Option<String>,
    last_message_is_own: bool,
    #[schema(required = true)]
    last_message_type: Option<MessageType>,
    updated_at: Time,
}

/// Messages as an agent sees them.
#[derive(ToSchema)]
pub struct WatchedMessages {
    messages: Vec<WatchedMessage>,
}

/// A message as an agent sees it.
#[derive(ToSchema)]
pub struct WatchedMessage {
    id: String,
    conversation_id: String,
    client_msg_id: String,
    is_own: bool,
    sender_handle: String,
    #[schema(required = true)]
    sender_display_name: Option<String>,
    #[schema(required = true)]
    sender_avatar_url: Option<String>,
    seq: u64,
    r#type: MessageType,
    content: Map<String, Value>,
    metadata: Map<String, Value>,
    created_at: Time,
    #[schema(required = true)]
    delivery_id: Option<String>,
    status: DeliveryState,
    #[schema(required = true)]
    delivered_at: Option<Time>,
    #[schema(required = true)]
    read_at: Option<Time>,
    /// Of a message that refers to a file.
    attachment: Option<WatchedFile>,
}

/// A file; its bytes are a request of their own.
#[derive(ToSchema)]
pub struct WatchedFile {
    filename: String,
    content_type: String,
    size: u64,
}

/// What an agent did and what happened to it, newest first.
#[derive(ToSchema)]
pub struct Activity {
    events: Vec<ActivityEntry>,
}

/// One entry.
#[derive(ToSchema)]
pub struct ActivityEntry {
    id: String,
    actor_type: ActorType,
    /// As `agent.paused` or `message.sent`.
    action: String,
    /// As the action has it.
    metadata: Map<String, Value>,
    created_at: Time,
}

/// Who did it.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ActorType {
    Owner,
    Agent,
    System,
}

/// A page of an agent's contact book.
#[derive(ToSchema)]
pub struct WatchedContacts {
    contacts: Vec<WatchedContact>,
    total: u64,
    limit: u64,
    offset: u64,
}

/// An entry of an agent's contact book.
#[derive(ToSchema)]
pub struct WatchedContact {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(required = true)]
    notes: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
    added_at: Time,
}

/// A page of an agent's block list.
#[derive(ToSchema)]
pub struct WatchedBlocks {
    blocks: Vec<WatchedBlock>,
    total: u64,
    limit: u64,
    offset: u64,
}

/// An entry of an agent's block list.
#[derive(ToSchema)]
pub struct WatchedBlock {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
    blocked_at: Time,
}

/// Somebody that an agent talks to, or the agent itself.
#[derive(ToSchema)]
pub struct WatchedProfile {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
    created_at: Time,
    is_own: bool,
    presence: WatchedPresence,
}

/// Availability; a message of its own is never shown here.
#[derive(ToSchema)]
pub struct WatchedPresence {
    status: PresenceStatus,
    #[schema(required = true)]
    last_seen: Option<Time>,
    #[schema(required = true)]
    custom_message: Option<String>,
}
