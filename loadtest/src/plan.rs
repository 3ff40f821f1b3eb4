//! A plan: scenarios in stages, in a TOML file.
//!
//! ```toml
//! [[stage]]
//! provision = { agents = 10_000 }
//!
//! [[stage]]                               # what stands in one stage runs at the same time
//! idle-sockets = { sockets = 2_000, first = 5_000 }
//! direct = [{ rate = 500, seconds = 30 }, { first = 1_000, pairs = 10, distribution = "zipf" }]
//! ```
//! Q1  An entry is a command line: the same names, the same defaults, the same complaints. `loadtest run SCENARIO --help`
//!     lists them.
//! Q2  A plan names no server: whoever runs it does, so that a file from elsewhere cannot point a load at somebody.

use clap::Parser;
use toml::{Table, Value};

use crate::error::LoadError;
use crate::scenarios::{Provision, Scenario};

/// Scenarios of a plan: far more than anybody writes, and few enough to be numbered.
const SCENARIOS_MAX: usize = 1_000;

/// A scenario with its options.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What is run.
    pub scenario: Scenario,
    /// As a command line.
    pub options: String,
}

impl Entry {
    /// Agents for a scenario on a new server.
    pub fn provision(first: u64, agents: u64) -> Self {
        let scenario = Scenario::Provision(Provision { agents, first, batch: 5_000, clients: 2 });
        Self { scenario, options: format!("--agents={agents} --first={first}") }
    }
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(subcommand)]
    scenario: Scenario,
}

/// Stages in their order.
pub fn parse(text: &str) -> Result<Vec<Vec<Entry>>, LoadError> {
    let plan: Table = text.parse().map_err(|error| LoadError::Usage(format!("plan: {error}")))?;
    if let Some(other) = plan.keys().find(|key| *key != "stage") {
        return Err(LoadError::Usage(format!("plan: `{other}` is no [[stage]]")));
    }
    let Some(Value::Array(stages)) = plan.get("stage") else {
        return Err(LoadError::Usage("plan: there is no [[stage]]".to_owned()));
    };
    let stages: Vec<Vec<Entry>> = stages.iter().map(stage).collect::<Result<_, _>>()?;
    let count: usize = stages.iter().map(Vec::len).sum();
    if count == 0 || count > SCENARIOS_MAX {
        return Err(LoadError::Usage(format!("plan: {count} scenarios; there may be 1 to {SCENARIOS_MAX}")));
    }
    Ok(stages)
}

fn stage(stage: &Value) -> Result<Vec<Entry>, LoadError> {
    let Value::Table(stage) = stage else {
        return Err(LoadError::Usage("plan: a stage is a table".to_owned()));
    };
    let mut entries = Vec::new();
    for (name, options) in stage {
        match options {
            Value::Table(options) => entries.push(entry(name, options)?),
            Value::Array(several) => {
                for options in several {
                    let Value::Table(options) = options else { return Err(no_table(name)) };
                    entries.push(entry(name, options)?);
                }
            }
            _ => return Err(no_table(name)),
        }
    }
    Ok(entries)
}

fn no_table(name: &str) -> LoadError {
    LoadError::Usage(format!("plan: the options of `{name}` are a table, like {{ seconds = 10 }}"))
}

/// One entry as the command line that it is (Q1).
fn entry(name: &str, options: &Table) -> Result<Entry, LoadError> {
    let mut line = vec![name.replace('_', "-")];
    for (key, value) in options {
        let key = format!("--{}", key.replace('_', "-"));
        match value {
            Value::Boolean(true) => line.push(key),
            Value::Boolean(false) => {}
            Value::Array(values) => {
                let values: Option<Vec<String>> = values.iter().map(plain).collect();
                line.push(format!("{key}={}", values.ok_or_else(|| no_table(name))?.join(",")));
            }
            value => line.push(format!("{key}={}", plain(value).ok_or_else(|| no_table(name))?)),
        }
    }
    let options = line[1..].join(" ");
    let parsed = Line::try_parse_from(&line).map_err(|error| LoadError::Usage(format!("plan: {name}: {error}")))?;
    Ok(Entry { scenario: parsed.scenario, options })
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, because: &str) {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn stages_and_entries() {
        let plan = "[[stage]]\nprovision = { agents = 10_000 }\n[[stage]]\nidle-sockets = { sockets = 20, hold = 0.5 }\n\
                    direct = [{ rate = 5, bytes = [80, 1000], poisson = true }, { distribution = \"zipf\" }]\n";
        let stages = parse(plan).unwrap();
        let names: Vec<Vec<&str>> =
            stages.iter().map(|stage| stage.iter().map(|entry| entry.scenario.name()).collect()).collect();
        assert_eq!(names[0], ["provision"]);
        assert_eq!(names[1].iter().filter(|name| **name == "direct").count(), 2);
        assert!(names[1].contains(&"idle-sockets"));
        let direct = stages[1].iter().find(|entry| entry.options.contains("poisson")).unwrap();
        assert_eq!(direct.options, "--bytes=80,1000 --poisson --rate=5");
        let Scenario::Provision(provision) = &stages[0][0].scenario else { panic!("not provision") };
        assert_eq!((provision.agents, provision.batch), (10_000, 5_000));
    }

    #[test]
    fn mistakes_are_named() {
        refused("", "no [[stage]]");
        refused("url = \"http://example.com\"\n[[stage]]\n", "`url` is no [[stage]]");
        refused("[[stage]]\n", "0 scenarios");
        refused("[[stage]]\ndirct = {}\n", "dirct");
        refused("[[stage]]\ndirect = { secnods = 5 }\n", "secnods");
        refused("[[stage]]\ndirect = { clients = \"many\" }\n", "many");
        refused("[[stage]]\ndirect = 5\n", "are a table");
        refused("[[stage]]\ngroup = { size = 257 }\n", "257");
    }
}
