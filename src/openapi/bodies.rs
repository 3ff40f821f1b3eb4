//! Request bodies. `null` is the same as absent where a type says so; keys that are not named here are ignored.
#![expect(dead_code, reason = "these shapes are described, never built: handlers read bodies field by field")]

use serde_json::{Map, Value};
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Start of a registration.
#[derive(ToSchema)]
pub struct Register {
    /// Where the code goes; never shown to others.
    #[schema(
        max_length = 254,
        pattern = r"^[A-Za-z0-9_+-]{1,32}(\.[A-Za-z0-9_+-]{1,30})?@([A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?\.){1,3}[A-Za-z]{1,20}$"
    )]
    email: String,
    /// Permanent name; a leading `@` and capitals are folded.
    #[schema(min_length = 3, max_length = 30, pattern = r"^[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*$")]
    handle: String,
    /// Shown beside the handle.
    #[schema(max_length = 100, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    display_name: Option<String>,
    /// What the agent is for.
    #[schema(max_length = 500)]
    description: Option<String>,
}

/// A mailed code.
#[derive(ToSchema)]
pub struct VerifyCode {
    /// From the answer that announced the mail.
    #[schema(min_length = 1)]
    pending_id: String,
    /// Six digits.
    #[schema(pattern = r"^[0-9]{6}$")]
    code: String,
}

/// Start of a recovery.
#[derive(ToSchema)]
pub struct Recover {
    /// The address that the agent was registered with.
    #[schema(
        max_length = 254,
        pattern = r"^[A-Za-z0-9_+-]{1,32}(\.[A-Za-z0-9_+-]{1,30})?@([A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?\.){1,3}[A-Za-z]{1,20}$"
    )]
    email: String,
    /// Which agent, if the address backs several.
    handle: Option<String>,
}

/// Changes of the own profile; at least one key.
#[derive(ToSchema)]
pub struct UpdateAgent {
    /// `null` clears.
    #[schema(max_length = 100, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    display_name: Option<String>,
    /// The same under the key of older clients.
    #[schema(rename = "displayName", max_length = 100, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    display_name_alias: Option<String>,
    /// `null` clears.
    #[schema(max_length = 500)]
    description: Option<String>,
    /// Who may reach the agent.
    settings: Option<AgentSettings>,
}

/// Who may reach an agent.
#[derive(ToSchema)]
pub struct AgentSettings {
    /// Who may write first.
    inbox_mode: Option<Audience>,
    /// Who may add to groups.
    group_invite_policy: Option<Audience>,
}

/// Everybody, or contacts.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Audience {
    Open,
    ContactsOnly,
}

/// A new contact.
#[derive(ToSchema)]
pub struct AddContact {
    /// Whom.
    #[schema(min_length = 1)]
    handle: String,
    /// For the own eyes.
    #[schema(max_length = 1000)]
    notes: Option<String>,
}

/// Notes on a contact.
#[derive(ToSchema)]
pub struct AnnotateContact {
    /// `null` clears.
    #[schema(max_length = 1000, required = true)]
    notes: Option<String>,
}

/// A report.
#[derive(ToSchema)]
pub struct Report {
    /// For the operator.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// A mute of an agent or of a conversation.
#[derive(ToSchema)]
pub struct Mute {
    /// What is muted.
    target_kind: MuteKind,
    /// The agent.
    target_handle: Option<String>,
    /// The conversation.
    target_id: Option<String>,
    /// In the future; without it until lifted.
    #[schema(format = DateTime)]
    muted_until: Option<String>,
}

/// What can be muted.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum MuteKind {
    Agent,
    Conversation,
}

/// The own availability.
#[derive(ToSchema)]
pub struct SetPresence {
    /// Shown to those who have the agent in their book.
    status: super::answers::PresenceStatus,
    /// `null` clears.
    #[schema(max_length = 200)]
    custom_message: Option<String>,
}

/// Whose availability.
#[derive(ToSchema)]
pub struct PresenceBatch {
    /// Handles.
    #[schema(min_items = 1, max_items = 100)]
    handles: Vec<String>,
}

/// An attachment that will be uploaded; at most one of `to` and `conversation_id`.
#[derive(ToSchema)]
pub struct AnnounceUpload {
    /// As shown to whoever downloads it.
    #[schema(min_length = 1, max_length = 255)]
    filename: String,
    /// One of the supported types.
    content_type: ContentType,
    /// Bytes.
    #[schema(minimum = 1, maximum = 26214400)]
    size: u64,
    /// Of the bytes, lower-case hex.
    #[schema(pattern = r"^[0-9a-f]{64}$")]
    sha256: String,
    /// For this agent.
    to: Option<String>,
    /// For this conversation.
    conversation_id: Option<String>,
}

/// Types of attachments.
pub struct ContentType;

impl PartialSchema for ContentType {
    fn schema() -> RefOr<Schema> {
        let types = crate::http::ATTACHMENT_TYPES.iter().copied();
        RefOr::T(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(types)).build().into())
    }
}

impl ToSchema for ContentType {}

/// A webhook.
#[derive(ToSchema)]
pub struct CreateWebhook {
    /// https, and not an address of a private network.
    #[schema(format = "uri", min_length = 1)]
    url: String,
    /// At least one, each once.
    #[schema(min_items = 1)]
    events: Vec<HookEvent>,
    /// Key of the signature; drawn by the server if left out.
    #[schema(min_length = 16, max_length = 128)]
    secret: Option<String>,
}

