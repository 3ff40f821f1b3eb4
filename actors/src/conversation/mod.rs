//! A conversation: the log of its messages and the fan-out to its members. A state machine without I/O.
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

pub mod events;
pub mod gates;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, Seq};
use schema::rows::{ColdRow, ConversationRow, MemberRow, MessageRow, Timestamp};
use schema::store::{StoreError, Write};

use self::events::{ConversationEvent, Delivery, PermitFacts, SenderFacts, Settled};
use self::gates::{Thread, judge};
use crate::agent::events::AgentEvent;
use crate::api::{ConversationView, Draft, Refusal};
use crate::effects::{Effects, Event, Found, LoadedConversation, Read, Reply, Stored};
use crate::limits::{BATCH_RETRY_MS, FANOUT_MAX, Limits, REDELIVER_MS};

type DraftKey = (AgentId, String);

/// A send between arrival and judgement.
#[derive(Debug)]
struct Waiting {
    sender: SenderFacts,
    peer: AgentId,
    draft: Draft,
    replay_checked: bool,
    permit: Option<Option<PermitFacts>>,
}

/// A judged message between its append and its last delivery.
#[derive(Debug)]
struct FanOut {
    message: Arc<MessageRow>,
    cold: bool,
    established: bool,
    waiting_for: Vec<AgentId>,
    backlog: Option<(AgentId, u32)>,
    replayed: bool,
}

/// One batch on its way to the store.
#[derive(Debug)]
struct InFlight {
    writes: Vec<Write>,
    messages: Vec<FanOut>,
    /// To be submitted again.
    retry: bool,
    /// Some attempt had an unknown outcome, so no later refusal can prove that the batch was not applied (L6).
    maybe_applied: bool,
}

/// The entity.
#[derive(Debug)]
pub struct Conversation {
    id: ConversationId,
    limits: Limits,
    /// As durable.
    committed: Option<ConversationRow>,
    /// As it will be once everything assigned is durable.
    assigned: Option<ConversationRow>,
    waiting: HashMap<DraftKey, Waiting>,
    in_flight: Option<InFlight>,
    /// Judged while a batch was in flight: the next one.
    next: Vec<FanOut>,
    fan_out: BTreeMap<Seq, FanOut>,
    fanned_out: Seq,
}

impl Conversation {
    /// An active conversation from what is stored; repeats unfinished deliveries (L4).
    pub fn activate(id: ConversationId, loaded: Option<LoadedConversation>, limits: Limits, fx: &mut Effects) -> Self {
        let (row, unfinished) = loaded.map(|loaded| (loaded.row, loaded.unfinished)).unzip();
        let fanned_out = row.as_ref().map_or(Seq(0), |row: &ConversationRow| row.fanned_out);
        let mut this = Self {
            id,
            limits,
            committed: row.clone(),
            assigned: row,
            waiting: HashMap::new(),
            in_flight: None,
            next: Vec::new(),
            fan_out: BTreeMap::new(),
            fanned_out,
        };
        for message in unfinished.unwrap_or_default() {
            let row = this.committed.as_ref();
            let cold = row.and_then(|row| row.cold).is_some_and(|cold| cold.sender == message.sender);
            let established = row.is_some_and(|row| row.established);
            let fan_out = FanOut { message, cold, established, waiting_for: Vec::new(), backlog: None, replayed: true };
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
            ConversationEvent::Locate { sender, client_msg_id } => {
                let member = self.peer_of(sender).map(|(peer, _)| peer);
                fx.tells.push(Event::Agent(sender, AgentEvent::Located(client_msg_id, member)));
            }
            ConversationEvent::Permit { sender, client_msg_id, facts } => {
                self.permit((sender, client_msg_id), facts.map(|facts| *facts), now, fx);
            }
            ConversationEvent::Taken { agent, seq, backlog } => self.taken(agent, seq, backlog, fx),
            ConversationEvent::Confirm(message) => self.settle_replay(message, fx),
            ConversationEvent::View(port, caller) => fx.answer(port, self.view(caller)),
            ConversationEvent::Typing { sender, handle, start } => self.typing(sender, handle, start, fx),
            ConversationEvent::Stored(outcome) => self.stored(now, outcome, fx),
            ConversationEvent::Found(Found::Replay(sender, key, message)) => {
                self.replay_checked((sender, key), message, now, fx);
            }
            ConversationEvent::Found(_) => debug_assert!(false, "E2: a conversation reads replays only"),
            ConversationEvent::Wake => self.wake(fx),
        }
        if !self.fan_out.is_empty() {
            fx.wake(now.plus_ms(REDELIVER_MS));
        }
        self.assert_ordered();
    }

