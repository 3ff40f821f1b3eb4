//! Groups: commands to their conversations, with what both sides know of each other.

use schema::ids::{AgentId, ConversationId, ConversationKind, InviteId};
use schema::rows::{AgentStatus, Role, Timestamp};

use super::Domain;
use crate::agent::events::{AgentEvent, AgentRequest};
use crate::api::{Added, ConversationView, Refusal};
use crate::conversation::events::ConversationEvent;
use crate::conversation::group::{Actor, GroupCommand, GroupPatch, InviteeFacts, InviterFacts};
use crate::effects::{Event, Reply};

impl Domain {
    async fn command(&self, id: ConversationId, actor: Actor, command: GroupCommand) -> Result<Reply, Refusal> {
        if id.kind != ConversationKind::Group {
            return Err(Refusal::ConversationNotFound);
        }
        let command = Box::new(command);
        self.ask(|port| Event::Conversation(id, ConversationEvent::Group { port, actor, command })).await
    }

    async fn change(
        &self,
        id: ConversationId,
        actor: Actor,
        command: GroupCommand,
    ) -> Result<ConversationView, Refusal> {
        let reply = self.command(id, actor, command).await?;
        expect_reply!(reply, Reply::Conversation(view) => *view)
    }

    /// Makes a group whose id nobody has used.
    pub async fn create_group(
        &self,
        id: ConversationId,
        creator: Actor,
        command: GroupCommand,
    ) -> Result<ConversationView, Refusal> {
        let agent = creator.agent;
        let view = self.change(id, creator, command).await?;
        self.ask_agent(agent, AgentRequest::OpenGroup(id)).await?;
        Ok(view)
    }

    /// Changes settings.
    pub async fn update_group(
        &self,
        id: ConversationId,
        actor: Actor,
        patch: GroupPatch,
    ) -> Result<ConversationView, Refusal> {
        self.change(id, actor, GroupCommand::Update(patch)).await
    }

    /// Runs the add pipeline for one target; `None`: no such agent.
    pub async fn add_to_group(
        &self,
        id: ConversationId,
        actor: Actor,
        target: Option<AgentId>,
        invite: InviteId,
        auto_join: bool,
    ) -> Result<Added, Refusal> {
        let agent = actor.agent;
        let sides = match target {
            Some(target) => self.sides(agent, target).await?,
            None => None,
        };
        let aside = sides.is_some();
        let reply = self.command(id, actor, GroupCommand::Add { sides, invite, auto_join }).await;
        let added = reply.and_then(|reply| expect_reply!(reply, Reply::Added(added) => added));
        if aside {
            let sent = matches!(added, Ok(Added::Invited(made)) if made == invite);
            self.tell_agent(agent, AgentEvent::InviteDone(sent));
        }
        added
    }

    /// What both sides know of each other; `None` if there is no such target.
    async fn sides(
        &self,
        inviter: AgentId,
        target: AgentId,
    ) -> Result<Option<Box<(InviteeFacts, InviterFacts)>>, Refusal> {
        let reply = match self.ask_agent(target, AgentRequest::InviteeFacts(inviter)).await {
            Err(Refusal::AgentNotFound) => return Ok(None),
            reply => reply?,
        };
        let invitee = expect_reply!(reply, Reply::Invitee(facts) => *facts)?;
        let reply = self.ask_agent(inviter, AgentRequest::InviterFacts(target)).await?;
        expect_reply!(reply, Reply::Inviter(facts) => Some(Box::new((invitee, facts))))
    }

    /// Removes a member; `None`: no such agent.
    pub async fn remove_member(
        &self,
        id: ConversationId,
        actor: Actor,
        target: Option<AgentId>,
    ) -> Result<(), Refusal> {
        self.command(id, actor, GroupCommand::Remove(target)).await.map(drop)
    }

    /// Changes a member's role; `None`: no such agent.
    pub async fn set_role(
        &self,
        id: ConversationId,
        actor: Actor,
        target: Option<AgentId>,
        role: Role,
    ) -> Result<(), Refusal> {
        self.command(id, actor, GroupCommand::SetRole(target, role)).await.map(drop)
    }

    /// Leaves; who became admin by it.
    pub async fn leave_group(&self, id: ConversationId, actor: Actor) -> Result<Option<String>, Refusal> {
        let reply = self.command(id, actor, GroupCommand::Leave).await?;
        expect_reply!(reply, Reply::Left(heir) => heir)
    }

    /// Ends a group; when.
    pub async fn delete_group(&self, id: ConversationId, actor: Actor) -> Result<Timestamp, Refusal> {
        let group = self.node.store.group(id).await.map_err(|_| Refusal::Unavailable)?;
        let creator = match group {
            Some(group) => self.node.store.agent(group.created_by).await.map_err(|_| Refusal::Unavailable)?,
            None => None,
        };
        let gone = |status| matches!(status, AgentStatus::Suspended | AgentStatus::Deleted);
        let creator_gone = creator.is_none_or(|creator| gone(creator.status));
        let reply = self.command(id, actor, GroupCommand::Delete { creator_gone }).await?;
        expect_reply!(reply, Reply::Ended(at) => at)
    }

    /// Takes an invitation of the caller's.
    pub async fn accept_invite(&self, actor: Actor, invite: InviteId) -> Result<ConversationView, Refusal> {
        let store = &self.node.store;
        let unavailable = |_| Refusal::Unavailable;
        let open = store.invites(actor.agent).await.map_err(unavailable)?;
        let row = open.into_iter().find(|row| row.id == invite).ok_or(Refusal::InviteNotFound)?;
        let own = store.blocks(actor.agent).await.map_err(unavailable)?;
        let theirs = store.blocks(row.inviter).await.map_err(unavailable)?;
        let blocked =
            own.iter().any(|block| block.agent == row.inviter) || theirs.iter().any(|block| block.agent == actor.agent);
        self.change(row.group, actor, GroupCommand::Accept { invite, blocked }).await
    }

    /// Declines an invitation of the caller's.
    pub async fn reject_invite(&self, actor: Actor, invite: InviteId) -> Result<(), Refusal> {
        let open = self.node.store.invites(actor.agent).await.map_err(|_| Refusal::Unavailable)?;
        let row = open.into_iter().find(|row| row.id == invite).ok_or(Refusal::InviteNotFound)?;
        self.command(row.group, actor, GroupCommand::Reject(invite)).await.map(drop)
    }

    /// Before an account ends: its groups see it leave, and nobody waits for its answer any more.
    pub(super) async fn leave_all_groups(&self, agent: AgentId) -> Result<(), Refusal> {
        let store = &self.node.store;
        let row = store.agent(agent).await.map_err(|_| Refusal::Unavailable)?;
        let actor = Actor { agent, handle: row.ok_or(Refusal::AgentNotFound)?.handle };
        for invite in store.invites(agent).await.map_err(|_| Refusal::Unavailable)? {
            settled(self.command(invite.group, actor.clone(), GroupCommand::Reject(invite.id)).await)?;
        }
        let conversations = store.agent_conversations(agent).await.map_err(|_| Refusal::Unavailable)?;
        for (id, _) in conversations.into_iter().filter(|(id, _)| id.kind == ConversationKind::Group) {
            settled(self.command(id, actor.clone(), GroupCommand::Leave).await)?;
        }
        Ok(())
    }
}

/// A group that the agent is not in any more needs nothing; anything transient has to be tried again.
fn settled(outcome: Result<Reply, Refusal>) -> Result<(), Refusal> {
    match outcome {
        Err(refusal @ (Refusal::Unavailable | Refusal::TimedOut)) => Err(refusal),
        _ => Ok(()),
    }
}
