//! Standing: what others hold against this agent, what it holds against others, and what follows.
//!
//! J1  Only those count whom this agent wrote to first; each counts once, by its newest block and its one report.
//! J2  Restricted is whoever was blocked often in a day, and ends by itself; suspended is whoever was blocked or reported
//!     often in a week, and is ended by an operator only. System agents are exempt.
//! J3  Suspended outranks restricted; deleted outranks both.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId};
use schema::rows::{
    AgentRow, AgentStatus, BlockRow, Book, EventAction, EventActor, ReportRow, SignalRow, StatusReason, Timestamp,
};
use schema::store::Write;

use super::{After, Agent};
use crate::agent::events::{AgentEvent, Signal};
use crate::api::{Change, CloseReason, Refusal};
use crate::conversation::events::ConversationEvent;
use crate::effects::{Effects, Event, Port, Reply};
use crate::limits::{
    RESTRICT_BLOCKS, RESTRICT_WINDOW_MS, SIGNAL_WINDOW_MS, SIGNALS_MAX, SUSPEND_BLOCKS, SUSPEND_REPORTS,
};

impl Agent {
    /// Reports an agent, and blocks it unless that is done already.
    pub(super) fn report(
        &mut self,
        now: Timestamp,
        port: Port,
        (target, handle): (AgentId, String),
        reason: Option<String>,
        fx: &mut Effects,
    ) {
        if !self.reported.make().insert(target) {
            return fx.answer(port, Err(Refusal::AlreadyReported));
        }
        let reporter = self.row.handle.clone();
        let report = ReportRow { reporter, target, handle: handle.clone(), reason, at: now };
        self.log(now, EventActor::Agent, EventAction::Reported { handle: handle.clone() }, None);
        self.enter(Book::Reports, Write::Report(self.row.id, Box::new(report)));
        if !self.blocks.contains_key(&target) {
            let block = BlockRow { agent: target, handle, blocked_at: now };
            self.put_block(now, block, fx);
        }
        self.accuse(target, Signal::Report(now));
        self.writer.then(After::Answer(port, Ok(Reply::Done)));
    }

    /// Says so to the conversation of both, which knows who wrote first (J1).
    pub(super) fn accuse(&mut self, target: AgentId, signal: Signal) {
        let conversation = ConversationId::direct(self.row.id, target);
        let event = ConversationEvent::Accuse { by: self.row.id, target, signal };
        self.writer.then(After::Tell(Event::Conversation(conversation, event)));
    }

    pub(super) fn signal(&mut self, now: Timestamp, by: AgentId, signal: Signal) {
        if self.row.is_system {
            return;
        }
        let signals = &mut self.state_mut().signals;
        let at = signals.iter().position(|other| other.by == by).unwrap_or_else(|| {
            signals.push(SignalRow { by, blocked_at: None, reported_at: None });
            signals.len() - 1
        });
        match signal {
            Signal::Block(since) => signals[at].blocked_at = Some(since),
            Signal::Unblock => signals[at].blocked_at = None,
            Signal::Report(since) => signals[at].reported_at = Some(since),
        }
        let counts = |at: Option<Timestamp>| at.is_some_and(|at| now.ms_since(at) < SIGNAL_WINDOW_MS);
        signals.retain(|signal| counts(signal.blocked_at) || counts(signal.reported_at));
        let excess = signals.len().saturating_sub(SIGNALS_MAX);
        signals.drain(..excess);
        self.save_state();
        self.judge_standing(now);
    }

    /// What the signals in force make of an account in this state (J2, J3).
    fn deserved(&self, now: Timestamp) -> AgentStatus {
        let signals = self.state.as_ref().map_or(&[][..], |state| &state.signals);
        let count = |of: fn(&SignalRow) -> Option<Timestamp>, window| {
            signals.iter().filter(|signal| of(signal).is_some_and(|at| now.ms_since(at) < window)).count()
        };
        let (blocked, reported) = (|signal: &SignalRow| signal.blocked_at, |signal: &SignalRow| signal.reported_at);
        let week = SIGNAL_WINDOW_MS;
        if count(blocked, week) >= SUSPEND_BLOCKS || count(reported, week) >= SUSPEND_REPORTS {
            AgentStatus::Suspended
        } else if count(blocked, RESTRICT_WINDOW_MS) >= RESTRICT_BLOCKS {
            AgentStatus::Restricted
        } else {
            AgentStatus::Active
        }
    }

    /// Moves between active, restricted and suspended as deserved.
    pub(super) fn judge_standing(&mut self, now: Timestamp) {
        let deserved = if self.row.is_system { AgentStatus::Active } else { self.deserved(now) };
        if matches!(self.row.status, AgentStatus::Active | AgentStatus::Restricted) {
            let reason = if deserved == AgentStatus::Active { StatusReason::Expired } else { StatusReason::Standing };
            self.become_status(now, deserved, reason);
        }
    }

    fn become_status(&mut self, now: Timestamp, status: AgentStatus, reason: StatusReason) {
        if self.row.status == status {
            return;
        }
        let row = Arc::make_mut(&mut self.row);
        let from = std::mem::replace(&mut row.status, status);
        row.updated_at = now;
        let changed = EventAction::StatusChanged { from, to: status, reason };
        self.log(now, EventActor::System, changed, None);
        self.tell_owner(Change::Agent);
        self.writer.write(Write::Agent(Box::new(AgentRow::clone(&self.row))));
        if status == AgentStatus::Suspended {
            self.writer.then(After::CloseAll(CloseReason::Suspended));
        }
    }

    /// An operator suspends the account, or ends that and with it what led there.
    pub(super) fn suspend(&mut self, now: Timestamp, port: Port, suspend: bool, fx: &mut Effects) {
        if self.row.status == AgentStatus::Deleted {
            return fx.answer(port, Err(Refusal::AgentNotFound));
        }
        if suspend {
            self.become_status(now, AgentStatus::Suspended, StatusReason::Operator);
        } else if self.row.status != AgentStatus::Active {
            self.state_mut().signals.clear();
            self.save_state();
            self.become_status(now, AgentStatus::Active, StatusReason::Operator);
        }
        self.writer.then(After::Answer(port, Ok(Reply::Account(Arc::clone(&self.row)))));
    }
}

/// What a conversation makes of an accusation: it counts if the accused opened the conversation (J1).
pub(crate) fn counted(opened_by: AgentId, target: AgentId, by: AgentId, signal: Signal) -> Option<Event> {
    (opened_by == target).then_some(Event::Agent(target, AgentEvent::Signal(by, signal)))
}
