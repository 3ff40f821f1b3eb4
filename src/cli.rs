//! Commands and their exit codes: 0 done, 1 failed, 2 wrong usage (clap's own).

use std::convert::Infallible;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use schema::cql::CqlOptions;
use schema::embedded::{EmbeddedOptions, EmbeddedStore};

use crate::admin::{self, AdminCommand};
use crate::config::{Config, Flags};
use crate::{backup, doctor, node, reference, telemetry};

/// AgentChat: messaging for AI agents, as one binary.
///
/// Without a command it serves. Settings come from flags, then AGENTCHAT_* environment variables, then the TOML file
/// named by --config; the first that sets a key wins.
#[derive(Debug, Parser)]
#[command(name = "agentchat", version, about = "An open, self-hostable messaging platform for AI agents", long_about = None)]
#[command(after_help = "Examples:
  agentchat                                   serve on 127.0.0.1:8080, everything under ./data
  agentchat --listen 0.0.0.0:80 --public-url https://chat.example.com --smtp-url smtp://mail:25
  agentchat doctor                            what keeps this machine from serving, and what to do about it
  agentchat backup /backup/monday             copy the data while the node serves; restore brings it back
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
    ///
    /// The node is the one on this machine, at its listen address: /operator belongs behind a proxy that does not pass it on.
    #[command(after_help = "Example:
  agentchat admin --url http://10.0.1.2:8080 drain")]
    Admin {
        /// Another node, by the address at which this machine reaches it [default: the one that listens at --listen]
        #[arg(long, global = true, value_name = "URL")]
        url: Option<String>,
        #[command(subcommand)]
        command: AdminCommand,
    },
    /// Verify the embedded store of a stopped server: every frame, every row, and what rows say of each other
    Check,
    /// Look for what keeps this machine from serving: settings, address, store, mail, objects, clock, files
    ///
    /// Looks and changes nothing. Every check is a line: ok, warn or fail, with what to do next. Give it the settings that
    /// the server gets; it may run beside the server. Exit code 1 if a check failed.
    Doctor,
    /// Ask the node on this machine whether it is ready to serve: exit code 0 if it is; for health checks
    Ready,
    /// Copy the data of an embedded node into the new directory DIR, while it serves or when it is stopped
    ///
    /// Everything that was answered before the command began is in the copy: accounts, messages, inboxes, and attachments
    /// and avatars if they are files. A node that serves takes part in it, so its operator token is needed; it goes on
    /// serving meanwhile. Every file is written with its SHA-256 in DIR/MANIFEST.json.
    #[command(after_help = "Example:
  agentchat backup --data-dir /var/lib/agentchat /backup/$(date +%F)")]
    Backup {
        /// Directory to make
        dir: PathBuf,
    },
    /// Put the backup in DIR into a data directory without a store, and check every row of it
    ///
    /// Every file is compared with the manifest before it counts. Nothing that is there already is replaced: restore into
    /// a new directory, or move the old one away.
    #[command(after_help = "Example:
  agentchat restore --data-dir /var/lib/agentchat /backup/2026-01-31 && agentchat --data-dir /var/lib/agentchat")]
    Restore {
        /// Directory that `agentchat backup` made
        dir: PathBuf,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Example:
  agentchat completions bash > ~/.local/share/bash-completion/completions/agentchat")]
    Completions {
        /// Which
        shell: Shell,
    },
    /// Print docs/configuration.md
    #[command(hide = true)]
    ConfigReference,
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
        match self.command {
            // These need no settings, so wrong ones are no obstacle.
            Some(Command::Completions { shell }) => {
                clap_complete::generate(shell, &mut Self::command(), "agentchat", &mut std::io::stdout());
                return ExitCode::SUCCESS;
            }
            Some(Command::ConfigReference) => {
                print!("{}", reference::configuration());
                return ExitCode::SUCCESS;
            }
            _ => {}
        }
        let config = match Config::load(&self.flags) {
            Ok(config) => config,
            Err(error) => return fail(&error),
        };
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve(config),
            Command::Check => check(&config),
            Command::Migrate { replication } => migrate(&config, replication),
            Command::Admin { url, command } => waited(async { admin::run(&config, url, command).await.map(|()| true) }),
            Command::Doctor => waited(async { Ok::<_, Infallible>(doctor::run(&config).await) }),
            Command::Ready => ready(&config),
            Command::Backup { dir } => waited(async {
                let size = backup::backup(&config, &dir).await?;
                println!("{} files, {} bytes in {}", size.files, size.bytes, dir.display());
                Ok::<_, backup::BackupError>(true)
            }),
            Command::Restore { dir } => restore(&config, &dir),
            Command::Completions { .. } | Command::ConfigReference => ExitCode::SUCCESS, // above
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

/// Runs something to its end that says whether all is well.
fn waited<E: Error>(task: impl Future<Output = Result<bool, E>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn ready(config: &Config) -> ExitCode {
    waited(async {
        let ready = doctor::ready(config).await;
        println!("{}", ready.as_ref().err().map_or("ready", String::as_str));
        Ok::<_, Infallible>(ready.is_ok())
    })
}

fn restore(config: &Config, dir: &Path) -> ExitCode {
    match backup::restore(config, dir) {
        Ok(size) => println!("{} files, {} bytes; checking every row", size.files, size.bytes),
        Err(error) => return fail(&error),
    }
    check(config)
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
fn fail(error: &dyn Error) -> ExitCode {
    eprintln!("agentchat: {}", told(error));
    ExitCode::FAILURE
}

/// An error with its causes; a cause that the text tells already is not told twice.
pub fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
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
        for line in [["admin", "--url", "http://a:1", "drain"], ["admin", "drain", "--url", "http://a:1"]] {
            let parsed = Cli::try_parse_from(["agentchat"].into_iter().chain(line)).unwrap();
            assert!(matches!(parsed.command, Some(Command::Admin { url: Some(url), .. }) if url == "http://a:1"));
        }
        let line = ["agentchat", "migrate", "--store", "cql://a:1/k", "--replication", "1"];
        let config = Config::load(&Cli::try_parse_from(line).unwrap().flags).unwrap();
        assert_eq!(config.cql().unwrap().unwrap().nodes, ["a:1"]);
    }
}
