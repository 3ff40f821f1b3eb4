//! Shards that come and go.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use schema::ownership::{Owner, ShardRow};
use tracing::{info, warn};

use super::plan::Plan;
use super::{Member, ask};
use crate::routes::Route;
use crate::shard::ShardId;

/// Shards that are taken or given up at a time.
const AT_ONCE: usize = 32;
/// Pause before a shard's log is tried again.
const SETTLE_AGAIN: Duration = Duration::from_millis(100);

impl Member {
    pub(super) async fn carry_out(&self, me: &Owner, plan: Plan) {
        if plan.take.is_empty() && plan.release.is_empty() {
            return;
        }
        info!(take = plan.take.len(), release = plan.release.len(), "shards move");
        let mut released =
            stream::iter(plan.release.into_iter().map(|row| self.release(row))).buffer_unordered(AT_ONCE);
        self.tell_in_chunks(&mut released, true).await;
        drop(released);
        let rows = Mutex::new(Vec::new());
        let mut taken = stream::iter(plan.take.into_iter().map(|(shard, row)| self.take(me, shard, row, &rows)))
            .buffer_unordered(AT_ONCE);
        self.tell_in_chunks(&mut taken, false).await;
        drop(taken);
        let rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        stream::iter(rows).for_each_concurrent(AT_ONCE, |row| self.note_recovered(row)).await;
        self.news.wake(); // to see what is left to do
    }

    /// Announces what comes of a stream of moves, some at a time.
    async fn tell_in_chunks(
        &self,
        moves: &mut (impl stream::Stream<Item = Option<(ShardId, Route)>> + Unpin),
        nudge: bool,
    ) {
        let mut chunks = moves.ready_chunks(AT_ONCE);
        while let Some(chunk) = chunks.next().await {
            let routes: Vec<(ShardId, Route)> = chunk.into_iter().flatten().collect();
            if !routes.is_empty() {
                self.news.routes.learn(routes.iter().copied());
                self.fabric.announce(routes);
                if nudge {
                    self.fabric.nudge();
                }
            }
        }
    }

    async fn take(
        &self,
        me: &Owner,
        shard: ShardId,
        before: Option<ShardRow>,
        taken: &Mutex<Vec<ShardRow>>,
    ) -> Option<(ShardId, Route)> {
        if !self.held().leased() {
            return None;
        }
        let known = before.clone().unwrap_or(ShardRow::new(shard.0));
        let after = ShardRow { epoch: known.epoch + 1, owner: Some(me.clone()), ..known };
        if !self.change(before.as_ref(), &after).await {
            return None;
        }
        self.held().set(shard, after.epoch);
        while let Err(error) = self.table.settle(shard.0, after.epoch, after.recovered).await {
            warn!(shard = shard.0, %error, "the log of a shard could not be settled yet");
            if !self.held().leased() {
                return None;
            }
            tokio::time::sleep(SETTLE_AGAIN).await;
        }
        self.hosts.start(shard, after.epoch).await;
        self.missing.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).ok();
        let epoch = after.epoch;
        taken.lock().unwrap_or_else(PoisonError::into_inner).push(after);
        Some((shard, Route { epoch, owner: Some(self.options.id) }))
    }

    /// The next owner needs to settle nothing from before this epoch.
    async fn note_recovered(&self, taken: ShardRow) {
        let recovered = ShardRow { recovered: taken.epoch, ..taken.clone() };
        if self.change(Some(&taken), &recovered).await {
            for epoch in taken.recovered..taken.epoch {
                if let Err(error) = self.table.forget(taken.shard, epoch).await {
                    warn!(shard = taken.shard, epoch, %error, "the log of a settled epoch stays for now");
                }
            }
        }
    }

    async fn release(&self, before: ShardRow) -> Option<(ShardId, Route)> {
        let shard = ShardId(before.shard);
        self.hosts.leave(shard).await;
        self.held().set(shard, 0); // M2
        let after = ShardRow { owner: None, ..before.clone() };
        let given_up = self.change(Some(&before), &after).await;
        given_up.then_some((shard, Route { epoch: before.epoch, owner: None }))
    }

    /// Changes a shard's row; an open outcome is looked up.
    async fn change(&self, before: Option<&ShardRow>, after: &ShardRow) -> bool {
        match ask(self.table.change_shard(before, after)).await {
            Ok(applied) => applied,
            Err(_) => matches!(ask(self.table.shard(after.shard)).await, Ok(Some(row)) if row == *after),
        }
    }
}
