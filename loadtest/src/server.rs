//! A server process of our own, on a loopback port and a directory that goes away with it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::error::LoadError;

/// A started server has to accept connections within this.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Opens the operator surface of a measured server.
pub const OPERATOR_TOKEN: &str = "token-of-the-load-harness";
/// Settings of a measured server: no rates, and a backlog that nobody drains.
const SETTINGS: &str =
    "limits = \"open\"\nlog = \"warn\"\n[numbers]\nbacklog_warn = 4000000000\nbacklog_max = 4000000000\n";

/// A running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    dir: TempDir,
    process: Child,
}

impl Server {
    /// Starts `binary` with a fresh directory under `disk`, and with these settings beside those of every measured server.
    pub async fn start(binary: &Path, disk: &Path, more: &[String]) -> Result<Self, LoadError> {
        let io = |what| move |error| LoadError::Io(what, error);
        let dir = TempDir::new_in(disk).map_err(io("directory"))?;
        let settings = dir.path().join("agentchat.toml");
        // `SETTINGS` ends in a table, so what is set beside it stands before it.
        std::fs::write(&settings, format!("{}\n{SETTINGS}", more.join("\n"))).map_err(io("settings"))?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|port| port.local_addr());
        let address = free.map_err(io("port"))?;
        let process = Command::new(binary)
            .arg("--config")
            .arg(&settings)
            .args(["--operator-token", OPERATOR_TOKEN])
            .args(["--listen", &address.to_string()])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(io("server binary (build it with cargo build --release)"))?;
        let connects = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let started = tokio::time::timeout(START_DEADLINE, connects).await;
        started.map_err(|_| LoadError::Answer("the server did not start listening".to_owned()))?;
        Ok(Self { address, dir, process })
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Registers an agent through the mailed code; its key.
    pub async fn register(&self, client: &mut Client, handle: &str) -> Result<String, LoadError> {
        let email = format!("{handle}@example.com");
        let body = format!(r#"{{"email":"{email}","handle":"{handle}"}}"#);
        let pending = client.call("/v1/register", body).await?;
        let code = self.mailed_code(&email)?;
        let body = format!(r#"{{"pending_id":{},"code":"{code}"}}"#, pending["pending_id"]);
        let verified = client.call("/v1/register/verify", body).await?;
        let key = verified["api_key"].as_str().map(str::to_owned);
        key.ok_or_else(|| LoadError::Answer("verify answered no key".to_owned()))
    }

    fn mailed_code(&self, email: &str) -> Result<String, LoadError> {
        let io = |error| LoadError::Io("outbox", error);
        let suffix = format!("-{email}.eml");
        let outbox: PathBuf = self.dir.path().join("data").join("outbox");
        for entry in std::fs::read_dir(outbox).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.to_string_lossy().ends_with(&suffix) {
                let mail = std::fs::read_to_string(&path).map_err(io)?;
                std::fs::remove_file(&path).map_err(io)?;
                let code = |line: &&str| line.len() == 6 && line.bytes().all(|byte| byte.is_ascii_digit());
                return mail.lines().find(code).map(str::to_owned).ok_or(LoadError::Answer("no code in mail".into()));
            }
        }
        Err(LoadError::Answer(format!("no mail to {email}")))
    }
}
