//! From the body of a send to a draft: content rules, type inference, sizes.
//!
//! D1  What leaves here is compact JSON within [`PAYLOAD_MAX`] bytes, `content` without null known keys.
//! D2  Unknown keys inside `content` are kept; type and keys are not cross-checked.

use actors::api::{Attachment, Draft};
use schema::rows::MessageType;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::fields::Fields;
use super::json::compact_object;
use super::mentions::mentions;

/// Most bytes of content and metadata together, as compact JSON.
pub const PAYLOAD_MAX: usize = 32_768;
/// Longest deduplication key, in characters.
const CLIENT_MSG_ID_MAX: usize = 128;

/// Where the sender wants it to go, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `to`.
    Handle(String),
    /// `conversation_id`.
    Conversation(String),
}

#[derive(Deserialize)]
struct Known<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    attachment_id: Option<&'a RawValue>,
}

/// Parses the body of `POST /v1/messages`.
pub fn draft(mut fields: Fields) -> Result<(Address, Draft), ApiError> {
    let address = address(&mut fields);
    let client_msg_id = fields.required("client_msg_id");
    if client_msg_id.chars().count() > CLIENT_MSG_ID_MAX {
        fields.complain("client_msg_id", "must be at most 128 characters");
    }
    let wanted = fields.text("type");
    let kind = match wanted.as_deref() {
        None => None,
        Some("text") => Some(MessageType::Text),
        Some("structured") => Some(MessageType::Structured),
        Some("file") => Some(MessageType::File),
        Some(_) => {
            fields.complain("type", "must be text, structured or file");
            None
        }
    };
    let metadata = match fields.raw("metadata").map(|raw| compact_object(raw, &[])) {
        None => "{}".to_owned(),
        Some(Ok(metadata)) => metadata,
        Some(Err(fault)) => {
            fields.complain("metadata", fault.to_string());
            String::new()
        }
    };
    let content = content(&mut fields);
    fields.finish()?;
    let (Some(address), Some(content)) = (address, content) else { return Err(ApiError::Internal) };
    if content.json.len() + metadata.len() > PAYLOAD_MAX {
        return Err(ApiError::PayloadTooLarge { max_bytes: PAYLOAD_MAX });
    }
    let draft = Draft {
        client_msg_id,
        kind: kind.unwrap_or(content.kind),
        mentions: content.text.as_deref().map(mentions).unwrap_or_default(),
        attachment: content.attachment_id.map(|id| Attachment { id, usable: false }),
        content: content.json,
        metadata,
    };
    Ok((address, draft))
}

fn address(fields: &mut Fields) -> Option<Address> {
    match (fields.text("to"), fields.text("conversation_id")) {
        (Some(to), None) => Some(Address::Handle(to)),
        (None, Some(id)) => Some(Address::Conversation(id)),
        (Some(_), Some(_)) | (None, None) => {
            fields.complain("to", "give exactly one of to and conversation_id");
            None
        }
    }
}

struct Content {
    json: String,
    kind: MessageType,
    text: Option<String>,
    attachment_id: Option<String>,
}

/// The `content` value. `None` means that a complaint was filed.
fn content(fields: &mut Fields) -> Option<Content> {
    let Some(raw) = fields.raw("content").map(str::to_owned) else {
        fields.complain("content", "is required");
        return None;
    };
    // A bare string stands for its text: the Python quick start sends exactly that.
    let wrapped = if raw.starts_with('"') { format!("{{\"text\":{raw}}}") } else { raw };
    let json = compact_object(&wrapped, &["text", "data", "attachment_id"])
        .map_err(|fault| fields.complain("content", fault.to_string()))
        .ok()?;
    let Ok(known) = serde_json::from_str::<Known<'_>>(&json) else {
        fields.complain("content", "must be an object");
        return None;
    };
    let text = string(fields, "content.text", known.text);
    let attachment_id = string(fields, "content.attachment_id", known.attachment_id);
    if known.data.is_some_and(|data| !data.get().starts_with('{')) {
        fields.complain("content.data", "must be an object");
    }
    let empty = text.as_deref().is_none_or(str::is_empty);
    if empty && known.data.is_none() && known.attachment_id.is_none() {
        fields.complain("content", "needs a non-empty text, data or attachment_id");
    }
    let kind = if known.attachment_id.is_some() {
        MessageType::File
    } else if known.text.is_some() {
        MessageType::Text
    } else {
        MessageType::Structured
    };
    Some(Content { kind, text, attachment_id, json })
}

