//! What was sent, acknowledged and delivered: the bookkeeping behind the verdict.
//!
//! V1  A message is expected at each of its recipients from the moment its send was acknowledged, and not before.
//! V2  Lost: acknowledged, and not seen by a recipient when everything has been drained.
//! V3  Duplicated: one send that is two rows of a log, or a message that one connection was shown twice.
//! V4  Out of order: a connection was shown a lower `seq` of a conversation after a higher one.
//! V5  Shown again on another connection is delivery at least once, and no fault.
//! V6  A message takes four bytes and a bit, and a bit per recipient, whatever is in it; a chunk is made when it is needed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::meter::Meter;

/// Messages of one chunk.
const CHUNK: u64 = 1 << 14;
/// Chunks of a lane: half a billion messages, in a table of half a megabyte.
const CHUNKS: usize = 1 << 15;

/// Who receives the messages of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The agent that the message names.
    Direct,
    /// The group that it names: agents `first + group * size ..`, all but the sender.
    Group { first: u64, size: u64 },
    /// Those who watch the agent it names: in a ring of agents, the `watchers` before it.
    Ring { first: u64, agents: u64, watchers: u64 },
}

impl Audience {
    /// Places of each message.
    fn fan(&self) -> u64 {
        match self {
            Self::Direct => 1,
            Self::Group { size, .. } => *size,
            Self::Ring { watchers, .. } => *watchers,
        }
    }

    /// The place of `agent` among the recipients of a message to `to`. `None`: it should not have got it.
    pub fn place(&self, to: u64, agent: u64) -> Option<u64> {
        match *self {
            Self::Direct => (to == agent).then_some(0),
            Self::Group { first, size } => {
                let place = agent.checked_sub(first + to.checked_mul(size)?)?;
                (place < size).then_some(place)
            }
            Self::Ring { first, agents, watchers } => {
                let (to, agent) = (to.checked_sub(first)?, agent.checked_sub(first)?);
                let before = (to + agents).checked_sub(agent)? % agents;
                (agent < agents && (1..=watchers).contains(&before)).then(|| before - 1)
            }
        }
    }
}

/// Whether a place saw a message before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The first time.
    First,
    /// Not the first time.
    Again,
    /// Nothing of this number was ever sent.
    Unknown,
}

struct Chunk {
    acked: Box<[AtomicU64]>,
    seqs: Box<[AtomicU32]>,
    seen: Box<[AtomicU64]>,
}

impl Chunk {
    fn new(fan: u64) -> Self {
        let zeros = |bits: u64| (0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let seqs = (0..CHUNK).map(|_| AtomicU32::new(0)).collect();
        Self { acked: zeros(CHUNK), seqs, seen: zeros(CHUNK * fan) }
    }
}

/// Sets a bit; whether it was clear.
fn set(bits: &[AtomicU64], at: u64) -> bool {
    let mask = 1 << (at % 64);
    bits[(at / 64) as usize].fetch_or(mask, Ordering::AcqRel) & mask == 0
}

fn get(bits: &[AtomicU64], at: u64) -> bool {
    bits[(at / 64) as usize].load(Ordering::Acquire) & (1 << (at % 64)) != 0
}

/// What a run comes to. The four after `redelivered` have to be zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Sends, each counted once however often it was repeated.
    pub sent: u64,
    /// Answered with success.
    pub acknowledged: u64,
    /// Answered with a refusal of the contract (a limit, a full inbox).
    pub refused: u64,
    /// Never answered, although they were repeated.
    pub unknown: u64,
    /// Deliveries that the acknowledged sends promise.
    pub expected: u64,
    /// Those that were seen.
    pub delivered: u64,
    /// Shown again on another connection: allowed (V5).
    pub redelivered: u64,
    /// V2.
    pub lost: u64,
    /// V3.
    pub duplicated: u64,
    /// V4.
    pub out_of_order: u64,
    /// Shown to somebody it was not for.
    pub astray: u64,
}

