//! What the engines count: names, units, help. Every name is here, and nowhere else.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

/// Writes of the commit log that were sent again, on a cql store.
pub(crate) const CQL_WRITE_RETRIES: &str = "agentchat_cql_write_retries_total";
/// Statements that found too many under way, on a cql store.
pub(crate) const CQL_REFUSALS: &str = "agentchat_cql_refusals_total";
/// One frame of the embedded log, appended and synced; its count is the number of group commits.
pub(crate) const STORE_SYNC_SECONDS: &str = "agentchat_store_sync_seconds";
/// Batches made durable by the embedded store.
pub(crate) const STORE_BATCHES: &str = "agentchat_store_batches_total";
/// Bytes appended to the embedded log.
pub(crate) const STORE_LOG_BYTES: &str = "agentchat_store_log_bytes_total";
/// Batches refused before they were written; label `reason`: `closed`, `queue`, `flush`.
pub(crate) const STORE_REFUSALS: &str = "agentchat_store_refusals_total";
/// Groups that could not be made durable; label `outcome`: `not_written`, `unknown`.
pub(crate) const STORE_FAILURES: &str = "agentchat_store_failures_total";
/// Batches that wait for the committer.
pub(crate) const STORE_QUEUE: &str = "agentchat_store_queue_batches";
/// Closed segments that are not in tables yet.
pub(crate) const STORE_UNFLUSHED: &str = "agentchat_store_unflushed_segments";
/// One flush of closed segments into tables.
pub(crate) const STORE_FLUSH_SECONDS: &str = "agentchat_store_flush_seconds";
/// Flushes that failed and are tried again.
pub(crate) const STORE_FLUSH_FAILURES: &str = "agentchat_store_flush_failures_total";

/// Tells the recorder what these are. Counters without labels exist from here on, so that a first event is a change.
pub fn describe() {
    describe_counter!(CQL_WRITE_RETRIES, Unit::Count, "Writes of the commit log that were sent again (cql)");
    describe_counter!(CQL_REFUSALS, Unit::Count, "Statements refused because too many were under way (cql)");
    describe_histogram!(STORE_SYNC_SECONDS, Unit::Seconds, "Append and sync of one group of batches (embedded)");
    describe_counter!(STORE_BATCHES, Unit::Count, "Batches made durable (embedded)");
    describe_counter!(STORE_LOG_BYTES, Unit::Bytes, "Bytes appended to the log (embedded)");
    describe_counter!(STORE_REFUSALS, Unit::Count, "Batches refused before they were written, by reason (embedded)");
    describe_counter!(STORE_FAILURES, Unit::Count, "Groups that could not be made durable, by outcome (embedded)");
    describe_gauge!(STORE_QUEUE, Unit::Count, "Batches that wait for the committer (embedded)");
    describe_gauge!(STORE_UNFLUSHED, Unit::Count, "Closed log segments that are not in tables yet (embedded)");
    describe_histogram!(STORE_FLUSH_SECONDS, Unit::Seconds, "One flush of closed segments into tables (embedded)");
    describe_counter!(STORE_FLUSH_FAILURES, Unit::Count, "Flushes that failed and are tried again (embedded)");
    for name in [CQL_WRITE_RETRIES, CQL_REFUSALS, STORE_BATCHES, STORE_LOG_BYTES, STORE_FLUSH_FAILURES] {
        counter!(name).increment(0);
    }
}
