//! Reply coordination: several local repliers of one agent agree on who answers.
//!
//! C1  A claim is held by one holder at a time, for [`CLAIM_MS`] after its last renewal.
//! C2  Leases and claims live in memory: clients go on without them, so losing them costs a doubled answer at most.

use std::collections::BTreeMap;

use schema::rows::Timestamp;

use super::Agent;
use crate::api::{ReplyCommand, ReplyState};
use crate::effects::{Effects, Port, Reply};
use crate::limits::{CLAIM_MS, CLAIMS_MAX};

/// Leases by session and claims by message.
#[derive(Debug, Default)]
pub(super) struct Replies {
    leases: BTreeMap<String, Timestamp>,
    claims: BTreeMap<String, (String, Timestamp)>,
}

impl Replies {
    fn forget(&mut self, now: Timestamp) {
        self.leases.retain(|_, until| now < *until);
        self.claims.retain(|_, (_, until)| now < *until);
    }

    /// Makes room for one more by dropping what ends first.
    fn make_room(&mut self) {
        if self.leases.len() >= CLAIMS_MAX
            && let Some(first) = self.leases.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone())
        {
            self.leases.remove(&first);
        }
        if self.claims.len() >= CLAIMS_MAX
            && let Some(first) = self.claims.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone())
        {
            self.claims.remove(&first);
        }
    }

    fn active(&self, now: Timestamp) -> ReplyState {
        let until = self.leases.values().max().copied();
        ReplyState::Active(until.is_some(), until.unwrap_or(now))
    }

    fn claim(&mut self, now: Timestamp, messages: Vec<String>, holder: &str, defer: bool) -> ReplyState {
        if defer && !self.leases.is_empty() {
            return ReplyState::Claimed(0, true);
        }
        let mut claimed = 0;
        for message in messages {
            if self.claims.get(&message).is_some_and(|(other, _)| other != holder) {
                break;
            }
            self.make_room();
            self.claims.insert(message, (holder.to_owned(), now.plus_ms(CLAIM_MS)));
            claimed += 1;
        }
        ReplyState::Claimed(claimed, false)
    }
}

impl Agent {
    pub(super) fn coordinate(&mut self, now: Timestamp, port: Port, command: ReplyCommand, fx: &mut Effects) {
        let replies = self.replies.get_or_insert_default();
        replies.forget(now);
        let state = match command {
            ReplyCommand::Activate { session, ttl_ms } => {
                replies.make_room();
                let until = now.plus_ms(ttl_ms);
                replies.leases.insert(session, until);
                ReplyState::Active(true, until)
            }
            ReplyCommand::Deactivate(session) => {
                replies.leases.remove(&session);
                replies.active(now)
            }
            ReplyCommand::Ask => replies.active(now),
            ReplyCommand::Claim { messages, holder, defer } => replies.claim(now, messages, &holder, defer),
        };
        self.forget_replies(now, fx);
        fx.answer(port, Ok(Reply::Coordination(state)));
    }

    /// Drops what is over; without anything left the agent may leave memory.
    pub(super) fn forget_replies(&mut self, now: Timestamp, fx: &mut Effects) {
        let Some(replies) = &mut self.replies else { return };
        replies.forget(now);
        let ends = replies.leases.values().chain(replies.claims.values().map(|(_, until)| until)).min().copied();
        match ends {
            Some(at) => fx.wake(at),
            None => self.replies = None,
        }
    }
}
