//! What every handler and socket shares: one cheap clone of handles, no logic.
//!
//! A1  A key maps to one agent for ever, so the mapping may be cached; whether the key is still the live one is judged
//!     by the agent entity on every request.
//! A2  A handle maps to one agent for ever, deleted ones included: the same holds.
//! A3  A profile shown beside a message is at most [`PROFILE_FRESH`] old, and never older than a change made here.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use actors::api::{Hook, Profile};
use actors::domain::Domain;
use metrics_exporter_prometheus::PrometheusHandle;
use schema::embedded::EmbeddedStore;
use schema::ids::{AgentId, ConversationId, ConversationKind, KeyHash};
use schema::store::{Store, StoreError};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::clock::Clock;
use crate::config::Config;
use crate::http::idempotency::Answers;
use crate::http::observe::Meters;
use crate::identity::{Identity, handles};
use crate::limits::Gates;
use crate::mail::Mailer;
use crate::membership::Membership;
use crate::memo::{Fresh, Memo};
use crate::objects::{Objects, ObjectsError};
use crate::shared::Shared;
use crate::webhooks::{Dispatcher, Translator};
use crate::wire::urls::Urls;
use crate::ws::Places;

/// How long a display name is used without asking again.
const PROFILE_FRESH: Duration = Duration::from_secs(1);

/// What has to run before the gateway.
pub struct Parts {
    /// Door to the entities.
    pub domain: Domain,
    /// Place in a cluster, on a cql store.
    pub membership: Option<Membership>,
    /// The store of this directory, if it is one.
    pub embedded: Option<Arc<EmbeddedStore>>,
    /// What nodes share, if they share anything.
    pub shared: Shared,
    /// Notices for webhooks, from the entities.
    pub intake: mpsc::Receiver<Hook>,
    /// Sends mail.
    pub mailer: Mailer,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
}

/// The gateway's handles. Cloned several times for every request and held by every socket, so a single word.
#[derive(Clone)]
pub struct App(Arc<Handlers>);

impl Deref for App {
    type Target = Handlers;

    fn deref(&self) -> &Handlers {
        &self.0
    }
}

/// What handlers work with.
pub struct Handlers {
    /// Door to the entities.
    pub domain: Domain,
    /// Place in a cluster, on a cql store.
    pub membership: Option<Membership>,
    /// The store of this directory, if it is one.
    pub embedded: Option<Arc<EmbeddedStore>>,
    /// Becomes `true` when the node drains.
    pub shutdown: watch::Receiver<bool>,
    /// Resolves keys.
    pub auth: Auth,
    /// Resolves handles.
    pub handles: Handles,
    /// Names shown beside messages.
    pub profiles: Arc<Profiles>,
    /// Groups shown beside messages.
    pub groups: Arc<Groups>,
    /// Absolute URLs.
    pub urls: Arc<Urls>,
    /// Settings in force.
    pub config: Config,
    /// What nodes share, if they share anything.
    pub shared: Shared,
    /// Limits that the gateway itself keeps.
    pub gates: Gates,
    /// Registration, recovery, rotation.
    pub identity: Identity,
    /// Places for sockets.
    pub sockets: Places,
    /// Bytes of attachments and avatars.
    pub objects: Objects,
    /// Images are large while they are worked on: one at a time and core.
    pub image_turns: Arc<Semaphore>,
    /// Delivers to webhooks.
    pub webhooks: Dispatcher,
    /// Remembers answers to requests with an `Idempotency-Key`.
    pub answers: Answers,
    /// Wall clock.
    pub clock: Clock,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
    /// What every request counts.
    pub meters: Meters,
}

