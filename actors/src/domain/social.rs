//! Mutes, presence, reports, webhooks, reply coordination, and what owners and operators decide.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, WebhookId};
use schema::rows::{AgentRow, MuteRow, MuteTarget, Pause, PresenceStatus, Timestamp, WebhookRow};

use super::Domain;
use crate::agent::events::{AgentEvent, AgentRequest};
use crate::api::{Presence, Refusal, ReplyCommand, ReplyState};
use crate::effects::Reply;

impl Domain {
    /// Mutes an agent that exists; `true` when it was not muted before.
    pub async fn mute_agent(
        &self,
        agent: AgentId,
        target: AgentId,
        until: Option<Timestamp>,
    ) -> Result<(MuteRow, bool), Refusal> {
        let row = self.live_target(agent, target).await?;
        self.mute(agent, MuteTarget::Agent(target, row.handle), until).await
    }

    /// Mutes a conversation that the agent takes part in; `true` when it was not muted before.
    pub async fn mute_conversation(
        &self,
        agent: AgentId,
        id: ConversationId,
        until: Option<Timestamp>,
    ) -> Result<(MuteRow, bool), Refusal> {
        self.conversation(id, agent).await.map_err(|refusal| match refusal {
            Refusal::GroupDeleted(_) => Refusal::ConversationNotFound,
            refusal => refusal,
        })?;
        self.mute(agent, MuteTarget::Conversation(id), until).await
    }

    async fn mute(
        &self,
        agent: AgentId,
        target: MuteTarget,
        until: Option<Timestamp>,
    ) -> Result<(MuteRow, bool), Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::Mute(target, until)).await?;
        expect_reply!(reply, Reply::Muted(row, created) => (row, created))
    }

    /// Ends a mute.
    pub async fn unmute(&self, agent: AgentId, target: MuteTarget) -> Result<(), Refusal> {
        self.ask_agent(agent, AgentRequest::Unmute(target)).await.map(drop)
    }

    /// Mutes in force, newest first.
    pub async fn mutes(&self, agent: AgentId) -> Result<Vec<MuteRow>, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::Mutes).await?;
        expect_reply!(reply, Reply::Mutes(rows) => rows)
    }

    /// Sets an agent's presence by hand.
    pub async fn set_presence(
        &self,
        agent: AgentId,
        status: PresenceStatus,
        message: Option<String>,
    ) -> Result<Presence, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::SetPresence(status, message)).await?;
        expect_reply!(reply, Reply::Presence(presence) => presence)
    }

    /// Presence of `target`, unless it blocks the viewer.
    pub async fn presence(&self, target: AgentId, viewer: AgentId) -> Result<Presence, Refusal> {
        let reply = self.ask_agent(target, AgentRequest::Presence(viewer)).await?;
        expect_reply!(reply, Reply::Presence(presence) => presence)
    }

    /// Under which epoch the shard of an agent is owned, as this node knows it; 0: by a node that is alone, or by nobody.
    pub fn tenure(&self, agent: AgentId) -> u64 {
        let shard = self.node.region.shard_of(agent.0.as_bytes());
        self.node.region.hosted(shard).map_or_else(|| self.node.routes.get(shard).epoch, |(epoch, _)| epoch)
    }

    /// Reports an agent, which blocks it as well.
    pub async fn report(&self, agent: AgentId, target: AgentId, reason: Option<String>) -> Result<(), Refusal> {
        let row = self.live_target(agent, target).await?;
        if row.is_system {
            return Err(Refusal::SystemAgentProtected);
        }
        let request = AgentRequest::Report { target, handle: row.handle, reason };
        self.ask_agent(agent, request).await.map(drop)
    }

    /// Adds a webhook.
    pub async fn add_webhook(&self, agent: AgentId, hook: WebhookRow) -> Result<(), Refusal> {
        self.ask_agent(agent, AgentRequest::AddWebhook(Box::new(hook))).await.map(drop)
    }

    /// Webhooks, oldest first.
    pub async fn webhooks(&self, agent: AgentId) -> Result<Vec<WebhookRow>, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::Webhooks).await?;
        expect_reply!(reply, Reply::Webhooks(hooks) => hooks)
    }

    /// Removes a webhook.
    pub async fn remove_webhook(&self, agent: AgentId, id: WebhookId) -> Result<(), Refusal> {
        self.ask_agent(agent, AgentRequest::RemoveWebhook(id)).await.map(drop)
    }

    /// A webhook failed for a day.
    pub fn webhook_failing(&self, agent: AgentId, id: WebhookId) {
        self.tell_agent(agent, AgentEvent::WebhookFailing(id));
    }

    /// Lets several repliers of one agent agree on one.
    pub async fn coordinate(&self, agent: AgentId, command: ReplyCommand) -> Result<ReplyState, Refusal> {
        let reply = self.ask_agent(agent, AgentRequest::Coordinate(command)).await?;
        expect_reply!(reply, Reply::Coordination(state) => state)
    }

    async fn change_account(&self, agent: AgentId, request: AgentRequest) -> Result<Arc<AgentRow>, Refusal> {
        let reply = self.ask_agent(agent, request).await?;
        expect_reply!(reply, Reply::Account(row) => row)
    }

    /// The owner pauses an agent, or ends that.
    pub async fn set_pause(&self, agent: AgentId, pause: Pause) -> Result<Arc<AgentRow>, Refusal> {
        self.change_account(agent, AgentRequest::SetPause(pause)).await
    }

    /// An operator suspends an agent, or ends that and forgets what led there.
    pub async fn suspend(&self, agent: AgentId, suspend: bool) -> Result<Arc<AgentRow>, Refusal> {
        self.change_account(agent, AgentRequest::Suspend(suspend)).await
    }

    /// An operator makes an agent platform-owned, or ends that.
    pub async fn set_system(&self, agent: AgentId, system: bool) -> Result<Arc<AgentRow>, Refusal> {
        self.change_account(agent, AgentRequest::SetSystem(system)).await
    }
}