    fn send(&mut self, sender: SenderFacts, peer: AgentId, draft: Draft, fx: &mut Effects) {
        let key = (sender.agent, draft.client_msg_id.clone());
        let under_way = |fan_out: &FanOut| fan_out.message.sender == key.0 && fan_out.message.client_msg_id == key.1;
        let in_flight = self.in_flight.iter().flat_map(|batch| &batch.messages);
        // L2: its answer is already on the way, to the agent and not to this one attempt.
        if self.waiting.contains_key(&key) || in_flight.chain(&self.next).chain(self.fan_out.values()).any(under_way) {
            return;
        }
        let in_flight = self.in_flight.as_ref().map_or(0, |batch| batch.messages.len());
        if self.waiting.len() + in_flight + self.next.len() + self.fan_out.len() >= FANOUT_MAX {
            return settle(sender.agent, key.1, Err(Refusal::Unavailable), fx);
        }
        fx.reads.push(Read::Replay(key.0, key.1.clone()));
        fx.tells.push(Event::Agent(
            peer,
            AgentEvent::PermitAsked { conversation: self.id, sender: key.0, client_msg_id: key.1.clone() },
        ));
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
        if self.committed.as_ref().is_none_or(|row| message.seq > row.last_seq) {
            return; // its batch is still under way, and so is its answer
        }
        let (sender, key) = (message.sender, message.client_msg_id.clone());
        settle(sender, key, Ok(Settled { message, replayed: true, backlog: None }), fx);
    }

    fn permit(&mut self, key: DraftKey, facts: Option<PermitFacts>, now: Timestamp, fx: &mut Effects) {
        if let Some(waiting) = self.waiting.get_mut(&key) {
            waiting.permit = Some(facts);
            self.judge_if_complete(key, now, fx);
        }
    }

    fn judge_if_complete(&mut self, key: DraftKey, now: Timestamp, fx: &mut Effects) {
        let complete = |waiting: &Waiting| waiting.replay_checked && waiting.permit.is_some();
        if !self.waiting.get(&key).is_some_and(complete) {
            return;
        }
        let Some(waiting) = self.waiting.remove(&key) else {
            return;
        };
        let recipient = waiting.permit.flatten();
        let row = self.assigned.as_ref();
        let thread = Thread {
            established: row.is_some_and(|row| row.established),
            is_reply: row.is_some_and(|row| row.opened_by != key.0),
            cold: row.and_then(|row| row.cold).map(|cold| (cold.sender, cold.since)),
        };
        let attachment = waiting.draft.attachment_id.is_some();
        let verdict = judge(&waiting.sender, thread, recipient.as_ref(), attachment, self.limits.backlog_max);
        match (verdict, recipient) {
            (Ok(cold), Some(recipient)) => {
                self.append(waiting.sender, (waiting.peer, recipient.handle), waiting.draft, cold, now, fx);
            }
            (Ok(_), None) => settle(key.0, key.1, Err(Refusal::AgentNotFound), fx),
            (Err(refusal), _) => settle(key.0, key.1, Err(refusal), fx),
        }
    }

