//! Brings a keyspace to the schema of this binary: numbered files, forward only.
//!
//! S1  A file is applied at most once at a time: whoever holds the lock applies, the others wait for it.
//! S2  Every statement of a file can be repeated, so a migration that died is simply run again.
//! S3  A keyspace that is newer than the binary is refused.
//! S4  All that migrate send their definitions to one node, the same one: of two nodes that define a table at the same
//!     time each makes its own, and what was written into the one that gives way is lost, the lock for example.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::SerialConsistency;
use scylla::statement::unprepared::Statement;

use super::session::{connect, misshapen};
use super::{CqlOptions, OpenError};

/// The files, in order; the version of a keyspace is how many of them it has.
const FILES: [&str; 2] = [include_str!("../../cql/0001_tables.cql"), include_str!("../../cql/0002_dashboard.cql")];
/// The lock is given up by itself after this; no statement takes as long, and it is renewed before each.
const LOCK_S: i32 = 60;
/// How often whoever waits for the lock asks, and for how long.
const ASK: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(300);

/// The version that this binary reads and writes.
pub(super) const VERSION: i32 = FILES.len() as i32;

/// Applies what is missing; the version before and after.
pub async fn migrate(options: &CqlOptions) -> Result<(i32, i32), OpenError> {
    let session = connect(options).await?;
    let keyspace = &options.keyspace;
    let replication = format!("{{'class': 'NetworkTopologyStrategy', 'replication_factor': {}}}", options.replication);
    let create = format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}");
    if !(is_scylla(&session).await && create_without_tablets(&session, &create).await) {
        define(&session, &create).await?;
    }
    for table in ["schema_version (id int PRIMARY KEY, version int)", "schema_lock (id int PRIMARY KEY, holder text)"] {
        define(&session, &format!("CREATE TABLE IF NOT EXISTS {keyspace}.{table}")).await?;
    }
    let holder = format!("{:016x}", rand::random::<u64>());
    lock(&session, keyspace, &holder).await?;
    let outcome = apply(&session, keyspace, &holder).await;
    // Whatever happened, nobody has to wait for the lock's end.
    let release = format!("DELETE FROM {keyspace}.schema_lock WHERE id = 0 IF holder = '{holder}'");
    let _ = decide(&session, &release).await;
    outcome
}

async fn apply(session: &Session, keyspace: &str, holder: &str) -> Result<(i32, i32), OpenError> {
    let before = version(session, keyspace).await?.unwrap_or(0);
    if before > VERSION {
        return Err(OpenError::Newer { found: before, known: VERSION });
    }
    session.use_keyspace(keyspace, true).await.map_err(|error| OpenError::Schema(error.to_string()))?;
    for (file, number) in FILES.iter().zip(1..).skip(usize::try_from(before).unwrap_or(0)) {
        for statement in statements(file) {
            renew(session, keyspace, holder).await?;
            define(session, &statement).await?;
        }
        renew(session, keyspace, holder).await?;
        let done = format!("INSERT INTO {keyspace}.schema_version (id, version) VALUES (0, {number})");
        session.query_unpaged(done, ()).await.map_err(|error| OpenError::Schema(error.to_string()))?;
    }
    Ok((before, VERSION))
}

/// ScyllaDB up to 2025.3 has no lightweight transactions in a keyspace with tablets, which newer ones make by default.
/// Versions that know no tablets refuse the option, and need none.
async fn create_without_tablets(session: &Session, create: &str) -> bool {
    let create = definition(session, &format!("{create} AND tablets = {{'enabled': false}}"));
    session.query_unpaged(create, ()).await.is_ok()
}

/// Whether the cluster is ScyllaDB: it has a system table that nobody else has.
pub(super) async fn is_scylla(session: &Session) -> bool {
    let select = "SELECT table_name FROM system_schema.tables WHERE keyspace_name='system_schema' AND table_name='scylla_tables'";
    let rows = session.query_unpaged(select, ()).await.ok().and_then(|answer| answer.into_rows_result().ok());
    rows.is_some_and(|rows| rows.rows_num() > 0)
}

