//! JSON of frames, both ways.
//!
//! F1  `{type, payload, id?}`; `hello`, `hello.ok` and `ack` keep their fields at the top.
//! F2  Reading never fails the socket: what is not understood is [`Incoming::Ignored`].

use actors::api::{AckMode, ToSession};
use schema::ids::{ConversationId, DeliveryId, MessageId, Seq};
use schema::rows::{MessageRow, PresenceStatus, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use crate::wire::error::ApiError;
use crate::wire::fields::Fields;
use crate::wire::group::{group_end_value, invitation_value};
use crate::wire::message::{About, MessageState, message_value};
use crate::wire::social::{presence_fields, presence_name};
use crate::wire::time::Ts;
use crate::wire::urls::Urls;

/// What a client frame asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A delivery reached the agent.
    Ack(MessageId),
    /// Everything up to a seq was read.
    ReadThrough(ConversationId, Seq),
    /// One message was read.
    ReadOne(MessageId),
    /// Typing started or stopped.
    Typing(ConversationId, bool),
    /// A status of the agent's own, and a message with it.
    Presence(PresenceStatus, Option<String>),
    /// Known, and not done here.
    Unsupported,
    /// A known type with a payload that does not fit.
    Invalid(ApiError),
    /// Unknown type, or no frame at all.
    Ignored,
}

/// A parsed frame with the id that its answer echoes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What it asks for.
    pub frame: Incoming,
    /// Echoed on errors.
    pub id: Option<String>,
}

/// The first frame of a hello-mode socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Presented key.
    pub api_key: String,
    /// Whether `ack` was offered.
    pub ack: bool,
}

/// Reads a client frame.
pub fn parse(text: &str) -> Parsed {
    let ignored = Parsed { frame: Incoming::Ignored, id: None };
    let Ok(Value::Object(frame)) = serde_json::from_str(text) else { return ignored };
    let Some(kind) = frame.get("type").and_then(Value::as_str) else { return ignored };
    let id = frame.get("id").and_then(Value::as_str).map(str::to_owned);
    let payload = frame.get("payload").unwrap_or(&Value::Null);
    let frame = match kind {
        "ack" => {
            let message = frame.get("message_id").and_then(Value::as_str).and_then(|id| id.parse().ok());
            message.map_or(Incoming::Ignored, Incoming::Ack)
        }
        "message.read_ack" => read_ack(payload),
        "typing.start" => typing(payload, true),
        "typing.stop" => typing(payload, false),
        "presence.update" => presence(payload),
        "message.send" => Incoming::Unsupported,
        _ => Incoming::Ignored,
    };
    Parsed { frame, id }
}

/// Reads a hello; `None` for anything else.
pub fn parse_hello(text: &str) -> Option<Hello> {
    let Ok(Value::Object(frame)) = serde_json::from_str(text) else { return None };
    if frame.get("type").and_then(Value::as_str) != Some("hello") {
        return None;
    }
    let key = frame.get("api_key").or(frame.get("token")).and_then(Value::as_str)?;
    let offered = frame.get("capabilities").and_then(Value::as_array);
    let ack = offered.is_some_and(|offered| offered.iter().any(|name| name == "ack"));
    Some(Hello { api_key: key.to_owned(), ack })
}

fn read_ack(payload: &Value) -> Incoming {
    let text = |name: &str| payload.get(name).and_then(Value::as_str);
    if let Some(message) = text("message_id") {
        return match message.parse() {
            Ok(message) => Incoming::ReadOne(message),
            Err(_) => Incoming::Invalid(ApiError::MessageNotFound),
        };
    }
    let conversation = text("conversation_id").and_then(|id| id.parse().ok());
    let through = payload.get("through_seq").and_then(Value::as_u64).filter(|seq| *seq > 0);
    match (conversation, through) {
        (None, _) => Incoming::Invalid(ApiError::field("conversation_id", "must be a conversation id")),
        (Some(_), None) => Incoming::Invalid(ApiError::field("through_seq", "must be a positive integer")),
        (Some(conversation), Some(through)) => Incoming::ReadThrough(conversation, Seq(through)),
    }
}