    fn append(
        &mut self,
        sender: SenderFacts,
        peer: (AgentId, String),
        draft: Draft,
        cold: bool,
        now: Timestamp,
        fx: &mut Effects,
    ) {
        let row = self.assigned.get_or_insert_with(|| new_row(self.id, &sender, &peer, now));
        // Time in a log never runs backwards, whatever the clock does.
        let created_at = now.max(row.last_message_at);
        row.last_seq = row.last_seq.next();
        row.last_message_at = created_at;
        let replies = !row.established && row.last_seq > Seq(1) && row.opened_by != sender.agent;
        if replies {
            (row.established, row.cold) = (true, None);
        } else if cold {
            row.cold = Some(ColdRow { sender: sender.agent, since: created_at });
        }
        let is_member = |handle: &String| *handle == peer.1;
        let message = Arc::new(MessageRow {
            conversation: self.id,
            seq: row.last_seq,
            sender: sender.agent,
            sender_handle: sender.handle,
            client_msg_id: draft.client_msg_id,
            kind: draft.kind,
            content: draft.content,
            metadata: draft.metadata,
            mentions: draft.mentions.into_iter().filter(is_member).collect(),
            created_at,
        });
        self.next.push(FanOut {
            message,
            cold,
            established: replies,
            waiting_for: Vec::new(),
            backlog: None,
            replayed: false,
        });
        self.commit_next(fx);
    }

    /// Starts the next batch unless one is in flight (E1).
    fn commit_next(&mut self, fx: &mut Effects) {
        if self.in_flight.is_some() || self.next.is_empty() {
            return;
        }
        let messages = std::mem::take(&mut self.next);
        let mut writes: Vec<Write> =
            messages.iter().map(|fan_out| Write::Message(Arc::clone(&fan_out.message))).collect();
        if let Some(row) = &mut self.assigned {
            row.fanned_out = self.fanned_out;
            writes.push(Write::Conversation(Box::new(row.clone())));
        }
        fx.writes = Some(writes.clone());
        self.in_flight = Some(InFlight { writes, messages, retry: false, maybe_applied: false });
    }

    fn stored(&mut self, now: Timestamp, outcome: Stored, fx: &mut Effects) {
        match outcome {
            Ok(()) => {
                let Some(batch) = self.in_flight.take() else { return };
                if let Some(Write::Conversation(row)) = batch.writes.into_iter().next_back() {
                    self.committed = Some(*row);
                }
                for message in batch.messages {
                    self.begin_fan_out(message, fx);
                }
                self.commit_next(fx);
            }
            // Certainly not applied: everything assigned since is given back (L1).
            Err(StoreError::Unavailable(_)) if !self.in_flight.as_ref().is_some_and(|batch| batch.maybe_applied) => {
                let batch = self.in_flight.take();
                let failed = batch.into_iter().flat_map(|batch| batch.messages).chain(self.next.drain(..));
                for fan_out in failed {
                    let (sender, key) = (fan_out.message.sender, fan_out.message.client_msg_id.clone());
                    settle(sender, key, Err(Refusal::Unavailable), fx);
                }
                self.assigned.clone_from(&self.committed);
            }
            // Unknown outcome: only the same batch again can make it known (L6, W4).
            Err(_) => {
                if let Some(batch) = &mut self.in_flight {
                    (batch.retry, batch.maybe_applied) = (true, true);
                }
                fx.wake(now.plus_ms(BATCH_RETRY_MS));
            }
        }
    }

    fn begin_fan_out(&mut self, mut fan_out: FanOut, fx: &mut Effects) {
        let Some(row) = &self.committed else { return };
        fan_out.waiting_for = row.members.iter().map(|member| member.agent).collect();
        for member in &row.members {
            tell_delivery(row, member, &fan_out, fx);
        }
        self.fan_out.insert(fan_out.message.seq, fan_out);
    }

