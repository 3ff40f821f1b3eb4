//! Answers. Keys that may be absent are optional here; keys that may be `null` say so.
#![expect(dead_code, reason = "these shapes are described, never built: handlers write answers directly")]

use std::collections::HashMap;

use utoipa::ToSchema;

use super::bodies::{Audience, HookEvent, MuteKind};

/// UTC, RFC 3339 with milliseconds.
#[derive(ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Time(String);

/// Where a code was sent.
#[derive(ToSchema)]
pub struct Pending {
    /// Comes back with the code.
    pending_id: String,
    message: String,
}

/// A key, shown this once.
#[derive(ToSchema)]
pub struct NewKey {
    handle: String,
    api_key: String,
}

/// A registered agent and its key, shown this once.
#[derive(ToSchema)]
pub struct Registered {
    agent: Agent,
    api_key: String,
}

/// Account state.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum AgentStatus {
    Active,
    Restricted,
    Suspended,
    Deleted,
}

/// Owner pause.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Pause {
    None,
    Send,
    Full,
}

/// Settings in force.
#[derive(ToSchema)]
pub struct Settings {
    inbox_mode: Audience,
    group_invite_policy: Audience,
}

/// An agent as its own key sees it.
#[derive(ToSchema)]
pub struct Agent {
    id: String,
    handle: String,
    /// Masked, but for the answer to a registration.
    email: String,
    email_masked: String,
    #[schema(required = true)]
    display_name: Option<String>,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
    status: AgentStatus,
    is_system: bool,
    paused_by_owner: Pause,
    settings: Settings,
    created_at: Time,
    updated_at: Time,
}

/// An agent as anybody sees it.
#[derive(ToSchema)]
pub struct AgentProfile {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
    status: AgentStatus,
    is_system: bool,
    created_at: Time,
    /// In the directory, for an agent that asks.
    in_contacts: Option<bool>,
}

/// Done.
#[derive(ToSchema)]
pub struct Done {
    ok: bool,
    message: Option<String>,
    hidden: Option<bool>,
}

/// Where a picture is now.
#[derive(ToSchema)]
pub struct Avatar {
    avatar_key: Option<String>,
    avatar_url: String,
}

/// An entry of the contact book.
#[derive(ToSchema)]
pub struct Contact {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(required = true)]
    avatar_url: Option<String>,
    status: AgentStatus,
    #[schema(required = true)]
    notes: Option<String>,
    added_at: Time,
    is_contact: Option<bool>,
}

/// A page of the contact book.
#[derive(ToSchema)]
pub struct ContactPage {
    contacts: Vec<Contact>,
    total: u64,
    limit: u64,
    offset: u64,
}

/// A blocked agent.
#[derive(ToSchema)]
pub struct BlockedAgent {
    handle: String,
    #[schema(required = true)]
    display_name: Option<String>,
    blocked_at: Time,
}

/// A page of the block list.
#[derive(ToSchema)]
pub struct BlockPage {
    blocks: Vec<BlockedAgent>,
    total: u64,
    limit: u64,
    offset: u64,
}

/// A mute in force.
#[derive(ToSchema)]
pub struct MuteEntry {
    muter_agent_id: String,
    target_kind: MuteKind,
    target_id: String,
    #[schema(required = true)]
    target_handle: Option<String>,
    #[schema(required = true)]
    muted_until: Option<Time>,
    created_at: Time,
}

/// All mutes in force.
#[derive(ToSchema)]
pub struct Mutes {
    mutes: Vec<MuteEntry>,
}

/// Availability.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum PresenceStatus {
    Online,
    Offline,
    Busy,
}

/// Availability of one agent.
#[derive(ToSchema)]
pub struct Presence {
    handle: String,
    status: PresenceStatus,
    #[schema(required = true)]
    custom_message: Option<String>,
    #[schema(required = true)]
    last_seen: Option<Time>,
    ok: Option<bool>,
}

/// Availability of several agents, as a list and by handle.
#[derive(ToSchema)]
pub struct Presences {
    presences: Vec<Presence>,
    results: HashMap<String, Presence>,
}

