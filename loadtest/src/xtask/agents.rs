//! Clients as the SDKs are: they send with a key until there is an answer, hold a socket or poll, ack what they have, and
//! go to any server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::Failure;
use crate::fleet::{Fleet, TOKEN};
use crate::history::History;

/// One request gives up after this, and the client goes elsewhere.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Longest pause between attempts.
const AGAIN: Duration = Duration::from_millis(500);
/// A socket that says nothing for so long, although it was pinged, is given up.
const SILENCE: Duration = Duration::from_secs(6);
/// A poller looks this often.
const POLL: Duration = Duration::from_secs(2);
/// Agents that poll instead of holding a socket: every so many.
const POLLER: usize = 5;
/// Share of a poller's rounds in which it also asks for the presence of its peers, which servers have from Redis.
const PRESENCE: f64 = 0.2;
/// Members of a group.
const GROUP: usize = 8;

/// One client.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its handle.
    pub handle: String,
    /// Its key.
    pub key: String,
    /// Whom it writes to.
    pub peers: Vec<usize>,
    /// Groups that it is in.
    pub groups: Vec<String>,
}

fn jitter(longest: Duration) -> Duration {
    longest.mul_f64(rand::rng().random_range(0.1..1.0))
}

/// All clients and what they share.
pub struct World {
    /// By number.
    pub agents: Vec<Agent>,
    /// What happened.
    pub history: History,
    /// Servers that may be asked: 1 to this.
    pub servers: AtomicUsize,
    /// No new sends.
    pub quiet: AtomicBool,
    /// Nothing at all any more.
    pub over: AtomicBool,
    http: Client,
}

