//! Presence snapshots: how agents are seen, kept where every node finds many of them in one step.
//!
//! ```text
//!   value   epoch, 16 hex digits | number, 16 hex digits | presence as JSON
//! ```
//! P1  A snapshot is written by the node that owns its agent, and is believed only under that node's epoch or a later
//!     one: when an owner dies, nothing that it wrote keeps anybody online. A node that is alone has epoch 0 for ever, so
//!     there the start of the process takes its place.
//! P2  Of two snapshots of one agent the newer one stays, whichever arrives last.
//! P3  A snapshot holds for a minute at most, whatever was lost: then the entity is asked, and shows itself again.
//! P4  Snapshots that wait here are bounded and the newest of their agent; entities never wait for them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actors::api::{Presence, Snapshot};
use redis::Script;
use schema::ids::AgentId;
use tokio::sync::Notify;

use super::{Link, PREFIX, Purpose, Shared};
use crate::metrics::{PRESENCE_DROPPED, PRESENCE_SNAPSHOTS};

/// Agents whose snapshots wait; those of others are given up, which P3 bounds.
const WAITING_MAX: usize = 65_536;
/// Snapshots written in one step: Redis does nothing else meanwhile.
const WRITTEN_AT_ONCE: usize = 128;
/// Pause before snapshots that could not be written are tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Hex digits of epoch and of number.
const DIGITS: usize = 16;

/// `KEYS`: snapshots. `ARGV`: for each its version, its value, and for how many milliseconds it holds (P2).
static SHOW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for i, key in ipairs(KEYS) do
           local version = ARGV[3 * i - 2]
           if redis.call('GETRANGE', key, 0, 31) < version then
             redis.call('SET', key, version .. ARGV[3 * i - 1], 'PX', ARGV[3 * i])
           end
         end
         return 0",
    )
});

/// A snapshot and its place among those of its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Versioned {
    epoch: u64,
    number: u64,
    snapshot: Snapshot,
}

/// Snapshots on their way to Redis (P4).
pub(super) struct Board {
    waiting: Mutex<HashMap<AgentId, Versioned>>,
    news: Arc<Notify>,
    number: AtomicU64,
    /// What stands for epoch 0: milliseconds since 1970 at the start (P1).
    started: u64,
}

impl Board {
    pub(super) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { waiting: Mutex::default(), news: Arc::default(), number: AtomicU64::new(0), started }
    }

    /// Each method leaves the map whole at every step.
    fn waiting(&self) -> MutexGuard<'_, HashMap<AgentId, Versioned>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tenure(&self, epoch: u64) -> u64 {
        if epoch == 0 { self.started } else { epoch }
    }

    fn put(&self, epoch: u64, snapshot: Snapshot) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let versioned = Versioned { epoch: self.tenure(epoch), number, snapshot };
        let mut waiting = self.waiting();
        let full = waiting.len() >= WAITING_MAX;
        match waiting.entry(versioned.snapshot.agent) {
            Entry::Occupied(mut place) => drop(place.insert(versioned)),
            Entry::Vacant(place) if !full => drop(place.insert(versioned)),
            Entry::Vacant(_) => metrics::counter!(PRESENCE_DROPPED).increment(1),
        }
        drop(waiting);
        self.news.notify_one();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    fn some(&self) -> Vec<Versioned> {
        let mut waiting = self.waiting();
        let agents: Vec<AgentId> = waiting.keys().take(WRITTEN_AT_ONCE).copied().collect();
        agents.iter().filter_map(|agent| waiting.remove(agent)).collect()
    }

    /// Takes back what could not be written, unless there is something newer.
    fn put_back(&self, batch: Vec<Versioned>) {
        let mut waiting = self.waiting();
        for versioned in batch {
            waiting.entry(versioned.snapshot.agent).or_insert(versioned);
        }
    }
}

fn key(agent: AgentId) -> String {
    format!("{PREFIX}:presence:{agent}")
}

fn version(epoch: u64, number: u64) -> String {
    format!("{epoch:0DIGITS$x}{number:0DIGITS$x}")
}

/// A snapshot as it was stored, if an owner of `tenure` or later wrote it (P1).
fn believed(value: &str, tenure: u64) -> Option<Presence> {
    let epoch = u64::from_str_radix(value.get(..DIGITS)?, 16).ok()?;
    let presence = serde_json::from_str(value.get(2 * DIGITS..)?).ok()?;
    (epoch >= tenure).then_some(presence)
}

impl Shared {
    /// Puts a snapshot on its way, written under this epoch of its agent's shard. Never blocks.
    pub fn show(&self, epoch: u64, snapshot: Snapshot) {
        if let Some(link) = &self.0 {
            link.board.put(epoch, snapshot);
        }
    }

    /// Snapshots of agents, each with the epoch of its owner as this node knows it. What is missing has to be asked.
    pub async fn seen(&self, agents: &[(AgentId, u64)]) -> HashMap<AgentId, Presence> {
        let (Some(link), false) = (&self.0, agents.is_empty()) else { return HashMap::new() };
        let mut command = redis::cmd("MGET");
        for (agent, _) in agents {
            command.arg(key(*agent));
        }
        let ask = |mut connection| async move { command.query_async::<Vec<Option<String>>>(&mut connection).await };
        let values = self.call(Purpose::PresenceRead, ask).await.unwrap_or_default();
        let found = agents.iter().zip(values);
        let seen: HashMap<AgentId, Presence> = found
            .filter_map(|((agent, epoch), value)| Some((*agent, believed(&value?, link.board.tenure(*epoch))?)))
            .collect();
        let asked = (agents.len() - seen.len()) as u64;
        metrics::counter!(PRESENCE_SNAPSHOTS, "outcome" => "found").increment(seen.len() as u64);
        metrics::counter!(PRESENCE_SNAPSHOTS, "outcome" => "missing").increment(asked);
        seen
    }
}

