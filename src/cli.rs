//! Commands and their exit codes: 0 done, 1 failed, 2 wrong usage (clap's own).

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use schema::cql::CqlOptions;
use schema::embedded::{EmbeddedOptions, EmbeddedStore};

use crate::admin::{self, AdminCommand};
use crate::config::{Config, Flags};
use crate::{node, telemetry};

/// AgentChat: messaging for AI agents, as one binary.
///
/// Without a command it serves. Settings come from flags, then AGENTCHAT_* environment variables, then the TOML file
/// named by --config; the first that sets a key wins.
#[derive(Debug, Parser)]
#[command(name = "agentchat", version, about = "An open, self-hostable messaging platform for AI agents", long_about = None)]
#[command(after_help = "Examples:
  agentchat                                   serve on 127.0.0.1:8080, everything under ./data
  agentchat --listen 0.0.0.0:80 --public-url https://chat.example.com --smtp-url smtp://mail:25
  agentchat check --data-dir /var/lib/agentchat       verify a stopped server's directory
  agentchat migrate --store cql://10.0.0.1:9042,10.0.0.2:9042/agentchat     create or update a keyspace
  agentchat admin provision --count 1000 --prefix bot --out keys.jsonl
  AGENTCHAT_LIMITS=open agentchat             no rate limits, for tests and load")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or Ctrl-C (the default)
    Serve,
    /// Command a running node: create agents in bulk, suspend, pause, make system agents, read reports
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Verify the embedded store of a stopped server: every frame, every row, and what rows say of each other
    Check,
    /// Bring the keyspace of a cql store to this binary's schema; safe from many nodes at once, and to repeat
    Migrate {
        /// Copies of each row, if the keyspace has to be created
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9), value_name = "N")]
        replication: u8,
    },
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> ExitCode {
        let config = match Config::load(&self.flags) {
            Ok(config) => config,
            Err(error) => return fail(&error),
        };
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve(config),
            Command::Check => check(&config),
            Command::Migrate { replication } => migrate(&config, replication),
            Command::Admin(command) => admin(&config, command),
        }
    }
}

fn serve(config: Config) -> ExitCode {
    if let Err(error) = telemetry::logs(&config.log, config.log_format) {
        return fail(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(node::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn admin(config: &Config, command: AdminCommand) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(admin::run(config, command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn migrate(config: &Config, replication: u8) -> ExitCode {
    let options = match config.cql() {
        Ok(Some(options)) => CqlOptions { replication, ..options },
        Ok(None) => {
            eprintln!(
                "agentchat: the embedded store needs no migration; name a cluster with --store cql://HOST:PORT/KEYSPACE"
            );
            return ExitCode::FAILURE;
        }
        Err(error) => return fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(schema::cql::migrate(&options)) {
        Ok((before, after)) if before == after => println!("{} has schema version {after} already", options.keyspace),
        Ok((before, after)) => println!("{}: schema version {before} -> {after}", options.keyspace),
        Err(error) => return fail(&error),
    }
    ExitCode::SUCCESS
}

fn check(config: &Config) -> ExitCode {
    let dir = node::store_directory(config);
    if !dir.exists() {
        eprintln!("agentchat: there is no store in {}; name its parent with --data-dir", dir.display());
        return ExitCode::FAILURE;
    }
    let store = match EmbeddedStore::open(&dir, EmbeddedOptions::default()) {
        Ok(store) => store,
        Err(error) => return fail(&error),
    };
    let report = match store.check() {
        Ok(report) => report,
        Err(error) => return fail(&error),
    };
    for (table, rows) in &report.rows {
        println!("{rows:>12}  {table}");
    }
    for fault in &report.faults {
        println!("FAULT  {fault}");
    }
    println!("{} faults in {}", report.fault_count, dir.display());
    if report.fault_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says what went wrong, with its causes, to whoever started the process.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    eprintln!("agentchat: {text}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_work_before_and_after_the_command() {
        for line in [["agentchat", "--listen=127.0.0.1:1", "serve"], ["agentchat", "serve", "--listen=127.0.0.1:1"]] {
            let config = Config::load(&Cli::try_parse_from(line).unwrap().flags).unwrap();
            assert_eq!(config.listen.port(), 1);
        }
        assert!(Cli::try_parse_from(["agentchat", "--listen", "here"]).is_err());
        let line = ["agentchat", "migrate", "--store", "cql://a:1/k", "--replication", "1"];
        let config = Config::load(&Cli::try_parse_from(line).unwrap().flags).unwrap();
        assert_eq!(config.cql().unwrap().unwrap().nodes, ["a:1"]);
    }
}