fn typing(payload: &Value, start: bool) -> Incoming {
    match payload.get("conversation_id").and_then(Value::as_str).map(str::parse) {
        Some(Ok(conversation)) => Incoming::Typing(conversation, start),
        // A string that names no conversation: dropped like any other that the agent does not take part in.
        Some(Err(_)) => Incoming::Ignored,
        None => Incoming::Invalid(ApiError::field("conversation_id", "is required")),
    }
}

fn presence(payload: &Value) -> Incoming {
    let Ok(mut fields) = Fields::parse(payload.to_string().as_bytes()) else {
        return Incoming::Invalid(ApiError::field("status", "is required"));
    };
    let (status, message) = presence_fields(&mut fields);
    match fields.finish() {
        Ok(()) => Incoming::Presence(status, message),
        Err(error) => Incoming::Invalid(error),
    }
}

#[derive(Serialize)]
struct Frame<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    payload: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

fn frame<T: Serialize>(kind: &'static str, payload: T, id: Option<&str>) -> String {
    match serde_json::to_string(&Frame { kind, payload, id }) {
        Ok(text) => text,
        Err(error) => {
            // Only stored JSON that no longer parses gets here.
            tracing::error!(%error, kind, "a frame could not be written");
            String::new()
        }
    }
}

/// The greeting.
pub fn hello_ok(mode: AckMode) -> String {
    let accepted: &[&str] = if matches!(mode, AckMode::Explicit { .. }) { &["ack"] } else { &[] };
    json!({"type": "hello.ok", "capabilities": accepted, "payload": {}}).to_string()
}

/// The refusal of a hello.
pub fn hello_error(error: &ApiError) -> String {
    frame("hello.error", error.envelope(), None)
}

/// An answer to a frame that could not be done.
pub fn error(error: &ApiError, id: Option<&str>) -> String {
    frame("error", error.envelope(), id)
}

/// The answer to a frame that is never done on sockets.
pub fn unsupported(id: Option<&str>) -> String {
    let message = "messages are sent with POST /v1/messages";
    frame("error", json!({"code": "UNSUPPORTED_ACTION", "message": message}), id)
}

/// A message; `delivery` only on backlog frames.
pub fn message(row: &MessageRow, about: About<'_>, delivery: Option<DeliveryId>) -> String {
    let value = message_value(row, about, MessageState::default());
    frame("message.new", if let Some(id) = delivery { value.with_delivery(id) } else { value }, None)
}

/// Everything that is neither a message nor the end of the socket.
pub fn notice(notice: &ToSession, urls: &Urls) -> String {
    let (kind, payload) = notice_payload(notice, urls);
    frame(kind, payload, None)
}

/// Type and payload of a live-only frame; webhooks carry the same.
pub fn notice_payload(notice: &ToSession, urls: &Urls) -> (&'static str, Value) {
    match notice {
        ToSession::Read(by) => ("message.read", read(by.conversation, &by.reader, by.through, by.at)),
        ToSession::Typing { conversation, sender, start } => {
            let payload = json!({"conversation_id": conversation.to_string(), "sender": sender});
            (if *start { "typing.start" } else { "typing.stop" }, payload)
        }
        ToSession::RateWarning { limit, remaining, reset_at } => {
            ("rate_limit.warning", rate_warning(*limit, *remaining, *reset_at))
        }
        ToSession::Presence { handle, presence } => {
            let payload = json!({
                "handle": handle,
                "status": presence_name(presence.status),
                "custom_message": presence.message,
            });
            ("presence.update", payload)
        }
        ToSession::Invited(invite) => ("group.invite.received", invitation_value(&invite.row, &invite.group, urls)),
        ToSession::GroupDeleted(end) => ("group.deleted", group_end_value(end)),
        // Written by whoever knows more, or never meant for an agent.
        ToSession::Message { .. } | ToSession::Seen { .. } | ToSession::Changed { .. } | ToSession::Close(_) => {
            ("error", Value::Null)
        }
    }
}

