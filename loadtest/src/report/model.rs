//! A run as JSON: written by one, read by any number of comparisons.
//!
//! J1  Unknown fields are ignored and new ones have defaults, so runs of other versions can still be compared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ledger::Verdict;

/// One run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// What it is called in comparisons.
    pub label: String,
    /// When it began, in seconds since 1970.
    pub started_unix: u64,
    /// How long it took.
    pub took_s: f64,
    /// The command line, without secrets.
    pub command: String,
    /// The machine of the harness.
    pub machine: String,
    /// Which servers.
    pub urls: Vec<String>,
    /// Decides every random choice.
    pub seed: u64,
    /// What all scenarios come to.
    pub verdict: Verdict,
    /// One by one.
    pub scenarios: Vec<Scenario>,
    /// Second by second: servers, and the harness itself.
    pub series: Series,
}

/// Values per second by name; `None` where nothing was known.
pub type Series = BTreeMap<String, Vec<Option<f64>>>;

/// One scenario of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Scenario {
    /// Stage and name; the same in runs of the same plan.
    pub name: String,
    /// Its options, as a command line.
    pub options: String,
    /// When it began, in seconds since the run did.
    pub from_s: f64,
    /// How long it took.
    pub took_s: f64,
    /// What it comes to.
    pub verdict: Verdict,
    /// Single numbers.
    pub figures: Vec<Figure>,
    /// What a reader has to know.
    pub notes: Vec<String>,
    /// Latencies.
    pub latencies: Vec<Distribution>,
    /// Second by second, from its beginning.
    pub series: Series,
}

/// A number with its unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
}

impl Figure {
    /// From its parts.
    pub fn new(name: &str, value: f64, unit: &str) -> Self {
        Self { name: name.to_owned(), value, unit: unit.to_owned() }
    }
}

/// Latencies of one kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Distribution {
    /// What was timed.
    pub name: String,
    /// How often.
    pub count: u64,
    /// On average.
    pub mean_ms: f64,
    /// In ascending order, from 0 to 1.
    pub quantiles: Vec<Quantile>,
}

impl Distribution {
    /// The value at a quantile that the report keeps.
    pub fn at(&self, at: f64) -> Option<f64> {
        self.quantiles.iter().find(|quantile| (quantile.at - at).abs() < 1e-9).map(|quantile| quantile.ms)
    }
}

/// A point of a distribution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    /// Share of what was timed.
    pub at: f64,
    /// That took at most this.
    pub ms: f64,
}
