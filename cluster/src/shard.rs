//! Shards: entities that move together.
//!
//! P1  The shard of a key never changes while a deployment lives: it depends on the key and the shard count only.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Shards per deployment unless configured otherwise. A power of two.
pub const SHARDS_DEFAULT: u32 = 1_024;

/// One shard of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u32);

impl ShardId {
    /// The shard of the entity with this key, out of `shards` (a power of two).
    pub fn of(key: &[u8], shards: u32) -> Self {
        debug_assert!(shards.is_power_of_two(), "P1 {shards}");
        Self((xxh3_64(key) & u64::from(shards - 1)) as u32)
    }
}
