//! Settings: flags, then `AGENTCHAT_*` environment, then the TOML file; the first that sets a key wins.
//!
//! C1  Every number of the contract is the default here, and the only default.
//! C2  An unknown key in the file is an error, so that a typing mistake is not a silent default.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use actors::limits::{IDLE_MS, Limits};
use clap::{Args, ValueEnum};
use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use schema::cql::{CqlOptions, NotCql};
use schema::store::EmailBudget;
use serde::{Deserialize, Serialize};

use crate::identity::Rules;
use crate::limits::Rates;
use crate::shared::{self, BadUrl};

/// Shortest cookie of a cluster.
const COOKIE_MIN: usize = 16;

/// What `passivate_after_s` may be: what lives in memory only counts on the shortest.
const PASSIVATE_S: RangeInclusive<u32> = (IDLE_MS / 1_000) as u32..=86_400;

/// Settings as flags or environment give them; what is absent comes from the file or the defaults.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct Flags {
    /// TOML file with any of these settings, keys in snake case, and a `[numbers]` table for single limits
    #[arg(long, global = true, env = "AGENTCHAT_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address for HTTP and WebSocket [default: 127.0.0.1:8080]
    #[arg(long, global = true, env = "AGENTCHAT_LISTEN", value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    /// Base of every absolute URL in an answer; unset, with an address that stands for all of this machine's, URLs lead to
    /// this machine itself and to no other [default: http://<listen>]
    #[arg(long, global = true, env = "AGENTCHAT_PUBLIC_URL", value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    public_url: Option<String>,
    /// Directory of the embedded store and the outbox; one process at a time [default: ./data]
    #[arg(long, global = true, env = "AGENTCHAT_DATA_DIR", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    /// Where rows are kept: `embedded`, or `cql://HOST:PORT[,HOST:PORT]/KEYSPACE` [default: embedded]
    #[arg(long, global = true, env = "AGENTCHAT_STORE", value_name = "STORE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    /// Name of this node in its cluster, unique; with it go --cluster-listen, --cluster-cookie and a cql store
    #[arg(long, global = true, env = "AGENTCHAT_NODE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Address for other nodes; they connect to it as given, unless --cluster-advertise says otherwise
    #[arg(long, global = true, env = "AGENTCHAT_CLUSTER_LISTEN", value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_listen: Option<SocketAddr>,
    /// Where other nodes reach this one, if not at --cluster-listen
    #[arg(long, global = true, env = "AGENTCHAT_CLUSTER_ADVERTISE", value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_advertise: Option<String>,
    /// Secret that all nodes of a cluster share
    #[arg(long, global = true, env = "AGENTCHAT_CLUSTER_COOKIE", value_name = "SECRET", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_cookie: Option<String>,
    /// Directory with ca.pem, cert.pem and key.pem: nodes encrypt their links and check each other's certificate
    #[arg(long, global = true, env = "AGENTCHAT_CLUSTER_TLS", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_tls: Option<PathBuf>,
    /// Redis that all nodes of a deployment share: rate windows, spacing of codes and presence snapshots are then counted
    /// and kept for all of them; while it is unreachable each node goes by its own. Redis 6.2 or newer, one database per
    /// deployment
    #[arg(long, global = true, env = "AGENTCHAT_REDIS_URL", value_name = "redis://HOST:PORT", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_url: Option<String>,
    /// SMTP server for verification codes; without it each mail is a file in `<data>/outbox`
    #[arg(long, global = true, env = "AGENTCHAT_SMTP_URL", value_name = "smtp://HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    smtp_url: Option<String>,
    /// Sender of verification mails [default: agentchat@localhost]
    #[arg(long, global = true, env = "AGENTCHAT_MAIL_FROM", value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    mail_from: Option<String>,
    /// `contract` keeps the published limits, `open` lifts every rate limit and cooldown [default: contract]
    #[arg(long, global = true, env = "AGENTCHAT_LIMITS", value_name = "SET")]
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<LimitSet>,
    /// Header in which a trusted proxy names the client; its last hop is used
    #[arg(long, global = true, env = "AGENTCHAT_CLIENT_IP_HEADER", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip_header: Option<String>,
    /// Where attachments and avatars lie: `file` (in the data directory) or `s3://bucket?endpoint=...` [default: file]
    #[arg(long, global = true, env = "AGENTCHAT_OBJECTS", value_name = "WHERE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    objects: Option<String>,
    /// Token of the operator surface under /operator and of `agentchat admin`; unset switches it off
    #[arg(long, global = true, env = "AGENTCHAT_OPERATOR_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    operator_token: Option<String>,
    /// Tracing filter, for example `info,agentchat=debug` [default: info]
    #[arg(long, global = true, env = "AGENTCHAT_LOG", value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    /// Shape of log lines [default: text]
    #[arg(long, global = true, env = "AGENTCHAT_LOG_FORMAT", value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
}

