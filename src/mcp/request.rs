//! From the arguments of a call to the request that it is.
//!
//! Q1  Values go through as they are: the route judges them. Refused here is only what makes no request: an argument
//!     that the tool does not have, and a segment of the path or a query that is no plain value.
//! Q2  A segment is encoded whole, so that no argument leads to another route.

use axum::http::{Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rmcp::model::JsonObject;
use serde_json::{Map, Value, json};

use super::tools::{Arg, Filling, Place, Tool};
use crate::identity::fresh_key;
use crate::wire::error::{ApiError, Complaints};

/// What stays as it is in a segment (Q2).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A request of the agent API, without its caller.
#[derive(Debug, PartialEq)]
pub struct Prepared {
    /// As the tool says.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// `None`: the route takes no body.
    pub body: Option<Value>,
    /// Under which a send may be repeated.
    pub client_msg_id: Option<String>,
}

/// What is made of the arguments one by one.
struct Making<'a> {
    path: String,
    query: Vec<(&'a str, String)>,
    body: Option<Map<String, Value>>,
    client_msg_id: Option<String>,
    complaints: Complaints,
}

/// The request that a call of `tool` is, for the caller with the handle `own`.
pub fn prepare(tool: &'static Tool, mut arguments: JsonObject, own: &str) -> Result<Prepared, ApiError> {
    let mut making = Making {
        path: tool.path.to_owned(),
        query: Vec::new(),
        body: tool.args.iter().any(|arg| matches!(arg.place, Place::Body(_))).then(Map::new),
        client_msg_id: None,
        complaints: Complaints::default(),
    };
    for arg in &tool.args {
        let given = if arg.filling.shown() { arguments.remove(arg.name) } else { None };
        making.take(arg, given, own);
    }
    for name in arguments.keys() {
        making.complain(name, "is no argument of this tool");
    }
    making.finish(tool.method.clone())
}

impl Making<'_> {
    fn complain(&mut self, name: &str, complaint: &str) {
        self.complaints.fields.entry(name.to_owned()).or_default().push(complaint.to_owned());
    }

    fn take(&mut self, arg: &'static Arg, given: Option<Value>, own: &str) {
        let value = match arg.filling {
            Filling::Always(value) => json!(value),
            Filling::OwnHandle => json!(own),
            // `null` clears in a body, and is nothing elsewhere.
            _ => match given.filter(|value| !value.is_null() || matches!(arg.place, Place::Body(_))) {
                Some(value) => value,
                None => match arg.filling {
                    Filling::Required => return self.complain(arg.name, "is required"),
                    Filling::Fresh => Value::Null,
                    Filling::Rows { usual, .. } => json!(usual),
                    _ => return,
                },
            },
        };
        match arg.place {
            Place::Path => self.segment(arg, &value),
            Place::Query => self.query(arg, &value),
            Place::Body(key) => {
                let value = if arg.filling == Filling::Fresh { self.keyed(value) } else { value };
                put(self.body.get_or_insert_default(), key, value);
            }
        }
    }

    fn segment(&mut self, arg: &Arg, value: &Value) {
        match value.as_str() {
            Some(text) if !text.trim().is_empty() => {
                let encoded = utf8_percent_encode(text.trim(), SEGMENT).to_string();
                self.path = self.path.replace(&format!("{{{}}}", arg.name), &encoded);
            }
            _ => self.complain(arg.name, "must be a string, and not empty"),
        }
    }

    fn query(&mut self, arg: &'static Arg, value: &Value) {
        let text = match (value, arg.filling) {
            (Value::Number(number), Filling::Rows { most, .. }) => {
                // More rows than there can be are no mistake, as in the agent API.
                number.as_u64().map_or_else(|| number.to_string(), |rows| rows.min(most).to_string())
            }
            (Value::Number(number), _) => number.to_string(),
            (Value::String(text), _) => text.clone(),
            _ => return self.complain(arg.name, "must be a string or a number"),
        };
        self.query.push((arg.name, text));
    }

    /// The id of a message, drawn if the caller gave none.
    fn keyed(&mut self, given: Value) -> Value {
        let value = if given.is_null() { json!(format!("mcp_{}", fresh_key().as_str())) } else { given };
        self.client_msg_id = value.as_str().map(str::to_owned);
        value
    }

    fn finish(self, method: Method) -> Result<Prepared, ApiError> {
        if self.complaints != Complaints::default() {
            return Err(ApiError::Validation(self.complaints));
        }
        let query = serde_urlencoded::to_string(&self.query).map_err(|_| ApiError::Internal)?;
        let target = if query.is_empty() { self.path } else { format!("{}?{query}", self.path) };
        let uri = target.parse().map_err(|_| ApiError::form("an argument is too long"))?;
        Ok(Prepared { method, uri, body: self.body.map(Value::Object), client_msg_id: self.client_msg_id })
    }
}

