//! After the load: everything that was acknowledged is waited for, then fetched, before anything is called lost.
//!
//! F1  Sockets get as long as they make progress; what is left is read from the inboxes over REST.
//! F2  An inbox is read page by page and acknowledged only after a page is in the ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::client::Client;
use crate::error::LoadError;
use crate::ledger::Lane;
use crate::observe::Observer;
use crate::wire::Message;
use crate::world::{Task, World, each};

/// Without progress for this long, sockets bring nothing more: longer than any retry inside a server.
const STALL: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for sockets.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Rows of a page; the contract's most.
const PAGE: usize = 500;
/// Inboxes read at the same time.
const READERS: usize = 32;

/// Waits until the sockets have brought everything, or bring nothing more.
pub async fn wait(lane: &Lane) {
    let (begun, mut best, mut since) = (Instant::now(), u64::MAX, Instant::now());
    loop {
        let left = lane.verdict().lost;
        if left == 0 || since.elapsed() > STALL || begun.elapsed() > WAIT_MAX {
            return;
        }
        if left < best {
            (best, since) = (left, Instant::now());
        }
        sleep(LOOK).await;
    }
}

/// Reads the inboxes of `count` agents, `agent(n)` each, if the lane misses anything.
pub async fn sweep(
    world: &Arc<World>,
    lane: &Lane,
    count: u64,
    agent: impl Fn(u64) -> u64 + Send + Sync + 'static,
) -> Result<(), LoadError> {
    if lane.verdict().lost == 0 {
        return Ok(());
    }
    each(world, count, READERS, Sweep { world: Arc::clone(world), agent }).await
}

struct Sweep<F> {
    world: Arc<World>,
    agent: F,
}

impl<F: Fn(u64) -> u64 + Send + Sync + 'static> Task for Sweep<F> {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        drain(&self.world, client, (self.agent)(n)).await?;
        Ok(())
    }
}

/// Reads and acknowledges everything that waits for one agent; how many rows (F2).
pub async fn drain(world: &Arc<World>, client: &mut Client, agent: u64) -> Result<u64, LoadError> {
    let (mut observer, mut rows) = (Observer::new(world, agent), 0);
    loop {
        let path = format!("/v1/messages/sync?limit={PAGE}");
        let answer = world.ask(client, Method::GET, &path, agent, "").await?;
        let page: Vec<Message<'_>> = answer.read()?;
        page.iter().for_each(|message| observer.message(message));
        rows += page.len() as u64;
        let Some(last) = page.last() else { return Ok(rows) };
        let Some(delivery) = &last.delivery_id else {
            return Err(LoadError::answer("a row of sync without delivery_id"));
        };
        let body = json!({"last_delivery_id": delivery}).to_string();
        world.ask(client, Method::POST, "/v1/messages/sync/ack", agent, &body).await?;
        if page.len() < PAGE {
            return Ok(rows);
        }
    }
}
