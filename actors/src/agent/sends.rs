//! Own sends under way, and the allowances they use.
//!
//! B1  One entry per `client_msg_id`: repeats while it is under way wait for the same outcome (contract S5).
//! B2  A cold slot is reserved while a send to a fresh conversation is under way and kept only if the message turned
//!     out cold; slots fall due after 24 h.
//! B3  Only what is stored counts against the send rate: replays and refusals give their token back.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, ConversationKind};
use schema::rows::{MessageRow, Pause, Timestamp};

use super::Agent;
use crate::api::{Draft, Profile, Refusal, Sent, Target};
use crate::compact::{Spare, Table};
use crate::conversation::events::{ConversationEvent, Outcome, SenderFacts};
use crate::effects::{Effects, Event, Port, Read, Reply};
use crate::limits::{Bucket, COLD_WINDOW_MS, SEND_FORGET_MS, window_allows};

/// A send as the gateway handed it over.
#[derive(Debug)]
pub(super) struct OutgoingSend {
    ports: Vec<Port>,
    target: Target,
    draft: Draft,
    since: Timestamp,
    /// What to answer unless the key was stored before.
    refusal: Option<Refusal>,
    /// Holds a cold slot (B2).
    reserved: bool,
    /// Was charged to the send rate (B3).
    charged: bool,
}

impl OutgoingSend {
    pub(super) fn new(port: Port, target: Target, draft: Draft, now: Timestamp) -> Self {
        Self { ports: vec![port], target, draft, since: now, refusal: None, reserved: false, charged: false }
    }
}

/// The send side of one agent. Most have nothing outgoing.
#[derive(Debug)]
pub(super) struct Sends {
    rate: Bucket,
    outgoing: Spare<Outgoing>,
}

#[derive(Debug, Default)]
struct Outgoing {
    under_way: Table<String, Box<OutgoingSend>>,
    cold: Vec<(ConversationId, Timestamp)>,
    reserved: u32,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.cold.is_empty() && self.reserved == 0
    }

    /// A cold slot is free, or how long to wait.
    fn cold_slot(&self, now: Timestamp, limit: Option<u32>) -> Result<(), u64> {
        window_allows(self.cold.iter().map(|(_, at)| *at), self.reserved as usize, limit, (now, COLD_WINDOW_MS))
    }
}

impl Sends {
    pub(super) fn new(cold: Vec<(ConversationId, Timestamp)>) -> Self {
        let mut outgoing: Spare<Outgoing> = Spare::default();
        if !cold.is_empty() {
            outgoing.make().cold = cold;
        }
        Self { rate: Bucket::default(), outgoing }
    }

