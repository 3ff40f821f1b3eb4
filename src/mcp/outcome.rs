//! From the answer of a route to the result of a call.
//!
//! O1  A refusal carries the contract's code, message and details, unchanged; status, waiting time, request id and
//!     advice stand beside them.
//! O2  A result is an object, once as text and once as it is: some hosts show only the one, some only the other.

use axum::body::to_bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rmcp::model::CallToolResult;
use serde_json::{Value, json};

use crate::wire::error::ApiError;

/// Largest answer: a full page of the longest messages.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// What a call ends with. `rows` names the key under which an array is given, `client_msg_id` the message that was
/// sent.
pub async fn outcome(answer: Response, rows: Option<&'static str>, client_msg_id: Option<&str>) -> CallToolResult {
    let (parts, body) = answer.into_parts();
    let Ok(bytes) = to_bytes(body, ANSWER_MAX).await else {
        let refusal = ApiError::form("the answer is too large: ask for fewer rows");
        return Box::pin(outcome(refusal.into_response(), None, None)).await;
    };
    match serde_json::from_slice(&bytes) {
        Ok(answer) if parts.status.is_success() => CallToolResult::structured(given(answer, rows, &parts.headers)),
        parsed => {
            // Every route answers with JSON; anything else would be a fault of ours.
            let envelope = parsed.unwrap_or_else(|_| json!(ApiError::Internal.envelope()));
            CallToolResult::structured_error(refused(envelope, parts.status, &parts.headers, client_msg_id))
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn given(mut answer: Value, rows: Option<&'static str>, headers: &HeaderMap) -> Value {
    if let Some(key) = rows {
        answer = json!({key: answer});
    }
    if text(headers, "idempotent-replay").is_some() {
        answer["idempotent_replay"] = json!(true);
    }
    if let Some(warning) = text(headers, "x-backlog-warning") {
        answer["backlog_warning"] = json!(warning);
    }
    answer
}

fn refused(mut envelope: Value, status: StatusCode, headers: &HeaderMap, client_msg_id: Option<&str>) -> Value {
    envelope["status"] = json!(status.as_u16());
    if let Some(seconds) = text(headers, header::RETRY_AFTER.as_str()).and_then(|text| text.parse::<u64>().ok()) {
        envelope["retry_after_seconds"] = json!(seconds);
    }
    if let Some(id) = text(headers, "x-request-id") {
        envelope["request_id"] = json!(id);
    }
    if let Some(id) = client_msg_id {
        envelope["client_msg_id"] = json!(id);
    }
    if let Some(advice) = advice(envelope["code"].as_str().unwrap_or_default(), status) {
        envelope["advice"] = json!(advice);
    }
    envelope
}

/// What a model should do about a refusal, where it is not obvious.
fn advice(code: &str, status: StatusCode) -> Option<&'static str> {
    Some(match code {
        "AWAITING_REPLY" => "do not send again: wait until this agent answers your first message",
        "BLOCKED" => "do not try again",
        "INBOX_RESTRICTED" => "this agent accepts contacts only: leave it alone",
        "RESTRICTED" => "you were blocked too often: write only to those who know you, until it fades",
        "AGENT_SUSPENDED" => "stop, and tell your owner: only an operator can lift this",
        "AGENT_PAUSED_BY_OWNER" => "stop sending, and tell your owner",
        "RATE_LIMITED" => "wait retry_after_seconds before the next call",
        "RECIPIENT_BACKLOGGED" => "its inbox is full: try much later",
        "PAYLOAD_TOO_LARGE" => "shorten it, or attach a file",
        "GROUP_DELETED" => "the group is gone for good",
        "INTERNAL_ERROR" if status == StatusCode::SERVICE_UNAVAILABLE => {
            "the outcome is unknown: try again in a moment, a send with the same client_msg_id"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use axum::Json;

    use super::*;

    async fn error_of(error: ApiError, client_msg_id: Option<&str>) -> Value {
        let result = outcome(error.into_response(), None, client_msg_id).await;
        assert_eq!(result.is_error, Some(true));
        let value = result.structured_content.unwrap();
        let text = result.content[0].as_text().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text.text).unwrap(), value);
        value
    }

    #[tokio::test]
    async fn a_refusal_keeps_code_message_and_details() {
        let waiting = ApiError::AwaitingReply { handle: "bob".to_owned(), since: schema::rows::Timestamp(0) };
        let value = error_of(waiting.clone(), Some("mine")).await;
        let envelope = json!(waiting.envelope());
        for key in ["code", "message", "details"] {
            assert_eq!(value[key], envelope[key]);
        }
        assert_eq!((value["status"].as_u64(), value["client_msg_id"].as_str()), (Some(403), Some("mine")));
        let value = error_of(ApiError::RateLimited { retry_after_ms: 1_500 }, None).await;
        assert_eq!(value["code"], "RATE_LIMITED");
        assert_eq!((value["retry_after_seconds"].as_u64(), value.get("client_msg_id")), (Some(2), None));
    }

    #[tokio::test]
    async fn answers_are_objects_with_what_headers_say() {
        let rows = outcome(Json(json!([1, 2])).into_response(), Some("messages"), None).await;
        assert_eq!(rows.structured_content, Some(json!({"messages": [1, 2]})));
        let headers = [("idempotent-replay", "true"), ("x-backlog-warning", "bob=5000")];
        let sent = outcome((headers, Json(json!({"id": "msg_1"}))).into_response(), None, Some("mine")).await;
        let wanted = json!({"id": "msg_1", "idempotent_replay": true, "backlog_warning": "bob=5000"});
        assert_eq!((sent.structured_content, sent.is_error), (Some(wanted), Some(false)));
    }

    #[tokio::test]
    async fn what_is_too_large_or_no_json_is_an_error_too() {
        let large = outcome(Json("x".repeat(ANSWER_MAX)).into_response(), None, None).await;
        assert_eq!(large.structured_content.unwrap()["code"], "VALIDATION_ERROR");
        let broken = outcome((StatusCode::INTERNAL_SERVER_ERROR, "oops").into_response(), None, None).await;
        assert_eq!(broken.structured_content.unwrap()["code"], "INTERNAL_ERROR");
    }
}
