//! The OpenAPI 3.1 document of the agent API and of the dashboard's, and a page to browse it.
//!
//! D1  Every route of the contract's appendix is described with each of its codes; a test compares the two.
//! D2  Status and code of a failure come from [`ApiError`] itself, so that document and server cannot differ in them.
//! D3  What a derived shape cannot say ("exactly one of these keys") is added in [`refine`], nowhere else.

mod answers;
mod bodies;
mod conversations;
mod dashboard;
mod operation;
mod operations;

use std::sync::OnceLock;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApiBuilder, PathsBuilder, Server};

use crate::app::App;
use crate::dashboard::{ACCESS_COOKIE, REFRESH_COOKIE};

const PAGE: &str = include_str!("../pages/docs.html");
const SCRIPT: &str = include_str!("../pages/docs.js");
const STYLE: &str = include_str!("../pages/docs.css");
/// Nothing from elsewhere, no inline code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// `/openapi.json` and `/docs`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/openapi.json", get(document_json))
        .route("/docs", get(|| async { asset("text/html; charset=utf-8", PAGE) }))
        .route("/docs/docs.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/docs/docs.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY)], text).into_response()
}

async fn document_json(State(app): State<App>) -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| document(app.urls.base()).to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response()
}

/// The document of a server that is reached at `base`.
fn document(base: &str) -> Value {
    let mut paths = PathsBuilder::new();
    let mut components = ComponentsBuilder::new()
        .security_scheme("key", bearer("API key of an agent: `ac_live_…`"))
        .security_scheme("operator", bearer("The operator's token, as the server was started with"))
        .security_scheme("owner", cookie(ACCESS_COOKIE, "An owner's sign-in; for an hour"))
        .security_scheme("refresh", cookie(REFRESH_COOKIE, "Renews a sign-in, once; for 30 days"));
    for operation in operations::all() {
        components = components.schemas_from_iter(operation.schemas());
        paths = paths.path(operation.path, operation.item());
    }
    let info = InfoBuilder::new().title("AgentChat").version(env!("CARGO_PKG_VERSION")).description(Some(
        "Messaging for agents: direct messages, groups, contacts, presence, attachments, webhooks; and what the \
             dashboard of their owners reads.",
    ));
    let document = OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([Server::new(base)]))
        .paths(paths.build())
        .components(Some(components.build()))
        .build();
    let mut document = serde_json::to_value(document).unwrap_or_default();
    refine(&mut document["components"]["schemas"]);
    document
}

fn bearer(description: &str) -> SecurityScheme {
    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build())
}

fn cookie(name: &str, description: &str) -> SecurityScheme {
    SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(name, description)))
}

/// Rules between the keys of one body (D3).
fn refine(schemas: &mut Value) {
    let given = |name: &str, kind: Value| json!({"required": [name], "properties": {name: kind}});
    let text = |name: &str| given(name, json!({"type": "string"}));
    let rules = [
        ("SendMessage", "oneOf", json!([text("to"), text("conversation_id")])),
        ("AnnounceUpload", "not", json!({"allOf": [text("to"), text("conversation_id")]})),
        (
            "UpdateAgent",
            "anyOf",
            json!([
                {"required": ["display_name"]},
                {"required": ["displayName"]},
                {"required": ["description"]},
                given("settings", json!({"type": "object"})),
            ]),
        ),
        (
            "ContentObject",
            "anyOf",
            json!([
                given("text", json!({"type": "string", "minLength": 1})),
                given("data", json!({"type": "object"})),
                given("attachment_id", json!({"type": "string"})),
            ]),
        ),
        (
            "Mute",
            "anyOf",
            json!([
                {"allOf": [given("target_kind", json!({"const": "agent"})), text("target_handle")]},
                {"allOf": [given("target_kind", json!({"const": "conversation"})), text("target_id")]},
            ]),
        ),
    ];
    for (name, rule, value) in rules {
        schemas[name][rule] = value;
    }
    schemas["ReplyClaimBatch"]["properties"]["message_ids"]["items"] =
        json!({"type": "string", "minLength": 1, "maxLength": 128});
    schemas["CreateWebhook"]["properties"]["events"]["uniqueItems"] = json!(true);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The contract's lists of routes, one JSON object per line.
    const AGENTS: &str = include_str!("../../tests/contract/rest.jsonl");
    const OWNERS: &str = include_str!("../../tests/contract/dashboard.jsonl");

    #[test]
    fn every_route_of_the_contract_is_described_with_each_of_its_codes() {
        let document = document("http://localhost");
        for line in AGENTS.lines().chain(OWNERS.lines()) {
            let route: Value = serde_json::from_str(line).unwrap();
            let path = match route["p"].as_str().unwrap() {
                "{upload_url}" => "/objects/{id}",
                "/v1/messages/{conversation_id}" => "/v1/messages/{id}",
                path => path,
            };
            let method = route["m"].as_str().unwrap().to_lowercase().replace("ws", "get");
            let operation = &document["paths"][path][&method];
            assert!(operation.is_object(), "{method} {path} is not described");
            for status in route["ok"].as_array().unwrap() {
                assert!(operation["responses"][status.to_string()].is_object(), "{method} {path} {status}");
            }
            let responses = operation["responses"].to_string();
            for code in route["e"].as_array().unwrap() {
                assert!(responses.contains(&code.to_string()), "{method} {path} {code}");
            }
        }
    }

    /// What the list of the dashboard's routes does not repeat. Owners are never deleted, so that the contract's
    /// `OWNER_NOT_FOUND` is answered nowhere.
    #[test]
    fn operations_of_owners_need_their_cookie_and_obey_no_other_site() {
        let document = document("http://localhost");
        let codes = |operation: &Value, code: &str| operation["responses"].to_string().contains(code);
        for line in OWNERS.lines() {
            let route: Value = serde_json::from_str(line).unwrap();
            let (method, path) = (route["m"].as_str().unwrap(), route["p"].as_str().unwrap());
            let operation = &document["paths"][path][method.to_lowercase().replace("ws", "get")];
            let cookie = matches!(route["auth"].as_str(), Some("owner" | "refresh")).then(|| route["auth"].clone());
            let needed = operation["security"][0].as_object().and_then(|one| one.keys().next());
            assert_eq!(needed.map(|name| json!(name)), cookie, "{method} {path}");
            assert_eq!(codes(operation, "\"UNAUTHORIZED\""), cookie.is_some(), "{method} {path}");
            assert_eq!(codes(operation, "\"FORBIDDEN\""), method != "GET", "{method} {path}");
        }
    }

    #[test]
    fn names_are_unique_and_every_reference_leads_somewhere() {
        let document = document("http://localhost");
        let operations = operations::all();
        let ids: BTreeSet<_> = operations.iter().map(|operation| operation.id).collect();
        assert_eq!(ids.len(), operations.len());
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        assert_eq!(document["openapi"], "3.1.0");
    }
}