    /// None is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.outgoing.get().is_none_or(|outgoing| outgoing.under_way.is_empty())
    }

    fn under_way(&self, key: &str) -> Option<&OutgoingSend> {
        self.outgoing.get()?.under_way.get(key).map(Box::as_ref)
    }

    fn under_way_mut(&mut self, key: &str) -> Option<&mut OutgoingSend> {
        self.outgoing.get_mut()?.under_way.get_mut(key).map(Box::as_mut)
    }

    /// A send ended, and its cold slot with it.
    fn end(&mut self, key: &str) -> Option<Box<OutgoingSend>> {
        let outgoing = self.outgoing.get_mut()?;
        let send = outgoing.under_way.remove(key)?;
        outgoing.reserved -= u32::from(send.reserved);
        self.outgoing.drop_if(Outgoing::is_empty);
        Some(send)
    }

    /// Notes a cold thread; returns those that have left the window and need not be remembered any longer.
    pub(super) fn cold_stored(&mut self, conversation: ConversationId, at: Timestamp) -> Vec<ConversationId> {
        let cold = &mut self.outgoing.make().cold;
        let lapsed = cold.extract_if(.., |(_, since)| at.ms_since(*since) >= COLD_WINDOW_MS);
        let lapsed = lapsed.map(|(lapsed, _)| lapsed).filter(|lapsed| *lapsed != conversation).collect();
        if !cold.iter().any(|(other, _)| *other == conversation) {
            cold.reserve_exact(1); // most have one, and nobody has many
            cold.push((conversation, at));
        }
        lapsed
    }

    pub(super) fn cold_answered(&mut self, conversation: ConversationId) {
        if let Some(outgoing) = self.outgoing.get_mut() {
            outgoing.cold.retain(|(other, _)| *other != conversation);
        }
        self.outgoing.drop_if(Outgoing::is_empty);
    }

    /// Drops sends that nobody settled; their requests have long been answered by their deadline.
    pub(super) fn forget(&mut self, now: Timestamp) {
        if let Some(Outgoing { under_way, reserved, .. }) = self.outgoing.get_mut() {
            under_way.retain(|_, send| {
                let lost = now.ms_since(send.since) >= SEND_FORGET_MS;
                *reserved -= u32::from(lost && send.reserved);
                !lost
            });
        }
        self.outgoing.drop_if(Outgoing::is_empty);
    }

    /// What is left of the send rate, and when all of it is back.
    pub(super) fn rate_left(&self, now: Timestamp, limit: Option<u32>) -> (u32, Timestamp) {
        (self.rate.left(now, limit), now.plus_ms(1_000))
    }

    /// What is left of the cold allowance, and when the next slot falls due.
    pub(super) fn cold_left(&self, now: Timestamp, limit: Option<u32>) -> (u32, Timestamp) {
        let (cold, reserved) =
            self.outgoing.get().map_or((&[][..], 0), |outgoing| (&outgoing.cold[..], outgoing.reserved));
        let counted = cold.iter().map(|(_, at)| *at).filter(|at| now.ms_since(*at) < COLD_WINDOW_MS);
        let used = counted.clone().count() + reserved as usize;
        let left = limit.map_or(u32::MAX, |limit| limit.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX)));
        (left, counted.min().unwrap_or(now).plus_ms(COLD_WINDOW_MS))
    }
}

impl Agent {
    pub(super) fn send(&mut self, now: Timestamp, mut send: OutgoingSend, fx: &mut Effects) {
        let key = send.draft.client_msg_id.clone();
        if let Some(under_way) = self.sends.under_way_mut(&key) {
            under_way.ports.append(&mut send.ports);
            if now.ms_since(under_way.since) < crate::limits::REDELIVER_MS {
                return;
            }
            // The first attempt may have been lost with its conversation's shard: ask again (L2 drops a repeat).
            under_way.since = now;
        } else {
            self.sends.outgoing.make().under_way.insert(key.clone(), Box::new(send));
        }
        fx.wake(now.plus_ms(SEND_FORGET_MS));
        self.forward(now, &key, fx);
    }

    /// Asks again for every send under way: what was asked may be lost (L2 drops a repeat).
    pub(super) fn forward_again(&mut self, now: Timestamp, fx: &mut Effects) {
        let outgoing = self.sends.outgoing.get();
        let keys: Vec<String> = outgoing.into_iter().flat_map(|outgoing| outgoing.under_way.keys()).cloned().collect();
        keys.iter().for_each(|key| self.forward(now, key, fx));
    }

    fn forward(&mut self, now: Timestamp, key: &str, fx: &mut Effects) {
        let Some(send) = self.sends.under_way(key) else {
            return;
        };
        match send.target {
            Target::Agent(peer) if peer == self.row.id => self.refuse_unless_replayed(key, Refusal::SelfTarget, fx),
            Target::Agent(peer) => {
                self.forward_to(now, key, ConversationId::direct(self.row.id, peer), Some(peer), fx);
            }
            Target::UnknownAgent => self.refuse_unless_replayed(key, Refusal::AgentNotFound, fx),
            Target::UnknownConversation => self.refuse_unless_replayed(key, Refusal::ConversationNotFound, fx),
            Target::Conversation(group) if group.kind == ConversationKind::Group => {
                self.forward_to(now, key, group, None, fx);
            }
            Target::Conversation(conversation) => {
                let event = ConversationEvent::Locate { sender: self.row.id, client_msg_id: key.to_owned() };
                fx.tells.push(Event::Conversation(conversation, event));
            }
        }
    }

