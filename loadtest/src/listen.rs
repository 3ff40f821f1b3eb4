//! Sockets of many agents, each read and acknowledged by a task of its own.
//!
//! L1  Every message is acknowledged after it is entered into the ledger, as a client that processes before it acks.
//! L2  A socket that the server ends is opened again after a pause, as the official clients do; one that the harness ends
//!     as part of a scenario (churn) comes back as well, until the scenario is over.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::LoadError;
use crate::meter::{Count, Meter, Timing};
use crate::observe::{Observer, Shown};
use crate::socket::{Read, Socket};
use crate::target::source;
use crate::world::World;

/// Pause before a lost socket is opened again; official clients begin with half a second.
const AGAIN: Duration = Duration::from_millis(500);
/// Tries of one socket in a row.
const TRIES: u32 = 20;
/// All sockets have to be gone within this once they are told to.
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);

/// How sockets are opened and what becomes of them.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Handshakes under way together.
    pub at_once: usize,
    /// Source addresses, for servers on this machine.
    pub sources: u64,
    /// Mean time that a socket lives and that its agent is away; `None`: it stays.
    pub churn: Option<(Duration, Duration)>,
    /// Everybody wants to connect at this moment, and has this many messages waiting.
    pub storm: Option<(u64, u64)>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { at_once: 128, sources: 16, churn: None, storm: None }
    }
}

/// What all sockets of a scenario share.
struct Common {
    world: Arc<World>,
    meter: Arc<Meter>,
    manner: Manner,
    turns: Semaphore,
    opened: mpsc::Sender<Result<(), LoadError>>,
}

/// Sockets that are up, or coming back.
pub struct Listeners {
    tasks: JoinSet<Result<(), LoadError>>,
    stop: watch::Sender<bool>,
}

impl Listeners {
    /// Opens a socket for each of `agents`; returns when all of them were greeted once.
    pub async fn open(
        world: &Arc<World>,
        meter: &Arc<Meter>,
        agents: impl Iterator<Item = u64>,
        manner: Manner,
    ) -> Result<Self, LoadError> {
        let (opened, mut greeted) = mpsc::channel(1_024);
        let turns = Semaphore::new(manner.at_once.max(1));
        let common = Common { world: Arc::clone(world), meter: Arc::clone(meter), manner, turns, opened };
        let common = Arc::new(common);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (number, agent) in agents.enumerate() {
            tasks.spawn(socket(Arc::clone(&common), number as u64, agent, stopped.clone()));
        }
        drop(common);
        for _ in 0..tasks.len() {
            greeted.recv().await.unwrap_or(Err(LoadError::Answer("a socket was never greeted".to_owned())))?;
        }
        Ok(Self { tasks, stop })
    }

    /// Waits until every socket has ended by itself: it saw what it came for.
    pub async fn finished(mut self, patience: Duration) -> Result<bool, LoadError> {
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.map_err(LoadError::answer)??;
            }
            Ok(true)
        };
        timeout(patience, all).await.unwrap_or(Ok(false))
    }

    /// Closes them all.
    pub async fn close(mut self) -> Result<(), LoadError> {
        let _ = self.stop.send(true); // an error means that all have ended already
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.map_err(LoadError::answer)??;
            }
            Ok(())
        };
        timeout(CLOSE_DEADLINE, all).await.unwrap_or(Ok(())) // dropping the rest ends it
    }
}

/// Numbers of the agents in `range`, every `step`-th.
pub fn every(range: Range<u64>, step: usize) -> impl Iterator<Item = u64> {
    range.step_by(step.max(1))
}

/// How a socket ended.
enum End {
    Stopped,
    /// The harness ended it, and will come back.
    Life,
    /// The server ended it, or the network.
    Lost,
    /// It has seen what it came for.
    Sated,
}

