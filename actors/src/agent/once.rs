//! Requests that carry a key of the agent's choice, and must not run twice at a time, on whatever nodes they arrive.
//!
//! D1  A key is taken by one request at a time, until that says that it has ended, or for [`ONCE_MS`]: who took it may be
//!     gone with its node.
//! D2  What is taken lives in memory. Should the agent's shard get another owner while a request runs, then the same
//!     request on another node in that very time is not told apart; afterwards it finds the answer that was remembered.

use std::collections::BTreeMap;

use schema::rows::Timestamp;

use super::{Agent, Held};
use crate::api::Refusal;
use crate::effects::{Effects, Port, Reply};
use crate::limits::{ONCE_MAX, ONCE_MS};

/// Keys that are taken, and when each is free again at the latest.
pub(super) type Taken = BTreeMap<Box<str>, Timestamp>;

impl Agent {
    /// Takes a key, if it is free (D1).
    pub(super) fn begin_once(&mut self, now: Timestamp, port: Port, key: Box<str>, fx: &mut Effects) {
        let taken = &mut self.held.make().keys;
        taken.retain(|_, until| now < *until);
        let reply = if taken.contains_key(&key) {
            Ok(Reply::Begun(false))
        } else if taken.len() >= ONCE_MAX {
            Err(Refusal::Unavailable)
        } else {
            taken.insert(key, now.plus_ms(ONCE_MS));
            Ok(Reply::Begun(true))
        };
        fx.answer(port, reply);
    }

    /// A request has ended, and its key is free.
    pub(super) fn end_once(&mut self, key: &str) {
        if let Some(held) = self.held.get_mut() {
            held.keys.remove(key);
        }
        self.held.drop_if(Held::is_nothing);
    }
}
