//! Where an entity lives: shards, and the region that reaches them. Moves messages; never heard of an agent.

pub mod region;
pub mod shard;
