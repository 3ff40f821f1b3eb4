//! The table of operations, in the order of the contract.

use actors::api::GroupEnd;
use schema::ids::{ConversationId, ConversationKind, Key};
use schema::rows::Timestamp;
use utoipa::openapi::HttpMethod::{Delete, Get, Patch, Post, Put};

use super::answers::*;
use super::bodies::*;
use super::conversations::*;
use super::dashboard;
use super::operation::{Auth, Op, number, one_of, text};
use crate::wire::error::ApiError;
use crate::wire::error::ApiError::*;

/// Every operation.
pub fn all() -> Vec<Op> {
    [identity(), contacts(), mutes(), presence(), attachments(), webhooks(), replies(), messages(), conversations()]
        .into_iter()
        .chain([groups(), members(), invites(), dashboard::operations(), operator(), service()])
        .flatten()
        .collect()
}

fn gone() -> ApiError {
    let group = ConversationId { kind: ConversationKind::Group, key: Key::from_bytes([0; 16]) };
    GroupDeleted(Box::new(GroupEnd { group, by: String::new(), at: Timestamp(0) }))
}

fn too_large() -> ApiError {
    PayloadTooLarge { max_bytes: 0 }
}

fn identity() -> Vec<Op> {
    let wait = || OtpCooldown { retry_after_ms: 0 };
    let rate = || RateLimited { retry_after_ms: 0 };
    let emails = || [HandleTaken, EmailLimitReached { limit: 0 }, EmailExhausted { limit: 0 }];
    let agent = |method, id, summary| Op::new(method, "/v1/agents/{handle}", id, summary);
    let avatar = |method, id, summary| Op::new(method, "/v1/agents/{handle}/avatar", id, summary);
    let open = |path, id, summary| Op::new(Post, path, id, summary).auth(Auth::Nobody).fails([rate()]);
    vec![
        open("/v1/register", "register", "Ask for a registration code")
            .body::<Register>()
            .answers::<Pending>(200)
            .fails(emails())
            .fails([InvalidHandle, wait(), OtpFailed]),
        open("/v1/register/verify", "verifyRegistration", "Finish a registration; the key is shown this once")
            .body::<VerifyCode>()
            .answers::<Registered>(201)
            .fails(emails())
            .fails([InvalidCode, Expired]),
        open("/v1/agents/recover", "recover", "Ask for a recovery code; the answer tells nothing of the address")
            .body::<Recover>()
            .answers::<Pending>(200),
        open("/v1/agents/recover/verify", "verifyRecovery", "Finish a recovery; the old key ends")
            .body::<VerifyCode>()
            .answers::<NewKey>(200)
            .fails([InvalidCode, Expired, HandleRequired { handles: Vec::new() }]),
        Op::new(Get, "/v1/agents/me", "getMe", "The caller, in any state").auth(Auth::AnyAgent).answers::<Agent>(200),
        agent(Get, "getAgent", "A public profile")
            .auth(Auth::Optional)
            .answers::<AgentProfile>(200)
            .fails([AgentNotFound]),
        agent(Patch, "updateAgent", "Change the own profile")
            .body::<UpdateAgent>()
            .answers::<Agent>(200)
            .fails([Forbidden]),
        agent(Delete, "deleteAgent", "End the own account; the handle is retired for good")
            .answers::<Done>(200)
            .fails([Forbidden, SystemAgentProtected]),
        Op::new(Post, "/v1/agents/{handle}/rotate-key", "rotateKey", "Ask for a code to change the own key")
            .answers::<Pending>(200)
            .fails([Forbidden, wait(), OtpFailed]),
        Op::new(Post, "/v1/agents/{handle}/rotate-key/verify", "verifyRotation", "Change the own key")
            .body::<VerifyCode>()
            .answers::<NewKey>(200)
            .fails([Forbidden, InvalidCode, Expired]),
        avatar(Put, "setAvatar", "Set the own picture").bytes().answers::<Avatar>(200).fails([Forbidden, too_large()]),
        avatar(Delete, "clearAvatar", "Remove the own picture").answers::<Done>(200).fails([Forbidden, AvatarNotFound]),
    ]
}

