//! One group, everybody or half of it on sockets: what a send costs, and how many deliveries a second come out.
//!
//! G1  Beside it, in the same run, as many direct sends: a group earns its place by being cheaper than that.
//! G2  Online members acknowledge every frame, as the official clients do; the clock stops when the last one has its last.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::client::Client;
use crate::error::LoadError;
use crate::meter::histogram;
use crate::sends::TEXT;
use crate::server::Server;

/// Frames have to arrive within this after the last send was answered.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(60);
/// Members that send at the same time when throughput is measured.
const SENDERS: usize = 8;

/// An agent of the group.
#[derive(Clone)]
struct Member {
    handle: String,
    key: String,
}

/// Frames that members have read, and whoever waits for them.
#[derive(Default)]
struct Seen {
    messages: AtomicU64,
    changed: Notify,
}

impl Seen {
    async fn at_least(&self, count: u64) -> Result<(), LoadError> {
        let reached = async {
            while self.messages.load(Ordering::Acquire) < count {
                self.changed.notified().await;
            }
        };
        let waited = tokio::time::timeout(DELIVERY_DEADLINE, reached).await;
        waited.map_err(|_| {
            let seen = self.messages.load(Ordering::Acquire);
            LoadError::Answer(format!("{seen} of {count} frames arrived"))
        })
    }
}

/// Runs the whole measurement and prints one line per share of members online.
pub async fn run(binary: &Path, disk: &Path, size: usize, messages: usize) -> Result<(), LoadError> {
    let server = Server::start(binary, disk, &[]).await?;
    let members = provision(&server, size).await?;
    let mut creator = Client::connect(server.address, &members[0].key).await?;
    let group = assemble(&server, &members, &mut creator).await?;
    println!(
        "a group of {size}; {messages} messages alone, then {SENDERS} members at once; direct sends to each member beside it"
    );
    println!(
        "{:>8} {:>9} {:>9} {:>13} {:>16} {:>8}",
        "online", "p50 ms", "p99 ms", "deliveries/s", "direct sends/s", "ratio"
    );
    for online in [size - 1, (size - 1) / 2] {
        let seen = Arc::new(Seen::default());
        let sockets = listen(server.address, &members[1..=online], &seen).await?;
        let latencies = alone(&mut creator, &group, online, messages, &seen).await?;
        let group_rate = together(server.address, &members, &group, online, messages, &seen).await?;
        let direct_rate = direct(server.address, &members, online, &seen).await?;
        let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        println!(
            "{online:>8} {:>9.2} {:>9.2} {group_rate:>13.0} {direct_rate:>16.0} {:>8.2}",
            ms(0.5),
            ms(0.99),
            group_rate / direct_rate
        );
        sockets.iter().for_each(tokio::task::JoinHandle::abort);
    }
    Ok(())
}

async fn provision(server: &Server, size: usize) -> Result<Vec<Member>, LoadError> {
    let mut operator = Client::connect(server.address, crate::server::OPERATOR_TOKEN).await?;
    let body = format!(r#"{{"prefix":"member","count":{size}}}"#);
    let (status, lines) = operator.post("/operator/agents", body).await?;
    let text = String::from_utf8_lossy(&lines).into_owned();
    if !status.is_success() {
        return Err(LoadError::Answer(text));
    }
    let member = |line: &str| -> Option<Member> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Some(Member { handle: text("handle")?, key: text("api_key")? })
    };
    text.lines().map(|line| member(line).ok_or_else(|| LoadError::Answer(line.to_owned()))).collect()
}

