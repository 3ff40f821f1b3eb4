//! Changes of a group: members, roles, invitations, settings, end.
//!
//! R1  A change, the message that tells of it and the invitations it makes or ends are one batch.
//! R2  It is answered when everybody who has to know has the message; a refusal changes nothing.
//! R3  An agent has at most one open invitation per group; a member has none.

mod command;
mod system;

use std::sync::Arc;

use schema::ids::{AgentId, InviteId, Seq};
use schema::rows::{
    AgentStatus, Audience, ConversationRow, DeletedRow, GroupRow, InviteRow, MemberRow, MessageType, Picture, Role,
    Timestamp,
};
use schema::store::Write;

pub use self::command::{Actor, GroupCommand, GroupPatch, InviteeFacts, InviterFacts};
use self::system::GroupEvent;
use super::log::Body;
use super::{Conversation, Head};
use crate::agent::events::AgentEvent;
use crate::api::{Added, GroupEnd, Invitation, Refusal};
use crate::effects::{Effects, Event, Port, Reply};
use crate::limits::{FANOUT_MAX, GROUP_MEMBERS_MAX};

/// Members pass; those of a group that ended are told so; everybody else learns nothing.
pub(super) fn open_to(group: &GroupRow, agent: AgentId) -> Result<&MemberRow, Refusal> {
    let member = group.member(agent).ok_or(Refusal::ConversationNotFound)?;
    match &group.deleted {
        Some(deleted) => {
            Err(Refusal::GroupDeleted(Box::new(GroupEnd { group: group.id, by: deleted.by.clone(), at: deleted.at })))
        }
        None => Ok(member),
    }
}

fn admin(group: &GroupRow, agent: AgentId) -> Result<(), Refusal> {
    if open_to(group, agent)?.role == Role::Admin { Ok(()) } else { Err(Refusal::NotAdmin) }
}

impl Conversation {
    pub(super) fn command(
        &mut self,
        now: Timestamp,
        port: Port,
        actor: Actor,
        command: GroupCommand,
        fx: &mut Effects,
    ) {
        if self.unfinished() >= FANOUT_MAX {
            return fx.answer(port, Err(Refusal::Unavailable));
        }
        let before = self.next.messages.len();
        let reply = match self.decide(now, &actor, command) {
            Ok(reply) => reply,
            Err(refusal) => return fx.answer(port, Err(refusal)),
        };
        if self.next.messages.len() > before
            && let Some(last) = self.next.messages.last_mut()
        {
            last.answers.push((port, reply)); // R2
        } else if self.next.is_empty() && self.in_flight.is_none() {
            fx.answer(port, Ok(reply));
        } else {
            self.next.head = true; // what the answer rests on may still be under way
            self.next.answers.push((port, reply));
        }
        self.commit_next(fx);
    }

    fn decide(&mut self, now: Timestamp, actor: &Actor, command: GroupCommand) -> Result<Reply, Refusal> {
        match command {
            GroupCommand::Create { name, description, picture } => {
                self.create(now, actor, (name, description, picture))
            }
            GroupCommand::Update(patch) => self.update(now, actor, patch),
            GroupCommand::Add { sides, invite, auto_join } => self.add(now, actor, sides, invite, auto_join),
            GroupCommand::Remove(target) => self.remove(now, actor, target),
            GroupCommand::SetRole(target, role) => self.set_role(now, actor, target, role),
            GroupCommand::Leave => self.leave(now, actor),
            GroupCommand::Accept { invite, blocked } => self.accept(now, actor, invite, blocked),
            GroupCommand::Reject(invite) => self.reject(actor, invite),
            GroupCommand::Delete { creator_gone } => self.delete(now, actor, creator_gone),
        }
    }

    fn group(&self) -> Result<&GroupRow, Refusal> {
        let group = self.assigned.as_ref().and_then(|head| head.group.as_deref());
        group.ok_or(Refusal::ConversationNotFound)
    }

    /// The group, to be changed in this batch.
    fn group_mut(&mut self) -> Result<&mut GroupRow, Refusal> {
        let group = self.assigned.as_mut().and_then(|head| head.group.as_mut());
        self.next.group = true;
        group.map(Arc::make_mut).ok_or(Refusal::ConversationNotFound)
    }

