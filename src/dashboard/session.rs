//! Signing in and out, and who is signed in.
//!
//! S1  Every request asks the owner's entity: a sign-out counts at once, on every node. Then it takes one of the owner's
//!     requests of this second, as an agent's does.
//! S2  Only an answer that the sign-in is over takes the cookies away; what fails otherwise may be tried again.

use actors::api::{OwnerView, Refusal};
use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use schema::ids::OwnerId;
use serde_json::{Value, json};

use super::agents::claimed_agents;
use super::shapes::owner_value;
use super::tokens::{self, Token, Tokens};
use crate::app::App;
use crate::http::extract::ClientIp;
use crate::identity::email;
use crate::wire::error::ApiError;
use crate::wire::fields::Fields;

/// Characters of a code; the contract's number.
const CODE_LENGTH: usize = 6;

/// `/dashboard/auth/…`, `/dashboard/me`, `/dashboard/bootstrap`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/dashboard/auth/otp/request", post(request_code))
        .route("/dashboard/auth/otp/verify", post(verify_code))
        .route("/dashboard/auth/refresh", post(refresh))
        .route("/dashboard/auth/logout", post(sign_out))
        .route("/dashboard/auth/logout/all", post(sign_out_all))
        .route("/dashboard/me", get(me))
        .route("/dashboard/bootstrap", get(bootstrap))
}

/// An owner who is signed in.
pub struct SignedIn {
    /// Who.
    pub owner: OwnerView,
    access: Token,
}

impl SignedIn {
    /// Its id.
    pub fn id(&self) -> OwnerId {
        self.owner.id
    }
}

impl FromRequestParts<App> for SignedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let access = tokens::access(&parts.headers).ok_or(ApiError::SignedOut)?;
        let owner = app.domain.admit_owner(access.owner, access.hash()).await.map_err(signed_out)?;
        app.gates.owner_request(owner.id).await?;
        Ok(Self { owner, access })
    }
}

fn signed_out(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Unauthorized => ApiError::SignedOut,
        refusal => refusal.into(),
    }
}

async fn request_code(State(app): State<App>, ClientIp(ip): ClientIp, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let address = email::field(&mut fields);
    fields.finish()?;
    app.gates.sign_in(ip).await?;
    let pending_id = app.identity.start_sign_in(&address).await?;
    Ok(Json(json!({"pending_id": pending_id, "message": "a sign-in code was mailed to this address"})))
}

async fn verify_code(State(app): State<App>, ClientIp(ip): ClientIp, body: Bytes) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body)?;
    let (pending_id, code) = (fields.required("pending_id"), fields.required("code"));
    if !code.is_empty() && code.chars().count() != CODE_LENGTH {
        fields.complain("code", "must be 6 characters");
    }
    fields.finish()?;
    app.gates.verify_sign_in(ip).await?;
    let (made, tokens) = std::sync::mpsc::sync_channel(1);
    let owner = app.identity.verify_sign_in(&pending_id, &code, move |email| {
        let tokens = Tokens::fresh(OwnerId::of_email(email));
        let pair = tokens.pair();
        let _ = made.send(tokens); // received below, or the request is gone
        pair
    });
    let owner = owner.await?;
    let tokens = tokens.try_recv().map_err(|_| ApiError::Internal)?;
    let cookies = AppendHeaders(tokens::given(app.urls.base(), &tokens));
    Ok((cookies, Json(json!({"owner": owner_value(&owner)}))).into_response())
}

async fn refresh(State(app): State<App>, ClientIp(ip): ClientIp, headers: HeaderMap) -> Result<Response, ApiError> {
    app.gates.refresh(ip).await?;
    let over = || (AppendHeaders(tokens::taken(app.urls.base())), ApiError::SignedOut).into_response();
    let Some(old) = tokens::refresh(&headers) else { return Ok(over()) };
    let seed = rand::random();
    let next = Tokens::after(&old, &seed).ok_or(ApiError::Internal)?;
    let tokens = match app.domain.refresh_owner(old.owner, old.hash(), seed, next.pair()).await {
        Ok(valid) if valid == seed => next,
        // Somebody was faster with the same token: the pair is the one that follows from its seed.
        Ok(valid) => Tokens::after(&old, &valid).ok_or(ApiError::Internal)?,
        Err(Refusal::Unauthorized) => return Ok(over()),
        Err(_) => return Err(ApiError::RefreshUnavailable),
    };
    let cookies = AppendHeaders(tokens::given(app.urls.base(), &tokens));
    Ok((cookies, Json(json!({"message": "refreshed"}))).into_response())
}

/// Ends this browser's sign-in, by whichever of its tokens still says which that is.
async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    let known: Vec<Token> = [tokens::refresh(&headers), tokens::access(&headers)].into_iter().flatten().collect();
    for token in &known {
        app.domain.sign_out(token.owner, vec![token.hash()]).await?;
    }
    let cookies = AppendHeaders(tokens::taken(app.urls.base()));
    Ok((cookies, Json(json!({"message": "signed out"}))).into_response())
}

async fn sign_out_all(State(app): State<App>, caller: SignedIn) -> Result<Response, ApiError> {
    let count = app.domain.sign_out_all(caller.id(), caller.access.hash()).await.map_err(signed_out)?;
    let cookies = AppendHeaders(tokens::taken(app.urls.base()));
    let body = json!({"message": "signed out everywhere", "sessions_revoked": count});
    Ok((cookies, Json(body)).into_response())
}

async fn me(caller: SignedIn) -> Json<Value> {
    Json(owner_value(&caller.owner))
}

async fn bootstrap(State(app): State<App>, caller: SignedIn) -> Result<Json<Value>, ApiError> {
    let agents = claimed_agents(&app, caller.id()).await?;
    Ok(Json(json!({"owner": owner_value(&caller.owner), "agents": agents})))
}
