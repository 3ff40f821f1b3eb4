//! Who is calling, from where: what handlers ask for by type.
//!
//! X1  A caller is checked by its agent entity on every request: a rotated key or a deleted account ends at once.
//! X2  Order: key, then account state, then the general request budget; the body is judged after all of these.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use actors::api::Credential;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use schema::ids::{AgentId, KeyHash};
use schema::rows::{AgentRow, AgentStatus};

use crate::app::App;
use crate::identity::handles;
use crate::wire::error::ApiError;
use crate::wire::fields::Query;

/// An authenticated agent that is not suspended.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account as of this request.
    pub account: Arc<AgentRow>,
}

impl Caller {
    /// The caller's id.
    pub fn id(&self) -> AgentId {
        self.account.id
    }

    /// The caller, or 403 for a suspended account.
    fn unless_suspended(self) -> Result<Self, ApiError> {
        if self.account.status == AgentStatus::Suspended { Err(ApiError::AgentSuspended) } else { Ok(self) }
    }

    /// 403 unless `path` names the caller itself, whether or not it names anybody else.
    pub fn must_be(&self, path: &str) -> Result<(), ApiError> {
        if handles::normalise(path) == self.account.handle { Ok(()) } else { Err(ApiError::Forbidden) }
    }
}

/// An authenticated agent in any state but deleted.
#[derive(Debug, Clone)]
pub struct AnyCaller(pub Caller);

/// A caller that was checked for this request already: `/mcp` checks its caller, and then asks a route on its behalf.
#[derive(Debug, Clone)]
pub struct Admitted(pub Caller);

/// Somebody with a key that was made for an agent: its entity has yet to check it (X1), on its own or with what is asked.
#[derive(Debug, Clone)]
pub enum Presented {
    /// Not checked yet.
    Key(Credential),
    /// Checked for this request already.
    Admitted(Caller),
}

impl Presented {
    /// Whose key it is.
    pub fn id(&self) -> AgentId {
        match self {
            Self::Key(credential) => credential.agent,
            Self::Admitted(caller) => caller.id(),
        }
    }

    /// Who it is in any state but deleted: the key is checked, unless it was.
    async fn caller(self, app: &App) -> Result<Caller, ApiError> {
        match self {
            Self::Admitted(caller) => Ok(caller),
            Self::Key(credential) => Ok(Caller { account: app.domain.admit(credential).await?.account }),
        }
    }

    /// Has the key checked, unless it was. Suspended accounts are refused.
    pub async fn admit(&mut self, app: &App) -> Result<(), ApiError> {
        let caller = self.clone().caller(app).await?.unless_suspended()?;
        *self = Self::Admitted(caller);
        Ok(())
    }
}

/// Nobody, or an authenticated agent; a header that is there has to be valid.
#[derive(Debug, Clone)]
pub struct MaybeCaller(pub Option<Caller>);

/// Where the request comes from.
#[derive(Debug, Clone, Copy)]
pub struct ClientIp(pub IpAddr);

/// The key of an `Authorization: Bearer` header. `None` without header; `Some(None)` for another scheme or no text.
pub fn bearer(headers: &HeaderMap) -> Option<Option<&str>> {
    let value = headers.get(header::AUTHORIZATION)?;
    let key = value.to_str().ok().and_then(|text| {
        let (scheme, key) = text.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim()).filter(|key| !key.is_empty())
    });
    Some(key)
}

/// The credential that a presented key stands for.
pub async fn credential(app: &App, key: &str) -> Result<Credential, ApiError> {
    let agent = app.auth.resolve(key).await?.ok_or(ApiError::Unauthorized)?;
    Ok(Credential { agent, key: KeyHash::of(key) })
}

impl FromRequestParts<App> for Presented {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if let Some(Admitted(caller)) = parts.extensions.get() {
            return Ok(Self::Admitted(caller.clone()));
        }
        let key = bearer(&parts.headers).flatten().ok_or(ApiError::Unauthorized)?;
        credential(app, key).await.map(Self::Key)
    }
}

impl FromRequestParts<App> for AnyCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Presented::from_request_parts(parts, app).await?.caller(app).await.map(Self)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        AnyCaller::from_request_parts(parts, app).await?.0.unless_suspended()
    }
}

impl FromRequestParts<App> for MaybeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match bearer(&parts.headers) {
            None => Ok(Self(None)),
            Some(_) => Caller::from_request_parts(parts, app).await.map(|caller| Self(Some(caller))),
        }
    }
}

impl FromRequestParts<App> for ClientIp {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let header =
            app.config.client_ip_header.as_deref().and_then(|name| parts.headers.get_all(name).iter().next_back());
        let hop = header.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
        hop.or(peer).map(Self).ok_or(ApiError::Internal)
    }
}

impl FromRequestParts<App> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let text = parts.uri.query().unwrap_or_default();
        serde_urlencoded::from_str(text).map(Self::new).map_err(|_| ApiError::form("the query does not decode"))
    }
}

/// The decoded `{...}` segments of a path. One that does not decode names nothing.
#[derive(Debug, Clone)]
pub struct Segment(pub String);

impl FromRequestParts<App> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, app).await;
        path.map(|axum::extract::Path(segment)| Self(segment)).map_err(|_| ApiError::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_keys_count() {
        let key = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(|key| key.map(str::to_owned))
        };
        assert_eq!(key("Bearer abc"), Some(Some("abc".into())));
        assert_eq!(key("bEARER  abc "), Some(Some("abc".into())));
        assert_eq!(key("Basic abc"), Some(None));
        assert_eq!(key("Bearer"), Some(None));
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
