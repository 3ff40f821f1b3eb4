//! `provision`: agents in bulk, through the operator surface.
//!
//! P1  Agents that exist already are taken as they are if their derived key works; otherwise the run ends and says so.
//! P2  A few of them, spread over all, have to be able to say who they are.
//! P3  A batch without an answer is sent again; that it is there by then is its success.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use super::Outcome;
use crate::agents::NUMBER_MAX;
use crate::client::{Answer, Client};
use crate::error::LoadError;
use crate::meter::{Count, Meter, Timing};
use crate::sample::resident_bytes;
use crate::world::{Task, World, each, no_agents};

/// Most agents of one request; the operator surface's number.
const BATCH_MAX: u64 = 10_000;
/// Tries of one batch, and the pause between them: a slow disk may make a batch late, not the run impossible.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_secs(1);
/// Agents that are asked who they are (P2).
const CHECKED: u64 = 32;

/// Options of `provision`.
#[derive(Debug, Clone, Args)]
pub struct Provision {
    /// How many
    #[arg(long, default_value_t = 1_000)]
    pub agents: u64,
    /// Number of the first
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Agents per request
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=BATCH_MAX))]
    pub batch: u64,
    /// Requests under way together
    #[arg(long, default_value_t = 2)]
    pub clients: usize,
}

struct Batches {
    world: Arc<World>,
    meter: Arc<Meter>,
    options: Provision,
    token: String,
}

#[derive(Deserialize)]
struct Me {
    handle: String,
}

impl Provision {
    pub(super) async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        let token = world.operator_token.clone().ok_or_else(|| {
            LoadError::Usage("provision needs --operator-token, the AGENTCHAT_OPERATOR_TOKEN of the server".to_owned())
        })?;
        if self.agents == 0 || self.first.saturating_add(self.agents) > NUMBER_MAX {
            return Err(LoadError::Usage(format!("agents are numbered below {NUMBER_MAX}")));
        }
        let (begun, before) = (Instant::now(), resident_bytes(world).await);
        let batches = Batches { world: Arc::clone(world), meter: Arc::clone(meter), options: self.clone(), token };
        each(world, self.agents.div_ceil(self.batch), self.clients, batches).await?;
        let took = begun.elapsed().as_secs_f64();
        let checked = CHECKED.min(self.agents);
        let check = Check { world: Arc::clone(world), first: self.first, step: self.agents / checked };
        each(world, checked, 8, check).await?;
        let made = meter.total(Count::Done);
        let outcome = Outcome::default().figure("made", made as f64, "agents");
        let outcome = if made > 0 { outcome.figure("rate", made as f64 / took, "agents/s") } else { outcome };
        let outcome = match (before, resident_bytes(world).await) {
            (Some(before), Some(after)) if made > 0 => {
                outcome.figure("server memory per agent made", (after - before) / made as f64, "bytes")
            }
            _ => outcome,
        };
        let there = self.agents - made;
        Ok(if there > 0 { outcome.note(format!("{there} agents were there already")) } else { outcome })
    }
}

impl Task for Batches {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        let Provision { agents, first, batch, .. } = self.options;
        let (start, end) = (first + n * batch, first + ((n + 1) * batch).min(agents));
        let roster = &self.world.roster;
        let body =
            json!({"prefix": roster.prefix(), "start": start, "count": end - start, "key_seed": roster.key_seed()});
        let intended = self.world.clock.now_us();
        let (answer, repeated) = self.patient(client, &body.to_string()).await?;
        if answer.status == StatusCode::CONFLICT {
            for number in [start, end - 1] {
                who(&self.world, client, number).await?;
            }
        }
        match answer.status {
            StatusCode::CONFLICT if !repeated => Ok(()),
            StatusCode::CREATED | StatusCode::CONFLICT => {
                self.meter.done(Timing::Request, intended);
                self.meter.add(Count::Done, end - start);
                Ok(())
            }
            StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => Err(LoadError::Usage(
                "the server refuses the operator token: start it with AGENTCHAT_OPERATOR_TOKEN and name it here with \
                 --operator-token"
                    .to_owned(),
            )),
            _ => Err(no_agents(answer, "operator")),
        }
    }
}

impl Batches {
    /// The answer, and whether the request was repeated: then a conflict may be with its own first try (P3).
    async fn patient(&self, client: &mut Client, body: &str) -> Result<(Answer, bool), LoadError> {
        let mut attempt = 1;
        loop {
            match client.send(Method::POST, "/operator/agents", &self.token, body.to_owned()).await {
                Ok(answer) if !answer.status.is_server_error() || attempt == TRIES => return Ok((answer, attempt > 1)),
                Err(error) if attempt == TRIES => return Err(error),
                Ok(_) | Err(_) => attempt += 1,
            }
            sleep(AGAIN).await;
        }
    }
}

struct Check {
    world: Arc<World>,
    first: u64,
    step: u64,
}

impl Task for Check {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        who(&self.world, client, self.first + n * self.step).await
    }
}

/// Asks an agent who it is.
async fn who(world: &World, client: &mut Client, number: u64) -> Result<(), LoadError> {
    let answer = world.ask(client, Method::GET, "/v1/agents/me", number, "").await?;
    let me: Me = answer.read()?;
    if me.handle == world.roster.handle(number) {
        return Ok(());
    }
    Err(LoadError::Answer(format!("the key of {} belongs to {}", world.roster.handle(number), me.handle)))
}
