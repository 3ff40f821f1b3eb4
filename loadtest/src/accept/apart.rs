//! What is measured in processes of its own: benches of parts, and runs that take long.
//!
//! P1  A bench prints its figure in one line, and the figure is the number behind the mark.
//! P2  A run of ours writes its figures as JSON, and its verdict counts.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::table::{Table, Target};
use super::{Accept, TEXT_BYTES};
use crate::error::LoadError;
use crate::report::model::Run;

/// Agents of the bench of resident ones.
const RESIDENT: &str = "1000000";
/// Sockets of one node, of nodes that together hold 96,000: a process may have 20,000 files.
const NODE_SOCKETS: (u64, u64) = (6, 16_000);

/// A cache that is full within the first minutes of a soak.
const SMALL_CACHE: &str = "store_cache_mib = 16";

/// The number that a command prints behind `mark` (P1).
async fn printed(command: &mut Command, mark: &str) -> Result<f64, LoadError> {
    let output = command.stderr(Stdio::inherit()).output().await.map_err(|error| LoadError::Io("bench", error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.split_once(mark).and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| LoadError::answer(format!("the bench did not print `{mark}` and a number: {text}")))
}

fn bench(options: &Accept, package: &str, name: &str) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(&options.sources).args(["bench", "--quiet", "-p", package, "--bench", name, "--"]);
    command
}

/// Parts that are benches: the store alone, and agents in memory. Without the sources they are left out.
pub(super) async fn parts(options: &Accept, appends: f64, table: &mut Table) -> Result<(), LoadError> {
    if !options.sources.join("Cargo.toml").is_file() {
        return Ok(());
    }
    let disk = std::path::absolute(&options.disk).map_err(|error| LoadError::Io("disk", error))?;
    let mut alone = bench(options, "schema", "alone");
    alone.arg(disk).arg(options.seconds.to_string()).arg(TEXT_BYTES.to_string());
    let rate = printed(&mut alone, "512 writers: ").await?;
    let name = "the store alone, 512 writers ÷ appends with fdatasync, one by one";
    table.put(name, (rate, "appends/s"), Some((appends, "appends/s")), Target::AtLeast(20.0));
    let bytes = printed(bench(options, "actors", "resident").arg(RESIDENT), "contacts: ").await?;
    table.put("memory of a resident idle agent, of a million", (bytes, "bytes"), None, Target::AtMost(768.0));
    Ok(())
}

/// A run of this program (P2).
async fn own(arguments: &[String], server: &Path, out: &Path) -> Result<Run, LoadError> {
    let io = |what| move |error| LoadError::Io(what, error);
    let this = std::env::current_exe().map_err(io("this program"))?;
    let mut command = Command::new(this);
    command.arg("run").args(arguments).arg("--server").arg(server).arg("--out").arg(out);
    command.stdout(Stdio::null()).status().await.map_err(io("a run of this program"))?;
    let text = std::fs::read(out).map_err(io("the run's figures"))?;
    serde_json::from_slice(&text).map_err(LoadError::answer)
}

fn figure(run: &Run, name: &str) -> Result<f64, LoadError> {
    let figures = run.scenarios.iter().flat_map(|scenario| &scenario.figures);
    let found = figures.into_iter().find(|figure| figure.name == name);
    found.map(|figure| figure.value).ok_or_else(|| LoadError::answer(format!("no figure: {name}")))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// What takes long, once: sockets of six nodes, and the memory of half an hour.
pub(super) async fn long(options: &Accept, table: &mut Table) -> Result<(), LoadError> {
    let dir = tempfile::TempDir::new_in(&options.disk).map_err(|error| LoadError::Io("directory", error))?;
    let (nodes, sockets) = NODE_SOCKETS;
    let runs = (0..nodes).map(|node| {
        let (server, out) = (options.server.clone(), dir.path().join(format!("node-{node}.json")));
        let line = format!("idle-sockets --sockets {sockets} --hold 120 --at-once 16 --probes 100");
        tokio::spawn(async move { own(&words(&line), &server, &out).await })
    });
    let mut memory = 0.0;
    for run in runs.collect::<Vec<_>>() {
        let run = run.await.map_err(LoadError::answer)??;
        memory += figure(&run, "server memory per socket")? / nodes as f64;
        table.judge(run.verdict);
    }
    let name = format!("server memory per idle socket, {} of {nodes} nodes", nodes * sockets);
    table.put(&name, (memory, "KiB"), None, Target::AtMost(10.0));
    soak(options, dir.path(), table).await
}

/// Memory of half an hour, on two servers at a time: with the settings as they are, and with a cache that is full early,
/// which shows whether anything else grows.
async fn soak(options: &Accept, dir: &Path, table: &mut Table) -> Result<(), LoadError> {
    let line = format!("soak --minutes {} --rate 200 --pairs 500", options.soak_minutes);
    let (usual, mut small) = (words(&line), words(&line));
    small.extend(["--server-setting".to_owned(), SMALL_CACHE.to_owned()]);
    let (out, out_small) = (dir.join("soak.json"), dir.join("small.json"));
    let runs = tokio::try_join!(own(&usual, &options.server, &out), own(&small, &options.server, &out_small))?;
    for (run, settings) in [(runs.0, String::new()), (runs.1, format!(", {SMALL_CACHE}"))] {
        table.judge(run.verdict);
        let name = format!("memory after {} min of churn ÷ after 5 min{settings}", options.soak_minutes);
        table.put(&name, (figure(&run, "memory at the end to early memory")?, "times"), None, Target::AtMost(1.05));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_figure_is_the_number_behind_its_mark() {
        let say = |text: &str| {
            let mut command = Command::new("echo");
            command.arg(text);
            command
        };
        assert_eq!(printed(&mut say("5 agents with 0 contacts: 662 bytes each"), "contacts: ").await.ok(), Some(662.0));
        assert!(printed(&mut say("nothing"), "contacts: ").await.is_err());
    }
}
