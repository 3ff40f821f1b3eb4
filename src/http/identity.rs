//! Registration, recovery, key rotation, and the agent's own and public profile.
//!
//! L1  Without a key, the shape is judged before the limit per address: a malformed request costs nothing.
//! L2  With a key, the order is key, state, limits, shape, permission, existence.
//! L3  An API key leaves in exactly three answers, and never in an error.

use actors::api::ProfilePatch;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use schema::rows::Audience;
use serde_json::{Value, json};

use super::extract::{AnyCaller, Caller, ClientIp, MaybeCaller, Segment};
use crate::app::App;
use crate::identity::{Registration, code_is_well_shaped, email, handles};
use crate::limits::Verify;
use crate::queries::live_account;
use crate::wire::account::{agent_value, audience, profile_value, registered_value};
use crate::wire::error::ApiError;
use crate::wire::fields::Fields;

/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 500;

/// `/v1/register…` and `/v1/agents…`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/register", post(register))
        .route("/v1/register/verify", post(verify_registration))
        .route("/v1/agents/recover", post(recover))
        .route("/v1/agents/recover/verify", post(verify_recovery))
        .route("/v1/agents/me", get(me))
        .route("/v1/agents/{handle}", get(profile).patch(update).delete(delete))
        .route("/v1/agents/{handle}/rotate-key", post(rotate))
        .route("/v1/agents/{handle}/rotate-key/verify", post(verify_rotation))
}

/// A string that has to be there; what it has to look like is judged by a code of its own.
fn present(fields: &mut Fields, name: &str) -> String {
    if fields.raw(name).is_none() {
        fields.complain(name, "is required");
    }
    fields.text(name).unwrap_or_default()
}

/// Pending id and code of a verification.
fn verification(body: &[u8]) -> Result<(String, String), ApiError> {
    let mut fields = Fields::parse(body)?;
    let pending_id = fields.required("pending_id");
    let code = present(&mut fields, "code");
    fields.finish()?;
    if code_is_well_shaped(&code) { Ok((pending_id, code)) } else { Err(ApiError::InvalidCode) }
}

/// A display name under either of the keys that clients use.
fn display_name(fields: &mut Fields) -> Option<Option<String>> {
    let alias_counts = fields.raw("display_name").is_none() && fields.has("displayName");
    let (name, alias) = (fields.display_name("display_name"), fields.display_name("displayName"));
    if alias_counts { alias } else { name }
}

fn registration(body: &[u8], reserved: &[String]) -> Result<Registration, ApiError> {
    let mut fields = Fields::parse(body)?;
    let email = email::field(&mut fields);
    let handle = handles::normalise(&present(&mut fields, "handle"));
    let display_name = display_name(&mut fields).flatten();
    let description = fields.clearable("description", DESCRIPTION_MAX).flatten();
    fields.finish()?;
    if !handles::registrable(&handle, reserved) {
        return Err(ApiError::InvalidHandle);
    }
    Ok(Registration { email, handle, display_name, description })
}

async fn register(State(app): State<App>, ClientIp(ip): ClientIp, body: Bytes) -> Result<Json<Value>, ApiError> {
    let registration = registration(&body, &app.identity.rules().reserved)?;
    app.gates.register(ip).await?;
    let pending_id = app.identity.register(registration).await?;
    Ok(Json(json!({"pending_id": pending_id, "message": "a verification code was mailed to this address"})))
}

