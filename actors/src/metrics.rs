//! What the domain counts: names, units, help. Every name is here, and nowhere else.
//!
//! Shards have no label: a cluster has 1024 of them. Gauges are sums and maxima over the shards of a node, as of the
//! moment they are read; the operator surface lists single shards.

use cluster::region::Occupancy;
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// Events that found no owner and are asked for again.
pub(crate) const EVENTS_WITHOUT_SHARD: &str = "agentchat_events_without_shard_total";
/// Answers to requests of a node that is not linked.
pub(crate) const ANSWERS_WITHOUT_WAY: &str = "agentchat_answers_without_way_total";
/// Shards that failed and were started again.
pub(crate) const SHARD_RESTARTS: &str = "agentchat_shard_restarts_total";
/// Shards hosted here.
const SHARDS_HOSTED: &str = "agentchat_shards_hosted";
/// Shards that come to rest before another node takes them.
const SHARDS_LEAVING: &str = "agentchat_shards_leaving";
/// Requests of this node that are not answered yet, and the most of one shard.
const REQUESTS_ADMITTED: &str = "agentchat_requests_admitted";
const REQUESTS_ADMITTED_MAX: &str = "agentchat_requests_admitted_max";
/// Messages in the mailboxes of shards, and the most of one shard.
const MAILBOX_WAITING: &str = "agentchat_mailbox_waiting";
const MAILBOX_WAITING_MAX: &str = "agentchat_mailbox_waiting_max";
/// Entities in memory.
const ENTITIES_RESIDENT: &str = "agentchat_entities_resident";
/// Batches of rows handed to the store.
const BATCHES: &str = "agentchat_batches_total";
/// Batches that the store did not take, or of which the outcome is unknown.
const BATCH_FAILURES: &str = "agentchat_batch_failures_total";
/// From handing batches over to knowing that they are durable.
const BATCH_SECONDS: &str = "agentchat_batch_seconds";

/// Tells the recorder what these are. Counters without labels exist from here on, so that a first event is a change.
pub fn describe() {
    describe_counter!(EVENTS_WITHOUT_SHARD, Unit::Count, "Events that found no owner and are asked for again");
    describe_counter!(ANSWERS_WITHOUT_WAY, Unit::Count, "Answers to requests of a node that is not linked");
    describe_counter!(SHARD_RESTARTS, Unit::Count, "Shards that failed and were started again");
    describe_gauge!(SHARDS_HOSTED, Unit::Count, "Shards hosted here");
    describe_gauge!(SHARDS_LEAVING, Unit::Count, "Shards that come to rest before another node takes them");
    describe_gauge!(REQUESTS_ADMITTED, Unit::Count, "Requests of this node without an answer yet, all shards");
    describe_gauge!(
        REQUESTS_ADMITTED_MAX,
        Unit::Count,
        "The same of the shard with the most; in a cluster 4096 are the limit of one shard"
    );
    describe_gauge!(MAILBOX_WAITING, Unit::Count, "Messages in mailboxes of shards hosted here");
    describe_gauge!(MAILBOX_WAITING_MAX, Unit::Count, "The same of the shard with the most");
    describe_gauge!(ENTITIES_RESIDENT, Unit::Count, "Agents and conversations in memory");
    describe_counter!(BATCHES, Unit::Count, "Batches of rows handed to the store");
    describe_counter!(BATCH_FAILURES, Unit::Count, "Batches not stored, or of unknown outcome");
    describe_histogram!(BATCH_SECONDS, Unit::Seconds, "From handing batches to the store to knowing their outcome");
    for name in [EVENTS_WITHOUT_SHARD, ANSWERS_WITHOUT_WAY, SHARD_RESTARTS, BATCHES, BATCH_FAILURES] {
        counter!(name).increment(0);
    }
}

/// Sets the gauges from what all shards have to do now.
pub(crate) fn observe(shards: &[Occupancy]) {
    let sum = |of: fn(&Occupancy) -> usize| shards.iter().map(of).sum::<usize>() as f64;
    let max = |of: fn(&Occupancy) -> usize| shards.iter().map(of).max().unwrap_or(0) as f64;
    gauge!(SHARDS_HOSTED).set(sum(|shard| usize::from(shard.hosted.is_some())));
    gauge!(SHARDS_LEAVING).set(sum(|shard| usize::from(shard.hosted.is_some_and(|(_, open)| !open))));
    gauge!(REQUESTS_ADMITTED).set(sum(|shard| shard.admitted));
    gauge!(REQUESTS_ADMITTED_MAX).set(max(|shard| shard.admitted));
    gauge!(MAILBOX_WAITING).set(sum(|shard| shard.load.waiting));
    gauge!(MAILBOX_WAITING_MAX).set(max(|shard| shard.load.waiting));
    gauge!(ENTITIES_RESIDENT).set(sum(|shard| shard.load.resident));
}

/// Handles for what happens with every batch: they are looked up once.
pub(crate) struct Meters {
    pub(crate) batches: Counter,
    pub(crate) batch_failures: Counter,
    pub(crate) batch_seconds: Histogram,
}

impl Meters {
    /// Of the recorder that is installed now.
    pub(crate) fn new() -> Self {
        Self {
            batches: counter!(BATCHES),
            batch_failures: counter!(BATCH_FAILURES),
            batch_seconds: metrics::histogram!(BATCH_SECONDS),
        }
    }
}
