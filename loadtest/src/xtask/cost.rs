//! What it costs that a message crosses nodes: the same store, the same clients, one node beside three.
//!
//! ```text
//!   one     client ──▶ node ─ sender, conversation, recipient ─▶ socket
//!   three   client ──▶ A ──▶ B sender ──▶ C conversation ──▶ A or B recipient ──▶ another node's socket
//! ```
//! Pairs of agents are chosen so that in the second case no step stays on its node. Rounds alternate, so that both see
//! the same machine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use rand::seq::SliceRandom;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::Failure;

const TOKEN: &str = "token-of-the-cost-harness";
const NODES: usize = 3;
/// Agents to choose pairs from: one pair in about seven crosses everywhere.
const AGENTS: usize = 768;
const TEXT: &str = "two hundred bytes are what a message of an agent to another commonly has, give or take a few; this one \
                    is made of words, so that whoever reads it in a log knows where it came from, and nothing else at all.";

/// What is measured, and how long.
#[derive(Debug, Clone, Args)]
pub struct Cost {
    /// Server binary
    #[arg(long, default_value = "target/release/agentchat")]
    server: PathBuf,
    /// Starts the database
    #[arg(long, default_value = "tests/bin/cassandra-dev")]
    cassandra: PathBuf,
    /// Clients that send at a time
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Rounds of each kind
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a round, in seconds
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Deliveries that are timed one by one, of each kind
    #[arg(long, default_value_t = 500)]
    deliveries: usize,
}

struct Agent {
    handle: String,
    key: String,
}

/// Who sends to whom, through which node, and where the recipient's socket is.
struct Pair {
    from: Agent,
    to: Agent,
    gateway: usize,
    socket: usize,
}

/// Servers over one keyspace.
struct Deployment {
    urls: Vec<String>,
    pairs: Vec<Pair>,
    http: Client,
    next: AtomicU64,
    _processes: Vec<Child>,
}

async fn free_port() -> Result<u16, Failure> {
    let io = |e| Failure::Io("a free port".to_owned(), e);
    TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).map(|at| at.port()).map_err(io)
}