/// Everybody knows everybody who sends, so that members join at once and no direct send is cold.
async fn assemble(server: &Server, members: &[Member], creator: &mut Client) -> Result<String, LoadError> {
    for member in &members[1..] {
        let mut client = Client::connect(server.address, &member.key).await?;
        for sender in &members[..SENDERS] {
            if sender.handle != member.handle {
                client.call("/v1/contacts", format!(r#"{{"handle":"{}"}}"#, sender.handle)).await?;
            }
        }
    }
    let made = creator.call("/v1/groups", r#"{"name":"measured"}"#.to_owned()).await?;
    let group = made["group"]["id"].as_str().unwrap_or_default().to_owned();
    for member in &members[1..] {
        let body = format!(r#"{{"handle":"{}"}}"#, member.handle);
        creator.call(&format!("/v1/groups/{group}/members"), body).await?;
    }
    Ok(group)
}

/// One socket per member, each read and acknowledged by a task of its own.
async fn listen(
    address: SocketAddr,
    members: &[Member],
    seen: &Arc<Seen>,
) -> Result<Vec<tokio::task::JoinHandle<()>>, LoadError> {
    let mut tasks = Vec::with_capacity(members.len());
    for member in members {
        let refused = |error: &dyn std::fmt::Display| LoadError::Answer(format!("socket: {error}"));
        let mut request = format!("ws://{address}/v1/ws").into_client_request().map_err(|error| refused(&error))?;
        let authorization = format!("Bearer {}", member.key).parse().map_err(|_| refused(&"key"))?;
        request.headers_mut().insert("authorization", authorization);
        request.headers_mut().insert("x-agentchat-capabilities", "ack".parse().map_err(|_| refused(&"header"))?);
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.map_err(|error| refused(&error))?;
        let seen = Arc::clone(seen);
        tasks.push(tokio::spawn(async move {
            while let Some(Ok(frame)) = socket.next().await {
                let Message::Text(text) = frame else { continue };
                let Some(id) = text.split("\"id\":\"msg_").nth(1).and_then(|rest| rest.split('"').next()) else {
                    continue;
                };
                let ack = format!(r#"{{"type":"ack","message_id":"msg_{id}"}}"#);
                if text.contains("\"type\":\"text\"") {
                    seen.messages.fetch_add(1, Ordering::AcqRel);
                    seen.changed.notify_one();
                }
                if socket.send(Message::Text(ack.into())).await.is_err() {
                    return;
                }
            }
        }));
    }
    Ok(tasks)
}

fn body(target: &str, id: &str) -> String {
    format!(r#"{{{target},"client_msg_id":"{id}","content":{{"text":"{TEXT}"}}}}"#)
}

/// One sender that waits for each answer.
async fn alone(
    creator: &mut Client,
    group: &str,
    online: usize,
    messages: usize,
    seen: &Seen,
) -> Result<Histogram<u64>, LoadError> {
    let mut latencies = histogram()?;
    let before = seen.messages.load(Ordering::Acquire);
    for n in 0..messages {
        let at = Instant::now();
        let target = format!(r#""conversation_id":"{group}""#);
        creator.call("/v1/messages", body(&target, &format!("alone-{online}-{n}"))).await?;
        latencies.saturating_record(u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    seen.at_least(before + (messages * online) as u64).await?;
    Ok(latencies)
}

/// Several members at once: deliveries per second, to everybody, until the last frame has arrived.
async fn together(
    address: SocketAddr,
    members: &[Member],
    group: &str,
    online: usize,
    messages: usize,
    seen: &Seen,
) -> Result<f64, LoadError> {
    let before = seen.messages.load(Ordering::Acquire);
    let mut clients = Vec::new();
    for member in &members[..SENDERS] {
        clients.push(Client::connect(address, &member.key).await?);
    }
    let started = Instant::now();
    let tasks = clients.into_iter().enumerate().map(|(sender, mut client)| {
        let target = format!(r#""conversation_id":"{group}""#);
        tokio::spawn(async move {
            for n in 0..messages {
                client.call("/v1/messages", body(&target, &format!("together-{online}-{sender}-{n}"))).await?;
            }
            Ok::<_, LoadError>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(|error| LoadError::Answer(error.to_string()))??;
    }
    // Senders get their echo as well: every online member sees every message.
    let frames = SENDERS * messages * online;
    seen.at_least(before + frames as u64).await?;
    Ok((SENDERS * messages * (members.len() - 1)) as f64 / started.elapsed().as_secs_f64())
}

/// The same number of senders, each writing to every other member: direct sends per second.
async fn direct(address: SocketAddr, members: &[Member], online: usize, seen: &Seen) -> Result<f64, LoadError> {
    let before = seen.messages.load(Ordering::Acquire);
    let mut clients = Vec::new();
    for member in &members[..SENDERS] {
        clients.push((Client::connect(address, &member.key).await?, member.handle.clone()));
    }
    let started = Instant::now();
    let tasks = clients.into_iter().map(|(mut client, own)| {
        let peers: Vec<String> =
            members.iter().map(|member| member.handle.clone()).filter(|peer| *peer != own).collect();
        tokio::spawn(async move {
            for peer in peers {
                let target = format!(r#""to":"{peer}""#);
                client.call("/v1/messages", body(&target, &format!("direct-{online}-{peer}"))).await?;
            }
            Ok::<_, LoadError>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(|error| LoadError::Answer(error.to_string()))??;
    }
    let sends = (SENDERS * (members.len() - 1)) as f64;
    let rate = sends / started.elapsed().as_secs_f64();
    // Recipients online, and the echoes of the senders that are.
    let echoes = (SENDERS - 1) * (members.len() - 1);
    let received = members[1..=online]
        .iter()
        .map(|one| SENDERS - usize::from(members[..SENDERS].iter().any(|s| s.handle == one.handle)));
    seen.at_least(before + (received.sum::<usize>() + echoes) as u64).await?;
    Ok(rate)
}
