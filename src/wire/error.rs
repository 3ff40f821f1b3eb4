//! Every failure a client can see, and the one envelope it becomes.
//!
//! E1  Flat: `{code, message, details?}`. A nested envelope loses its code in both official SDKs.
//! E2  "Absent" and "hidden" are the same variant, so that their bodies cannot differ.
//! E3  Every 429 says how long to wait, in the header and in `details`.

use std::collections::BTreeMap;

use actors::api::{GroupEnd, Refusal};
use actors::limits::Limits;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schema::rows::Timestamp;
use schema::store::StoreError;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::group::group_end_value;
use super::time::Ts;

/// Wait that is suggested when the domain named none.
const RETRY_MS_DEFAULT: u64 = 1_000;

/// Complaints about a request, by body path or query name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaints {
    /// Per field.
    pub fields: BTreeMap<String, Vec<String>>,
    /// About the request as a whole.
    pub form: Vec<String>,
}

/// Every failure a client can see. `code` is the contract; the message is for people and may change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Shape or limits of the request.
    #[error("the request is not valid")]
    Validation(Complaints),
    /// Handle shape or reserved word, at registration.
    #[error("this handle cannot be registered")]
    InvalidHandle,
    /// Wrong one-time code.
    #[error("the code is not correct")]
    InvalidCode,
    /// Pending id unknown, expired, used up or of another kind.
    #[error("the code has expired, ask for a new one")]
    Expired,
    /// No valid key.
    #[error("a valid API key is required")]
    Unauthorized,
    /// No owner is signed in.
    #[error("sign in first")]
    SignedOut,
    /// The sign-in cannot be refreshed now; it is not over.
    #[error("the sign-in cannot be refreshed now, try again")]
    RefreshUnavailable,
    /// No agent has this key.
    #[error("no agent has this API key")]
    InvalidApiKey,
    /// The agent has an owner.
    #[error("this agent is already claimed")]
    AlreadyClaimed,
    /// Claims on this agent were rejected too often.
    #[error("too many claims on this agent")]
    TooManyClaims {
        /// Wait.
        retry_after_ms: u64,
    },
    /// The claim has ended meanwhile.
    #[error("this agent is not claimed any more")]
    ClaimNotFound,
    /// Acting on somebody else's resource.
    #[error("not allowed")]
    Forbidden,
    /// Caller suspended.
    #[error("this account is suspended")]
    AgentSuspended,
    /// Caller restricted, message cold.
    #[error("this account is restricted and cannot start conversations")]
    Restricted,
    /// Owner pause.
    #[error("the owner has paused this agent")]
    PausedByOwner,
    /// A block in either direction.
    #[error("messages between these agents are blocked")]
    Blocked,
    /// Recipient accepts contacts only.
    #[error("the recipient accepts messages from contacts only")]
    InboxRestricted {
        /// Recipient.
        handle: String,
    },
    /// An earlier cold message is unanswered.
    #[error("waiting for a reply to the first message")]
    AwaitingReply {
        /// Recipient.
        handle: String,
        /// Creation of the pending message.
        since: Timestamp,
    },
    /// No such agent, or no such relation.
    #[error("agent not found")]
    AgentNotFound,
    /// Not a participant, or no such conversation.
    #[error("conversation not found")]
    ConversationNotFound,
    /// Not visible, or no such message.
    #[error("message not found")]
    MessageNotFound,
    /// Not entitled, or no such attachment.
    #[error("attachment not found")]
    AttachmentNotFound,
    /// No avatar is set.
    #[error("no avatar is set")]
    AvatarNotFound,
    /// Unknown, or somebody else's.
    #[error("webhook not found")]
    WebhookNotFound,
    /// Unknown, used, cancelled, or somebody else's.
    #[error("invite not found")]
    InviteNotFound,
    /// The group has ended; only former members learn it.
    #[error("the group was deleted")]
    GroupDeleted(Box<GroupEnd>),
    /// No place is left in the group.
    #[error("the group is full")]
    GroupFull,
    /// This agent was reported by the caller before.
    #[error("already reported")]
    AlreadyReported,
    /// The same idempotency key came with another request.
    #[error("this idempotency key was used for another request")]
    IdempotencyConflict,
    /// The first request with this idempotency key is still running.
    #[error("the first request with this idempotency key is still running")]
    IdempotentInProgress,
    /// All members of a group together send too much.
    #[error("the group sends too many messages")]
    GroupLimit {
        /// Wait.
        retry_after_ms: u64,
    },
    /// Unknown route.
    #[error("no such route")]
    NotFound,
    /// Known route, other verb.
    #[error("this method is not supported here")]
    MethodNotAllowed,
    /// Handle in use or retired.
    #[error("this handle is taken")]
    HandleTaken,
    /// Email backs the maximum of live agents.
    #[error("this email already backs its maximum of live agents")]
    EmailLimitReached {
        /// In force.
        limit: u32,
    },
    /// Lifetime registrations used up.
    #[error("this email has used up its registrations")]
    EmailExhausted {
        /// In force.
        limit: u32,
    },
    /// Recovery without a handle on an email that backs several agents.
    #[error("this email backs several agents, name one")]
    HandleRequired {
        /// Oldest first.
        handles: Vec<String>,
    },
    /// Block already in place.
    #[error("already blocked")]
    AlreadyBlocked,
    /// Target is platform-owned.
    #[error("system agents are protected")]
    SystemAgentProtected,
    /// Body over its limit.
    #[error("the request is too large")]
    PayloadTooLarge {
        /// Limit.
        max_bytes: usize,
    },
    /// A limiter said no.
    #[error("too many requests")]
    RateLimited {
        /// Wait.
        retry_after_ms: u64,
    },
    /// Too many unanswered conversations.
    #[error("too many unanswered conversations")]
    ColdLimit {
        /// Wait.
        retry_after_ms: u64,
        /// In force.
        limit: u32,
    },
    /// A new code asked too soon.
    #[error("a code was sent a moment ago")]
    OtpCooldown {
        /// Wait.
        retry_after_ms: u64,
    },
    /// The recipient's backlog is full.
    #[error("the recipient has too many undelivered messages")]
    RecipientBacklogged {
        /// Recipient.
        handle: String,
        /// Its backlog.
        undelivered: u32,
    },
    /// The mail could not be handed over.
    #[error("the verification mail could not be sent")]
    OtpFailed,
    /// Our fault; the cause is logged where it was met, never shown.
    #[error("internal error")]
    Internal,
    /// Shed, or the outcome is unknown: retry with the same `client_msg_id`.
    #[error("temporarily unavailable, try again")]
    Unavailable,
}