impl Verdict {
    /// Nothing is wrong. If everything was refused nothing was shown either, so that is wrong too.
    pub fn passed(&self) -> bool {
        self.lost + self.duplicated + self.out_of_order + self.astray == 0 && (self.sent == 0 || self.acknowledged > 0)
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            acknowledged: self.acknowledged + other.acknowledged,
            refused: self.refused + other.refused,
            unknown: self.unknown + other.unknown,
            expected: self.expected + other.expected,
            delivered: self.delivered + other.delivered,
            redelivered: self.redelivered + other.redelivered,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            out_of_order: self.out_of_order + other.out_of_order,
            astray: self.astray + other.astray,
        }
    }

    /// One line.
    pub fn line(&self) -> String {
        format!(
            "{}: sent {}, acknowledged {}, delivered {} of {}, lost {}, duplicated {}, out of order {}, astray {} \
             (refused {}, unknown {}, redelivered {})",
            if self.passed() { "PASSED" } else { "FAILED" },
            self.sent,
            self.acknowledged,
            self.delivered,
            self.expected,
            self.lost,
            self.duplicated,
            self.out_of_order,
            self.astray,
            self.refused,
            self.unknown,
            self.redelivered
        )
    }
}

/// The messages of one scenario.
pub struct Lane {
    id: u16,
    meter: Arc<Meter>,
    audience: Audience,
    chunks: Box<[OnceLock<Chunk>]>,
    sent: AtomicU64,
    excused: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    redelivered: AtomicU64,
    duplicated: AtomicU64,
    out_of_order: AtomicU64,
    astray: AtomicU64,
}

impl Lane {
    fn new(id: u16, audience: Audience, meter: Arc<Meter>) -> Self {
        let zero = AtomicU64::default;
        Self {
            id,
            meter,
            audience,
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            sent: zero(),
            excused: zero(),
            refused: zero(),
            unknown: zero(),
            redelivered: zero(),
            duplicated: zero(),
            out_of_order: zero(),
            astray: zero(),
        }
    }