async fn socket(
    common: Arc<Common>,
    number: u64,
    agent: u64,
    mut stop: watch::Receiver<bool>,
) -> Result<(), LoadError> {
    let mut rng = StdRng::seed_from_u64(common.world.seed ^ (agent << 20));
    let mut first = true;
    loop {
        let opened = match connect(&common, number, agent, &mut stop).await {
            Ok(None) => return Ok(()),
            Ok(Some(socket)) => Ok(socket),
            Err(error) => Err(error),
        };
        let mut socket = match opened {
            Ok(socket) => socket,
            Err(error) if first => {
                let _ = common.opened.send(Err(error)).await; // nobody waits any more: somebody failed before
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        common.meter.count(Count::Connected);
        if std::mem::take(&mut first) {
            let _ = common.opened.send(Ok(())).await;
        }
        let life = common.manner.churn.map_or(Duration::MAX, |(life, _)| stretch(&mut rng, life));
        let end = live(&common, &mut socket, agent, life, &mut stop).await;
        common.meter.count(Count::Disconnected);
        let pause = match end? {
            End::Stopped | End::Sated => {
                let _ = socket.close().await; // the server may have been faster
                return Ok(());
            }
            End::Life => {
                let _ = socket.close().await;
                common.manner.churn.map_or(AGAIN, |(_, away)| stretch(&mut rng, away))
            }
            End::Lost => stretch(&mut rng, AGAIN),
        };
        drop(socket);
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

/// Exponentially distributed around `mean`, within reason.
fn stretch(rng: &mut StdRng, mean: Duration) -> Duration {
    mean.mul_f64((-(1.0 - rng.random::<f64>()).ln()).clamp(0.05, 5.0))
}

/// Tries until it works; `None`: no longer wanted.
async fn connect(
    common: &Common,
    number: u64,
    agent: u64,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Socket>, LoadError> {
    let mut failure = None;
    for attempt in 0..TRIES {
        let turn = tokio::select! {
            turn = common.turns.acquire() => turn.map_err(LoadError::answer)?,
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
        };
        // In a storm everybody wants to connect at its beginning, whoever is let first.
        let intended = common.manner.storm.map_or_else(|| common.world.clock.now_us(), |(begun, _)| begun);
        let target = common.world.fleet.any();
        let from = target.is_loopback().then(|| source(number, common.manner.sources));
        let opened = Socket::open(&target, from, &common.world.roster.key(agent)).await;
        drop(turn);
        match opened {
            Ok(socket) => {
                common.meter.done(Timing::Hello, intended);
                return Ok(Some(socket));
            }
            Err(error @ LoadError::Usage(_)) => return Err(error),
            Err(error) => failure = Some(error),
        }
        tokio::select! {
            () = sleep(AGAIN.mul_f64(f64::from(attempt + 1).min(8.0))) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
        }
    }
    Err(failure.unwrap_or_else(|| LoadError::Answer("a socket does not open".to_owned())))
}

/// Reads and acknowledges until something ends it.
async fn live(
    common: &Common,
    socket: &mut Socket,
    agent: u64,
    life: Duration,
    stop: &mut watch::Receiver<bool>,
) -> Result<End, LoadError> {
    let mut observer = Observer::new(&common.world, agent);
    let wanted = common.manner.storm.map(|(_, wanted)| wanted);
    let end = sleep(life.min(Duration::from_secs(86_400 * 30)));
    tokio::pin!(end);
    loop {
        let read = tokio::select! {
            read = socket.read() => read,
            () = &mut end => return Ok(End::Life),
            _ = stop.wait_for(|stop| *stop) => return Ok(End::Stopped),
        };
        let mut next = Some(read);
        while let Some(read) = next.take() {
            let text = match read {
                Ok(Read::Text(text)) => text,
                Ok(Read::Closed(_)) | Err(_) => return Ok(End::Lost),
            };
            match observer.frame(&text) {
                Shown::Message(id) => {
                    if socket.ack(&id).await.is_err() {
                        return Ok(End::Lost);
                    }
                }
                Shown::Other => {}
                Shown::Garbage(what) => return Err(LoadError::Answer(what)),
            }
            next = socket.ready();
        }
        if socket.flush().await.is_err() {
            return Ok(End::Lost);
        }
        if let (Some((begun, _)), true) = (common.manner.storm, wanted.is_some_and(|wanted| observer.first() >= wanted))
        {
            common.meter.done(Timing::Drain, begun);
            return Ok(End::Sated);
        }
    }
}
