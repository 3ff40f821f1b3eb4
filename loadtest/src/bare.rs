//! Servers that do next to nothing, to be measured beside the real one: what the machine and HTTP cost by themselves.
//!
//! B1  The bare handler reads the same bodies, parses them as JSON, and answers 201 with a body of the same shape; it stores
//!     nothing and tells nobody. It is a process of its own, as the server is, and runs on the same HTTP library.
//! B2  The echo sends back what it reads: a round trip over loopback and the runtime.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::drive::{Arrival, Job};
use crate::error::LoadError;
use crate::meter::{Count, Meter, Timing, histogram};
use crate::wire::send_body;

/// A message is about this large, and so is what the echo is sent.
const ECHO_BYTES: usize = 256;
/// Pause after a failed accept, for example when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a send asks for, as far as a bare handler looks.
#[derive(Deserialize)]
struct Send<'a> {
    to: String,
    client_msg_id: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// Serves both on free loopback ports, and says which; until it is killed.
pub async fn serve() -> Result<(), LoadError> {
    let io = |error| LoadError::Io("bare servers", error);
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(io)?;
    let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(io)?;
    println!("{} {}", http.local_addr().map_err(io)?, echo.local_addr().map_err(io)?);
    let echoing = tokio::spawn(accept(echo, |stream| async move {
        let _ = echo_one(stream).await; // the peer went away
    }));
    accept(http, |stream| async move {
        let service = service_fn(answer);
        let _ = Builder::new(TokioExecutor::new()).http1_only().serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    echoing.abort();
    Ok(())
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + std::marker::Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true); // it works on every TCP socket
                tokio::spawn(serve(stream));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn echo_one(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4 * ECHO_BYTES];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

/// 201 with the message as it would be stored (B1).
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let (status, body) = match serde_json::from_slice::<Send<'_>>(&body) {
        Ok(send) => (StatusCode::CREATED, stored(&send)),
        Err(error) => {
            (StatusCode::BAD_REQUEST, json!({"code": "VALIDATION_ERROR", "message": error.to_string()}).to_string())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn stored(send: &Send<'_>) -> String {
    json!({
        "id": "msg_0123456789abcdef", "conversation_id": "conv_0123456789abcdef", "sender": "load-0",
        "client_msg_id": send.client_msg_id, "seq": 1, "type": "text", "content": send.content, "metadata": {},
        "context": {
            "sender": {"handle": send.to, "display_name": null, "kind": "agent"},
            "conversation": {"type": "direct", "group_name": null, "member_count": null}, "mentions": []
        },
        "status": "stored", "created_at": "2026-01-01T00:00:00.000Z", "delivered_at": null, "read_at": null,
    })
    .to_string()
}

/// The bare servers in a process of their own, which goes away with this.
pub struct Bare {
    /// The handler.
    pub http: SocketAddr,
    /// The echo.
    pub echo: SocketAddr,
    _process: Child,
}

impl Bare {
    /// Starts them.
    pub async fn start() -> Result<Self, LoadError> {
        let io = |error| LoadError::Io("bare servers", error);
        let myself = std::env::current_exe().map_err(io)?;
        let mut process =
            Command::new(myself).arg("bare").stdout(Stdio::piped()).kill_on_drop(true).spawn().map_err(io)?;
        let said = process.stdout.take().ok_or_else(|| LoadError::answer("bare servers: no output"))?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).await.map_err(io)?;
        let mut addresses = line.split_whitespace().map(str::parse);
        match (addresses.next(), addresses.next()) {
            (Some(Ok(http)), Some(Ok(echo))) => Ok(Self { http, echo, _process: process }),
            _ => Err(LoadError::Answer(format!("bare servers said {line:?}"))),
        }
    }

    /// Round trips of one connection for `length`, in microseconds.
    pub async fn round_trips(&self, length: Duration) -> Result<Histogram<u64>, LoadError> {
        let io = |error| LoadError::Io("echo", error);
        let mut stream = TcpStream::connect(self.echo).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let (mut took, begun, mut buffer) = (histogram()?, Instant::now(), [7; ECHO_BYTES]);
        while begun.elapsed() < length {
            let before = Instant::now();
            stream.write_all(&buffer).await.map_err(io)?;
            stream.read_exact(&mut buffer).await.map_err(io)?;
            took.saturating_record(u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        Ok(took)
    }
}

/// Sends the bodies of direct messages to the bare handler.
pub struct BareSends {
    /// What is measured.
    pub meter: std::sync::Arc<Meter>,
    /// Content.
    pub text: String,
}

impl Job for BareSends {
    async fn run(&self, client: &mut Client, arrival: Arrival) -> Result<(), LoadError> {
        let id = format!("lt.ffffffff.0.{:x}.{:x}.{:x}", arrival.number, arrival.worker, arrival.intended_us);
        let body = send_body(&format!(r#""to":"load-{}""#, arrival.worker), &id, &self.text);
        let key = "ac_live_0123456789012345678901234567890123456789012";
        let answer = client.post_as("/v1/messages", key, body).await?;
        let stored: crate::wire::Message<'_> = answer.read()?; // as much work for the client as with the real server
        if stored.client_msg_id != id {
            return Err(LoadError::answer("the bare handler answered something else"));
        }
        self.meter.done(Timing::Send, arrival.intended_us);
        self.meter.count(Count::Acknowledged);
        Ok(())
    }
}