/// The body of every error, on HTTP and in socket `error` frames.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct Envelope {
    /// Contract.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Typed per code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

impl ApiError {
    /// One complaint about one field.
    pub fn field(name: &str, complaint: &str) -> Self {
        let fields = BTreeMap::from([(name.to_owned(), vec![complaint.to_owned()])]);
        Self::Validation(Complaints { fields, form: Vec::new() })
    }

    /// One complaint about the request as a whole.
    pub fn form(complaint: impl Into<String>) -> Self {
        Self::Validation(Complaints { fields: BTreeMap::new(), form: vec![complaint.into()] })
    }

    /// The only place where a failure becomes a status and a code.
    /// No `_` arm: a new variant does not compile until somebody has chosen.
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Validation(_) => (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"),
            Self::InvalidHandle => (StatusCode::BAD_REQUEST, "INVALID_HANDLE"),
            Self::InvalidCode => (StatusCode::BAD_REQUEST, "INVALID_CODE"),
            Self::Expired => (StatusCode::BAD_REQUEST, "EXPIRED"),
            Self::Unauthorized | Self::SignedOut => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::RefreshUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "REFRESH_UNAVAILABLE"),
            Self::InvalidApiKey => (StatusCode::NOT_FOUND, "INVALID_API_KEY"),
            Self::AlreadyClaimed => (StatusCode::CONFLICT, "ALREADY_CLAIMED"),
            Self::TooManyClaims { .. } => (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_CLAIMS"),
            Self::ClaimNotFound => (StatusCode::NOT_FOUND, "CLAIM_NOT_FOUND"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "FORBIDDEN"),
            Self::AgentSuspended => (StatusCode::FORBIDDEN, "AGENT_SUSPENDED"),
            Self::Restricted => (StatusCode::FORBIDDEN, "RESTRICTED"),
            Self::PausedByOwner => (StatusCode::FORBIDDEN, "AGENT_PAUSED_BY_OWNER"),
            Self::Blocked => (StatusCode::FORBIDDEN, "BLOCKED"),
            Self::InboxRestricted { .. } => (StatusCode::FORBIDDEN, "INBOX_RESTRICTED"),
            Self::AwaitingReply { .. } => (StatusCode::FORBIDDEN, "AWAITING_REPLY"),
            Self::AgentNotFound => (StatusCode::NOT_FOUND, "AGENT_NOT_FOUND"),
            Self::ConversationNotFound => (StatusCode::NOT_FOUND, "CONVERSATION_NOT_FOUND"),
            Self::MessageNotFound => (StatusCode::NOT_FOUND, "MESSAGE_NOT_FOUND"),
            Self::AttachmentNotFound => (StatusCode::NOT_FOUND, "ATTACHMENT_NOT_FOUND"),
            Self::AvatarNotFound => (StatusCode::NOT_FOUND, "AVATAR_NOT_FOUND"),
            Self::WebhookNotFound => (StatusCode::NOT_FOUND, "WEBHOOK_NOT_FOUND"),
            Self::InviteNotFound => (StatusCode::NOT_FOUND, "INVITE_NOT_FOUND"),
            Self::GroupDeleted(_) => (StatusCode::GONE, "GROUP_DELETED"),
            Self::GroupFull => (StatusCode::CONFLICT, "GROUP_FULL"),
            Self::AlreadyReported => (StatusCode::CONFLICT, "ALREADY_REPORTED"),
            Self::IdempotencyConflict => (StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_CONFLICT"),
            Self::IdempotentInProgress => (StatusCode::CONFLICT, "IDEMPOTENT_IN_PROGRESS"),
            Self::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            Self::HandleTaken => (StatusCode::CONFLICT, "HANDLE_TAKEN"),
            Self::EmailLimitReached { .. } => (StatusCode::CONFLICT, "EMAIL_LIMIT_REACHED"),
            Self::EmailExhausted { .. } => (StatusCode::CONFLICT, "EMAIL_EXHAUSTED"),
            Self::HandleRequired { .. } => (StatusCode::CONFLICT, "HANDLE_REQUIRED"),
            Self::AlreadyBlocked => (StatusCode::CONFLICT, "ALREADY_BLOCKED"),
            Self::SystemAgentProtected => (StatusCode::CONFLICT, "SYSTEM_AGENT_PROTECTED"),
            Self::PayloadTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            Self::RateLimited { .. } | Self::ColdLimit { .. } | Self::GroupLimit { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED")
            }
            Self::OtpCooldown { .. } => (StatusCode::TOO_MANY_REQUESTS, "OTP_COOLDOWN"),
            Self::RecipientBacklogged { .. } => (StatusCode::TOO_MANY_REQUESTS, "RECIPIENT_BACKLOGGED"),
            Self::OtpFailed => (StatusCode::INTERNAL_SERVER_ERROR, "OTP_FAILED"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "INTERNAL_ERROR"),
        }
    }

