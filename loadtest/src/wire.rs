//! The contract as a client from outside sees it: our own types, sharing none with the server.
//!
//! W1  What the contract promises is required here, so a field that went missing is an error and no silent zero.
//! W2  Every message of a run says in its `client_msg_id` which run and lane it belongs to, its number, to whom it goes and
//!     when it was meant to be sent: receivers need no table of what is on its way.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A stored message: in the answer to a send, in a frame, in a row of sync.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// `msg_…`.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// `conv_…` or `grp_…`.
    #[serde(borrow)]
    pub conversation_id: Cow<'a, str>,
    /// Handle of the author.
    #[serde(borrow)]
    pub sender: Cow<'a, str>,
    /// As its author chose it.
    #[serde(borrow)]
    pub client_msg_id: Cow<'a, str>,
    /// Place in the conversation, from 1.
    pub seq: u32,
    /// Place in the inbox; in rows of sync, and in frames of a backlog.
    #[serde(default)]
    pub delivery_id: Option<String>,
    /// Members whose inbox is full; in answers to group sends.
    #[serde(default)]
    pub skipped_recipients: Vec<String>,
}

/// A frame from the server.
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    /// What it is.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// Its body, not yet read.
    #[serde(borrow, default)]
    pub payload: Option<&'a RawValue>,
}

/// `presence.update`.
#[derive(Debug, Deserialize)]
pub struct Presence<'a> {
    /// Whose.
    #[serde(borrow)]
    pub handle: Cow<'a, str>,
    /// As it was set.
    pub custom_message: Option<String>,
}

/// The error envelope.
#[derive(Debug, Deserialize)]
pub struct Refusal<'a> {
    /// The contract's code.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
}

/// A group as it was made.
#[derive(Debug, Deserialize)]
pub struct CreatedGroup {
    /// Itself.
    pub group: Group,
    /// What became of each handle.
    pub add_results: Vec<Added>,
}

/// The part of a group that is used here.
#[derive(Debug, Deserialize)]
pub struct Group {
    /// `grp_…`.
    pub id: String,
}

/// What became of a handle that was to be added.
#[derive(Debug, Deserialize)]
pub struct Added {
    /// Who.
    pub handle: String,
    /// `joined`, `already_member` or `invited`.
    pub outcome: String,
    /// If invited.
    #[serde(default)]
    pub invite_id: Option<String>,
}

/// Who a message of a run is (W2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Which run.
    pub run: u32,
    /// Which scenario of it.
    pub lane: u16,
    /// Number within the lane.
    pub index: u64,
    /// Number of the recipient, or of the group.
    pub to: u64,
    /// When it was meant to be sent, in microseconds since the run began.
    pub at_us: u64,
}

impl Tag {
    /// As a `client_msg_id`.
    pub fn encode(&self) -> String {
        format!("lt.{:x}.{:x}.{:x}.{:x}.{:x}", self.run, self.lane, self.index, self.to, self.at_us)
    }

    /// `None` for ids that no run has made.
    pub fn decode(id: &str) -> Option<Self> {
        let mut parts = id.strip_prefix("lt.")?.split('.');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let tag = Self {
            run: u32::try_from(number()?).ok()?,
            lane: u16::try_from(number()?).ok()?,
            index: number()?,
            to: number()?,
            at_us: number()?,
        };
        parts.next().is_none().then_some(tag)
    }
}

/// Body of a send; `target` is `"to":"…"` or `"conversation_id":"…"`. Text and ids are ours and need no escapes.
pub fn send_body(target: &str, client_msg_id: &str, text: &str) -> String {
    format!(r#"{{{target},"client_msg_id":"{client_msg_id}","content":{{"text":"{text}"}}}}"#)
}

/// Frame that acknowledges a message.
pub fn ack_frame(message_id: &str) -> String {
    format!(r#"{{"type":"ack","message_id":"{message_id}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_journey_and_strangers_are_no_tags() {
        let tag = Tag { run: u32::MAX, lane: 3, index: 1 << 40, to: 999_999, at_us: 123_456_789 };
        assert_eq!(Tag::decode(&tag.encode()), Some(tag));
        assert!(tag.encode().len() <= 128, "the contract's longest client_msg_id");
        for stranger in ["", "lt.", "lt.1.2.3.4", "lt.1.2.3.4.5.6", "lt.g.2.3.4.5", "sys_1", "lt.1.10000.3.4.5"] {
            assert_eq!(Tag::decode(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_missing_field_is_an_error() {
        let whole = r#"{"id":"msg_1","conversation_id":"conv_1","sender":"a","client_msg_id":"x","seq":1}"#;
        assert!(serde_json::from_str::<Message<'_>>(whole).is_ok());
        assert!(serde_json::from_str::<Message<'_>>(&whole.replace(r#","seq":1"#, "")).is_err());
        let body = send_body(r#""to":"bob""#, "id", "hello");
        assert_eq!(body, r#"{"to":"bob","client_msg_id":"id","content":{"text":"hello"}}"#);
    }
}
