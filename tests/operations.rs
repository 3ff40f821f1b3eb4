//! What operators rely on beside the binary, held by a test: metrics, alerts, dashboard, grace periods, documents.
//!
//! O1  The name of a metric is a constant in the `metrics.rs` of its crate, described there and used by code.
//! O2  Alerts, dashboard and documents name no metric that is not one of these; the documents name every one.
//! O3  Whatever stops a node waits longer than a drain takes.
//! O4  Links between documents lead somewhere, and commands they name exist.
//!
//! It reads files as text, like `manifests`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Sources by crate: where its `metrics.rs` lies.
const SOURCES: [&str; 4] = ["src", "actors/src", "cluster/src", "schema/src"];
/// What may end the name of a histogram in a query.
const HISTOGRAM_SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory with one of these endings.
fn files(dir: &str, endings: &[&str]) -> Vec<PathBuf> {
    let (mut pending, mut found) = (vec![root().join(dir)], Vec::new());
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|end| endings.contains(&end.to_string_lossy().as_ref())) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "nothing below {dir}");
    found
}

/// Words of a text that look like names of our metrics.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !word(c)).filter(|word| word.starts_with("agentchat_"));
    words.map(str::to_owned).collect()
}

/// The constants of one `metrics.rs`: identifier to name.
fn constants(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (before, value) = line.split_once(": &str = \"")?;
        let identifier = before.rsplit(' ').next()?;
        Some((identifier.to_owned(), value.strip_suffix("\";")?.to_owned()))
    };
    text.lines().filter(|line| line.contains("const ")).filter_map(|text| line(text.trim())).collect()
}

/// Names of all metrics.
fn exported() -> BTreeSet<String> {
    let all = SOURCES.iter().flat_map(|dir| constants(&read(format!("{dir}/metrics.rs"))).into_values());
    let found: BTreeSet<String> = all.collect();
    assert!(found.len() > 30, "the search for metrics sees nothing");
    found
}

/// How often an identifier stands in a text, as a word.
fn count(text: &str, identifier: &str) -> usize {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| *word == identifier).count()
}

#[test]
fn every_metric_is_described_and_used() {
    for dir in SOURCES {
        let metrics = read(format!("{dir}/metrics.rs"));
        let describe = metrics.split("pub fn describe()").nth(1).and_then(|rest| rest.split("\n}\n").next());
        let describe = describe.expect("a function that describes");
        let outside = metrics.replace(describe, "");
        let others: Vec<String> = files(dir, &["rs"])
            .iter()
            .filter(|path| !path.ends_with("metrics.rs"))
            .map(|path| fs::read_to_string(path).expect("a source"))
            .collect();
        for (identifier, name) in constants(&metrics) {
            assert!(count(describe, &identifier) >= 1, "O1: {dir} does not describe {name}");
            let used = count(&outside, &identifier) - 1 + others.iter().map(|o| count(o, &identifier)).sum::<usize>();
            let set_there = describe.contains(&format!("gauge!({identifier}"));
            assert!(used > 0 || set_there, "O1: {dir} never counts {name}");
        }
    }
}

#[test]
fn names_of_metrics_stand_in_one_place() {
    for dir in SOURCES {
        for path in files(dir, &["rs"]).iter().filter(|path| !path.ends_with("metrics.rs")) {
            let text = fs::read_to_string(path).expect("a source");
            for macro_name in ["counter!(", "gauge!(", "histogram!("] {
                let literal = text.split(macro_name).skip(1).any(|rest| rest.trim_start().starts_with('"'));
                assert!(!literal, "O1: {} names a metric itself; put it into {dir}/metrics.rs", path.display());
            }
        }
    }
}

#[track_caller]
fn check_named(what: &str, text: &str) -> BTreeSet<String> {
    let (exported, named) = (exported(), names(text));
    for name in &named {
        let base = HISTOGRAM_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        let known = exported.contains(name) || base.is_some_and(|base| exported.contains(base) && histogram(base));
        assert!(known, "O2: {what} names {name}, which no binary exports");
    }
    named
}

/// Histograms are what is measured in seconds: `telemetry` gives them buckets by this ending.
fn histogram(name: &str) -> bool {
    name.ends_with("_seconds")
}

#[test]
fn alerts_and_dashboard_name_what_is_exported() {
    let alerts = check_named("the alerts", &read("deploy/prometheus/alerts.yaml"));
    let shown = check_named("the dashboard", &read("deploy/grafana/agentchat.json"));
    assert!(alerts.len() > 10 && shown.len() > 30, "{} and {} names", alerts.len(), shown.len());
    // A plain name of a histogram selects nothing, and shows it by an empty panel.
    for name in alerts.union(&shown) {
        assert!(!histogram(name), "O2: {name} is a histogram; ask for its _bucket, _sum or _count");
    }
}