    /// The typed part of the envelope.
    fn details(&self) -> Option<Value> {
        match self {
            Self::Validation(Complaints { fields, form }) => Some(json!({"fieldErrors": fields, "formErrors": form})),
            Self::InboxRestricted { handle } => Some(json!({"handle": handle})),
            Self::AwaitingReply { handle, since } => {
                Some(json!({"recipient_handle": handle, "waiting_since": Ts(*since)}))
            }
            Self::EmailLimitReached { limit } | Self::EmailExhausted { limit } => Some(json!({"limit": limit})),
            Self::HandleRequired { handles } => Some(json!({"handles": handles})),
            Self::PayloadTooLarge { max_bytes } => Some(json!({"max_bytes": max_bytes})),
            Self::RateLimited { retry_after_ms }
            | Self::OtpCooldown { retry_after_ms }
            | Self::TooManyClaims { retry_after_ms } => Some(json!({"retry_after_ms": retry_after_ms})),
            Self::GroupDeleted(end) => Some(group_end_value(end)),
            Self::GroupLimit { retry_after_ms } => {
                Some(json!({"retry_after_ms": retry_after_ms, "rule": "group_aggregate"}))
            }
            Self::ColdLimit { retry_after_ms, limit } => {
                Some(json!({"retry_after_ms": retry_after_ms, "rule": "cold_outreach", "limit": limit}))
            }
            Self::RecipientBacklogged { handle, undelivered } => {
                Some(json!({"recipient_handle": handle, "undelivered_count": undelivered}))
            }
            _ => None,
        }
    }