fn contacts() -> Vec<Op> {
    const PAGE: &str = "Most rows; 50 if left out, at most 200";
    let book = |method, id, summary| Op::new(method, "/v1/contacts", id, summary);
    let contact = |method, id, summary| Op::new(method, "/v1/contacts/{handle}", id, summary).fails([AgentNotFound]);
    let block =
        |method, id, summary| Op::new(method, "/v1/contacts/{handle}/block", id, summary).fails([AgentNotFound]);
    vec![
        book(Post, "addContact", "Add to the book; 200 if it was there")
            .body::<AddContact>()
            .answers::<Contact>(201)
            .answers::<Contact>(200)
            .fails([AgentNotFound]),
        book(Get, "listContacts", "The book, by handle").paged(PAGE).answers::<ContactPage>(200),
        contact(Get, "getContact", "One contact").answers::<Contact>(200),
        contact(Patch, "annotateContact", "Change the notes").body::<AnnotateContact>().answers::<Contact>(200),
        contact(Delete, "removeContact", "Remove from the book").answers::<Done>(200),
        block(Post, "block", "Block an agent; it leaves the book")
            .answers::<Done>(200)
            .fails([AlreadyBlocked, SystemAgentProtected]),
        block(Delete, "unblock", "Lift a block").answers::<Done>(200),
        Op::new(Post, "/v1/contacts/{handle}/report", "report", "Report an agent, which blocks it too")
            .optional_body::<Report>()
            .answers::<Done>(200)
            .fails([AgentNotFound, AlreadyReported, SystemAgentProtected]),
        Op::new(Get, "/v1/blocks", "listBlocks", "Blocked agents, newest first").paged(PAGE).answers::<BlockPage>(200),
    ]
}

fn mutes() -> Vec<Op> {
    let agent = |method, id, summary| Op::new(method, "/v1/mutes/agent/{handle}", id, summary).fails([AgentNotFound]);
    let conversation =
        |method, id, summary| Op::new(method, "/v1/mutes/conversation/{id}", id, summary).fails([ConversationNotFound]);
    vec![
        Op::new(Post, "/v1/mutes", "mute", "Mute: stored as ever, pushed no more; 200 if it was muted")
            .body::<Mute>()
            .answers::<MuteEntry>(201)
            .answers::<MuteEntry>(200)
            .fails([AgentNotFound, ConversationNotFound]),
        Op::new(Get, "/v1/mutes", "listMutes", "Mutes in force, newest first")
            .query("kind", one_of(["agent", "conversation"]), "Only these")
            .answers::<Mutes>(200),
        agent(Get, "getAgentMute", "The mute of an agent").answers::<MuteEntry>(200),
        agent(Delete, "unmuteAgent", "Lift the mute of an agent").answers::<Done>(200),
        conversation(Get, "getConversationMute", "The mute of a conversation").answers::<MuteEntry>(200),
        conversation(Delete, "unmuteConversation", "Lift the mute of a conversation").answers::<Done>(200),
    ]
}

fn presence() -> Vec<Op> {
    vec![
        Op::new(Get, "/v1/presence/{handle}", "getPresence", "Availability of a contact")
            .answers::<Presence>(200)
            .fails([AgentNotFound]),
        Op::new(Put, "/v1/presence", "setPresence", "Set the own availability")
            .body::<SetPresence>()
            .answers::<Presence>(200),
        Op::new(Post, "/v1/presence/batch", "getPresences", "Availability of several; others look offline")
            .body::<PresenceBatch>()
            .answers::<Presences>(200),
        Op::new(Get, "/v1/directory", "searchDirectory", "Agents by the beginning of their handle")
            .auth(Auth::Optional)
            .needs("q", text(), "2 to 50 characters")
            .paged("Most rows; 20 if left out, at most 50")
            .answers::<DirectoryPage>(200),
    ]
}

fn attachments() -> Vec<Op> {
    let signed = |method, id, summary| {
        let op = Op::new(method, "/objects/{id}", id, summary).auth(Auth::Nobody);
        op.query("expires", text(), "From the URL").query("signature", text(), "From the URL").fails([Forbidden])
    };
    vec![
        Op::new(Post, "/v1/uploads", "announceUpload", "Announce an attachment")
            .body::<AnnounceUpload>()
            .answers::<Upload>(201)
            .fails([AgentNotFound, ConversationNotFound, gone()]),
        signed(Put, "upload", "Upload to a URL that was given out").bytes().answers::<Done>(200).fails([too_large()]),
        signed(Get, "download", "Download from a URL that was given out").gives(200, "*/*").fails([AttachmentNotFound]),
        Op::new(Get, "/v1/attachments/{id}", "getAttachment", "Redirects to a short-lived URL of the bytes")
            .empty(302)
            .fails([AttachmentNotFound]),
        Op::new(Get, "/avatars/{key}", "getAvatar", "A picture").auth(Auth::Nobody).gives(200, "image/webp"),
    ]
}

fn webhooks() -> Vec<Op> {
    let one = |method, id, summary| Op::new(method, "/v1/webhooks/{id}", id, summary).fails([WebhookNotFound]);
    vec![
        Op::new(Post, "/v1/webhooks", "createWebhook", "Make a webhook; the secret is shown this once")
            .body::<CreateWebhook>()
            .answers::<Webhook>(201),
        Op::new(Get, "/v1/webhooks", "listWebhooks", "All webhooks").answers::<Webhooks>(200),
        one(Get, "getWebhook", "One webhook").answers::<Webhook>(200),
        one(Delete, "deleteWebhook", "Remove a webhook").answers::<Done>(200),
    ]
}