fn read(conversation: ConversationId, reader: &str, through: Seq, at: Timestamp) -> Value {
    json!({
        "conversation_id": conversation.to_string(),
        "reader": reader,
        "through_seq": through.0,
        "message_id": MessageId { conversation, seq: through }.to_string(),
        "at": Ts(at),
    })
}

fn rate_warning(limit: u32, remaining: u32, reset_at: Timestamp) -> Value {
    json!({
        "endpoint": "POST /v1/messages",
        "limit": limit,
        "remaining": remaining,
        "reset_at": Ts(reset_at),
        "message": "little is left of this allowance",
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actors::api::{GroupEnd, Invitation, PeerRead};
    use proptest::prelude::*;
    use schema::ids::{AgentId, InviteId, Key, Pos};
    use schema::rows::{GroupRow, InviteRow, MessageType};

    use super::*;

    const REGISTRY: &str = include_str!("../../tests/contract/frames.jsonl");

    fn conversation() -> ConversationId {
        ConversationId::direct(AgentId(Key::from_bytes([1; 16])), AgentId(Key::from_bytes([2; 16])))
    }

    fn row() -> MessageRow {
        MessageRow {
            conversation: conversation(),
            seq: Seq(7),
            sender: AgentId(Key::from_bytes([1; 16])),
            sender_handle: "alice".into(),
            client_msg_id: "c".into(),
            kind: MessageType::Text,
            content: r#"{"text":"hi"}"#.into(),
            metadata: "{}".into(),
            mentions: vec![],
            created_at: Timestamp(0),
        }
    }

    /// The registry's required keys are in what the server writes.
    #[test]
    fn server_frames_match_the_registry() {
        let urls = Urls::new("http://x".into());
        let group = || {
            Arc::new(GroupRow {
                id: conversation(),
                name: "g".into(),
                description: None,
                picture: None,
                created_by: AgentId(Key::from_bytes([1; 16])),
                created_by_handle: "alice".into(),
                members: Vec::new(),
                invites: Vec::new(),
                deleted: None,
                created_at: Timestamp(0),
            })
        };
        let row_of_invite = InviteRow {
            id: InviteId(Key::from_bytes([3; 16])),
            group: conversation(),
            agent: AgentId(Key::from_bytes([2; 16])),
            inviter: AgentId(Key::from_bytes([1; 16])),
            inviter_handle: "alice".into(),
            created_at: Timestamp(0),
        };
        let typing = |start| ToSession::Typing { conversation: conversation(), sender: "bob".into(), start };
        let notices = [
            ToSession::Read(Box::new(PeerRead {
                conversation: conversation(),
                reader: "bob".into(),
                through: Seq(7),
                at: Timestamp(0),
            })),
            typing(true),
            typing(false),
            ToSession::RateWarning { limit: 60, remaining: 3, reset_at: Timestamp(0) },
            ToSession::Presence { handle: "bob".into(), presence: Box::default() },
            ToSession::Invited(Arc::new(Invitation { row: row_of_invite, group: group() })),
            ToSession::GroupDeleted(Box::new(GroupEnd { group: conversation(), by: "alice".into(), at: Timestamp(0) })),
        ];
        let written = [
            hello_ok(AckMode::OnWrite),
            hello_error(&ApiError::Unauthorized),
            error(&ApiError::Forbidden, Some("1")),
            message(&row(), About::default(), None),
        ];
        for text in written.into_iter().chain(notices.iter().map(|one| notice(one, &urls))) {
            let frame: Value = serde_json::from_str(&text).unwrap();
            let kind = frame["type"].as_str().unwrap();
            let lines = REGISTRY.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let line = lines.into_iter().find(|line| line["t"] == kind && line["dir"] == "s").expect(kind);
            for key in line["req"].as_array().unwrap().iter().filter_map(Value::as_str) {
                let found = key.strip_prefix('^').map_or_else(|| frame["payload"].get(key), |top| frame.get(top));
                assert!(found.is_some(), "{kind}: {key} is missing in {text}");
            }
        }
    }

    #[test]
    fn only_backlog_frames_name_their_delivery() {
        let agent = AgentId(Key::from_bytes([2; 16]));
        let with = message(&row(), About::default(), Some(DeliveryId::new(agent, Pos(3))));
        assert!(with.contains("\"delivery_id\":\"del_"));
        assert!(!message(&row(), About::default(), None).contains("delivery_id"));
    }

    #[track_caller]
    fn check(text: &str, expected: Incoming) {
        assert_eq!(parse(text).frame, expected, "{text}");
    }

    #[test]
    fn client_frames() {
        let (id, at) = (conversation(), MessageId { conversation: conversation(), seq: Seq(7) });
        check(&format!(r#"{{"type":"ack","message_id":"{at}"}}"#), Incoming::Ack(at));
        check(r#"{"type":"ack","message_id":"msg_x"}"#, Incoming::Ignored);
        check(r#"{"type":"ack"}"#, Incoming::Ignored);
        let through = |seq: &str| {
            format!(r#"{{"type":"message.read_ack","payload":{{"conversation_id":"{id}","through_seq":{seq}}}}}"#)
        };
        check(&through("3"), Incoming::ReadThrough(id, Seq(3)));
        for bad in ["0", "-1", "1.5", "\"3\"", "null"] {
            assert!(matches!(parse(&through(bad)).frame, Incoming::Invalid(_)), "{bad}");
        }
        check(&format!(r#"{{"type":"message.read_ack","payload":{{"message_id":"{at}"}}}}"#), Incoming::ReadOne(at));
        let typing = format!(r#"{{"type":"typing.stop","payload":{{"conversation_id":"{id}"}}}}"#);
        check(&typing, Incoming::Typing(id, false));
        assert!(matches!(parse(r#"{"type":"typing.start","payload":[]}"#).frame, Incoming::Invalid(_)));
        check(
            r#"{"type":"presence.update","payload":{"status":"busy"}}"#,
            Incoming::Presence(PresenceStatus::Busy, None),
        );
        assert!(matches!(parse(r#"{"type":"presence.update","payload":{}}"#).frame, Incoming::Invalid(_)));
        assert_eq!(parse(r#"{"type":"message.send","id":"9"}"#).id.as_deref(), Some("9"));
        for nothing in ["", "{", "[]", "7", r#"{"type":7}"#, r#"{"type":"hello"}"#, r#"{"type":"from.the.future"}"#] {
            check(nothing, Incoming::Ignored);
        }
    }

    #[test]
    fn hellos() {
        let hello = |text: &str| parse_hello(text).map(|hello| (hello.api_key, hello.ack));
        assert_eq!(hello(r#"{"type":"hello","api_key":"k"}"#), Some(("k".into(), false)));
        assert_eq!(hello(r#"{"type":"hello","token":"k","capabilities":["x","ack"]}"#), Some(("k".into(), true)));
        assert_eq!(hello(r#"{"type":"hello","api_key":"k","capabilities":null}"#), Some(("k".into(), false)));
        for bad in [r#"{"type":"hello"}"#, r#"{"type":"hello","api_key":7}"#, r#"{"type":"ack"}"#, "x"] {
            assert_eq!(hello(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_ignored_or_refused(text in ".{0,300}", kind in "[a-z._]{0,20}", payload in "[\\[\\]{}\":,a-z0-9]{0,60}") {
            let _ = (parse(&text), parse_hello(&text));
            let framed = format!(r#"{{"type":"{kind}","payload":{payload},"message_id":"{payload}"}}"#);
            let _ = (parse(&framed), parse_hello(&framed));
        }
    }
}
