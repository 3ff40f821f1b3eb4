//! A conversation: the log of its messages and the fan-out to its members. A state machine without I/O.
//!
//! `log` appends, `fanout` delivers, `gates` judges direct sends, `group` changes members and settings.
//!
//! L1  `seq` is taken and stored in one step; a refused or failed send takes none (contract S1).
//! L2  One message per (sender, client_msg_id): drafts in hand are unique by it, and the stored replay record is read
//!     before a draft is judged (contract S5).
//! L3  A send is settled as accepted only after the message and every delivery are durable (contract S6).
//! L4  `fanned_out` is stored with each append; an activation repeats every delivery above it before anything else is
//!     judged. Members drop repeats, so a crash at any point ends in exactly one delivery each.
//! L5  Members are told messages in seq order, and only after the append is durable.
//! L6  A batch that may have been applied is submitted until the store says that it was: giving its seqs back could
//!     store two messages under one.
//! L7  Who takes a message is a function of its seq and the member rows ([`MemberRow::takes`]), so a repeat after a crash
//!     goes to exactly those who belonged when it was stored.

pub mod events;
mod fanout;
pub mod gates;
pub mod group;
mod log;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, ConversationKind, Seq};
use schema::rows::{ColdRow, ConversationRow, GroupRow, MemberRow, MessageRow, MessageType, Pause, Role, Timestamp};
use schema::store::Write;

use self::events::{ConversationEvent, PermitFacts, SenderFacts, Settled};
use self::fanout::{FanOut, settle};
use self::gates::{Thread, judge};
use self::log::{Body, InFlight, NextBatch};
use crate::agent::events::AgentEvent;
use crate::agent::standing::counted;
use crate::api::{ConversationView, Draft, Refusal};
use crate::effects::{Effects, Event, Found, LoadedConversation, Read, Reply};
use crate::limits::{Bucket, FANOUT_MAX, Limits, REDELIVER_MS};

type DraftKey = (AgentId, String);

/// A send between arrival and judgement.
#[derive(Debug)]
struct Waiting {
    sender: SenderFacts,
    /// The other member of a direct conversation; `None` in a group.
    peer: Option<AgentId>,
    draft: Draft,
    replay_checked: bool,
    permit: Option<Option<PermitFacts>>,
}

/// Head and group as one: what is durable, or what will be.
#[derive(Debug, Clone)]
pub(super) struct Head {
    row: ConversationRow,
    group: Option<Arc<GroupRow>>,
}

impl Head {
    fn members(&self) -> &[MemberRow] {
        self.group.as_ref().map_or(&self.row.members, |group| &group.members)
    }

    /// The entry of somebody who takes part now.
    fn open_to(&self, agent: AgentId) -> Result<&MemberRow, Refusal> {
        match &self.group {
            Some(group) => group::open_to(group, agent),
            None => self.row.members.iter().find(|member| member.agent == agent).ok_or(Refusal::ConversationNotFound),
        }
    }

    /// The whole as a participant sees it.
    fn view(&self, agent: AgentId) -> Result<Reply, Refusal> {
        let from = self.open_to(agent)?.joined_at_seq;
        Ok(Reply::Conversation(Box::new(ConversationView { row: self.row.clone(), group: self.group.clone(), from })))
    }
}

/// The entity.
#[derive(Debug)]
pub struct Conversation {
    id: ConversationId,
    limits: Arc<Limits>,
    /// As durable.
    committed: Option<Head>,
    /// As it will be once everything assigned is durable.
    assigned: Option<Head>,
    waiting: HashMap<DraftKey, Waiting>,
    in_flight: Option<InFlight>,
    /// Judged while a batch was in flight.
    next: NextBatch,
    fan_out: BTreeMap<Seq, FanOut>,
    fanned_out: Seq,
    /// What members together may send to a group.
    rate: Bucket,
}

