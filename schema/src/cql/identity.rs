//! What has to be unique, by lightweight transactions: handles, email budgets, pending codes.
//!
//! ```text
//!   handles    claimed_at   v is    creation          who asks for the handle finds
//!     claim    time         ours    -                 nobody; after CLAIM another may claim it
//!     confirm  -            ours    the account       us, for good; writes the account if it is not there yet
//! ```
//! I1  A transaction that failed may have happened: it is asked again in a form that recognises its own effect.
//! I2  A creation claims the handle, takes the code, charges the email, confirms the claim, then writes the agent's
//!     rows; a refusal gives back what was taken, in the opposite order. A crash before the confirmation costs at most
//!     one registration of the email's budget; the claim is free again after [`CLAIM`].
//! I3  Nothing that the account needs is written before its claim is confirmed, and a confirmed claim is never taken
//!     over: an owner that was slow finds its claim gone before it has written anything.
//! I4  The confirmation is the commit: it carries the account, and whoever asks for the handle after a crash finishes
//!     what was begun. All of that is written at the time of creations, so doing it twice, or late, changes nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{join_all, try_join_all};
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

use super::OpenError;
use super::layout::Place;
use super::log::Tables;
use super::pipeline::Pipeline;
use super::session::Cql;
use crate::ids::AgentId;
use crate::kv::keys::Table;
use crate::kv::local::{changed, charge};
use crate::kv::{EmailChange, KvOp, keys};
use crate::rows::{AgentRow, EmailRow, PendingRow};
use crate::store::{CreateAgentError, EmailBudget, StoreError};

/// A claimed handle that is not confirmed by then is free again. Clocks of two nodes are compared here: one that is
/// ahead takes a claim over early, which costs its owner a refusal, and nothing else (I3).
const CLAIM: Duration = Duration::from_secs(60);
/// How long a confirmed handle carries its account (I4). Whoever registers again after a crash does so within minutes;
/// and it is far below `gc_grace_seconds`, so what is written again never outlives the mark of its removal.
const CREATION_S: i32 = 24 * 60 * 60;
/// Attempts of one transaction.
const ATTEMPTS: u32 = 12;
/// First pause between them; it doubles up to 32 times this.
const PAUSE: Duration = Duration::from_millis(10);
/// Claims of a bulk creation that are under way together.
const CLAIMS: usize = 64;

/// Statements of the three tables.
pub(super) struct Identity {
    cql: Arc<Cql>,
    pipeline: Arc<Pipeline<Tables>>,
    claim: PreparedStatement,
    claim_stale: PreparedStatement,
    confirm: PreparedStatement,
    unclaim: PreparedStatement,
    claimed: PreparedStatement,
    resolve: PreparedStatement,
    first_email: PreparedStatement,
    next_email: PreparedStatement,
    first_pending: PreparedStatement,
    next_pending: PreparedStatement,
    same_pending: PreparedStatement,
    take_pending: PreparedStatement,
    taken_pending: PreparedStatement,
    remove_pending: PreparedStatement,
    read_email: PreparedStatement,
}

/// A compare-and-set that did not go through: it was raced, or nobody knows.
enum Again {
    Raced,
    Unknown(StoreError),
}

