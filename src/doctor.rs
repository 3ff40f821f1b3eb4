//! `agentchat doctor`: what keeps this machine from serving, and what to do about it.
//!
//! D1  It looks and changes nothing: no store is opened, no schema applied; what it writes to try a place it removes.
//! D2  Every check is one line, `ok`, `warn` or `fail`, and the latter two say what to do next.
//! D3  The exit code is 1 when something failed; a warning is for people.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schema::embedded::{Presence, free_bytes, probe};
use tokio::net::TcpListener;

use crate::cli::told;
use crate::config::{Config, LimitSet};
use crate::dashboard::is_for_this_machine;
use crate::mail::Mailer;
use crate::metrics::open_files_max;
use crate::node::store_directory;
use crate::objects::Objects;
use crate::shared;

/// A place that does not answer within this does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Below this every socket counts: a thousand agents and the store's own files.
const FILES_FEW: u64 = 65_536;
/// Below this the process may fail to start at all.
const FILES_TOO_FEW: u64 = 512;
/// Free room on the disk of the data directory: below the first the store soon refuses, below the second it does now.
const DISK_LITTLE: u64 = 5 << 30;
const DISK_TOO_LITTLE: u64 = 1 << 30;
/// Between our clock and that of the cluster.
const CLOCKS_APART: Duration = Duration::from_secs(1);
/// A clock before this was never set: 2025-01-01.
const CLOCK_EARLIEST_S: u64 = 1_735_689_600;
/// Shortest token that nobody guesses.
const TOKEN_MIN: usize = 16;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    what: &'static str,
    found: String,
    /// Empty when all is well.
    next: String,
}

fn ok(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { level: Level::Ok, what, found: found.into(), next: String::new() }
}

fn warn(what: &'static str, found: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { level: Level::Warn, what, found: found.into(), next: next.into() }
}

fn fail(what: &'static str, found: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { level: Level::Fail, what, found: found.into(), next: next.into() }
}

/// Checks everything and prints a line each; `true` when nothing failed.
pub async fn run(config: &Config) -> bool {
    let mut findings = settings(config);
    findings.push(address("address", config.listen, Some(config)).await);
    if let Some(listen) = config.cluster_listen {
        findings.push(address("cluster port", listen, None).await);
    }
    findings.push(data_directory(&config.data_dir));
    findings.extend(store(config).await);
    findings.extend(redis(config).await);
    findings.push(mail(config).await);
    findings.push(objects(config).await);
    findings.push(clock());
    findings.push(files(open_files_max()));
    for Finding { level, what, found, next } in &findings {
        let level = match level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        println!("{level:<5} {what:<14} {found}");
        if !next.is_empty() {
            println!("{:<5} {:<14} next: {next}", "", "");
        }
    }
    let count = |wanted| findings.iter().filter(|finding| finding.level == wanted).count();
    println!("{} ok, {} to look at, {} failed", count(Level::Ok), count(Level::Warn), count(Level::Fail));
    count(Level::Fail) == 0
}

/// What parses may still be unwise.
fn settings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![ok("settings", format!("read; public address {}", config.public_url()))];
    findings.extend(public_url(config));
    if config.limits == LimitSet::Open {
        findings.push(warn(
            "limits",
            "none: every rate limit and cooldown is lifted",
            "unset AGENTCHAT_LIMITS to serve",
        ));
    }
    match &config.operator_token {
        Some(token) if token.len() < TOKEN_MIN => findings.push(warn(
            "operator",
            format!("the token has {} characters", token.len()),
            "make one with: openssl rand -hex 32",
        )),
        Some(_) => findings.push(ok("operator", "/operator and `agentchat admin` are open to whoever has the token")),
        None => findings.push(ok("operator", "off: there is no operator token")),
    }
    findings
}