    /// Writes what happened into the log.
    fn tell(&mut self, now: Timestamp, sender: (AgentId, String), event: &GroupEvent) -> Option<Seq> {
        let body = Body {
            sender,
            client_msg_id: None,
            kind: MessageType::System,
            content: event.content(),
            metadata: "{}".to_owned(),
            mentions: Vec::new(),
        };
        self.append(body, now)
    }

    fn next_seq(&self) -> Seq {
        self.assigned.as_ref().map_or(Seq(1), |head| head.row.last_seq.next())
    }

    fn view_for(&self, agent: AgentId) -> Result<Reply, Refusal> {
        self.assigned.as_ref().ok_or(Refusal::ConversationNotFound)?.view(agent)
    }

    fn create(
        &mut self,
        now: Timestamp,
        actor: &Actor,
        (name, description, picture): (String, Option<String>, Option<Picture>),
    ) -> Result<Reply, Refusal> {
        if self.assigned.is_some() {
            return Err(Refusal::Unavailable); // an id that is in use: the next one will not be
        }
        let creator = MemberRow {
            agent: actor.agent,
            handle: actor.handle.clone(),
            joined_at_seq: Seq(1),
            role: Role::Admin,
            joined_at: now,
            left_at_seq: None,
        };
        let group = GroupRow {
            id: self.id,
            name,
            description,
            picture,
            created_by: actor.agent,
            created_by_handle: actor.handle.clone(),
            members: vec![creator],
            invites: Vec::new(),
            deleted: None,
            created_at: now,
        };
        let row = ConversationRow {
            id: self.id,
            members: Vec::new(),
            established: true,
            cold: None,
            opened_by: actor.agent,
            last_seq: Seq(0),
            fanned_out: Seq(0),
            created_at: now,
            last_message_at: now,
        };
        self.assigned = Some(Head { row, group: Some(Arc::new(group)) });
        self.next.group = true;
        self.view_for(actor.agent)
    }

    fn update(&mut self, now: Timestamp, actor: &Actor, patch: GroupPatch) -> Result<Reply, Refusal> {
        admin(self.group()?, actor.agent)?;
        let sender = (actor.agent, actor.handle.clone());
        let actor_handle = || actor.handle.clone();
        if let Some(name) = patch.name.filter(|name| self.group().is_ok_and(|group| group.name != *name)) {
            self.group_mut()?.name.clone_from(&name);
            let event = GroupEvent::NameChanged { name, actor: actor_handle() };
            self.tell(now, sender.clone(), &event);
        }
        let description = patch.description.filter(|text| self.group().is_ok_and(|group| group.description != *text));
        if let Some(description) = description {
            self.group_mut()?.description = description;
            self.tell(now, sender.clone(), &GroupEvent::DescriptionChanged { actor: actor_handle() });
        }
        let tells = patch.picture_always_tells;
        let picture = patch.picture.filter(|new| tells || self.group().is_ok_and(|group| group.picture != *new));
        if let Some(picture) = picture {
            if tells && picture.is_none() && self.group()?.picture.is_none() {
                return Err(Refusal::NoPicture);
            }
            self.group_mut()?.picture = picture;
            self.tell(now, sender, &GroupEvent::AvatarChanged { actor: actor_handle() });
        }
        self.view_for(actor.agent)
    }

    fn add(
        &mut self,
        now: Timestamp,
        actor: &Actor,
        sides: Option<Box<(InviteeFacts, InviterFacts)>>,
        invite: InviteId,
        auto_join: bool,
    ) -> Result<Reply, Refusal> {
        let group = self.group()?;
        admin(group, actor.agent)?;
        let live = sides.filter(|sides| sides.0.status != AgentStatus::Deleted);
        let (target, inviter) = *live.ok_or(Refusal::AgentNotFound)?;
        if group.member(target.agent).is_some() {
            return Ok(Reply::Added(Added::AlreadyMember));
        }
        if let Some(open) = group.invites.iter().find(|open| open.agent == target.agent) {
            return Ok(Reply::Added(Added::Invited(open.id)));
        }
        may_add(group, &target, &inviter)?;
        if auto_join && target.has_contact {
            self.join(now, Actor { agent: target.agent, handle: target.handle })?;
            return Ok(Reply::Added(Added::Joined));
        }
        let row = InviteRow {
            id: invite,
            group: self.id,
            agent: target.agent,
            inviter: actor.agent,
            inviter_handle: actor.handle.clone(),
            created_at: now,
        };
        let group = self.group_mut()?;
        group.invites.push(row.clone());
        let invitation = Invitation { row: row.clone(), group: Arc::new(group.clone()) };
        let event = AgentEvent::Invited(Arc::new(invitation));
        self.next.tells.push(Event::Agent(target.agent, event));
        self.next.rows.push(Write::Invite(Box::new(row)));
        Ok(Reply::Added(Added::Invited(invite)))
    }

