//! One connection to the cluster, its statements, and what their errors mean.
//!
//! ```text
//!   statements                  consistency   serial        idempotent  driver repeats   speculated    an error means
//!   rows, entries: written      LOCAL_QUORUM  -             yes         on another node  after 250 ms  perhaps written A
//!   rows, entries, all leases,  LOCAL_QUORUM  -             yes         on another node  after 250 ms  nothing B
//!     all shards: read
//!   one name, email, code,      LOCAL_SERIAL  -             yes         no               after 250 ms  nothing B
//!     lease, group: read
//!   names, emails, codes: LWT   LOCAL_QUORUM  LOCAL_SERIAL  no          no               no            perhaps done C
//!   leases: LWT                 LOCAL_QUORUM  LOCAL_SERIAL  said to be  no               after 1 s     perhaps done D
//!   shards: LWT, one batch      LOCAL_QUORUM  LOCAL_SERIAL  no          no               no            perhaps done E
//!   definitions, schema lock    LOCAL_QUORUM  LOCAL_SERIAL  no          if not done      no            perhaps done F
//!
//!   A  The pipeline repeats it until it is written or the epoch is over; rows of no shard and of a creation four times,
//!      and then the caller hears of it and may submit the same again (W4).
//!   B  The caller hears of it and answers 503; what compares and sets reads again first.
//!   C  It is asked again in a form that recognises its own effect (I1). The count of wrong codes cannot be: there the
//!      caller hears that nobody knows.
//!   D  The row is read before the next renewal, also after a refusal.  E  The group is read.
//!   F  Definitions can be repeated, and are, five times; the lock ends by itself.
//! ```
//! Q1  Reads and writes are LOCAL_QUORUM, so a read that starts after a write was answered sees it.
//! Q2  Every plain statement is absolute and carries its timestamp, so it may be sent again, also speculatively; a
//!     conditional one is never repeated by the driver. The driver tells the last of several errors: `Unavailable`
//!     about a plain write may follow an attempt that was applied, and is treated as `Timeout` is.
//! Q3  Leases are speculated nevertheless: a node that is stuck would cost one its lease, and with it all its shards,
//!     before it is given up. They compare the whole row, so of two attempts one is applied, and the other finds the
//!     row changed; a refusal may therefore be our own doing, and whoever asked reads the row then. Nothing else that
//!     is conditional is speculated: it can wait, and a second proposer makes both slower.
//! Q4  At most [`IN_FLIGHT`] statements about rows, logs and names are under way; one that finds no place in time is
//!     refused unsent. Leases, shards, sweeps (one page at a time) and definitions are few, and wait for nobody.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::response::query_result::QueryResult;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::layout::{Home, Partition};
use super::{CqlOptions, OpenError};
use crate::kv::{Direction, Pairs};
use crate::store::StoreError;

/// A node that does not answer within this is left.
const CONNECT: Duration = Duration::from_secs(3);
/// One request, all its attempts included.
const REQUEST: Duration = Duration::from_secs(6);
/// What is idempotent and takes longer is also sent to another node, once.
const SPECULATE: Duration = Duration::from_millis(250);
/// A lease that is not renewed by then is asked for by another node as well.
const SPECULATE_LEASE: Duration = Duration::from_millis(1_000);
/// Statements about rows, logs and names that a node has under way. At 5 ms each that makes 200,000 a second, more than
/// a node needs: beyond it a slow ring would be given a longer queue, and answer nothing sooner.
const IN_FLIGHT: usize = 1_024;
/// How long a statement waits for its turn before it is refused: half of [`REQUEST`], so that whoever is refused hears
/// of it before it would have heard of a timeout.
const TURN: Duration = Duration::from_secs(3);
/// Rows that one answer of the cluster holds at most; more come in pages.
const ROWS_PER_PAGE: i32 = 1_000;

/// Statements of one table.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) put: PreparedStatement,
    pub(super) remove: PreparedStatement,
    get: PreparedStatement,
    up: PreparedStatement,
    down: PreparedStatement,
}

/// What bounds the statements under way (Q4). First come, first served.
pub(super) struct Turns(Semaphore);