    pub(super) fn located(&mut self, now: Timestamp, key: String, peer: Option<AgentId>, fx: &mut Effects) {
        match peer {
            Some(peer) => {
                self.forward_to(now, &key, ConversationId::direct(self.row.id, peer), Some(peer), fx);
            }
            None => self.refuse_unless_replayed(&key, Refusal::ConversationNotFound, fx),
        }
    }

    fn forward_to(
        &mut self,
        now: Timestamp,
        key: &str,
        conversation: ConversationId,
        peer: Option<AgentId>,
        fx: &mut Effects,
    ) {
        let per_second = self.limits.sends_per_second;
        let Some(outgoing) = self.sends.outgoing.get_mut() else { return };
        let cold_slot = outgoing.cold_slot(now, self.limits.cold_threads);
        let Some(send) = outgoing.under_way.get_mut(key) else { return };
        let rate = if send.charged { Ok(()) } else { self.sends.rate.take(now, per_second) };
        if peer.is_some() && cold_slot.is_ok() && !send.reserved {
            send.reserved = true;
            outgoing.reserved += 1;
        }
        send.charged |= rate.is_ok();
        let sender = SenderFacts {
            agent: self.row.id,
            handle: self.row.handle.clone(),
            status: self.row.status,
            paused: self.row.paused,
            is_system: self.row.is_system,
            blocks_peer: peer.is_some_and(|peer| self.blocks.contains_key(&peer)),
            cold_slot,
            rate,
        };
        let draft = Box::new(send.draft.clone());
        fx.tells
            .push(Event::Conversation(conversation, ConversationEvent::Send { sender: Box::new(sender), peer, draft }));
    }

    /// No conversation will judge this send; the replay record still comes first (contract S5).
    fn refuse_unless_replayed(&mut self, key: &str, refusal: Refusal, fx: &mut Effects) {
        if let Some(send) = self.sends.under_way_mut(key) {
            let paused = self.row.paused != Pause::None;
            send.refusal = Some(if paused { Refusal::PausedByOwner } else { refusal });
            fx.reads.push(Read::Replay(self.row.id, key.to_owned()));
        }
    }

    pub(super) fn replay_found(&mut self, now: Timestamp, key: &str, found: Option<Arc<MessageRow>>, fx: &mut Effects) {
        match found {
            // Stored is not yet delivered: its conversation answers when it is (contract S6).
            Some(message) => {
                fx.tells.push(Event::Conversation(message.conversation, ConversationEvent::Confirm(message)));
            }
            None => {
                if let Some(refusal) = self.sends.under_way(key).and_then(|send| send.refusal.clone()) {
                    self.send_settled(now, key, Err(refusal), fx);
                }
            }
        }
    }

    pub(super) fn send_settled(&mut self, now: Timestamp, key: &str, outcome: Outcome, fx: &mut Effects) {
        let Some(send) = self.sends.end(key) else { return };
        if outcome.as_ref().is_ok_and(|settled| !settled.replayed) {
            self.warn(now, fx);
        } else if send.charged {
            self.sends.rate.give_back(self.limits.sends_per_second);
        }
        let warn = self.limits.backlog_warn;
        let reply = outcome.map(|settled| Sent {
            message: settled.message,
            replayed: settled.replayed,
            backlog: settled.backlog.filter(|(_, count)| *count >= warn),
            skipped: settled.skipped,
            author: Profile { display_name: self.row.display_name.clone(), is_system: self.row.is_system },
        });
        for port in send.ports {
            fx.answer(port, reply.clone().map(Reply::Sent));
        }
    }
}
