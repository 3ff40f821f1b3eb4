//! Where an entity lives: shards, leases of nodes, placement, and the region that reaches them. Moves messages; never heard
//! of an agent.

pub mod lease;
pub mod placement;
pub mod region;
pub mod shard;
