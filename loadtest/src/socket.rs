//! One WebSocket of one agent: connect, be greeted, read, acknowledge.
//!
//! S1  Buffers are small: there may be very many sockets, and the memory of the harness must not crowd out the server's.
//! S2  Acknowledgements of frames that are there already go out together, as a busy client would write them.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use hyper::header::{AUTHORIZATION, HeaderValue};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::error::LoadError;
use crate::target::{Stream, Target};
use crate::wire;

/// The contract lets a client wait this long for `hello.ok`; a storm on a small machine may take longer, and is measured.
const HELLO_DEADLINE: Duration = Duration::from_secs(60);
/// Read buffer of one socket (S1).
const READ_BUFFER: usize = 4 * 1024;
/// Bytes that wait before they are written (S2).
const WRITE_BUFFER: usize = 2 * 1024;
/// Largest frame that a server may send, with room.
const FRAME_MAX: usize = 2 * 1024 * 1024;

/// A greeted socket.
pub struct Socket(WebSocketStream<Stream>);

/// What a read brought.
pub enum Read {
    /// A frame of text.
    Text(tungstenite::Utf8Bytes),
    /// The server said goodbye, or is gone.
    Closed(Option<u16>),
}

impl Socket {
    /// Connects in header mode with acknowledgements, and waits for `hello.ok`.
    pub async fn open(target: &Target, source: Option<Ipv4Addr>, key: &str) -> Result<Self, LoadError> {
        let stream = target.connect(source).await?;
        let uri = format!("ws://{}{}/v1/ws", target.host, target.path); // the scheme is the stream's
        let mut request = uri.into_client_request()?;
        let bearer = HeaderValue::from_str(&format!("Bearer {key}")).map_err(LoadError::answer)?;
        request.headers_mut().insert(AUTHORIZATION, bearer);
        request.headers_mut().insert("x-agentchat-capabilities", HeaderValue::from_static("ack"));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(FRAME_MAX))
            .max_frame_size(Some(FRAME_MAX));
        let greeted = async {
            let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
            let mut socket = Self(socket);
            match socket.read().await? {
                Read::Text(text) => {
                    let frame: wire::Frame<'_> = serde_json::from_str(&text).map_err(LoadError::answer)?;
                    if frame.kind != "hello.ok" {
                        return Err(LoadError::Answer(format!("first frame is {}", frame.kind)));
                    }
                }
                Read::Closed(code) => return Err(LoadError::Answer(format!("closed with {code:?} before hello.ok"))),
            }
            Ok(socket)
        };
        timeout(HELLO_DEADLINE, greeted).await.map_err(|_| LoadError::Late(HELLO_DEADLINE.as_secs()))?
    }

    /// The next frame of text. Pings are answered on the way.
    pub async fn read(&mut self) -> Result<Read, LoadError> {
        loop {
            return Ok(match self.0.next().await {
                Some(Ok(Message::Text(text))) => Read::Text(text),
                Some(Ok(Message::Close(frame))) => Read::Closed(frame.map(|frame| u16::from(frame.code))),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error.into()),
                None => Read::Closed(None),
            });
        }
    }

    /// A frame that is there already.
    pub fn ready(&mut self) -> Option<Result<Read, LoadError>> {
        self.read().now_or_never()
    }

    /// Acknowledges a message with the next flush (S2).
    pub async fn ack(&mut self, message_id: &str) -> Result<(), LoadError> {
        Ok(self.0.feed(Message::Text(wire::ack_frame(message_id).into())).await?)
    }

    /// Writes what waits.
    pub async fn flush(&mut self) -> Result<(), LoadError> {
        Ok(self.0.flush().await?)
    }

    /// Says goodbye.
    pub async fn close(&mut self) -> Result<(), LoadError> {
        Ok(self.0.close(None).await?)
    }
}
