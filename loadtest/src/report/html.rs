//! One page: any number of runs side by side, tables and charts, nothing loaded from anywhere.
//!
//! P1  A run has one colour in all charts; where a chart has several lines of a run, the second is dashed.
//! P2  Scenarios are matched by stage and name, so runs of one plan stand beside each other.

use std::collections::BTreeSet;
use std::fmt::Write;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::model::{Distribution, Run, Scenario, Series};
use super::svg::{COLOURS, Chart, Line, Scale, escape};
use super::text::number;

/// Quantiles of the tables.
const SHOWN: [(f64, &str); 5] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max")];

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--dim:#888}
body{font:15px/1.5 system-ui,sans-serif;max-width:1360px;margin:0 auto;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .7rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th:first-child,td:first-child,.wide td:last-child,.wide th:last-child{text-align:left}
.scroll{overflow-x:auto}.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:1rem}
figure{margin:0;border:1px solid var(--line);border-radius:6px;padding:.5rem}
figcaption{font-weight:600}svg{width:100%;height:auto}svg text{font-size:14px;fill:var(--dim)}
svg .g{stroke:var(--line);stroke-width:.6}.legend{margin:.2rem 0;font-size:13px}.legend span{margin-left:.7rem}
small,.dim{color:var(--dim)}.ok{color:#3a9d5d;font-weight:700}.bad{color:#d65a4f;font-weight:700}
";

/// The page.
pub fn page(runs: &[Run]) -> String {
    let labels: Vec<&str> = runs.iter().map(|run| run.label.as_str()).collect();
    let title = format!("Load: {}", labels.join(", "));
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{0}</title><style>{STYLE}</style><h1>{0}</h1>",
        escape(&title)
    );
    overview(&mut page, runs);
    let mut names: Vec<&str> = Vec::new();
    for scenario in runs.iter().flat_map(|run| &run.scenarios) {
        if !names.contains(&scenario.name.as_str()) {
            names.push(&scenario.name);
        }
    }
    for name in names {
        let found: Vec<(usize, &str, &Scenario)> = runs
            .iter()
            .enumerate()
            .filter_map(|(n, run)| Some((n, run.label.as_str(), run.scenarios.iter().find(|s| s.name == name)?)))
            .collect();
        section(&mut page, name, &found);
    }
    servers(&mut page, runs);
    page.push_str("</html>\n");
    page
}

/// A table of rows of cells that are markup already.
fn table(page: &mut String, head: &[String], rows: &[Vec<String>]) {
    page.push_str("<div class=\"scroll\"><table><tr>");
    head.iter().for_each(|cell| page.push_str(&format!("<th>{cell}</th>")));
    page.push_str("</tr>");
    for row in rows {
        page.push_str("<tr>");
        row.iter().for_each(|cell| page.push_str(&format!("<td>{cell}</td>")));
        page.push_str("</tr>");
    }
    page.push_str("</table></div>");
}

/// When a run began.
fn date(unix: u64) -> String {
    let at = i64::try_from(unix).ok().and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// A run's name in its colour (P1).
fn named(number: usize, label: &str) -> String {
    format!("<b style=\"color:{}\">{}</b>", COLOURS[number % COLOURS.len()], escape(label))
}

fn overview(page: &mut String, runs: &[Run]) {
    let head =
        ["run", "verdict", "sent", "acknowledged", "delivered", "lost", "duplicated", "out of order", "took", "what"];
    let rows: Vec<Vec<String>> = runs
        .iter()
        .enumerate()
        .map(|(n, run)| {
            let verdict = &run.verdict;
            let word =
                if verdict.passed() { "<span class=\"ok\">passed</span>" } else { "<span class=\"bad\">FAILED</span>" };
            let delivered = format!("{} of {}", verdict.delivered, verdict.expected);
            let what = format!(
                "{}<br><small>{}; {}; seed {}; {}</small>",
                escape(&run.command),
                escape(&run.machine),
                escape(&run.urls.join(" ")),
                run.seed,
                date(run.started_unix)
            );
            vec![
                named(n, &run.label),
                word.to_owned(),
                verdict.sent.to_string(),
                verdict.acknowledged.to_string(),
                delivered,
                verdict.lost.to_string(),
                verdict.duplicated.to_string(),
                verdict.out_of_order.to_string(),
                format!("{:.0} s", run.took_s),
                what,
            ]
        })
        .collect();
    page.push_str("<div class=\"wide\">");
    table(page, &head.map(str::to_owned), &rows);
    page.push_str("</div>");
}

fn section(page: &mut String, name: &str, found: &[(usize, &str, &Scenario)]) {
    // Writing to a string does not fail.
    let _ = write!(page, "<h2>{}</h2>", escape(name));
    for (n, label, scenario) in found {
        let _ = write!(page, "<p>{} <code>{}</code> ", named(*n, label), escape(&scenario.options));
        let _ = write!(page, "<small>{}</small>", escape(&scenario.verdict.line()));
        scenario.notes.iter().for_each(|note| page.push_str(&format!("<br><small>{}</small>", escape(note))));
        page.push_str("</p>");
    }
    figures(page, found);
    latencies(page, found);
    page.push_str("<div class=\"grid\">");
    let timed: BTreeSet<&str> = distributions(found).map(|(_, _, timed)| timed.name.as_str()).collect();
    for name in &timed {
        let lines = distributions(found).filter(|(_, _, timed)| timed.name == **name);
        let lines = lines.map(|(n, label, timed)| Line {
            name: label.to_owned(),
            colour: n,
            dashed: false,
            points: timed.quantiles.iter().map(|quantile| (quantile.at, Some(quantile.ms))).collect(),
        });
        let title = format!("{name}: latency by quantile");
        let chart =
            Chart { title, x: ("quantile", Scale::Nines), y: ("ms".to_owned(), Scale::Log), lines: lines.collect() };
        page.push_str(&chart.draw());
    }
    let all =
        |series: &str| seconds(found.iter().map(|(n, label, scenario)| (*n, *label, &scenario.series)), &[series]);
    for (series, title, unit) in [
        ("acknowledged", "acknowledged", "per second"),
        ("delivered", "delivered", "per second"),
        ("done", "done", "per second"),
        ("connected", "handshakes", "per second"),
        ("sockets", "sockets up", "sockets"),
    ] {
        page.push_str(&over_time(title, unit, all(series)));
    }
    for name in timed {
        let both = [format!("{name} p50 ms"), format!("{name} p99 ms")];
        let found = found.iter().map(|(n, label, scenario)| (*n, *label, &scenario.series));
        let lines = seconds(found, &[&both[0], &both[1]]);
        page.push_str(&over_time(&format!("{name}: p50, and p99 in dashes"), "ms", lines));
    }
    page.push_str("</div>");
}

fn distributions<'a>(
    found: &'a [(usize, &'a str, &'a Scenario)],
) -> impl Iterator<Item = (usize, &'a str, &'a Distribution)> {
    found.iter().flat_map(|(n, label, scenario)| scenario.latencies.iter().map(move |timed| (*n, *label, timed)))
}

