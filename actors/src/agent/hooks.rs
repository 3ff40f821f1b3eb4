//! Webhooks of one agent: who is called for what. Calling them is the gateway's business.
//!
//! H1  Nothing is called under full pause, and nothing from a muted source.

use schema::ids::WebhookId;
use schema::rows::{HookKind, Pause, WebhookRow};

use super::{After, Agent};
use crate::api::{Hook, Notice, Refusal};
use crate::effects::{Effects, Port, Reply};
use crate::limits::WEBHOOKS_MAX;

impl Agent {
    pub(super) fn add_webhook(&mut self, port: Port, hook: WebhookRow, fx: &mut Effects) {
        let hooks = &mut self.state_mut().webhooks;
        if hooks.len() >= WEBHOOKS_MAX {
            return fx.answer(port, Err(Refusal::TooMany { limit: WEBHOOKS_MAX }));
        }
        hooks.push(hook);
        self.save_state();
        self.writer.then(After::Answer(port, Ok(Reply::Done)));
    }

    pub(super) fn remove_webhook(&mut self, port: Port, id: WebhookId, fx: &mut Effects) {
        let hooks = &mut self.state_mut().webhooks;
        let Some(at) = hooks.iter().position(|hook| hook.id == id) else {
            return fx.answer(port, Err(Refusal::NoRelation));
        };
        hooks.remove(at);
        self.save_state();
        self.writer.then(After::Answer(port, Ok(Reply::Done)));
    }

    pub(super) fn list_webhooks(&self, port: Port, fx: &mut Effects) {
        let hooks = self.state.as_ref().map(|state| state.webhooks.clone()).unwrap_or_default();
        fx.answer(port, Ok(Reply::Webhooks(hooks)));
    }

    /// An endpoint failed for a day: it is called no more.
    pub(super) fn webhook_failing(&mut self, id: WebhookId) {
        let Some(state) = &mut self.state else { return };
        if let Some(hook) = state.webhooks.iter_mut().find(|hook| hook.id == id) {
            hook.active = false;
            self.save_state();
        }
    }

    /// Calls every endpoint that asked for this (H1).
    pub(super) fn call_hooks(&self, kind: HookKind, notice: impl FnOnce() -> Notice, fx: &mut Effects) {
        let Some(state) = self.state.as_ref().filter(|_| self.row.paused != Pause::Full) else { return };
        let wanted = |hook: &&WebhookRow| hook.active && hook.events.contains(&kind);
        let targets: Vec<WebhookRow> = state.webhooks.iter().filter(wanted).cloned().collect();
        if !targets.is_empty() {
            fx.hooks.push(Hook { agent: self.row.id, targets, notice: notice() });
        }
    }
}