/// Writes snapshots until nobody uses the connection any more.
pub(super) async fn keep_shown(link: Weak<Link>) {
    while let Some(link) = link.upgrade() {
        let batch = link.board.some();
        if batch.is_empty() {
            let news = Arc::clone(&link.board.news);
            drop(link);
            let _ = tokio::time::timeout(AGAIN, news.notified()).await; // time to see whether anybody is left
            continue;
        }
        if write(&link, &batch).await.is_none() {
            link.board.put_back(batch);
            drop(link);
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn write(link: &Link, batch: &[Versioned]) -> Option<()> {
    let mut script = SHOW.prepare_invoke();
    for Versioned { epoch, number, snapshot } in batch {
        // A presence always encodes; if it did not, P3 would bound what is missing.
        let value = serde_json::to_string(&snapshot.presence).unwrap_or_default();
        script.key(key(snapshot.agent)).arg(version(*epoch, *number)).arg(value).arg(snapshot.holds_ms.max(1));
    }
    let ask = |mut connection| async move { script.invoke_async::<()>(&mut connection).await };
    link.call(Purpose::PresenceWrite, ask).await
}

#[cfg(test)]
mod tests {
    use schema::ids::Key;
    use schema::rows::{PresenceStatus, Timestamp};

    use super::*;

    fn snapshot(n: u8, status: PresenceStatus) -> Snapshot {
        let presence = Presence { status, message: Some("at lunch".to_owned()), last_seen: Some(Timestamp(5)) };
        Snapshot { agent: AgentId(Key::from_bytes([n; 16])), presence, holds_ms: 1_000 }
    }

    #[test]
    fn a_snapshot_is_believed_under_the_epoch_of_its_owner_or_a_later_one() {
        let shown = snapshot(1, PresenceStatus::Busy).presence;
        let value = version(7, 1) + &serde_json::to_string(&shown).unwrap();
        assert_eq!(believed(&value, 6), Some(shown.clone()), "this node has not heard of the new owner yet");
        assert_eq!(believed(&value, 7), Some(shown));
        assert_eq!(believed(&value, 8), None, "P1");
        for garbage in ["", "7", &value[..40], "ü".repeat(40).as_str(), &value.replace('{', "[")] {
            assert_eq!(believed(garbage, 0), None, "{garbage}");
        }
    }

    #[test]
    fn versions_ascend_as_text() {
        let mut versions = [version(1, u64::MAX), version(2, 0), version(0x10, 3), version(u64::MAX, 0)];
        assert!(versions.is_sorted());
        versions.iter().for_each(|version| assert_eq!(version.len(), 32));
        versions.reverse();
        assert!(!versions.is_sorted());
    }

    #[test]
    fn the_newest_waits_and_what_failed_does_not_replace_it() {
        let board = Board::new();
        board.put(3, snapshot(1, PresenceStatus::Online));
        board.put(3, snapshot(1, PresenceStatus::Busy));
        let batch = board.some();
        assert_eq!(batch.iter().map(|one| (one.epoch, one.number)).collect::<Vec<_>>(), [(3, 1)]);
        assert_eq!(batch[0].snapshot.presence.status, PresenceStatus::Busy);
        board.put(3, snapshot(1, PresenceStatus::Offline));
        board.put_back(batch.clone());
        assert_eq!(board.some()[0].number, 2);
        board.put_back(batch);
        assert_eq!(board.some()[0].number, 1);
        assert!(board.some().is_empty());
    }

    #[test]
    fn what_waits_is_bounded_and_known_agents_are_never_given_up() {
        let board = Board::new();
        let numbered = |n: usize| {
            let key = Key::from_bytes(std::array::from_fn(|at| (n / 62_usize.pow(at.min(3) as u32) % 62) as u8));
            Snapshot { agent: AgentId(key), ..snapshot(0, PresenceStatus::Online) }
        };
        (0..WAITING_MAX + 10).for_each(|n| board.put(1, numbered(n)));
        assert_eq!(board.waiting().len(), WAITING_MAX);
        board.put(1, Snapshot { presence: Presence::default(), ..numbered(5) });
        assert_eq!(board.waiting()[&numbered(5).agent].snapshot.presence, Presence::default());
        assert_eq!(board.some().len(), WRITTEN_AT_ONCE);
    }

    #[test]
    fn a_node_that_is_alone_believes_what_it_wrote_since_it_started() {
        let board = Board::new();
        board.put(0, snapshot(1, PresenceStatus::Online));
        let Versioned { epoch, number, snapshot } = board.some().remove(0);
        let value = version(epoch, number) + &serde_json::to_string(&snapshot.presence).unwrap();
        assert_eq!(believed(&value, board.tenure(0)), Some(snapshot.presence));
        assert_eq!(believed(&value, board.tenure(0) + 1), None, "the next start");
    }
}