    /// Makes somebody a member, from its own `member_joined` on (contract §7.3).
    fn join(&mut self, now: Timestamp, joiner: Actor) -> Result<(), Refusal> {
        let joined_at_seq = self.next_seq();
        let group = self.group_mut()?;
        let (id, invites) = (group.id, group.invites.len());
        group.invites.retain(|open| open.agent != joiner.agent);
        let invited = group.invites.len() < invites;
        group.members.push(MemberRow {
            agent: joiner.agent,
            handle: joiner.handle.clone(),
            joined_at_seq,
            role: Role::Member,
            joined_at: now,
            left_at_seq: None,
        });
        if invited {
            self.next.rows.push(Write::InviteRemove(joiner.agent, id)); // R3
        }
        let event = GroupEvent::MemberJoined { agent: joiner.handle.clone() };
        self.tell(now, (joiner.agent, joiner.handle), &event);
        Ok(())
    }

    fn remove(&mut self, now: Timestamp, actor: &Actor, target: Option<AgentId>) -> Result<Reply, Refusal> {
        let group = self.group()?;
        admin(group, actor.agent)?;
        let target = target.ok_or(Refusal::AgentNotFound)?;
        if target == actor.agent {
            return Err(Refusal::SelfTarget);
        }
        let handle = group.member(target).ok_or(Refusal::AgentNotFound)?.handle.clone();
        if target == group.created_by {
            return Err(Refusal::NotAdmin);
        }
        let event = GroupEvent::MemberRemoved { agent: handle, actor: actor.handle.clone() };
        let seq = self.tell(now, (actor.agent, actor.handle.clone()), &event);
        self.mark_left(target, seq)?;
        Ok(Reply::Done)
    }

    /// The member takes everything through `seq`, and nothing after it (M1).
    fn mark_left(&mut self, agent: AgentId, seq: Option<Seq>) -> Result<(), Refusal> {
        if let Some(member) = self.group_mut()?.member_mut(agent) {
            (member.left_at_seq, member.role) = (seq, Role::Member);
        }
        Ok(())
    }

    fn set_role(
        &mut self,
        now: Timestamp,
        actor: &Actor,
        target: Option<AgentId>,
        role: Role,
    ) -> Result<Reply, Refusal> {
        let group = self.group()?;
        admin(group, actor.agent)?;
        let target = target.ok_or(Refusal::AgentNotFound)?;
        let member = group.member(target).ok_or(Refusal::AgentNotFound)?;
        let admins = group.active().filter(|member| member.role == Role::Admin).count();
        if role == Role::Member && (target == group.created_by || (member.role == Role::Admin && admins == 1)) {
            return Err(Refusal::NotAdmin);
        }
        if member.role == role {
            return Ok(Reply::Done);
        }
        let (agent, by) = (member.handle.clone(), actor.handle.clone());
        self.give_role(target, role)?;
        let event = match role {
            Role::Admin => GroupEvent::AdminPromoted { agent, actor: Some(by) },
            Role::Member => GroupEvent::AdminDemoted { agent, actor: by },
        };
        self.tell(now, (actor.agent, actor.handle.clone()), &event);
        Ok(Reply::Done)
    }

    fn give_role(&mut self, agent: AgentId, role: Role) -> Result<(), Refusal> {
        if let Some(member) = self.group_mut()?.member_mut(agent) {
            member.role = role;
        }
        Ok(())
    }

    fn leave(&mut self, now: Timestamp, actor: &Actor) -> Result<Reply, Refusal> {
        open_to(self.group()?, actor.agent)?;
        let sender = (actor.agent, actor.handle.clone());
        let event = GroupEvent::MemberLeft { agent: actor.handle.clone() };
        let seq = self.tell(now, sender.clone(), &event);
        self.mark_left(actor.agent, seq)?;
        let group = self.group()?;
        if group.active().any(|member| member.role == Role::Admin) {
            return Ok(Reply::Left(None));
        }
        let heir = oldest(group.active()).map(|member| (member.agent, member.handle.clone()));
        let Some((heir, handle)) = heir else {
            self.cancel_invites()?; // nobody is left to welcome anybody
            return Ok(Reply::Left(None));
        };
        self.give_role(heir, Role::Admin)?;
        self.tell(now, sender, &GroupEvent::AdminPromoted { agent: handle.clone(), actor: None });
        Ok(Reply::Left(Some(handle)))
    }

