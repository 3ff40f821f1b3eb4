//! What the gateway asks of an agent: dispatch, account, sockets.

use std::sync::Arc;

use cluster::routes::NodeId;
use schema::ids::KeyHash;
use schema::rows::{AgentRow, AgentStatus, EventAction, EventActor, Pause, RevokedReason, Timestamp};
use schema::store::Write;
use subtle::ConstantTimeEq;

use super::events::AgentRequest;
use super::ops::Op;
use super::sends::OutgoingSend;
use super::sessions::Session;
use super::{After, Agent};
use crate::api::{AckMode, CallerView, Change, CloseReason, InboxView, ProfilePatch, Refusal, SessionId, ToSession};
use crate::effects::{Effects, Port, Reply};
use crate::limits::SOCKETS_MAX;

impl Agent {
    pub(super) fn request(&mut self, now: Timestamp, port: Port, request: AgentRequest, fx: &mut Effects) {
        match request {
            AgentRequest::Admit(key) => {
                let reply = self.admit(now, key);
                fx.answer(port, reply.map(Reply::Caller));
            }
            AgentRequest::Send(target, draft) => self.send(now, OutgoingSend::new(port, target, *draft, now), fx),
            AgentRequest::SendAs(key, target, draft) => match self.admit(now, key) {
                Ok(_) if self.row.status == AgentStatus::Suspended => fx.answer(port, Err(Refusal::Suspended)),
                Ok(_) => self.send(now, OutgoingSend::new(port, target, *draft, now), fx),
                Err(refusal) => fx.answer(port, Err(refusal)),
            },
            AgentRequest::UpdateProfile(patch) => self.update_profile(now, port, *patch),
            AgentRequest::ReplaceKey(key) => self.replace_key(now, port, key),
            AgentRequest::Delete => self.delete(now, port, fx),
            AgentRequest::PutContact { target, handle, notes } => self.put_contact(now, port, target, handle, notes),
            AgentRequest::Annotate(handle, notes) => self.annotate(port, &handle, notes, fx),
            AgentRequest::RemoveContact(handle) => self.remove_contact(port, &handle, fx),
            AgentRequest::Block(target, handle) => self.block(now, port, target, handle, fx),
            AgentRequest::Unblock(handle) => self.unblock(port, &handle, fx),
            AgentRequest::Inbox => {
                let held = self.row.paused == Pause::Full;
                let view =
                    InboxView { from: self.durable_floor(), through: self.released, backlog: self.head.backlog, held };
                fx.answer(port, Ok(Reply::Inbox(view)));
            }
            AgentRequest::AckThrough(pos) => {
                self.ops.push_back(Op::AckThrough { port, through: pos.min(self.released), acked: 0 });
            }
            AgentRequest::MarkRead(message) => self.ops.push_back(Op::MarkRead(port, message)),
            AgentRequest::HideMessage(message) => self.ops.push_back(Op::Hide(port, message)),
            AgentRequest::HideConversation(conversation) => self.ops.push_back(Op::HideAll(port, conversation)),
            AgentRequest::Attach(key, session, mode) => self.attach(now, port, key, session, mode, fx),
            AgentRequest::Forget(session) => {
                self.detach(now, session, fx);
                fx.answer(port, Ok(Reply::Done)); // when it was last seen may be stored later
            }
            AgentRequest::InviteeFacts(inviter) => {
                let facts = Box::new(self.invitee_facts(inviter));
                fx.answer(port, Ok(Reply::Invitee(facts)));
            }
            AgentRequest::InviterFacts(target) => {
                let facts = self.inviter_facts(now, target);
                fx.answer(port, Ok(Reply::Inviter(facts)));
            }
            AgentRequest::OpenGroup(conversation) => {
                // An empty range: the view is read, or made, and written back.
                self.ops.push_back(Op::Open(port, conversation));
            }
            request => self.request_about_itself(now, port, request, fx),
        }
    }

    /// What concerns neither messages nor accounts.
    fn request_about_itself(&mut self, now: Timestamp, port: Port, request: AgentRequest, fx: &mut Effects) {
        match request {
            AgentRequest::Mute(target, until) => self.mute(now, port, target, until, fx),
            AgentRequest::Unmute(target) => self.unmute(now, port, &target, fx),
            AgentRequest::Mutes => self.list_mutes(now, port, fx),
            AgentRequest::SetPresence(status, message) => self.set_presence(now, Some(port), status, message, fx),
            AgentRequest::Presence(viewer) => self.show_presence(now, port, viewer, fx),
            AgentRequest::AddWebhook(hook) => self.add_webhook(port, *hook, fx),
            AgentRequest::Webhooks => self.list_webhooks(port, fx),
            AgentRequest::RemoveWebhook(id) => self.remove_webhook(port, id, fx),
            AgentRequest::Report { target, handle, reason } => self.report(now, port, (target, handle), reason, fx),
            AgentRequest::BeginOnce(key) => self.begin_once(now, port, key, fx),
            AgentRequest::Coordinate(command) => self.coordinate(now, port, command, fx),
            AgentRequest::SetPause(owner, pause) => self.set_pause(now, port, owner, pause, fx),
            AgentRequest::Claim(attempt) => self.claim(now, port, *attempt, fx),
            AgentRequest::Release(owner) => self.release_claim(now, port, owner, fx),
            AgentRequest::Suspend(suspend) => self.suspend(now, port, suspend, fx),
            AgentRequest::SetSystem(system) => self.set_system(now, port, system),
            other => debug_assert!(false, "not dispatched: {other:?}"),
        }
    }

