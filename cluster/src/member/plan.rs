//! What a member has to do about shards, from what the tables say. Pure.
//!
//! P1  A shard is taken only if nobody owns it whose lease is there, or by its own owner, and only by its home.
//! P2  A shard is given up if its home is another node, or its owner drains; it goes to its home, under the next epoch.
//! P3  An epoch that was given to this node is hosted as it is, if this process never had the shard under it, nor tried to
//!     give it away, for which the outcome may be open. One that it had has ended, and is followed by another.

use schema::ownership::{NodeRow, Owner, ShardRow};

use crate::placement;
use crate::routes::{NodeId, Route};
use crate::shard::ShardId;

/// Shards to take and to give up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows as stored; `None` where there is no row yet.
    pub take: Vec<(ShardId, Option<ShardRow>)>,
    /// Shards that were given to this node: rows as stored.
    pub given: Vec<ShardRow>,
    /// Rows as stored, and to whom they go, if there is anybody.
    pub release: Vec<(ShardRow, Option<Owner>)>,
}

/// What this process knows of a shard by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Local {
    /// The epoch under which it is hosted here.
    pub hosted: Option<u64>,
    /// The highest epoch under which it was held here, or given up; 0: never.
    pub last: u64,
}

fn is_alive(nodes: &[NodeRow], owner: &Owner) -> bool {
    nodes.iter().any(|node| node.name == owner.name && node.incarnation == owner.incarnation)
}

/// Compares what is with what should be.
pub fn plan(me: &Owner, shards: u32, nodes: &[NodeRow], rows: &[ShardRow], local: impl Fn(ShardId) -> Local) -> Plan {
    let mut plan = Plan::default();
    if !is_alive(nodes, me) {
        return plan;
    }
    let takers: Vec<&str> = nodes.iter().filter(|node| !node.draining).map(|node| node.name.as_str()).collect();
    let mut rows = rows.iter().peekable();
    for shard in (0..shards).map(ShardId) {
        while rows.next_if(|row| row.shard < shard.0).is_some() {}
        let row = rows.next_if(|row| row.shard == shard.0);
        let home = placement::home(shard, takers.iter().copied());
        let mine = home == Some(me.name.as_str());
        match row.and_then(|row| row.owner.as_ref().map(|owner| (row, owner))) {
            Some((row, owner)) if owner == me => {
                let Local { hosted, last } = local(shard);
                match (mine, hosted == Some(row.epoch)) {
                    (true, true) => {}
                    (true, false) if last < row.epoch => plan.given.push(row.clone()), // P3
                    (true, false) => plan.take.push((shard, Some(row.clone()))),       // it stopped by itself
                    (false, _) => {
                        let home = nodes.iter().find(|node| Some(node.name.as_str()) == home);
                        let to = home.map(|n| Owner { name: n.name.clone(), incarnation: n.incarnation });
                        plan.release.push((row.clone(), to));
                    }
                }
            }
            Some((_, owner)) if is_alive(nodes, owner) => {}
            _ if mine => plan.take.push((shard, row.cloned())),
            _ => {}
        }
    }
    plan
}

/// Owners as the tables have them; whoever has no lease owns nothing.
pub fn routes(nodes: &[NodeRow], rows: &[ShardRow]) -> Vec<(ShardId, Route)> {
    rows.iter().map(|row| route(row, row.owner.as_ref().filter(|owner| is_alive(nodes, owner)))).collect()
}

/// The route to a shard if this is its owner.
pub(super) fn route(row: &ShardRow, owner: Option<&Owner>) -> (ShardId, Route) {
    (ShardId(row.shard), Route { epoch: row.epoch, owner: owner.map(|owner| NodeId::of(owner.incarnation)) })
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

    fn at(hosted: Option<u64>, last: u64) -> Local {
        Local { hosted, last }
    }

    #[test]
    fn what_nobody_has_is_taken_by_its_home() {
        let (a, nodes, never) = (owner("a", 1), [node("a", 1), node("b", 2)], |_| Local::default());
        let first = plan(&a, SHARDS, &nodes, &[], never);
        assert!((16..48).contains(&first.take.len()) && first.take.iter().all(|(_, row)| row.is_none()));
        assert_eq!(plan(&a, SHARDS, &nodes, &owned(None), never).take.len(), first.take.len());
        let dead = owner("b", 9);
        assert_eq!(plan(&a, SHARDS, &nodes, &owned(Some(&dead)), never).take.len(), first.take.len(), "P1");
        let alive = owner("b", 2);
        assert_eq!(plan(&a, SHARDS, &nodes, &owned(Some(&alive)), never), Plan::default(), "P1");
        assert_eq!(plan(&a, SHARDS, &[node("b", 2)], &[], never), Plan::default(), "no lease, no shards");
    }

    #[test]
    fn what_belongs_elsewhere_goes_there_and_what_stopped_is_taken_again() {
        let (a, mut nodes) = (owner("a", 1), [node("a", 1), node("b", 2)]);
        let joined = plan(&a, SHARDS, &nodes, &owned(Some(&a)), |_| at(Some(3), 3));
        assert!(joined.take.is_empty() && (16..48).contains(&joined.release.len()), "P2");
        assert!(joined.release.iter().all(|(_, to)| *to == Some(owner("b", 2))), "P2");
        let stopped = plan(&a, SHARDS, &nodes[..1], &owned(Some(&a)), |shard| at((shard.0 != 5).then_some(3), 3));
        assert_eq!(stopped.take.iter().map(|(shard, _)| shard.0).collect::<Vec<_>>(), [5]);
        nodes[0].draining = true;
        let drained = plan(&a, SHARDS, &nodes, &owned(Some(&a)), |_| at(Some(3), 3));
        assert_eq!((drained.take.len(), drained.release.len()), (0, SHARDS as usize), "P2");
        let alone = plan(&a, SHARDS, &nodes[..1], &owned(Some(&a)), |_| at(Some(3), 3));
        assert!(alone.release.len() == SHARDS as usize && alone.release.iter().all(|(_, to)| to.is_none()));
    }

    #[test]
    fn what_was_given_is_hosted_once_as_it_came() {
        let (a, nodes) = (owner("a", 1), [node("a", 1)]);
        let new = plan(&a, SHARDS, &nodes, &owned(Some(&a)), |_| at(None, 2));
        assert_eq!((new.given.len(), new.take.len()), (SHARDS as usize, 0), "P3");
        let ended = plan(&a, SHARDS, &nodes, &owned(Some(&a)), |_| at(None, 3));
        assert_eq!((ended.given.len(), ended.take.len()), (0, SHARDS as usize), "P3");
    }

    #[test]
    fn nobody_is_routed_to_a_node_without_a_lease() {
        let (nodes, b) = ([node("a", 1 << 16)], owner("b", 2 << 16));
        assert!(routes(&nodes, &owned(Some(&b))).iter().all(|(_, route)| route.owner.is_none() && route.epoch == 3));
        let a = owner("a", 1 << 16);
        assert!(routes(&nodes, &owned(Some(&a))).iter().all(|(_, route)| route.owner == Some(NodeId(1))));
    }
}
