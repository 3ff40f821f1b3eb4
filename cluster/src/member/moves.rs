//! Shards that come and go, a group at a time: a decision of the tables takes several round trips, whatever it is about.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered};
use futures_util::{Stream, StreamExt};
use schema::cql::Guard;
use schema::ownership::{Owner, ShardChange, ShardRow, group_of};
use schema::store::Fence;
use tracing::{info, warn};

use super::plan::{Plan, route};
use super::{Member, ask};
use crate::routes::{NodeId, Route};
use crate::shard::ShardId;

/// Decisions under way at a time: a store that is busy with moves still has to renew leases.
const DECISIONS_AT_ONCE: usize = 4;
/// Shards that are settled and started at a time.
const STARTS_AT_ONCE: usize = 64;
/// Shards of which others are told at once.
const TOLD_AT_ONCE: usize = 64;
/// Epochs that a new owner may have to settle before that is noted in the table.
const SETTLED_LATER: u64 = 8;
/// Pause before a shard's log is tried again.
const SETTLE_AGAIN: Duration = Duration::from_millis(100);

/// Changes by group; those who change different shards of the same groups at the same time begin with different ones, or
/// they would wait for each other at every one of them.
fn grouped(me: &str, changes: impl IntoIterator<Item = ShardChange>) -> Vec<Vec<ShardChange>> {
    let mut groups: BTreeMap<u64, Vec<ShardChange>> = BTreeMap::new();
    for change in changes {
        let mut place = DefaultHasher::new();
        (me, group_of(change.after.shard)).hash(&mut place);
        groups.entry(place.finish()).or_default().push(change);
    }
    groups.into_values().collect()
}

/// How a row becomes one of the next owner.
fn given_up((row, to): (ShardRow, Option<Owner>)) -> ShardChange {
    let epoch = row.epoch + u64::from(to.is_some());
    ShardChange { after: ShardRow { owner: to, epoch, ..row.clone() }, before: Some(row) }
}

impl Member {
    pub(super) async fn carry_out(&self, me: &Owner, plan: Plan) {
        let Plan { take, given, release } = plan;
        if take.is_empty() && given.is_empty() && release.is_empty() {
            return;
        }
        info!(take = take.len(), given = given.len(), release = release.len(), "shards move");
        let releases = grouped(&me.name, release.into_iter().map(given_up));
        stream::iter(releases)
            .for_each_concurrent(DECISIONS_AT_ONCE, |group| async move { self.release(group).await })
            .await;
        let taken = |(shard, row): (ShardId, Option<ShardRow>)| {
            let known = row.clone().unwrap_or(ShardRow::new(shard.0));
            let after = ShardRow { epoch: known.epoch + 1, owner: Some(me.clone()), ..known };
            ShardChange { before: row, after }
        };
        let takes = stream::iter(grouped(&me.name, take.into_iter().map(taken)))
            .map(|group| self.take(group))
            .buffer_unordered(DECISIONS_AT_ONCE)
            .flat_map(stream::iter);
        let hosted = self.host_all(stream::iter(given).chain(takes)).await;
        self.note_settled(&me.name, hosted).await;
        self.news.wake(); // to see what is left to do
    }

    /// Hosts what others gave to this node, by what the tables say about these groups.
    pub(super) async fn accept(&self, me: &Owner, groups: BTreeSet<u32>) {
        let asked = stream::iter(groups).map(|group| ask(self.table.group(group)));
        let rows = asked.buffer_unordered(DECISIONS_AT_ONCE).flat_map(|answer| {
            let rows = answer.unwrap_or_else(|error| {
                warn!(%error, "what was given to this node could not be read: it is looked for");
                self.news.wake();
                Vec::new()
            });
            // P3
            let given =
                |row: &ShardRow| row.owner.as_ref() == Some(me) && self.held().last(ShardId(row.shard)) < row.epoch;
            stream::iter(rows.into_iter().filter(given).collect::<Vec<_>>())
        });
        self.host_all(rows).await;
    }

    /// Settles, hosts, and tells all; the rows that are hosted.
    async fn host_all(&self, rows: impl Stream<Item = ShardRow>) -> Vec<ShardRow> {
        let hosted = rows.map(|row| self.host(row)).buffer_unordered(STARTS_AT_ONCE);
        let mut hosted = std::pin::pin!(hosted.filter_map(std::future::ready).ready_chunks(TOLD_AT_ONCE));
        let mut all = Vec::new();
        while let Some(rows) = hosted.next().await {
            self.tell(rows.iter().map(|row| route(row, row.owner.as_ref())).collect());
            all.extend(rows);
        }
        all
    }

