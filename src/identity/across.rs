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
    rules: Spaced,
    spacing: Spacing<(String, Purpose)>,
    latest: Recent<Slot, String>,
}

impl Across {
    pub(super) fn new(rules: &Rules, shared: Shared) -> Self {
        let (cooldown_ms, per_hour) = (rules.otp_cooldown_ms, rules.otp_per_hour);
        Self {
            shared,
            rules: Spaced { cooldown_ms, per_hour, hour_ms: HOUR_MS },
            spacing: Spacing::new(cooldown_ms, per_hour),
            latest: Recent::new(LIFETIME_MS),
        }
    }

    /// Counts one code, or says for how many milliseconds none may be sent.
    pub(super) async fn take(&self, now: Timestamp, slot: &Slot) -> Result<Counted, u64> {
        let spaced_by = (slot.email.clone(), slot.purpose);
        if self.rules.cooldown_ms.is_none() && self.rules.per_hour.is_none() {
            return Ok(Counted { at: now, mark: None });
        }
        match self.shared.space_code(slot.purpose.name(), &slot.email, self.rules).await {
            Some(Err(wait_ms)) => Err(wait_ms),
            Some(Ok(mark)) => {
                let _ = self.spacing.take(now, spaced_by); // counted along
                Ok(Counted { at: now, mark: Some(mark) })
            }
            None => self.spacing.take(now, spaced_by).map(|()| Counted { at: now, mark: None }),
        }
    }

    /// Takes back what was counted: that code never left.
    pub(super) async fn give_back(&self, slot: &Slot, counted: Counted) {
        if let Some(mark) = counted.mark {
            self.shared.give_code_back(slot.purpose.name(), &slot.email, mark).await;
        }
        self.spacing.give_back(counted.at, (slot.email.clone(), slot.purpose));
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
