//! Being added to groups, and adding others.
//!
//! G1  An invitation counts for 24 h from when it was made. While it is being made it is set aside, so that a burst
//!     cannot pass the allowance.

use schema::ids::AgentId;
use schema::rows::Timestamp;

use super::{Agent, Held};
use crate::conversation::group::{InviteeFacts, InviterFacts};
use crate::limits::{INVITE_WINDOW_MS, window_allows};

impl Agent {
    /// This agent's side of being added by `inviter`.
    pub(super) fn invitee_facts(&self, inviter: AgentId) -> InviteeFacts {
        InviteeFacts {
            agent: self.row.id,
            handle: self.row.handle.clone(),
            status: self.row.status,
            blocks_inviter: self.blocks.contains_key(&inviter),
            has_contact: self.contacts.contains_key(&inviter),
            policy: self.row.group_invite_policy,
        }
    }

    /// This agent's side of adding `target`; sets an invitation aside (G1).
    pub(super) fn inviter_facts(&mut self, now: Timestamp, target: AgentId) -> InviterFacts {
        let allowance = self.invite_allowance(now);
        self.held.make().invites += 1;
        InviterFacts { status: self.row.status, blocks_target: self.blocks.contains_key(&target), allowance }
    }

    fn invite_allowance(&self, now: Timestamp) -> Result<(), u64> {
        let sent = self.state.iter().flat_map(|state| &state.invited_at).copied();
        let aside = self.held.get().map_or(0, |held| held.invites);
        window_allows(sent, aside as usize, self.limits.invites_per_day, (now, INVITE_WINDOW_MS))
    }

    /// What was set aside was used, or not.
    pub(super) fn invite_done(&mut self, now: Timestamp, sent: bool) {
        if let Some(held) = self.held.get_mut() {
            held.invites = held.invites.saturating_sub(1);
        }
        self.held.drop_if(Held::is_nothing);
        if sent && self.limits.invites_per_day.is_some() {
            let invited_at = &mut self.state_mut().invited_at;
            invited_at.retain(|at| now.ms_since(*at) < INVITE_WINDOW_MS);
            invited_at.push(now);
            self.save_state();
        }
    }
}
