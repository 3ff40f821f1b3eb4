//! `agentchat admin`: the operator surface of a running node, from the command line.
//!
//! Speaks HTTP to the node like any other client; the token comes from the same setting that the node reads.
//!
//! A1  Never by the public URL: proxies in front of it keep `/operator` shut. The node is the one that listens on this
//!     machine, or the one that `--url` names.

use std::io::Write;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::config::Config;
use crate::http::operator::PROVISION_MAX;

/// What operators do.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Create many agents: PREFIX-1, PREFIX-2, … as JSON lines {handle, api_key}
    Provision {
        /// How many
        #[arg(long)]
        count: u64,
        /// Beginning of every handle
        #[arg(long)]
        prefix: String,
        /// First number
        #[arg(long, default_value_t = 1)]
        start: u64,
        /// File for the lines; it will hold API keys [default: standard output]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Show an account
    Show { handle: String },
    /// Suspend an agent: every endpoint answers AGENT_SUSPENDED, its sockets close
    Suspend { handle: String },
    /// End a suspension, and forget the blocks and reports that led to it
    Unsuspend { handle: String },
    /// Pause an agent as its owner could
    Pause {
        handle: String,
        /// What is paused
        mode: PauseMode,
    },
    /// Make an agent platform-owned: shown as system, not to be blocked or reported
    System {
        handle: String,
        /// Make it ordinary again
        #[arg(long)]
        off: bool,
    },
    /// Let an email address register as if it never had
    ReleaseEmail { email: String },
    /// List reports, by reporter
    Reports,
    /// Show the cluster: nodes with their shards, epochs and links
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every shard: epoch, owner, from which epoch on its log is kept, and what it has to do at the node asked
    Shards,
    /// Show where an agent or a conversation lives: its shard, and the node that owns it
    Where {
        /// A handle, or the id of a conversation
        id: String,
    },
    /// Hand the shards of the node over to the others; it serves on as a gateway until it is stopped
    Drain,
}

