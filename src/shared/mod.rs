//! What nodes share through Redis, where a deployment has one: windows, spacing of codes, presence snapshots.
//!
//! S1  A call ends within [`CALL_TIMEOUT`], with an answer or with `None`. `None` means: judge by what this node knows.
//! S2  An unreachable Redis does not cost every request that time: after [`FAILURES_MAX`] failures in a row the
//!     connection is given up, and nothing is asked before a background task has a new one that answers.
//! S3  Every key begins with `agentchat:` and has a time to live. Losing all of it loses counts, and no promise.
//! S4  Nothing that a secret could be made of is kept here: no code, no key, no token; addresses as hashes.

mod codes;
pub mod presence;
#[cfg(test)]
mod tests;
mod windows;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

pub use self::codes::Spaced;
use self::presence::Board;
pub use self::windows::{Taking, Window};
use crate::metrics::{REDIS_ERRORS, REDIS_SECONDS, REDIS_UP};

/// A call ends within this. Redis answers in less than a millisecond; whoever waits longer had better judge alone.
const CALL_TIMEOUT: Duration = Duration::from_millis(200);
/// A connection that is not there within this is tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Calls that fail in a row before the connection is given up: one slow answer is no outage.
const FAILURES_MAX: u32 = 3;
/// Pause between two looks at the connection: what an outage is noticed by without calls, and how soon its end is.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// What a look at the connection writes: a Redis that takes no writes, a replica or a full one, is of no use.
const PROBE_HOLDS_MS: u64 = 5_000;

/// Keys of everything kept in Redis begin with this (S3).
const PREFIX: &str = "agentchat";

/// Whom a call is for, in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Windows,
    Codes,
    PresenceRead,
    PresenceWrite,
    Probe,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::Windows => "windows",
            Self::Codes => "codes",
            Self::PresenceRead => "presence_read",
            Self::PresenceWrite => "presence_write",
            Self::Probe => "probe",
        }
    }
}

/// Handle to Redis, or to none: then every call answers `None`. Cheap to clone.
#[derive(Clone, Default)]
pub struct Shared(Option<Arc<Link>>);

struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    /// `None` while Redis is unreachable (S2).
    connection: RwLock<Option<MultiplexedConnection>>,
    /// Calls that failed since the last one that worked.
    failures: AtomicU32,
    board: Board,
}

/// Settings that name no Redis. Never shows the URL, which may carry a password.
#[derive(Debug, thiserror::Error)]
#[error("settings: the Redis URL is not of the form redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]")]
pub struct BadUrl;

fn client(url: &str) -> Result<Client, BadUrl> {
    if !url.starts_with("redis://") {
        return Err(BadUrl); // the driver knows more schemes, which this build cannot serve
    }
    Client::open(url).map_err(|_| BadUrl)
}

/// Judges a URL without connecting.
pub fn check_url(url: &str) -> Result<(), BadUrl> {
    client(url).map(drop)
}

/// Asks a Redis for a sign of life; changes nothing there.
pub async fn reach(url: &str) -> RedisResult<()> {
    let client = client(url).map_err(std::io::Error::other)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(CONNECT_TIMEOUT));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("PING").query_async(&mut connection).await
}

impl Shared {
    /// Tries to connect once, and goes on trying in the background: a node starts, and is ready, without Redis.
    pub async fn open(url: &str) -> Result<Self, BadUrl> {
        let link = Arc::new(Link {
            client: client(url)?,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(CALL_TIMEOUT)),
            connection: RwLock::new(None),
            failures: AtomicU32::new(0),
            board: Board::new(),
        });
        if let Err(error) = link.connect().await {
            warn!(%error, "Redis is unreachable: every node keeps its own windows");
            metrics::gauge!(REDIS_UP).set(0);
        }
        tokio::spawn(keep_connected(Arc::downgrade(&link)));
        tokio::spawn(presence::keep_shown(Arc::downgrade(&link)));
        Ok(Self(Some(link)))
    }

    /// Asks Redis; `None` when there is none, or none that answers in time (S1).
    async fn call<T, F>(&self, purpose: Purpose, ask: impl FnOnce(MultiplexedConnection) -> F) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        self.0.as_ref()?.call(purpose, ask).await
    }
}

impl Link {
    fn connection(&self) -> Option<MultiplexedConnection> {
        self.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn call<T, F>(&self, purpose: Purpose, ask: impl FnOnce(MultiplexedConnection) -> F) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let connection = self.connection()?;
        let started = Instant::now();
        // The connection has the same timeout; this one holds as well while its queue is full.
        let answer = timeout(CALL_TIMEOUT, ask(connection)).await;
        let failed = match answer {
            Ok(Ok(answer)) => {
                self.failures.store(0, Ordering::Relaxed);
                metrics::histogram!(REDIS_SECONDS, "purpose" => purpose.label())
                    .record(started.elapsed().as_secs_f64());
                return Some(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        metrics::counter!(REDIS_ERRORS, "purpose" => purpose.label()).increment(1);
        self.failed(purpose, &failed);
        None
    }

    /// Gives the connection up after too many failures in a row (S2).
    fn failed(&self, purpose: Purpose, error: &str) {
        debug!(?purpose, error, "a call to Redis failed");
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES_MAX {
            return;
        }
        let given_up = self.connection.write().unwrap_or_else(PoisonError::into_inner).take();
        if given_up.is_some() {
            warn!(error, "Redis is unreachable: every node keeps its own windows");
            metrics::gauge!(REDIS_UP).set(0);
        }
    }

    /// A new connection, once it has answered.
    async fn connect(&self) -> RedisResult<()> {
        let connecting = self.client.get_multiplexed_async_connection_with_config(&self.config);
        let late = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let mut connection = timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| late())??;
        probe().exec_async(&mut connection).await?;
        self.failures.store(0, Ordering::Relaxed);
        *self.connection.write().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        info!("Redis is reachable: windows are counted for all nodes");
        metrics::gauge!(REDIS_UP).set(1);
        Ok(())
    }
}

fn probe() -> redis::Cmd {
    let mut command = redis::cmd("SET");
    command.arg(format!("{PREFIX}:probe")).arg("").arg("PX").arg(PROBE_HOLDS_MS);
    command
}

/// Looks after the connection until nobody uses it any more.
async fn keep_connected(link: Weak<Link>) {
    while let Some(link) = link.upgrade() {
        if link.connection().is_none() {
            if let Err(error) = link.connect().await {
                debug!(%error, "Redis is still unreachable");
            }
        } else {
            let ask = |mut connection| async move { probe().exec_async(&mut connection).await };
            link.call(Purpose::Probe, ask).await;
        }
        drop(link);
        tokio::time::sleep(PROBE_EVERY).await;
    }
}
