//! Taking messages into the inbox and showing them to sockets.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, Pos};
use schema::rows::{
    AgentConversationRow, Book, ContactRow, HookKind, InboxRow, MessageRow, Pause, ReceiptRow, Timestamp,
};
use schema::store::Write;

use super::mutes::Muted;
use super::ops::Op;
use super::{After, Agent, View};
use crate::api::{Notice, SessionId};
use crate::conversation::events::{Delivery, PermitFacts};
use crate::effects::{Effects, Read};

impl Agent {
    /// This agent's side of the gates for a message from `sender`.
    pub(super) fn permit_facts(&self, sender: AgentId) -> PermitFacts {
        PermitFacts {
            handle: self.row.handle.clone(),
            status: self.row.status,
            blocks_sender: self.blocks.contains_key(&sender),
            has_contact: self.contacts.contains_key(&sender),
            inbox_mode: self.row.inbox_mode,
            backlog: self.head.backlog,
        }
    }

    pub(super) fn deliver(&mut self, now: Timestamp, delivery: Delivery, fx: &mut Effects) {
        let conversation = delivery.message.conversation;
        match self.views.get_mut(&conversation) {
            Some(View::Known(_)) => self.take(now, &delivery),
            Some(View::Loading(queue)) => queue.push(delivery),
            None => {
                self.views.insert(conversation, View::Loading(vec![delivery]));
                fx.reads.push(self.view_read(conversation));
            }
        }
    }

    /// The stored view of a conversation arrived. One that is already known is newer than any that was read.
    pub(super) fn view_found(
        &mut self,
        now: Timestamp,
        conversation: ConversationId,
        stored: Option<AgentConversationRow>,
    ) {
        if matches!(self.views.get(&conversation), Some(View::Known(_))) {
            return;
        }
        if let Some(View::Loading(queue)) = self.views.insert(conversation, View::Known(stored.unwrap_or_default())) {
            queue.iter().for_each(|delivery| self.take(now, delivery));
        }
    }

    /// Takes a message whose view is known: repeats are dropped (A3), so are those after a gap (A5), own
    /// ones echo, others get a position (A2).
    fn take(&mut self, now: Timestamp, delivery: &Delivery) {
        let message = &delivery.message;
        let (conversation, seq) = (message.conversation, message.seq);
        let Some(View::Known(view)) = self.views.get_mut(&conversation) else {
            return;
        };
        if seq <= view.last_seq {
            self.writer.then(After::Taken { conversation, seq, skipped: false, watched: None });
            return;
        }
        if delivery.after > view.last_seq {
            return; // A5: what comes before it is told again, and then this
        }
        let own = message.sender == self.row.id;
        if !own && delivery.peer.is_none() && self.head.backlog >= self.limits.backlog_max {
            // A member whose inbox is full takes nothing: it is in its history, never in its sync.
            view.last_seq = seq;
            let view = *view;
            self.writer.write(Write::AgentConversation(self.row.id, conversation, view));
            let watched = self.watched(None);
            self.writer.then(After::Taken { conversation, seq, skipped: true, watched });
            return;
        }
        let first_or_hidden = view.last_seq.0 == 0 || view.hidden;
        (view.last_seq, view.hidden) = (seq, false);
        if !own {
            if view.unread == 0 {
                view.oldest_unread = seq;
            }
            (view.unread, view.newest_unread) = (view.unread + 1, seq);
        }
        let view = *view;
        if !own || first_or_hidden {
            self.writer.write(Write::AgentConversation(self.row.id, conversation, view));
        }
        if own {
            self.take_own(delivery);
        } else {
            self.take_from_peer(delivery);
        }
        self.note_established(now, delivery);
        if delivery.ends {
            self.ops.push_back(Op::Expire(conversation, seq));
        }
        let watched = self.watched((!own).then_some(self.head.last_pos));
        self.writer.then(After::Taken { conversation, seq, skipped: false, watched });
    }

