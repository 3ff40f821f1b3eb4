//! One keep-alive connection that sends JSON and reads JSON.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::LoadError;

/// A connection.
pub struct Client {
    http: SendRequest<Full<Bytes>>,
    authorization: String,
}

impl Client {
    /// Connects; `key` may be empty for calls without authentication.
    pub async fn connect(address: SocketAddr, key: &str) -> Result<Self, LoadError> {
        let stream = TcpStream::connect(address).await.map_err(|error| LoadError::Io("connect", error))?;
        stream.set_nodelay(true).map_err(|error| LoadError::Io("connect", error))?;
        let (http, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { http, authorization: format!("Bearer {key}") })
    }

    /// One POST with a JSON body.
    pub async fn post(&mut self, path: &str, body: String) -> Result<(StatusCode, Bytes), LoadError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| LoadError::Answer(error.to_string()))?;
        self.http.ready().await?;
        let answer = self.http.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// The same, for calls that have to succeed.
    pub async fn call(&mut self, path: &str, body: String) -> Result<Value, LoadError> {
        let (status, bytes) = self.post(path, body).await?;
        if !status.is_success() {
            return Err(LoadError::Answer(format!("{path}: {status} {}", String::from_utf8_lossy(&bytes))));
        }
        serde_json::from_slice(&bytes).map_err(|error| LoadError::Answer(format!("{path}: {error}")))
    }
}
