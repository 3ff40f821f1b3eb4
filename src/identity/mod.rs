//! Who an agent is: registration, recovery and key rotation, each proved by a code mailed to its address.
//!
//! I1  A code is mailed only after its pending is durable; a pending is consumed in the step that uses it, so neither a
//!     crash nor a store fault makes a code work twice.
//! I2  One live pending per (email, purpose, handle): a start ends the one before it. Which one that is, is known to
//!     Redis, or else in memory ([`across`]): there a code mailed before a restart, or by another node, may work beside a
//!     newer one until its ten minutes are over.
//! I3  Handle and email budget are judged again by the store in the step that creates the agent; the checks at the
//!     start only spare a mail.
//! I4  Recovery answers alike whether or not anything matched ([`recovery`]).
//! I5  What changes state runs to its end, also when the client goes away half way.

mod across;
mod codes;
pub mod email;
pub mod handles;
mod letters;
mod recent;
mod recovery;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use actors::api::Refusal;
use actors::domain::Domain;
use schema::ids::{AgentId, Key, KeyHash};
use schema::rows::{AgentRow, AgentStatus, PendingPurpose, PendingRow, Timestamp};
use schema::store::{CreateAgentError, EmailBudget, Store};
use tokio::sync::mpsc;
use tracing::{error, warn};

use self::across::Across;
use self::codes::{Codes, Turn};
pub use self::codes::{new_api_key as fresh_api_key, well_shaped as code_is_well_shaped};
use self::recovery::Job;
use crate::clock::Clock;
use crate::mail::Mailer;
use crate::shared::Shared;
use crate::wire::error::ApiError;

/// Rules in force.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Limits on one email.
    pub budget: EmailBudget,
    /// Between two codes to one (email, purpose); `None` lifts.
    pub otp_cooldown_ms: Option<u64>,
    /// Codes to one (email, purpose) in an hour; `None` lifts.
    pub otp_per_hour: Option<u32>,
    /// Handles that nobody may register, beside the published list.
    pub reserved: Vec<String>,
}

/// A wanted agent: email and handle normalised and well-formed, the handle registrable.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Where the code goes.
    pub email: String,
    /// Wanted handle.
    pub handle: String,
    /// As sent.
    pub display_name: Option<String>,
    /// As sent.
    pub description: Option<String>,
}

/// What a code is for. Purposes never mix, and each is spaced by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Register,
    Recover,
    RotateKey,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Recover => "recover",
            Self::RotateKey => "rotate-key",
        }
    }
}

/// What at most one live pending exists for (I2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Slot {
    email: String,
    purpose: Purpose,
    handle: Option<String>,
}

/// The door to all of it.
pub struct Identity {
    desk: Arc<Desk>,
    jobs: mpsc::Sender<Job>,
}

/// What requests and background jobs share.
struct Desk {
    domain: Domain,
    mailer: Mailer,
    clock: Clock,
    rules: Rules,
    codes: Codes,
    across: Across,
}

/// 16 characters that nobody has drawn before.
pub fn fresh_key() -> Key {
    Key::from_bytes(rand::random())
}

impl Identity {
    /// Starts the background jobs on the current runtime; they end when this is dropped.
    pub fn new(domain: Domain, mailer: Mailer, clock: Clock, rules: Rules, shared: Shared) -> Self {
        let desk = Arc::new(Desk {
            codes: Codes::new(Arc::clone(domain.store())),
            across: Across::new(&rules, shared),
            domain,
            mailer,
            clock,
            rules,
        });
        let jobs = recovery::start(Arc::clone(&desk));
        Self { desk, jobs }
    }

    /// Rules in force.
    pub fn rules(&self) -> &Rules {
        &self.desk.rules
    }