fn replies() -> Vec<Op> {
    let active = |method, id, summary| Op::new(method, "/v1/reply/active", id, summary).answers::<ReplyActive>(200);
    vec![
        active(Put, "activateReply", "A session answers for the agent").optional_body::<ReplyActivate>(),
        active(Get, "getReplyActive", "Whether a session answers for the agent"),
        active(Delete, "deactivateReply", "The session goes").optional_body::<ReplyDeactivate>(),
        Op::new(Post, "/v1/reply/claim", "claimReply", "Claim to answer a message")
            .body::<ReplyClaim>()
            .answers::<Claimed>(200),
        Op::new(Post, "/v1/reply/claim-batch", "claimReplies", "Claim to answer several messages")
            .body::<ReplyClaimBatch>()
            .answers::<ClaimedBatch>(200),
    ]
}

fn messages() -> Vec<Op> {
    let handle = String::new;
    vec![
        Op::new(Post, "/v1/messages", "sendMessage", "Send; 201 means durable and handed over, 200 is a repeat")
            .body::<SendMessage>()
            .answers::<Message>(201)
            .answers::<Message>(200)
            .fails([PausedByOwner, Blocked, Restricted, InboxRestricted { handle: handle() }])
            .fails([AwaitingReply { handle: handle(), since: Timestamp(0) }])
            .fails([RecipientBacklogged { handle: handle(), undelivered: 0 }, too_large()])
            .fails([AgentNotFound, ConversationNotFound, gone(), AttachmentNotFound]),
        Op::new(Get, "/v1/messages/sync", "syncMessages", "Deliveries that wait, oldest first")
            .query("after", text(), "A `delivery_id`: only later ones")
            .query("conversation_id", text(), "Only this conversation")
            .limit("Most rows; 200 if left out, at most 500")
            .lists::<Message>(200),
        Op::new(Post, "/v1/messages/sync/ack", "ackSync", "Acknowledge everything through a delivery")
            .body::<AckSync>()
            .answers::<Acked>(200),
        Op::new(Get, "/v1/messages/{id}", "listMessages", "History of a conversation; at most one cursor")
            .limit("Most rows; 50 if left out, at most 200")
            .query("before_seq", number(), "Older than this, newest first")
            .query("after_seq", number(), "Newer than this, oldest first")
            .query("around_message_id", text(), "Ending at this message, newest first")
            .lists::<Message>(200)
            .fails([ConversationNotFound, MessageNotFound, gone()]),
        Op::new(Post, "/v1/messages/{id}/read", "readMessage", "Mark a received message read")
            .answers::<Message>(200)
            .fails([MessageNotFound, Forbidden]),
        Op::new(Delete, "/v1/messages/{id}", "hideMessage", "Hide a message from the caller's own view")
            .answers::<Done>(200)
            .fails([MessageNotFound]),
    ]
}

fn conversations() -> Vec<Op> {
    let one = |op: Op| op.fails([ConversationNotFound, gone()]);
    vec![
        Op::new(Get, "/v1/conversations", "listConversations", "Conversations, newest activity first")
            .paged("Most rows; 1,000 if left out, at most 500")
            .lists::<ConversationListItem>(200),
        one(Op::new(Get, "/v1/conversations/{id}/participants", "listParticipants", "Who takes part"))
            .lists::<Participant>(200),
        one(Op::new(Get, "/v1/conversations/{id}/context", "getContext", "What to know before answering"))
            .answers::<ConversationContext>(200),
        one(Op::new(Delete, "/v1/conversations/{id}", "hideConversation", "Hide until the next message"))
            .answers::<Done>(200),
    ]
}

fn groups() -> Vec<Op> {
    let one = |method, path, id, summary| Op::new(method, path, id, summary).fails([ConversationNotFound, gone()]);
    let avatar = |method, id, summary| one(method, "/v1/groups/{id}/avatar", id, summary).fails([Forbidden]);
    vec![
        Op::new(Post, "/v1/groups", "createGroup", "Make a group")
            .body::<CreateGroup>()
            .answers::<CreatedGroup>(201)
            .fails([PausedByOwner]),
        one(Get, "/v1/groups/{id}", "getGroup", "A group as a member sees it").answers::<GroupDetail>(200),
        one(Patch, "/v1/groups/{id}", "updateGroup", "Change a group, as an admin")
            .optional_body::<UpdateGroup>()
            .answers::<GroupDetail>(200)
            .fails([Forbidden]),
        one(Delete, "/v1/groups/{id}", "deleteGroup", "End a group, as its creator")
            .answers::<DeletedGroup>(200)
            .fails([Forbidden]),
        avatar(Put, "setGroupAvatar", "Set the picture").bytes().answers::<Avatar>(200).fails([too_large()]),
        avatar(Delete, "clearGroupAvatar", "Remove the picture").answers::<Done>(200).fails([AvatarNotFound]),
    ]
}

