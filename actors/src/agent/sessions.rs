//! The sockets of one agent and what each has been shown.
//!
//! ```text
//!   Pos    1 ...... cursor | cursor+1 ...... released | in flight
//!          offered on this |  lagging: fed from the   | not durable: shown to nobody
//!          socket          |  store, page by page     |
//! ```
//! S3  A socket is shown positions in increasing order. Live rows go straight to a socket only while it lags behind
//!     nothing; otherwise they wait in the store like the rest of the backlog.
//! S4  An echo keeps its place among the deliveries: on a lagging socket it waits until those before it were shown.
//! S5  A muted delivery is passed over; when its mute ends the socket goes back to it. What is still open on the socket
//!     is not shown a second time.
//! S15 Nothing is dropped for a full window: it stays stored, and the socket lags.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use schema::ids::{MessageId, Pos};
use schema::rows::{InboxRow, MessageRow, Timestamp};

use super::mutes::Muted;
use crate::api::{AckMode, CloseReason, SessionId, ToSession};
use crate::effects::Effects;
use crate::limits::{ECHOES_MAX, FEED_PAGE, STALL_MS, UNWRITTEN_MAX};

/// One socket.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    mode: AckMode,
    /// Everything at or below was offered (or needs no offer).
    cursor: Pos,
    lagging: bool,
    reading: bool,
    unwritten: u32,
    /// Shown and not yet settled, in order.
    open: VecDeque<(Pos, MessageId)>,
    /// Written on a socket without acks, and not yet settled.
    settling: BTreeMap<Pos, MessageId>,
    /// Frames beyond the window that stalls let through.
    bonus: u32,
    full_since: Option<Timestamp>,
    /// Lowest muted delivery that was passed over.
    passed_over: Option<Pos>,
    /// To be fed again from `passed_over` on.
    going_back: bool,
    /// Own messages that wait for the position they follow.
    echoes: VecDeque<(Pos, Arc<MessageRow>)>,
}

impl Session {
    /// A fresh socket: lags behind everything stored, which begins after `floor`.
    pub(super) fn new(id: SessionId, mode: AckMode, floor: Pos) -> Self {
        Self {
            id,
            mode,
            cursor: floor,
            lagging: true,
            reading: false,
            unwritten: 0,
            open: VecDeque::new(),
            settling: BTreeMap::new(),
            bonus: 0,
            full_since: None,
            passed_over: None,
            going_back: false,
            echoes: VecDeque::new(),
        }
    }

    fn credit(&self) -> usize {
        let unwritten = UNWRITTEN_MAX.saturating_sub(self.unwritten) as usize;
        match self.mode {
            AckMode::Explicit { window } => {
                unwritten.min(((window + self.bonus) as usize).saturating_sub(self.open.len()))
            }
            AckMode::OnWrite => unwritten,
        }
    }

    /// A delivery became durable.
    pub(super) fn release(&mut self, pos: Pos, message: &Arc<MessageRow>, now: Timestamp, fx: &mut Effects) {
        if self.lagging || self.credit() == 0 {
            self.lagging = true;
            self.watch_stall(now, fx);
            return;
        }
        self.show(pos, message, false, fx);
    }

    /// A delivery from a muted source became durable.
    pub(super) fn pass_over(&mut self, pos: Pos) {
        if !self.lagging {
            self.cursor = pos;
            self.passed_over.get_or_insert(pos);
        }
    }

    /// A mute ended: what was passed over comes before anything newer.
    pub(super) fn go_back(&mut self) {
        if self.passed_over.is_some() {
            (self.lagging, self.going_back) = (true, true);
        }
    }

    /// A delivery became durable that must not be pushed now.
    pub(super) fn hold(&mut self) {
        self.lagging = true;
    }

    /// An own message became durable, after everything through `after` was released.
    pub(super) fn echo(&mut self, after: Pos, message: &Arc<MessageRow>, fx: &mut Effects) {
        if !self.lagging && self.unwritten < UNWRITTEN_MAX {
            self.push_echo(message, fx);
        } else if self.echoes.len() < ECHOES_MAX {
            self.lagging = true;
            self.echoes.push_back((after, Arc::clone(message)));
        } else {
            fx.pushes.push((self.id, ToSession::Close(CloseReason::SlowConsumer)));
        }
    }

    /// What to read next for this socket, if it lags and may be shown more.
    pub(super) fn next_page(&mut self, now: Timestamp, fx: &mut Effects) -> Option<(Pos, usize)> {
        if !self.lagging || self.reading {
            return None;
        }
        if self.going_back {
            // Without acks, what was written is known by the highest place alone: that has to be settled first.
            if !self.open.is_empty() && self.mode == AckMode::OnWrite {
                return None;
            }
            let from = self.passed_over.take().map_or(self.cursor, |from| Pos(from.0.saturating_sub(1)));
            (self.cursor, self.going_back) = (self.cursor.min(from), false);
        }
        let credit = self.credit().min(FEED_PAGE);
        if credit == 0 {
            self.watch_stall(now, fx);
            return None;
        }
        self.reading = true;
        Some((self.cursor, credit))
    }