    /// Its number within the run.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// What measures it.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Who receives.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// The number of the next message. `None`: the lane is full.
    pub fn next(&self) -> Option<u64> {
        let index = self.sent.fetch_add(1, Ordering::AcqRel);
        if index >= CHUNK * CHUNKS as u64 {
            self.sent.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        self.chunks[(index / CHUNK) as usize].get_or_init(|| Chunk::new(self.audience.fan()));
        Some(index)
    }

    fn chunk(&self, index: u64) -> Option<(&Chunk, u64)> {
        if index >= self.sent.load(Ordering::Acquire) {
            return None;
        }
        Some((self.chunks.get((index / CHUNK) as usize)?.get()?, index % CHUNK))
    }

    /// A send was answered with the message as stored; `excused` are places that will not see it.
    pub fn acknowledged(&self, index: u64, seq: u32, excused: impl IntoIterator<Item = u64>) {
        let Some((chunk, at)) = self.chunk(index) else { return };
        self.note_seq(chunk, at, seq);
        for place in excused {
            set(&chunk.seen, at * self.audience.fan() + place);
            self.excused.fetch_add(1, Ordering::Relaxed);
        }
        set(&chunk.acked, at);
    }

    /// A send was refused, or never answered.
    pub fn unanswered(&self, refused: bool) {
        if refused { &self.refused } else { &self.unknown }.fetch_add(1, Ordering::Relaxed);
    }

    /// A place was shown the message.
    pub fn shown(&self, index: u64, place: u64, seq: u32) -> Sight {
        let Some((chunk, at)) = self.chunk(index) else { return Sight::Unknown };
        self.note_seq(chunk, at, seq);
        if set(&chunk.seen, at * self.audience.fan() + place) { Sight::First } else { Sight::Again }
    }

    /// One send has one `seq`, whoever says it (V3). A `seq` of 0 says nothing.
    fn note_seq(&self, chunk: &Chunk, at: u64, seq: u32) {
        let known = chunk.seqs[at as usize].compare_exchange(0, seq, Ordering::AcqRel, Ordering::Acquire);
        if known.is_err_and(|known| seq != 0 && known != seq) {
            self.duplicated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Judges one sight of a message on one connection.
    pub fn judge(&self, order: Order, sight: Sight, redelivery_allowed: bool) {
        let fault = match (order, sight) {
            (_, Sight::Unknown) => &self.astray,
            (Order::Forward, Sight::First) => return,
            (Order::Forward, Sight::Again) => &self.redelivered,
            (Order::Back, Sight::First) => &self.out_of_order,
            (Order::Same | Order::Back, Sight::Again) if redelivery_allowed => &self.redelivered,
            (Order::Same, _) => &self.duplicated,
            (Order::Back, Sight::Again) => &self.out_of_order,
        };
        fault.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody was shown what is not for it.
    pub fn astray(&self) {
        self.astray.fetch_add(1, Ordering::Relaxed);
    }

    /// What it comes to by now.
    pub fn verdict(&self) -> Verdict {
        let fan = self.audience.fan();
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (mut acknowledged, mut lost) = (0, 0);
        for chunk in self.chunks.iter().map_while(OnceLock::get) {
            for (word, acked) in chunk.acked.iter().enumerate() {
                let acked = acked.load(Ordering::Acquire);
                acknowledged += u64::from(acked.count_ones());
                if fan == 1 {
                    lost += u64::from((acked & !chunk.seen[word].load(Ordering::Acquire)).count_ones());
                } else {
                    let set = (0..64).filter(|bit| acked & (1 << bit) != 0).map(|bit| word as u64 * 64 + bit);
                    let unseen =
                        |at| (at * fan..(at + 1) * fan).filter(|place| !get(&chunk.seen, *place)).count() as u64;
                    lost += set.map(unseen).sum::<u64>();
                }
            }
        }
        // The sender's own place is no delivery, nor is that of a member whose inbox is full.
        let expected = acknowledged * fan - load(&self.excused);
        Verdict {
            sent: load(&self.sent),
            acknowledged,
            refused: load(&self.refused),
            unknown: load(&self.unknown),
            expected,
            delivered: expected - lost,
            redelivered: load(&self.redelivered),
            lost,
            duplicated: load(&self.duplicated),
            out_of_order: load(&self.out_of_order),
            astray: load(&self.astray),
        }
    }
}

/// A `seq` beside the one before it on the same connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Higher, or the first.
    Forward,
    /// The same.
    Same,
    /// Lower.
    Back,
}

/// The order of one connection, per conversation.
#[derive(Debug, Default)]
pub struct Sequence(HashMap<Box<str>, u32>);

impl Sequence {
    /// Takes the next `seq` of a conversation.
    pub fn next(&mut self, conversation: &str, seq: u32) -> Order {
        let Some(last) = self.0.get_mut(conversation) else {
            self.0.insert(conversation.into(), seq);
            return Order::Forward;
        };
        match seq.cmp(last) {
            std::cmp::Ordering::Greater => {
                *last = seq;
                Order::Forward
            }
            std::cmp::Ordering::Equal => Order::Same,
            std::cmp::Ordering::Less => Order::Back,
        }
    }
}

/// The lanes of a run.
#[derive(Default)]
pub struct Ledger(RwLock<Vec<Arc<Lane>>>);

impl Ledger {
    /// A new lane.
    pub fn open(&self, audience: Audience, meter: &Arc<Meter>) -> Arc<Lane> {
        let mut lanes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // A plan is written by hand: it has no 65,536 scenarios, and if it had, they would be told apart no more.
        let lane = Arc::new(Lane::new(u16::try_from(lanes.len()).unwrap_or(u16::MAX), audience, Arc::clone(meter)));
        lanes.push(Arc::clone(&lane));
        lane
    }

    /// The lane that a message names.
    pub fn lane(&self, id: u16) -> Option<Arc<Lane>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(usize::from(id)).cloned()
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