/// What is wrong with the address that clients are told, if anything is.
fn public_url(config: &Config) -> Option<Finding> {
    const SET: &str = "set AGENTCHAT_PUBLIC_URL to what clients type, such as https://chat.example.com";
    let base = config.public_url();
    let others_connect = !config.listen.ip().is_loopback();
    match url::Url::parse(&base) {
        Err(error) => Some(fail("public url", format!("{base:?} is no URL: {error}"), SET)),
        Ok(_) if others_connect && config.has_default_url() && is_for_this_machine(&base) => Some(warn(
            "public url",
            format!("not set, although other machines can connect: links in answers lead to {base}, which is this one"),
            SET,
        )),
        Ok(url) if url.scheme() == "http" && !is_for_this_machine(&base) => Some(warn(
            "public url",
            "plain HTTP: keys and messages travel unencrypted, and browsers keep no sign-in to the dashboard",
            "put a proxy with TLS in front (docs/self-hosting.md), and https:// into AGENTCHAT_PUBLIC_URL",
        )),
        Ok(_) => None,
    }
}

/// Says the same in the log, for whoever starts a server without asking first.
pub fn log_public_url(config: &Config) {
    if let Some(Finding { found, next, .. }) = public_url(config) {
        tracing::warn!("public url: {found}; {next}");
    }
}

/// Free, or ours already.
async fn address(what: &'static str, listen: SocketAddr, http: Option<&Config>) -> Finding {
    match TcpListener::bind(listen).await {
        Ok(_) => ok(what, format!("{listen} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => match http {
            Some(config) if healthy(config).await => ok(what, format!("a node serves at {listen}")),
            Some(_) => fail(
                what,
                format!("{listen} is in use, and not by a node that answers"),
                format!("find out by whom with: ss -ltnp 'sport = :{}'; or choose another --listen", listen.port()),
            ),
            None => ok(what, format!("{listen} is in use, as it is while a node runs")),
        },
        Err(error) => fail(what, format!("{listen}: {error}"), "choose an address of this machine with --listen"),
    }
}

/// `GET` of a path of the node on this machine.
async fn answers(config: &Config, path: &str) -> Result<reqwest::Response, reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    client.get(format!("{}{path}", config.local_url())).send().await
}

async fn healthy(config: &Config) -> bool {
    answers(config, "/healthz").await.is_ok_and(|answer| answer.status().is_success())
}

/// Whether the node of these settings is ready; an error says why not. What `agentchat ready` prints.
pub async fn ready(config: &Config) -> Result<(), String> {
    let unreachable = |error: reqwest::Error| format!("no node answers at {}: {}", config.local_url(), told(&error));
    let answer = answers(config, "/readyz").await.map_err(unreachable)?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(answer.text().await.map_err(unreachable)?)
}

/// It may be missing, if it can be made.
fn data_directory(dir: &Path) -> Finding {
    let shown = dir.display();
    let existing = dir.ancestors().find(|dir| dir.exists() || dir.as_os_str().is_empty()).unwrap_or(dir);
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let tried = existing.join(format!(".agentchat-doctor-{}", std::process::id()));
    if let Err(error) = std::fs::write(&tried, b"").and_then(|()| std::fs::remove_file(&tried)) {
        let next = format!("give it to the user that runs agentchat: chown -R agentchat {shown}");
        return fail("data", format!("{shown} cannot be written: {error}"), next);
    }
    let Ok(free) = free_bytes(existing) else { return ok("data", format!("{shown} can be written")) };
    let found = format!("{shown} can be written, {} MiB are free", free >> 20);
    if free < DISK_TOO_LITTLE {
        fail("data", found, "make room: when the disk is full every send is refused")
    } else if free < DISK_LITTLE {
        warn("data", found, "make room soon: when the disk is full every send is refused")
    } else {
        ok("data", found)
    }
}

async fn store(config: &Config) -> Vec<Finding> {
    let options = match config.cql() {
        Ok(None) => return vec![embedded(config).await],
        Ok(Some(options)) => schema::cql::CqlOptions { patience: PATIENCE, ..options },
        Err(error) => return vec![fail("store", told(&error), "write cql://HOST:PORT[,HOST:PORT]/KEYSPACE")],
    };
    let nodes = options.nodes.join(", ");
    let probe = match schema::cql::probe(&options).await {
        Ok(probe) => probe,
        Err(error) => {
            let next = "check the addresses, the port (9042), user and password, and that the cluster is up";
            return vec![fail("store", told(&error), next)];
        }
    };
    let kind = if probe.scylla { "ScyllaDB" } else { "Cassandra" };
    let mut findings = vec![match (probe.version, probe.wanted) {
        (Some(found), wanted) if found == wanted => ok("store", format!("{kind} at {nodes}, schema version {found}")),
        (Some(found), wanted) if found > wanted => fail(
            "store",
            format!("{kind} at {nodes} has schema version {found}, this binary knows {wanted}"),
            "run a newer agentchat",
        ),
        (found, wanted) => fail(
            "store",
            format!("{kind} at {nodes} has schema version {}, this binary needs {wanted}", found.unwrap_or(0)),
            "run: agentchat migrate --store … (with the same address)",
        ),
    }];
    if probe.tablets {
        let next = "fine with ScyllaDB 2025.4 or newer; older ones need a keyspace with tablets = {'enabled': false}";
        findings.push(warn("tablets", "the keyspace has tablets", next));
    }
    let apart = probe.clock_difference;
    if apart > CLOCKS_APART {
        let found = format!("{:.1} s from the clock of the cluster", apart.as_secs_f64());
        findings.push(warn("clocks", found, "run NTP (chrony, systemd-timesyncd) on all machines"));
    }
    findings
}