    /// Mails a registration code and returns the pending id. Order: handle, email budget, cooldown, mail.
    pub async fn register(&self, r: Registration) -> Result<String, ApiError> {
        let store = self.desk.store();
        if store.agent_by_handle(&r.handle).await?.is_some() {
            return Err(ApiError::HandleTaken);
        }
        self.desk.check_budget(&r.email).await?;
        let slot = Slot { email: r.email, purpose: Purpose::Register, handle: Some(r.handle.clone()) };
        let Registration { handle, display_name, description, .. } = r;
        self.start(slot, PendingPurpose::Register { handle, display_name, description }).await
    }

    /// Creates the agent and returns it with its key. The pending goes in the same step of the store.
    pub async fn verify_registration(&self, pending_id: &str, code: &str) -> Result<(AgentRow, String), ApiError> {
        let desk = Arc::clone(&self.desk);
        let (pending_id, code) = (pending_id.to_owned(), code.to_owned());
        to_the_end(async move {
            let now = desk.clock.now();
            let wanted = |purpose: &PendingPurpose| matches!(purpose, PendingPurpose::Register { .. });
            let (row, _turn) = desk.codes.check(now, &pending_id, &code, wanted).await?;
            let (row, api_key) = new_agent(now, row)?;
            let created = desk.store().create_agent(row.clone(), Some(pending_id), Some(desk.rules.budget)).await;
            created.map_err(not_created)?;
            Ok((row, api_key))
        })
        .await
    }

    /// Mails a rotation code to the address on file and returns the pending id.
    pub async fn start_rotation(&self, account: &AgentRow) -> Result<String, ApiError> {
        let handle = Some(account.handle.clone());
        let slot = Slot { email: account.email.clone(), purpose: Purpose::RotateKey, handle };
        self.start(slot, PendingPurpose::RotateKey { agent: account.id }).await
    }

    /// Replaces the caller's key and returns handle and key. A pending of another agent or kind has expired.
    pub async fn verify_rotation(
        &self,
        account: &AgentRow,
        pending_id: &str,
        code: &str,
    ) -> Result<(String, String), ApiError> {
        let (desk, agent) = (Arc::clone(&self.desk), account.id);
        let (pending_id, code) = (pending_id.to_owned(), code.to_owned());
        to_the_end(async move {
            let wanted = |purpose: &PendingPurpose| *purpose == PendingPurpose::RotateKey { agent };
            let (row, turn) = desk.codes.check(desk.clock.now(), &pending_id, &code, wanted).await?;
            desk.grant_key(row, turn, agent).await
        })
        .await
    }

    /// Mails a code while the caller waits. What fails here counts for no cooldown.
    async fn start(&self, slot: Slot, purpose: PendingPurpose) -> Result<String, ApiError> {
        let desk = Arc::clone(&self.desk);
        let now = desk.clock.now();
        self.tidy(now);
        to_the_end(async move {
            let counted = desk.across.take(now, &slot).await;
            let counted = counted.map_err(|retry_after_ms| ApiError::OtpCooldown { retry_after_ms })?;
            let mailed = desk.mail_code(now, &slot, purpose).await;
            match &mailed {
                Ok(id) => desk.replace_latest(now, slot, id).await,
                Err(_) => desk.across.give_back(&slot, counted).await,
            }
            mailed
        })
        .await
    }

    /// Has rows removed that have timed out, in the background.
    fn tidy(&self, now: Timestamp) {
        let timed_out = self.desk.codes.timed_out(now);
        if !timed_out.is_empty() {
            // A full queue leaves the rows behind: they take space, and nothing else.
            let _ = self.jobs.try_send(Job::Remove(timed_out));
        }
    }
}

impl Desk {
    fn store(&self) -> &Arc<dyn Store> {
        self.domain.store()
    }

