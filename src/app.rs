//! What every handler and socket shares: one cheap clone of handles, no logic.
//!
//! A1  A key maps to one agent for ever, so the mapping may be cached; whether the key is still the live one is judged
//!     by the agent entity on every request.
//! A2  A handle maps to one agent for ever, deleted ones included: the same holds.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use actors::domain::Domain;
use metrics_exporter_prometheus::PrometheusHandle;
use schema::ids::{AgentId, KeyHash};
use schema::store::{Store, StoreError};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Config;
use crate::identity::Identity;
use crate::limits::Gates;

/// Entries of one generation of a [`Memo`]; two generations are kept. About 6 MiB for both caches at the most.
const MEMO_GENERATION: usize = 32_768;

/// The gateway's handles. Cloned for every request.
#[derive(Clone)]
pub struct App {
    /// Door to the entities.
    pub domain: Domain,
    /// Becomes `true` when the node drains.
    pub shutdown: watch::Receiver<bool>,
    /// Resolves keys.
    pub auth: Arc<Auth>,
    /// Resolves handles.
    pub handles: Arc<Handles>,
    /// Settings in force.
    pub config: Arc<Config>,
    /// Limits that the gateway itself keeps.
    pub gates: Arc<Gates>,
    /// Registration, recovery, rotation.
    pub identity: Arc<Identity>,
    /// Wall clock.
    pub clock: Clock,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
}

impl App {
    /// The durable rows, for reads only.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.domain.store()
    }
}

/// API keys to agents (A1).
pub struct Auth {
    store: Arc<dyn Store>,
    memo: Memo<KeyHash>,
}

impl Auth {
    /// Over `store`, with an empty cache.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, memo: Memo::default() }
    }

    /// The agent this key was made for. `None` for a key that nobody ever held.
    pub async fn resolve(&self, api_key: &str) -> Result<Option<AgentId>, StoreError> {
        if !api_key.starts_with("ac_live_") || api_key.len() > 256 {
            return Ok(None);
        }
        let hash = KeyHash::of(api_key);
        if let Some(agent) = self.memo.get(&hash) {
            return Ok(Some(agent));
        }
        let found = self.store.agent_by_key(hash).await?;
        if let Some(agent) = found {
            self.memo.put(hash, agent);
        }
        Ok(found)
    }
}

/// Handles to agents (A2).
pub struct Handles {
    store: Arc<dyn Store>,
    memo: Memo<String>,
}

impl Handles {
    /// Over `store`, with an empty cache.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, memo: Memo::default() }
    }

    /// The agent a normalised handle belongs to, deleted ones included.
    pub async fn resolve(&self, handle: &str) -> Result<Option<AgentId>, StoreError> {
        if let Some(agent) = self.memo.get(handle) {
            return Ok(Some(agent));
        }
        let found = self.store.agent_by_handle(handle).await?;
        if let Some(agent) = found {
            self.memo.put(handle.to_owned(), agent);
        }
        Ok(found)
    }
}

/// A bounded cache in two generations: when the young one is full it becomes the old one, and the old one is dropped.
struct Memo<K>(Mutex<[HashMap<K, AgentId>; 2]>);

impl<K> Default for Memo<K> {
    fn default() -> Self {
        Self(Mutex::new([HashMap::new(), HashMap::new()]))
    }
}

impl<K: Hash + Eq> Memo<K> {
    fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<AgentId>
    where
        K: std::borrow::Borrow<Q>,
    {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter().find_map(|generation| generation.get(key).copied())
    }

    fn put(&self, key: K, agent: AgentId) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations[0].len() >= MEMO_GENERATION {
            generations[1] = std::mem::take(&mut generations[0]);
        }
        generations[0].insert(key, agent);
    }
}