/// Pauses by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PauseMode {
    /// Nothing is paused
    None,
    /// It cannot send
    Send,
    /// It can neither send nor receive
    Full,
}

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No token.
    #[error("set AGENTCHAT_OPERATOR_TOKEN (or --operator-token) to the token of the running node")]
    Token,
    /// No node.
    #[error("cannot reach the node at {0}: does it run, and do --listen and --config (or --url) name it?")]
    Unreachable(String, #[source] reqwest::Error),
    /// It broke off, or answered something else than a node does.
    #[error("the node did not answer as a node does")]
    Answer(#[from] reqwest::Error),
    /// It refused.
    #[error("the node answered {0}: {1}")]
    Refused(u16, String),
    /// Writing.
    #[error("cannot write")]
    Output(#[from] std::io::Error),
}

/// Runs one command to its end, at the node on this machine or at the one behind `url`.
pub async fn run(config: &Config, url: Option<String>, command: AdminCommand) -> Result<(), AdminError> {
    let node = match url {
        Some(url) => Node::at(config, url.trim_end_matches('/').to_owned())?,
        None => Node::nearby(config)?,
    };
    let (method, path, body) = match command {
        AdminCommand::Provision { count, prefix, start, out } => {
            return node.provision(count, &prefix, start, out).await;
        }
        AdminCommand::Reports => return node.reports().await,
        AdminCommand::Status { json: false } => return node.status().await,
        AdminCommand::Shards => return node.shards().await,
        AdminCommand::Status { json: true } => (Method::GET, "cluster".to_owned(), Value::Null),
        AdminCommand::Where { id } => (Method::GET, format!("cluster/places/{id}"), Value::Null),
        AdminCommand::Drain => (Method::POST, "cluster/drain".to_owned(), Value::Null),
        AdminCommand::Show { handle } => (Method::GET, format!("agents/{handle}"), Value::Null),
        AdminCommand::Suspend { handle } => (Method::POST, format!("agents/{handle}/suspend"), Value::Null),
        AdminCommand::Unsuspend { handle } => (Method::POST, format!("agents/{handle}/unsuspend"), Value::Null),
        AdminCommand::Pause { handle, mode } => {
            let mode = match mode {
                PauseMode::None => "none",
                PauseMode::Send => "send",
                PauseMode::Full => "full",
            };
            (Method::POST, format!("agents/{handle}/pause"), json!({"mode": mode}))
        }
        AdminCommand::System { handle, off } => {
            (if off { Method::DELETE } else { Method::POST }, format!("agents/{handle}/system"), Value::Null)
        }
        AdminCommand::ReleaseEmail { email } => (Method::DELETE, format!("emails/{email}"), Value::Null),
    };
    let answer: Value = node.call(method, &path, body).await?.json().await?;
    println!("{answer:#}");
    Ok(())
}

/// A node and the right to command it.
pub struct Node {
    base: String,
    token: String,
    http: Client,
}

impl Node {
    fn at(config: &Config, base: String) -> Result<Self, AdminError> {
        let token = config.operator_token.clone().ok_or(AdminError::Token)?;
        Ok(Self { base, token, http: Client::builder().no_proxy().build()? })
    }

    /// The node that serves on this machine, whatever its public URL is.
    pub fn nearby(config: &Config) -> Result<Self, AdminError> {
        Self::at(config, config.local_url())
    }

    /// Has the node copy its store; the name of the copy.
    pub async fn snapshot(&self) -> Result<String, AdminError> {
        let answer: Value = self.call(Method::POST, "snapshot", Value::Null).await?.json().await?;
        // A name, and no path: whatever answers there chooses nothing outside of the directory of snapshots.
        let name = answer["snapshot"].as_str().filter(|name| !name.contains(['/', '.']));
        name.map(str::to_owned).ok_or_else(|| AdminError::Refused(201, answer.to_string()))
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Result<Response, AdminError> {
        let mut request = self.http.request(method, format!("{}/operator/{path}", self.base)).bearer_auth(&self.token);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|error| AdminError::Unreachable(self.base.clone(), error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(AdminError::Refused(status.as_u16(), answer.text().await?))
    }

    async fn provision(&self, count: u64, prefix: &str, start: u64, out: Option<PathBuf>) -> Result<(), AdminError> {
        let mut sink: Box<dyn Write> = match out {
            Some(file) => Box::new(std::io::BufWriter::new(private_file(&file)?)),
            None => Box::new(std::io::stdout().lock()),
        };
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} agents  {per_sec}  {eta} left");
        let progress = ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut next = start;
        while next < start + count {
            let some = (start + count - next).min(PROVISION_MAX);
            let body = json!({"prefix": prefix, "count": some, "start": next});
            let lines = self.call(Method::POST, "agents", body).await?.bytes().await?;
            sink.write_all(&lines)?;
            next += some;
            progress.inc(some);
        }
        sink.flush()?;
        progress.finish();
        Ok(())
    }

    /// A line per node.
    async fn status(&self) -> Result<(), AdminError> {
        let status: Value = self.call(Method::GET, "cluster", Value::Null).await?.json().await?;
        if status["store"] == "embedded" {
            println!("one node on the embedded store");
            return Ok(());
        }
        println!("{:<20} {:<22} {:>6} {:>6} {:>7}  state", "node", "address", "shards", "epoch", "lag");
        for node in status["nodes"].as_array().into_iter().flatten() {
            let state = [("this", "this"), ("draining", "draining"), ("linked", "linked")];
            let state: Vec<&str> = state.iter().filter(|(key, _)| node[*key] == true).map(|(_, name)| *name).collect();
            let text = |key: &str| node[key].as_str().unwrap_or("-").to_owned();
            let number = |key: &str| node[key].as_u64().map_or("-".to_owned(), |number| number.to_string());
            let numbers = (number("shards"), number("highest_epoch"), number("lag"));
            let (name, address, state) = (text("name"), text("address"), state.join(", "));
            println!("{name:<20} {address:<22} {:>6} {:>6} {:>7}  {state}", numbers.0, numbers.1, numbers.2);
        }
        let shards = &status["shards"];
        println!("{} shards, {} owned, {} free", shards["total"], shards["owned"], shards["free"]);
        Ok(())
    }

    /// A line per shard.
    async fn shards(&self) -> Result<(), AdminError> {
        let answer: Value = self.call(Method::GET, "cluster/shards", Value::Null).await?.json().await?;
        println!(
            "{:>6} {:>8} {:>8} {:>9} {:>8} {:>9}  owner",
            "shard", "epoch", "log from", "requests", "waiting", "resident"
        );
        for row in answer["shards"].as_array().into_iter().flatten() {
            let (load, here) = (&row["load"], row["load"]["here"] == true);
            let owner = row["owner"].as_str().unwrap_or(if here { "this node" } else { "-" });
            let (admitted, waiting, resident) = (&load["admitted"], &load["waiting"], &load["resident"]);
            println!(
                "{:>6} {:>8} {:>8} {admitted:>9} {waiting:>8} {resident:>9}  {owner}",
                row["shard"], row["epoch"], row["log_from"]
            );
        }
        Ok(())
    }

    async fn reports(&self) -> Result<(), AdminError> {
        let mut after = String::new();
        loop {
            let page: Value =
                self.call(Method::GET, &format!("reports?limit=1000{after}"), Value::Null).await?.json().await?;
            for report in page["reports"].as_array().into_iter().flatten() {
                println!("{report}");
            }
            match page["next_cursor"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(()),
            }
        }
    }
}

/// Keys are for nobody else's eyes.
fn private_file(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
