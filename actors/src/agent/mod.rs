//! An agent: account, relations, inbox, sockets and outgoing sends. A state machine without I/O.
//!
//! A1  What follows a write runs after it is durable, in order (`writer`).
//! A2  Positions are assigned in the order in which deliveries arrive, and become visible in that order: no row ever
//!     appears below one that was already shown (contract S2, S7).
//! A3  A delivery at or below a conversation's `last_seq` is a repeat and changes nothing.
//! A4  Changes of existing receipts run one after the other (`ops`), so that no delivery moves backwards (S17).

pub mod events;
mod inbox;
mod notices;
mod ops;
mod relations;
mod sends;
mod sessions;
mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, KeyHash, Pos, Seq};
use schema::rows::{
    AgentConversationRow, AgentRow, AgentStatus, BlockRow, ContactRow, InboxHeadRow, MessageRow, Pause, Timestamp,
};
use schema::store::Write;
use subtle::ConstantTimeEq;

use self::events::{AgentEvent, AgentRequest};
use self::notices::Notices;
use self::ops::Op;
use self::sends::OutgoingSend;
use self::sessions::Session;
use self::writer::Writer;
use crate::api::{AckMode, CallerView, CloseReason, InboxView, ProfilePatch, Refusal, SessionId, ToSession};
use crate::conversation::events::{ConversationEvent, Delivery};
use crate::effects::{Effects, Event, Found, LoadedAgent, Port, Read, Reply};
use crate::limits::{Bucket, Limits, SEND_FORGET_MS, SOCKETS_MAX, VIEWS_KEPT};

/// What happens once the writes before it are durable (A1).
#[derive(Debug)]
enum After {
    Answer(Port, Result<Reply, Refusal>),
    /// The delivery at this position may be shown.
    Release(Pos, Arc<MessageRow>),
    /// An own message may be echoed.
    Echo(Arc<MessageRow>),
    /// The conversation may count this member as done.
    Taken(ConversationId, Seq),
    /// The receipt operation under way is durable.
    OpDone,
    /// A position left the backlog.
    Settled(Pos),
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

/// The entity.
#[derive(Debug)]
pub struct Agent {
    row: Arc<AgentRow>,
    limits: Arc<Limits>,
    requests: Bucket,
    head: InboxHeadRow,
    /// Everything at or below is durable and may be shown (A2).
    released: Pos,
    contacts: BTreeMap<AgentId, ContactRow>,
    blocks: BTreeMap<AgentId, BlockRow>,
    views: BTreeMap<ConversationId, View>,
    sessions: Vec<Session>,
    writer: Writer,
    ops: VecDeque<Op>,
    op: Option<Op>,
    /// Positions settled while pages for sockets are being read.
    settled: BTreeSet<Pos>,
    pages_out: u32,
    sends: sends::Sends,
    /// Made by the first notice: most agents never need it.
    notices: Option<Box<Notices>>,
}

impl Agent {
    /// An active agent from what is stored.
    pub fn activate(loaded: LoadedAgent, limits: Arc<Limits>) -> Self {
        Self {
            row: Arc::new(loaded.row),
            limits,
            requests: Bucket::default(),
            released: loaded.head.last_pos,
            head: loaded.head,
            contacts: loaded.contacts.into_iter().map(|contact| (contact.agent, contact)).collect(),
            blocks: loaded.blocks.into_iter().map(|block| (block.agent, block)).collect(),
            views: BTreeMap::new(),
            sessions: Vec::new(),
            writer: Writer::default(),
            ops: VecDeque::new(),
            op: None,
            settled: BTreeSet::new(),
            pages_out: 0,
            sends: sends::Sends::new(loaded.cold),
            notices: None,
        }
    }

    /// Nothing is under way and no socket is held: the entity can be dropped and activated again at no loss.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.is_quiet()
    }

    /// Nothing is under way.
    pub fn is_quiet(&self) -> bool {
        let loading = |view: &View| matches!(view, View::Loading(_));
        self.writer.is_idle()
            && self.op.is_none()
            && self.ops.is_empty()
            && self.sends.is_empty()
            && !self.views.values().any(loading)
    }

