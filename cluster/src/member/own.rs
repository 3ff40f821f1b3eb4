//! The own lease: kept, lost, begun anew, given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use schema::ownership::NodeRow;
use tracing::{debug, warn};

use super::{Member, MemberOptions, ask};
use crate::lease::{OwnLease, Standing};
use crate::metrics::LEASES_LOST;

/// Attempts to remove the own lease: of one renewal that came first, and of one answer that was lost.
const LEAVE_ATTEMPTS: u32 = 3;
/// A drain gives up its shards within this, or leaves them to the end of its lease.
const DRAIN: Duration = Duration::from_secs(15);
/// Whoever comes back takes shards after this: others need a second or two for what it had.
const JOINS_AFTER_MS: u64 = 4_000;

impl Member {
    /// Keeps the own lease.
    pub(super) async fn renew(self: Arc<Self>) {
        while !self.stopped.load(Ordering::Acquire) {
            let standing = self.lease().standing();
            match standing {
                Standing::Ready => self.renew_once().await,
                Standing::Unsure => {
                    if let Ok(row) = ask(self.table.node(&self.options.name)).await {
                        self.lease().reread(row);
                        if self.lease().standing() == Standing::Ready && !self.stopped.load(Ordering::Acquire) {
                            self.renew_once().await; // time has passed without a renewal
                        }
                    }
                }
                Standing::Lost => {}
            }
            let standing = {
                let (lease, lapsed) = (self.lease(), !self.held().leased());
                self.held().lease(lease.until()); // not after the lock: `leave` may be next
                if lapsed && self.held().leased() {
                    self.news.wake(); // what stopped meanwhile is to be taken again
                }
                lease.standing()
            };
            if standing == Standing::Lost {
                self.news.wake();
                self.renewed.notified().await; // M3
                continue;
            }
            let pause = if standing == Standing::Unsure { self.period() / 4 } else { self.period() };
            tokio::select! {
                biased; // either will do: so that what happens depends on events alone
                () = self.renewed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn renew_once(&self) {
        let renewal = self.lease().renewal(self.held().now_ms());
        let change = self.table.change_node(&self.options.name, renewal.before.as_ref(), Some(&renewal.after));
        let applied = ask(change).await;
        if let Err(error) = &applied {
            warn!(%error, "the lease could not be renewed for sure");
        }
        self.lease().answered(renewal, applied.ok());
    }

    /// K4, M3: everything stops, and the next lease is another one.
    pub(super) fn start_anew(&self) {
        if self.lease().row().is_some() {
            warn!(node = self.options.name, "the lease is lost: everything hosted here stops, and starts anew");
            metrics::counter!(LEASES_LOST).increment(1);
        } else {
            debug!(node = self.options.name, "another process has this name, or had it: waiting for its lease to end");
        }
        self.held().drop_all();
        self.hosts.abandon();
        self.missing.store(usize::MAX, Ordering::Release);
        if self.stopped.load(Ordering::Acquire) {
            return;
        }
        let number = self.leases.fetch_add(1, Ordering::Relaxed) + 1;
        let mut lease = fresh_lease(&self.options, number as u16);
        lease.drain(true);
        self.joins_at.store(u64::MAX, Ordering::Release);
        *self.lease() = lease;
        self.renewed.notify_one();
    }

    /// Whoever comes back under its name, or after its lease was removed, takes shards only after others have taken what it
    /// had, so that none of them moves twice in a row; unless nobody else takes any.
    pub(super) fn join(&self, nodes: &[NodeRow]) {
        let (joins_at, now) = (self.joins_at.load(Ordering::Acquire), self.held().now_ms());
        if joins_at == 0 || self.draining.load(Ordering::Acquire) || !self.held().leased() {
            return;
        }
        let alone = nodes.iter().all(|node| node.draining || self.is_me(node));
        if alone || now >= joins_at {
            self.joins_at.store(0, Ordering::Release);
            self.lease().drain(false);
            self.renewed.notify_one();
        } else if joins_at == u64::MAX {
            self.joins_at.store(now + JOINS_AFTER_MS, Ordering::Release);
        }
    }

    /// Gives up all shards: what a node does first when it ends. Requests and sockets go on, with the new owners.
    pub async fn hand_over(&self) {
        self.draining.store(true, Ordering::Release);
        self.lease().drain(true);
        self.renewed.notify_one();
        let rest = async {
            while self.hosted_here() > 0 && self.lease().standing() != Standing::Lost {
                self.news.wake();
                tokio::time::sleep(self.period() / 10).await;
            }
        };
        if tokio::time::timeout(DRAIN, rest).await.is_err() {
            warn!(left = self.hosted_here(), "some shards are left to the end of the lease");
        }
    }

    /// Gives up the lease, if nothing is held under it: what a node does last.
    pub async fn leave(&self) {
        self.stopped.store(true, Ordering::Release);
        let empty = self.hosted_here() == 0;
        let row = {
            let mut lease = self.lease();
            self.held().drop_all();
            lease.end()
        };
        self.renewed.notify_one();
        if let Some(row) = row.filter(|_| empty) {
            if !self.remove_own(row).await {
                warn!("the lease is left to its end");
            }
            self.fabric.nudge();
        }
    }

    /// Removes the own row, also if a renewal was under way that came first.
    async fn remove_own(&self, mut row: NodeRow) -> bool {
        for _ in 0..LEAVE_ATTEMPTS {
            if let Ok(true) = ask(self.table.change_node(&self.options.name, Some(&row), None)).await {
                return true;
            }
            match ask(self.table.node(&self.options.name)).await {
                Ok(Some(now)) if now.incarnation == row.incarnation => row = now,
                Ok(_) => return true,
                Err(_) => {}
            }
        }
        false
    }
}

pub(super) fn fresh_lease(options: &MemberOptions, number: u16) -> OwnLease {
    let row = NodeRow {
        name: options.name.clone(),
        incarnation: options.id.incarnation(number),
        version: 0,
        address: options.address.clone(),
        draining: false,
    };
    OwnLease::new(row, options.terms)
}
