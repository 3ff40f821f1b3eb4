//! The protocol's requests: what this server is, its tools, and a call of one.
//!
//! H1  A call ends within [`CALL_DEADLINE`], and an agent has at most [`CALLS_MAX`] under way on a node; beyond that it
//!     is refused at once.
//! H2  The protocol's own errors are for calls that name no tool. Whatever else goes wrong is the result of the call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorCode, Implementation, JsonObject, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool as Shown,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use schema::ids::AgentId;
use serde_json::json;
use tower::ServiceExt;

use super::Admission;
use super::outcome::outcome;
use super::request::{Prepared, prepare};
use super::tools::{self, Tool};
use crate::app::App;
use crate::http::extract::{Admitted, Caller};
use crate::wire::error::ApiError;

/// A call has to end within this: longer than any route takes, shorter than hosts wait.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Calls of one agent under way on this node: a model with several things at once, but no crowd.
const CALLS_MAX: usize = 16;
/// How long an agent with too many calls should wait: most calls take milliseconds.
const CROWD_WAIT_MS: u64 = 1_000;
/// What a model should know before its first call.
const INSTRUCTIONS: &str = include_str!("instructions.md");
/// By which the client is counted if it does not say what it is.
const CLIENT: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-agentchat-client"), HeaderValue::from_static("mcp"));
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What serves all requests.
pub struct Host {
    api: Router,
    /// Names the client behind a trusted proxy; the routes look there too.
    ip_header: Option<HeaderName>,
    instructions: String,
    turns: Turns,
    deadline: Duration,
}

impl Host {
    /// Over the routes of the agent API.
    pub fn new(app: &App, api: Router) -> Self {
        let ip_header = app.config.client_ip_header.as_deref().and_then(|name| name.parse().ok());
        let instructions = INSTRUCTIONS.replace("{{BASE}}", app.urls.base());
        Self { api, ip_header, instructions, turns: Turns::default(), deadline: CALL_DEADLINE }
    }

    async fn call(&self, tool: &'static Tool, arguments: JsonObject, parts: &Parts) -> CallToolResult {
        let Some(Admission(admission)) = parts.extensions.get::<Admission>() else {
            return failed(ApiError::Internal).await;
        };
        let caller = match admission {
            Ok(caller) => caller,
            Err(shed) => return failed(shed.clone()).await,
        };
        let Some(_turn) = self.turns.take(caller.id()) else {
            return failed(ApiError::RateLimited { retry_after_ms: CROWD_WAIT_MS }).await;
        };
        let prepared = match prepare(tool, arguments, &caller.account.handle) {
            Ok(prepared) => prepared,
            Err(error) => return failed(error).await,
        };
        let key = prepared.client_msg_id.clone();
        let asked = tokio::time::timeout(self.deadline, self.ask(prepared, caller, parts)).await;
        outcome(asked.unwrap_or_else(|_| ApiError::Unavailable.into_response()), tool.rows, key.as_deref()).await
    }

    /// The request as the caller would have sent it.
    async fn ask(&self, prepared: Prepared, caller: &Caller, parts: &Parts) -> Response {
        let Prepared { method, uri, body, .. } = prepared;
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        let headers = request.headers_mut();
        headers.insert(CLIENT.0, CLIENT.1);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for name in [header::AUTHORIZATION, CLIENT.0, REQUEST_ID].iter().chain(&self.ip_header) {
            if parts.headers.contains_key(name) {
                headers.remove(name);
            }
            for value in parts.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        request.extensions_mut().insert(Admitted(caller.clone()));
        if let Some(peer) = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>() {
            request.extensions_mut().insert(*peer);
        }
        let Ok(answer) = self.api.clone().oneshot(request).await;
        answer
    }
}

async fn failed(error: ApiError) -> CallToolResult {
    outcome(error.into_response(), None, None).await
}

/// Where the request came in, with its headers and the outcome of the check.
fn parts(context: &RequestContext<RoleServer>) -> Result<&Parts, ErrorData> {
    context.extensions.get::<Parts>().ok_or_else(|| ErrorData::internal_error("not over HTTP", None))
}

impl ServerHandler for Host {
    fn get_info(&self) -> ServerConfig {
        let server = Implementation::new("agentchat", env!("CARGO_PKG_VERSION")).with_title("AgentChat");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(server)
            .with_instructions(&self.instructions)
    }

    fn get_tool(&self, name: &str) -> Option<Shown> {
        tools::shown(name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        if let Some(Admission(Err(shed))) = parts(&context)?.extensions.get::<Admission>() {
            return Err(ErrorData::new(ErrorCode::INTERNAL_ERROR, shed.to_string(), Some(json!(shed.envelope()))));
        }
        Ok(ListToolsResult::with_all_items(tools::all_shown()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let tool = tools::named(&request.name).ok_or_else(|| ErrorData::invalid_params("no such tool", None))?;
        let arguments = request.arguments.unwrap_or_default();
        Ok(Box::pin(self.call(tool, arguments, parts(&context)?)).await.into())
    }
}

/// Calls under way, by agent; an agent without any takes no place.
#[derive(Debug, Default)]
struct Turns(Arc<Mutex<HashMap<AgentId, usize>>>);

/// A call under way; it ends with this value.
struct Turn(Arc<Mutex<HashMap<AgentId, usize>>>, AgentId);

impl Turns {
    fn take(&self, agent: AgentId) -> Option<Turn> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.entry(agent).or_default();
        if *count >= CALLS_MAX {
            return None;
        }
        *count += 1;
        Some(Turn(Arc::clone(&self.0), agent))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::extract::Request as Asked;
    use axum::http::Method;
    use schema::ids::{Key, KeyHash};
    use schema::rows::{AgentRow, Timestamp};
    use serde_json::Value;

    use super::*;

    fn agent(n: u8) -> AgentId {
        AgentId(Key::from_bytes([n; 16]))
    }

    fn host(api: Router, deadline: Duration) -> Arc<Host> {
        let ip_header = Some(HeaderName::from_static("x-real-ip"));
        Arc::new(Host { api, ip_header, instructions: String::new(), turns: Turns::default(), deadline })
    }

    /// The head of a request whose caller was checked, with this outcome.
    fn head(admission: Result<(), ApiError>, headers: &[(&'static str, &'static str)]) -> Parts {
        let row = AgentRow::new(agent(1), "alice", "a@example.com", KeyHash::of("k"), Timestamp(0));
        let mut request = Request::new(());
        request.extensions_mut().insert(Admission(admission.map(|()| Caller { account: Arc::new(row) })));
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 7))));
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    async fn called(host: &Host, tool: &str, arguments: Value, head: &Parts) -> Value {
        let arguments = arguments.as_object().unwrap().clone();
        host.call(tools::named(tool).unwrap(), arguments, head).await.structured_content.unwrap()
    }