    /// One step.
    pub fn on(&mut self, now: Timestamp, event: AgentEvent, fx: &mut Effects) {
        match event {
            AgentEvent::Request(port, request) => self.request(now, port, request, fx),
            AgentEvent::Detach(session) => self.sessions.retain(|other| other.id != session),
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
            AgentEvent::PeerRead { conversation, reader, through, at } => {
                self.push_all(&ToSession::Read { conversation, reader, through, at }, fx);
            }
            AgentEvent::PeerTyping { conversation, peer, handle, start } => {
                if !self.blocks.contains_key(&peer) {
                    self.push_all(&ToSession::Typing { conversation, sender: handle, start }, fx);
                }
            }
            AgentEvent::Stored(outcome) => {
                let after = self.writer.stored(now, outcome, fx);
                self.run(now, after, fx);
            }
            AgentEvent::Found(found) => self.found(now, found, fx),
            AgentEvent::Wake => self.wake(now, fx),
        }
        self.settle_step(now, fx);
    }

    /// What every step ends with: next receipt operation, next batch, next pages.
    fn settle_step(&mut self, now: Timestamp, fx: &mut Effects) {
        self.next_op(fx);
        let mut ready = self.writer.flush(fx);
        while !ready.is_empty() {
            self.run(now, ready, fx);
            self.next_op(fx);
            ready = self.writer.flush(fx);
        }
        self.feed(now, fx);
        debug_assert!(self.released <= self.head.last_pos, "A2 {:?}", self.row.id);
    }

    fn request(&mut self, now: Timestamp, port: Port, request: AgentRequest, fx: &mut Effects) {
        match request {
            AgentRequest::Admit(key) => {
                let reply = self.admit(now, key);
                fx.answer(port, reply.map(Reply::Caller));
            }
            AgentRequest::Send(target, draft) => self.send(now, OutgoingSend::new(port, target, *draft, now), fx),
            AgentRequest::UpdateProfile(patch) => self.update_profile(now, port, *patch),
            AgentRequest::ReplaceKey(key) => self.replace_key(now, port, key),
            AgentRequest::Delete => self.delete(now, port),
            AgentRequest::PutContact { target, handle, notes } => self.put_contact(now, port, target, handle, notes),
            AgentRequest::Annotate(handle, notes) => self.annotate(port, &handle, notes, fx),
            AgentRequest::RemoveContact(handle) => self.remove_contact(port, &handle, fx),
            AgentRequest::Block(target, handle) => self.block(now, port, target, handle, fx),
            AgentRequest::Unblock(handle) => self.unblock(port, &handle, fx),
            AgentRequest::Inbox => {
                let held = self.row.paused == Pause::Full;
                let view = InboxView { through: self.released, backlog: self.head.backlog, held };
                fx.answer(port, Ok(Reply::Inbox(view)));
            }
            AgentRequest::AckThrough(pos) => {
                self.ops.push_back(Op::AckThrough { port, through: pos.min(self.released), acked: 0 });
            }
            AgentRequest::MarkRead(message) => self.ops.push_back(Op::MarkRead(port, message)),
            AgentRequest::HideMessage(message) => self.ops.push_back(Op::Hide(port, message)),
            AgentRequest::HideConversation(conversation) => self.ops.push_back(Op::HideAll(port, conversation)),
            AgentRequest::Attach(key, session, mode) => self.attach(port, key, session, mode, fx),
        }
    }

    fn check_key(&self, key: KeyHash) -> Result<(), Refusal> {
        let current = bool::from(self.row.key_hash.0.ct_eq(&key.0));
        if current && self.row.status != AgentStatus::Deleted { Ok(()) } else { Err(Refusal::Unauthorized) }
    }

    fn admit(&mut self, now: Timestamp, key: KeyHash) -> Result<CallerView, Refusal> {
        self.check_key(key)?;
        self.requests
            .take(now, self.limits.requests_per_second)
            .map_err(|retry_after_ms| Refusal::RateLimited { retry_after_ms })?;
        Ok(CallerView { account: Arc::clone(&self.row) })
    }

    fn attach(&mut self, port: Port, key: KeyHash, session: SessionId, mode: AckMode, fx: &mut Effects) {
        let usable = self.check_key(key).and_then(|()| match self.row.status {
            AgentStatus::Suspended => Err(Refusal::Suspended),
            _ => Ok(()),
        });
        if usable.is_ok() && self.sessions.len() >= SOCKETS_MAX {
            fx.pushes.push((session, ToSession::Close(CloseReason::TooManySockets)));
        } else if usable.is_ok() {
            self.sessions.push(Session::new(session, mode));
        }
        fx.answer(port, usable.map(|()| Reply::Caller(CallerView { account: Arc::clone(&self.row) })));
    }

