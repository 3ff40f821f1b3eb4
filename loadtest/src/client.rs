//! One keep-alive connection that sends JSON and reads JSON, for one agent or for any.
//!
//! C1  Every request has a deadline; a connection that failed is opened again for the next request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use crate::error::LoadError;
use crate::target::Target;
use crate::wire;

/// A request without an answer after this is a failure: longer than the server's own deadline.
const DEADLINE: Duration = Duration::from_secs(30);

/// What came back.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its whole body.
    pub body: Bytes,
}

impl Answer {
    /// The contract's code of a refusal; empty if there is none.
    pub fn code(&self) -> String {
        serde_json::from_slice::<wire::Refusal<'_>>(&self.body)
            .map(|refusal| refusal.code.into_owned())
            .unwrap_or_default()
    }

    /// Itself, if it is a success.
    pub fn success(self, what: &str) -> Result<Self, LoadError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(LoadError::Answer(format!("{what}: {} {}", self.status, String::from_utf8_lossy(&self.body))))
    }

    /// The body as the type it has to have.
    pub fn read<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, LoadError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| LoadError::Answer(format!("{error} in {}", String::from_utf8_lossy(&self.body))))
    }
}

/// A connection.
pub struct Client {
    target: Arc<Target>,
    http: Option<SendRequest<Full<Bytes>>>,
    key: String,
}

impl Client {
    /// For any agent; connects with the first request.
    pub fn new(target: Arc<Target>) -> Self {
        Self { target, http: None, key: String::new() }
    }

    /// Connects; `key` may be empty for calls without authentication.
    pub async fn connect(address: SocketAddr, key: &str) -> Result<Self, LoadError> {
        let mut client = Self::new(Arc::new(Target::at(address)));
        client.key = key.to_owned();
        client.http = Some(client.open().await?);
        Ok(client)
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, LoadError> {
        let stream = self.target.connect(None).await?;
        let (http, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(http)
    }

    /// One request as the agent with this key.
    pub async fn send(&mut self, method: Method, path: &str, key: &str, body: String) -> Result<Answer, LoadError> {
        let answered = timeout(DEADLINE, self.exchange(method, path, key, body)).await;
        let answered = answered.unwrap_or(Err(LoadError::Late(DEADLINE.as_secs())));
        if answered.is_err() {
            self.http = None; // C1
        }
        answered
    }

    async fn exchange(&mut self, method: Method, path: &str, key: &str, body: String) -> Result<Answer, LoadError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.path))
            .header("host", &self.target.host)
            .header("content-type", "application/json");
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(LoadError::answer)?;
        let http = match self.http.take().filter(|http| !http.is_closed()) {
            Some(http) => self.http.insert(http),
            None => {
                let opened = self.open().await?;
                self.http.insert(opened)
            }
        };
        http.ready().await?;
        let answer = http.send_request(request).await?;
        let status = answer.status();
        Ok(Answer { status, body: answer.into_body().collect().await?.to_bytes() })
    }

    /// A POST as any agent, for calls that have to succeed.
    pub async fn post_as(&mut self, path: &str, key: &str, body: String) -> Result<Answer, LoadError> {
        self.send(Method::POST, path, key, body).await?.success(path)
    }

    /// A POST as the agent of this connection.
    pub async fn post(&mut self, path: &str, body: String) -> Result<(StatusCode, Bytes), LoadError> {
        let key = self.key.clone();
        let answer = self.send(Method::POST, path, &key, body).await?;
        Ok((answer.status, answer.body))
    }

    /// The same, for calls that have to succeed.
    pub async fn call(&mut self, path: &str, body: String) -> Result<Value, LoadError> {
        let (status, body) = self.post(path, body).await?;
        Answer { status, body }.success(path)?.read()
    }
}
