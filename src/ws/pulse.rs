//! When a socket is pinged, given up as dead, or told to go: the times of its writing side, for agents and dashboards.
//!
//! U1  A peer that was pinged has [`PONG_DEADLINE`] to answer; pings go on meanwhile, and do not extend it.
//! U2  Sockets of a node that stops go one after the other, over [`DRAIN_SPREAD`].

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// A ping goes out this often; the contract's number.
const PING_EVERY: Duration = Duration::from_secs(45);
/// Its pong has to be back within this; the contract's number.
const PONG_DEADLINE: Duration = Duration::from_secs(30);
/// A drain closes sockets spread over this; the contract's number.
const DRAIN_SPREAD: Duration = Duration::from_secs(5);

/// What has to be done when the time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Nothing yet.
    Rest,
    /// Ping the peer.
    Ping,
    /// The peer is dead (U1).
    Dead,
    /// The node stops (U2).
    Leave,
}

/// The times of one socket.
#[derive(Debug)]
pub struct Pulse {
    ping_at: Instant,
    pong_by: Option<Instant>,
    close_at: Option<Instant>,
}

impl Pulse {
    /// Of a socket that has just opened.
    pub fn new() -> Self {
        Self { ping_at: Instant::now() + PING_EVERY, pong_by: None, close_at: None }
    }

    /// When to look again.
    pub fn next(&self) -> Instant {
        [Some(self.ping_at), self.pong_by, self.close_at].into_iter().flatten().min().unwrap_or(self.ping_at)
    }

    /// The peer answered.
    pub fn heard(&mut self) {
        self.pong_by = None;
    }

    /// The node stops (U2). Once.
    pub fn leave(&mut self) {
        self.close_at = Some(Instant::now() + DRAIN_SPREAD.mul_f64(rand::rng().random()));
    }

    /// It was told to go.
    pub fn is_leaving(&self) -> bool {
        self.close_at.is_some()
    }

    /// What is due now.
    pub fn beat(&mut self) -> Beat {
        let now = Instant::now();
        if self.close_at.is_some_and(|at| at <= now) {
            Beat::Leave
        } else if self.pong_by.is_some_and(|at| at <= now) {
            Beat::Dead
        } else if self.ping_at <= now {
            self.ping_at = now + PING_EVERY;
            self.pong_by.get_or_insert(now + PONG_DEADLINE);
            Beat::Ping
        } else {
            Beat::Rest
        }
    }
}