    fn take_own(&mut self, delivery: &Delivery) {
        let message = &delivery.message;
        if delivery.cold {
            let agent = self.row.id;
            for lapsed in self.sends.cold_stored(message.conversation, message.created_at) {
                self.writer.write(Write::ColdThreadRemove(agent, lapsed));
            }
            self.enter(Book::Cold, Write::ColdThread(agent, message.conversation, message.created_at));
        }
        self.writer.then(After::Echo(message.clone()));
    }

    fn take_from_peer(&mut self, delivery: &Delivery) {
        let message = &delivery.message;
        let (agent, pos) = (self.row.id, self.head.last_pos.next());
        self.head.last_pos = pos;
        self.head.backlog += 1;
        let receipt = ReceiptRow::waiting(pos);
        self.writer.write(Write::Inbox(agent, InboxRow { pos, message: message.clone() }));
        self.writer.write(Write::Receipt(agent, message.conversation, message.seq, receipt));
        self.writer.write(Write::InboxHead(agent, self.head));
        self.writer.then(After::Release(pos, message.clone()));
    }

    /// The first reply makes contacts of both, and gives the opener its cold slot back.
    fn note_established(&mut self, now: Timestamp, delivery: &Delivery) {
        let Some(opener) = delivery.established else { return };
        if opener == self.row.id {
            self.sends.cold_answered(delivery.message.conversation);
            self.writer.write(Write::ColdThreadRemove(opener, delivery.message.conversation));
        }
        let Some((peer, handle)) = delivery.peer.clone() else { return };
        if !self.contacts.contains_key(&peer) && !self.blocks.contains_key(&peer) {
            let contact = ContactRow { agent: peer, handle, notes: None, added_at: now };
            self.enter(Book::Contacts, Write::Contact(self.row.id, contact.clone()));
            self.contacts.insert(peer, contact);
        }
    }

    /// Asks for the next page of every socket that lags and may be shown more.
    pub(super) fn feed(&mut self, now: Timestamp, fx: &mut Effects) {
        if self.row.paused == Pause::Full {
            return;
        }
        for session in &mut self.sessions {
            if let Some((cursor, limit)) = session.next_page(now, fx) {
                self.pages.make().out += 1;
                fx.reads.push(Read::InboxFor(self.row.id, session.id, cursor, self.released, limit));
            }
        }
    }

    pub(super) fn page_found(
        &mut self,
        now: Timestamp,
        session: SessionId,
        rows: Vec<InboxRow>,
        bounds: (Pos, usize),
        fx: &mut Effects,
    ) {
        let (released, pages) = (self.released, &self.pages);
        let muted = Muted::of(self.state.as_deref(), now);
        let held = self.row.paused == Pause::Full;
        // A page for an earlier life began somewhere else.
        if let Some(session) = self.sessions.iter_mut().find(|other| other.id.is_same_life(session)) {
            if held {
                session.drop_page(); // asked for before the pause
            } else {
                let settled = |pos| pages.get().is_some_and(|pages| pages.settled.contains(&pos));
                session.page(rows, bounds, released, settled, muted, fx);
            }
        }
        if let Some(pages) = self.pages.get_mut() {
            pages.out = pages.out.saturating_sub(1);
        }
        self.pages.drop_if(|pages| pages.out == 0);
    }

    /// A delivery at this position is durable: shown live, held, or passed over.
    pub(super) fn release(&mut self, now: Timestamp, pos: Pos, message: &Arc<MessageRow>, fx: &mut Effects) {
        self.released = pos;
        let held = self.row.paused == Pause::Full;
        let muted = Muted::of(self.state.as_deref(), now).covers(message.sender, message.conversation);
        for session in &mut self.sessions {
            if held {
                session.hold(); // drained, in order, when the pause ends
            } else if muted {
                session.pass_over(pos);
            } else {
                session.release(pos, message, now, fx);
            }
        }
        if !muted {
            self.call_hooks(HookKind::MessageNew, || Notice::Message(Arc::clone(message)), fx);
        }
    }

    pub(super) fn written(&mut self, session: SessionId, frames: u32, through: Option<Pos>) {
        let Some(session) = self.sessions.iter_mut().find(|other| other.id == session) else {
            return;
        };
        let delivered = session.written(frames, through);
        if !delivered.is_empty() {
            self.ops.push_back(Op::Ack(delivered));
        }
    }
}