/// Runs a program to its end.
async fn done(command: &mut Command, what: &str) -> Result<(), Failure> {
    let output = command.stdin(Stdio::null()).output().await.map_err(|e| Failure::Io(what.to_owned(), e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Said(format!("{what}: {}", String::from_utf8_lossy(&output.stderr))))
}

impl Deployment {
    async fn start(options: &Cost, scratch: &std::path::Path, cql: u16, nodes: usize) -> Result<Self, Failure> {
        let store = format!("cql://127.0.0.1:{cql}/nodes{nodes}");
        let mut migrate = Command::new(&options.server);
        done(migrate.args(["migrate", "--store", &store, "--replication", "1"]), "migrate").await?;
        let (mut urls, mut processes) = (Vec::new(), Vec::new());
        for n in 0..nodes {
            let (http, link) = (free_port().await?, free_port().await?);
            let child = Command::new(&options.server)
                .env("AGENTCHAT_STORE", &store)
                .env("AGENTCHAT_LISTEN", format!("127.0.0.1:{http}"))
                .env("AGENTCHAT_NODE", format!("node-{n}"))
                .env("AGENTCHAT_CLUSTER_LISTEN", format!("127.0.0.1:{link}"))
                .env("AGENTCHAT_CLUSTER_COOKIE", "cookie-of-the-cost-harness")
                .env("AGENTCHAT_DATA_DIR", scratch.join(format!("{nodes}-{n}")))
                .env("AGENTCHAT_LIMITS", "open")
                .env("AGENTCHAT_OPERATOR_TOKEN", TOKEN)
                .env("AGENTCHAT_LOG", "warn")
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(|e| Failure::Io(options.server.display().to_string(), e))?;
            processes.push(child);
            urls.push(format!("http://127.0.0.1:{http}"));
        }
        let http = Client::builder().pool_max_idle_per_host(512).timeout(Duration::from_secs(20)).build()?;
        let mut this = Self { urls, pairs: Vec::new(), http, next: AtomicU64::new(0), _processes: processes };
        this.ready().await?;
        this.pair_up(options.clients).await?;
        Ok(this)
    }

    async fn ready(&self) -> Result<(), Failure> {
        let end = Instant::now() + Duration::from_secs(90);
        for url in &self.urls {
            while !self.http.get(format!("{url}/readyz")).send().await.is_ok_and(|answer| answer.status().is_success())
            {
                if Instant::now() > end {
                    return Err(Failure::Said(format!("{url} is not ready")));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    async fn owner(&self, id: &str) -> Result<usize, Failure> {
        let url = format!("{}/operator/cluster/places/{id}", self.urls[0]);
        let place: Value = self.http.get(url).bearer_auth(TOKEN).send().await?.error_for_status()?.json().await?;
        let name = place["owner"].as_str().and_then(|name| name.strip_prefix("node-")).and_then(|n| n.parse().ok());
        name.ok_or_else(|| Failure::Said(format!("{id} has no owner")))
    }

    /// Makes agents and finds `wanted` pairs of them whose messages take no step within a node, if there are several.
    async fn pair_up(&mut self, wanted: usize) -> Result<(), Failure> {
        let body = json!({"prefix": "cost", "count": AGENTS, "start": 1});
        let url = format!("{}/operator/agents", self.urls[0]);
        let lines = self.http.post(url).bearer_auth(TOKEN).json(&body).send().await?.error_for_status()?.text().await?;
        let agent = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
            Agent { handle: text("handle"), key: text("api_key") }
        };
        let mut agents: Vec<Agent> = lines.lines().map(agent).collect();
        agents.shuffle(&mut rand::rng());
        let nodes = self.urls.len();
        while let (Some(from), Some(to)) = (agents.pop(), agents.pop()) {
            let known = json!({"handle": from.handle});
            let url = format!("{}/v1/contacts", self.urls[0]);
            self.http.post(url).bearer_auth(&to.key).json(&known).send().await?.error_for_status()?;
            let mut pair = Pair { from, to, gateway: 0, socket: 0 };
            let conversation = self.send(&pair).await?;
            let (sender, recipient) = (self.owner(&pair.from.handle).await?, self.owner(&pair.to.handle).await?);
            let log = self.owner(&conversation).await?;
            if nodes > 1 && (sender == log || log == recipient) {
                continue;
            }
            (pair.gateway, pair.socket) = ((sender + 1) % nodes, (recipient + 1) % nodes);
            self.pairs.push(pair);
            if self.pairs.len() == wanted {
                return Ok(());
            }
        }
        Err(Failure::Said("too few pairs of agents cross nodes: use fewer clients".to_owned()))
    }

    /// Sends one message; its conversation.
    async fn send(&self, pair: &Pair) -> Result<String, Failure> {
        self.send_as(pair, &self.next_id()).await
    }

    fn next_id(&self) -> String {
        format!("m{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    async fn send_as(&self, pair: &Pair, id: &str) -> Result<String, Failure> {
        let body = json!({"to": pair.to.handle, "client_msg_id": id, "content": {"text": TEXT}});
        let url = format!("{}/v1/messages", self.urls[pair.gateway]);
        let answer = self.http.post(url).bearer_auth(&pair.from.key).json(&body).send().await?.error_for_status()?;
        let message: Value = answer.json().await?;
        Ok(message["conversation_id"].as_str().unwrap_or_default().to_owned())
    }

    /// Acknowledged sends per second, of as many clients as there are pairs.
    async fn round(self: &Arc<Self>, length: Duration) -> Result<f64, Failure> {
        let (started, sent) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let work = (0..self.pairs.len()).map(|n| {
            let (this, sent) = (Arc::clone(self), Arc::clone(&sent));
            tokio::spawn(async move {
                while started.elapsed() < length {
                    this.send(&this.pairs[n]).await?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Failure>(())
            })
        });
        for outcome in futures_util::future::join_all(work).await {
            outcome.map_err(|e| Failure::Said(e.to_string()))??;
        }
        // Inboxes are emptied between rounds, so that the caps are never met.
        for pair in &self.pairs {
            self.drain(pair).await?;
        }
        Ok(sent.load(Ordering::Relaxed) as f64 / started.elapsed().min(length).as_secs_f64())
    }

    async fn drain(&self, pair: &Pair) -> Result<(), Failure> {
        let url = format!("{}/v1/messages/sync", self.urls[pair.gateway]);
        loop {
            let page = self.http.get(format!("{url}?limit=500")).bearer_auth(&pair.to.key).send().await?;
            let page: Value = page.error_for_status()?.json().await?;
            let Some(last) = page.as_array().and_then(|rows| rows.last()) else { return Ok(()) };
            let body = json!({"last_delivery_id": last["delivery_id"]});
            let acked = self.http.post(format!("{url}/ack")).bearer_auth(&pair.to.key).json(&body).send().await?;
            acked.error_for_status()?;
        }
    }

    /// From the beginning of a send to its frame on the recipient's socket, one at a time.
    async fn deliveries(&self, count: usize) -> Result<Histogram<u64>, Failure> {
        let mut took = histogram()?;
        let some: Vec<&Pair> = self.pairs.iter().take(8).collect();
        let mut sockets = HashMap::new();
        for (n, pair) in some.iter().enumerate() {
            let url = format!("{}/v1/ws", self.urls[pair.socket].replacen("http", "ws", 1));
            let said = |e: &dyn std::fmt::Display| Failure::Said(format!("socket: {e}"));
            let mut request = url.into_client_request().map_err(|e| said(&e))?;
            let bearer = format!("Bearer {}", pair.to.key).parse().map_err(|e| said(&e))?;
            request.headers_mut().insert("authorization", bearer);
            let (socket, _) = tokio_tungstenite::connect_async(request).await.map_err(|e| said(&e))?;
            sockets.insert(n, socket);
        }
        for n in 0..count {
            let pair = some[n % some.len()];
            let Some(socket) = sockets.get_mut(&(n % some.len())) else { continue };
            // Its own frame: others may wait on the socket, such as the greeting, which names kinds of frames.
            let id = self.next_id();
            let (own, started) = (format!("\"client_msg_id\":\"{id}\""), Instant::now());
            let arrives = async {
                while let Some(Ok(frame)) = socket.next().await {
                    if matches!(&frame, Message::Text(text) if text.contains(&own)) {
                        return Ok(started.elapsed());
                    }
                }
                Err(Failure::Said("a socket closed".to_owned()))
            };
            let (sent, arrived) = tokio::join!(self.send_as(pair, &id), arrives);
            sent?;
            note(&mut took, arrived?);
        }
        Ok(took)
    }
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new(3).map_err(|e| Failure::Said(e.to_string()))
}

fn note(histogram: &mut Histogram<u64>, took: Duration) {
    // Not `saturating_record`: that keeps what is larger than the histogram as its limit, instead of growing it. What does
    // not fit into one of 64 bits never ended.
    let _ = histogram.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

/// There and back over a plain loopback connection, one at a time.
async fn echoes(count: usize) -> Result<Histogram<u64>, Failure> {
    let io = |e| Failure::Io("echo".to_owned(), e);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
    let at = listener.local_addr().map_err(io)?;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut buffer = [0; 512];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<_, std::io::Error>(());
            }
            stream.write_all(&buffer[..count]).await?;
        }
    });
    let mut stream = TcpStream::connect(at).await.map_err(io)?;
    stream.set_nodelay(true).map_err(io)?;
    let (mut took, mut buffer) = (histogram()?, [0; 280]);
    for _ in 0..count {
        let started = Instant::now();
        stream.write_all(&buffer).await.map_err(io)?;
        stream.read_exact(&mut buffer).await.map_err(io)?;
        note(&mut took, started.elapsed());
    }
    Ok(took)
}

/// Median, least and most.
fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
    (at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}

/// Measures, and prints.
pub async fn run(options: &Cost) -> Result<(), Failure> {
    let scratch = tempfile::tempdir().map_err(|e| Failure::Io("scratch directory".to_owned(), e))?;
    let port = free_port().await?;
    let database = |what: &str| {
        let mut command = Command::new(&options.cassandra);
        command.args(what.split(' ')).env("CQL_PORT", port.to_string()).env("CQL_SYNC", "batch");
        command.env("CQL_DATA", scratch.path().join("cassandra")).env("CQL_HEAP", "1g");
        command
    };
    done(&mut database("start 1"), "cassandra-dev").await?;
    let measured = measure(options, scratch.path(), port).await;
    done(&mut database("wipe"), "cassandra-dev").await?;
    measured
}

async fn measure(options: &Cost, scratch: &std::path::Path, port: u16) -> Result<(), Failure> {
    let one = Arc::new(Deployment::start(options, scratch, port, 1).await?);
    let three = Arc::new(Deployment::start(options, scratch, port, NODES).await?);
    println!("{} clients; each round {} s", options.clients, options.seconds);
    let length = Duration::from_secs_f64(options.seconds);
    let (mut alone, mut crossing, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for warm in 0..=options.rounds {
        let (a, b) = (one.round(length).await?, three.round(length).await?);
        if warm == 0 {
            continue;
        }
        println!("  one node {a:>7.0}/s   three nodes, all crossing {b:>7.0}/s   ratio {:.2}", b / a);
        alone.push(a);
        crossing.push(b);
        ratios.push(b / a);
    }
    for (what, values) in
        [("one node, sends/s", &mut alone), ("three nodes, sends/s", &mut crossing), ("ratio", &mut ratios)]
    {
        let (median, least, most) = spread(values);
        println!("{what:<24} median {median:.2}, {least:.2} to {most:.2}");
    }
    for _ in 0..2 {
        let kinds = [
            ("TCP echo", echoes(options.deliveries).await?),
            ("delivery, one node", one.deliveries(options.deliveries).await?),
            ("delivery, crossing", three.deliveries(options.deliveries).await?),
        ];
        for (what, took) in kinds {
            let at = |quantile| Duration::from_micros(took.value_at_quantile(quantile));
            println!("{what:<24} p50 {:?}, p99 {:?}", at(0.5), at(0.99));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_kept_as_it_is() {
        let mut took = histogram().ok().unwrap();
        [3, 20_000].into_iter().for_each(|micros| note(&mut took, Duration::from_micros(micros)));
        assert_eq!((took.min(), took.max() / 1_000), (3, 20));
    }
}