    fn taken(&mut self, agent: AgentId, seq: Seq, backlog: u32, fx: &mut Effects) {
        let Some(fan_out) = self.fan_out.get_mut(&seq) else {
            return;
        };
        fan_out.waiting_for.retain(|waiting| *waiting != agent);
        if agent != fan_out.message.sender {
            fan_out.backlog = Some((agent, backlog));
        }
        // Settled in seq order, so that `fanned_out` is a watermark and not a set.
        while let Some(entry) = self.fan_out.first_entry() {
            if !entry.get().waiting_for.is_empty() {
                break;
            }
            let done = entry.remove();
            self.fanned_out = self.fanned_out.max(done.message.seq);
            let handle = |agent: AgentId| self.committed.as_ref().and_then(|row| handle_of(row, agent));
            let backlog = done.backlog.and_then(|(agent, count)| Some((handle(agent)?, count)));
            let (sender, key) = (done.message.sender, done.message.client_msg_id.clone());
            settle(sender, key, Ok(Settled { message: done.message, replayed: done.replayed, backlog }), fx);
        }
    }

    /// Repeats what was not answered: the addressee's shard may have restarted, or the batch's outcome is unknown.
    fn wake(&mut self, fx: &mut Effects) {
        if let Some(batch) = self.in_flight.as_mut().filter(|batch| batch.retry) {
            batch.retry = false;
            fx.writes = Some(batch.writes.clone());
        }
        let Some(row) = &self.committed else { return };
        for fan_out in self.fan_out.values() {
            for member in row.members.iter().filter(|member| fan_out.waiting_for.contains(&member.agent)) {
                tell_delivery(row, member, fan_out, fx);
            }
        }
    }

    fn view(&self, caller: AgentId) -> Result<Reply, Refusal> {
        let row = self.committed.as_ref().ok_or(Refusal::ConversationNotFound)?;
        let member = row.members.iter().find(|member| member.agent == caller).ok_or(Refusal::ConversationNotFound)?;
        Ok(Reply::Conversation(Box::new(ConversationView { row: row.clone(), from: member.joined_at_seq })))
    }

    fn typing(&self, sender: AgentId, handle: String, start: bool, fx: &mut Effects) {
        if let Some((peer, _)) = self.peer_of(sender) {
            let event = AgentEvent::PeerTyping { conversation: self.id, peer: sender, handle, start };
            fx.tells.push(Event::Agent(peer, event));
        }
    }

    /// The other member, if `agent` is one.
    fn peer_of(&self, agent: AgentId) -> Option<(AgentId, String)> {
        let row = self.committed.as_ref()?;
        row.members.iter().find(|member| member.agent == agent)?;
        let peer = row.members.iter().find(|member| member.agent != agent)?;
        Some((peer.agent, peer.handle.clone()))
    }

    fn assert_ordered(&self) {
        let last = |row: &Option<ConversationRow>| row.as_ref().map_or(Seq(0), |row| row.last_seq);
        debug_assert!(last(&self.committed) <= last(&self.assigned), "L1 {:?}", self.id);
        debug_assert!(self.fanned_out <= last(&self.committed), "L4 {:?}", self.id);
    }
}

fn new_row(id: ConversationId, sender: &SenderFacts, peer: &(AgentId, String), now: Timestamp) -> ConversationRow {
    let member = |agent, handle: &str| MemberRow { agent, handle: handle.to_owned(), joined_at_seq: Seq(1) };
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

fn handle_of(row: &ConversationRow, agent: AgentId) -> Option<String> {
    row.members.iter().find(|member| member.agent == agent).map(|member| member.handle.clone())
}

fn tell_delivery(row: &ConversationRow, to: &MemberRow, fan_out: &FanOut, fx: &mut Effects) {
    let Some(peer) = row.members.iter().find(|member| member.agent != to.agent) else {
        return;
    };
    let delivery = Delivery {
        message: Arc::clone(&fan_out.message),
        peer: (peer.agent, peer.handle.clone()),
        cold: fan_out.cold,
        established: fan_out.established.then_some(row.opened_by),
    };
    fx.tells.push(Event::Agent(to.agent, AgentEvent::Deliver(Box::new(delivery))));
}

fn settle(sender: AgentId, client_msg_id: String, outcome: Result<Settled, Refusal>, fx: &mut Effects) {
    fx.tells.push(Event::Agent(sender, AgentEvent::Settled { client_msg_id, outcome: Box::new(outcome) }));
}