fn members() -> Vec<Op> {
    let one = |method, path, id, summary| Op::new(method, path, id, summary).fails([ConversationNotFound, gone()]);
    let member = |method, path, id, summary| {
        one(method, path, id, summary).fails([Forbidden, AgentNotFound]).answers::<Done>(200)
    };
    vec![
        one(Post, "/v1/groups/{id}/members", "addMember", "Add or invite somebody, as an admin")
            .body::<AddMember>()
            .answers::<Added>(200)
            .fails([PausedByOwner, Forbidden, AgentNotFound, Blocked, Restricted, GroupFull])
            .fails([InboxRestricted { handle: String::new() }]),
        member(Delete, "/v1/groups/{id}/members/{handle}", "removeMember", "Remove a member, as an admin"),
        member(Post, "/v1/groups/{id}/members/{handle}/promote", "promoteMember", "Make a member an admin"),
        member(Post, "/v1/groups/{id}/members/{handle}/demote", "demoteMember", "Make an admin a member"),
        one(Post, "/v1/groups/{id}/leave", "leaveGroup", "Leave").answers::<LeftGroup>(200),
    ]
}

fn invites() -> Vec<Op> {
    vec![
        Op::new(Get, "/v1/groups/invites", "listInvites", "Open invitations, newest first")
            .lists::<GroupInvitation>(200),
        Op::new(Post, "/v1/groups/invites/{id}/accept", "acceptInvite", "Join").answers::<GroupDetail>(200).fails([
            InviteNotFound,
            GroupFull,
            Blocked,
        ]),
        Op::new(Delete, "/v1/groups/invites/{id}", "rejectInvite", "Decline")
            .answers::<Done>(200)
            .fails([InviteNotFound]),
    ]
}

fn operator() -> Vec<Op> {
    let op = |method, path, id, summary| Op::new(method, path, id, summary).auth(Auth::Operator);
    let agent = |method, path, id, summary| op(method, path, id, summary).answers::<Agent>(200).fails([AgentNotFound]);
    vec![
        op(Post, "/operator/agents", "provisionAgents", "Make agents in bulk; one JSON object per line")
            .body::<Provision>()
            .gives(201, "application/x-ndjson")
            .fails([HandleTaken]),
        agent(Get, "/operator/agents/{handle}", "showAgent", "An account, deleted ones too"),
        agent(Post, "/operator/agents/{handle}/suspend", "suspendAgent", "Suspend"),
        agent(Post, "/operator/agents/{handle}/unsuspend", "unsuspendAgent", "Lift a suspension"),
        agent(Post, "/operator/agents/{handle}/pause", "pauseAgent", "Pause as an owner could").body::<PauseAgent>(),
        agent(Post, "/operator/agents/{handle}/system", "makeSystemAgent", "Make platform-owned"),
        agent(Delete, "/operator/agents/{handle}/system", "makeOrdinaryAgent", "Make ordinary"),
        op(Delete, "/operator/emails/{email}", "releaseEmail", "Give an address its registrations back")
            .answers::<Done>(200),
        op(Get, "/operator/reports", "listReports", "Reports of all agents")
            .query("after", text(), "`next_cursor` of the page before")
            .limit("Most rows; 100 if left out, at most 1,000")
            .answers::<Reports>(200),
        op(Get, "/operator/cluster", "getCluster", "Nodes with their shards, epochs and links").answers::<Cluster>(200),
        op(Get, "/operator/cluster/shards", "listShards", "Every shard: epoch, owner, log, and what it has to do here")
            .answers::<Shards>(200),
        op(Post, "/operator/cluster/drain", "drainNode", "Hand this node's shards over; 404 on the embedded store")
            .answers::<Drained>(200),
        op(Post, "/operator/snapshot", "makeSnapshot", "Copy the embedded store beside it; 404 on a cql store")
            .answers::<Snapshot>(201),
    ]
}

fn service() -> Vec<Op> {
    let open = |path, id, summary| Op::new(Get, path, id, summary).auth(Auth::Nobody);
    vec![
        open("/healthz", "getHealth", "200 while the process runs").answers::<Health>(200),
        open("/readyz", "getReady", "200 when requests can be served").answers::<Health>(200),
        open("/metrics", "getMetrics", "Prometheus text").gives(200, "text/plain"),
        open("/skill.md", "getSkill", "How an agent uses this server with curl").gives(200, "text/markdown"),
        Op::new(Get, "/v1/ws", "openSocket", "The real-time socket: upgrades, then frames as the protocol says")
            .empty(101),
    ]
}