async fn pause(attempt: u32) {
    let jitter = rand::random_range(0.5..1.5);
    tokio::time::sleep((PAUSE * (1 << attempt.min(5))).mul_f64(jitter)).await;
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn value(row: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec(row).map_err(|e| StoreError::Corrupt(format!("row does not encode: {e}")))
}

impl Identity {
    pub(super) async fn new(cql: Arc<Cql>, pipeline: Arc<Pipeline<Tables>>) -> Result<Self, OpenError> {
        const ROW: &str = "p=? AND b=? AND c=?";
        let insert = |table| format!("INSERT INTO {table} (p, b, c, v) VALUES (?, ?, ?, ?) IF NOT EXISTS");
        // Sees a transaction that is under way, or ends it.
        let serial = async |columns, table| {
            let mut statement = cql.statement(&format!("SELECT {columns} FROM {table} WHERE {ROW}")).await?;
            statement.set_consistency(Consistency::LocalSerial);
            Ok::<_, OpenError>(statement)
        };
        let claim = "INSERT INTO handles (p, b, c, v, claimed_at) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS";
        let claim_stale = format!("UPDATE handles SET v=?, claimed_at=? WHERE {ROW} IF v=? AND claimed_at=?");
        let confirm =
            format!("UPDATE handles USING TTL {CREATION_S} SET claimed_at=null, creation=? WHERE {ROW} IF v=?");
        Ok(Self {
            claim: cql.conditional(claim).await?,
            claim_stale: cql.conditional(&claim_stale).await?,
            confirm: cql.conditional(&confirm).await?,
            unclaim: cql.conditional(&format!("DELETE FROM handles WHERE {ROW} IF v=?")).await?,
            claimed: serial("v, claimed_at", "handles").await?,
            resolve: cql.statement(&format!("SELECT v, claimed_at, creation FROM handles WHERE {ROW}")).await?,
            first_email: cql.conditional(&insert("emails")).await?,
            next_email: cql.conditional(&format!("UPDATE emails SET v=? WHERE {ROW} IF v=?")).await?,
            first_pending: cql.conditional(&insert("pendings")).await?,
            next_pending: cql
                .conditional(&format!("UPDATE pendings SET v=?, taker=null WHERE {ROW} IF EXISTS"))
                .await?,
            same_pending: cql
                .conditional(&format!("UPDATE pendings SET v=? WHERE {ROW} IF v=? AND taker=null"))
                .await?,
            take_pending: cql
                .conditional(&format!("UPDATE pendings SET taker=? WHERE {ROW} IF v!=null AND taker=null"))
                .await?,
            taken_pending: serial("v, taker", "pendings").await?,
            remove_pending: cql.conditional(&format!("DELETE FROM pendings WHERE {ROW} IF EXISTS")).await?,
            read_email: serial("v", "emails").await?,
            cql,
            pipeline,
        })
    }

    /// Repeats `attempt` while it is raced or its outcome is unknown (I1).
    async fn settle<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Again>>,
    {
        let mut last = StoreError::Timeout;
        for n in 0..ATTEMPTS {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(Again::Unknown(StoreError::Corrupt(what))) => return Err(StoreError::Corrupt(what)),
                Err(Again::Unknown(error)) => last = error,
                Err(Again::Raced) => {}
            }
            pause(n).await;
        }
        Err(last)
    }

    async fn claim(&self, handle: &str, agent: AgentId) -> Result<bool, StoreError> {
        let (key, mine) = (keys::handle(handle), value(&agent)?);
        let at = Place::of(&key)?;
        let (p, b, c) = (&at.partition.key, at.partition.bucket, &at.place);
        self.settle(async || {
            let now = now_ms();
            if self.cql.decide(&self.claim, (p, b, c, &mine, now)).await.map_err(Again::Unknown)? {
                return Ok(true);
            }
            let row = self.cql.first::<(Option<Vec<u8>>, Option<i64>)>(&self.claimed, (p, b, c)).await;
            let Some((Some(owner), since)) = row.map_err(Again::Unknown)? else { return Err(Again::Raced) };
            if owner == mine {
                return Ok(true);
            }
            let Some(since) = since else { return Ok(false) };
            if now.saturating_sub(since) < i64::try_from(CLAIM.as_millis()).unwrap_or(i64::MAX) {
                return Ok(false);
            }
            let values = (&mine, now, p, b, c, &owner, since);
            let taken = self.cql.decide(&self.claim_stale, values).await.map_err(Again::Unknown)?;
            if taken { Ok(true) } else { Err(Again::Raced) }
        })
        .await
    }

    /// Makes a claim final (I3); `false`: it was not ours any more. An attempt whose outcome is unknown is asked again:
    /// it is refused only if the handle has another owner, which it cannot have after an attempt that went through.
    async fn confirm(&self, row: &AgentRow) -> Result<bool, StoreError> {
        let (at, mine, creation) = (Place::of(&keys::handle(&row.handle))?, value(&row.id)?, value(row)?);
        let values = (&creation, &at.partition.key, at.partition.bucket, &at.place, &mine);
        self.settle(async || self.cql.decide(&self.confirm, values).await.map_err(Again::Unknown)).await
    }

    /// The value of a handle that is confirmed, after its account was seen or written (I4).
    pub(super) async fn resolve(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let at = Place::of(key)?;
        let values = (&at.partition.key, at.partition.bucket, &at.place);
        let row = self.cql.first::<(Option<Vec<u8>>, Option<i64>, Option<Vec<u8>>)>(&self.resolve, values).await?;
        let Some((Some(owner), None, creation)) = row else { return Ok(None) };
        let Some(creation) = creation else { return Ok(Some(owner)) };
        let row: AgentRow = keys::decode(key, &creation)?;
        let account = Place::of(&keys::agent(row.id))?;
        if self.cql.get(&account.partition, &account.place).await?.is_none() {
            self.write(vec![row]).await?;
        }
        Ok(Some(owner))
    }

    /// Writes the rows of confirmed accounts. The accounts themselves come last: who finds one needs to write nothing.
    async fn write(&self, rows: Vec<AgentRow>) -> Result<(), StoreError> {
        let mut ops: Vec<KvOp> = Vec::with_capacity(3 * rows.len());
        for row in rows {
            keys::put_agent(&row, &mut ops)?;
        }
        let (accounts, beside) = ops.into_iter().partition(|op| Table::of(op.key()) == Some(Table::Agent));
        self.pipeline.write_first(beside).await?;
        self.pipeline.write_first(accounts).await
    }

    async fn unclaim(&self, handle: &str, agent: AgentId) -> Result<(), StoreError> {
        let (at, mine) = (Place::of(&keys::handle(handle))?, value(&agent)?);
        let values = (&at.partition.key, at.partition.bucket, &at.place, &mine);
        // Not applied means that it is not ours any more, which is as good.
        self.settle(async || self.cql.decide(&self.unclaim, values).await.map(drop).map_err(Again::Unknown)).await
    }

    async fn email(&self, at: &Place) -> Result<Option<Vec<u8>>, StoreError> {
        let values = (&at.partition.key, at.partition.bucket, &at.place);
        // A row of a transaction that was undone may be there with nothing in it.
        Ok(self.cql.first::<(Option<Vec<u8>>,)>(&self.read_email, values).await?.and_then(|(value,)| value))
    }

    /// Changes an email's row by compare-and-set; `change` sees the row as it is and says what it becomes.
    async fn change_row<T>(
        &self,
        email: &str,
        change: impl Fn(EmailRow) -> Result<Option<EmailRow>, T>,
    ) -> Result<Result<(), T>, StoreError> {
        let key = keys::email(email);
        let at = Place::of(&key)?;
        let (p, b, c) = (&at.partition.key, at.partition.bucket, &at.place);
        self.settle(async || {
            let before = self.email(&at).await.map_err(Again::Unknown)?;
            let row = before.as_deref().map(|before| keys::decode::<EmailRow>(&key, before)).transpose();
            let after = match change(row.map_err(Again::Unknown)?.unwrap_or_default()) {
                Ok(Some(after)) => value(&after).map_err(Again::Unknown)?,
                Ok(None) => return Ok(Ok(())),
                Err(refused) => return Ok(Err(refused)),
            };
            let applied = match &before {
                Some(before) => self.cql.decide(&self.next_email, (&after, p, b, c, before)).await,
                None => self.cql.decide(&self.first_email, (p, b, c, &after)).await,
            };
            if applied.map_err(Again::Unknown)? { Ok(Ok(())) } else { Err(Again::Raced) }
        })
        .await
    }

    pub(super) async fn change_email(&self, email: &str, change: EmailChange) -> Result<(), StoreError> {
        let outcome = self.change_row::<std::convert::Infallible>(email, |row| {
            let after = changed(row.clone(), change);
            Ok((after != row).then_some(after))
        });
        outcome.await.map(|outcome| outcome.unwrap_or(()))
    }

    async fn charge(&self, row: &AgentRow, budget: EmailBudget) -> Result<(), CreateAgentError> {
        let outcome = self.change_row(&row.email, |mut email| {
            // Ours already: an attempt before went through (I1).
            if email.live.contains(&row.id) {
                return Ok(None);
            }
            charge(&mut email, row.id, budget).map(|()| Some(email))
        });
        outcome.await?
    }

    /// Undoes a charge. Repeating it changes nothing.
    async fn refund(&self, row: &AgentRow) -> Result<(), StoreError> {
        let outcome = self.change_row::<std::convert::Infallible>(&row.email, |mut email| {
            let Some(ours) = email.live.iter().position(|live| *live == row.id) else { return Ok(None) };
            email.live.remove(ours);
            email.lifetime = email.lifetime.saturating_sub(1);
            Ok(Some(email))
        });
        outcome.await.map(|outcome| outcome.unwrap_or(()))
    }

    pub(super) async fn put_pending(&self, row: PendingRow) -> Result<(), StoreError> {
        let (at, row) = (Place::of(&keys::pending(&row.id))?, value(&row)?);
        let (p, b, c) = (&at.partition.key, at.partition.bucket, &at.place);
        self.settle(async || {
            if self.cql.decide(&self.first_pending, (p, b, c, &row)).await.map_err(Again::Unknown)? {
                return Ok(());
            }
            let replaced = self.cql.decide(&self.next_pending, (&row, p, b, c)).await.map_err(Again::Unknown)?;
            if replaced { Ok(()) } else { Err(Again::Raced) }
        })
        .await
    }

    /// An unknown outcome stays one: two nodes that count one wrong code each make the same row of it.
    pub(super) async fn replace_pending(&self, before: &PendingRow, after: &PendingRow) -> Result<bool, StoreError> {
        let at = Place::of(&keys::pending(&before.id))?;
        let values = (value(after)?, &at.partition.key, at.partition.bucket, &at.place, value(before)?);
        self.cql.decide(&self.same_pending, values).await
    }

    /// The row stays until it is swept, with the name of the attempt that has it: so the winner knows itself (I1).
    pub(super) async fn take_pending(&self, id: &str) -> Result<bool, StoreError> {
        let at = Place::of(&keys::pending(id))?;
        let (taker, p, b, c) = (rand::random::<[u8; 16]>(), &at.partition.key, at.partition.bucket, &at.place);
        self.settle(async || {
            let taken = self.cql.decide(&self.take_pending, (taker.as_slice(), p, b, c)).await;
            if taken.map_err(Again::Unknown)? {
                return Ok(true);
            }
            let (_, has) = self.code(&at).await.map_err(Again::Unknown)?;
            Ok(has.is_some_and(|has| has == taker))
        })
        .await
    }

    /// Removes a code that is of no use any more, whether it was taken or not.
    pub(super) async fn remove_pending(&self, id: &str) -> Result<bool, StoreError> {
        let at = Place::of(&keys::pending(id))?;
        self.cql.decide(&self.remove_pending, (&at.partition.key, at.partition.bucket, &at.place)).await
    }

    /// The row of a code, and who has taken it.
    async fn code(&self, at: &Place) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>), StoreError> {
        let values = (&at.partition.key, at.partition.bucket, &at.place);
        Ok(self.cql.first(&self.taken_pending, values).await?.unwrap_or_default())
    }

    /// The value of a code that nobody has taken.
    pub(super) async fn untaken(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let (row, taker) = self.code(&Place::of(key)?).await?;
        Ok(row.filter(|_| taker.is_none()))
    }

    pub(super) async fn create_agent(
        &self,
        row: AgentRow,
        pending: Option<String>,
        budget: Option<EmailBudget>,
    ) -> Result<(), CreateAgentError> {
        let code = match &pending {
            Some(id) => Some(self.pending_row(id).await?.ok_or(CreateAgentError::PendingGone)?),
            None => None,
        };
        if !self.claim(&row.handle, row.id).await? {
            return Err(CreateAgentError::HandleTaken);
        }
        if let Err(refused) = self.pay(&row, code.clone(), budget).await {
            self.unclaim(&row.handle, row.id).await?;
            return Err(refused);
        }
        if !self.confirm(&row).await? {
            if budget.is_some() {
                self.refund(&row).await?;
            }
            if let Some(code) = code {
                self.put_pending(code).await?;
            }
            return Err(CreateAgentError::HandleTaken);
        }
        Ok(self.write(vec![row]).await?)
    }

    async fn pending_row(&self, id: &str) -> Result<Option<PendingRow>, StoreError> {
        let key = keys::pending(id);
        let found = self.untaken(&key).await?;
        found.map(|found| keys::decode(&key, &found)).transpose()
    }

    /// Takes the code and charges the email; a refusal by the email gives the code back.
    async fn pay(
        &self,
        row: &AgentRow,
        code: Option<PendingRow>,
        budget: Option<EmailBudget>,
    ) -> Result<(), CreateAgentError> {
        if let Some(code) = &code
            && !self.take_pending(&code.id).await?
        {
            return Err(CreateAgentError::PendingGone);
        }
        let Some(budget) = budget else { return Ok(()) };
        let charged = self.charge(row, budget).await;
        if let (Err(_), Some(code)) = (&charged, code) {
            self.put_pending(code).await?;
        }
        charged
    }

    pub(super) async fn create_agents(&self, rows: Vec<AgentRow>) -> Result<(), CreateAgentError> {
        // A later confirmation that is refused gives those before it back: nobody was told of them yet.
        let all = self.claim_all(&rows).await? && self.confirm_all(&rows).await?;
        if !all {
            for some in rows.chunks(CLAIMS) {
                let given: Vec<_> = some.iter().map(|row| self.unclaim(&row.handle, row.id)).collect();
                try_join_all(given).await?;
            }
            return Err(CreateAgentError::HandleTaken);
        }
        Ok(self.write(rows).await?)
    }

    /// Whether each handle is claimed; the rest is not tried once one is taken.
    async fn claim_all(&self, rows: &[AgentRow]) -> Result<bool, StoreError> {
        for some in rows.chunks(CLAIMS) {
            let claims: Vec<_> = some.iter().map(|row| self.claim(&row.handle, row.id)).collect();
            let claimed: Vec<bool> = join_all(claims).await.into_iter().collect::<Result<_, _>>()?;
            if claimed.contains(&false) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn confirm_all(&self, rows: &[AgentRow]) -> Result<bool, StoreError> {
        for some in rows.chunks(CLAIMS) {
            let confirmed: Vec<_> = some.iter().map(|row| self.confirm(row)).collect();
            let confirmed: Vec<bool> = join_all(confirmed).await.into_iter().collect::<Result<_, _>>()?;
            if confirmed.contains(&false) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
