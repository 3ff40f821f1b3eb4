//! Recovery of lost keys, without telling anybody which addresses and handles belong together.
//!
//! V1  A request reads nothing about accounts before it is answered: it stores a decoy, and a background job gives the
//!     decoy a code and mails it if an agent matches. Body and time of the answer cannot depend on the match.
//! V2  Cooldown and replacement count alike for addresses that match and those that do not. Inside the cooldown the
//!     answer is a decoy of its own, and the code mailed before keeps working under its own id.
//! V3  The queue of jobs is bounded: above it no mail goes out, which the answer hides like every other outcome.

use std::sync::Arc;

use schema::ids::AgentId;
use schema::rows::{AgentRow, AgentStatus, PendingPurpose};
use schema::store::StoreError;
use tokio::sync::{Semaphore, mpsc};
use tracing::{error, warn};

use super::{Desk, Identity, Purpose, Slot, codes, letters, to_the_end};
use crate::wire::error::ApiError;

/// Jobs that wait.
const JOBS_QUEUED: usize = 1_024;
/// Jobs that run side by side: a slow mail server delays that many mails, not all of them.
const JOBS_AT_ONCE: usize = 8;

/// What happens after the answer.
#[derive(Debug)]
pub(super) enum Job {
    /// Look for a match of what was asked, and mail a code if there is one.
    Recover { pending_id: String, slot: Slot },
    /// Remove pendings that have timed out.
    Remove(Vec<String>),
}

/// Whom a recovery means.
enum Match {
    Nobody,
    One(AgentRow),
    Several,
}

/// Runs jobs until all senders are gone.
pub(super) fn start(desk: Arc<Desk>) -> mpsc::Sender<Job> {
    let (sender, mut jobs) = mpsc::channel(JOBS_QUEUED);
    tokio::spawn(async move {
        let at_once = Arc::new(Semaphore::new(JOBS_AT_ONCE));
        while let Some(job) = jobs.recv().await {
            let Ok(permit) = Arc::clone(&at_once).acquire_owned().await else { return };
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                desk.run(job).await;
                drop(permit);
            });
        }
    });
    sender
}

impl Identity {
    /// Answers with a pending id, whatever the outcome (V1). `email` and `handle` are normalised.
    pub async fn recover(&self, email: &str, handle: Option<&str>) -> Result<String, ApiError> {
        let (desk, jobs) = (Arc::clone(&self.desk), self.jobs.clone());
        let now = desk.clock.now();
        self.tidy(now);
        let slot = Slot { email: email.to_owned(), purpose: Purpose::Recover, handle: handle.map(str::to_owned) };
        to_the_end(async move {
            let counted = desk.across.take(now, &slot).await.ok();
            let decoy = PendingPurpose::Recover { agent: None, decoy: true };
            let stored = desk.codes.put(now, &slot.email, decoy, None).await;
            match (&stored, counted) {
                (Ok(id), Some(_)) => {
                    desk.replace_latest(now, slot.clone(), id).await;
                    if jobs.try_send(Job::Recover { pending_id: id.clone(), slot }).is_err() {
                        warn!("too many recoveries wait: one goes without its mail");
                    }
                }
                (Err(_), Some(counted)) => desk.across.give_back(&slot, counted).await,
                (_, None) => {}
            }
            Ok(stored?)
        })
        .await
    }

    /// Replaces the key of the agent that the code was for and returns handle and key.
    pub async fn verify_recovery(&self, pending_id: &str, code: &str) -> Result<(String, String), ApiError> {
        let desk = Arc::clone(&self.desk);
        let (pending_id, code) = (pending_id.to_owned(), code.to_owned());
        to_the_end(async move {
            let wanted = |purpose: &PendingPurpose| matches!(purpose, PendingPurpose::Recover { .. });
            let (row, turn) = desk.codes.check(desk.clock.now(), &pending_id, &code, wanted).await?;
            let PendingPurpose::Recover { agent, .. } = row.purpose else { return Err(ApiError::Expired) };
            let live = match agent {
                Some(agent) => desk.live(&[agent]).await?,
                None => desk.live(&desk.store().email(&row.email).await?.live).await?,
            };
            match live.as_slice() {
                [one] => desk.grant_key(row, turn, one.id).await,
                rest => {
                    let used = desk.codes.take(&turn, &row.id).await?;
                    // Nobody is left: all were deleted after the mail went out.
                    if rest.is_empty() || !used {
                        return Err(ApiError::Expired);
                    }
                    Err(ApiError::HandleRequired { handles: rest.iter().map(|agent| agent.handle.clone()).collect() })
                }
            }
        })
        .await
    }
}

impl Desk {
    async fn run(&self, job: Job) {
        match job {
            Job::Recover { pending_id, slot } => {
                if let Err(error) = self.answer_recovery(&pending_id, &slot).await {
                    error!(%error, "a recovery stays without its mail");
                }
            }
            Job::Remove(timed_out) => {
                for id in timed_out {
                    self.end(&id).await;
                }
            }
        }
    }

    /// Arms the decoy and mails its code, if anybody is meant.
    async fn answer_recovery(&self, pending_id: &str, slot: &Slot) -> Result<(), StoreError> {
        let (agent, handle) = match self.recovery_match(slot).await? {
            Match::Nobody => return Ok(()),
            Match::One(row) => (Some(row.id), Some(row.handle)),
            Match::Several => (None, None),
        };
        let code = codes::new_code();
        if !self.codes.arm(pending_id, PendingPurpose::Recover { agent, decoy: false }, &code).await? {
            return Ok(()); // a later recovery has replaced it
        }
        let (subject, body) = letters::letter(Purpose::Recover, handle.as_deref(), &code);
        if let Err(error) = self.mailer.send(&slot.email, subject, &body).await {
            error!(error = &error as &dyn std::error::Error, purpose = ?slot.purpose, "no verification mail");
        }
        Ok(())
    }

    async fn recovery_match(&self, slot: &Slot) -> Result<Match, StoreError> {
        if let Some(handle) = &slot.handle {
            // By the account, not by the email's list: agents made by an operator are in no list.
            let Some(agent) = self.store().agent_by_handle(handle).await? else { return Ok(Match::Nobody) };
            let named = self.live(&[agent]).await?.pop().filter(|row| row.email == slot.email);
            return Ok(named.map_or(Match::Nobody, Match::One));
        }
        let mut live = self.live(&self.store().email(&slot.email).await?.live).await?;
        Ok(match live.len() {
            0 | 1 => live.pop().map_or(Match::Nobody, Match::One),
            _ => Match::Several,
        })
    }

    /// Those of `agents` that are not deleted, in order.
    async fn live(&self, agents: &[AgentId]) -> Result<Vec<AgentRow>, StoreError> {
        let mut live = Vec::new();
        for agent in agents {
            let row = self.store().agent(*agent).await?;
            live.extend(row.filter(|row| row.status != AgentStatus::Deleted));
        }
        Ok(live)
    }
}