impl Conversation {
    /// An active conversation from what is stored; repeats unfinished deliveries (L4).
    pub fn activate(
        id: ConversationId,
        loaded: Option<LoadedConversation>,
        limits: Arc<Limits>,
        fx: &mut Effects,
    ) -> Self {
        let (head, unfinished) = loaded
            .map(|loaded| (Head { row: loaded.row, group: loaded.group.map(Arc::new) }, loaded.unfinished))
            .unzip();
        let mut this = Self {
            id,
            limits,
            fanned_out: head.as_ref().map_or(Seq(0), |head: &Head| head.row.fanned_out),
            committed: head.clone(),
            assigned: head,
            waiting: HashMap::new(),
            in_flight: None,
            next: NextBatch::default(),
            fan_out: BTreeMap::new(),
            rate: Bucket::default(),
        };
        for message in unfinished.unwrap_or_default() {
            let mut fan_out = FanOut::new(message);
            (fan_out.replayed, fan_out.quiet) = (true, true);
            if let Some(head) = &this.committed {
                let message = &fan_out.message;
                fan_out.cold = head.row.cold.is_some_and(|cold| cold.sender == message.sender);
                fan_out.established = head.row.established;
                let ended = head.group.as_ref().is_some_and(|group| group.deleted.is_some());
                fan_out.ends = ended && message.seq == head.row.last_seq;
            }
            this.begin_fan_out(fan_out, fx);
        }
        this
    }

