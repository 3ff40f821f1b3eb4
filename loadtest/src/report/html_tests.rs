//! The page of a comparison: everything is on it, once, and nothing is loaded from anywhere.

use super::*;
use crate::ledger::Verdict;
use crate::report::model::{Figure, Quantile};

fn run(label: &str, lost: u64) -> Run {
    let verdict =
        Verdict { sent: 10, acknowledged: 10, expected: 10, delivered: 10 - lost, lost, ..Verdict::default() };
    let quantiles = vec![
        Quantile { at: 0.0, ms: 0.5 },
        Quantile { at: 0.5, ms: 1.25 },
        Quantile { at: 0.99, ms: 7.5 },
        Quantile { at: 1.0, ms: 900.0 },
    ];
    let seconds = |value| Series::from([("acknowledged".to_owned(), vec![Some(value), None, Some(value)])]);
    let scenario = Scenario {
        name: "1.1 direct".to_owned(),
        options: "--rate=5".to_owned(),
        verdict,
        figures: vec![Figure::new("acknowledged", 4_321.0, "sends/s")],
        notes: vec!["a <script> is text".to_owned()],
        latencies: vec![Distribution { name: "send".to_owned(), count: 10, mean_ms: 2.0, quantiles }],
        series: seconds(5.0),
        ..Scenario::default()
    };
    let series = Series::from([
        ("memory server".to_owned(), vec![Some(100.0), Some(101.0)]),
        ("gauge agentchat_mailbox".to_owned(), vec![Some(1.0), Some(2.0)]),
    ]);
    Run { label: label.to_owned(), verdict, scenarios: vec![scenario], series, ..Run::default() }
}

#[test]
fn two_runs_side_by_side() {
    let page = page(&[run("before", 0), run("after <1>", 3)]);
    for once in [
        "<h2>1.1 direct</h2>",
        ">send: latency by quantile</figcaption>",
        ">agentchat_mailbox</figcaption>",
        "<h2>Servers",
    ] {
        assert_eq!(page.matches(once).count(), 1, "{once}");
    }
    assert!(page.contains("class=\"ok\">passed") && page.contains("class=\"bad\">FAILED"));
    assert!(page.contains("4321") && page.contains("7.50") && page.contains("after &lt;1&gt;"));
    assert!(page.contains(COLOURS[0]) && page.contains(COLOURS[1]));
    let quantiles = page
        .split("send: latency by quantile</figcaption>")
        .nth(1)
        .and_then(|rest| rest.split("</figure>").next())
        .unwrap();
    assert_eq!(quantiles.matches("<path").count(), 2, "a line per run");
}

#[test]
fn nothing_is_loaded_and_nothing_is_run() {
    let page = page(&[run("x\"><script>alert(1)</script>", 0)]);
    for foreign in ["<script", "http://", "https://", "<link", "<img", "url(", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(!page.contains("NaN"));
}

#[test]
fn a_run_survives_its_file() {
    let before = run("x", 1);
    let text = serde_json::to_string(&before).unwrap();
    let after: Run = serde_json::from_str(&text).unwrap();
    assert_eq!(page(&[before]), page(&[after]));
    let older: Run = serde_json::from_str(r#"{"label":"old","new_field":1}"#).unwrap();
    assert_eq!(older.label, "old");
}
