//! From the log to the members: deliveries, their answers, and the watermark.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schema::ids::{AgentId, OwnerId, Seq};
use schema::rows::{MemberRow, MessageRow, MessageType};

use super::events::{Delivery, Outcome, Settled, Watched};
use super::{Conversation, Head};
use crate::agent::events::AgentEvent;
use crate::effects::{Effects, Event, Port, Reply};
use crate::owner::events::{OwnerEvent, Seen, View};

/// A judged message between its append and its last delivery.
#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) message: Arc<MessageRow>,
    pub(super) cold: bool,
    pub(super) established: bool,
    /// Ends the group: members drop what waits before it.
    pub(super) ends: bool,
    waiting_for: BTreeSet<AgentId>,
    backlog: Option<(AgentId, u32)>,
    /// Members whose inbox was full.
    skipped: Vec<AgentId>,
    pub(super) replayed: bool,
    /// Owners have been told already, or may have been: it was stored before this activation.
    pub(super) quiet: bool,
    watched: Vec<(AgentId, Watched)>,
    /// Told and answered when everybody has it.
    pub(super) tells: Vec<Event>,
    pub(super) answers: Vec<(Port, Reply)>,
}

impl FanOut {
    pub(super) fn new(message: Arc<MessageRow>) -> Self {
        Self {
            message,
            cold: false,
            established: false,
            ends: false,
            waiting_for: BTreeSet::new(),
            backlog: None,
            skipped: Vec::new(),
            replayed: false,
            quiet: false,
            watched: Vec::new(),
            tells: Vec::new(),
            answers: Vec::new(),
        }
    }
}

impl Head {
    /// Everybody who takes the message with this seq.
    pub(super) fn takers(&self, seq: Seq) -> impl Iterator<Item = &MemberRow> {
        self.members().iter().filter(move |member| member.takes(seq))
    }

    fn handle_of(&self, agent: AgentId) -> Option<String> {
        self.members().iter().find(|member| member.agent == agent).map(|member| member.handle.clone())
    }
}

impl Conversation {
    pub(super) fn begin_fan_out(&mut self, mut fan_out: FanOut, fx: &mut Effects) {
        let Some(head) = &self.committed else { return };
        let seq = fan_out.message.seq;
        fan_out.waiting_for = head.takers(seq).map(|member| member.agent).collect();
        for member in head.takers(seq) {
            tell_delivery(head, member.agent, (&fan_out, self.untaken_before(member.agent, seq)), fx);
        }
        self.fan_out.insert(seq, fan_out);
        self.settle_delivered(fx); // somebody who left alone takes nothing
    }

    pub(super) fn taken(
        &mut self,
        agent: AgentId,
        seq: Seq,
        (backlog, skipped): (u32, bool),
        watched: Option<Watched>,
        fx: &mut Effects,
    ) {
        let Some(fan_out) = self.fan_out.get_mut(&seq) else {
            return;
        };
        if fan_out.waiting_for.remove(&agent) {
            fan_out.skipped.extend(skipped.then_some(agent));
            fan_out.watched.extend(watched.map(|watched| (agent, watched)));
        }
        if agent != fan_out.message.sender {
            fan_out.backlog = Some((agent, backlog));
        }
        self.settle_delivered(fx);
    }

    /// Settles in seq order, so that `fanned_out` is a watermark and not a set.
    fn settle_delivered(&mut self, fx: &mut Effects) {
        while let Some(entry) = self.fan_out.first_entry() {
            if !entry.get().waiting_for.is_empty() {
                break;
            }
            let done = entry.remove();
            self.fanned_out = self.fanned_out.max(done.message.seq);
            self.tell_owners(&done, fx);
            fx.tells.extend(done.tells);
            fx.replies.extend(done.answers.into_iter().map(|(port, reply)| (port, Ok(reply))));
            if done.message.kind == MessageType::System {
                continue;
            }
            let Some(head) = &self.committed else { continue };
            let handle = |agent: AgentId| head.handle_of(agent);
            let backlog = done.backlog.filter(|_| head.group.is_none());
            let backlog = backlog.and_then(|(agent, count)| Some((handle(agent)?, count)));
            let skipped = head.group.as_ref().map(|_| done.skipped.iter().filter_map(|id| handle(*id)).collect());
            let (sender, key) = (done.message.sender, done.message.client_msg_id.clone());
            let settled = Settled { message: done.message, replayed: done.replayed, backlog, skipped };
            settle(sender, key, Ok(settled), fx);
        }
    }

