//! One Redis that all servers share, as a process in the hub: started, killed, stopped, continued. It keeps nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::Failure;

/// Where servers find it.
pub const URL: &str = "redis://10.77.0.100:6379/0";
const ADDRESS: (&str, u16) = ("10.77.0.100", 6379);
/// Debian: `redis-server`.
const PROGRAM: &str = "redis-server";
/// A started one takes connections within this.
const LISTENS: Duration = Duration::from_secs(20);

/// The process, or what is needed to start it.
#[derive(Debug)]
pub struct Redis {
    dir: PathBuf,
    child: Option<Child>,
}

impl Redis {
    /// Nothing runs yet; `None` where it is not installed.
    pub fn installed(dir: &Path) -> Option<Self> {
        let asked = std::process::Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status();
        asked.is_ok_and(|status| status.success()).then(|| Self { dir: dir.to_owned(), child: None })
    }

    /// Starts it, and waits until it takes connections.
    pub async fn start(&mut self) -> Result<(), Failure> {
        let io = |e| Failure::Io(PROGRAM.to_owned(), e);
        let log = self.dir.join("redis.log");
        let out = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(io)?;
        // It has no password, and nobody else reaches the namespace that it listens in.
        let arguments = ["--protected-mode", "no", "--save", "", "--appendonly", "no"];
        let child = Command::new(PROGRAM)
            .args(["--bind", ADDRESS.0, "--port", &ADDRESS.1.to_string()])
            .args(arguments)
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(out)
            .kill_on_drop(true)
            .spawn()
            .map_err(io)?;
        self.child = Some(child);
        let end = Instant::now() + LISTENS;
        while TcpStream::connect(ADDRESS).await.is_err() {
            if Instant::now() >= end {
                return Err(Failure::Said(format!("{PROGRAM} does not listen: see {}/redis.log", self.dir.display())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await; // it may have ended by itself
        }
    }

    /// SIGSTOP or SIGCONT.
    pub fn pause(&self, pause: bool) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            let signal = if pause { "-STOP" } else { "-CONT" };
            let _ = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
        }
    }
}