    pub(super) fn check_key(&self, key: KeyHash) -> Result<(), Refusal> {
        let current = bool::from(self.row.key_hash.0.ct_eq(&key.0));
        if current && self.row.status != AgentStatus::Deleted { Ok(()) } else { Err(Refusal::Unauthorized) }
    }

    fn admit(&mut self, now: Timestamp, key: KeyHash) -> Result<CallerView, Refusal> {
        self.check_key(key)?;
        if self.row.status == AgentStatus::Restricted {
            self.judge_standing(now); // it may have ended by itself
        }
        self.requests
            .take(now, self.limits.requests_per_second)
            .map_err(|retry_after_ms| Refusal::RateLimited { retry_after_ms })?;
        Ok(CallerView { account: Arc::clone(&self.row) })
    }

    fn attach(
        &mut self,
        now: Timestamp,
        port: Port,
        key: KeyHash,
        session: SessionId,
        mode: AckMode,
        fx: &mut Effects,
    ) {
        let before = self.presence(now);
        // Registered again over a connection that lost something: it starts anew.
        let again = self.sessions.extract_if(.., |other| other.id == session).count() > 0;
        let usable = self.check_key(key).and_then(|()| match self.row.status {
            AgentStatus::Suspended => Err(Refusal::Suspended),
            _ => Ok(()),
        });
        if usable.is_ok() && self.sessions.len() >= SOCKETS_MAX {
            fx.pushes.push((session, ToSession::Close(CloseReason::TooManySockets)));
        } else if usable.is_ok() {
            self.sessions.reserve_exact(1); // most agents have one socket
            self.sessions.push(Session::new(session, mode, self.head.floor));
            if self.sessions.len() == 1 && !again {
                self.came(now, &before, fx);
                self.expire_mutes(now, fx);
            }
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
        if let Some(avatar_key) = patch.avatar_key {
            row.avatar_key = avatar_key;
        }
        row.updated_at = now;
        self.tell_owner(Change::Agent);
        self.save_account(port);
    }

    /// Sockets that a node holds.
    pub(crate) fn sockets_of(&self, node: NodeId) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().map(|session| session.id).filter(move |session| session.node == node)
    }

    pub(super) fn detach(&mut self, now: Timestamp, session: SessionId, fx: &mut Effects) {
        let before = self.presence(now);
        let held = self.sessions.len();
        self.sessions.retain(|other| other.id != session);
        if held > 0 && self.sessions.is_empty() {
            self.went(now, &before, fx);
        }
    }

    fn set_system(&mut self, now: Timestamp, port: Port, system: bool) {
        let row = Arc::make_mut(&mut self.row);
        (row.is_system, row.updated_at) = (system, now);
        self.judge_standing(now);
        self.save_account(port);
    }

    fn replace_key(&mut self, now: Timestamp, port: Port, key: KeyHash) {
        let row = Arc::make_mut(&mut self.row);
        let old = std::mem::replace(&mut row.key_hash, key);
        row.updated_at = now;
        if old != key {
            self.writer.write(Write::KeyRemove(old));
            self.log(now, EventActor::Agent, EventAction::KeyRotated, None);
            self.lose_claim(now, RevokedReason::KeyRotated);
        }
        self.save_account(port);
        self.writer.then(After::CloseAll(CloseReason::KeyRevoked));
    }

    fn delete(&mut self, now: Timestamp, port: Port, fx: &mut Effects) {
        let row = Arc::make_mut(&mut self.row);
        (row.status, row.updated_at) = (AgentStatus::Deleted, now);
        if self.state.take().is_some() {
            self.save_state(); // webhooks, mutes and presence go with the account
            self.show_copies(now, fx);
        }
        self.log(now, EventActor::Agent, EventAction::Deleted, None);
        self.lose_claim(now, RevokedReason::Deleted);
        self.save_account(port);
        self.writer.then(After::CloseAll(CloseReason::KeyRevoked));
    }

    pub(super) fn save_account(&mut self, port: Port) {
        self.writer.write(Write::Agent(Box::new(AgentRow::clone(&self.row))));
        self.writer.then(After::Answer(port, Ok(Reply::Account(Arc::clone(&self.row)))));
    }
}
