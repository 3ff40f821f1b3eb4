//! What members, links and regions count: names, units, help. Every name is here, and nowhere else.
//!
//! The label `peer` is the name of a node: as many values as the deployment ever had nodes.

use metrics::{Unit, counter, describe_counter, describe_gauge};

/// Requests refused because their shard, or this node, had too many unanswered ones.
pub(crate) const REQUESTS_SHED: &str = "agentchat_requests_shed_total";
/// Own leases that ended before they were renewed.
pub(crate) const LEASES_LOST: &str = "agentchat_leases_lost_total";
/// Leases of silent nodes that this node removed.
pub(crate) const LEASES_REMOVED: &str = "agentchat_leases_removed_total";
/// Shards that this node owns by the table.
pub(crate) const SHARDS_OWNED: &str = "agentchat_shards_owned";
/// Other nodes with a lease, and those of them that are linked.
pub(crate) const LINKS_EXPECTED: &str = "agentchat_links_expected";
pub(crate) const LINKS_UP: &str = "agentchat_links_up";
/// 1 while a peer is linked, 0 while it is not or is gone.
pub(crate) const LINK_UP: &str = "agentchat_link_up";
/// Links that came up; beyond the first of a peer these are reconnections.
pub(crate) const LINK_UPS: &str = "agentchat_link_ups_total";
/// Links that ended, whatever way.
pub(crate) const LINK_ENDS: &str = "agentchat_link_ends_total";
/// Messages that wait for a peer.
pub(crate) const LINK_QUEUE: &str = "agentchat_link_queue_messages";
/// Frames sent to a peer that it has not acknowledged.
pub(crate) const LINK_UNACKED: &str = "agentchat_link_unacked_frames";
/// Messages and bytes sent to a peer.
pub(crate) const LINK_MESSAGES: &str = "agentchat_link_messages_total";
pub(crate) const LINK_BYTES: &str = "agentchat_link_bytes_total";
/// Connections to the cluster port that were refused.
pub(crate) const LINK_STRANGERS: &str = "agentchat_link_strangers_total";

/// Tells the recorder what these are. Counters without labels exist from here on, so that a first event is a change.
pub fn describe() {
    describe_counter!(REQUESTS_SHED, Unit::Count, "Requests refused: too many unanswered, of their shard or in all");
    describe_counter!(LEASES_LOST, Unit::Count, "Own leases that ended before they were renewed");
    describe_counter!(LEASES_REMOVED, Unit::Count, "Leases of silent nodes that this node removed");
    describe_gauge!(SHARDS_OWNED, Unit::Count, "Shards that this node owns in its cluster");
    describe_gauge!(LINKS_EXPECTED, Unit::Count, "Other nodes that have a lease");
    describe_gauge!(LINKS_UP, Unit::Count, "Other nodes that are linked");
    describe_gauge!(LINK_UP, Unit::Count, "1 while the peer is linked, 0 while it is not or is gone");
    describe_counter!(LINK_UPS, Unit::Count, "Links that came up; beyond the first these are reconnections");
    describe_counter!(LINK_ENDS, Unit::Count, "Links that ended");
    describe_gauge!(LINK_QUEUE, Unit::Count, "Messages that wait for the peer; 16384 end the link");
    describe_gauge!(LINK_UNACKED, Unit::Count, "Frames that the peer has not acknowledged; 64 are the window");
    describe_counter!(LINK_MESSAGES, Unit::Count, "Messages sent to the peer");
    describe_counter!(LINK_BYTES, Unit::Bytes, "Bytes of frames sent to the peer");
    describe_counter!(LINK_STRANGERS, Unit::Count, "Connections to the cluster port that were refused");
    for name in [REQUESTS_SHED, LEASES_LOST, LEASES_REMOVED, LINK_STRANGERS] {
        counter!(name).increment(0);
    }
}