#[test]
fn the_documents_name_every_metric() {
    let text = read("docs/operations.md");
    let named = check_named("docs/operations.md", &text);
    let missing: Vec<_> = exported().difference(&named).cloned().collect();
    assert!(missing.is_empty(), "O2: docs/operations.md does not explain {missing:?}");
    for alert in read("deploy/prometheus/alerts.yaml").lines().filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(text.contains(alert), "O2: docs/operations.md does not say what to do at {alert}");
    }
}

/// The seconds of `const NAME: Duration = Duration::from_secs(N);`.
fn seconds(path: &str, constant: &str) -> u64 {
    let (text, start) = (read(path), format!("const {constant}: Duration = Duration::from_secs("));
    let rest = text.split(&start).nth(1).unwrap_or_else(|| panic!("{constant} in {path}"));
    rest.split(')').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{constant} in {path}"))
}

/// The number behind the first `key` of a file.
fn setting(path: &str, key: &str) -> u64 {
    let text = read(path);
    let rest = text.split(key).nth(1).unwrap_or_else(|| panic!("{key} in {path}"));
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("a number behind {key} in {path}"))
}

#[test]
fn whatever_stops_a_node_waits_for_its_drain() {
    // Shards and requests drain side by side, then sockets, then the lease is given back: a change and a look each time.
    let (requests, shards) = (seconds("src/http/serve.rs", "DRAIN"), seconds("cluster/src/member/own.rs", "DRAIN"));
    let sockets = seconds("src/node.rs", "SOCKETS_DRAIN");
    let attempts = setting("cluster/src/member/own.rs", "const LEAVE_ATTEMPTS: u32 = ");
    let lease = attempts * 2 * seconds("cluster/src/member/mod.rs", "QUESTION");
    let (alone, drain) = (requests + sockets, requests.max(shards) + sockets + lease);
    let pause = setting("deploy/kubernetes/40-nodes.yaml", "seconds: ");
    assert!(setting("deploy/kubernetes/40-nodes.yaml", "terminationGracePeriodSeconds: ") >= drain + pause + 5, "O3");
    assert!(setting("deploy/compose/compose.yaml", "stop_grace_period: ") >= drain + 5, "O3");
    assert!(setting("deploy/systemd/agentchat.service", "TimeoutStopSec=") >= drain + 5, "O3");
    assert!(setting("docs/self-hosting.md", "--stop-timeout ") >= drain + 5, "O3");
    // And all of them, and the documents, tell the same times.
    let (one, many) = (format!("up to {alone} s for one node"), format!("up to {drain} s in a cluster"));
    for file in ["docs/operations.md", "deploy/Dockerfile", "deploy/systemd/agentchat.service"] {
        assert!(
            read(file).contains(&one) && read(file).contains(&many),
            "O3: {file} does not say {one:?} and {many:?}"
        );
    }
    for file in ["deploy/compose/compose.yaml", "deploy/kubernetes/40-nodes.yaml"] {
        assert!(read(file).contains(&many), "O3: {file} does not say {many:?}");
    }
}

/// The commands of the binary, from the enum that defines them.
fn commands() -> BTreeSet<String> {
    let text = read("src/cli.rs");
    let body = text.split("enum Command {").nth(1).and_then(|rest| rest.split("\n}\n").next()).expect("the commands");
    let variants =
        body.lines().filter_map(|line| line.strip_prefix("    ").filter(|rest| rest.starts_with(char::is_uppercase)));
    let names = variants.map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default());
    let kebab = |name: &str| {
        let part = |(at, c): (usize, char)| match c.is_uppercase() && at > 0 {
            true => format!("-{}", c.to_lowercase()),
            false => c.to_lowercase().to_string(),
        };
        name.char_indices().map(part).collect::<String>()
    };
    let found: BTreeSet<String> = names.map(kebab).collect();
    assert!(found.contains("backup") && found.contains("config-reference"), "{found:?}");
    found
}

/// What stands behind `agentchat` at the head of a line or right behind a backtick.
fn commands_in(text: &str) -> BTreeSet<String> {
    let heads = text.lines().filter_map(|line| line.trim_start().strip_prefix("agentchat "));
    let quoted = text.split("`agentchat ").skip(1);
    let word =
        |rest: &str| rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap_or_default().to_owned();
    heads.chain(quoted).map(word).filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

#[test]
fn documents_name_commands_that_there_are() {
    let (known, mut seen) = (commands(), 0);
    for page in files("docs", &["md"]) {
        let text = fs::read_to_string(&page).expect("a page");
        for command in commands_in(&text) {
            assert!(known.contains(&command), "O4: {} names `agentchat {command}`", page.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "the search for commands sees nothing");
}

#[test]
fn documents_lead_somewhere() {
    let mut pages = files("docs", &["md"]);
    pages.push(root().join("README.md"));
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page");
        let dir = page.parent().expect("a folder");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with('/') {
                continue;
            }
            assert!(dir.join(path).exists(), "O4: {} links to {target}", page.display());
        }
    }
}
