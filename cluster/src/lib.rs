//! Where an entity lives: shards, leases of nodes, placement, and the region that reaches them. Moves messages; never heard
//! of an agent.

pub mod held;
pub mod lease;
pub mod link;
pub mod member;
pub mod metrics;
pub mod peers;
pub mod placement;
pub mod region;
pub mod routes;
pub mod shard;
