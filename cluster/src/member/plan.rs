//! What a member has to do about shards, from what the tables say. Pure.
//!
//! P1  A shard is taken only if nobody owns it whose lease is there, or by its own owner, and only by its home.
//! P2  A shard is given up if its home is another node, or its owner drains.

use schema::ownership::{NodeRow, Owner, ShardRow};

use crate::placement;
use crate::routes::{NodeId, Route};
use crate::shard::ShardId;

/// Shards to take and to give up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows as stored; `None` where there is no row yet.
    pub take: Vec<(ShardId, Option<ShardRow>)>,
    /// Rows as stored.
    pub release: Vec<ShardRow>,
}

fn is_alive(nodes: &[NodeRow], owner: &Owner) -> bool {
    nodes.iter().any(|node| node.name == owner.name && node.incarnation == owner.incarnation)
}

/// Compares what is with what should be. `hosted` tells the epoch under which a shard is hosted here.
pub fn plan(
    me: &Owner,
    shards: u32,
    nodes: &[NodeRow],
    rows: &[ShardRow],
    hosted: impl Fn(ShardId) -> Option<u64>,
) -> Plan {
    let mut plan = Plan::default();
    if !is_alive(nodes, me) {
        return plan;
    }
    let takers: Vec<&str> = nodes.iter().filter(|node| !node.draining).map(|node| node.name.as_str()).collect();
    let mut rows = rows.iter().peekable();
    for shard in (0..shards).map(ShardId) {
        while rows.next_if(|row| row.shard < shard.0).is_some() {}
        let row = rows.next_if(|row| row.shard == shard.0);
        let mine = placement::home(shard, takers.iter().copied()) == Some(me.name.as_str());
        match row.and_then(|row| row.owner.as_ref().map(|owner| (row, owner))) {
            Some((row, owner)) if owner == me => match (mine, hosted(shard) == Some(row.epoch)) {
                (true, true) => {}
                // It stopped by itself, or nobody knows whether it was taken.
                (true, false) => plan.take.push((shard, Some(row.clone()))),
                (false, _) => plan.release.push(row.clone()),
            },
            Some((_, owner)) if is_alive(nodes, owner) => {}
            _ if mine => plan.take.push((shard, row.cloned())),
            _ => {}
        }
    }
    plan
}

/// Owners as the tables have them; whoever has no lease owns nothing.
pub fn routes(nodes: &[NodeRow], rows: &[ShardRow]) -> Vec<(ShardId, Route)> {
    let route = |row: &ShardRow| {
        let owner = row.owner.as_ref().filter(|owner| is_alive(nodes, owner));
        (ShardId(row.shard), Route { epoch: row.epoch, owner: owner.map(|owner| NodeId::of(owner.incarnation)) })
    };
    rows.iter().map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, incarnation: u64) -> NodeRow {
        NodeRow { name: name.into(), incarnation, version: 1, address: String::new(), draining: false }
    }

    fn owner(name: &str, incarnation: u64) -> Owner {
        Owner { name: name.into(), incarnation }
    }

    const SHARDS: u32 = 64;

    fn owned(by: Option<&Owner>) -> Vec<ShardRow> {
        (0..SHARDS).map(|shard| ShardRow { epoch: 3, owner: by.cloned(), ..ShardRow::new(shard) }).collect()
    }

    #[test]
    fn what_nobody_has_is_taken_by_its_home() {
        let (a, nodes) = (owner("a", 1), [node("a", 1), node("b", 2)]);
        let first = plan(&a, SHARDS, &nodes, &[], |_| None);
        assert!((16..48).contains(&first.take.len()) && first.take.iter().all(|(_, row)| row.is_none()));
        assert_eq!(plan(&a, SHARDS, &nodes, &owned(None), |_| None).take.len(), first.take.len());
        let dead = owner("b", 9);
        assert_eq!(plan(&a, SHARDS, &nodes, &owned(Some(&dead)), |_| None).take.len(), first.take.len(), "P1");
        let alive = owner("b", 2);
        assert_eq!(plan(&a, SHARDS, &nodes, &owned(Some(&alive)), |_| None), Plan::default(), "P1");
        assert_eq!(plan(&a, SHARDS, &[node("b", 2)], &[], |_| None), Plan::default(), "no lease, no shards");
    }

    #[test]
    fn what_belongs_elsewhere_is_given_up_and_what_stopped_is_taken_again() {
        let (a, mut nodes) = (owner("a", 1), [node("a", 1), node("b", 2)]);
        let joined = plan(&a, SHARDS, &nodes, &owned(Some(&a)), |_| Some(3));
        assert!(joined.take.is_empty() && (16..48).contains(&joined.release.len()), "P2");
        let stopped = plan(&a, SHARDS, &nodes[..1], &owned(Some(&a)), |shard| (shard.0 != 5).then_some(3));
        assert_eq!(stopped.take.iter().map(|(shard, _)| shard.0).collect::<Vec<_>>(), [5]);
        nodes[0].draining = true;
        let drained = plan(&a, SHARDS, &nodes, &owned(Some(&a)), |_| Some(3));
        assert_eq!((drained.take.len(), drained.release.len()), (0, SHARDS as usize), "P2");
        assert_eq!(plan(&a, SHARDS, &nodes[..1], &owned(Some(&a)), |_| Some(3)).release.len(), SHARDS as usize);
    }

    #[test]
    fn nobody_is_routed_to_a_node_without_a_lease() {
        let (nodes, b) = ([node("a", 1 << 16)], owner("b", 2 << 16));
        assert!(routes(&nodes, &owned(Some(&b))).iter().all(|(_, route)| route.owner.is_none() && route.epoch == 3));
        let a = owner("a", 1 << 16);
        assert!(routes(&nodes, &owned(Some(&a))).iter().all(|(_, route)| route.owner == Some(NodeId(1))));
    }
}