impl Turns {
    /// A turn, which ends when it is dropped; `Unavailable` if none comes within [`TURN`]: nothing was sent then.
    pub(super) async fn take(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        if let Ok(Ok(turn)) = tokio::time::timeout(TURN, self.0.acquire()).await {
            return Ok(turn);
        }
        metrics::counter!(crate::metrics::CQL_REFUSALS).increment(1);
        Err(StoreError::Unavailable(format!("{IN_FLIGHT} statements are under way already")))
    }
}

/// The driver's session and everything prepared on it.
pub(super) struct Cql {
    pub(super) session: Session,
    pub(super) turns: Turns,
    homes: Vec<Statements>,
}

/// What went wrong, in the store's words. A write whose outcome is unknown is `Timeout`.
pub(super) fn failed(error: &ExecutionError) -> StoreError {
    match error {
        ExecutionError::RequestTimeout(_) => StoreError::Timeout,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Unavailable { .. }, _))
        | ExecutionError::EmptyPlan
        | ExecutionError::ConnectionPoolError(_) => StoreError::Unavailable(error.to_string()),
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, reason)) => {
            StoreError::Corrupt(format!("the cluster refuses a statement: {reason}"))
        }
        _ => StoreError::Timeout,
    }
}

/// A row of an answer does not have the shape that was asked for.
pub(super) fn misshapen(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("an answer of the cluster: {error}"))
}

fn profile(speculate: Duration) -> ExecutionProfile {
    ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(REQUEST))
        .retry_policy(Arc::new(DefaultRetryPolicy::new()))
        .speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
            max_retry_count: 1,
            retry_interval: speculate,
        })))
        .build()
}

/// Connects without choosing a keyspace.
pub(super) async fn connect(options: &CqlOptions) -> Result<Session, OpenError> {
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.nodes)
        .connection_timeout(CONNECT)
        .keepalive_interval(Duration::from_secs(2))
        .keepalive_timeout(CONNECT)
        .tcp_nodelay(true)
        .hostname_resolution_timeout(Some(CONNECT))
        .cluster_metadata_refresh_interval(Duration::from_secs(20))
        .default_execution_profile_handle(profile(SPECULATE).into_handle());
    if let Some((user, password)) = &options.credentials {
        builder = builder.user(user, password);
    }
    let connected = tokio::time::timeout(options.patience, builder.build()).await;
    let unreachable = |reason: String| OpenError::Unreachable { nodes: options.nodes.join(","), reason };
    match connected {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no answer within {} s", options.patience.as_secs()))),
    }
}

impl Cql {
    /// Prepares everything in the keyspace, which has to be there.
    pub(super) async fn prepare(session: Session, keyspace: &str) -> Result<Self, OpenError> {
        session.use_keyspace(keyspace, true).await.map_err(|error| OpenError::Schema(error.to_string()))?;
        let cql = Self { session, turns: Turns(Semaphore::new(IN_FLIGHT)), homes: Vec::new() };
        let mut homes = Vec::with_capacity(Home::ALL.len());
        for home in Home::ALL {
            let name = home.name();
            let range = |order| {
                format!("SELECT c, v FROM {name} WHERE p=? AND b=? AND c>=? AND c<=? ORDER BY c {order} LIMIT ?")
            };
            homes.push(Statements {
                put: cql
                    .statement(&format!("INSERT INTO {name} (p, b, c, v) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"))
                    .await?,
                remove: cql
                    .statement(&format!("DELETE FROM {name} USING TIMESTAMP ? WHERE p=? AND b=? AND c=?"))
                    .await?,
                get: cql.statement(&format!("SELECT v FROM {name} WHERE p=? AND b=? AND c=?")).await?,
                up: cql.statement(&range("ASC")).await?,
                down: cql.statement(&range("DESC")).await?,
            });
        }
        Ok(Self { homes, ..cql })
    }

    /// An absolute statement (Q2).
    pub(super) async fn statement(&self, text: &str) -> Result<PreparedStatement, OpenError> {
        let prepared = self.session.prepare(text).await;
        let mut prepared = prepared.map_err(|error| OpenError::Schema(format!("{text}: {error}")))?;
        prepared.set_is_idempotent(true);
        prepared.set_page_size(ROWS_PER_PAGE);
        Ok(prepared)
    }

