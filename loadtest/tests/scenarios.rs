//! Every scenario against a real server, small, and its verdict; and that the verdict fails when the receiving side is made
//! to lose, repeat or swap a delivery.
//!
//! The server is the debug binary of this workspace, built here if it is not there yet.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The server binary beside the binary under test.
fn server() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let harness = Path::new(env!("CARGO_BIN_EXE_loadtest"));
        let server = harness.with_file_name("agentchat");
        if !server.exists() {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let build = Command::new(env!("CARGO")).args(["build", "--bin", "agentchat"]).current_dir(root).status();
            assert!(build.is_ok_and(|status| status.success()), "the server does not build");
        }
        assert!(server.exists(), "{} was not built", server.display());
        server
    })
}

/// Runs the harness with a server of its own, in a directory of its own.
fn loadtest(arguments: &[&str]) -> (Output, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .arg("--server")
        .arg(server())
        .arg("--disk")
        .arg(dir.path())
        .arg("--out")
        .arg(dir.path().join("run.json"))
        .arg("--html")
        .arg(dir.path().join("run.html"))
        .output()
        .unwrap();
    (output, dir)
}

/// A plan that makes agents and runs one scenario with them.
fn plan(scenario: &str, more: &[&str]) -> (Output, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plan.toml");
    std::fs::write(&file, format!("[[stage]]\nprovision = {{ agents = 80 }}\n[[stage]]\n{scenario}\n")).unwrap();
    let mut arguments = vec!["plan", file.to_str().unwrap()];
    arguments.extend(more);
    loadtest(&arguments)
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn report(dir: &TempDir) -> Value {
    serde_json::from_slice(&std::fs::read(dir.path().join("run.json")).unwrap()).unwrap()
}

/// The scenario passes, and its report holds a distribution of `timing`; what is reported of it.
#[track_caller]
fn passes(scenario: &str, timing: &str) -> Value {
    let (output, dir) = plan(scenario, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let run = report(&dir);
    let found = run["scenarios"][1].clone();
    let verdict = &found["verdict"];
    for fault in ["lost", "duplicated", "out_of_order", "astray", "unknown", "refused"] {
        assert_eq!(verdict[fault], 0, "{fault} of {found:#}");
    }
    assert!(verdict["acknowledged"].as_u64() > Some(0), "{found:#}");
    assert_eq!(verdict["delivered"], verdict["expected"]);
    let latencies = found["latencies"].as_array().unwrap();
    assert!(latencies.iter().any(|timed| timed["name"] == timing && timed["count"].as_u64() > Some(0)), "{found:#}");
    let page = std::fs::read_to_string(dir.path().join("run.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("passed") && !page.contains("<script"));
    assert!(run["series"]["memory harness"].is_array(), "{:#}", run["series"]);
    found
}

fn figure(scenario: &Value, name: &str) -> f64 {
    let figures = scenario["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.and_then(|figure| figure["value"].as_f64()).unwrap_or_else(|| panic!("no {name} in {scenario:#}"))
}

#[test]
fn activate() {
    let found = passes("activate = { agents = 20 }", "send");
    assert_eq!((&found["verdict"]["sent"], &found["verdict"]["delivered"]), (&20.into(), &20.into()));
    assert!(figure(&found, "rate") > 0.0);
}

#[test]
fn direct_in_an_open_loop() {
    let found = passes(
        "direct = { pairs = 10, rate = 40, seconds = 2, warmup = 0.5, distribution = \"zipf\", bytes = [10, 2000] }",
        "receipt",
    );
    assert_eq!(found["verdict"]["sent"], 100, "the timetable is kept whatever the server does");
    assert!(found["series"]["acknowledged"].is_array());
}

#[test]
fn direct_in_a_closed_loop_to_inboxes() {
    let found = passes("direct = { pairs = 4, clients = 4, count = 60, warmup = 0, online = 0 }", "send");
    assert_eq!(found["verdict"]["delivered"], 60);
}

#[test]
fn group_with_half_of_it_online() {
    let found =
        passes("group = { groups = 2, size = 5, rate = 20, seconds = 2, warmup = 0.5, online = 0.5 }", "receipt");
    assert_eq!(found["verdict"]["expected"].as_u64(), found["verdict"]["acknowledged"].as_u64().map(|sent| sent * 4));
}

#[test]
fn idle_sockets() {
    let found = passes("idle-sockets = { sockets = 40, hold = 0.2, probes = 10, sources = 8 }", "hello");
    assert_eq!(found["verdict"]["delivered"], 10);
    assert_eq!(figure(&found, "ended by the server while held"), 0.0);
    assert!(figure(&found, "server memory with all sockets") > 1.0);
}

#[test]
fn offline_burst() {
    let found = passes("offline-burst = { inboxes = 10, depth = 20 }", "drain");
    assert_eq!(found["verdict"]["delivered"], 200);
    assert!(figure(&found, "storm") > 0.0);
}

#[test]
fn presence_storm() {
    let found =
        passes("presence-storm = { agents = 12, watchers = 3, rate = 20, seconds = 2, warmup = 0.5 }", "presence");
    assert_eq!((&found["verdict"]["sent"], &found["verdict"]["expected"]), (&12.into(), &36.into()));
}

#[test]
fn churn() {
    let found = passes("churn = { pairs = 10, rate = 40, seconds = 3, warmup = 0.5, life = 0.4, away = 0.2 }", "hello");
    assert!(figure(&found, "handshakes") > 10.0, "sockets come back");
}

#[test]
fn soak_beside_another_scenario() {
    let found = passes(
        "soak = { pairs = 10, rate = 20, minutes = 0.1, life = 1 }\n\
         direct = { first = 40, pairs = 5, rate = 10, seconds = 2, warmup = 0.5 }",
        "receipt",
    );
    // Scenarios of a stage are sorted by name in the file's table: `direct` is the first of them.
    assert_eq!(found["name"], "2.1 direct");
}

/// The last message of a conversation, or one in the middle: whichever the n-th delivery is, the verdict notices.
#[track_caller]
fn fails(injected: &[&str], fault: &str) {
    let scenario = "direct = { pairs = 1, clients = 1, count = 40, warmup = 0 }";
    let (output, dir) = plan(scenario, injected);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("FAILED"));
    let verdict = &report(&dir)["scenarios"][1]["verdict"];
    assert_eq!(verdict[fault], 1, "{verdict:#}");
    let others = ["lost", "duplicated", "out_of_order", "astray"].into_iter().filter(|other| *other != fault);
    others.for_each(|other| assert_eq!(verdict[other], 0, "{other} of {verdict:#}"));
    assert!(std::fs::read_to_string(dir.path().join("run.html")).unwrap().contains("FAILED"));
}

#[test]
fn a_dropped_delivery_fails_the_verdict() {
    fails(&["--drop-delivery", "17"], "lost");
}

#[test]
fn a_repeated_delivery_fails_the_verdict() {
    fails(&["--repeat-delivery", "17"], "duplicated");
}

#[test]
fn swapped_deliveries_fail_the_verdict() {
    fails(&["--swap-delivery", "17"], "out_of_order");
}

#[test]
fn what_cannot_be_run_says_what_to_do() {
    let refused = |arguments: &[&str], because: &str| {
        let (output, _dir) = loadtest(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(because), "{}", text(&output));
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plan.toml");
    std::fs::write(&file, "[[stage]]\ndirect = { pairs = 2 }\n").unwrap();
    refused(&["plan", file.to_str().unwrap()], "run `provision` first");
    refused(&["run", "idle-sockets", "--sockets", "100000000"], "raise the hard limit");
    let elsewhere = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", "direct", "--url", "http://192.0.2.1"])
        .env_remove("AGENTCHAT_LOAD_KEY_SEED")
        .output()
        .unwrap();
    assert_eq!(elsewhere.status.code(), Some(2));
    assert!(text(&elsewhere).contains("secret --key-seed"), "{}", text(&elsewhere));
}

#[test]
fn one_scenario_on_a_new_server_brings_its_agents() {
    let (output, dir) = loadtest(&["run", "direct", "--pairs", "2", "--count", "10", "--warmup", "0", "--first", "7"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(report(&dir)["verdict"]["delivered"], 10);
}

#[test]
fn reports_are_compared() {
    let (output, dir) = plan("direct = { pairs = 2, clients = 2, count = 10, warmup = 0 }", &["--label", "one"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let (run, page) = (dir.path().join("run.json"), dir.path().join("both.html"));
    let compared =
        Command::new(env!("CARGO_BIN_EXE_loadtest")).arg("report").args([&run, &run]).arg("-o").arg(&page).status();
    assert!(compared.unwrap().success());
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<title>Load: one, one</title>") && page.contains("send: latency by quantile"));
}