fn string(fields: &mut Fields, path: &str, raw: Option<&RawValue>) -> Option<String> {
    let parsed = serde_json::from_str(raw?.get());
    if parsed.is_err() {
        fields.complain(path, "must be a string");
    }
    parsed.ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(content: &str) -> Result<(Address, Draft), ApiError> {
        let body = format!(r#"{{"to":"bob","client_msg_id":"c1","content":{content}}}"#);
        draft(Fields::parse(body.as_bytes()).unwrap())
    }

    #[track_caller]
    fn check(content: &str, expected: Option<(&str, MessageType)>) {
        let got = parse(content).ok().map(|(_, draft)| (draft.content, draft.kind));
        assert_eq!(got, expected.map(|(json, kind)| (json.to_owned(), kind)), "{content}");
    }

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn content_rules() {
        check(r#""hi""#,                                  Some((r#"{"text":"hi"}"#, MessageType::Text)));
        check(r#"{"text": "hi", "data": null}"#,          Some((r#"{"text":"hi"}"#, MessageType::Text)));
        check(r#"{"data": {"a": 1}}"#,                    Some((r#"{"data":{"a":1}}"#, MessageType::Structured)));
        check(r#"{"text":"","attachment_id":"att_1"}"#,   Some((r#"{"text":"","attachment_id":"att_1"}"#, MessageType::File)));
        check(r#"{"type":"text","text":"x"}"#,            Some((r#"{"type":"text","text":"x"}"#, MessageType::Text)));
        check(r#"{"text": ""}"#,                          None);
        check(r#""""#,                                    None);
        check(r#"{}"#,                                    None);
        check(r#"null"#,                                  None);
        check(r#"{"text": 1}"#,                           None);
        check(r#"{"data": [1]}"#,                         None);
        check(r#"[1]"#,                                   None);
    }

    #[test]
    fn sizes_and_types() {
        let long = "x".repeat(PAYLOAD_MAX);
        assert_eq!(parse(&format!("\"{long}\"")).unwrap_err(), ApiError::PayloadTooLarge { max_bytes: PAYLOAD_MAX });
        let body = br#"{"to":"bob","client_msg_id":"c","type":"system","content":"x"}"#;
        assert!(draft(Fields::parse(body).unwrap()).is_err());
        let body = br#"{"to":"bob","conversation_id":"conv_1","client_msg_id":"c","content":"x"}"#;
        assert!(draft(Fields::parse(body).unwrap()).is_err());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "\\PC{0,12}".prop_map(Into::into),
        ];
        let key = prop_oneof![
            Just("text".to_owned()),
            Just("data".to_owned()),
            Just("attachment_id".to_owned()),
            "[a-z]{0,3}"
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::hash_map(key.clone(), inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(body: Vec<u8>) {
            let _ = Fields::parse(&body).and_then(draft);
        }

        #[test]
        fn what_is_accepted_is_compact_and_has_no_null_known_keys(content in json(), metadata in json()) {
            let body = serde_json::json!({"to": "bob", "client_msg_id": "c", "content": content, "metadata": metadata});
            let body = serde_json::to_vec_pretty(&body).unwrap();
            if let Ok((_, draft)) = draft(Fields::parse(&body).unwrap()) {
                let stored: serde_json::Value = serde_json::from_str(&draft.content).unwrap();
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&draft.metadata).unwrap().is_object(), true);
                for key in ["text", "data", "attachment_id"] {
                    prop_assert_ne!(stored.get(key), Some(&serde_json::Value::Null));
                }
                prop_assert!(draft.content.len() + draft.metadata.len() <= PAYLOAD_MAX);
            }
        }
    }
}
