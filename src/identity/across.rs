//! What the nodes of a deployment have to agree on before a code is mailed: when the last ones went out, and which
//! pending of a slot is the live one. The pendings themselves are rows of the store, the same for every node.
//!
//! A1  Where nodes share a Redis it judges, and what is known here only counts along; while it cannot be reached, what
//!     is known here judges.
//! A2  Neither answer depends on whether an address backs any agent.

use schema::rows::Timestamp;

use super::codes::LIFETIME_MS;
use super::recent::{HOUR_MS, Recent, Spacing};
use super::{Purpose, Rules, Slot};
use crate::shared::{Shared, Spaced};

/// A code that was counted, and where: it may have to be given back.
#[derive(Debug)]
#[must_use]
pub(super) struct Counted {
    at: Timestamp,
    mark: Option<u64>,
}

/// Both, as all nodes know them or as this one does.
pub(super) struct Across {
    shared: Shared,
    agents: Spaced,
    /// Owners sign in more often than agents lose keys.
    owners: Spaced,
    spacing: Spacing<(String, Purpose)>,
    owner_spacing: Spacing<(String, Purpose)>,
    latest: Recent<Slot, String>,
}

impl Across {
    pub(super) fn new(rules: &Rules, shared: Shared) -> Self {
        let cooldown_ms = rules.otp_cooldown_ms;
        let spaced = |per_hour| Spaced { cooldown_ms, per_hour, hour_ms: HOUR_MS };
        Self {
            shared,
            agents: spaced(rules.otp_per_hour),
            owners: spaced(rules.sign_in_per_hour),
            spacing: Spacing::new(cooldown_ms, rules.otp_per_hour),
            owner_spacing: Spacing::new(cooldown_ms, rules.sign_in_per_hour),
            latest: Recent::new(LIFETIME_MS),
        }
    }

    fn of(&self, slot: &Slot) -> (Spaced, &Spacing<(String, Purpose)>) {
        match slot.purpose {
            Purpose::SignIn => (self.owners, &self.owner_spacing),
            Purpose::Register | Purpose::Recover | Purpose::RotateKey => (self.agents, &self.spacing),
        }
    }

    /// Counts one code, or says for how many milliseconds none may be sent.
    pub(super) async fn take(&self, now: Timestamp, slot: &Slot) -> Result<Counted, u64> {
        let spaced_by = (slot.email.clone(), slot.purpose);
        let (rules, spacing) = self.of(slot);
        if rules.cooldown_ms.is_none() && rules.per_hour.is_none() {
            return Ok(Counted { at: now, mark: None });
        }
        match self.shared.space_code(slot.purpose.name(), &slot.email, rules).await {
            Some(Err(wait_ms)) => Err(wait_ms),
            Some(Ok(mark)) => {
                let _ = spacing.take(now, spaced_by); // counted along
                Ok(Counted { at: now, mark: Some(mark) })
            }
            None => spacing.take(now, spaced_by).map(|()| Counted { at: now, mark: None }),
        }
    }

    /// Takes back what was counted: that code never left.
    pub(super) async fn give_back(&self, slot: &Slot, counted: Counted) {
        if let Some(mark) = counted.mark {
            self.shared.give_code_back(slot.purpose.name(), &slot.email, mark).await;
        }
        self.of(slot).1.give_back(counted.at, (slot.email.clone(), slot.purpose));
    }

    /// Makes `id` the one live pending of its slot; answers those that were so before it, here or elsewhere.
    pub(super) async fn replace_latest(&self, now: Timestamp, slot: Slot, id: &str) -> Vec<String> {
        let parts: Vec<&str> = [slot.email.as_str()].into_iter().chain(slot.handle.as_deref()).collect();
        let elsewhere = self.shared.replace_pending(slot.purpose.name(), &parts, id, LIFETIME_MS).await;
        let here = self.latest.put(now, slot, id.to_owned());
        let mut before: Vec<String> = here.into_iter().chain(elsewhere).collect();
        before.dedup();
        before
    }
}