fn figures(page: &mut String, found: &[(usize, &str, &Scenario)]) {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for figure in found.iter().flat_map(|(_, _, scenario)| &scenario.figures) {
        if !names.contains(&(figure.name.as_str(), figure.unit.as_str())) {
            names.push((&figure.name, &figure.unit));
        }
    }
    if names.is_empty() {
        return;
    }
    let mut head = vec![String::new()];
    head.extend(found.iter().map(|(n, label, _)| named(*n, label)));
    head.push("unit".to_owned());
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|(name, unit)| {
            let mut row = vec![escape(name)];
            row.extend(found.iter().map(|(_, _, scenario)| {
                let figure = scenario.figures.iter().find(|figure| figure.name == *name && figure.unit == *unit);
                figure.map_or("-".to_owned(), |figure| number(figure.value))
            }));
            row.push(escape(unit));
            row
        })
        .collect();
    table(page, &head, &rows);
}

fn latencies(page: &mut String, found: &[(usize, &str, &Scenario)]) {
    let mut head = vec!["ms".to_owned(), "run".to_owned(), "count".to_owned(), "mean".to_owned()];
    head.extend(SHOWN.map(|(_, name)| name.to_owned()));
    let rows: Vec<Vec<String>> = distributions(found)
        .map(|(n, label, timed)| {
            let mut row = vec![escape(&timed.name), named(n, label), timed.count.to_string(), number(timed.mean_ms)];
            row.extend(SHOWN.map(|(at, _)| timed.at(at).map_or("-".to_owned(), number)));
            row
        })
        .collect();
    if !rows.is_empty() {
        table(page, &head, &rows);
    }
}

/// Lines of the named series, the second of them dashed (P1).
fn seconds<'a>(runs: impl Iterator<Item = (usize, &'a str, &'a Series)>, names: &[&str]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (colour, label, series) in runs {
        for (at, name) in names.iter().enumerate() {
            let Some(values) = series.get(*name) else { continue };
            let points = values.iter().enumerate().map(|(second, value)| (second as f64 + 1.0, *value)).collect();
            lines.push(Line { name: label.to_owned(), colour, dashed: at > 0, points });
        }
    }
    lines
}

fn over_time(title: &str, unit: &str, lines: Vec<Line>) -> String {
    let (x, y) = (("seconds", Scale::Even), (unit.to_owned(), Scale::Even));
    Chart { title: title.to_owned(), x, y, lines }.draw()
}

/// Memory, processor, and everything else that the servers say of themselves.
fn servers(page: &mut String, runs: &[Run]) {
    page.push_str("<h2>Servers and harness</h2><div class=\"grid\">");
    let all =
        |names: &[&str]| seconds(runs.iter().enumerate().map(|(n, run)| (n, run.label.as_str(), &run.series)), names);
    let pair = |what: &str| [format!("{what} server"), format!("{what} harness")];
    for (what, title, unit) in [("memory", "memory", "MiB"), ("cpu", "processor", "% of one core")] {
        let [server, harness] = pair(what);
        page.push_str(&over_time(&format!("{title}: server, and harness in dashes"), unit, all(&[&server, &harness])));
    }
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.series.keys()).collect();
    for (kind, unit) in [("gauge ", "value"), ("rate ", "per second")] {
        for name in names.iter().filter(|name| name.starts_with(kind)) {
            page.push_str(&over_time(&name[kind.len()..], unit, all(&[name])));
        }
    }
    page.push_str("</div>");
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