    fn cancel_invites(&mut self) -> Result<(), Refusal> {
        let group = self.group_mut()?;
        let (id, invites) = (group.id, std::mem::take(&mut group.invites));
        self.next.rows.extend(invites.into_iter().map(|open| Write::InviteRemove(open.agent, id)));
        Ok(())
    }

    fn invited<'a>(&'a self, actor: &Actor, invite: InviteId) -> Result<&'a GroupRow, Refusal> {
        let group = self.group().map_err(|_| Refusal::InviteNotFound)?;
        let open = group.invites.iter().any(|open| open.id == invite && open.agent == actor.agent);
        if open { Ok(group) } else { Err(Refusal::InviteNotFound) }
    }

    fn accept(&mut self, now: Timestamp, actor: &Actor, invite: InviteId, blocked: bool) -> Result<Reply, Refusal> {
        let group = self.invited(actor, invite)?;
        if blocked {
            return Err(Refusal::Blocked);
        }
        if group.active().count() >= GROUP_MEMBERS_MAX {
            return Err(Refusal::GroupFull);
        }
        self.join(now, actor.clone())?;
        self.view_for(actor.agent)
    }

    fn reject(&mut self, actor: &Actor, invite: InviteId) -> Result<Reply, Refusal> {
        self.invited(actor, invite)?;
        let group = self.group_mut()?;
        group.invites.retain(|open| open.id != invite);
        let id = group.id;
        self.next.rows.push(Write::InviteRemove(actor.agent, id));
        Ok(Reply::Done)
    }

    fn delete(&mut self, now: Timestamp, actor: &Actor, creator_gone: bool) -> Result<Reply, Refusal> {
        let group = self.group()?;
        open_to(group, actor.agent)?;
        let creator = group.member(group.created_by).filter(|_| !creator_gone);
        let others = group.active().filter(|member| member.role == Role::Admin && member.agent != group.created_by);
        if creator.or_else(|| oldest(others)).is_none_or(|member| member.agent != actor.agent) {
            return Err(Refusal::NotAdmin);
        }
        let by = actor.handle.clone();
        self.tell(now, (actor.agent, by.clone()), &GroupEvent::GroupDeleted { actor: by.clone() });
        self.cancel_invites()?;
        let end = GroupEnd { group: self.id, by: by.clone(), at: now };
        let group = self.group_mut()?;
        group.deleted = Some(DeletedRow { by, at: now });
        let members: Vec<AgentId> = group.active().map(|member| member.agent).collect();
        if let Some(notice) = self.next.messages.last_mut() {
            notice.ends = true;
            let gone = |agent| Event::Agent(agent, AgentEvent::GroupGone(Box::new(end.clone())));
            notice.tells.extend(members.into_iter().map(gone));
        }
        Ok(Reply::Ended(now))
    }
}

/// Whoever joined first; of those who joined together, the first by handle.
fn oldest<'a>(members: impl Iterator<Item = &'a MemberRow>) -> Option<&'a MemberRow> {
    members.min_by(|a, b| (a.joined_at, &a.handle).cmp(&(b.joined_at, &b.handle)))
}

/// The gates of the add pipeline between two agents, in the contract's order.
fn may_add(group: &GroupRow, target: &InviteeFacts, inviter: &InviterFacts) -> Result<(), Refusal> {
    if inviter.blocks_target || target.blocks_inviter {
        return Err(Refusal::Blocked);
    }
    if target.policy == Audience::ContactsOnly && !target.has_contact {
        return Err(Refusal::InboxRestricted { handle: target.handle.clone() });
    }
    if inviter.status == AgentStatus::Restricted && !target.has_contact {
        return Err(Refusal::Restricted);
    }
    if group.active().count() >= GROUP_MEMBERS_MAX {
        return Err(Refusal::GroupFull);
    }
    inviter.allowance.map_err(|retry_after_ms| Refusal::RateLimited { retry_after_ms })
}
