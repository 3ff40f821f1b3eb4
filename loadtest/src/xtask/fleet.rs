//! Servers and the database ring as processes: started, killed, stopped, continued, drained.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::process::{Child, Command};

use crate::Failure;
use crate::net::{Net, address};
use crate::owners::Owners;
use crate::redis::{self, Redis};

/// Opens the operator surface.
pub const TOKEN: &str = "token-of-the-chaos-harness";
/// A started server is ready within this.
const READY: Duration = Duration::from_secs(90);
/// Attempts to start a node of the ring that was killed.
const RING_STARTS: u32 = 3;
/// A drained server has ended within this.
const DRAINED: Duration = Duration::from_secs(45);

/// Where distributions put the library that shows a process another time of day (Debian: `faketime`).
const FAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// How servers and ring are run.
pub struct Fleet {
    binary: PathBuf,
    cassandra: PathBuf,
    dir: PathBuf,
    net: Net,
    servers: Vec<Option<Child>>,
    redis: Option<Redis>,
    faketime: Option<&'static Path>,
    http: Client,
}

impl Fleet {
    /// Nothing runs yet.
    pub fn new(binary: &Path, cassandra: &Path, dir: &Path, net: Net, servers: usize) -> Result<Self, Failure> {
        let http = Client::builder().timeout(Duration::from_secs(2)).build()?;
        let canonical = |path: &Path| path.canonicalize().map_err(|e| Failure::Io(path.display().to_string(), e));
        Ok(Self {
            binary: canonical(binary)?,
            cassandra: canonical(cassandra)?,
            dir: dir.to_owned(),
            net,
            servers: (0..servers).map(|_| None).collect(),
            redis: Redis::installed(dir),
            faketime: FAKETIME.iter().map(Path::new).find(|library| library.exists()),
            http,
        })
    }

    /// The network.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Base URL of a server.
    pub fn url(n: usize) -> String {
        format!("http://{}:8080", address(n))
    }