    fn update_profile(&mut self, now: Timestamp, port: Port, patch: ProfilePatch) {
        let row = Arc::make_mut(&mut self.row);
        if let Some(display_name) = patch.display_name {
            row.display_name = display_name;
        }
        if let Some(description) = patch.description {
            row.description = description;
        }
        row.inbox_mode = patch.inbox_mode.unwrap_or(row.inbox_mode);
        row.group_invite_policy = patch.group_invite_policy.unwrap_or(row.group_invite_policy);
        row.updated_at = now;
        self.save_account(port);
    }

    fn replace_key(&mut self, now: Timestamp, port: Port, key: KeyHash) {
        let row = Arc::make_mut(&mut self.row);
        let old = std::mem::replace(&mut row.key_hash, key);
        row.updated_at = now;
        if old != key {
            self.writer.write(Write::KeyRemove(old));
        }
        self.save_account(port);
        self.writer.then(After::CloseAll(CloseReason::KeyRevoked));
    }

    fn delete(&mut self, now: Timestamp, port: Port) {
        let row = Arc::make_mut(&mut self.row);
        (row.status, row.updated_at) = (AgentStatus::Deleted, now);
        self.save_account(port);
        self.writer.then(After::CloseAll(CloseReason::KeyRevoked));
    }

    fn save_account(&mut self, port: Port) {
        self.writer.write(Write::Agent(Box::new(AgentRow::clone(&self.row))));
        self.writer.then(After::Answer(port, Ok(Reply::Account(Arc::clone(&self.row)))));
    }

    /// Runs what became true (A1).
    fn run(&mut self, now: Timestamp, after: Vec<After>, fx: &mut Effects) {
        for after in after {
            match after {
                After::Answer(port, reply) => fx.answer(port, reply),
                After::Release(pos, message) => {
                    self.released = pos;
                    let held = self.row.paused == Pause::Full;
                    for session in &mut self.sessions {
                        if held {
                            session.hold(); // drained, in order, when the pause ends
                        } else {
                            session.release(pos, &message, now, fx);
                        }
                    }
                }
                After::Echo(message) => {
                    let released = self.released;
                    self.sessions.iter_mut().for_each(|session| session.echo(released, &message, fx));
                }
                After::Taken(conversation, seq) => {
                    let (agent, backlog) = (self.row.id, self.head.backlog);
                    let event = ConversationEvent::Taken { agent, seq, backlog };
                    fx.tells.push(Event::Conversation(conversation, event));
                }
                After::OpDone => self.op = None,
                After::Settled(pos) => {
                    if self.pages_out > 0 {
                        self.settled.insert(pos);
                    }
                    self.sessions.iter_mut().for_each(|session| session.settled(pos));
                }
                After::Tell(event) => fx.tells.push(event),
                After::CloseAll(reason) => {
                    let sessions = std::mem::take(&mut self.sessions);
                    fx.pushes.extend(sessions.iter().map(|session| (session.id, ToSession::Close(reason))));
                }
            }
        }
    }

    fn found(&mut self, now: Timestamp, found: Found, fx: &mut Effects) {
        match found {
            Found::AgentConversation(conversation, view) => self.view_found(now, conversation, view),
            Found::InboxFor(session, rows, through, limit) => self.page_found(session, rows, (through, limit), fx),
            Found::Replay(_, key, message) => self.replay_found(now, &key, message, fx),
            found @ (Found::Inbox(_) | Found::Receipts(_) | Found::Unread(_)) => self.op_found(now, found),
            Found::Agent(_) | Found::Conversation(_) => debug_assert!(false, "E2: only the shard activates"),
        }
    }

    fn wake(&mut self, now: Timestamp, fx: &mut Effects) {
        self.writer.retry(fx);
        self.sessions.iter_mut().for_each(|session| session.unstall(now));
        self.sends.forget(now);
        if !self.sends.is_empty() {
            fx.wake(now.plus_ms(SEND_FORGET_MS));
        }
        if self.views.len() > VIEWS_KEPT && self.writer.is_idle() && self.op.is_none() {
            self.views.retain(|_, view| matches!(view, View::Loading(_)));
        }
    }

    fn view_read(&self, conversation: ConversationId) -> Read {
        Read::AgentConversation(self.row.id, conversation)
    }
}
