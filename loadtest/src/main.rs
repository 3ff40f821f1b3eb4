//! Measures an AgentChat server from outside. It shares no type with the server, so drift in the contract shows here.
//!
//! ```text
//!   run, plan   scenarios against any servers, with a verdict, a report, a page
//!   accept      the table by which the server is judged, beside its yardsticks
//!   report      runs side by side
//!   sends, group  two measurements of a server of its own, as tables
//! ```
//! L1  Figures that judge are ratios to what the machine does by itself, measured in the same run: ratios travel between
//!     machines, rates do not.
//! L2  A rate counts answers that a client has read; a latency begins when something was due.
//! L3  A fast server that loses messages is no server: every run ends with a verdict.

#![expect(unreachable_pub, reason = "a binary has no outside: `pub` means used by other modules")]

mod accept;
mod agents;
mod bare;
mod baseline;
mod client;
mod drive;
mod error;
mod exchange;
mod group;
mod ledger;
mod listen;
mod meter;
mod observe;
mod plan;
mod report;
mod run;
mod sample;
mod scenarios;
mod schedule;
mod sends;
mod server;
mod settle;
mod socket;
mod target;
mod wire;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::error::LoadError;
use self::plan::Entry;
use self::scenarios::Scenario;

/// Measure an AgentChat server, and hold what clients see against the contract.
///
/// Every run of scenarios ends with a verdict: sent, acknowledged, delivered, lost, duplicated, out of order. The last
/// three have to be 0. Exit code: 0 the verdict is good, 1 it is not, 2 the run could not be made.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120)]
#[command(after_help = "Begin here:
  cargo build --release
  loadtest run direct --server target/release/agentchat            a server of its own, with new agents
  loadtest run direct --help                                       what one of them can do

  # a server of your own: no rate limits, deep inboxes, an operator token
  AGENTCHAT_LIMITS=open AGENTCHAT_OPERATOR_TOKEN=secret agentchat &
  export AGENTCHAT_OPERATOR_TOKEN=secret
  loadtest run provision --agents 10000
  loadtest run direct --pairs 1000 --rate 500 --seconds 30 --distribution zipf --html direct.html
  loadtest run idle-sockets --sockets 5000 --server-pid $(pidof agentchat)

  # several scenarios in stages, in a file; see loadtest/plans/
  loadtest plan loadtest/plans/small.toml --server target/release/agentchat --out before.json --label before
  loadtest report before.json after.json -o compared.html

  # the table of docs/performance.md
  loadtest accept --rounds 5")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one scenario
    ///
    /// Agents are numbered; `provision` makes them once, and every other scenario uses those from --first on. Their keys
    /// follow from --key-seed, so nobody keeps a file of keys. With --rate a scenario keeps a timetable and latencies
    /// count from when a message was due, so a stall is not hidden; without, each client waits for its answers.
    Run {
        #[command(flatten)]
        options: run::Options,
        #[command(subcommand)]
        scenario: Scenario,
    },
    /// Run the scenarios of a TOML file, stage by stage
    ///
    /// A stage is a table: each key a scenario, each value its options, named as on the command line. What stands in one
    /// stage runs at the same time.
    ///
    ///   [[stage]]
    ///   provision = { agents = 10_000 }
    ///
    ///   [[stage]]
    ///   idle-sockets = { sockets = 2_000, first = 5_000 }
    ///   direct = { rate = 500, seconds = 30, distribution = "zipf" }
    #[command(verbatim_doc_comment)]
    Plan {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        options: run::Options,
    },
    /// Measure everything by which the server is judged, beside its yardsticks, and print it as Markdown
    Accept(accept::Accept),
    /// Put runs side by side on one page
    Report {
        /// Runs, as written with --out
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// The page
        #[arg(short, long, default_value = "report.html")]
        out: PathBuf,
    },
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
    /// Serve the yardsticks of `accept`, until killed
    #[command(hide = true)]
    Bare,
}

/// Runs a command; whether its verdict is good.
async fn command(command: Command) -> Result<bool, LoadError> {
    match command {
        Command::Run { options, scenario } => {
            let words: Vec<String> = std::env::args().skip_while(|word| word != scenario.name()).skip(1).collect();
            // A new server has no agents yet.
            let made = scenario.agents().filter(|_| options.starts_server());
            let made = made.map(|(first, agents)| vec![Entry::provision(first, agents)]);
            let entry = Entry { scenario, options: without_secrets(&words) };
            run::run(&options, made.into_iter().chain([vec![entry]]).collect()).await
        }
        Command::Plan { file, options } => {
            let text = std::fs::read_to_string(&file).map_err(|error| LoadError::Io("plan", error))?;
            run::run(&options, plan::parse(&text)?).await
        }
        Command::Accept(options) => accept::run(&options).await,
        Command::Report { runs, out } => report::compare(&runs, &out).map(|()| true),
        Command::Sends { server, disk, clients, seconds } => {
            sends::run(&server, &disk, &clients, Duration::from_secs(seconds)).await.map(|()| true)
        }
        Command::Group { server, disk, size, messages } => {
            group::run(&server, &disk, size, messages).await.map(|()| true)
        }
        Command::Bare => bare::serve().await.map(|()| true),
    }
}

/// Words of a command line for a report.
fn without_secrets(words: &[String]) -> String {
    const SECRETS: [&str; 2] = ["--operator-token", "--key-seed"];
    let mut shown: Vec<&str> = Vec::new();
    let mut secret_next = false;
    for word in words {
        let secret = SECRETS.iter().any(|name| word.starts_with(name));
        if !secret && !secret_next {
            shown.push(word);
        }
        secret_next = secret && !word.contains('=');
    }
    shown.join(" ")
}

#[tokio::main]
async fn main() -> ExitCode {
    match command(Cli::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let line = ["loadtest", "run", "direct", "--rate", "5", "--url", "http://[::1]:1", "--url=http://127.0.0.1:2"];
        assert!(Cli::try_parse_from(line).is_ok(), "what all scenarios share may follow the scenario");
        assert!(Cli::try_parse_from(["loadtest", "run", "direct", "--size", "5"]).is_err());
    }

    #[test]
    fn reports_hold_no_secrets() {
        let words = ["--rate", "5", "--operator-token", "s1", "--key-seed=s2", "--pairs=3"].map(str::to_owned);
        assert_eq!(without_secrets(&words), "--rate 5 --pairs=3");
    }
}