    /// Nothing is under way: the entity can be dropped and activated again at no loss.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_none() && self.next.is_empty() && self.fan_out.is_empty()
    }

    /// One step.
    pub fn on(&mut self, now: Timestamp, event: ConversationEvent, fx: &mut Effects) {
        match event {
            ConversationEvent::Send { sender, peer, draft } => self.send(*sender, peer, *draft, fx),
            ConversationEvent::Group { port, actor, command } => self.command(now, port, actor, *command, fx),
            ConversationEvent::Locate { sender, client_msg_id } => {
                fx.tells.push(Event::Agent(sender, AgentEvent::Located(client_msg_id, self.peer_of(sender))));
            }
            ConversationEvent::Permit { sender, client_msg_id, facts } => {
                self.permit((sender, client_msg_id), facts.map(|facts| *facts), now, fx);
            }
            ConversationEvent::Taken { agent, seq, backlog, skipped, watched } => {
                self.taken(agent, seq, (backlog, skipped), watched, fx);
            }
            ConversationEvent::Confirm(message) => self.settle_replay(message, fx),
            ConversationEvent::Accuse { by, target, signal } => {
                let opened_by =
                    self.committed.as_ref().filter(|head| head.row.last_seq > Seq(0)).map(|head| head.row.opened_by);
                fx.tells.extend(opened_by.and_then(|opener| counted(opener, target, by, signal)));
            }
            ConversationEvent::View(port, caller) => fx.answer(port, self.view(caller)),
            ConversationEvent::Typing { sender, handle, start } => self.typing(sender, handle, start, fx),
            ConversationEvent::Stored(outcome) => self.stored(now, outcome, fx),
            ConversationEvent::Found(Found::Replay(sender, key, message)) => {
                self.replay_checked((sender, key), message, now, fx);
            }
            ConversationEvent::Found(_) => debug_assert!(false, "E2: a conversation reads replays only"),
            ConversationEvent::Wake => self.wake(fx),
        }
        if !self.fan_out.is_empty() || !self.waiting.is_empty() {
            fx.wake(now.plus_ms(REDELIVER_MS));
        }
        self.assert_ordered();
    }

    /// Messages whose deliveries are not all durable.
    fn unfinished(&self) -> usize {
        let in_flight = self.in_flight.as_ref().map_or(0, |batch| batch.messages.len());
        self.waiting.len() + in_flight + self.next.messages.len() + self.fan_out.len()
    }

    fn send(&mut self, sender: SenderFacts, peer: Option<AgentId>, draft: Draft, fx: &mut Effects) {
        let key = (sender.agent, draft.client_msg_id.clone());
        let under_way = |fan_out: &FanOut| {
            let message = &fan_out.message;
            message.kind != MessageType::System && message.sender == key.0 && message.client_msg_id == key.1
        };
        let in_flight = self.in_flight.iter().flat_map(|batch| &batch.messages);
        // L2: its answer is already on the way, to the agent and not to this one attempt.
        if self.waiting.contains_key(&key)
            || in_flight.chain(&self.next.messages).chain(self.fan_out.values()).any(under_way)
        {
            return;
        }
        if self.unfinished() >= FANOUT_MAX {
            return settle(sender.agent, key.1, Err(Refusal::Unavailable), fx);
        }
        fx.reads.push(Read::Replay(key.0, key.1.clone()));
        if let Some(peer) = peer {
            let event = AgentEvent::PermitAsked { conversation: self.id, sender: key.0, client_msg_id: key.1.clone() };
            fx.tells.push(Event::Agent(peer, event));
        }
        self.waiting.insert(key, Waiting { sender, peer, draft, replay_checked: false, permit: None });
    }

    fn replay_checked(&mut self, key: DraftKey, message: Option<Arc<MessageRow>>, now: Timestamp, fx: &mut Effects) {
        match message {
            Some(message) => {
                if self.waiting.remove(&key).is_some() {
                    self.settle_replay(message, fx);
                }
            }
            None => {
                if let Some(waiting) = self.waiting.get_mut(&key) {
                    waiting.replay_checked = true;
                }
                self.judge_if_complete(key, now, fx);
            }
        }
    }

    /// Answers with a stored message, once its deliveries are durable (L3).
    fn settle_replay(&mut self, message: Arc<MessageRow>, fx: &mut Effects) {
        if message.conversation != self.id {
            // The key was used in another conversation, which alone knows whether its fan-out is done.
            let event = ConversationEvent::Confirm(Arc::clone(&message));
            return fx.tells.push(Event::Conversation(message.conversation, event));
        }
        if let Some(fan_out) = self.fan_out.get_mut(&message.seq) {
            fan_out.replayed = true;
            return;
        }
        if self.committed.as_ref().is_none_or(|head| message.seq > head.row.last_seq) {
            return; // its batch is still under way, and so is its answer
        }
        let (sender, key) = (message.sender, message.client_msg_id.clone());
        let skipped = (self.id.kind == ConversationKind::Group).then(Vec::new);
        settle(sender, key, Ok(Settled { message, replayed: true, backlog: None, skipped }), fx);
    }

    fn permit(&mut self, key: DraftKey, facts: Option<PermitFacts>, now: Timestamp, fx: &mut Effects) {
        if let Some(waiting) = self.waiting.get_mut(&key) {
            waiting.permit = Some(facts);
            self.judge_if_complete(key, now, fx);
        }
    }

    fn judge_if_complete(&mut self, key: DraftKey, now: Timestamp, fx: &mut Effects) {
        let complete =
            |waiting: &Waiting| waiting.replay_checked && (waiting.peer.is_none() || waiting.permit.is_some());
        if !self.waiting.get(&key).is_some_and(complete) {
            return;
        }
        let Some(waiting) = self.waiting.remove(&key) else {
            return;
        };
        let Some(peer) = waiting.peer else { return self.judge_for_group(waiting, now, fx) };
        let recipient = waiting.permit.flatten();
        let row = self.assigned.as_ref().map(|head| &head.row);
        let thread = Thread {
            established: row.is_some_and(|row| row.established),
            is_reply: row.is_some_and(|row| row.opened_by != key.0),
            cold: row.and_then(|row| row.cold).map(|cold| (cold.sender, cold.since)),
        };
        let attachment = waiting.draft.attachment.as_ref().is_none_or(|attachment| attachment.usable);
        let verdict = judge(&waiting.sender, thread, recipient.as_ref(), attachment, self.limits.backlog_max);
        match (verdict, recipient) {
            (Ok(cold), Some(recipient)) => {
                self.append_direct(waiting.sender, (peer, recipient.handle), waiting.draft, cold, now, fx);
            }
            (Ok(_), None) => settle(key.0, key.1, Err(Refusal::AgentNotFound), fx),
            (Err(refusal), _) => settle(key.0, key.1, Err(refusal), fx),
        }
    }

    fn append_direct(
        &mut self,
        sender: SenderFacts,
        peer: (AgentId, String),
        draft: Draft,
        cold: bool,
        now: Timestamp,
        fx: &mut Effects,
    ) {
        let (id, author) = (self.id, sender.agent);
        let head = self.assigned.get_or_insert_with(|| Head { row: new_row(id, &sender, &peer, now), group: None });
        let (established, opened_by) = (head.row.established, head.row.opened_by);
        let replies = !established && head.row.last_seq > Seq(0) && opened_by != author;
        self.append_draft(sender, draft, &[peer.1], now);
        let (Some(head), Some(fan_out)) = (&mut self.assigned, self.next.messages.last_mut()) else { return };
        (fan_out.cold, fan_out.established) = (cold, replies);
        if replies {
            (head.row.established, head.row.cold) = (true, None);
        } else if cold {
            head.row.cold = Some(ColdRow { sender: author, since: fan_out.message.created_at });
        }
        self.commit_next(fx);
    }

    fn judge_for_group(&mut self, waiting: Waiting, now: Timestamp, fx: &mut Effects) {
        let (sender, key) = (waiting.sender.agent, waiting.draft.client_msg_id.clone());
        match self.group_gates(&waiting, now) {
            Ok(handles) => {
                self.append_draft(waiting.sender, waiting.draft, &handles, now);
                self.commit_next(fx);
            }
            Err(refusal) => settle(sender, key, Err(refusal), fx),
        }
    }

    /// The gates of a group send, in the contract's order; the handles that a mention may name.
    fn group_gates(&mut self, waiting: &Waiting, now: Timestamp) -> Result<Vec<String>, Refusal> {
        let sender = &waiting.sender;
        if sender.paused != Pause::None {
            return Err(Refusal::PausedByOwner);
        }
        let group = self.assigned.as_ref().and_then(|head| head.group.as_ref());
        let group = group.ok_or(Refusal::ConversationNotFound)?;
        group::open_to(group, sender.agent)?;
        sender.rate.map_err(|retry_after_ms| Refusal::RateLimited { retry_after_ms })?;
        let per_second = self.limits.group_sends_per_second;
        self.rate.take(now, per_second).map_err(|retry_after_ms| Refusal::GroupLimit { retry_after_ms })?;
        if waiting.draft.attachment.as_ref().is_some_and(|attachment| !attachment.usable) {
            self.rate.give_back(per_second);
            return Err(Refusal::AttachmentNotFound);
        }
        if waiting.draft.mentions.is_empty() {
            return Ok(Vec::new());
        }
        let others = group.active().filter(|member| member.agent != sender.agent);
        Ok(others.map(|member| member.handle.clone()).collect())
    }

    fn append_draft(&mut self, sender: SenderFacts, draft: Draft, handles: &[String], now: Timestamp) {
        let body = Body {
            sender: (sender.agent, sender.handle),
            client_msg_id: Some(draft.client_msg_id),
            kind: draft.kind,
            content: draft.content,
            metadata: draft.metadata,
            mentions: draft.mentions.into_iter().filter(|handle| handles.contains(handle)).collect(),
        };
        let seq = self.append(body, now);
        if let (Some(attachment), Some(seq)) = (draft.attachment, seq) {
            self.next.rows.push(Write::AttachmentUse(attachment.id, self.id, seq));
        }
    }

    fn view(&self, caller: AgentId) -> Result<Reply, Refusal> {
        self.committed.as_ref().ok_or(Refusal::ConversationNotFound)?.view(caller)
    }

    fn typing(&self, sender: AgentId, handle: String, start: bool, fx: &mut Effects) {
        let Some(head) = &self.committed else { return };
        if head.open_to(sender).is_err() {
            return;
        }
        let direct = head.group.is_none();
        let others = head.members().iter().filter(|member| member.is_active() && member.agent != sender);
        others.for_each(|member| {
            let handle = handle.clone();
            let event = AgentEvent::PeerTyping { conversation: self.id, peer: sender, handle, start, direct };
            fx.tells.push(Event::Agent(member.agent, event));
        });
    }

    /// The other member of a direct conversation, if `agent` is one.
    fn peer_of(&self, agent: AgentId) -> Option<AgentId> {
        let row = &self.committed.as_ref()?.row;
        row.members.iter().find(|member| member.agent == agent)?;
        row.members.iter().find(|member| member.agent != agent).map(|peer| peer.agent)
    }

    fn assert_ordered(&self) {
        let last = |head: &Option<Head>| head.as_ref().map_or(Seq(0), |head| head.row.last_seq);
        debug_assert!(last(&self.committed) <= last(&self.assigned), "L1 {:?}", self.id);
        debug_assert!(self.fanned_out <= last(&self.committed), "L4 {:?}", self.id);
    }
}

fn new_row(id: ConversationId, sender: &SenderFacts, peer: &(AgentId, String), now: Timestamp) -> ConversationRow {
    let member = |agent, handle: &str| MemberRow {
        agent,
        handle: handle.to_owned(),
        joined_at_seq: Seq(1),
        role: Role::Member,
        joined_at: now,
        left_at_seq: None,
    };
    ConversationRow {
        id,
        members: vec![member(sender.agent, &sender.handle), member(peer.0, &peer.1)],
        established: false,
        cold: None,
        opened_by: sender.agent,
        last_seq: Seq(0),
        fanned_out: Seq(0),
        created_at: now,
        last_message_at: now,
    }
}
