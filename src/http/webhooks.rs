//! Webhooks: where an agent wants its events posted.
//!
//! W1  The secret is shown once, when the webhook is made.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rand::Rng;
use rand::distr::Alphanumeric;
use schema::ids::WebhookId;
use schema::rows::{HookKind, WebhookRow};
use serde_json::{Value, json};

use super::extract::{Caller, Segment};
use crate::app::App;
use crate::identity::fresh_key;
use crate::webhooks::guard;
use crate::wire::error::ApiError;
use crate::wire::fields::Fields;
use crate::wire::social::{HOOK_KINDS, webhook_value};

/// Length of a secret that the client chose, in characters.
const SECRET: std::ops::RangeInclusive<usize> = 16..=128;

/// `/v1/webhooks…`.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/webhooks", post(create).get(list)).route("/v1/webhooks/{id}", get(one).delete(remove))
}

fn events(fields: &mut Fields) -> Vec<HookKind> {
    let Some(names) = fields.required_strings("events") else { return Vec::new() };
    let mut kinds = Vec::new();
    for name in &names {
        match HOOK_KINDS.iter().find(|(known, _)| known == name) {
            Some((_, kind)) if kinds.contains(kind) => fields.complain("events", "must be unique"),
            Some((_, kind)) => kinds.push(*kind),
            None => fields.complain("events", format!("{name:?} is not an event")),
        }
    }
    if names.is_empty() {
        fields.complain("events", "must not be empty");
    }
    kinds
}

async fn create(State(app): State<App>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    app.gates.webhook(caller.id()).await?;
    let mut fields = Fields::parse(&body)?;
    let url = fields.required("url");
    let judged = guard::check_url(&url, app.config.webhooks_allow_private);
    if let Err(refused) = &judged
        && !url.is_empty()
    {
        fields.complain("url", refused.to_string());
    }
    let events = events(&mut fields);
    let secret = fields.text("secret");
    if secret.as_ref().is_some_and(|secret| !SECRET.contains(&secret.chars().count())) {
        fields.complain("secret", "must be 16 to 128 characters");
    }
    fields.finish()?;
    if let Ok(url) = judged
        && guard::resolve(&url, app.config.webhooks_allow_private).await == Err(guard::Refused::Private)
    {
        return Err(ApiError::field("url", &guard::Refused::Private.to_string()));
    }
    let hook = WebhookRow {
        id: WebhookId(fresh_key()),
        url,
        events,
        secret: secret.unwrap_or_else(fresh_secret),
        active: true,
        created_at: app.clock.now(),
    };
    app.domain.add_webhook(caller.id(), hook.clone()).await?;
    let mut value = webhook_value(&hook);
    value["secret"] = json!(hook.secret);
    Ok((StatusCode::CREATED, Json(value)).into_response())
}

fn fresh_secret() -> String {
    let letters: String = rand::rng().sample_iter(Alphanumeric).take(32).map(char::from).collect();
    format!("whsec_{letters}")
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let hooks = app.domain.webhooks(caller.id()).await?;
    Ok(Json(json!({"webhooks": hooks.iter().map(webhook_value).collect::<Vec<_>>()})))
}

async fn one(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    let id: WebhookId = id.parse().map_err(|_| ApiError::WebhookNotFound)?;
    let hooks = app.domain.webhooks(caller.id()).await?;
    let hook = hooks.iter().find(|hook| hook.id == id).ok_or(ApiError::WebhookNotFound)?;
    Ok(Json(webhook_value(hook)))
}

async fn remove(State(app): State<App>, caller: Caller, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    let id: WebhookId = id.parse().map_err(|_| ApiError::WebhookNotFound)?;
    app.domain.remove_webhook(caller.id(), id).await.map_err(|refusal| match refusal {
        actors::api::Refusal::NoRelation => ApiError::WebhookNotFound,
        refusal => refusal.into(),
    })?;
    app.webhooks.forget(id);
    Ok(Json(json!({"ok": true})))
}
