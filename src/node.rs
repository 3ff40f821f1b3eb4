//! One node from start to drain: store, domain, gateway, in this order; and back in the opposite one.
//!
//! N1  The address is bound before the store is opened, so that two nodes never fight over a directory they cannot serve.
//! N2  A drain refuses new connections first, lets requests finish, closes sockets, stops the shards, and closes the
//!     store last: what was acknowledged is on disk before the process ends. In a cluster shards are handed over
//!     meanwhile, and the lease goes when no request needs the other nodes any more.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::api::{Hook, Snapshot};
use actors::domain::{Domain, DomainOptions, StartError, shards_alone};
use actors::node::Hooks;
use schema::embedded::{EmbeddedOptions, EmbeddedStore, OpenError};
use schema::store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::app::{App, Parts};
use crate::config::{Config, ConfigError};
use crate::doctor;
use crate::http;
use crate::mail::{MailError, Mailer};
use crate::membership;
use crate::objects::ObjectsError;
use crate::shared::Shared;
use crate::telemetry;
use crate::webhooks::Intake;

/// How often idle limiter entries are forgotten and gauges refreshed.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Expired rows are looked for this often, in ticks of the housekeeping: it reads whole tables.
const SWEEP_EVERY: u64 = 60;

/// Sockets are told to go over 5 s; then each has a moment to say goodbye.
const SOCKETS_DRAIN: Duration = Duration::from_secs(8);

/// The node cannot start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Address in use or not ours.
    #[error("cannot listen on {0}: choose another address with --listen")]
    Listen(std::net::SocketAddr, #[source] io::Error),
    /// The data directory cannot be made.
    #[error("cannot create {0}: choose another directory with --data-dir")]
    DataDir(PathBuf, #[source] io::Error),
    /// The store does not open.
    #[error("cannot open the store in {0}")]
    Open(PathBuf, #[source] OpenError),
    /// The cql store does not open.
    #[error("cannot open the cql store")]
    Cql(#[source] schema::cql::OpenError),
    /// The cluster port does not open.
    #[error(transparent)]
    Links(#[from] cluster::link::LinkError),
    /// Settings.
    #[error(transparent)]
    Config(ConfigError),
    /// The store did not close.
    #[error("the store did not close cleanly")]
    Close(#[source] StoreError),
    /// Mail settings.
    #[error("mail cannot be set up")]
    Mail(#[from] MailError),
    /// Attachments and avatars.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// Metrics.
    #[error("metrics cannot be set up")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Shards.
    #[error(transparent)]
    Domain(#[from] StartError),
    /// Signals.
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config) -> Result<(), NodeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(NodeError::Signals)?;
    let listen = config.listen;
    let listener = TcpListener::bind(listen).await.map_err(|error| NodeError::Listen(listen, error))?;
    let (shutdown, draining) = watch::channel(false);
    let app = assemble(config, draining).await?;
    info!(address = %listen, url = app.config.public_url(), data = %app.config.data_dir.display(), "ready");
    doctor::log_public_url(&app.config);
    let housekeeping = tokio::spawn(housekeeping(app.clone()));
    let served =
        tokio::spawn(http::serve::serve(listener, http::router(&app).with_state(app.clone()), app.shutdown.clone()));
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: draining"),
        _ = interrupt.recv() => info!("interrupted: draining"),
    }
    // Nobody listens any more if the watch is closed, and that is fine.
    let _ = shutdown.send(true);
    let handed_over = async {
        if let Some(membership) = &app.membership {
            membership.member.hand_over().await;
        }
    };
    let (served, ()) = tokio::join!(served, handed_over);
    if let Err(error) = served {
        tracing::error!(%error, "the listener ended early");
    }
    app.sockets.drained(SOCKETS_DRAIN).await;
    housekeeping.abort();
    if let Some(membership) = &app.membership {
        membership.member.leave().await;
    }
    app.domain.stop().await;
    app.store().close().await.map_err(NodeError::Close)?;
    info!("drained");
    Ok(())
}

/// Where snapshots of the embedded store lie until a backup has copied them.
pub fn snapshots_directory(config: &Config) -> PathBuf {
    config.data_dir.join("snapshots")
}

/// Where the embedded store lies.
pub fn store_directory(config: &Config) -> PathBuf {
    config.data_dir.join("store")
}

/// Where entities tell the world outside of them what happens.
struct Outlets {
    webhooks: Intake,
    shared: Shared,
}

impl Hooks for Outlets {
    fn call(&self, hook: Hook) {
        self.webhooks.call(hook);
    }

    fn show(&self, epoch: u64, snapshot: Snapshot) {
        self.shared.show(epoch, snapshot);
    }
}

/// Puts the parts together.
async fn assemble(config: Config, shutdown: watch::Receiver<bool>) -> Result<App, NodeError> {
    let metrics = telemetry::metrics()?;
    let data = &config.data_dir;
    std::fs::create_dir_all(data).map_err(|error| NodeError::DataDir(data.clone(), error))?;
    let mailer = match &config.smtp_url {
        Some(url) => Mailer::smtp(url, &config.mail_from)?,
        None => Mailer::outbox(data.join("outbox"), &config.mail_from)?,
    };
    let options = DomainOptions { limits: config.domain_limits(), ..DomainOptions::default() };
    let shared = match &config.redis_url {
        Some(url) => Shared::open(url).await.map_err(|error| NodeError::Config(error.into()))?,
        None => Shared::default(),
    };
    let (webhooks, intake) = Intake::new();
    let outlets = Outlets { webhooks, shared: shared.clone() };
    let (domain, membership, embedded) = match config.cql().map_err(|error| NodeError::Config(error.into()))? {
        Some(cql) => {
            let (domain, membership) = membership::join(&config, &cql, options, Arc::new(outlets)).await?;
            (domain, Some(membership), None)
        }
        None => {
            let (domain, store) = embedded(&config, options, outlets).await?;
            (domain, None, Some(store))
        }
    };
    let parts = Parts { domain, membership, embedded, shared, intake, mailer, metrics };
    Ok(App::new(config, parts, shutdown)?)
}

async fn embedded(
    config: &Config,
    options: DomainOptions,
    outlets: Outlets,
) -> Result<(Domain, Arc<EmbeddedStore>), NodeError> {
    let directory = store_directory(config);
    let cache_bytes = u64::from(config.store_cache_mib) << 20;
    let store = EmbeddedStore::open(&directory, EmbeddedOptions { cache_bytes, ..EmbeddedOptions::default() })
        .map_err(|error| NodeError::Open(directory.clone(), error))?;
    let left = snapshots_directory(config);
    if left.exists() {
        // Whoever made it is gone, and nobody will copy it any more.
        std::fs::remove_dir_all(&left).map_err(|error| NodeError::DataDir(left, error))?;
    }
    let store = Arc::new(store);
    let rows: Arc<dyn Store> = store.clone();
    let options = DomainOptions { shards: shards_alone(), ..options };
    Ok((Domain::start(rows, options, Arc::new(outlets)).await?, store))
}

async fn housekeeping(app: App) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    for tick in 0_u64.. {
        ticks.tick().await;
        app.gates.forget_idle();
        app.metrics.run_upkeep();
        if tick % SWEEP_EVERY != 0 {
            continue;
        }
        if let Err(error) = app.store().sweep(app.clock.now()).await {
            tracing::warn!(%error, "expired rows could not be removed");
        }
    }
}
