//! Groups in the simulated world: what clients do to them, and what has to hold for every message in them.
//!
//! The model keeps, from the batches that were applied, who belonged from which seq to which. From that follows who has
//! to have each message: everybody who belonged at its seq, once, and nobody else.

use cluster::routes::NodeId;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use actors::agent::events::AgentRequest;
use actors::api::{AckMode, Added, Refusal, SessionId};
use actors::conversation::events::ConversationEvent;
use actors::conversation::group::{Actor, GroupCommand, GroupPatch, InviteeFacts, InviterFacts};
use actors::effects::{Event, Port, Reply};
use rand::Rng;
use schema::ids::{AgentId, ConversationId, ConversationKind, InviteId, Key, MessageId, Seq};
use schema::rows::{AgentStatus, Audience, DeliveryState, GroupRow, MuteTarget, Role};
use schema::store::{PAGE_MAX, Store, Write};

use super::{AGENTS, Socket, World, account};

/// Groups that one world makes.
const GROUPS: usize = 2;

/// What is known of one group.
#[derive(Default)]
pub(super) struct Group {
    /// By agent: stretches of seqs in which it belonged.
    stretches: HashMap<AgentId, BTreeMap<Seq, Option<Seq>>>,
    invites: Vec<(usize, InviteId)>,
    ended: bool,
}

impl Group {
    fn takers(&self, seq: Seq) -> BTreeSet<AgentId> {
        let covers = |stretches: &BTreeMap<Seq, Option<Seq>>| {
            stretches.iter().any(|(from, to)| *from <= seq && to.is_none_or(|to| seq <= to))
        };
        self.stretches.iter().filter(|(_, stretches)| covers(stretches)).map(|(agent, _)| *agent).collect()
    }
}

/// All groups of a world.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) known: BTreeMap<ConversationId, Group>,
    adds: HashMap<Port, (ConversationId, usize)>,
}

fn id(n: usize) -> ConversationId {
    ConversationId { kind: ConversationKind::Group, key: Key::from_bytes([100 + n as u8; 16]) }
}

impl World {
    /// Notes what an applied batch says of groups.
    pub(super) fn note_groups(&mut self, writes: &[Write]) {
        for write in writes {
            let Write::Group(row) = write else { continue };
            let group = self.groups.known.entry(row.id).or_default();
            group.ended |= row.deleted.is_some();
            for member in &row.members {
                let stretches = group.stretches.entry(member.agent).or_default();
                stretches.insert(member.joined_at_seq, member.left_at_seq);
            }
            assert_unique(row);
        }
    }

    fn command(&mut self, id: ConversationId, agent: usize, command: GroupCommand) -> Port {
        let port = Port { node: NodeId::default(), number: self.fresh() };
        let actor = Actor { agent: self.ids[agent], handle: account(agent).handle };
        let command = Box::new(command);
        self.mail(Event::Conversation(id, ConversationEvent::Group { port, actor, command }));
        port
    }

    /// One client changes one group, or makes it.
    pub(super) fn client_groups(&mut self) {
        let n = self.rng.random_range(0..GROUPS);
        // Mostly the one who made it: others may do little.
        let agent = if self.rng.random_bool(0.6) { n } else { self.rng.random_range(0..AGENTS) };
        let id = id(n);
        if !self.groups.known.contains_key(&id) {
            let create = GroupCommand::Create { name: "g".into(), description: None, picture: None };
            self.command(id, n, create);
            return;
        }
        let other = (agent + self.rng.random_range(1..AGENTS)) % AGENTS;
        match self.rng.random_range(0..40) {
            0..20 => self.add(id, agent, other),
            20..24 => self.accept(id),
            24..26 => drop(self.command(id, agent, GroupCommand::Remove(Some(self.ids[other])))),
            26..28 => drop(self.command(id, agent, GroupCommand::SetRole(Some(self.ids[other]), Role::Admin))),
            28 => drop(self.command(id, agent, GroupCommand::SetRole(Some(self.ids[other]), Role::Member))),
            29..32 => drop(self.command(id, agent, GroupCommand::Leave)),
            32..35 => {
                let name = Some(format!("g{}", self.next_id));
                let patch = GroupPatch { name, ..GroupPatch::default() };
                self.command(id, agent, GroupCommand::Update(patch));
            }
            35 if self.rng.random_bool(0.3) => {
                let creator_gone = self.rng_bool();
                self.command(id, agent, GroupCommand::Delete { creator_gone });
            }
            36..38 => drop(self.request(agent, AgentRequest::Mute(MuteTarget::Conversation(id), None))),
            _ => drop(self.request(agent, AgentRequest::Unmute(MuteTarget::Conversation(id)))),
        }
    }

    fn rng_bool(&mut self) -> bool {
        self.rng.random_bool(0.5)
    }