    /// Answers with what it was asked.
    fn mirror() -> Router {
        Router::new().fallback(|request: Asked| async move {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.to_string());
            let admitted = request.extensions().get::<Admitted>().map(|Admitted(caller)| caller.account.handle.clone());
            let headers: Vec<_> =
                request.headers().iter().map(|(name, value)| json!([name.as_str(), value.to_str().unwrap()])).collect();
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            axum::Json(json!({"method": method, "uri": uri, "headers": headers, "peer": peer, "admitted": admitted}))
        })
    }

    #[tokio::test]
    async fn a_request_comes_from_the_caller_and_carries_nothing_else() {
        let sent =
            [("authorization", "Bearer k"), ("x-real-ip", "10.0.0.1, 10.0.0.2"), ("cookie", "c"), ("mcp-name", "n")];
        let asked = called(
            &host(mirror(), CALL_DEADLINE),
            "agentchat_get_agent",
            json!({"handle": "bob"}),
            &head(Ok(()), &sent),
        )
        .await;
        assert_eq!((&asked["method"], &asked["uri"]), (&json!(Method::GET.as_str()), &json!("/v1/agents/bob")));
        assert_eq!((&asked["peer"], &asked["admitted"]), (&json!("192.0.2.1:7"), &json!("alice")));
        let headers = asked["headers"].as_array().unwrap();
        let wanted = [
            json!(["authorization", "Bearer k"]),
            json!(["content-type", "application/json"]),
            json!(["x-agentchat-client", "mcp"]),
            json!(["x-real-ip", "10.0.0.1, 10.0.0.2"]),
        ];
        assert!(headers.len() == wanted.len() && wanted.iter().all(|header| headers.contains(header)), "{headers:?}");
        let named = head(Ok(()), &[("x-agentchat-client", "hermes")]);
        let asked = called(&host(mirror(), CALL_DEADLINE), "agentchat_get_status", json!({}), &named).await;
        assert!(asked["headers"].as_array().unwrap().contains(&json!(["x-agentchat-client", "hermes"])));
    }

    #[tokio::test]
    async fn whoever_is_over_its_budget_asks_nothing() {
        let shed = head(Err(ApiError::RateLimited { retry_after_ms: 7 }), &[]);
        let told = called(&host(mirror(), CALL_DEADLINE), "agentchat_get_status", json!({}), &shed).await;
        assert_eq!((&told["code"], &told["details"]), (&json!("RATE_LIMITED"), &json!({"retry_after_ms": 7})));
    }

    /// A send that hangs: the deadline ends it, and its answer says how to repeat it.
    #[tokio::test]
    async fn a_call_that_hangs_ends_with_an_unknown_outcome() {
        let stuck = Router::new().fallback(std::future::pending::<()>);
        let send = json!({"to": "bob", "text": "x", "client_msg_id": "mine"});
        let told =
            called(&host(stuck, Duration::from_millis(1)), "agentchat_send_message", send, &head(Ok(()), &[])).await;
        assert_eq!((&told["status"], &told["code"]), (&json!(503), &json!("INTERNAL_ERROR")));
        assert_eq!(told["client_msg_id"], "mine");
        assert!(told["advice"].as_str().unwrap().contains("client_msg_id"));
    }

    #[tokio::test]
    async fn one_call_too_many_is_refused_at_once() {
        let host = host(Router::new().fallback(std::future::pending::<()>), CALL_DEADLINE);
        let head = head(Ok(()), &[]);
        let mut under_way: Vec<_> =
            (0..CALLS_MAX).map(|_| Box::pin(called(&host, "agentchat_get_status", json!({}), &head))).collect();
        for call in &mut under_way {
            assert!(futures_util::poll!(call.as_mut()).is_pending());
        }
        let told = called(&host, "agentchat_get_status", json!({}), &head).await;
        assert_eq!(
            (&told["code"], &told["details"]["retry_after_ms"]),
            (&json!("RATE_LIMITED"), &json!(CROWD_WAIT_MS))
        );
        drop(under_way);
        assert!(host.turns.0.lock().unwrap().is_empty(), "calls whose host went away leave nothing behind");
    }

    #[test]
    fn an_agent_has_its_own_turns() {
        let turns = Turns::default();
        let mut taken: Vec<Turn> = (0..CALLS_MAX).map(|_| turns.take(agent(1)).unwrap()).collect();
        assert!(turns.take(agent(1)).is_none());
        assert!(turns.take(agent(2)).is_some());
        taken.pop();
        taken.push(turns.take(agent(1)).unwrap());
        taken.clear();
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
