//! A run on the terminal.

use std::fmt::Write;

use super::model::{Distribution, Run, Scenario};

/// Everything worth a line.
pub fn whole(run: &Run) -> String {
    let mut text = String::new();
    for scenario in &run.scenarios {
        one(&mut text, scenario);
    }
    // Writing to a string does not fail.
    let _ = writeln!(text, "verdict {}", run.verdict.line());
    text
}

fn one(text: &mut String, scenario: &Scenario) {
    let _ = writeln!(text, "{} ({:.1} s) {}", scenario.name, scenario.took_s, scenario.options);
    for figure in &scenario.figures {
        let _ = writeln!(text, "  {:<36} {:>12} {}", figure.name, number(figure.value), figure.unit);
    }
    for timed in &scenario.latencies {
        let _ = writeln!(text, "  {:<10} {}", timed.name, latencies(timed));
    }
    for note in &scenario.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    let _ = writeln!(text, "  {}", scenario.verdict.line());
}

fn latencies(timed: &Distribution) -> String {
    let at = |quantile| timed.at(quantile).map_or("-".to_owned(), number);
    format!(
        "p50 {} p90 {} p99 {} p99.9 {} max {} ms, {} times",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        timed.count
    )
}

/// As many digits as somebody reads.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