/// Which limits are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LimitSet {
    /// The published ones.
    Contract,
    /// None of the rates and cooldowns.
    Open,
}

/// What adding somebody to a group does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupAddMode {
    /// Whoever has the inviter in its book joins at once; everybody else is invited.
    ContactsAutoJoin,
    /// Everybody is invited.
    Consent,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// Settings in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// HTTP and WebSocket.
    pub listen: SocketAddr,
    public_url: Option<String>,
    /// Store and outbox.
    pub data_dir: PathBuf,
    /// Which engine.
    pub store: String,
    /// Memory in MiB that the embedded store keeps of its tables.
    pub store_cache_mib: u32,
    /// Seconds after which an agent or a conversation that nobody uses leaves memory.
    pub passivate_after_s: u32,
    /// Name in the cluster; unset: no other node reaches this one.
    pub node: Option<String>,
    /// For other nodes.
    pub cluster_listen: Option<SocketAddr>,
    /// Where other nodes reach this one.
    pub cluster_advertise: Option<String>,
    /// Shared by all nodes.
    pub cluster_cookie: Option<String>,
    /// Certificates for links.
    pub cluster_tls: Option<PathBuf>,
    /// Unset: nodes share nothing but the store.
    pub redis_url: Option<String>,
    /// Unset: outbox files.
    pub smtp_url: Option<String>,
    /// Sender of mails.
    pub mail_from: String,
    /// Which limits.
    pub limits: LimitSet,
    /// Name of a trusted proxy's header.
    pub client_ip_header: Option<String>,
    /// Origins that browsers may call from; `*` is any.
    pub cors_origins: Vec<String>,
    /// Handles that nobody may register, beside the published list.
    pub reserved_handles: Vec<String>,
    /// Where bytes of attachments and avatars lie.
    pub objects: String,
    /// Opens `/operator`; unset keeps it shut.
    pub operator_token: Option<String>,
    /// Webhooks may go to plain HTTP and to private addresses.
    pub webhooks_allow_private: bool,
    /// The directory answers agents only.
    pub directory_requires_auth: bool,
    /// What adding a contact to a group does.
    pub group_add_mode: GroupAddMode,
    /// Tracing filter.
    pub log: String,
    /// Log lines.
    pub log_format: LogFormat,
    /// Single limits.
    pub numbers: Numbers,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            data_dir: PathBuf::from("data"),
            store: "embedded".to_owned(),
            store_cache_mib: 256,
            passivate_after_s: *PASSIVATE_S.start(),
            node: None,
            cluster_listen: None,
            cluster_advertise: None,
            cluster_cookie: None,
            cluster_tls: None,
            redis_url: None,
            smtp_url: None,
            mail_from: "agentchat@localhost".to_owned(),
            limits: LimitSet::Contract,
            client_ip_header: None,
            cors_origins: vec!["*".to_owned()],
            reserved_handles: Vec::new(),
            objects: "file".to_owned(),
            operator_token: None,
            webhooks_allow_private: false,
            directory_requires_auth: false,
            group_add_mode: GroupAddMode::ContactsAutoJoin,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            numbers: Numbers::default(),
        }
    }
}