    async fn cassandra(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new(&self.cassandra);
        command.args(arguments).env("CQL_NET", "10.77.0").env("CQL_PORT", "9042").env("CQL_SYNC", "batch");
        command.env("CQL_DATA", self.dir.join("cassandra")).env("CQL_HEAP", "640m");
        let output = command.stdin(Stdio::null()).output().await;
        let output = output.map_err(|e| Failure::Io("cassandra-dev".to_owned(), e))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::Said(format!("cassandra-dev {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))))
    }

    /// Starts the ring and makes the keyspace.
    pub async fn start_ring(&self) -> Result<(), Failure> {
        self.cassandra(&["start", "3"]).await?;
        let migrate =
            Command::new(&self.binary).args(["migrate", "--store", STORE]).stdin(Stdio::null()).output().await;
        let output = migrate.map_err(|e| Failure::Io(self.binary.display().to_string(), e))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::Said(format!("migrate: {}", String::from_utf8_lossy(&output.stderr))))
    }

    /// `start`, `kill`, `pause` or `resume` a node of the ring.
    pub async fn ring_node(&self, n: usize, what: &str) -> Result<(), Failure> {
        let (number, mut attempts) = (n.to_string(), 1);
        loop {
            match self.cassandra(&["node", &number, what]).await {
                // A node that was killed may not come up at once; what it has to say is in its log.
                Err(failure) if what == "start" && attempts < RING_STARTS => println!("chaos: once more: {failure}"),
                outcome => return outcome,
            }
            attempts += 1;
        }
    }

    /// Ends the ring.
    pub async fn wipe_ring(&self) {
        if let Err(error) = self.cassandra(&["wipe"]).await {
            eprintln!("the ring did not end: {error}");
        }
    }

    fn log(&self, n: usize) -> PathBuf {
        self.dir.join(format!("server-{n}.log"))
    }

    fn clock(&self, n: usize) -> PathBuf {
        self.dir.join(format!("clock-{n}"))
    }

    /// The Redis that all servers share, where it is installed.
    pub fn redis(&mut self) -> Option<&mut Redis> {
        self.redis.as_mut()
    }

    /// Whether servers share a Redis.
    pub fn has_redis(&self) -> bool {
        self.redis.is_some()
    }

    /// Whether clocks can be made to jump.
    pub fn clocks_jump(&self) -> bool {
        self.faketime.is_some()
    }

    /// Sets a server's time of day so many seconds beside the true one; it sees that within a second.
    pub fn set_clock(&self, n: usize, beside: i64) -> Result<(), Failure> {
        let (file, next) = (self.clock(n), self.dir.join(format!("clock-{n}.next")));
        let io = |e| Failure::Io(file.display().to_string(), e);
        std::fs::write(&next, format!("{beside:+}")).map_err(io)?;
        std::fs::rename(&next, &file).map_err(io) // never half a number
    }

    /// Who acknowledged what, by the logs of all servers that ever ran.
    pub fn owners(&self) -> Result<Owners, Failure> {
        let mut owners = Owners::default();
        for n in 1..=self.servers.len() {
            let log = self.log(n);
            if log.exists() {
                owners.read(n, &log)?;
            }
        }
        Ok(owners)
    }

    /// Starts a server; it need not be ready yet.
    pub fn start(&mut self, n: usize) -> Result<(), Failure> {
        let log = self.log(n);
        let io = |e| Failure::Io(log.display().to_string(), e);
        let out = std::fs::OpenOptions::new().create(true).append(true).open(&log).map_err(io)?;
        let err = out.try_clone().map_err(io)?;
        let ip = address(n);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.net.server(n)]).arg(&self.binary);
        if let Some(library) = self.faketime {
            self.set_clock(n, 0)?;
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", self.clock(n));
            // Time of day only: what leases are measured by goes on as the kernel has it.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        }
        if self.has_redis() {
            command.env("AGENTCHAT_REDIS_URL", redis::URL);
        }
        let child = command
            .env("AGENTCHAT_STORE", STORE)
            .env("AGENTCHAT_LISTEN", format!("{ip}:8080"))
            .env("AGENTCHAT_NODE", format!("node-{n}"))
            .env("AGENTCHAT_CLUSTER_LISTEN", format!("{ip}:7000"))
            .env("AGENTCHAT_CLUSTER_COOKIE", "cookie-of-the-chaos-harness")
            .env("AGENTCHAT_DATA_DIR", self.dir.join("data"))
            .env("AGENTCHAT_LIMITS", "open")
            .env("AGENTCHAT_OPERATOR_TOKEN", TOKEN)
            .env("AGENTCHAT_LOG", "info,acknowledged=trace,ractor_cluster=warn,scylla=error")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Failure::Io(self.binary.display().to_string(), e))?;
        self.servers[n - 1] = Some(child);
        Ok(())
    }

    fn signal(&self, n: usize, signal: &str) {
        if let Some(pid) = self.servers[n - 1].as_ref().and_then(Child::id) {
            // A process that has just ended takes no signal, and that is fine.
            let _ = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
        }
    }

    /// kill -9.
    pub async fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.servers[n - 1].take() {
            let _ = child.kill().await;
        }
    }

    /// SIGSTOP or SIGCONT.
    pub fn pause(&self, n: usize, pause: bool) {
        self.signal(n, if pause { "-STOP" } else { "-CONT" });
    }

    /// SIGTERM, and the end of the process.
    pub async fn drain(&mut self, n: usize) -> Result<(), Failure> {
        self.signal(n, "-TERM");
        self.ended(n).await
    }

    /// SIGTERM to all of 1 to this at once, and the end of the processes.
    pub async fn drain_all(&mut self, servers: usize) -> Result<(), Failure> {
        (1..=servers).for_each(|n| self.signal(n, "-TERM"));
        for n in 1..=servers {
            self.ended(n).await?;
        }
        Ok(())
    }

    async fn ended(&mut self, n: usize) -> Result<(), Failure> {
        let Some(mut child) = self.servers[n - 1].take() else { return Ok(()) };
        match tokio::time::timeout(DRAINED, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(other) => Err(Failure::Said(format!("server {n} ended with {other:?} after SIGTERM"))),
            Err(_) => Err(Failure::Said(format!("server {n} did not end after SIGTERM"))),
        }
    }

    /// Waits until a server serves.
    pub async fn ready(&self, n: usize) -> Result<(), Failure> {
        let (end, url) = (Instant::now() + READY, format!("{}/readyz", Self::url(n)));
        while Instant::now() < end {
            if self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(Failure::Said(format!("server {n} was not ready in {READY:?}: see {}/server-{n}.log", self.dir.display())))
    }
}

/// Where servers find the ring.
const STORE: &str = "cql://10.77.0.1:9042,10.77.0.2:9042,10.77.0.3:9042/agentchat";
