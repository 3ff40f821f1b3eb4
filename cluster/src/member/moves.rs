//! Shards that come and go, a group at a time: a decision of the tables takes several round trips, whatever it is about.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream;
use futures_util::{Stream, StreamExt};
use schema::cql::Guard;
use schema::ownership::{Owner, ShardChange, ShardRow, group_of};
use schema::store::Fence;
use tracing::{info, warn};

use super::plan::Plan;
use super::{Member, ask};
use crate::routes::Route;
use crate::shard::ShardId;

/// Groups whose shards are taken or given up at a time: a store that is busy with moves still has to renew leases.
const GROUPS_AT_ONCE: usize = 3;
/// Epochs that a new owner may have to settle before that is noted in the table.
const SETTLED_LATER: u64 = 8;
/// Pause before a shard's log is tried again.
const SETTLE_AGAIN: Duration = Duration::from_millis(100);

/// What came of the moves of one group.
#[derive(Default)]
struct Moved {
    routes: Vec<(ShardId, Route)>,
    /// Rows as they are now.
    rows: Vec<ShardRow>,
}

fn grouped(changes: impl IntoIterator<Item = ShardChange>) -> Vec<Vec<ShardChange>> {
    let mut groups: BTreeMap<u32, Vec<ShardChange>> = BTreeMap::new();
    for change in changes {
        groups.entry(group_of(change.after.shard)).or_default().push(change);
    }
    groups.into_values().collect()
}

impl Member {
    pub(super) async fn carry_out(&self, me: &Owner, plan: Plan) {
        if plan.take.is_empty() && plan.release.is_empty() {
            return;
        }
        info!(take = plan.take.len(), release = plan.release.len(), "shards move");
        // Its own log is read again by the next owner, should something have been under way. Earlier ones were settled if
        // it is hosted, and else nobody knows.
        let given_up = |row: ShardRow| {
            let settled = self.hosts.hosted(ShardId(row.shard)) == Some(row.epoch);
            let recovered = if settled { row.epoch } else { row.recovered };
            ShardChange { after: ShardRow { owner: None, recovered, ..row.clone() }, before: Some(row) }
        };
        let releases = grouped(plan.release.into_iter().map(given_up));
        let mut released =
            stream::iter(releases.into_iter().map(|group| self.release(group))).buffer_unordered(GROUPS_AT_ONCE);
        self.tell(&mut released).await;
        let taken = |(shard, row): (ShardId, Option<ShardRow>)| {
            let known = row.clone().unwrap_or(ShardRow::new(shard.0));
            let after = ShardRow { epoch: known.epoch + 1, owner: Some(me.clone()), ..known };
            ShardChange { before: row, after }
        };
        let takes = grouped(plan.take.into_iter().map(taken));
        let mut taken = stream::iter(takes.into_iter().map(|group| self.take(group))).buffer_unordered(GROUPS_AT_ONCE);
        let taken = self.tell(&mut taken).await;
        self.note_settled(taken).await;
        self.news.wake(); // to see what is left to do
    }

    /// Announces what comes of moves; the rows that moved.
    async fn tell(&self, moves: &mut (impl Stream<Item = Moved> + Unpin)) -> Vec<ShardRow> {
        let mut rows = Vec::new();
        while let Some(moved) = moves.next().await {
            if !moved.routes.is_empty() {
                self.news.routes.learn(moved.routes.iter().copied());
                self.fabric.announce(moved.routes);
                self.fabric.nudge();
            }
            rows.extend(moved.rows);
        }
        rows
    }

    /// Takes shards of one group, as many as still are as they were seen: all or none.
    async fn take(&self, group: Vec<ShardChange>) -> Moved {
        if !self.held().leased() || !self.change(&group).await {
            return Moved::default();
        }
        group.iter().for_each(|change| self.held().set(ShardId(change.after.shard), change.after.epoch));
        let hosted = join_all(group.iter().map(|change| self.host(&change.after))).await;
        let mut moved = Moved::default();
        for change in group.into_iter().zip(hosted).filter(|(_, hosted)| *hosted).map(|(change, _)| change) {
            let (row, owner) = (change.after, Some(self.options.id));
            moved.routes.push((ShardId(row.shard), Route { epoch: row.epoch, owner }));
            moved.rows.push(row);
        }
        moved
    }

    /// Settles a shard's log and hosts the shard (M2); `false` when the lease ended before.
    async fn host(&self, row: &ShardRow) -> bool {
        let fence = Fence { shard: row.shard, epoch: row.epoch };
        while let Err(error) = self.table.settle(row.shard, row.epoch, row.recovered).await {
            warn!(shard = row.shard, %error, "the log of a shard could not be settled yet");
            if !self.held().holds(fence) {
                return false;
            }
            tokio::time::sleep(SETTLE_AGAIN).await;
        }
        self.hosts.start(ShardId(row.shard), row.epoch).await;
        self.missing.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).ok();
        true
    }

    /// Notes which logs the next owner need not settle. A shard that is given up says so by the way; this is for shards
    /// whose owners died again and again.
    async fn note_settled(&self, taken: Vec<ShardRow>) {
        let old = taken.into_iter().filter(|row| row.epoch - row.recovered >= SETTLED_LATER);
        let note = |row: ShardRow| {
            let after = ShardRow { recovered: row.epoch, ..row.clone() };
            ShardChange { before: Some(row), after }
        };
        for group in grouped(old.map(note)) {
            self.change(&group).await; // if it was not, the next owner does it
        }
    }

    /// Gives shards of one group up, after they have come to rest.
    async fn release(&self, group: Vec<ShardChange>) -> Moved {
        join_all(group.iter().map(|change| self.hosts.leave(ShardId(change.after.shard)))).await;
        group.iter().for_each(|change| self.held().set(ShardId(change.after.shard), 0)); // M2
        if !self.change(&group).await {
            return Moved::default();
        }
        let mut moved = Moved::default();
        for ShardChange { after, .. } in group {
            moved.routes.push((ShardId(after.shard), Route { epoch: after.epoch, owner: None }));
            moved.rows.push(after);
        }
        moved
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
