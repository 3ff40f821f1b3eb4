//! Which node a shard belongs to: rendezvous hashing, so that a node that comes or goes moves its own share only.
//!
//! R1  Everybody who sees the same nodes places every shard alike.
//! R2  A node that comes takes shards only from others to itself; one that goes leaves its own to the rest.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::shard::ShardId;

/// The node among `nodes` that a shard belongs to; `None` when there is none.
pub fn home<'a>(shard: ShardId, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Names decide between equal hashes, so that R1 holds whatever the order.
    nodes.into_iter().max_by_key(|name| (xxh3_64_with_seed(name.as_bytes(), u64::from(shard.0)), *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: u32 = 1_024;

    fn homes(nodes: &[&'static str]) -> Vec<Option<&'static str>> {
        (0..SHARDS).map(|shard| home(ShardId(shard), nodes.iter().copied())).collect()
    }

    #[test]
    fn shares_are_even_and_only_the_share_of_who_moves_moves() {
        let (three, four) = (homes(&["a", "b", "c"]), homes(&["d", "c", "b", "a"]));
        assert_eq!(three, homes(&["c", "a", "b"]), "R1");
        for node in ["a", "b", "c"] {
            let share = three.iter().filter(|home| **home == Some(node)).count();
            assert!((240..=440).contains(&share), "{node} has {share} of {SHARDS}");
        }
        let moved: Vec<_> = three.iter().zip(&four).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| **after == Some("d")), "R2");
        assert!((160..=360).contains(&moved.len()), "{}", moved.len());
        assert_eq!(home(ShardId(1), []), None);
    }
}