    /// Whether an email may back one more agent.
    async fn check_budget(&self, email: &str) -> Result<(), ApiError> {
        let EmailBudget { live, lifetime } = self.rules.budget;
        let used = self.store().email(email).await?;
        // The permanent reason first, as the store does.
        if used.lifetime >= lifetime {
            return Err(ApiError::EmailExhausted { limit: lifetime });
        }
        let mut held = 0;
        for agent in used.live {
            // A crash between a deletion and the release of its slot leaves the slot taken; here it comes free.
            if self.store().agent(agent).await?.is_some_and(|row| row.status == AgentStatus::Deleted) {
                self.store().release_email(email, agent).await?;
            } else {
                held += 1;
            }
        }
        if held >= live { Err(ApiError::EmailLimitReached { limit: live }) } else { Ok(()) }
    }

    /// Stores a pending, then mails its code (I1).
    async fn mail_code(&self, now: Timestamp, slot: &Slot, purpose: PendingPurpose) -> Result<String, ApiError> {
        let code = codes::new_code();
        let id = self.codes.put(now, &slot.email, purpose, Some(&code)).await?;
        let (subject, body) = letters::letter(slot.purpose, slot.handle.as_deref(), &code);
        if let Err(error) = self.mailer.send(&slot.email, subject, &body).await {
            error!(error = &error as &dyn std::error::Error, purpose = ?slot.purpose, "no verification mail");
            self.end(&id).await;
            return Err(ApiError::OtpFailed);
        }
        Ok(id)
    }

    /// Makes `id` the one live pending of its slot (I2).
    async fn replace_latest(&self, now: Timestamp, slot: Slot, id: &str) {
        for before in self.across.replace_latest(now, slot, id).await {
            self.end(&before).await;
        }
    }

    /// Ends a pending that nobody should use any more. If the store cannot, time will.
    async fn end(&self, id: &str) {
        if let Err(error) = self.codes.end(id).await {
            warn!(%error, "a replaced code stays until it times out");
        }
    }

    /// Uses a checked pending for a new key. It is taken first, so it never works twice, and put back if the key
    /// could not be replaced, so a fault does not burn it.
    async fn grant_key(&self, row: PendingRow, turn: Turn, agent: AgentId) -> Result<(String, String), ApiError> {
        if !self.codes.take(&turn, &row.id).await? {
            return Err(ApiError::Expired);
        }
        let api_key = codes::new_api_key();
        let replaced = self.domain.replace_key(agent, KeyHash::of(&api_key)).await;
        if matches!(replaced, Err(Refusal::Unavailable | Refusal::TimedOut))
            && let Err(error) = self.codes.put_back(&turn, row).await
        {
            warn!(%error, "a fault has burnt a code");
        }
        let account = replaced?;
        // Deleted since the caller was let in: its new key is as dead as the old one.
        if account.status == AgentStatus::Deleted {
            return Err(ApiError::Expired);
        }
        Ok((account.handle.clone(), api_key))
    }
}

/// The row that a registration asks for, and the key that goes with it.
fn new_agent(now: Timestamp, pending: PendingRow) -> Result<(AgentRow, String), ApiError> {
    let PendingPurpose::Register { handle, display_name, description } = pending.purpose else {
        return Err(ApiError::Expired);
    };
    let api_key = codes::new_api_key();
    let id = AgentId(fresh_key());
    let mut row = AgentRow::new(id, handle, pending.email, KeyHash::of(&api_key), now);
    (row.display_name, row.description) = (display_name, description);
    Ok((row, api_key))
}

fn not_created(error: CreateAgentError) -> ApiError {
    match error {
        CreateAgentError::HandleTaken => ApiError::HandleTaken,
        CreateAgentError::EmailLimit { limit } => ApiError::EmailLimitReached { limit },
        CreateAgentError::EmailExhausted { limit } => ApiError::EmailExhausted { limit },
        CreateAgentError::PendingGone => ApiError::Expired,
        CreateAgentError::Store(error) => error.into(),
    }
}

/// Runs `work` to its end even if the caller is dropped (I5).
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        error!(%error, "an identity request did not end");
        Err(ApiError::Internal)
    })
}
