//! Live-only frames: typing, reads by peers, warnings before a limit. Nothing here is stored, and losing it costs nothing.
//!
//! V1  Under full pause nothing is pushed.
//! V2  Typing is relayed once per second, conversation and direction; the rest is dropped without a word.
//! V3  A warning comes at most every 10 s, when a fifth or less of an allowance is left.

use std::sync::Arc;

use schema::ids::ConversationId;
use schema::rows::{HookKind, Pause, Timestamp};

use super::Agent;
use crate::api::{GroupEnd, Invitation, Notice, ToSession};
use crate::conversation::events::ConversationEvent;
use crate::effects::{Effects, Event};
use crate::limits::{TYPING_EVERY_MS, WARNING_EVERY_MS};

/// What limits live-only frames.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Typing frames of the last second.
    typed: Vec<(ConversationId, bool, Timestamp)>,
    warned_at: Timestamp,
}

impl Agent {
    pub(super) fn typing(&mut self, now: Timestamp, conversation: ConversationId, start: bool, fx: &mut Effects) {
        let typed = &mut self.notices.get_or_insert_default().typed;
        typed.retain(|(_, _, at)| now.ms_since(*at) < TYPING_EVERY_MS);
        if typed.iter().any(|(other, kind, _)| (*other, *kind) == (conversation, start)) {
            return;
        }
        typed.push((conversation, start, now));
        let (sender, handle) = (self.row.id, self.row.handle.clone());
        fx.tells.push(Event::Conversation(conversation, ConversationEvent::Typing { sender, handle, start }));
    }

    pub(super) fn push_all(&self, frame: &ToSession, fx: &mut Effects) {
        if self.row.paused != Pause::Full {
            fx.pushes.extend(self.sessions.iter().map(|session| (session.id, frame.clone())));
        }
    }

    /// Sockets and webhooks are told.
    pub(super) fn tell_all(&self, kind: HookKind, frame: ToSession, fx: &mut Effects) {
        self.push_all(&frame, fx);
        self.call_hooks(kind, || Notice::Frame(frame), fx);
    }

    pub(super) fn invited(&self, now: Timestamp, invitation: Arc<Invitation>, fx: &mut Effects) {
        if !self.muted(now).covers(invitation.row.inviter, invitation.row.group) {
            self.tell_all(HookKind::GroupInvite, ToSession::Invited(invitation), fx);
        }
    }

    pub(super) fn group_gone(&self, end: Box<GroupEnd>, fx: &mut Effects) {
        self.tell_all(HookKind::GroupDeleted, ToSession::GroupDeleted(end), fx);
    }

    /// Warns the sockets when a send has left little of an allowance.
    pub(super) fn warn(&mut self, now: Timestamp, fx: &mut Effects) {
        if self.sessions.is_empty() || now.ms_since(self.notices.get_or_insert_default().warned_at) < WARNING_EVERY_MS {
            return;
        }
        let rate = self.limits.sends_per_second;
        let (rate_left, reset) = self.sends.rate_left(now, rate);
        let (cold_left, cold_reset) = self.sends.cold_left(now, self.limits.cold_threads);
        let scarce = |limit: Option<u32>, left: u32| limit.filter(|limit| left <= limit / 5);
        let (limit, remaining, reset_at) = if let Some(limit) = scarce(self.limits.cold_threads, cold_left) {
            (limit, cold_left, cold_reset)
        } else if let Some(limit) = scarce(rate, rate_left) {
            (limit, rate_left, reset)
        } else {
            return;
        };
        self.notices.get_or_insert_default().warned_at = now;
        self.push_all(&ToSession::RateWarning { limit, remaining, reset_at }, fx);
    }
}

#[cfg(test)]
mod tests {
    use cluster::routes::NodeId;
    use schema::ids::{AgentId, Key, KeyHash, Seq};
    use schema::rows::{AgentRow, MessageRow, MessageType};

    use super::*;
    use crate::agent::events::{AgentEvent, AgentRequest};
    use crate::api::{AckMode, Draft, PeerRead, SessionId, Target};
    use crate::conversation::events::Settled;
    use crate::effects::{LoadedAgent, Port};
    use crate::limits::Limits;

    const KEY: KeyHash = KeyHash([1; 32]);