/// A page of the directory.
#[derive(ToSchema)]
pub struct DirectoryPage {
    agents: Vec<AgentProfile>,
    total: u64,
    limit: u64,
    offset: u64,
}

/// Where to put the bytes.
#[derive(ToSchema)]
pub struct Upload {
    attachment_id: String,
    upload_url: String,
    /// Seconds.
    expires_in: u64,
}

/// A webhook.
#[derive(ToSchema)]
pub struct Webhook {
    id: String,
    url: String,
    events: Vec<HookEvent>,
    active: bool,
    created_at: Time,
    /// Shown once.
    secret: Option<String>,
}

/// All webhooks.
#[derive(ToSchema)]
pub struct Webhooks {
    webhooks: Vec<Webhook>,
}

/// Whether a session answers for the agent.
#[derive(ToSchema)]
pub struct ReplyActive {
    active: bool,
    expires_at: Option<Time>,
}

/// Whether the claim holds.
#[derive(ToSchema)]
pub struct Claimed {
    claimed: bool,
    deferred: bool,
}

/// How many claims hold.
#[derive(ToSchema)]
pub struct ClaimedBatch {
    claimed_count: u64,
    deferred: bool,
}

/// Alive, or ready.
#[derive(ToSchema)]
pub struct Health {
    status: String,
    reason: Option<String>,
}

/// A report.
#[derive(ToSchema)]
pub struct ReportEntry {
    reporter: String,
    target: String,
    #[schema(required = true)]
    reason: Option<String>,
    reported_at: Time,
}

/// A page of reports.
#[derive(ToSchema)]
pub struct Reports {
    reports: Vec<ReportEntry>,
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// A cluster as its tables have it.
#[derive(ToSchema)]
pub struct Cluster {
    /// `embedded` or `cql`.
    store: String,
    nodes: Vec<ClusterNode>,
    #[schema(required = true)]
    shards: Option<Shares>,
    #[schema(required = true)]
    ready: Option<Readiness>,
}

/// One node.
#[derive(ToSchema)]
pub struct ClusterNode {
    name: String,
    address: String,
    /// The one that answers.
    this: bool,
    draining: bool,
    /// Of its lease, hexadecimal.
    incarnation: String,
    /// Of its lease so far.
    renewals: u64,
    /// That it owns.
    shards: u64,
    #[schema(required = true)]
    highest_epoch: Option<u64>,
    linked: bool,
    /// Messages that wait for its link.
    #[schema(required = true)]
    lag: Option<u64>,
}

/// Shards in numbers.
#[derive(ToSchema)]
pub struct Shares {
    total: u64,
    owned: u64,
    free: u64,
}

/// Whether the node that answers can serve.
#[derive(ToSchema)]
pub struct Readiness {
    this: bool,
    #[schema(required = true)]
    reason: Option<String>,
}

/// All shards.
#[derive(ToSchema)]
pub struct Shards {
    shards: Vec<Shard>,
}

/// One shard.
#[derive(ToSchema)]
pub struct Shard {
    shard: u64,
    epoch: u64,
    /// Name of its node.
    #[schema(required = true)]
    owner: Option<String>,
    /// Its log is kept from this epoch on.
    log_from: u64,
    /// As the node that answers routes.
    route_epoch: u64,
    load: ShardLoad,
}

/// What a shard has to do at the node that answers.
#[derive(ToSchema)]
pub struct ShardLoad {
    /// It is hosted there.
    here: bool,
    /// Requests of that node that it has not answered.
    admitted: u64,
    /// Messages in its mailbox.
    waiting: u64,
    /// Entities in memory.
    resident: u64,
}

/// A copy of the store beside it.
#[derive(ToSchema)]
pub struct Snapshot {
    /// Name of its directory in `snapshots` below the data directory.
    snapshot: String,
}

/// A node that was drained.
#[derive(ToSchema)]
pub struct Drained {
    /// 0 when all are handed over.
    shards_left: u64,
}
