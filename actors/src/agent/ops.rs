//! Changes of existing receipts, one at a time.
//!
//! O1  An operation reads, decides and writes; the next one starts after those writes are durable, so it reads what
//!     the one before left (A4). Acks that wait together are one operation.
//!     What a socket was shown and no operation has settled is as it was stored, so acks of it read nothing.
//! O2  A receipt leaves `Stored` exactly once: then its inbox row goes and the backlog shrinks by one.
//! O3  The floor of the inbox rises with what is settled, in the same batch or a later one: no row is ever below it. Who
//!     reads from outside is given the floor that is durable, or would miss what a crash brings back.

use std::collections::VecDeque;

use schema::ids::{AgentId, ConversationId, MessageId, Pos, Seq};
use schema::rows::{DeliveryState, InboxRow, ReceiptRow, Timestamp};
use schema::store::Write;

use super::{After, Agent, View};
use crate::agent::events::AgentEvent;
use crate::api::PeerRead;
use crate::compact::Spare;
use crate::effects::{Effects, Event, Found, FoundUnread, Port, Read, Reply, UnreadRange};
use crate::limits::ACK_PAGE;

/// A change of receipts.
#[derive(Debug)]
pub(super) enum Op {
    Ack(Vec<MessageId>),
    AckThrough {
        port: Port,
        through: Pos,
        acked: u32,
    },
    MarkRead(Port, MessageId),
    ReadThrough(ConversationId, Seq),
    Hide(Port, MessageId),
    HideAll(Port, ConversationId),
    /// The conversation shows in the list, although nothing was written in it yet.
    Open(Port, ConversationId),
    /// Deliveries of a conversation before this seq leave the backlog unseen.
    Expire(ConversationId, Seq),
}

impl Op {
    fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::MarkRead(_, message) | Self::Hide(_, message) => Some(message.conversation),
            Self::ReadThrough(conversation, _) | Self::HideAll(_, conversation) | Self::Open(_, conversation) => {
                Some(*conversation)
            }
            Self::Ack(_) | Self::AckThrough { .. } | Self::Expire(..) => None,
        }
    }
}

/// Operations that wait, and the one that is under way.
#[derive(Debug, Default)]
pub(super) struct Ops(Spare<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Op>,
    under_way: Option<Op>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }
}

impl Ops {
    pub(super) fn is_empty(&self) -> bool {
        self.0.get().is_none_or(Queue::is_empty)
    }

    /// None is under way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.0.get().is_none_or(|queue| queue.under_way.is_none())
    }

    pub(super) fn push_back(&mut self, op: Op) {
        self.0.make().waiting.push_back(op);
    }

    fn push_front(&mut self, op: Op) {
        self.0.make().waiting.push_front(op);
    }

    /// The next one, if none is under way. Acks that wait together are one.
    fn next(&mut self) -> Option<Op> {
        let queue = self.0.get_mut().filter(|queue| queue.under_way.is_none())?;
        let mut op = queue.waiting.pop_front()?;
        if let Op::Ack(messages) = &mut op {
            while messages.len() < ACK_PAGE
                && let Some(Op::Ack(more)) = queue.waiting.pop_front_if(|next| matches!(next, Op::Ack(_)))
            {
                messages.extend(more);
            }
        }
        Some(op)
    }

    fn start(&mut self, op: Op) {
        self.0.make().under_way = Some(op);
    }

    fn take(&mut self) -> Option<Op> {
        self.0.get_mut()?.under_way.take()
    }

    /// The one under way is durable.
    pub(super) fn done(&mut self) {
        self.take();
        self.0.drop_if(Queue::is_empty);
    }
}

impl Agent {
    /// Starts the next operation if none is under way.
    pub(super) fn next_op(&mut self, now: Timestamp, fx: &mut Effects) {
        let Some(op) = self.ops.next() else { return };
        let known = if let Op::Ack(messages) = &op { self.unsettled(messages) } else { None };
        if known.is_none() {
            fx.reads.push(self.read_for(&op));
        }
        self.ops.start(op);
        if let Some(receipts) = known {
            self.op_found(now, Found::Receipts(receipts));
        }
    }

    /// Receipts of messages that a socket was shown, if they can be told without reading (O1).
    fn unsettled(&self, messages: &[MessageId]) -> Option<Vec<(MessageId, ReceiptRow)>> {
        let place = |message: &MessageId| self.sessions.iter().find_map(|session| session.unsettled(*message));
        messages.iter().map(|message| Some((*message, ReceiptRow::waiting(place(message)?)))).collect()
    }

