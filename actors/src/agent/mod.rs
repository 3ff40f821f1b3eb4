//! An agent: account, relations, inbox, sockets and outgoing sends. A state machine without I/O.
//!
//! A1  What follows a write runs after it is durable, in order (`writer`).
//! A2  Positions are assigned in the order in which deliveries arrive, and become visible in that order: no row ever
//!     appears below one that was already shown (contract S2, S7).
//! A3  A delivery at or below a conversation's `last_seq` is a repeat and changes nothing.
//! A5  A delivery after one that this agent has not taken is not taken: a restart lost the one before, which is told again.
//! A4  Changes of existing receipts run one after the other (`ops`), so that no delivery moves backwards (S17).

mod claims;
pub mod events;
mod hooks;
mod inbox;
mod invites;
mod mutes;
mod notices;
mod once;
mod ops;
mod presence;
mod relations;
mod replies;
mod requests;
mod sends;
mod sessions;
pub(crate) mod standing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, Pos, Seq};
use schema::rows::{
    AgentConversationRow, AgentRow, AgentStateRow, BlockRow, Book, ContactRow, HookKind, InboxHeadRow, MessageRow,
    Timestamp,
};
use schema::store::Write;

use self::events::AgentEvent;
use self::notices::Notices;
use self::ops::{Op, Ops};
use self::replies::Replies;
use self::sessions::Session;
use crate::api::{CloseReason, Refusal, ToSession};
use crate::compact::{Spare, Table};
use crate::conversation::events::{ConversationEvent, Delivery, Watched};
use crate::effects::{Effects, Event, Found, LoadedAgent, Port, Read, Reply};
use crate::limits::{Bucket, Limits, SEND_FORGET_MS, VIEWS_KEPT};
use crate::writer::Writer;

/// What happens once the writes before it are durable (A1).
#[derive(Debug)]
enum After {
    Answer(Port, Result<Reply, Refusal>),
    /// The delivery at this position may be shown.
    Release(Pos, Arc<MessageRow>),
    /// An own message may be echoed.
    Echo(Arc<MessageRow>),
    /// The conversation may count this member as done.
    Taken {
        conversation: ConversationId,
        seq: Seq,
        skipped: bool,
        watched: Option<Watched>,
    },
    /// The receipt operation under way is durable.
    OpDone,
    /// A position left the backlog.
    Settled(Pos),
    /// The floor of the inbox was this before (O3).
    RoseFrom(Pos),
    /// Tell somebody.
    Tell(Event),
    /// Close all sockets.
    CloseAll(CloseReason),
}

/// This agent's view of one conversation: being read, or known.
#[derive(Debug)]
enum View {
    Loading(Vec<Delivery>),
    Known(AgentConversationRow),
}

/// Pages for sockets that are being read, and what changed meanwhile.
#[derive(Debug, Default)]
struct Pages {
    out: u32,
    settled: BTreeSet<Pos>,
}

/// What requests hold until they end; most hold nothing.
#[derive(Debug, Default)]
struct Held {
    /// Keys that must not run twice at a time.
    keys: once::Taken,
    /// Invitations set aside while somebody is being added.
    invites: u32,
}

impl Held {
    fn is_nothing(&self) -> bool {
        self.keys.is_empty() && self.invites == 0
    }
}

/// The entity. A million of them lie in memory: what most of them have none of takes one word.
#[derive(Debug)]
pub struct Agent {
    row: Arc<AgentRow>,
    limits: Arc<Limits>,
    requests: Bucket,
    head: InboxHeadRow,
    /// Everything at or below is durable and may be shown (A2).
    released: Pos,
    contacts: Table<AgentId, ContactRow>,
    blocks: Table<AgentId, BlockRow>,
    views: Table<ConversationId, View>,
    sessions: Vec<Session>,
    writer: Writer<After>,
    ops: Ops,
    /// Pages for sockets that are being read.
    pages: Spare<Pages>,
    sends: sends::Sends,
    /// Agents it has reported: most have reported nobody.
    reported: Spare<BTreeSet<AgentId>>,
    /// Mutes, presence, webhooks and the like: most agents have none.
    state: Option<Box<AgentStateRow>>,
    /// Made by the first notice: most agents never need it.
    notices: Option<Box<Notices>>,
    /// Made by the first lease or claim.
    replies: Option<Box<Replies>>,
    /// Of requests that run.
    held: Spare<Held>,
    /// When its presence was last shown to whoever keeps copies.
    shown_at: Timestamp,
}