impl World {
    /// Makes agents, who know each other in small circles, and groups.
    pub async fn people(agents: usize, servers: usize) -> Result<Self, Failure> {
        let http = Client::builder().timeout(ATTEMPT).pool_max_idle_per_host(16).build()?;
        let body = json!({"prefix": "chaos", "count": agents, "start": 1});
        let url = format!("{}/operator/agents", Fleet::url(1));
        let made = http.post(url).bearer_auth(TOKEN).json(&body).timeout(Duration::from_secs(120)).send().await?;
        let lines = made.error_for_status()?.text().await?;
        let agent = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
            Agent { handle: text("handle"), key: text("api_key"), peers: Vec::new(), groups: Vec::new() }
        };
        let mut this = Self {
            agents: lines.lines().map(agent).collect(),
            history: History::default(),
            servers: AtomicUsize::new(servers),
            quiet: AtomicBool::new(false),
            over: AtomicBool::new(false),
            http,
        };
        this.introduce().await?;
        Ok(this)
    }

    async fn introduce(&mut self) -> Result<(), Failure> {
        let count = self.agents.len();
        for n in 0..count {
            let circle = n - n % GROUP;
            self.agents[n].peers = (circle..(circle + GROUP).min(count)).filter(|other| *other != n).collect();
        }
        let calls = (0..count).flat_map(|n| self.agents[n].peers.iter().map(move |peer| (n, *peer)));
        let calls: Vec<(usize, usize)> = calls.collect();
        let known = futures_util::stream::iter(calls).map(|(n, peer)| {
            let body = json!({"handle": self.agents[peer].handle});
            self.must(n, Method::POST, "/v1/contacts", Some(body))
        });
        let outcomes: Vec<_> = known.buffer_unordered(32).collect().await;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        for first in (0..count).step_by(GROUP) {
            let members = first..(first + GROUP).min(count);
            let handles: Vec<&str> = members.clone().skip(1).map(|n| self.agents[n].handle.as_str()).collect();
            let body = json!({"name": format!("circle {first}"), "member_handles": handles});
            let made = self.must(first, Method::POST, "/v1/groups", Some(body)).await?;
            let id = made["group"]["id"].as_str().unwrap_or_default().to_owned();
            members.for_each(|n| self.agents[n].groups.push(id.clone()));
        }
        Ok(())
    }

    fn somewhere(&self) -> String {
        Fleet::url(rand::rng().random_range(1..=self.servers.load(Ordering::Relaxed)))
    }

    async fn call(
        &self,
        agent: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), reqwest::Error> {
        let request = self.http.request(method, format!("{}{path}", self.somewhere()));
        let request = request.bearer_auth(&self.agents[agent].key);
        let request = if let Some(body) = body { request.json(body) } else { request };
        let answer = request.send().await?;
        // Half an answer is none.
        Ok((answer.status(), answer.json().await?))
    }

    /// Asks until there is a 2xx; anything definite but that is a failure.
    pub async fn must(&self, agent: usize, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        for _ in 0..120 {
            match self.call(agent, method.clone(), path, body.as_ref()).await {
                Ok((status, value)) if status.is_success() => return Ok(value),
                Ok((status, value)) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                    return Err(Failure::Said(format!("{method} {path}: {status} {value}")));
                }
                Ok(_) | Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
        Err(Failure::Said(format!("{method} {path}: no answer in a minute")))
    }

    /// Starts all clients.
    pub fn start(self: &Arc<Self>, seed: u64, pace: Duration) {
        for n in 0..self.agents.len() {
            let rng = StdRng::seed_from_u64(seed ^ (n as u64) << 20);
            tokio::spawn(Arc::clone(self).write(n, rng, pace));
            if n % POLLER == 0 {
                tokio::spawn(Arc::clone(self).poll(n));
            } else {
                tokio::spawn(Arc::clone(self).listen(n));
            }
        }
    }

    /// Sends until told to be quiet.
    async fn write(self: Arc<Self>, n: usize, mut rng: StdRng, pace: Duration) {
        for count in 0_u64.. {
            tokio::time::sleep(pace.mul_f64(rng.random_range(0.2..1.8))).await;
            if self.quiet.load(Ordering::Relaxed) {
                return;
            }
            let agent = &self.agents[n];
            let key = format!("{}-{count}", agent.handle);
            let mut body = json!({"client_msg_id": key, "content": {"text": key}});
            let to = match agent.groups.first().filter(|_| rng.random_bool(0.2)) {
                Some(group) => {
                    body["conversation_id"] = json!(group);
                    None
                }
                None => {
                    let peer = agent.peers[rng.random_range(0..agent.peers.len())];
                    body["to"] = json!(self.agents[peer].handle);
                    Some(peer)
                }
            };
            self.send(n, to, &key, &body).await;
        }
    }

    /// One more message to everybody, from its first peer. What was stored before is pushed before (S3): who has acked
    /// this one was offered all of that.
    pub async fn greet(&self, round: usize) {
        let greetings = (0..self.agents.len()).filter_map(|n| {
            let from = *self.agents[n].peers.first()?;
            let key = format!("{}-again-{round}", self.agents[n].handle);
            let body = json!({"client_msg_id": key, "content": {"text": key}, "to": self.agents[n].handle});
            Some(async move { self.send(from, Some(n), &key, &body).await })
        });
        futures_util::stream::iter(greetings).buffer_unordered(32).collect::<Vec<()>>().await;
    }

    /// One send, repeated with its key until there is a definite answer.
    async fn send(&self, n: usize, to: Option<usize>, key: &str, body: &Value) {
        let send = self.history.begin(n, to, key);
        while !self.over.load(Ordering::Relaxed) {
            self.history.attempt(send);
            match self.call(n, Method::POST, "/v1/messages", Some(body)).await {
                Ok((status, value)) if status.is_success() => {
                    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
                    let place = (text("conversation_id"), value["seq"].as_u64().unwrap_or(0), text("id"));
                    return self.history.end(send, Ok(place));
                }
                Ok((status, value)) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                    self.history.violate("A1", format!("a send was refused: {key}: {status} {value}"));
                    return self.history.end(send, Err(format!("{status} {}", value["code"])));
                }
                Ok(_) | Err(_) => tokio::time::sleep(jitter(AGAIN)).await,
            }
        }
    }

    /// Holds a socket and acks what arrives.
    async fn listen(self: Arc<Self>, n: usize) {
        while !self.over.load(Ordering::Relaxed) {
            let _ = self.one_socket(n).await; // whatever ended it: the next one
            tokio::time::sleep(jitter(AGAIN)).await;
        }
    }

    async fn one_socket(&self, n: usize) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        let since = Instant::now();
        let url = format!("{}/v1/ws", self.somewhere().replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        let bearer = format!("Bearer {}", self.agents[n].key);
        if let Ok(value) = bearer.parse() {
            request.headers_mut().insert("authorization", value);
        }
        request.headers_mut().insert("x-agentchat-capabilities", "ack".parse().expect("a header"));
        let connected = tokio::time::timeout(ATTEMPT, tokio_tungstenite::connect_async(request)).await;
        let Ok(connected) = connected else { return Ok(()) };
        let (mut socket, _) = connected?;
        self.history.records().sockets += 1;
        let mut pinged = false;
        while !self.over.load(Ordering::Relaxed) {
            match tokio::time::timeout(SILENCE / 2, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => {
                    if let Some(id) = self.frame(n, &text, since) {
                        let ack = json!({"type": "ack", "message_id": id});
                        socket.send(Message::text(ack.to_string())).await?;
                        self.history.acked(n, &id);
                    }
                    pinged = false;
                }
                Ok(Some(Ok(_))) => pinged = false,
                Ok(Some(Err(error))) => return Err(error),
                Ok(None) => return Ok(()),
                Err(_) if pinged => return Ok(()),
                Err(_) => {
                    pinged = true;
                    socket.send(Message::Ping(Vec::new().into())).await?;
                }
            }
        }
        Ok(())
    }

    /// Notes a message of somebody else; the id to ack.
    fn frame(&self, n: usize, text: &str, since: Instant) -> Option<String> {
        let frame: Value = serde_json::from_str(text).ok()?;
        let message = &frame["payload"];
        if frame["type"] != "message.new" || message["sender"] == self.agents[n].handle {
            return None;
        }
        let id = message["id"].as_str()?;
        self.history.offered(n, id, since);
        if message["type"] == "text" {
            let key = message["client_msg_id"].as_str().unwrap_or_default();
            self.history.saw(n, message["conversation_id"].as_str()?, message["seq"].as_u64()?, key);
        }
        Some(id.to_owned())
    }

    /// Reads pages and acks them.
    async fn poll(self: Arc<Self>, n: usize) {
        while !self.over.load(Ordering::Relaxed) {
            let found = self.one_page(n).await;
            if rand::rng().random_bool(PRESENCE) {
                self.look_around(n).await;
            }
            let pause = if matches!(found, Ok(100)) { Duration::ZERO } else { POLL };
            tokio::time::sleep(pause).await;
        }
    }

    /// One page of sync, acked; how many rows it had.
    async fn one_page(&self, n: usize) -> Result<usize, Failure> {
        let since = Instant::now();
        let (status, page) = self.call(n, Method::GET, "/v1/messages/sync?limit=100", None).await?;
        let Some(rows) = page.as_array().filter(|_| status.is_success()) else { return Ok(0) };
        for row in rows {
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            self.history.offered(n, text("id"), since);
            if row["type"] == "text" {
                let seq = row["seq"].as_u64().unwrap_or(0);
                self.history.saw(n, text("conversation_id"), seq, text("client_msg_id"));
            }
        }
        if let Some(last) = rows.last() {
            let body = json!({"last_delivery_id": last["delivery_id"]});
            rows.iter().for_each(|row| self.history.acked(n, row["id"].as_str().unwrap_or_default()));
            let acks = self.history.acks(n);
            let (status, _) = self.call(n, Method::POST, "/v1/messages/sync/ack", Some(&body)).await?;
            if status.is_success() {
                self.history.confirm(n, acks);
            }
        }
        Ok(rows.len())
    }

    /// Asks who of the peers is there; a server that does not know in time is no matter, one that refuses is.
    async fn look_around(&self, n: usize) {
        let peers = &self.agents[n].peers;
        let handles: Vec<&str> = peers.iter().map(|peer| self.agents[*peer].handle.as_str()).collect();
        let asked = self.call(n, Method::POST, "/v1/presence/batch", Some(&json!({"handles": handles}))).await;
        let Ok((status, value)) = asked else { return };
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            self.history.violate("A1", format!("presence was refused: {status} {value}"));
        }
    }

    /// How many agents still have something waiting. Where nothing is, all that was acked before is settled: that is how
    /// a client on a socket, whose acks have no answer, comes to know.
    pub async fn waiting(&self) -> usize {
        let asked = futures_util::stream::iter(0..self.agents.len()).map(|n| async move {
            let acks = self.history.acks(n);
            let answer = self.call(n, Method::GET, "/v1/messages/sync?limit=1", None).await;
            let empty = matches!(answer, Ok((status, page)) if status.is_success() && page.as_array().is_some_and(Vec::is_empty));
            if empty {
                self.history.confirm(n, acks);
            }
            !empty
        });
        asked.buffer_unordered(16).filter(|waits| std::future::ready(*waits)).count().await
    }

    /// A conversation's whole log as one of its members reads it: seq, id, sender, key, kind.
    pub async fn log(&self, n: usize, conversation: &str) -> Result<Vec<Value>, Failure> {
        let (mut log, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/v1/messages/{conversation}?after_seq={after}&limit=200");
            let page = self.must(n, Method::GET, &path, None).await?;
            let rows = page.as_array().cloned().unwrap_or_default();
            let Some(last) = rows.last() else { return Ok(log) };
            after = last["seq"].as_u64().unwrap_or(u64::MAX);
            log.extend(rows);
        }
    }
}