    fn agent(limits: Limits) -> Agent {
        let row = AgentRow::new(AgentId(Key::from_bytes([1; 16])), "alice", "a@b.c", KEY, Timestamp(1));
        let mut agent = Agent::activate(LoadedAgent::bare(row), limits.into());
        let attach = AgentRequest::Attach(KEY, SessionId::new(NodeId::default(), 1), AckMode::OnWrite);
        agent.on(
            Timestamp(1),
            AgentEvent::Request(Port { node: NodeId::default(), number: 1 }, attach),
            &mut Effects::default(),
        );
        agent
    }

    fn peer() -> AgentId {
        AgentId(Key::from_bytes([2; 16]))
    }

    fn step(agent: &mut Agent, now: u64, event: AgentEvent) -> Effects {
        let mut fx = Effects::default();
        agent.on(Timestamp(now), event, &mut fx);
        fx
    }

    #[test]
    fn typing_is_relayed_once_a_second_and_direction() {
        let mut agent = agent(Limits::default());
        let (one, two) = (ConversationId::direct(agent.row.id, peer()), ConversationId::direct(peer(), peer()));
        let mut relayed = |now, id, start| step(&mut agent, now, AgentEvent::Typing(id, start)).tells.len();
        assert_eq!((relayed(1_000, one, true), relayed(1_500, one, true)), (1, 0));
        assert_eq!((relayed(1_500, one, false), relayed(1_500, two, true)), (1, 1), "other kinds are counted apart");
        assert_eq!(relayed(2_000, one, true), 1);
    }

    /// Sends a message and settles it as stored; the warnings that this pushed.
    fn send(agent: &mut Agent, now: u64, key: &str) -> Vec<(u32, u32)> {
        let draft = Draft {
            client_msg_id: key.to_owned(),
            kind: MessageType::Text,
            content: "{}".to_owned(),
            metadata: "{}".to_owned(),
            mentions: Vec::new(),
            attachment: None,
        };
        step(
            agent,
            now,
            AgentEvent::Request(
                Port { node: NodeId::default(), number: 2 },
                AgentRequest::Send(Target::Agent(peer()), Box::new(draft)),
            ),
        );
        let message = MessageRow {
            conversation: ConversationId::direct(agent.row.id, peer()),
            seq: Seq(1),
            sender: agent.row.id,
            sender_handle: "alice".to_owned(),
            client_msg_id: key.to_owned(),
            kind: MessageType::Text,
            content: "{}".to_owned(),
            metadata: "{}".to_owned(),
            mentions: Vec::new(),
            created_at: Timestamp(now),
        };
        let outcome = Ok(Settled { message: message.into(), replayed: false, backlog: None, skipped: None });
        let settled = AgentEvent::Settled { client_msg_id: key.to_owned(), outcome: Box::new(outcome) };
        let warning = |(_, frame)| match frame {
            ToSession::RateWarning { limit, remaining, .. } => Some((limit, remaining)),
            _ => None,
        };
        step(agent, now, settled).pushes.into_iter().filter_map(warning).collect()
    }

    #[test]
    fn a_fifth_left_is_warned_of_once_in_a_while() {
        let mut agent = agent(Limits { sends_per_second: Some(10), ..Limits::default() });
        for n in 0..7 {
            assert_eq!(send(&mut agent, 20_000, &n.to_string()), []);
        }
        assert_eq!(send(&mut agent, 20_000, "seven"), [(10, 2)]);
        assert_eq!(send(&mut agent, 20_000, "eight"), [], "not again at once");
        for n in 0..7 {
            assert_eq!(send(&mut agent, 40_000, &format!("later-{n}")), []);
        }
        assert_eq!(send(&mut agent, 40_000, "later"), [(10, 2)]);
    }

    #[test]
    fn a_full_pause_is_silent() {
        let mut agent = agent(Limits::default());
        let read = || {
            AgentEvent::PeerRead(Box::new(PeerRead {
                conversation: ConversationId::direct(peer(), peer()),
                reader: "bob".to_owned(),
                through: Seq(1),
                at: Timestamp(1),
            }))
        };
        assert_eq!(step(&mut agent, 1, read()).pushes.len(), 1);
        std::sync::Arc::make_mut(&mut agent.row).paused = Pause::Full;
        assert_eq!(step(&mut agent, 1, read()).pushes, []);
    }
}