    /// A page read through `through` arrived; `settled` tells rows that were acked meanwhile.
    pub(super) fn page(
        &mut self,
        rows: Vec<InboxRow>,
        (through, limit): (Pos, usize),
        released: Pos,
        settled: impl Fn(Pos) -> bool,
        muted: Muted<'_>,
        fx: &mut Effects,
    ) {
        self.reading = false;
        if self.going_back {
            return; // read before the mute ended: what was passed over comes first
        }
        let complete = rows.len() < limit;
        for row in rows {
            self.flush_echoes(row.pos, fx);
            if row.pos > self.cursor && !settled(row.pos) && !self.is_open(row.pos) {
                if muted.covers(row.message.sender, row.message.conversation) {
                    self.passed_over.get_or_insert(row.pos);
                } else {
                    self.show(row.pos, &row.message, true, fx);
                }
            }
            self.cursor = self.cursor.max(row.pos);
        }
        if complete {
            self.cursor = self.cursor.max(through);
            self.flush_echoes(through.next(), fx);
            self.lagging = through < released || !self.echoes.is_empty() || self.going_back;
        }
    }

    /// A page arrived that must not be shown now: it is read again when it may.
    pub(super) fn drop_page(&mut self) {
        self.reading = false;
    }

    fn is_open(&self, pos: Pos) -> bool {
        self.settling.contains_key(&pos) || self.open.binary_search_by_key(&pos, |(pos, _)| *pos).is_ok()
    }

    /// Shows the echoes that belong before a position.
    fn flush_echoes(&mut self, before: Pos, fx: &mut Effects) {
        while self.echoes.front().is_some_and(|(after, _)| *after < before) {
            if let Some((_, message)) = self.echoes.pop_front() {
                self.push_echo(&message, fx);
            }
        }
    }

    fn push_echo(&mut self, message: &Arc<MessageRow>, fx: &mut Effects) {
        self.unwritten += 1;
        fx.pushes.push((self.id, frame(message, None, false)));
    }

    fn show(&mut self, pos: Pos, message: &Arc<MessageRow>, drained: bool, fx: &mut Effects) {
        debug_assert!(pos > self.cursor, "S3 {pos:?} after {:?}", self.cursor);
        self.cursor = pos;
        self.unwritten += 1;
        let at = self.open.partition_point(|(open, _)| *open < pos);
        self.open.insert(at, (pos, MessageId { conversation: message.conversation, seq: message.seq }));
        fx.pushes.push((self.id, frame(message, Some(pos), drained)));
    }

    /// Frames reached the transport; returns what a socket without acks has thereby delivered.
    pub(super) fn written(&mut self, frames: u32, through: Option<Pos>) -> Vec<MessageId> {
        self.unwritten = self.unwritten.saturating_sub(frames);
        let mut delivered = Vec::new();
        if let (AckMode::OnWrite, Some(through)) = (self.mode, through) {
            while self.open.front().is_some_and(|(pos, _)| *pos <= through) {
                if let Some((pos, message)) = self.open.pop_front() {
                    self.settling.insert(pos, message);
                    delivered.push(message);
                }
            }
        }
        delivered
    }

    /// Where a message lies in the inbox that was shown here and is not settled.
    pub(super) fn unsettled(&self, message: MessageId) -> Option<Pos> {
        let mut shown = self.open.iter().copied().chain(self.settling.iter().map(|(pos, message)| (*pos, *message)));
        shown.find(|(_, other)| *other == message).map(|(pos, _)| pos)
    }

    /// A delivery left the backlog, by whatever way: its place in the window is free.
    pub(super) fn settled(&mut self, pos: Pos) {
        self.settling.remove(&pos);
        if let Ok(at) = self.open.binary_search_by_key(&pos, |(pos, _)| *pos) {
            self.open.remove(at);
            (self.full_since, self.bonus) = (None, self.bonus.min(self.open.len() as u32));
        }
    }

    /// Lets one frame through when the window has been full for too long.
    pub(super) fn unstall(&mut self, now: Timestamp) {
        if self.full_since.is_some_and(|since| now.ms_since(since) >= STALL_MS) {
            self.bonus += 1;
            self.full_since = None;
        }
    }

    fn watch_stall(&mut self, now: Timestamp, fx: &mut Effects) {
        if matches!(self.mode, AckMode::Explicit { .. }) && !self.open.is_empty() && self.credit() == 0 {
            let since = *self.full_since.get_or_insert(now);
            fx.wake(since.plus_ms(STALL_MS));
        }
    }
}

fn frame(message: &Arc<MessageRow>, pos: Option<Pos>, drained: bool) -> ToSession {
    ToSession::Message { message: Arc::clone(message), pos, drained }
}
