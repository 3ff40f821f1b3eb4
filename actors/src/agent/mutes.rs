//! Mutes: what arrives from a muted source is stored as ever and pushed to nobody.
//!
//! Z1  A muted delivery is passed over on every socket; when the mute ends, sockets that passed over something go back
//!     to it before anything newer is shown (contract S3).
//! Z2  A mute whose time is over counts as none, whether or not its row is gone.

use schema::ids::{AgentId, ConversationId};
use schema::rows::{AgentStateRow, MuteRow, MuteTarget, Timestamp};

use super::{After, Agent};
use crate::api::Refusal;
use crate::effects::{Effects, Port, Reply};
use crate::limits::MUTES_MAX;

/// Mutes and the time at which they are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Muted<'a> {
    mutes: &'a [MuteRow],
    now: Timestamp,
}

impl<'a> Muted<'a> {
    /// The mutes of this state, judged at `now`.
    pub(super) fn of(state: Option<&'a AgentStateRow>, now: Timestamp) -> Self {
        Self { mutes: state.map_or(&[], |state| &state.mutes), now }
    }

    /// Whether something from `sender` in `conversation` is muted.
    pub(super) fn covers(&self, sender: AgentId, conversation: ConversationId) -> bool {
        self.mutes.iter().any(|mute| {
            mute.in_force(self.now)
                && match &mute.target {
                    MuteTarget::Agent(agent, _) => *agent == sender,
                    MuteTarget::Conversation(id) => *id == conversation,
                }
        })
    }
}

impl Agent {
    pub(super) fn muted(&self, now: Timestamp) -> Muted<'_> {
        Muted::of(self.state.as_deref(), now)
    }

    pub(super) fn mute(
        &mut self,
        now: Timestamp,
        port: Port,
        target: MuteTarget,
        until: Option<Timestamp>,
        fx: &mut Effects,
    ) {
        let mutes = &mut self.state_mut().mutes;
        mutes.retain(|mute| mute.in_force(now));
        let known = mutes.iter().position(|mute| mute.target == target);
        let (row, created) = match known {
            Some(at) => {
                mutes[at].until = until;
                (mutes[at].clone(), false)
            }
            None if mutes.len() >= MUTES_MAX => {
                return fx.answer(port, Err(Refusal::TooMany { limit: MUTES_MAX }));
            }
            None => {
                let mute = MuteRow { target, until, created_at: now };
                mutes.push(mute.clone());
                (mute, true)
            }
        };
        if let Some(until) = until {
            fx.wake(until);
        }
        self.save_state();
        self.writer.then(After::Answer(port, Ok(Reply::Muted(row, created))));
    }

    pub(super) fn unmute(&mut self, now: Timestamp, port: Port, target: &MuteTarget, fx: &mut Effects) {
        let mutes = &mut self.state_mut().mutes;
        let Some(at) = mutes.iter().position(|mute| mute.target == *target && mute.in_force(now)) else {
            return fx.answer(port, Err(Refusal::NoRelation));
        };
        mutes.remove(at);
        self.save_state();
        self.sessions.iter_mut().for_each(super::sessions::Session::go_back);
        self.writer.then(After::Answer(port, Ok(Reply::Done)));
    }

    pub(super) fn list_mutes(&self, now: Timestamp, port: Port, fx: &mut Effects) {
        let mutes = self.state.iter().flat_map(|state| &state.mutes);
        let mut in_force: Vec<MuteRow> = mutes.filter(|mute| mute.in_force(now)).cloned().collect();
        in_force.reverse();
        fx.answer(port, Ok(Reply::Mutes(in_force)));
    }

    /// Ends mutes whose time is over (Z1), and asks to be woken for the next.
    pub(super) fn expire_mutes(&mut self, now: Timestamp, fx: &mut Effects) {
        let Some(state) = &mut self.state else { return };
        let before = state.mutes.len();
        state.mutes.retain(|mute| mute.in_force(now));
        let next = state.mutes.iter().filter_map(|mute| mute.until).min();
        if state.mutes.len() < before {
            self.sessions.iter_mut().for_each(super::sessions::Session::go_back);
        }
        if let Some(next) = next.filter(|_| !self.sessions.is_empty()) {
            fx.wake(next);
        }
    }
}