    fn read_for(&self, op: &Op) -> Read {
        let agent = self.row.id;
        let unread = |conversation, from, through| Read::Unread(agent, UnreadRange { conversation, from, through });
        match op {
            Op::Ack(messages) => Read::Receipts(agent, messages.clone()),
            Op::AckThrough { through, .. } => Read::Inbox(agent, self.head.floor, *through, ACK_PAGE),
            Op::MarkRead(_, message) | Op::Hide(_, message) => unread(message.conversation, message.seq, message.seq),
            Op::ReadThrough(conversation, through) => unread(*conversation, Seq(0), *through),
            Op::Expire(..) => {
                Read::Inbox(agent, self.head.floor, self.head.last_pos, self.limits.backlog_max as usize + 1)
            }
            // An empty range: only the view is wanted.
            Op::HideAll(_, conversation) | Op::Open(_, conversation) => unread(*conversation, Seq(1), Seq(0)),
        }
    }

    pub(super) fn op_found(&mut self, now: Timestamp, found: Found) {
        let Some(op) = self.ops.take() else { return };
        if let (Found::Unread(found), Some(conversation)) = (&found, op.conversation()) {
            self.view_found(now, conversation, Some(found.view));
        }
        let op = match (op, found) {
            (Op::Ack(messages), Found::Receipts(receipts)) => {
                self.ack(now, receipts);
                Op::Ack(messages)
            }
            (Op::AckThrough { port, through, acked }, Found::Inbox(rows)) => {
                self.ack_page(now, port, (through, acked), rows)
            }
            (Op::MarkRead(port, message), Found::Unread(found)) => {
                let receipt = self.read_range(now, message.conversation, &found);
                self.writer.then(After::Answer(port, Ok(Reply::Receipt(receipt))));
                Op::MarkRead(port, message)
            }
            (Op::ReadThrough(conversation, through), Found::Unread(found)) => {
                self.read_range(now, conversation, &found);
                Op::ReadThrough(conversation, through)
            }
            (Op::Hide(port, message), Found::Unread(found)) => {
                self.hide(now, message, &found);
                self.writer.then(After::Answer(port, Ok(Reply::Done)));
                Op::Hide(port, message)
            }
            (Op::HideAll(port, conversation), Found::Unread(_)) => {
                self.hide_all(conversation);
                self.writer.then(After::Answer(port, Ok(Reply::Done)));
                Op::HideAll(port, conversation)
            }
            (Op::Open(port, conversation), Found::Unread(_)) => {
                if let Some(View::Known(view)) = self.views.get(&conversation) {
                    self.writer.write(Write::AgentConversation(self.row.id, conversation, *view));
                }
                self.writer.then(After::Answer(port, Ok(Reply::Done)));
                Op::Open(port, conversation)
            }
            (Op::Expire(conversation, before), Found::Inbox(rows)) => {
                self.expire(conversation, before, rows);
                Op::Expire(conversation, before)
            }
            (op, _) => {
                debug_assert!(false, "O1: an answer to another question");
                op
            }
        };
        self.ops.start(op);
        self.writer.then(After::OpDone);
    }

    /// Moves one receipt to `state` at least; everything that follows from that (O2).
    fn advance(
        &mut self,
        now: Timestamp,
        message: MessageId,
        mut receipt: ReceiptRow,
        state: DeliveryState,
    ) -> ReceiptRow {
        if receipt.state >= state {
            return receipt;
        }
        if receipt.state == DeliveryState::Stored
            && let Some(pos) = receipt.pos
        {
            self.settle(pos);
            self.writer.write(Write::InboxHead(self.row.id, self.head));
        }
        receipt.state = state;
        receipt.delivered_at.get_or_insert(now);
        if state == DeliveryState::Read {
            receipt.read_at.get_or_insert(now);
        }
        self.writer.write(Write::Receipt(self.row.id, message.conversation, message.seq, receipt));
        receipt
    }

    /// Nothing waits at or below, and nothing comes back after a crash (O3): a rise that is not durable yet counts for
    /// nothing.
    pub(super) fn durable_floor(&self) -> Pos {
        let rose = self
            .writer
            .waiting()
            .find_map(|after| if let After::RoseFrom(floor) = after { Some(*floor) } else { None });
        rose.unwrap_or(self.head.floor)
    }

    /// All up to there is settled with what is written next (O3).
    fn raise_floor(&mut self, to: Pos) {
        if to > self.head.floor {
            self.writer.then(After::RoseFrom(self.head.floor));
            self.head.floor = to;
        }
    }

    /// A delivery leaves the inbox (O2, O3). The caller writes the head.
    fn settle(&mut self, pos: Pos) {
        self.head.backlog = self.head.backlog.saturating_sub(1);
        if self.head.backlog == 0 {
            self.raise_floor(self.head.last_pos);
        } else if pos == self.head.floor.next() {
            self.raise_floor(pos);
        }
        self.writer.write(Write::InboxRemove(self.row.id, pos));
        self.writer.then(After::Settled(pos));
    }

    fn ack(&mut self, now: Timestamp, receipts: Vec<(MessageId, ReceiptRow)>) {
        let mut done = std::collections::HashSet::new();
        for (message, receipt) in receipts {
            // The same message may have been acked twice in one group; the second time it is no longer `Stored`.
            if receipt.pos.is_some() && done.insert(message) {
                self.advance(now, message, receipt, DeliveryState::Delivered);
            }
        }
    }