/// Statements of a file, without its comments.
fn statements(file: &str) -> Vec<String> {
    let code: Vec<&str> = file.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    code.join("\n").split(";\n").map(|s| s.trim().trim_end_matches(';').to_owned()).filter(|s| !s.is_empty()).collect()
}

/// A statement for the node that all definitions go to: of those that can be reached, the one with the lowest id (S4).
fn definition(session: &Session, statement: &str) -> Statement {
    let mut statement = Statement::new(statement);
    let cluster = session.get_cluster_state();
    let reached = cluster.get_nodes_info().iter().filter(|node| node.is_connected());
    let first = reached.min_by_key(|node| node.host_id).map(|node| NodeIdentifier::Node(Arc::clone(node)));
    statement.set_load_balancing_policy(first.map(|node| SingleTargetLoadBalancingPolicy::new(node, None)));
    statement
}

/// Runs a definition; nodes that define the same at once may need a second attempt.
async fn define(session: &Session, statement: &str) -> Result<(), OpenError> {
    let mut last = String::new();
    for attempt in 1..=5_u32 {
        match session.query_unpaged(definition(session, statement), ()).await {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(ASK * attempt).await;
    }
    Err(OpenError::Schema(format!("{}: {last}", statement.lines().next().unwrap_or_default())))
}

async fn decide(session: &Session, statement: &str) -> Result<bool, OpenError> {
    let mut statement = Statement::new(statement);
    statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
    let answer = session.query_unpaged(statement, ()).await.map_err(|error| OpenError::Schema(error.to_string()))?;
    let rows = answer.into_rows_result().map_err(|error| OpenError::Schema(error.to_string()))?;
    let first =
        rows.maybe_first_row::<scylla::value::Row>().map_err(|e| OpenError::Schema(misshapen(e).to_string()))?;
    let verdict = first.and_then(|row| row.columns.into_iter().next().flatten());
    Ok(matches!(verdict, Some(scylla::value::CqlValue::Boolean(true))))
}

async fn lock(session: &Session, keyspace: &str, holder: &str) -> Result<(), OpenError> {
    let take = format!(
        "INSERT INTO {keyspace}.schema_lock (id, holder) VALUES (0, '{holder}') IF NOT EXISTS USING TTL {LOCK_S}"
    );
    let taken = async {
        // An error may mean that we hold it: then it ends by itself, and we wait like everybody else.
        while !decide(session, &take).await.unwrap_or(false) {
            tokio::time::sleep(ASK).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, taken).await;
    waited.map_err(|_| OpenError::Schema(format!("somebody else has been migrating {keyspace} for too long")))
}

/// Holds the lock for another while, or learns that it is lost (S1).
async fn renew(session: &Session, keyspace: &str, holder: &str) -> Result<(), OpenError> {
    let renew = format!(
        "UPDATE {keyspace}.schema_lock USING TTL {LOCK_S} SET holder = '{holder}' WHERE id = 0 IF holder = '{holder}'"
    );
    match decide(session, &renew).await {
        Ok(false) => Err(OpenError::Schema(format!("the lock of {keyspace} is lost to another migration"))),
        // An error leaves it open; the lock lasts long enough for the next attempt.
        Ok(true) | Err(_) => Ok(()),
    }
}

/// The version of a keyspace; `None` when it has none.
pub(super) async fn version(session: &Session, keyspace: &str) -> Result<Option<i32>, OpenError> {
    let select = format!("SELECT version FROM {keyspace}.schema_version WHERE id = 0");
    let answer = session.query_unpaged(select, ()).await.map_err(|error| OpenError::Schema(error.to_string()))?;
    let rows = answer.into_rows_result().map_err(|error| OpenError::Schema(error.to_string()))?;
    let first = rows.maybe_first_row::<(i32,)>().map_err(|error| OpenError::Schema(error.to_string()))?;
    Ok(first.map(|(version,)| version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_fall_into_statements() {
        let found = statements("-- a comment; with a semicolon\nCREATE a;\n\n-- b\nCREATE b (\n  c);\n");
        assert_eq!(found, ["CREATE a", "CREATE b (\n  c)"]);
        assert!(FILES.iter().all(|file| statements(file).iter().all(|s| s.starts_with("CREATE TABLE IF NOT EXISTS"))));
    }
}