    /// Milliseconds a client should wait (E3); `None` where waiting is not the remedy.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_ms }
            | Self::ColdLimit { retry_after_ms, .. }
            | Self::GroupLimit { retry_after_ms }
            | Self::OtpCooldown { retry_after_ms }
            | Self::TooManyClaims { retry_after_ms } => Some(*retry_after_ms),
            Self::RecipientBacklogged { .. } | Self::RefreshUnavailable | Self::Unavailable => Some(RETRY_MS_DEFAULT),
            _ => None,
        }
    }

    /// The envelope of this failure.
    pub fn envelope(&self) -> Envelope {
        Envelope { code: self.status_and_code().1, message: self.to_string(), details: self.details() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status_and_code().0, Json(self.envelope())).into_response();
        if let Some(wait) = self.retry_after_ms() {
            let seconds = wait.div_ceil(1_000).max(1);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthorized => Self::Unauthorized,
            Refusal::Suspended => Self::AgentSuspended,
            Refusal::RateLimited { retry_after_ms } => Self::RateLimited { retry_after_ms },
            Refusal::AgentNotFound | Refusal::NoRelation => Self::AgentNotFound,
            Refusal::ConversationNotFound => Self::ConversationNotFound,
            Refusal::MessageNotFound => Self::MessageNotFound,
            Refusal::OwnMessage => Self::Forbidden,
            Refusal::SelfTarget => Self::field("handle", "must be another agent"),
            Refusal::PausedByOwner => Self::PausedByOwner,
            Refusal::Blocked => Self::Blocked,
            Refusal::AlreadyBlocked => Self::AlreadyBlocked,
            Refusal::SystemAgentProtected => Self::SystemAgentProtected,
            Refusal::InboxRestricted { handle } => Self::InboxRestricted { handle },
            Refusal::Restricted => Self::Restricted,
            Refusal::AwaitingReply { handle, waiting_since } => Self::AwaitingReply { handle, since: waiting_since },
            Refusal::ColdLimit { retry_after_ms } => {
                let limit = Limits::default().cold_threads.unwrap_or(0);
                Self::ColdLimit { retry_after_ms, limit }
            }
            Refusal::RecipientBacklogged { handle, undelivered } => Self::RecipientBacklogged { handle, undelivered },
            Refusal::AttachmentNotFound => Self::AttachmentNotFound,
            Refusal::NotAdmin => Self::Forbidden,
            Refusal::GroupDeleted(end) => Self::GroupDeleted(end),
            Refusal::GroupLimit { retry_after_ms } => Self::GroupLimit { retry_after_ms },
            Refusal::GroupFull => Self::GroupFull,
            Refusal::InviteNotFound => Self::InviteNotFound,
            Refusal::NoPicture => Self::AvatarNotFound,
            Refusal::AlreadyReported => Self::AlreadyReported,
            Refusal::AlreadyClaimed => Self::AlreadyClaimed,
            Refusal::TooManyClaims { retry_after_ms } => Self::TooManyClaims { retry_after_ms },
            Refusal::ClaimNotFound => Self::ClaimNotFound,
            Refusal::TooMany { limit } => Self::form(format!("no more than {limit} of these are allowed")),
            Refusal::Unavailable | Refusal::TimedOut => Self::Unavailable,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Timeout | StoreError::Fenced => {
                tracing::warn!(%error, "store refused a read");
                Self::Unavailable
            }
            StoreError::Corrupt(_) => {
                tracing::error!(%error, "stored bytes do not decode");
                Self::Internal
            }
        }
    }
}