    /// The conversation ended: what waits in it is dropped. The receipt says delivered, at no time; no client sees it.
    fn expire(&mut self, conversation: ConversationId, before: Seq, rows: Vec<InboxRow>) {
        let waiting = rows.into_iter().filter(|row| {
            let message = &row.message;
            message.conversation == conversation && message.seq < before
        });
        for row in waiting {
            let receipt = ReceiptRow { state: DeliveryState::Delivered, ..ReceiptRow::waiting(row.pos) };
            self.settle(row.pos);
            self.writer.write(Write::Receipt(self.row.id, conversation, row.message.seq, receipt));
        }
        self.writer.write(Write::InboxHead(self.row.id, self.head));
    }

    fn ack_page(&mut self, now: Timestamp, port: Port, (through, acked): (Pos, u32), rows: Vec<InboxRow>) -> Op {
        let acked = acked + rows.len() as u32;
        let last_page = rows.len() < ACK_PAGE;
        // O3: all that waited up to there goes now, with the same head. What is not released was not read.
        let settled = if last_page { Some(through.min(self.released)) } else { rows.last().map(|row| row.pos) };
        self.raise_floor(settled.unwrap_or_default());
        for row in rows {
            let id = MessageId { conversation: row.message.conversation, seq: row.message.seq };
            self.advance(now, id, ReceiptRow::waiting(row.pos), DeliveryState::Delivered);
        }
        if last_page {
            self.writer.then(After::Answer(port, Ok(Reply::Acked(acked))));
        } else {
            self.ops.push_front(Op::AckThrough { port, through, acked });
        }
        Op::AckThrough { port, through, acked }
    }

    fn read_range(&mut self, now: Timestamp, conversation: ConversationId, found: &FoundUnread) -> ReceiptRow {
        let mut newly_read: Vec<(AgentId, Seq)> = Vec::new();
        let mut last = ReceiptRow::default();
        let mut uncounted = 0;
        for (seq, author, receipt) in &found.rows {
            let before = *receipt;
            last = self.advance(now, MessageId { conversation, seq: *seq }, before, DeliveryState::Read);
            if before.state < DeliveryState::Read {
                uncounted += u32::from(!before.hidden && *seq > found.view.hidden_through);
                newly_read.retain(|(other, _)| other != author);
                newly_read.push((*author, *seq));
            }
        }
        self.shrink_unread(conversation, found, uncounted);
        for (author, through) in newly_read {
            let read = PeerRead { conversation, reader: self.row.handle.clone(), through, at: now };
            self.writer.then(After::Tell(Event::Agent(author, AgentEvent::PeerRead(Box::new(read)))));
        }
        last
    }

    fn hide(&mut self, now: Timestamp, message: MessageId, found: &FoundUnread) {
        let agent = self.row.id;
        let Some((_, _, before)) = found.rows.first().copied() else {
            // An own message: it never had a receipt.
            let receipt = ReceiptRow { hidden: true, state: DeliveryState::Read, ..ReceiptRow::default() };
            self.writer.write(Write::Receipt(agent, message.conversation, message.seq, receipt));
            return;
        };
        if before.hidden {
            return;
        }
        let mut receipt = self.advance(now, message, before, DeliveryState::Delivered);
        receipt.hidden = true;
        self.writer.write(Write::Receipt(agent, message.conversation, message.seq, receipt));
        let counted = before.state < DeliveryState::Read && message.seq > found.view.hidden_through;
        self.shrink_unread(message.conversation, found, u32::from(counted));
    }

    fn hide_all(&mut self, conversation: ConversationId) {
        let Some(View::Known(view)) = self.views.get_mut(&conversation) else {
            return;
        };
        (view.hidden, view.hidden_through, view.unread) = (true, view.last_seq, 0);
        let view = *view;
        self.writer.write(Write::AgentConversation(self.row.id, conversation, view));
    }

    /// Takes `count` messages out of the unread counters, whose bounds outside the range were read.
    fn shrink_unread(&mut self, conversation: ConversationId, found: &FoundUnread, count: u32) {
        if count == 0 {
            return;
        }
        let (oldest, newest) = (found.oldest_left, found.newest_left);
        let stored_newest = found.view.newest_unread;
        let Some(View::Known(view)) = self.views.get_mut(&conversation) else {
            return;
        };
        view.unread = view.unread.saturating_sub(count);
        // Deliveries that came after the read are above everything it saw.
        let came_since = (view.newest_unread > stored_newest).then_some(view.newest_unread);
        if let Some(newest) = came_since.or(newest) {
            view.newest_unread = newest;
            view.oldest_unread = oldest.unwrap_or(newest);
        }
        let view = *view;
        self.writer.write(Write::AgentConversation(self.row.id, conversation, view));
    }
}