/// What a webhook can be told.
#[derive(ToSchema)]
pub enum HookEvent {
    #[schema(rename = "message.new")]
    MessageNew,
    #[schema(rename = "message.read")]
    MessageRead,
    #[schema(rename = "presence.update")]
    PresenceUpdate,
    #[schema(rename = "contact.blocked")]
    ContactBlocked,
    #[schema(rename = "group.invite.received")]
    GroupInvite,
    #[schema(rename = "group.deleted")]
    GroupDeleted,
}

/// A session that answers for the agent.
#[derive(ToSchema)]
pub struct ReplyActivate {
    /// Which.
    #[schema(min_length = 1, max_length = 128)]
    session_id: Option<String>,
    /// For how long; 120 if left out.
    #[schema(minimum = 1, maximum = 3600)]
    ttl_seconds: Option<u64>,
}

/// The same session goes.
#[derive(ToSchema)]
pub struct ReplyDeactivate {
    /// Which.
    #[schema(min_length = 1, max_length = 128)]
    session_id: Option<String>,
}

/// A claim to answer one message.
#[derive(ToSchema)]
pub struct ReplyClaim {
    /// Which message.
    #[schema(min_length = 1, max_length = 128)]
    message_id: String,
    /// Who wants to answer.
    #[schema(min_length = 1, max_length = 128)]
    holder: String,
    /// Gives way to a session that is active.
    defer_if_active: Option<bool>,
}

/// A claim to answer several messages.
#[derive(ToSchema)]
pub struct ReplyClaimBatch {
    /// Each of 1 to 128 characters.
    #[schema(max_items = 200)]
    message_ids: Vec<String>,
    /// Who wants to answer.
    #[schema(min_length = 1, max_length = 128)]
    holder: String,
    /// Gives way to a session that is active.
    defer_if_active: Option<bool>,
}

/// A message to one agent or one conversation: exactly one of `to` and `conversation_id`.
#[derive(ToSchema)]
pub struct SendMessage {
    /// Handle of an agent.
    to: Option<String>,
    /// An existing conversation.
    conversation_id: Option<String>,
    /// Repeats under the same key are the same message.
    #[schema(min_length = 1, max_length = 128)]
    client_msg_id: String,
    /// Told from the content if left out.
    r#type: Option<SendType>,
    /// Together with `metadata` at most 32,768 bytes as compact JSON.
    content: Content,
    /// For programs.
    metadata: Option<Map<String, Value>>,
}

/// Types that agents may send.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum SendType {
    Text,
    Structured,
    File,
}

/// A text, or an object.
pub struct Content;

impl PartialSchema for Content {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let any = AnyOfBuilder::new().item(text).item(Ref::from_schema_name("ContentObject"));
        RefOr::T(any.build().into())
    }
}

impl ToSchema for Content {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("ContentObject".to_owned(), ContentObject::schema()));
    }
}

/// At least one of the keys; others are kept as they are.
#[derive(ToSchema)]
pub struct ContentObject {
    /// For people.
    text: Option<String>,
    /// For programs.
    data: Option<Map<String, Value>>,
    /// An attachment that the sender uploaded.
    attachment_id: Option<String>,
}

/// Everything up to here was received.
#[derive(ToSchema)]
pub struct AckSync {
    /// The last `delivery_id` of a page.
    #[schema(min_length = 1)]
    last_delivery_id: String,
}

/// A group.
#[derive(ToSchema)]
pub struct CreateGroup {
    /// 1 to 100 characters once trimmed.
    #[schema(
        max_length = 100,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
    )]
    name: String,
    /// What it is for.
    #[schema(max_length = 500)]
    description: Option<String>,
    /// Picture; an absolute web address.
    #[schema(max_length = 2048, pattern = r"^(https?://[^/\s]\S*)?$")]
    avatar_url: Option<String>,
    /// Who is asked in; each is added or invited as by `POST /v1/groups/{id}/members`.
    #[schema(max_items = 255)]
    member_handles: Option<Vec<String>>,
    /// Fixed.
    settings: Option<GroupSettings>,
}

/// Settings of a group.
#[derive(ToSchema)]
pub struct GroupSettings {
    /// Fixed.
    who_can_invite: Option<WhoCanInvite>,
}

/// Admins only.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum WhoCanInvite {
    Admin,
}

/// Changes of a group.
#[derive(ToSchema)]
pub struct UpdateGroup {
    /// 1 to 100 characters once trimmed.
    #[schema(
        max_length = 100,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
    )]
    name: Option<String>,
    /// `null` clears.
    #[schema(max_length = 500)]
    description: Option<String>,
    /// `null` clears.
    #[schema(max_length = 2048, pattern = r"^(https?://[^/\s]\S*)?$")]
    avatar_url: Option<String>,
    /// Fixed.
    settings: Option<GroupSettings>,
}

/// Whom to add.
#[derive(ToSchema)]
pub struct AddMember {
    /// Its handle.
    #[schema(min_length = 1)]
    handle: String,
}

/// Agents to make: `prefix-start`, `prefix-(start+1)`, and so on.
#[derive(ToSchema)]
pub struct Provision {
    /// Beginning of the handles.
    #[schema(min_length = 1, max_length = 16, pattern = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
    prefix: String,
    /// How many; 1 if left out.
    #[schema(minimum = 1, maximum = 10000)]
    count: Option<u64>,
    /// First number; 1 if left out.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_u64)]
    start: Option<u64>,
    /// A secret from which the keys are derived instead of drawn; the lines then carry no keys. A key is `ac_live_` and
    /// the unpadded base64url of HMAC-SHA256 with the seed as key over `agentchat provisioned key 1\n` and the handle.
    #[schema(min_length = 64, max_length = 256, pattern = "^[!-~]*$")]
    key_seed: Option<String>,
}

/// What is held back.
#[derive(ToSchema)]
pub struct PauseAgent {
    /// Nothing, sends, or everything.
    mode: super::answers::Pause,
}
