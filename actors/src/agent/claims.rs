//! The claim of an owner, its pause, and the activity that the owner reads.
//!
//! F1  One owner at most: the claim stands in the account, which has one writer, and changes in one batch with its index
//!     and with the entry that tells of it.
//! F2  The agent cannot tell whether it is owned: a claim touches no field that it is shown, and pushes nothing to it.
//!     It does see a pause.
//! F3  What becomes of a claim while it stands (attempts on it, pauses, its end), only its owner reads, who may claim
//!     again: the next owner is not told that there was another. What the agent does, and its status, every owner reads.

use std::sync::Arc;

use schema::ids::{OwnerId, Pos};
use schema::rows::{AgentRow, ClaimRow, EventAction, EventActor, EventRow, Pause, RevokedReason, Timestamp};
use schema::store::Write;

use super::events::ClaimAttempt;
use super::{After, Agent};
use crate::api::{Change, Refusal};
use crate::conversation::events::Watched;
use crate::effects::{Effects, Event, Port, Reply};
use crate::limits::{CLAIM_REJECTIONS, CLAIM_REJECTIONS_MS};
use crate::owner::events::OwnerEvent;

impl Agent {
    /// Adds an activity entry, and saves the account with its number.
    pub(super) fn log(&mut self, now: Timestamp, actor: EventActor, action: EventAction, owner: Option<OwnerId>) {
        let row = Arc::make_mut(&mut self.row);
        row.events += 1;
        let event = EventRow { number: row.events, actor, action, owner, at: now };
        self.writer.write(Write::Event(self.row.id, Box::new(event)));
        self.writer.write(Write::Agent(Box::new(AgentRow::clone(&self.row))));
        self.tell_owner(Change::Activity);
    }

    /// What to tell the owner, if there is one.
    pub(super) fn owner_change(&self, change: Change) -> Option<Event> {
        let claim = self.row.claim.as_ref()?;
        let handle = self.row.handle.clone();
        Some(Event::Owner(claim.owner, OwnerEvent::Changed { handle, change }))
    }

    /// Tells the owner, once everything so far is durable.
    pub(super) fn tell_owner(&mut self, change: Change) {
        if let Some(event) = self.owner_change(change) {
            self.writer.then(After::Tell(event));
        }
    }

    /// Who is to be told of a message that lies at `pos` of the inbox.
    pub(super) fn watched(&self, pos: Option<Pos>) -> Option<Watched> {
        self.row.claim.as_ref().map(|claim| Watched { owner: claim.owner, pos })
    }

    /// Somebody shows the key and wants to be the owner (F1).
    pub(super) fn claim(&mut self, now: Timestamp, port: Port, attempt: ClaimAttempt, fx: &mut Effects) {
        let refused = match self.check_key(attempt.key) {
            Ok(()) if self.row.is_system => Some(Refusal::SystemAgentProtected),
            Ok(()) => match self.row.claim.clone() {
                Some(claim) if claim.owner == attempt.owner => Some(Refusal::AlreadyClaimed),
                Some(claim) => return self.reject_claim(now, port, claim, attempt, fx),
                None => None,
            },
            Err(refusal) => Some(refusal),
        };
        if let Some(refusal) = refused {
            return fx.answer(port, Err(refusal));
        }
        let owner = attempt.owner;
        let claim = ClaimRow { owner, at: now, rejected: Vec::new() };
        Arc::make_mut(&mut self.row).claim = Some(Box::new(claim));
        self.writer.write(Write::Claim(owner, self.row.id));
        self.log(now, EventActor::Owner, EventAction::Claimed, Some(owner));
        self.tell_owner(Change::Agent);
        self.save_account(port);
    }

    /// Somebody else has it: the incumbent learns of the attempt, unless there are too many.
    fn reject_claim(
        &mut self,
        now: Timestamp,
        port: Port,
        mut claim: Box<ClaimRow>,
        attempt: ClaimAttempt,
        fx: &mut Effects,
    ) {
        claim.rejected.retain(|at| now.ms_since(*at) < CLAIM_REJECTIONS_MS);
        if claim.rejected.len() >= CLAIM_REJECTIONS {
            let first = claim.rejected.first().copied().unwrap_or(now);
            let retry_after_ms = first.plus_ms(CLAIM_REJECTIONS_MS).ms_since(now).max(1_000);
            return fx.answer(port, Err(Refusal::TooManyClaims { retry_after_ms }));
        }
        claim.rejected.push(now);
        let incumbent = claim.owner;
        Arc::make_mut(&mut self.row).claim = Some(claim);
        let action = EventAction::ClaimAttempted { ip: attempt.ip, user_agent: attempt.user_agent };
        self.log(now, EventActor::Owner, action, Some(incumbent));
        self.writer.then(After::Answer(port, Err(Refusal::AlreadyClaimed)));
    }

    /// The owner gives the agent up. With nobody left who could end it, a pause ends as well.
    pub(super) fn release_claim(&mut self, now: Timestamp, port: Port, owner: OwnerId, fx: &mut Effects) {
        if self.row.claim.as_ref().is_none_or(|claim| claim.owner != owner) {
            return fx.answer(port, Err(Refusal::ClaimNotFound));
        }
        self.log(now, EventActor::Owner, EventAction::Released, Some(owner));
        self.drop_claim(now, owner);
        self.save_account(port);
    }

    /// The agent is no longer what its owner claimed; the caller saves the account.
    pub(super) fn lose_claim(&mut self, now: Timestamp, reason: RevokedReason) {
        if let Some(owner) = self.row.claim.as_ref().map(|claim| claim.owner) {
            self.log(now, EventActor::System, EventAction::ClaimRevoked(reason), Some(owner));
            self.drop_claim(now, owner);
        }
    }

    fn drop_claim(&mut self, now: Timestamp, owner: OwnerId) {
        if self.row.paused != Pause::None {
            Arc::make_mut(&mut self.row).paused = Pause::None;
            self.log(now, EventActor::System, EventAction::Unpaused, Some(owner));
        }
        self.tell_owner(Change::Agent);
        Arc::make_mut(&mut self.row).claim = None;
        self.writer.write(Write::ClaimRemove(owner, self.row.id));
    }

    /// The owner, or whoever runs the server, pauses the agent or ends that.
    pub(super) fn set_pause(
        &mut self,
        now: Timestamp,
        port: Port,
        owner: Option<OwnerId>,
        pause: Pause,
        fx: &mut Effects,
    ) {
        let owned_by = self.row.claim.as_ref().map(|claim| claim.owner);
        if owner.is_some() && owner != owned_by {
            return fx.answer(port, Err(Refusal::AgentNotFound));
        }
        if self.row.paused == pause {
            return self.writer.then(After::Answer(port, Ok(Reply::Account(Arc::clone(&self.row)))));
        }
        let row = Arc::make_mut(&mut self.row);
        (row.paused, row.updated_at) = (pause, now);
        let action = if pause == Pause::None { EventAction::Unpaused } else { EventAction::Paused(pause) };
        let actor = if owner.is_some() { EventActor::Owner } else { EventActor::System };
        self.log(now, actor, action, owned_by); // an operator's pause ends with the claim as well
        self.tell_owner(Change::Agent);
        self.save_account(port);
    }
}