impl App {
    /// Wires the parts together; caches start empty.
    pub fn new(config: Config, parts: Parts, shutdown: watch::Receiver<bool>) -> Result<Self, ObjectsError> {
        let Parts { domain, membership, embedded, shared, intake, mailer, metrics } = parts;
        let store = Arc::clone(domain.store());
        let clock = Clock::default();
        let profiles = Arc::new(Profiles::new(Arc::clone(&store)));
        let groups = Arc::new(Groups::new(Arc::clone(&store)));
        let urls = Arc::new(Urls::new(config.public_url()));
        let translator = Translator {
            profiles: Arc::clone(&profiles),
            groups: Arc::clone(&groups),
            urls: Arc::clone(&urls),
            clock: clock.clone(),
        };
        let rules = config.identity_rules();
        let identity = Identity::new(domain.clone(), mailer, clock.clone(), rules, shared.clone());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self(Arc::new(Handlers {
            shutdown,
            auth: Auth::new(Arc::clone(&store)),
            handles: Handles::new(Arc::clone(&store)),
            gates: Gates::new(config.rates(), shared.clone()),
            identity,
            objects: Objects::open(
                &config.objects,
                &config.data_dir,
                Arc::clone(&urls),
                config.cluster_cookie.as_deref(),
            )?,
            image_turns: Arc::new(Semaphore::new(cores)),
            webhooks: Dispatcher::start(domain.clone(), translator, config.webhooks_allow_private, intake),
            answers: Answers::new(store),
            profiles,
            groups,
            urls,
            domain,
            membership,
            embedded,
            shared,
            sockets: Places::default(),
            clock,
            config,
            metrics,
            meters: Meters::new(),
        })))
    }

    /// The durable rows, for reads only.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.domain.store()
    }
}

/// Waits until the node drains.
pub async fn draining(shutdown: &mut watch::Receiver<bool>) {
    // An error means that whoever could have told us is gone.
    let _ = shutdown.wait_for(|draining| *draining).await;
}

/// API keys to agents (A1).
pub struct Auth {
    store: Arc<dyn Store>,
    memo: Memo<KeyHash, AgentId>,
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
    memo: Memo<Box<str>, AgentId>,
}

impl Handles {
    /// Over `store`, with an empty cache.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, memo: Memo::default() }
    }

    /// The agent that a handle as sent names, deleted ones included; what is malformed names nobody.
    pub async fn named(&self, sent: &str) -> Result<Option<AgentId>, StoreError> {
        let handle = handles::normalise(sent);
        if handles::well_formed(&handle) { self.resolve(&handle).await } else { Ok(None) }
    }

    /// The agent a normalised handle belongs to, deleted ones included.
    pub async fn resolve(&self, handle: &str) -> Result<Option<AgentId>, StoreError> {
        if let Some(agent) = self.memo.get(handle) {
            return Ok(Some(agent));
        }
        let found = self.store.agent_by_handle(handle).await?;
        if let Some(agent) = found {
            self.memo.put(handle.into(), agent);
        }
        Ok(found)
    }
}

/// Agents to the names shown beside their messages (A3).
pub struct Profiles {
    store: Arc<dyn Store>,
    memo: Fresh<AgentId, Profile>,
}

impl Profiles {
    /// Over `store`, with an empty cache.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, memo: Fresh::lasting(PROFILE_FRESH) }
    }

    /// The profile of an agent; an unknown one has no name.
    pub async fn get(&self, agent: AgentId) -> Result<Arc<Profile>, StoreError> {
        if let Some(profile) = self.memo.get(&agent) {
            return Ok(profile);
        }
        let row = self.store.agent(agent).await?;
        let profile = row.map(|row| Profile { display_name: row.display_name, is_system: row.is_system });
        Ok(self.memo.put(agent, profile.unwrap_or_default()))
    }

    /// Drops what is known of an agent that was just changed.
    pub fn forget(&self, agent: AgentId) {
        self.memo.forget(&agent);
    }
}

/// Name and number of members of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupName {
    /// As set.
    pub name: String,
    /// Active ones.
    pub members: u32,
}

/// Groups to what is shown beside their messages (A3).
pub struct Groups {
    store: Arc<dyn Store>,
    memo: Fresh<ConversationId, GroupName>,
}

impl Groups {
    /// Over `store`, with an empty cache.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, memo: Fresh::lasting(PROFILE_FRESH) }
    }

    /// The group that a conversation is; `None` for a direct one.
    pub async fn get(&self, id: ConversationId) -> Result<Option<Arc<GroupName>>, StoreError> {
        if id.kind == ConversationKind::Direct {
            return Ok(None);
        }
        if let Some(group) = self.memo.get(&id) {
            return Ok(Some(group));
        }
        let row = self.store.group(id).await?;
        let group = row.map(|row| GroupName { members: row.active().count() as u32, name: row.name });
        Ok(Some(self.memo.put(id, group.unwrap_or_default())))
    }

    /// Drops what is known of a group that was just changed.
    pub fn forget(&self, id: ConversationId) {
        self.memo.forget(&id);
    }
}