/// Limits one by one. A rate of 0 is lifted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Numbers {
    /// Authenticated requests, per agent or owner and second.
    pub requests_per_second: u32,
    /// Sends, per agent and second.
    pub sends_per_second: u32,
    /// Outstanding cold threads, per agent in 24 h.
    pub cold_threads: u32,
    /// Backlog from which senders are warned.
    pub backlog_warn: u32,
    /// Backlog at which sends are refused.
    pub backlog_max: u32,
    /// Registrations, per IP and hour.
    pub register_per_hour: u32,
    /// Verifications of any kind, per IP in 10 minutes.
    pub verify_per_10_minutes: u32,
    /// Recoveries, per IP and hour.
    pub recover_per_hour: u32,
    /// Key rotations, per agent and hour.
    pub rotate_per_hour: u32,
    /// Public profiles, per IP and minute.
    pub profiles_per_minute: u32,
    /// Sends per group and second, by all members together.
    pub group_sends_per_second: u32,
    /// Group invitations, per agent in 24 h.
    pub invites_per_day: u32,
    /// Changes of groups, per agent and second.
    pub group_changes_per_second: u32,
    /// Directory searches, per agent and minute.
    pub directory_per_minute: u32,
    /// Directory searches, per agent in 24 h.
    pub directory_per_day: u32,
    /// Directory searches without key, per IP and minute.
    pub directory_anonymous_per_minute: u32,
    /// Avatars, per agent or group and minute.
    pub avatars_per_minute: u32,
    /// Announced uploads, per agent and minute.
    pub uploads_per_minute: u32,
    /// New webhooks, per agent and minute.
    pub webhooks_per_minute: u32,
    /// Sign-in codes for the dashboard, per IP and hour.
    pub sign_in_per_hour: u32,
    /// Sign-in codes to one address, per hour.
    pub sign_in_codes_per_hour: u32,
    /// Sign-ins, per IP in 10 minutes.
    pub sign_in_verify_per_10_minutes: u32,
    /// Refreshes of dashboard tokens, per IP and minute.
    pub refresh_per_minute: u32,
    /// Claims, per IP in 10 minutes.
    pub claims_per_10_minutes: u32,
    /// Seconds between two codes to one address.
    pub otp_cooldown_seconds: u32,
    /// Codes to one address, per hour.
    pub otp_per_hour: u32,
    /// Agents that one email may back at a time.
    pub email_live: u32,
    /// Agents that one email may ever register.
    pub email_lifetime: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            requests_per_second: limits.requests_per_second.unwrap_or(0),
            sends_per_second: limits.sends_per_second.unwrap_or(0),
            cold_threads: limits.cold_threads.unwrap_or(0),
            backlog_warn: limits.backlog_warn,
            backlog_max: limits.backlog_max,
            register_per_hour: 5,
            verify_per_10_minutes: 10,
            recover_per_hour: 3,
            rotate_per_hour: 5,
            profiles_per_minute: 120,
            group_sends_per_second: limits.group_sends_per_second.unwrap_or(0),
            invites_per_day: limits.invites_per_day.unwrap_or(0),
            group_changes_per_second: 10,
            directory_per_minute: 60,
            directory_per_day: 1_000,
            directory_anonymous_per_minute: 30,
            avatars_per_minute: 5,
            uploads_per_minute: 60,
            webhooks_per_minute: 10,
            sign_in_per_hour: 5,
            sign_in_codes_per_hour: 20,
            sign_in_verify_per_10_minutes: 10,
            refresh_per_minute: 30,
            claims_per_10_minutes: 20,
            otp_cooldown_seconds: 60,
            otp_per_hour: 5,
            email_live: 1,
            email_lifetime: 3,
        }
    }
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file or a value does not parse.
    #[error("settings: {0}")]
    Parse(Box<figment::Error>),
    /// No such engine.
    #[error("settings: the store is neither `embedded` nor an address")]
    Store(#[from] NotCql),
    /// No Redis.
    #[error(transparent)]
    Redis(#[from] BadUrl),
    /// Too soon, or never.
    #[error("settings: passivate_after_s has to be from {} to {}", PASSIVATE_S.start(), PASSIVATE_S.end())]
    Passivate,
    /// Half a cluster.
    #[error(
        "settings: a node of a cluster needs all of --node (1-64 of a-z, 0-9, `-`, `.`), --cluster-listen, \
         --cluster-cookie (at least 16 characters) and a cql store"
    )]
    Cluster,
}

/// How this node takes part in its cluster.
#[derive(Debug, Clone)]
pub struct ClusterPlace {
    /// Its name.
    pub name: String,
    /// For other nodes.
    pub listen: SocketAddr,
    /// Where they reach it.
    pub advertise: String,
    /// Shared by all.
    pub cookie: String,
    /// Certificates.
    pub tls: Option<PathBuf>,
}

