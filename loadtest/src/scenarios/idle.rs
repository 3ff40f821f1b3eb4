//! `idle-sockets`: many sockets held at the same time, and what each costs the server.
//!
//! I1  Held sockets have to be alive: at the end some of them are written to, and what is sent has to arrive.
//! I2  A process has a limit of open files, and so has the server's: it is raised as far as it may be, and explained beyond.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::sleep;

use super::Outcome;
use crate::client::Client;
use crate::drive::span;
use crate::error::LoadError;
use crate::ledger::{Audience, Lane};
use crate::listen::{Listeners, Manner, every};
use crate::meter::{Count, Meter, Timing};
use crate::sample::resident_bytes;
use crate::settle;
use crate::target::SOURCES_MAX;
use crate::world::{Outgoing, Task, World, each};

/// Files of a process besides its sockets, with room.
const OTHER_FILES: u64 = 200;
/// Connections that write to held sockets.
const PROBERS: usize = 16;
/// Memory is read this long after the last handshake: buffers of handshakes are gone by then.
const REST: Duration = Duration::from_secs(1);

/// Options of `idle-sockets`.
#[derive(Debug, Clone, Args)]
pub struct IdleSockets {
    /// How many, one for each agent
    #[arg(long, default_value_t = 1_000)]
    pub sockets: u64,
    /// Number of the first agent
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Handshakes under way together
    #[arg(long, default_value_t = 64)]
    pub at_once: usize,
    /// Source addresses in 127.0.0.0/8, for servers on this machine: 28,000 sockets need more than one
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=SOURCES_MAX))]
    pub sources: u64,
    /// Seconds that they are held
    #[arg(long, default_value_t = 5.0)]
    pub hold: f64,
    /// Sockets that are written to at the end
    #[arg(long, default_value_t = 100)]
    pub probes: u64,
}

/// Raises the limit of open files so that `files` more fit, or explains (I2).
pub fn room_for(files: u64) -> Result<(), LoadError> {
    let limit = |error: nix::errno::Errno| LoadError::Io("limit of open files", error.into());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(limit)?;
    let needed = files.saturating_add(OTHER_FILES);
    if needed <= soft {
        return Ok(());
    }
    if needed > hard {
        return Err(LoadError::Usage(format!(
            "{files} sockets need {needed} open files, and this process may have {hard}: raise the hard limit \
             (`ulimit -Hn`, or LimitNOFILE of its unit), or run several processes, each with its own --first and at most \
             {} sockets; the server's process needs as many",
            hard.saturating_sub(OTHER_FILES)
        )));
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(limit)
}

impl IdleSockets {
    pub(super) async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        if self.sockets == 0 {
            return Err(LoadError::Usage("sockets has to be more than 0".to_owned()));
        }
        let hold = span("hold", self.hold)?;
        room_for(self.sockets)?;
        let lane = world.ledger.open(Audience::Direct, meter);
        let before = resident_bytes(world).await;
        let begun = Instant::now();
        let manner = Manner { at_once: self.at_once, sources: self.sources, ..Manner::default() };
        let agents = every(self.first..self.first + self.sockets, 1);
        let listeners = Listeners::open(world, meter, agents, manner).await?;
        let rate = self.sockets as f64 / begun.elapsed().as_secs_f64();
        sleep(REST).await;
        let after = resident_bytes(world).await;
        sleep(hold).await;
        let lost = meter.total(Count::Disconnected);
        self.probe(world, &lane).await?;
        settle::wait(&lane).await;
        listeners.close().await?;
        let outcome = Outcome::of(&lane)
            .figure("handshakes a second", rate, "sockets/s")
            .figure("handshake p99", meter.quantile_ms(Timing::Hello, 0.99), "ms")
            .figure("ended by the server while held", lost as f64, "sockets");
        Ok(match (before, after) {
            (Some(before), Some(after)) => outcome
                .figure("server memory per socket", (after - before) / self.sockets as f64 / 1_024.0, "KiB")
                .figure("server memory with all sockets", after / 1_048_576.0, "MiB"),
            _ => outcome.note("memory of the server is unknown: name its process with --server-pid"),
        })
    }

    /// Neighbours write to each other (I1).
    async fn probe(&self, world: &Arc<World>, lane: &Arc<Lane>) -> Result<(), LoadError> {
        let count = self.probes.min(self.sockets / 2);
        if count == 0 {
            return Ok(());
        }
        let step = self.sockets / 2 / count;
        let probe = Probe { world: Arc::clone(world), lane: Arc::clone(lane), first: self.first, step };
        each(world, count, PROBERS, probe).await
    }
}

struct Probe {
    world: Arc<World>,
    lane: Arc<Lane>,
    first: u64,
    step: u64,
}

impl Task for Probe {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        let sender = self.first + 2 * n * self.step;
        let to = sender + 1;
        self.world.establish(client, sender, to).await?;
        let target = format!(r#""to":"{}""#, self.world.roster.handle(to));
        let intended_us = self.world.clock.now_us();
        let message = Outgoing { sender, target, to, text: "still there?", intended_us };
        self.world.send(&self.lane, client, message).await?;
        Ok(())
    }
}
