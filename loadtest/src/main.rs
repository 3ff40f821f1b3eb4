//! Measures an AgentChat server from outside. It shares no type with the server, so drift in the contract shows here.
//!
//! L1  Every figure is a rate of answers that a client has read, beside the machine's own rate of durable writes,
//!     measured in the same run: ratios travel between machines, rates do not.

#![expect(unreachable_pub, reason = "a binary has no outside: `pub` means used by other modules")]

mod baseline;
mod client;
mod group;
mod sends;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Measure an AgentChat server.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Durable acknowledged sends per second over HTTP, at several numbers of concurrent clients
    Sends {
        /// Server binary to start on a loopback port with its own directory
        #[arg(long, default_value = "target/release/agentchat")]
        server: PathBuf,
        /// Where the directory is made: the disk that is measured
        #[arg(long, default_value = ".")]
        disk: PathBuf,
        /// Concurrent clients, one run each
        #[arg(long, value_delimiter = ',', default_value = "1,64,512")]
        clients: Vec<usize>,
        /// Length of each run
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// A group with everybody, then half of it on sockets: send latency, deliveries per second, beside direct sends
    Group {
        /// Server binary to start on a loopback port with its own directory
        #[arg(long, default_value = "target/release/agentchat")]
        server: PathBuf,
        /// Where the directory is made: the disk that is measured
        #[arg(long, default_value = ".")]
        disk: PathBuf,
        /// Members, the sender included
        #[arg(long, default_value_t = 256)]
        size: usize,
        /// Messages of each sender
        #[arg(long, default_value_t = 200)]
        messages: usize,
    },
}

/// What can go wrong while measuring.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Files, processes, connections.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    /// The HTTP connection.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// The server answered otherwise than the contract says.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Sends { server, disk, clients, seconds } => {
            sends::run(&server, &disk, &clients, Duration::from_secs(seconds)).await
        }
        Command::Group { server, disk, size, messages } => group::run(&server, &disk, size, messages).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
