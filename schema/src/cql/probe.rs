//! A look at a cluster for whoever sets one up: does it answer, what schema has it, does its clock agree with ours?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scylla::client::session::Session;
use scylla::value::CqlTimeuuid;

use super::migrate::{VERSION, is_scylla, version};
use super::session::connect;
use super::{CqlOptions, OpenError};

/// Between the start of the calendar of version 1 identifiers and 1970, in steps of 100 ns.
const GREGORIAN: u64 = 0x01B2_1DD2_1381_4000;

/// What a cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Schema version of the keyspace; `None` when it has none.
    pub version: Option<i32>,
    /// The version that this binary needs.
    pub wanted: i32,
    /// It is ScyllaDB, and not Apache Cassandra.
    pub scylla: bool,
    /// The keyspace has tablets.
    pub tablets: bool,
    /// How far the clock of the node that answered is from ours.
    pub clock_difference: Duration,
}

/// Asks the cluster; changes nothing.
pub async fn probe(options: &CqlOptions) -> Result<Probe, OpenError> {
    let session = connect(options).await?;
    let asked = |e: &dyn std::fmt::Display| OpenError::Schema(e.to_string());
    let answer = session.query_unpaged("SELECT now() FROM system.local", ()).await.map_err(|e| asked(&e))?;
    let rows = answer.into_rows_result().map_err(|e| asked(&e))?;
    let (now,) = rows.single_row::<(CqlTimeuuid,)>().map_err(|e| asked(&e))?;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let scylla = is_scylla(&session).await;
    Ok(Probe {
        // A keyspace that is not there has no version either.
        version: version(&session, &options.keyspace).await.unwrap_or(None),
        wanted: VERSION,
        scylla,
        tablets: scylla && has_tablets(&session, &options.keyspace).await,
        clock_difference: ours.abs_diff(since_1970(now.as_bytes())),
    })
}

/// Tablets are listed by keyspace; a version without the list has none.
async fn has_tablets(session: &Session, keyspace: &str) -> bool {
    let select = format!("SELECT initial_tablets FROM system_schema.scylla_keyspaces WHERE keyspace_name='{keyspace}'");
    let rows = session.query_unpaged(select, ()).await.ok().and_then(|answer| answer.into_rows_result().ok());
    rows.and_then(|rows| rows.maybe_first_row::<(Option<i32>,)>().ok().flatten())
        .is_some_and(|(first,)| first.is_some())
}

/// The time in a version 1 identifier.
fn since_1970(bytes: &[u8; 16]) -> Duration {
    let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let steps = (number(6..8) & 0x0FFF) << 48 | number(4..6) << 32 | number(0..4);
    Duration::from_nanos(steps.saturating_sub(GREGORIAN).saturating_mul(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_identifier_is_read() {
        let id: CqlTimeuuid = "2c5ea4c0-4067-11e9-8bad-9b1deb4d3b7d".parse().expect("an identifier");
        assert_eq!(since_1970(id.as_bytes()).as_millis(), 1_551_914_748_172);
    }
}
