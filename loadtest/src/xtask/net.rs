//! A network of our own: a hub with the database ring and the clients, and a namespace for each server.
//!
//! ```text
//!   hub  10.77.0.100 clients   10.77.0.1 … .3 database
//!     └─ bridge ─┬─ 10.77.0.11 server 1
//!                ├─ 10.77.0.12 server 2   …
//! ```
//! Nothing outside these namespaces is touched; they go away with [`Net`].

use std::process::{Command, Stdio};

/// Why the network cannot be made or changed.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` failed: {1}")]
pub struct NetError(String, String);

/// The namespaces.
#[derive(Debug)]
pub struct Net {
    prefix: String,
    servers: usize,
    owned: bool,
}

/// One end of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A server, from 1.
    Server(usize),
    /// The whole database ring.
    Store,
}

/// Runs `ip`.
fn ip(arguments: &str) -> Result<(), NetError> {
    let failed = |why: String| NetError(format!("ip {arguments}"), why);
    let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() { Ok(()) } else { Err(failed(String::from_utf8_lossy(&output.stderr).into_owned())) }
}

impl Net {
    /// Makes the namespaces.
    pub fn create(servers: usize) -> Result<Self, NetError> {
        let net = Self { prefix: format!("acx{}", std::process::id()), servers, owned: true };
        let hub = net.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link set lo up"))?;
        ip(&format!("-n {hub} link add br0 type bridge"))?;
        for last in ["100", "1", "2", "3"] {
            ip(&format!("-n {hub} addr add 10.77.0.{last}/24 dev br0"))?;
        }
        ip(&format!("-n {hub} link set br0 up"))?;
        for n in 1..=servers {
            let name = net.server(n);
            ip(&format!("netns add {name}"))?;
            ip(&format!("link add name eth0 netns {name} type veth peer name p{n} netns {hub}"))?;
            ip(&format!("-n {hub} link set p{n} master br0"))?;
            ip(&format!("-n {hub} link set p{n} up"))?;
            ip(&format!("-n {name} addr add {}/24 dev eth0", address(n)))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(net)
    }

    /// The namespaces that another process made.
    pub fn entered(prefix: String, servers: usize) -> Self {
        Self { prefix, servers, owned: false }
    }

    /// What [`Net::entered`] needs.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Name of the hub's namespace.
    pub fn hub(&self) -> String {
        format!("{}h", self.prefix)
    }

    /// Name of a server's namespace.
    pub fn server(&self, n: usize) -> String {
        format!("{}n{n}", self.prefix)
    }

    /// Drops what goes from one end to the other, or lets it pass again.
    pub fn cut(&self, from: End, to: End, cut: bool) -> Result<(), NetError> {
        let verb = if cut { "add" } else { "del" };
        match (from, to) {
            (End::Server(a), End::Server(b)) => {
                ip(&format!("-n {} route {verb} blackhole {}/32", self.server(a), address(b)))
            }
            (End::Server(a), End::Store) => {
                (1..=3).try_for_each(|s| ip(&format!("-n {} route {verb} blackhole 10.77.0.{s}/32", self.server(a))))
            }
            (End::Store, End::Server(b)) => (1..=3).try_for_each(|s| {
                let rule = format!("from 10.77.0.{s} to {} priority 10{s}{b} blackhole", address(b));
                ip(&format!("-n {} rule {verb} {rule}", self.hub()))
            }),
            (End::Store, End::Store) => Ok(()),
        }
    }
}

/// Address of a server.
pub fn address(n: usize) -> String {
    format!("10.77.0.{}", 10 + n)
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.owned {
            let names = (1..=self.servers).map(|n| self.server(n)).chain([self.hub()]);
            for name in names {
                let _ = ip(&format!("netns del {name}")); // it may not have been made
            }
        }
    }
}