impl Agent {
    /// An active agent from what is stored.
    pub fn activate(loaded: LoadedAgent, limits: Arc<Limits>) -> Self {
        let mut reported: Spare<BTreeSet<AgentId>> = Spare::default();
        if !loaded.reported.is_empty() {
            reported.make().extend(loaded.reported);
        }
        Self {
            row: Arc::new(loaded.row),
            limits,
            requests: Bucket::default(),
            released: loaded.head.last_pos,
            head: loaded.head,
            contacts: loaded.contacts.into_iter().map(|contact| (contact.agent, contact)).collect(),
            blocks: loaded.blocks.into_iter().map(|block| (block.agent, block)).collect(),
            views: Table::default(),
            sessions: Vec::new(),
            writer: Writer::default(),
            ops: Ops::default(),
            pages: Spare::default(),
            sends: sends::Sends::new(loaded.cold),
            reported,
            state: loaded.state.map(Box::new),
            notices: None,
            replies: None,
            held: Spare::default(),
            shown_at: Timestamp(0),
        }
    }

    /// Nothing is under way and no socket is held: the entity can be dropped and activated again at no loss.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.replies.is_none() && !self.is_said() && self.is_quiet()
    }

    /// Nothing is under way.
    pub fn is_quiet(&self) -> bool {
        let loading = |view: &View| matches!(view, View::Loading(_));
        self.writer.is_idle() && self.ops.is_empty() && self.sends.is_empty() && !self.views.values().any(loading)
    }

    /// One step.
    pub fn on(&mut self, now: Timestamp, event: AgentEvent, fx: &mut Effects) {
        match event {
            AgentEvent::Request(port, request) => self.request(now, port, request, fx),
            AgentEvent::Detach(session) => self.detach(now, session, fx),
            AgentEvent::Written(session, frames, through) => self.written(session, frames, through),
            AgentEvent::Ack(message) => self.ops.push_back(Op::Ack(vec![message])),
            AgentEvent::ReadThrough(conversation, through) => {
                self.ops.push_back(Op::ReadThrough(conversation, through))
            }
            AgentEvent::Typing(conversation, start) => self.typing(now, conversation, start, fx),
            AgentEvent::PermitAsked { conversation, sender, client_msg_id } => {
                let facts = Some(Box::new(self.permit_facts(sender)));
                let event = ConversationEvent::Permit { sender, client_msg_id, facts };
                // The sender's agent is the one that asks on behalf of the draft; the answer names the draft.
                fx.tells.push(Event::Conversation(conversation, event));
            }
            AgentEvent::Deliver(delivery) => self.deliver(now, *delivery, fx),
            AgentEvent::Settled { client_msg_id, outcome } => self.send_settled(now, &client_msg_id, *outcome, fx),
            AgentEvent::Located(client_msg_id, peer) => self.located(now, client_msg_id, peer, fx),
            AgentEvent::PeerRead(read) => self.tell_all(HookKind::MessageRead, ToSession::Read(read), fx),
            AgentEvent::PeerPresence { peer, handle, presence } => self.peer_presence(peer, handle, presence, fx),
            AgentEvent::InviteDone(sent) => self.invite_done(now, sent),
            AgentEvent::Invited(invitation) => self.invited(now, invitation, fx),
            AgentEvent::GroupGone(end) => self.group_gone(end, fx),
            AgentEvent::EndOnce(key) => self.end_once(&key),
            AgentEvent::Signal(by, signal) => self.signal(now, by, signal),
            AgentEvent::WebhookFailing(id) => self.webhook_failing(id),
            AgentEvent::PeerTyping { conversation, peer, handle, start, direct } => {
                let silenced = direct && self.blocks.contains_key(&peer);
                if !silenced && !self.muted(now).covers(peer, conversation) {
                    self.push_all(&ToSession::Typing { conversation, sender: handle, start }, fx);
                }
            }
            AgentEvent::Stored(outcome) => {
                let after = self.writer.stored(now, outcome, fx);
                self.run(now, after, fx);
            }
            AgentEvent::Found(found) => self.found(now, found, fx),
            AgentEvent::Wake => self.wake(now, fx),
            AgentEvent::Moved => {
                self.wake(now, fx);
                self.forward_again(now, fx);
            }
        }
        self.settle_step(now, fx);
    }

    /// What every step ends with: next receipt operation, next batch, next pages.
    fn settle_step(&mut self, now: Timestamp, fx: &mut Effects) {
        self.next_op(now, fx);
        let mut ready = self.writer.flush(fx);
        while !ready.is_empty() {
            self.run(now, ready, fx);
            self.next_op(now, fx);
            ready = self.writer.flush(fx);
        }
        self.feed(now, fx);
        debug_assert!(self.released <= self.head.last_pos, "A2 {:?}", self.row.id);
    }

    /// Runs what became true (A1).
    fn run(&mut self, now: Timestamp, after: Vec<After>, fx: &mut Effects) {
        for after in after {
            match after {
                After::Answer(port, reply) => fx.answer(port, reply),
                After::Release(pos, message) => self.release(now, pos, &message, fx),
                After::Echo(message) => {
                    let released = self.released;
                    self.sessions.iter_mut().for_each(|session| session.echo(released, &message, fx));
                }
                After::Taken { conversation, seq, skipped, watched } => {
                    let (agent, backlog) = (self.row.id, self.head.backlog);
                    let event = ConversationEvent::Taken { agent, seq, backlog, skipped, watched };
                    fx.tells.push(Event::Conversation(conversation, event));
                }
                After::OpDone => self.ops.done(),
                After::RoseFrom(_) => {}
                After::Settled(pos) => {
                    if let Some(pages) = self.pages.get_mut() {
                        pages.settled.insert(pos);
                    }
                    self.sessions.iter_mut().for_each(|session| session.settled(pos));
                }
                After::Tell(event) => fx.tells.push(event),
                After::CloseAll(reason) => {
                    let before = self.presence(now);
                    let sessions = std::mem::take(&mut self.sessions);
                    fx.pushes.extend(sessions.iter().map(|session| (session.id, ToSession::Close(reason))));
                    if !sessions.is_empty() {
                        self.went(now, &before, fx);
                    }
                }
            }
        }
    }

    fn found(&mut self, now: Timestamp, found: Found, fx: &mut Effects) {
        match found {
            Found::AgentConversation(conversation, view) => self.view_found(now, conversation, view),
            Found::InboxFor(session, rows, through, limit) => self.page_found(now, session, rows, (through, limit), fx),
            Found::Replay(_, key, message) => self.replay_found(now, &key, message, fx),
            found @ (Found::Inbox(_) | Found::Receipts(_) | Found::Unread(_)) => self.op_found(now, found),
            Found::Watchers(watchers) => self.watchers_found(now, &watchers, fx),
            Found::Agent(_) | Found::Conversation(_) | Found::Owner(_) => {
                debug_assert!(false, "E2: only the shard activates")
            }
        }
    }

    fn wake(&mut self, now: Timestamp, fx: &mut Effects) {
        self.writer.retry(fx);
        self.sessions.iter_mut().for_each(|session| session.unstall(now));
        self.expire_mutes(now, fx);
        self.fade(now, fx);
        self.forget_replies(now, fx);
        self.sends.forget(now);
        if !self.sends.is_empty() {
            fx.wake(now.plus_ms(SEND_FORGET_MS));
        }
        if self.views.len() > VIEWS_KEPT && self.writer.is_idle() && self.ops.is_at_rest() {
            self.views.retain(|_, view| matches!(view, View::Loading(_)));
        }
    }

    fn state_mut(&mut self) -> &mut AgentStateRow {
        self.state.get_or_insert_default()
    }

    fn save_state(&mut self) {
        let row = self.state.clone().unwrap_or_default();
        self.enter(Book::State, Write::AgentState(self.row.id, row));
    }

    /// Writes an entry of a book; the account names the book from its first entry on.
    fn enter(&mut self, book: Book, entry: Write) {
        if !self.row.books.has(book) {
            let row = Arc::make_mut(&mut self.row);
            row.books = row.books.with(book);
            self.writer.write(Write::Agent(Box::new(row.clone())));
        }
        self.writer.write(entry);
    }

    fn view_read(&self, conversation: ConversationId) -> Read {
        Read::AgentConversation(self.row.id, conversation)
    }
}