async fn embedded(config: &Config) -> Finding {
    let dir = store_directory(config);
    let shown = dir.display();
    match probe(&dir) {
        Ok(Presence::Absent) => ok("store", format!("none yet in {shown}; the first start makes it")),
        Ok(Presence::Idle(bytes)) => ok("store", format!("{shown}, {} MiB, in use by nobody", bytes >> 20)),
        Ok(Presence::InUse) if healthy(config).await => ok("store", format!("{shown}, in use by the node that serves")),
        Ok(Presence::InUse) => warn(
            "store",
            format!("{shown} is in use by another process, and no node answers at {}", config.listen),
            format!("find it with: fuser -v {shown}/LOCK; one process at a time has a directory"),
        ),
        Err(error) => fail(
            "store",
            format!("{shown}: {error}"),
            format!("give it to the user that runs agentchat: chown -R agentchat {shown}"),
        ),
    }
}

/// Only where one is set; the address may hold a password, so it is not shown.
async fn redis(config: &Config) -> Option<Finding> {
    let url = config.redis_url.as_ref()?;
    let next = "check AGENTCHAT_REDIS_URL; without it requests pass, and limits hold for each node alone";
    Some(match tokio::time::timeout(PATIENCE, shared::reach(url)).await {
        Ok(Ok(())) => ok("redis", "it answers"),
        Ok(Err(error)) => fail("redis", told(&error), next),
        Err(_) => fail("redis", "it does not answer", next),
    })
}

async fn mail(config: &Config) -> Finding {
    let Some(url) = &config.smtp_url else {
        let outbox = config.data_dir.join("outbox");
        let found = format!("no SMTP server: codes go to files in {}", outbox.display());
        return warn("mail", found, "set AGENTCHAT_SMTP_URL, or nobody but you can register");
    };
    // The address may hold a password, so it is not shown.
    let mailer = match Mailer::smtp(url, &config.mail_from) {
        Ok(mailer) => mailer,
        Err(error) => {
            let next = "write smtp://HOST:PORT, or smtps://USER:PASSWORD@HOST, and an address in AGENTCHAT_MAIL_FROM";
            return fail("mail", told(&error), next);
        }
    };
    match tokio::time::timeout(PATIENCE, mailer.probe()).await {
        Ok(Ok(())) => ok("mail", format!("the SMTP server answers; mails are from {}", config.mail_from)),
        Ok(Err(error)) => fail("mail", told(&error), "check host, port, user and password in AGENTCHAT_SMTP_URL"),
        Err(_) => fail("mail", "the SMTP server does not answer", "check host and port in AGENTCHAT_SMTP_URL"),
    }
}

async fn objects(config: &Config) -> Finding {
    if config.objects == "file" {
        let dir = config.data_dir.join("objects");
        let found = format!("attachments and avatars are files in {}", dir.display());
        return if config.node.is_some() {
            warn("objects", found, "every node of the cluster has to have the same directory there; or use s3://")
        } else {
            ok("objects", found)
        };
    }
    let next = "check AGENTCHAT_OBJECTS: s3://BUCKET?endpoint=…&region=…, and the credentials (AWS_ACCESS_KEY_ID, …)";
    match tokio::time::timeout(PATIENCE, Objects::probe(&config.objects)).await {
        Ok(Ok(())) => ok("objects", "the bucket takes, gives and removes an object"),
        Ok(Err(error)) => fail("objects", told(&error), next),
        Err(_) => fail("objects", "the endpoint does not answer", next),
    }
}

fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now < CLOCK_EARLIEST_S {
        return fail("clock", "it was never set", "run NTP (chrony, systemd-timesyncd)");
    }
    ok("clock", "set; codes and signed links live by it, ownership of data does not")
}

fn files(most: Option<u64>) -> Finding {
    let next = "raise it: LimitNOFILE in the unit, ulimits in compose, or ulimit -n";
    match most {
        None => warn("files", "this system does not say how many may be open", "every socket is one: see to the limit"),
        Some(u64::MAX) => ok("files", "as many as there are"),
        Some(most) if most < FILES_TOO_FEW => fail("files", format!("only {most} may be open"), next),
        Some(most) if most < FILES_FEW => warn("files", format!("{most} may be open, and every socket is one"), next),
        Some(most) => ok("files", format!("{most} may be open; every socket is one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    fn config(lines: &str) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agentchat.toml");
        std::fs::write(&file, format!("data_dir = {:?}\n{lines}", dir.path().join("data"))).unwrap();
        let mut flags = Flags::default();
        flags.config = Some(file);
        let config = Config::load(&flags).unwrap();
        (dir, config)
    }

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn unwise_settings_are_named() {
        let levels = |lines: &str| settings(&config(lines).1).iter().map(|f| (f.what, f.level)).collect::<Vec<_>>();
        let read = ("settings", Level::Ok);
        let off = ("operator", Level::Ok);
        assert_eq!(levels(""), [read, off]);
        for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.7:1"] {
            assert_eq!(levels(&format!("listen = {listen:?}")), [read, ("public url", Level::Warn), off], "{listen}");
        }
        assert_eq!(levels("listen = \"0.0.0.0:1\"\npublic_url = \"http://localhost:1\""), [read, off]);
        assert_eq!(levels("public_url = \"http://chat.example.com\""), [read, ("public url", Level::Warn), off]);
        assert_eq!(levels("public_url = \"https://chat.example.com\""), [read, off]);
        assert_eq!(levels("public_url = \"nonsense\""), [read, ("public url", Level::Fail), off]);
        assert_eq!(levels("limits = \"open\""), [read, ("limits", Level::Warn), off]);
        assert_eq!(levels("operator_token = \"short\""), [read, ("operator", Level::Warn)]);
    }

    #[tokio::test]
    async fn a_taken_address_is_told_from_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = taken.local_addr().unwrap();
        assert_eq!(address("cluster port", listen, None).await.level, Level::Ok, "a node may be running");
        drop(taken);
        assert_eq!(address("address", listen, None).await.found, format!("{listen} is free"));
        let foreign = "192.0.2.1:1".parse().unwrap();
        assert_eq!(address("address", foreign, None).await.level, Level::Fail);
    }

    #[tokio::test]
    async fn looking_changes_nothing() {
        let (dir, config) = config("");
        assert_eq!(embedded(&config).await.level, Level::Ok);
        assert_ne!(data_directory(&config.data_dir).level, Level::Fail);
        assert!(!config.data_dir.exists(), "D1");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the settings alone");
    }

    #[tokio::test]
    async fn what_does_not_answer_fails_and_says_what_to_do() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap(); // nobody listens any more
        let (_dir, config) = config(&format!(
            "smtp_url = \"smtp://{free}\"\nobjects = \"s3://b?endpoint=http://{free}&region=r&access_key_id=a\
             &secret_access_key=s\"\nredis_url = \"redis://{free}\"\nstore = \"cql://{free}/k\"\nlisten = \"{free}\"\n"
        ));
        let redis = redis(&config).await.unwrap();
        let findings = [mail(&config).await, objects(&config).await, store(&config).await.remove(0), redis];
        for finding in findings {
            assert_eq!(finding.level, Level::Fail, "{finding:?}");
            assert!(!finding.next.is_empty(), "D2");
        }
        assert!(ready(&config).await.is_err_and(|why| why.contains("no node answers")));
    }

    #[test]
    fn too_few_files_are_named() {
        let levels = [None, Some(100), Some(1_024), Some(1 << 20)].map(|most| files(most).level);
        assert_eq!(levels, [Level::Warn, Level::Fail, Level::Warn, Level::Ok]);
    }
}