    /// A conditional statement (Q2).
    pub(super) async fn conditional(&self, text: &str) -> Result<PreparedStatement, OpenError> {
        let mut prepared = self.statement(text).await?;
        prepared.set_is_idempotent(false);
        prepared.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        Ok(prepared)
    }

    /// A conditional statement about a lease (Q3).
    pub(super) async fn urgent(&self, text: &str) -> Result<PreparedStatement, OpenError> {
        let mut prepared = self.conditional(text).await?;
        prepared.set_is_idempotent(true);
        prepared.set_execution_profile_handle(Some(profile(SPECULATE_LEASE).into_handle()));
        Ok(prepared)
    }

    /// Statements of a table.
    pub(super) fn home(&self, home: Home) -> &Statements {
        &self.homes[home as usize]
    }

    /// Runs a statement in its turn.
    pub(super) async fn run(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryResult, StoreError> {
        let _turn = self.turns.take().await?;
        self.session.execute_unpaged(statement, values).await.map_err(|e| failed(&e))
    }

    /// The first row that a statement finds.
    pub(super) async fn first<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Option<R>, StoreError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let rows = self.run(statement, values).await?.into_rows_result().map_err(misshapen)?;
        rows.maybe_first_row().map_err(misshapen)
    }

    /// Value of one row.
    pub(super) async fn get(&self, at: &Partition, place: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.first::<(Vec<u8>,)>(&self.home(at.home).get, (&at.key, at.bucket, place)).await?;
        Ok(found.map(|(value,)| value))
    }

    /// Rows of one partition, appended to `found`.
    pub(super) async fn range(
        &self,
        at: &Partition,
        (from, through): (&[u8], &[u8]),
        limit: usize,
        direction: Direction,
        found: &mut Pairs,
    ) -> Result<(), StoreError> {
        let statements = self.home(at.home);
        let statement = match direction {
            Direction::Up => &statements.up,
            Direction::Down => &statements.down,
        };
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let mut page = scylla::response::PagingState::start();
        loop {
            let values = (&at.key, at.bucket, from, through, limit);
            let turn = self.turns.take().await?;
            let answer = self.session.execute_single_page(statement, values, page).await;
            let (answer, next) = answer.map_err(|e| failed(&e))?;
            drop(turn);
            let rows = answer.into_rows_result().map_err(misshapen)?;
            for row in rows.rows::<(Vec<u8>, Vec<u8>)>().map_err(misshapen)? {
                found.push(row.map_err(misshapen)?);
            }
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Break(()) => return Ok(()),
                std::ops::ControlFlow::Continue(next) => page = next,
            }
        }
    }

    /// Runs a conditional statement; whether it was applied. An error leaves that open.
    pub(super) async fn decide(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<bool, StoreError> {
        verdict(self.run(statement, values).await?)
    }

    /// The same about a lease or a shard, which waits for nobody: there are few, and the node depends on them.
    pub(super) async fn decide_now(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<bool, StoreError> {
        verdict(self.session.execute_unpaged(statement, values).await.map_err(|e| failed(&e))?)
    }
}

/// Values of a statement in a batch that has two kinds of statements.
pub(super) enum Either<A, B> {
    One(A),
    Other(B),
}

impl<A: SerializeRow, B: SerializeRow> SerializeRow for Either<A, B> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Self::One(values) => values.serialize(context, writer),
            Self::Other(values) => values.serialize(context, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Whether a conditional statement, or batch, was applied.
pub(super) fn verdict(answer: QueryResult) -> Result<bool, StoreError> {
    let rows = answer.into_rows_result().map_err(misshapen)?;
    // Engines differ in what follows the verdict, and in how many rows a batch answers with.
    let first = rows.rows::<scylla::value::Row>().map_err(misshapen)?.next();
    match first.transpose().map_err(misshapen)?.as_ref().and_then(|row| row.columns.first()) {
        Some(Some(scylla::value::CqlValue::Boolean(applied))) => Ok(*applied),
        _ => Err(misshapen("a conditional statement without a verdict")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_statement_without_a_turn_is_refused_and_the_next_is_not() {
        let turns = Turns(Semaphore::new(1));
        let held = turns.take().await.expect("the first turn");
        assert!(matches!(turns.take().await, Err(StoreError::Unavailable(_))), "Q4");
        drop(held);
        assert!(turns.take().await.is_ok());
    }
}