    /// Tells all where shards are.
    fn tell(&self, routes: Vec<(ShardId, Route)>) {
        self.news.routes.learn(routes.iter().copied());
        self.fabric.announce(routes);
    }

    /// Tells all that shards are not here any more, and their next owners that they are theirs: these tell all once they
    /// host them.
    fn tell_given(&self, changes: &[ShardChange]) {
        self.tell(changes.iter().filter_map(|change| Some(route(change.before.as_ref()?, None))).collect());
        let mut groups: BTreeMap<Option<NodeId>, BTreeSet<u32>> = BTreeMap::new();
        for ShardChange { after, .. } in changes {
            let to = after.owner.as_ref().map(|owner| NodeId::of(owner.incarnation));
            groups.entry(to).or_default().insert(group_of(after.shard));
        }
        for (to, groups) in groups {
            match to {
                Some(to) => self.fabric.give(to, groups.into_iter().collect()),
                None => self.fabric.nudge(),
            }
        }
    }

    /// Takes shards of one group, as many as still are as they were seen: all or none.
    async fn take(&self, group: Vec<ShardChange>) -> Vec<ShardRow> {
        if !self.held().leased() || !self.change(&group).await {
            return Vec::new();
        }
        group.into_iter().map(|change| change.after).collect()
    }

    /// Settles a shard's log and hosts the shard (M2); `None` when the lease ended before.
    async fn host(&self, row: ShardRow) -> Option<ShardRow> {
        let fence = Fence { shard: row.shard, epoch: row.epoch };
        self.held().set(ShardId(row.shard), row.epoch);
        while let Err(error) = self.table.settle(row.shard, row.epoch, row.recovered).await {
            warn!(shard = row.shard, %error, "the log of a shard could not be settled yet");
            if !self.held().holds(fence) {
                return None;
            }
            tokio::time::sleep(SETTLE_AGAIN).await;
        }
        self.hosts.start(ShardId(row.shard), row.epoch).await;
        self.missing.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).ok();
        Some(row)
    }

    /// Notes which logs the next owner need not settle. A shard that is given up says so by the way; this is for shards
    /// whose owners died again and again.
    async fn note_settled(&self, me: &str, hosted: Vec<ShardRow>) {
        let old = hosted.into_iter().filter(|row| row.epoch - row.recovered >= SETTLED_LATER);
        let note = |row: ShardRow| {
            let after = ShardRow { recovered: row.epoch, ..row.clone() };
            ShardChange { before: Some(row), after }
        };
        for group in grouped(me, old.map(note)) {
            self.change(&group).await; // if it was not, the next owner does it
        }
    }

    /// Gives shards of one group up, as they come to rest.
    async fn release(&self, group: Vec<ShardChange>) {
        let leaves = group.into_iter().map(|mut change| async move {
            let (shard, epoch) = (ShardId(change.after.shard), change.before.as_ref().map_or(0, |row| row.epoch));
            let hosted = self.hosts.hosted(shard) == Some(epoch);
            self.hosts.leave(shard).await;
            self.held().give_up(shard, epoch); // M2, P3
            // Logs before the own were settled if it was hosted, and else nobody knows.
            match hosted {
                true if self.table.at_rest(shard.0, epoch) => change.after.recovered = change.after.epoch,
                true => change.after.recovered = epoch,
                false => {}
            }
            change
        });
        let mut rested = leaves.collect::<FuturesUnordered<_>>().ready_chunks(TOLD_AT_ONCE);
        while let Some(changes) = rested.next().await {
            if self.change(&changes).await {
                self.tell_given(&changes);
            }
        }
    }

    /// Changes rows of one group; an open outcome is looked up.
    async fn change(&self, group: &[ShardChange]) -> bool {
        let Some(number) = group.first().map(|change| group_of(change.after.shard)) else { return false };
        match ask(self.table.change_shards(group)).await {
            Ok(applied) => applied,
            Err(_) => match ask(self.table.group(number)).await {
                Ok(rows) => group.iter().all(|change| rows.contains(&change.after)),
                Err(_) => false,
            },
        }
    }
}