async fn verify_registration(
    State(app): State<App>,
    ClientIp(ip): ClientIp,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (pending_id, code) = verification(&body)?;
    app.gates.verify(Verify::Register, ip).await?;
    let (row, api_key) = app.identity.verify_registration(&pending_id, &code).await?;
    let created = json!({"agent": registered_value(&row, &app.urls), "api_key": api_key});
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

async fn recover(State(app): State<App>, ClientIp(ip): ClientIp, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let email = email::field(&mut fields);
    let handle = fields.text("handle").map(|handle| handles::normalise(&handle)).filter(|handle| !handle.is_empty());
    fields.finish()?;
    app.gates.recover(ip).await?;
    let pending_id = app.identity.recover(&email, handle.as_deref()).await?;
    let message = "if the address backs such an agent, a verification code was mailed to it";
    Ok(Json(json!({"pending_id": pending_id, "message": message})))
}

async fn verify_recovery(State(app): State<App>, ClientIp(ip): ClientIp, body: Bytes) -> Result<Json<Value>, ApiError> {
    let (pending_id, code) = verification(&body)?;
    app.gates.verify(Verify::Recover, ip).await?;
    let (handle, api_key) = app.identity.verify_recovery(&pending_id, &code).await?;
    Ok(Json(json!({"handle": handle, "api_key": api_key})))
}

async fn rotate(State(app): State<App>, caller: Caller, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    app.gates.rotate(caller.id()).await?;
    caller.must_be(&handle)?;
    let pending_id = app.identity.start_rotation(&caller.account).await?;
    Ok(Json(json!({"pending_id": pending_id, "message": "a verification code was mailed to the address on file"})))
}

async fn verify_rotation(
    State(app): State<App>,
    caller: Caller,
    ClientIp(ip): ClientIp,
    Segment(handle): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    app.gates.verify(Verify::Rotate, ip).await?;
    let (pending_id, code) = verification(&body)?;
    caller.must_be(&handle)?;
    let (handle, api_key) = app.identity.verify_rotation(&caller.account, &pending_id, &code).await?;
    Ok(Json(json!({"handle": handle, "api_key": api_key})))
}

async fn me(State(app): State<App>, AnyCaller(caller): AnyCaller) -> Json<Value> {
    Json(agent_value(&caller.account, &app.urls))
}

async fn profile(
    State(app): State<App>,
    _: MaybeCaller,
    ClientIp(ip): ClientIp,
    Segment(handle): Segment,
) -> Result<Json<Value>, ApiError> {
    app.gates.profile(ip).await?;
    Ok(Json(profile_value(&live_account(&app, &handle).await?, &app.urls)))
}

/// One of the settings; a value that is not known is a complaint under its full path.
fn setting(fields: &mut Fields, settings: &Fields, name: &str) -> Option<Audience> {
    let known = serde_json::from_str::<String>(settings.raw(name)?).ok().and_then(|value| audience(&value));
    if known.is_none() {
        fields.complain(&format!("settings.{name}"), "must be \"open\" or \"contacts_only\"");
    }
    known
}

/// The changes that a body asks for. One that held only settings we do not know asks for none, and that is fine.
fn patch(body: &[u8]) -> Result<ProfilePatch, ApiError> {
    let mut fields = Fields::parse(body)?;
    let known = ["display_name", "displayName", "description"].iter().any(|name| fields.has(name));
    let settings = fields.raw("settings").map(|raw| Fields::parse(raw.as_bytes()));
    if !known && settings.is_none() {
        return Err(ApiError::form("give at least one of display_name, description, settings"));
    }
    let mut patch = ProfilePatch {
        display_name: display_name(&mut fields),
        description: fields.clearable("description", DESCRIPTION_MAX),
        ..ProfilePatch::default()
    };
    match settings {
        Some(Ok(settings)) => {
            patch.inbox_mode = setting(&mut fields, &settings, "inbox_mode");
            patch.group_invite_policy = setting(&mut fields, &settings, "group_invite_policy");
        }
        Some(Err(_)) => fields.complain("settings", "must be an object"),
        None => {}
    }
    fields.finish().map(|()| patch)
}

async fn update(
    State(app): State<App>,
    caller: Caller,
    Segment(handle): Segment,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let patch = patch(&body)?;
    caller.must_be(&handle)?;
    if patch == ProfilePatch::default() {
        return Ok(Json(agent_value(&caller.account, &app.urls)));
    }
    let row = app.domain.update_profile(caller.id(), patch).await?;
    app.profiles.forget(row.id);
    Ok(Json(agent_value(&row, &app.urls)))
}

async fn delete(State(app): State<App>, caller: Caller, Segment(handle): Segment) -> Result<Json<Value>, ApiError> {
    caller.must_be(&handle)?;
    if caller.account.is_system {
        return Err(ApiError::SystemAgentProtected);
    }
    let (domain, agent) = (app.domain.clone(), caller.id());
    // A task of its own: a client that hangs up must not leave its email with an agent that is gone.
    let deleted = tokio::spawn(async move { domain.delete_agent(agent).await }).await;
    deleted.map_err(|_| ApiError::Internal)??;
    app.profiles.forget(agent);
    Ok(Json(json!({"ok": true})))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use actors::domain::{Domain, DomainOptions};
    use axum::body::Body;
    use axum::extract::ConnectInfo;
    use axum::http::Request;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use schema::memory::MemoryStore;
    use schema::store::Store;
    use tower::ServiceExt;

    use super::*;
    use crate::app::Parts;
    use crate::config::Config;
    use crate::mail::Mailer;
    use crate::webhooks::Intake;

    #[track_caller]
    fn check_fields<T: std::fmt::Debug>(refused: Result<T, ApiError>, named: &[&str]) {
        let Err(ApiError::Validation(complaints)) = refused else { panic!("{refused:?}") };
        assert_eq!(complaints.fields.keys().map(String::as_str).collect::<Vec<_>>(), named);
    }

    #[test]
    fn a_registration_is_normalised() {
        let body = br#"{"email": " A@Example.com ", "handle": "@Alice", "display_name": null, "description": null}"#;
        let wanted = registration(body, &[]).unwrap();
        assert_eq!((wanted.email.as_str(), wanted.handle.as_str()), ("a@example.com", "alice"));
        assert_eq!((wanted.display_name, wanted.description), (None, None));
        let body = br#"{"email": "a@example.com", "handle": "alice", "displayName": " Al "}"#;
        assert_eq!(registration(body, &[]).unwrap().display_name.as_deref(), Some("Al"));
    }

    #[test]
    fn a_bad_registration_names_what_is_bad() {
        check_fields(registration(b"{}", &[]), &["email", "handle"]);
        check_fields(registration(br#"{"email": "a", "handle": 1}"#, &[]), &["email", "handle"]);
        let named =
            |handle: &str| registration(json!({"email": "a@b.co", "handle": handle}).to_string().as_bytes(), &[]);
        for handle in ["", "ab", "a_b", "admin", "agentchat-x"] {
            assert!(matches!(named(handle), Err(ApiError::InvalidHandle)), "{handle}");
        }
        let long = json!({"email": "a@b.co", "handle": "alice", "description": "x".repeat(501)}).to_string();
        check_fields(registration(long.as_bytes(), &[]), &["description"]);
    }

    #[test]
    fn a_code_of_another_shape_is_a_wrong_code() {
        let sent = |code: Value| verification(json!({"pending_id": "pnd_x", "code": code}).to_string().as_bytes());
        assert_eq!(sent(json!("012345")), Ok(("pnd_x".to_owned(), "012345".to_owned())));
        for code in ["", "12345", "1234567", "abcdef"] {
            assert_eq!(sent(json!(code)), Err(ApiError::InvalidCode), "{code}");
        }
        check_fields(sent(json!(12345)), &["code"]);
        check_fields(verification(b"{}"), &["code", "pending_id"]);
    }

    #[test]
    fn patches_merge_and_drop_what_is_unknown() {
        assert_eq!(patch(br#"{"settings": {"discoverable": true}}"#), Ok(ProfilePatch::default()));
        let cleared = ProfilePatch { display_name: Some(None), ..ProfilePatch::default() };
        assert_eq!(patch(br#"{"display_name": null}"#), Ok(cleared.clone()));
        assert_eq!(patch(br#"{"display_name": ""}"#), Ok(cleared));
        let closed = ProfilePatch { inbox_mode: Some(Audience::ContactsOnly), ..ProfilePatch::default() };
        let body = br#"{"settings": {"inbox_mode": "contacts_only", "group_invite_policy": null}}"#;
        assert_eq!(patch(body), Ok(closed));
        for body in [&b"{}"[..], b"", br#"{"handle": "bob"}"#, br#"{"settings": null}"#] {
            assert!(patch(body).is_err());
        }
        check_fields(patch(br#"{"settings": {"inbox_mode": "closed"}}"#), &["settings.inbox_mode"]);
        check_fields(patch(br#"{"settings": []}"#), &["settings"]);
        check_fields(
            patch(br#"{"description": 1, "settings": {"inbox_mode": 1}}"#),
            &["description", "settings.inbox_mode"],
        );
    }

    /// The routes over a fresh node, called from one address.
    struct Rig {
        app: App,
        outbox: tempfile::TempDir,
    }

    impl Rig {
        async fn new() -> Self {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let options = DomainOptions { shards: 4, ..DomainOptions::default() };
            let (hooks, intake) = Intake::new();
            let domain = Domain::start(Arc::clone(&store), options, Arc::new(hooks)).await.unwrap();
            let outbox = tempfile::tempdir().unwrap();
            let mut config = Config::default();
            config.data_dir = outbox.path().join("data");
            std::fs::create_dir_all(&config.data_dir).unwrap();
            let mailer = Mailer::outbox(outbox.path().join("mail"), &config.mail_from).unwrap();
            let metrics = PrometheusBuilder::new().build_recorder().handle();
            let (membership, embedded, shared) = (None, None, Default::default());
            let parts = Parts { domain, membership, embedded, shared, intake, mailer, metrics };
            let app = App::new(config, parts, tokio::sync::watch::channel(false).1).unwrap();
            Self { app, outbox }
        }

        async fn call(&self, method: &str, path: &str, key: Option<&str>, body: Value) -> (u16, Value) {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(key) = key {
                request = request.header("authorization", format!("Bearer {key}"));
            }
            let text = if body.is_null() { String::new() } else { body.to_string() };
            let mut request = request.body(Body::from(text)).unwrap();
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1))));
            let response = routes().with_state(self.app.clone()).oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (status, serde_json::from_slice(&body).unwrap_or_default())
        }

        /// The code of the only mail that is in the outbox now; takes it out.
        fn code(&self) -> String {
            let mail = std::fs::read_dir(self.outbox.path().join("mail")).unwrap().next().unwrap().unwrap().path();
            let text = std::fs::read_to_string(&mail).unwrap();
            std::fs::remove_file(mail).unwrap();
            text.lines().find(|line| code_is_well_shaped(line)).unwrap().to_owned()
        }

        async fn agent(&self, handle: &str) -> (Value, String) {
            let wanted = json!({"email": format!("{handle}@example.com"), "handle": handle, "display_name": null});
            let (status, started) = self.call("POST", "/v1/register", None, wanted).await;
            assert_eq!(status, 200, "{started}");
            let proof = json!({"pending_id": started["pending_id"], "code": self.code()});
            let (status, created) = self.call("POST", "/v1/register/verify", None, proof).await;
            assert_eq!(status, 201, "{created}");
            let key = created["api_key"].as_str().unwrap().to_owned();
            (created, key)
        }
    }

    #[tokio::test]
    async fn an_account_from_registration_to_deletion() {
        let rig = Rig::new().await;
        let (created, key) = rig.agent("alice").await;
        assert_eq!(created["agent"]["email"], "alice@example.com");
        let key = Some(key.as_str());
        let (status, me) = rig.call("GET", "/v1/agents/me", key, Value::Null).await;
        assert_eq!((status, &me["email"]), (200, &json!("a****@example.com")));
        let (status, changed) = rig.call("PATCH", "/v1/agents/%40Alice", key, json!({"display_name": "Al"})).await;
        assert_eq!((status, &changed["display_name"]), (200, &json!("Al")));
        let (_, same) = rig.call("PATCH", "/v1/agents/alice", key, json!({"settings": {"discoverable": true}})).await;
        assert_eq!(same, changed, "nothing known, nothing changed");
        let (status, profile) = rig.call("GET", "/v1/agents/alice", None, Value::Null).await;
        assert_eq!((status, profile["display_name"].clone(), profile.get("email")), (200, json!("Al"), None));
        assert_eq!(rig.call("DELETE", "/v1/agents/bob", key, Value::Null).await.0, 403);
        assert_eq!(rig.call("DELETE", "/v1/agents/alice", key, Value::Null).await, (200, json!({"ok": true})));
        assert_eq!(rig.call("DELETE", "/v1/agents/alice", key, Value::Null).await.0, 401);
        let (gone, never) = (
            rig.call("GET", "/v1/agents/alice", None, Value::Null).await,
            rig.call("GET", "/v1/agents/No--One", None, Value::Null).await,
        );
        assert_eq!((gone.0, &gone), (404, &never));
    }

    #[tokio::test]
    async fn rotation_answers_with_the_new_key_and_ends_the_old_one() {
        let rig = Rig::new().await;
        let (_, old) = rig.agent("alice").await;
        let path = "/v1/agents/alice/rotate-key";
        assert_eq!(rig.call("POST", "/v1/agents/bob/rotate-key", Some(&old), Value::Null).await.0, 403);
        let (status, started) = rig.call("POST", path, Some(&old), Value::Null).await;
        assert_eq!(status, 200, "{started}");
        assert_eq!(rig.call("POST", path, Some(&old), Value::Null).await.1["code"], "OTP_COOLDOWN");
        let proof = json!({"pending_id": started["pending_id"], "code": rig.code()});
        let (status, rotated) = rig.call("POST", &format!("{path}/verify"), Some(&old), proof.clone()).await;
        assert_eq!((status, &rotated["handle"]), (200, &json!("alice")));
        assert_eq!(rig.call("GET", "/v1/agents/me", Some(&old), Value::Null).await.0, 401);
        assert_eq!(rig.call("GET", "/v1/agents/alice", Some(&old), Value::Null).await.0, 401);
        let new = rotated["api_key"].as_str();
        assert_eq!(rig.call("GET", "/v1/agents/me", new, Value::Null).await.0, 200);
        assert_eq!(rig.call("POST", &format!("{path}/verify"), new, proof).await.1["code"], "EXPIRED");
    }

    #[tokio::test]
    async fn malformed_bodies_are_not_counted_and_everything_after_the_limiter_is() {
        let rig = Rig::new().await;
        for _ in 0..20 {
            assert_eq!(rig.call("POST", "/v1/register", None, json!({"email": "a"})).await.0, 400);
            assert_eq!(rig.call("POST", "/v1/agents/recover", None, json!({})).await.0, 400);
        }
        rig.agent("alice").await;
        let taken = json!({"email": "b@example.com", "handle": "alice"});
        for _ in 0..4 {
            assert_eq!(rig.call("POST", "/v1/register", None, taken.clone()).await.1["code"], "HANDLE_TAKEN");
        }
        let (status, refused) = rig.call("POST", "/v1/register", None, taken).await;
        assert_eq!((status, &refused["code"]), (429, &json!("RATE_LIMITED")));
        for email in ["alice@example.com", "alice@example.com", "nobody@example.com"] {
            let (status, started) = rig.call("POST", "/v1/agents/recover", None, json!({"email": email})).await;
            assert_eq!((status, started["pending_id"].as_str().map(str::len)), (200, Some(20)));
        }
        assert_eq!(rig.call("POST", "/v1/agents/recover", None, json!({"email": "a@b.co"})).await.0, 429);
    }
}