    /// Everybody has the message: owners of those who took it are told, of each owner's agents the author first.
    fn tell_owners(&self, done: &FanOut, fx: &mut Effects) {
        let Some(head) = self.committed.as_ref().filter(|_| !done.quiet && !done.watched.is_empty()) else { return };
        let mut by_owner: BTreeMap<OwnerId, Vec<View>> = BTreeMap::new();
        for (agent, watched) in &done.watched {
            let Some(handle) = head.handle_of(*agent) else { continue };
            by_owner.entry(watched.owner).or_default().push(View { agent: *agent, handle, pos: watched.pos });
        }
        for (owner, mut views) in by_owner {
            views.sort_by(|a, b| {
                let author_first = (a.agent != done.message.sender).cmp(&(b.agent != done.message.sender));
                author_first.then_with(|| a.handle.cmp(&b.handle))
            });
            let seen = Seen { message: Arc::clone(&done.message), views };
            fx.tells.push(Event::Owner(owner, OwnerEvent::Seen(Box::new(seen))));
        }
    }

    /// Repeats what was not answered: the addressee's shard may have restarted, or the batch's outcome is unknown.
    pub(super) fn wake(&mut self, fx: &mut Effects) {
        if let Some(writes) = self.in_flight.as_mut().and_then(super::log::InFlight::again) {
            fx.writes = Some(writes);
        }
        for ((sender, client_msg_id), waiting) in self.waiting.iter().filter(|(_, waiting)| waiting.permit.is_none()) {
            let (conversation, sender, client_msg_id) = (self.id, *sender, client_msg_id.clone());
            let ask = AgentEvent::PermitAsked { conversation, sender, client_msg_id };
            fx.tells.extend(waiting.peer.map(|peer| Event::Agent(peer, ask)));
        }
        let Some(head) = &self.committed else { return };
        for (seq, fan_out) in &self.fan_out {
            for agent in &fan_out.waiting_for {
                tell_delivery(head, *agent, (fan_out, self.untaken_before(*agent, *seq)), fx);
            }
        }
    }

    /// The last message before `seq` that this member has not answered. Whoever lost its memory, and with it a delivery
    /// that was on its way, sees by this that something is missing (A5), and waits until it is told again.
    fn untaken_before(&self, agent: AgentId, seq: Seq) -> Seq {
        let mut before = self.fan_out.range(..seq).rev();
        before.find(|(_, fan_out)| fan_out.waiting_for.contains(&agent)).map_or(Seq(0), |(seq, _)| *seq)
    }
}

fn tell_delivery(head: &Head, to: AgentId, (fan_out, after): (&FanOut, Seq), fx: &mut Effects) {
    let peer = head.row.members.iter().find(|member| member.agent != to);
    let delivery = Delivery {
        message: Arc::clone(&fan_out.message),
        after,
        peer: peer.map(|peer| (peer.agent, peer.handle.clone())),
        cold: fan_out.cold,
        established: fan_out.established.then_some(head.row.opened_by),
        ends: fan_out.ends,
    };
    fx.tells.push(Event::Agent(to, AgentEvent::Deliver(Box::new(delivery))));
}

pub(super) fn settle(sender: AgentId, client_msg_id: String, outcome: Outcome, fx: &mut Effects) {
    fx.tells.push(Event::Agent(sender, AgentEvent::Settled { client_msg_id, outcome: Box::new(outcome) }));
}