/// Sets a key; dots lead into objects, which are made on the way. What is there and no object stays, for the route to
/// judge.
fn put(body: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(body.insert(key.to_owned(), value)),
        Some((outer, inner)) => {
            let object = body.entry(outer).or_insert_with(|| json!({}));
            if object.is_null() {
                *object = json!({});
            }
            if let Some(object) = object.as_object_mut() {
                put(object, inner, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::tools::named;

    fn made(tool: &str, arguments: Value) -> Result<Prepared, ApiError> {
        prepare(named(tool).unwrap(), arguments.as_object().unwrap().clone(), "alice")
    }

    #[track_caller]
    fn check(tool: &str, arguments: Value, request: &str, body: Value) {
        let made = made(&format!("agentchat_{tool}"), arguments).unwrap();
        assert_eq!(format!("{} {}", made.method, made.uri), request);
        assert_eq!(made.body.unwrap_or(Value::Null), body);
    }

    #[track_caller]
    fn complains(tool: &str, arguments: Value, fields: &[&str]) {
        let Err(ApiError::Validation(complaints)) = made(tool, arguments) else { panic!("accepted") };
        assert_eq!(complaints.fields.keys().collect::<Vec<_>>(), fields);
    }

    #[test]
    fn arguments_find_their_places() {
        check("get_status", json!({}), "GET /v1/agents/me", Value::Null);
        check("get_agent", json!({"handle": " @Bob"}), "GET /v1/agents/%40Bob", Value::Null);
        check("unblock_agent", json!({"handle": ".."}), "DELETE /v1/contacts/%2E%2E/block", Value::Null);
        check("get_agent", json!({"handle": "a/b?c#d%2e"}), "GET /v1/agents/a%2Fb%3Fc%23d%252e", Value::Null);
        check(
            "search_directory",
            json!({"q": "a b&c", "limit": 7}),
            "GET /v1/directory?q=a+b%26c&limit=7",
            Value::Null,
        );
        check("read_inbox", json!({"limit": 1000, "after": null}), "GET /v1/messages/sync?limit=100", Value::Null);
        check("read_inbox", json!({"limit": -1}), "GET /v1/messages/sync?limit=-1", Value::Null);
        check("block_agent", json!({"handle": "bob"}), "POST /v1/contacts/bob/block", Value::Null);
        check("report_agent", json!({"handle": "bob"}), "POST /v1/contacts/bob/report", json!({}));
        check(
            "note_contact",
            json!({"handle": "bob", "notes": null}),
            "PATCH /v1/contacts/bob",
            json!({"notes": null}),
        );
        check(
            "mute_agent",
            json!({"handle": "bob"}),
            "POST /v1/mutes",
            json!({"target_kind": "agent", "target_handle": "bob"}),
        );
        check(
            "update_profile",
            json!({"inbox_mode": "open"}),
            "PATCH /v1/agents/alice",
            json!({"settings": {"inbox_mode": "open"}}),
        );
        check(
            "remove_group_member",
            json!({"id": "grp_1", "handle": "bob"}),
            "DELETE /v1/groups/grp_1/members/bob",
            Value::Null,
        );
    }

    #[test]
    fn a_send_has_an_id_of_its_own_or_a_fresh_one() {
        let body =
            json!({"to": "bob", "text": "hi", "reply_to": "msg_1", "metadata": {"k": 1}, "client_msg_id": "mine"});
        let made = made("agentchat_send_message", body).unwrap();
        assert_eq!(made.client_msg_id.as_deref(), Some("mine"));
        let wanted = json!({"to": "bob", "client_msg_id": "mine", "content": {"text": "hi"},
            "metadata": {"k": 1, "reply_to": "msg_1"}});
        assert_eq!(made.body, Some(wanted));
        let fresh =
            || super::tests::made("agentchat_send_group_message", json!({"group_id": "grp_1", "text": "x"})).unwrap();
        let (one, two) = (fresh(), fresh());
        assert_ne!(one.client_msg_id, two.client_msg_id);
        assert_eq!(one.body.unwrap()["client_msg_id"], json!(one.client_msg_id));
        assert_eq!(two.body.unwrap()["conversation_id"], "grp_1");
    }

    #[test]
    fn a_metadata_that_is_no_object_is_left_to_the_route() {
        let made = made("agentchat_send_message", json!({"to": "bob", "metadata": 7, "reply_to": "msg_1"})).unwrap();
        assert_eq!(made.body.unwrap()["metadata"], 7);
    }

    #[test]
    fn what_makes_no_request_is_named() {
        complains("agentchat_get_agent", json!({}), &["handle"]);
        complains("agentchat_get_agent", json!({"handle": 7}), &["handle"]);
        complains("agentchat_get_agent", json!({"handle": " "}), &["handle"]);
        complains("agentchat_get_agent", json!({"handle": null, "note": "x"}), &["handle", "note"]);
        complains("agentchat_send_message", json!({"text": "x"}), &["to"]);
        complains("agentchat_update_profile", json!({"handle": "bob"}), &["handle"]);
        complains("agentchat_search_directory", json!({"q": ["a"]}), &["q"]);
        let long = made("agentchat_get_agent", json!({"handle": "%".repeat(60_000)}));
        assert_eq!(long, Err(ApiError::form("an argument is too long")));
    }
}
