//! Presence: follows the sockets, unless the agent says otherwise.
//!
//! P1  The first socket and the last one end what was said by hand; without a socket it fades after five minutes.
//! P2  Those who have this agent in their book are told of every change, once, and of nothing that is no change.
//! P3  A block in either direction hides it.
//! P4  Whoever keeps copies is shown every change, and again what did not change when a copy ends that somebody wants.

use schema::ids::AgentId;
use schema::rows::{PresenceStatus, Timestamp};

use super::{After, Agent};
use crate::agent::events::AgentEvent;
use crate::api::{Change, Notice, Presence, Refusal, Snapshot, ToSession};
use crate::effects::{Effects, Event, Port, Read, Reply};
use crate::limits::{PRESENCE_FADES_MS, SHOWN_AGAIN_MS, SNAPSHOT_MS, WATCHERS_PAGE};

impl Agent {
    /// As others see it now.
    pub(super) fn presence(&self, now: Timestamp) -> Presence {
        let Some(said) = self.state.as_ref().map(|state| &state.presence) else {
            let status = if self.sessions.is_empty() { PresenceStatus::Offline } else { PresenceStatus::Online };
            return Presence { status, ..Presence::default() };
        };
        let fresh = now.ms_since(said.refreshed_at) < PRESENCE_FADES_MS;
        let (status, message) = match said.manual {
            Some(manual) if fresh || !self.sessions.is_empty() => (manual, said.message.clone()),
            _ if !self.sessions.is_empty() => (PresenceStatus::Online, said.message.clone()),
            _ => (PresenceStatus::Offline, None),
        };
        Presence { status, message, last_seen: said.last_seen }
    }

    /// Something was said by hand and has not faded yet.
    pub(super) fn is_said(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.presence.manual.is_some())
    }

    pub(super) fn set_presence(
        &mut self,
        now: Timestamp,
        port: Option<Port>,
        status: PresenceStatus,
        message: Option<String>,
        fx: &mut Effects,
    ) {
        let before = self.presence(now);
        let said = &mut self.state_mut().presence;
        (said.manual, said.message, said.refreshed_at, said.last_seen) = (Some(status), message, now, Some(now));
        fx.wake(now.plus_ms(PRESENCE_FADES_MS));
        self.save_state();
        let presence = self.presence(now);
        if let Some(port) = port {
            self.writer.then(After::Answer(port, Ok(Reply::Presence(presence))));
        }
        self.tell_watchers(now, &before, fx);
    }

    pub(super) fn show_presence(&mut self, now: Timestamp, port: Port, viewer: AgentId, fx: &mut Effects) {
        if now.ms_since(self.shown_at) >= SHOWN_AGAIN_MS {
            self.show_copies(now, fx);
        }
        let hidden = self.blocks.contains_key(&viewer);
        fx.answer(port, if hidden { Err(Refusal::NoRelation) } else { Ok(Reply::Presence(self.presence(now))) });
    }

    /// How it is seen, until what was said by hand fades (P4).
    pub(super) fn show_copies(&mut self, now: Timestamp, fx: &mut Effects) {
        self.shown_at = now;
        let fades_at = self.state.as_ref().filter(|_| self.sessions.is_empty() && self.is_said());
        let fades_at = fades_at.map(|state| state.presence.refreshed_at.plus_ms(PRESENCE_FADES_MS));
        let holds_ms = fades_at.map_or(SNAPSHOT_MS, |at| at.ms_since(now).min(SNAPSHOT_MS));
        fx.snapshot = Some(Snapshot { agent: self.row.id, presence: self.presence(now), holds_ms });
    }

    /// The first socket came (P1).
    pub(super) fn came(&mut self, now: Timestamp, before: &Presence, fx: &mut Effects) {
        if let Some(state) = &mut self.state {
            state.presence.manual = None;
        }
        self.tell_watchers(now, before, fx);
    }

    /// The last socket went (P1).
    pub(super) fn went(&mut self, now: Timestamp, before: &Presence, fx: &mut Effects) {
        let said = &mut self.state_mut().presence;
        (said.manual, said.message, said.last_seen) = (None, None, Some(now));
        self.save_state();
        self.tell_watchers(now, before, fx);
    }

    /// Lets what was said by hand fade (P1).
    pub(super) fn fade(&mut self, now: Timestamp, fx: &mut Effects) {
        let Some(state) = &mut self.state else { return };
        let said = &mut state.presence;
        let Some(manual) = said.manual.filter(|_| self.sessions.is_empty()) else { return };
        let fades_at = said.refreshed_at.plus_ms(PRESENCE_FADES_MS);
        if now < fades_at {
            return fx.wake(fades_at);
        }
        let before = Presence { status: manual, message: said.message.take(), last_seen: said.last_seen };
        said.manual = None;
        self.save_state();
        self.tell_watchers(now, &before, fx);
    }

    /// Starts to tell everybody who has this agent in its book, if there is anything to tell (P2).
    fn tell_watchers(&mut self, now: Timestamp, before: &Presence, fx: &mut Effects) {
        self.show_copies(now, fx);
        let after = self.presence(now);
        if (before.status, &before.message) != (after.status, &after.message) {
            fx.tells.extend(self.owner_change(Change::Agent));
            fx.reads.push(Read::Watchers(self.row.id, None));
        }
    }

    /// Tells a page of them what is true by now.
    pub(super) fn watchers_found(&self, now: Timestamp, watchers: &[AgentId], fx: &mut Effects) {
        let presence = self.presence(now);
        for watcher in watchers.iter().filter(|watcher| !self.blocks.contains_key(watcher)) {
            let (peer, handle, presence) = (self.row.id, self.row.handle.clone(), presence.clone());
            fx.tells.push(Event::Agent(*watcher, AgentEvent::PeerPresence { peer, handle, presence }));
        }
        if watchers.len() == WATCHERS_PAGE {
            fx.reads.push(Read::Watchers(self.row.id, watchers.last().copied()));
        }
    }

    /// Somebody in the book changed.
    pub(super) fn peer_presence(&self, peer: AgentId, handle: String, presence: Presence, fx: &mut Effects) {
        if self.contacts.contains_key(&peer) && !self.blocks.contains_key(&peer) {
            let frame = ToSession::Presence { handle, presence: Box::new(presence) };
            self.push_all(&frame, fx);
            self.call_hooks(schema::rows::HookKind::PresenceUpdate, || Notice::Frame(frame), fx);
        }
    }
}
