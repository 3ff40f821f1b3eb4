//! The sending side of one link: queue to frames, heartbeat, window.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::frame::Frame;
use super::{Envelope, Link, Links, Payload, VERSION};
use crate::metrics::{LINK_BYTES, LINK_ENDS, LINK_MESSAGES, LINK_UPS};

/// Frames out that are not acknowledged.
pub(super) const WINDOW: u64 = 64;
/// Messages of one frame.
const FRAME_MESSAGES: usize = 128;
/// An empty frame goes out this often if no other does.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A peer that is silent for so long is gone.
pub(super) const SILENCE: Duration = Duration::from_millis(2_000);

pub(super) struct Pump<M> {
    links: Arc<Links<M>>,
    link: Arc<Link<M>>,
    inbox: ActorRef<Vec<u8>>,
    waiting: mpsc::Receiver<Envelope<M>>,
    /// Last batch sent, and last one of the peer that was acknowledged.
    number: u64,
    told: u64,
    up: bool,
}

impl<M: Payload> Pump<M> {
    pub(super) fn new(
        links: Arc<Links<M>>,
        link: Arc<Link<M>>,
        inbox: ActorRef<Vec<u8>>,
        waiting: mpsc::Receiver<Envelope<M>>,
    ) -> Self {
        Self { links, link, inbox, waiting, number: 0, told: 0, up: false }
    }

    /// Works until the link ends, whatever way.
    pub(super) async fn run(mut self, mut down: oneshot::Receiver<()>) {
        let why = self.work(&mut down).await;
        let peer = self.link.peer;
        self.links.forget(&self.link);
        if self.up {
            info!(peer = self.link.name, why, "a link to another node has ended");
            metrics::counter!(LINK_ENDS, "peer" => self.link.name.clone()).increment(1);
            self.links.receiver.lost(peer);
            self.links.gossip.linked(peer, false);
        }
    }

    async fn work(&mut self, down: &mut oneshot::Receiver<()>) -> &'static str {
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(FRAME_MESSAGES);
        loop {
            let open = self.up && self.number - self.link.acked.load(Ordering::Acquire) < WINDOW;
            tokio::select! {
                count = self.waiting.recv_many(&mut batch, FRAME_MESSAGES), if open => {
                    if count == 0 || !self.send(std::mem::take(&mut batch)) {
                        return "its session is gone";
                    }
                }
                () = self.link.wake.notified() => {}
                _ = beat.tick() => {
                    let silent = self.links.now_ms().saturating_sub(self.link.heard_at.load(Ordering::Acquire));
                    if u128::from(silent) >= SILENCE.as_millis() {
                        return "it is silent";
                    }
                    if !self.send(Vec::new()) {
                        return "its session is gone";
                    }
                }
                _ = &mut *down => return "its connection is gone",
            }
            if self.link.ended.load(Ordering::Acquire) {
                return "it was given up";
            }
            if !self.up && self.link.theirs.load(Ordering::Acquire) > 0 {
                self.come_up();
            }
            let unacked = self.link.received.load(Ordering::Acquire).saturating_sub(self.told);
            if unacked >= WINDOW / 4 && !self.send(Vec::new()) {
                return "its session is gone";
            }
        }
    }

    /// Both have heard of each other: what is sent from now on meets somebody who can answer.
    fn come_up(&mut self) {
        self.up = true;
        info!(peer = self.link.name, "a link to another node is up");
        metrics::counter!(LINK_UPS, "peer" => self.link.name.clone()).increment(1);
        self.links.links().insert(self.link.peer, Arc::clone(&self.link));
        self.links.gossip.linked(self.link.peer, true);
    }

    fn send(&mut self, messages: Vec<Envelope<M>>) -> bool {
        let (theirs, received) = (self.link.theirs.load(Ordering::Acquire), self.link.received.load(Ordering::Acquire));
        self.number += u64::from(!messages.is_empty());
        self.told = received;
        self.link.sent.store(self.number, Ordering::Release);
        metrics::counter!(LINK_MESSAGES, "peer" => self.link.name.clone()).increment(messages.len() as u64);
        let frame = Frame {
            version: VERSION,
            from: self.links.options.id,
            to: self.link.peer,
            connection: self.link.generation,
            number: self.number,
            received: (theirs, received),
            messages,
        };
        match rmp_serde::to_vec(&frame) {
            Ok(bytes) => {
                metrics::counter!(LINK_BYTES, "peer" => self.link.name.clone()).increment(bytes.len() as u64);
                self.inbox.cast(bytes).is_ok()
            }
            Err(error) => {
                warn!(%error, "a message does not encode: the link is made anew without it");
                false
            }
        }
    }
}
