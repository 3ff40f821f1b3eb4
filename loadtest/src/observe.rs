//! The receiving side: what one connection is shown, entered into the ledger.
//!
//! X1  A connection begins with an empty order: what it is shown again after a reconnect is no fault (ledger V5).
//! X2  Time runs for messages that were meant to go while this connection was up; what waited for it has no latency.

use std::sync::Arc;

use crate::ledger::{Lane, Order, Sequence, Sight};
use crate::meter::{Count, Timing};
use crate::wire::{Frame, Message, Presence, Tag};
use crate::world::World;

/// A delivery that is held back on purpose.
struct Held {
    lane: Arc<Lane>,
    tag: Tag,
    place: u64,
    conversation: String,
    seq: u32,
}

/// One connection of one agent.
pub struct Observer {
    world: Arc<World>,
    agent: u64,
    since_us: u64,
    order: Sequence,
    held: Option<Box<Held>>,
    first: u64,
}

/// What a frame was.
pub enum Shown {
    /// A message with this id.
    Message(String),
    /// Something that needs no acknowledgement.
    Other,
    /// Not what the contract says.
    Garbage(String),
}

impl Observer {
    /// A new connection of agent `n`.
    pub fn new(world: &Arc<World>, agent: u64) -> Self {
        let since_us = world.clock.now_us();
        Self { world: Arc::clone(world), agent, since_us, order: Sequence::default(), held: None, first: 0 }
    }

    /// Messages of this run that were seen here for the first time.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Takes a frame.
    pub fn frame(&mut self, text: &str) -> Shown {
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return Shown::Garbage(text.to_owned()) };
        let Some(payload) = frame.payload else { return Shown::Other };
        match &*frame.kind {
            "message.new" => match serde_json::from_str::<Message<'_>>(payload.get()) {
                Ok(message) => {
                    self.message(&message);
                    Shown::Message(message.id.into_owned())
                }
                Err(error) => Shown::Garbage(format!("{error} in {text}")),
            },
            "presence.update" => match serde_json::from_str::<Presence<'_>>(payload.get()) {
                Ok(presence) => {
                    self.presence(&presence);
                    Shown::Other
                }
                Err(error) => Shown::Garbage(format!("{error} in {text}")),
            },
            _ => Shown::Other,
        }
    }

    /// Takes a message, from a frame or a row of sync.
    pub fn message(&mut self, message: &Message<'_>) {
        let tag = Tag::decode(&message.client_msg_id).filter(|tag| tag.run == self.world.run);
        let known = tag.and_then(|tag| Some((tag, self.world.ledger.lane(tag.lane)?)));
        let Some((tag, lane)) = known else {
            self.order.next(&message.conversation_id, message.seq); // of another run, or a first hello
            return;
        };
        if self.world.roster.number(&message.sender) == Some(self.agent) {
            let order = self.order.next(&message.conversation_id, message.seq);
            if order != Order::Forward {
                lane.judge(order, Sight::Again, self.world.redelivery_allowed);
            }
            return;
        }
        let Some(place) = lane.audience().place(tag.to, self.agent) else { return lane.astray() };
        let conversation = message.conversation_id.clone().into_owned();
        self.inject(Held { lane, tag, place, conversation, seq: message.seq });
    }

    /// Enters a delivery; or does not, if that is what is tested.
    fn inject(&mut self, delivery: Held) {
        let (inject, met) = (&self.world.inject, self.world.inject.meet());
        if inject.drop == Some(met) {
            return;
        }
        if inject.swap == Some(met) {
            self.held = Some(Box::new(delivery));
            return;
        }
        let twice = inject.repeat == Some(met);
        self.enter(&delivery);
        if twice {
            self.enter(&delivery);
        }
        if let Some(held) = self.held.take() {
            self.enter(&held);
        }
    }

    fn enter(&mut self, delivery: &Held) {
        let Held { lane, tag, place, conversation, seq } = delivery;
        let order = self.order.next(conversation, *seq);
        let sight = lane.shown(tag.index, *place, *seq);
        lane.judge(order, sight, self.world.redelivery_allowed);
        if sight == Sight::First {
            self.first += 1;
            lane.meter().count(Count::Delivered);
            if tag.at_us >= self.since_us {
                lane.meter().done(Timing::Receipt, tag.at_us); // X2
            }
        }
    }

    /// A watched agent changed. Changes are live-only and may be told as one, so only the sight counts.
    fn presence(&self, presence: &Presence<'_>) {
        let said = presence.custom_message.as_deref().and_then(Tag::decode);
        let Some(tag) = said.filter(|tag| tag.run == self.world.run) else { return };
        let Some(lane) = self.world.ledger.lane(tag.lane) else { return };
        let whose = self.world.roster.number(&presence.handle) == Some(tag.to);
        let place = lane.audience().place(tag.to, self.agent).filter(|_| whose);
        let Some(place) = place else { return lane.astray() };
        if lane.shown(tag.index, place, 0) == Sight::First {
            lane.meter().count(Count::Delivered);
            lane.meter().done(Timing::Presence, tag.at_us);
        }
    }
}