impl Config {
    /// Merges defaults, file and flags.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(file) = &flags.config {
            figment = figment.merge(Toml::file_exact(file));
        }
        let config: Self = figment
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| ConfigError::Parse(Box::new(error)))?;
        config.cql()?;
        config.cluster()?;
        if !PASSIVATE_S.contains(&config.passivate_after_s) {
            return Err(ConfigError::Passivate);
        }
        config.redis_url.as_deref().map(shared::check_url).transpose()?;
        Ok(config)
    }

    /// The place in a cluster; `None` for a node that no other reaches.
    pub fn cluster(&self) -> Result<Option<ClusterPlace>, ConfigError> {
        let (name, listen, cookie) = match (&self.node, self.cluster_listen, &self.cluster_cookie) {
            (None, None, None) => return Ok(None),
            (Some(name), Some(listen), Some(cookie)) => (name.clone(), listen, cookie.clone()),
            _ => return Err(ConfigError::Cluster),
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if !(1..=64).contains(&name.len())
            || !name.chars().all(plain)
            || cookie.len() < COOKIE_MIN
            || self.cql()?.is_none()
        {
            return Err(ConfigError::Cluster);
        }
        let advertise = self.cluster_advertise.clone().unwrap_or_else(|| listen.to_string());
        Ok(Some(ClusterPlace { name, listen, advertise, cookie, tls: self.cluster_tls.clone() }))
    }

    /// The cluster that keeps the rows; `None` on the embedded store.
    pub fn cql(&self) -> Result<Option<CqlOptions>, NotCql> {
        if self.store == "embedded" { Ok(None) } else { self.store.parse().map(Some) }
    }

    /// Base of absolute URLs, without a trailing slash.
    pub fn public_url(&self) -> String {
        let url = self.public_url.clone().unwrap_or_else(|| self.local_url());
        url.trim_end_matches('/').to_owned()
    }

    /// Where a process on the same machine reaches this node, whatever its public URL is.
    pub fn local_url(&self) -> String {
        let mut address = self.listen;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        format!("http://{address}")
    }

    /// No public URL was set.
    pub fn has_default_url(&self) -> bool {
        self.public_url.is_none()
    }

    fn rate(&self, number: u32) -> Option<u32> {
        (self.limits == LimitSet::Contract && number > 0).then_some(number)
    }

    /// What the domain limits.
    pub fn domain_limits(&self) -> Limits {
        let numbers = &self.numbers;
        Limits {
            requests_per_second: self.rate(numbers.requests_per_second),
            sends_per_second: self.rate(numbers.sends_per_second),
            group_sends_per_second: self.rate(numbers.group_sends_per_second),
            invites_per_day: self.rate(numbers.invites_per_day),
            cold_threads: self.rate(numbers.cold_threads),
            backlog_warn: numbers.backlog_warn,
            backlog_max: numbers.backlog_max,
            idle_ms: u64::from(self.passivate_after_s) * 1_000,
        }
    }

    /// What the gateway limits.
    pub fn rates(&self) -> Rates {
        let numbers = &self.numbers;
        Rates {
            register_per_hour: self.rate(numbers.register_per_hour),
            verify_per_10_minutes: self.rate(numbers.verify_per_10_minutes),
            recover_per_hour: self.rate(numbers.recover_per_hour),
            rotate_per_hour: self.rate(numbers.rotate_per_hour),
            profiles_per_minute: self.rate(numbers.profiles_per_minute),
            directory_per_minute: self.rate(numbers.directory_per_minute),
            directory_per_day: self.rate(numbers.directory_per_day),
            directory_anonymous_per_minute: self.rate(numbers.directory_anonymous_per_minute),
            avatars_per_minute: self.rate(numbers.avatars_per_minute),
            uploads_per_minute: self.rate(numbers.uploads_per_minute),
            webhooks_per_minute: self.rate(numbers.webhooks_per_minute),
            group_changes_per_second: self.rate(numbers.group_changes_per_second),
            sign_in_per_hour: self.rate(numbers.sign_in_per_hour),
            sign_in_verify_per_10_minutes: self.rate(numbers.sign_in_verify_per_10_minutes),
            refresh_per_minute: self.rate(numbers.refresh_per_minute),
            claims_per_10_minutes: self.rate(numbers.claims_per_10_minutes),
            owner_requests_per_second: self.rate(numbers.requests_per_second),
        }
    }

    /// What identity limits.
    pub fn identity_rules(&self) -> Rules {
        let numbers = &self.numbers;
        Rules {
            budget: EmailBudget { live: numbers.email_live, lifetime: numbers.email_lifetime },
            otp_cooldown_ms: self.rate(numbers.otp_cooldown_seconds).map(|seconds| u64::from(seconds) * 1_000),
            otp_per_hour: self.rate(numbers.otp_per_hour),
            sign_in_per_hour: self.rate(numbers.sign_in_codes_per_hour),
            reserved: self.reserved_handles.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, flags: Flags) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agentchat.toml");
        std::fs::write(&file, toml).unwrap();
        Config::load(&Flags { config: Some(file), ..flags })
    }

    #[test]
    fn the_file_sets_numbers_and_flags_win_over_it() {
        let file = "listen = \"127.0.0.1:1\"\nlog = \"debug\"\n[numbers]\nemail_live = 10\nrequests_per_second = 0\n";
        let flags = Flags { listen: Some(SocketAddr::from(([127, 0, 0, 1], 2))), ..Flags::default() };
        let config = load(file, flags).unwrap();
        assert_eq!((config.listen.port(), config.log.as_str()), (2, "debug"));
        assert_eq!(config.public_url(), "http://127.0.0.1:2");
        assert_eq!(config.identity_rules().budget, EmailBudget { live: 10, lifetime: 3 });
        assert_eq!(config.domain_limits().requests_per_second, None);
        assert_eq!(config.domain_limits().sends_per_second, Some(60));
    }

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn without_a_public_url_links_lead_to_this_machine() {
        let public_url = |toml: &str| load(toml, Flags::default()).unwrap().public_url();
        for (listen, expected) in [
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("192.0.2.7:1", "http://192.0.2.7:1"),
            ("0.0.0.0:1",   "http://127.0.0.1:1"),
            ("[::]:1",      "http://[::1]:1"),
        ] {
            assert_eq!(public_url(&format!("listen = \"{listen}\"")), expected);
        }
        assert_eq!(public_url("listen = \"0.0.0.0:1\"\npublic_url = \"https://chat.example/\""), "https://chat.example");
    }

    #[test]
    fn open_lifts_rates_and_keeps_budgets() {
        let config = load("limits = \"open\"", Flags::default()).unwrap();
        assert_eq!(config.domain_limits().cold_threads, None);
        assert_eq!(config.rates().register_per_hour, None);
        assert_eq!(config.identity_rules().otp_cooldown_ms, None);
        assert_eq!(config.identity_rules().budget.live, 1);
        assert_eq!(config.domain_limits().backlog_max, 10_000);
    }

    #[test]
    fn memory_is_kept_for_a_minute_at_least() {
        let idle = |seconds| load(&format!("passivate_after_s = {seconds}"), Flags::default());
        assert_eq!(idle(900).expect("in range").domain_limits().idle_ms, 900_000);
        for seconds in [0, 59, 86_401] {
            let refused = idle(seconds).expect_err("out of range").to_string();
            assert_eq!(refused, "settings: passivate_after_s has to be from 60 to 86400");
        }
    }

    #[test]
    fn a_typing_mistake_in_the_file_is_an_error() {
        assert!(matches!(load("lissten = \"x\"", Flags::default()), Err(ConfigError::Parse(_))));
        let node = "node = \"a\"\ncluster_listen = \"127.0.0.1:1\"\ncluster_cookie = \"0123456789abcdef\"\n";
        assert!(matches!(load(node, Flags::default()), Err(ConfigError::Cluster)), "without a cql store");
        let place = load(&format!("{node}store = \"cql://a/k\""), Flags::default()).unwrap().cluster().unwrap();
        assert_eq!(place.map(|place| place.advertise).as_deref(), Some("127.0.0.1:1"));
        assert!(matches!(load("store = \"paper\"", Flags::default()), Err(ConfigError::Store(_))));
        assert!(load("redis_url = \"redis://:s3cret@127.0.0.1:6379/1\"", Flags::default()).is_ok());
        for url in ["127.0.0.1:6379", "rediss://a:s3cret@b", "redis://a:s3cret@b:x", "redis://b/x"] {
            let error = load(&format!("redis_url = \"{url}\""), Flags::default()).unwrap_err();
            assert!(matches!(error, ConfigError::Redis(_)), "{url}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