    fn add(&mut self, id: ConversationId, agent: usize, other: usize) {
        let target = InviteeFacts {
            agent: self.ids[other],
            handle: account(other).handle,
            status: AgentStatus::Active,
            blocks_inviter: false,
            has_contact: self.rng_bool(),
            policy: Audience::Open,
        };
        let inviter = InviterFacts { status: AgentStatus::Active, blocks_target: false, allowance: Ok(()) };
        let fresh = self.fresh();
        let mut entropy = [0; 16];
        entropy[..8].copy_from_slice(&fresh.to_be_bytes());
        let invite = InviteId(Key::from_bytes(entropy));
        let command = GroupCommand::Add { sides: Some(Box::new((target, inviter))), invite, auto_join: true };
        let port = self.command(id, agent, command);
        self.groups.adds.insert(port, (id, other));
    }

    fn accept(&mut self, id: ConversationId) {
        let Some((agent, invite)) = self.groups.known.get_mut(&id).and_then(|group| group.invites.pop()) else {
            return;
        };
        self.command(id, agent, GroupCommand::Accept { invite, blocked: false });
    }

    pub(super) fn group_answered(&mut self, port: Port, reply: &Result<Reply, Refusal>) {
        if let Some((id, agent)) = self.groups.adds.remove(&port)
            && let Ok(Reply::Added(Added::Invited(invite))) = reply
            && let Some(group) = self.groups.known.get_mut(&id)
        {
            group.invites.push((agent, *invite));
        }
    }

    pub(super) fn group_for_send(&mut self, from: usize) -> Option<ConversationId> {
        let pick = self.rng.random_range(0..GROUPS + 1);
        let group = self.groups.known.get(&id(pick))?;
        group.stretches.get(&self.ids[from])?.values().any(Option::is_none).then(|| id(pick))
    }

    /// Everybody who belonged has the message (S6): at once for what was answered, in the end for everything.
    pub(super) async fn check_takers(&self, message: MessageId, sender: AgentId, at_rest: bool) {
        let Some(group) = self.groups.known.get(&message.conversation) else { return };
        for agent in &self.ids {
            let rows = self.store.receipts(*agent, message.conversation, message.seq, message.seq, 1).await;
            let row = rows.expect("reads").pop().map(|(_, row)| row);
            let delivered = row.is_some_and(|row| row.pos.is_some());
            let expected = group.takers(message.seq).contains(agent) && *agent != sender;
            assert_eq!(
                delivered,
                expected,
                "S6: {agent} and {message}: {row:?}, belonged {:?}",
                group.stretches.get(agent)
            );
            let waits = row.is_some_and(|row| row.pos.is_some() && row.state == DeliveryState::Stored);
            assert!(!at_rest || !waits, "S15: {message} still waits for {agent}");
        }
    }

    pub(super) async fn check_groups(&self, at_rest: bool) {
        for id in self.groups.known.keys() {
            let log = self.store.messages_up(*id, Seq(1), Seq(u64::MAX), PAGE_MAX).await.expect("reads");
            for (n, message) in log.iter().enumerate() {
                assert_eq!(message.seq, Seq(n as u64 + 1), "S1: a hole in {id}");
                if at_rest {
                    let place = MessageId { conversation: *id, seq: message.seq };
                    self.check_takers(place, message.sender, true).await;
                }
            }
        }
    }

    /// A group message is shown to those only who belong at its seq.
    pub(super) fn check_shown(&self, agent: usize, message: MessageId) {
        if let Some(group) = self.groups.known.get(&message.conversation) {
            assert!(group.takers(message.seq).contains(&self.ids[agent]), "S20: {message} shown to an outsider");
        }
    }

    pub(super) fn attach_mode(explicit: bool) -> AckMode {
        if explicit { AckMode::Explicit { window: 4 } } else { AckMode::OnWrite }
    }

    /// At the end nothing is muted, and somebody looks at every group: what was appended and never answered before a
    /// crash is delivered when its conversation is active again.
    pub(super) fn visit_groups(&mut self) {
        for n in 0..GROUPS {
            let port = Port { node: NodeId::default(), number: self.fresh() };
            self.mail(Event::Conversation(id(n), ConversationEvent::View(port, self.ids[0])));
        }
        for (agent, n) in (0..AGENTS).flat_map(|agent| (0..GROUPS).map(move |n| (agent, n))) {
            self.request(agent, AgentRequest::Unmute(MuteTarget::Conversation(id(n))));
        }
    }

    /// Order within a conversation holds on a socket; what a mute held back may come after an own echo.
    pub(super) fn check_order(socket: &mut Socket, session: SessionId, message: MessageId, own: bool) {
        let last = socket.shown.entry(message.conversation).or_default();
        let tolerated = message.conversation.kind == ConversationKind::Group;
        let floor = if tolerated && !own { &mut last.1 } else { &mut last.0 };
        assert!(message.seq > *floor, "S3: {message} after {floor:?} on {session:?}");
        last.0 = last.0.max(message.seq);
        if !own {
            last.1 = last.1.max(message.seq);
        }
    }
}

/// At most one active entry per agent (M2).
fn assert_unique(row: &GroupRow) {
    let active: Vec<AgentId> = row.active().map(|member| member.agent).collect();
    let unique: BTreeSet<AgentId> = active.iter().copied().collect();
    assert_eq!(active.len(), unique.len(), "M2: {active:?}");
    assert!(row.invites.iter().all(|open| !unique.contains(&open.agent)), "R3: a member has an open invitation");
}
