//! Rules of one agent that depend on time, stepped by hand.

use cluster::routes::NodeId;
use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, Key, KeyHash, Pos, Seq, WebhookId};
use schema::rows::{
    AgentRow, AgentStatus, ContactRow, HookKind, InboxRow, MessageRow, MessageType, MuteTarget, PresenceStatus,
    Timestamp, WebhookRow,
};

use super::Agent;
use super::events::{AgentEvent, AgentRequest, Signal};
use crate::api::{AckMode, Presence, Refusal, ReplyCommand, ReplyState, SessionId, Snapshot, ToSession};
use crate::conversation::events::Delivery;
use crate::effects::{Effects, Event, Found, LoadedAgent, Port, Read, Reply};
use crate::limits::{
    CLAIM_MS, INVITE_WINDOW_MS, Limits, PRESENCE_FADES_MS, RESTRICT_WINDOW_MS, SHOWN_AGAIN_MS, SIGNAL_WINDOW_MS,
    SNAPSHOT_MS,
};

const KEY: KeyHash = KeyHash([1; 32]);
const NOW: u64 = 10 * SIGNAL_WINDOW_MS;

fn id(n: u8) -> AgentId {
    AgentId(Key::from_bytes([n; 16]))
}

/// An agent whose writes are durable at once, and what its steps wanted.
struct Rig {
    agent: Agent,
    now: u64,
    tells: Vec<Event>,
    pushes: Vec<ToSession>,
    reads: Vec<Read>,
    hooks: usize,
    snapshots: Vec<Snapshot>,
}

impl Rig {
    fn new() -> Self {
        let row = AgentRow::new(id(1), "alice", "a@b.c", KEY, Timestamp(1));
        let bob = ContactRow { agent: id(2), handle: "bob".into(), notes: None, added_at: Timestamp(1) };
        let loaded = LoadedAgent { contacts: vec![bob], ..LoadedAgent::bare(row) };
        let limits = Limits { invites_per_day: Some(2), ..Limits::default() };
        let agent = Agent::activate(loaded, limits.into());
        let (tells, pushes, reads, snapshots) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { agent, now: NOW, tells, pushes, reads, hooks: 0, snapshots }
    }

    fn on(&mut self, event: AgentEvent) -> Vec<Result<Reply, Refusal>> {
        let (mut events, mut replies) = (vec![event], Vec::new());
        while let Some(event) = events.pop() {
            let mut fx = Effects::default();
            self.agent.on(Timestamp(self.now), event, &mut fx);
            if fx.writes.is_some() {
                events.push(AgentEvent::Stored(Ok(())));
            }
            self.tells.extend(fx.tells);
            self.pushes.extend(fx.pushes.into_iter().map(|(_, frame)| frame));
            self.reads.extend(fx.reads);
            self.hooks += fx.hooks.len();
            self.snapshots.extend(fx.snapshot);
            replies.extend(fx.replies.into_iter().map(|(_, reply)| reply));
        }
        replies
    }

    fn ask(&mut self, request: AgentRequest) -> Result<Reply, Refusal> {
        self.on(AgentEvent::Request(Port { node: NodeId::default(), number: 1 }, request)).pop().expect("answered")
    }

    fn attach(&mut self, session: u64) {
        let mode = AckMode::Explicit { window: 10 };
        assert!(
            self.ask(AgentRequest::Attach(KEY, SessionId { node: NodeId::default(), number: session }, mode)).is_ok()
        );
    }

    fn presence(&mut self) -> (PresenceStatus, Option<String>) {
        match self.ask(AgentRequest::Presence(id(9))) {
            Ok(Reply::Presence(Presence { status, message, .. })) => (status, message),
            other => panic!("{other:?}"),
        }
    }

    fn status(&self) -> AgentStatus {
        self.agent.row.status
    }
}

#[test]
fn what_was_said_fades_without_a_socket_and_holds_with_one() {
    let mut rig = Rig::new();
    let say = || AgentRequest::SetPresence(PresenceStatus::Busy, Some("here".into()));
    assert!(rig.ask(say()).is_ok());
    assert!(!rig.agent.is_idle(), "somebody has to see it fade");
    rig.now += PRESENCE_FADES_MS - 1;
    rig.on(AgentEvent::Wake);
    assert_eq!(rig.presence(), (PresenceStatus::Busy, Some("here".into())));
    rig.now += 1;
    rig.reads.clear();
    rig.on(AgentEvent::Wake);
    assert_eq!(rig.presence(), (PresenceStatus::Offline, None));
    assert!(matches!(rig.reads[..], [Read::Watchers(..)]), "those who watch are told");
    assert!(rig.agent.is_idle());
    rig.attach(1);
    assert!(rig.ask(say()).is_ok());
    rig.now += 2 * PRESENCE_FADES_MS;
    rig.on(AgentEvent::Wake);
    assert_eq!(rig.presence().0, PresenceStatus::Busy);
    rig.attach(2);
    rig.on(AgentEvent::Detach(SessionId { node: NodeId::default(), number: 1 }));
    assert_eq!(rig.presence().0, PresenceStatus::Busy, "neither the first nor the last socket");
    rig.on(AgentEvent::Detach(SessionId { node: NodeId::default(), number: 2 }));
    assert_eq!(rig.presence(), (PresenceStatus::Offline, None));
}

#[test]
fn copies_are_shown_every_change_and_hold_no_longer_than_it() {
    let mut rig = Rig::new();
    let shown = |rig: &mut Rig| {
        let snapshots = std::mem::take(&mut rig.snapshots);
        snapshots.into_iter().map(|one| (one.presence.status, one.holds_ms)).collect::<Vec<_>>()
    };
    let say = AgentRequest::SetPresence(PresenceStatus::Busy, None);
    assert!(rig.ask(say).is_ok());
    assert_eq!(shown(&mut rig), [(PresenceStatus::Busy, SNAPSHOT_MS)]);
    rig.now += SHOWN_AGAIN_MS - 1;
    rig.presence();
    assert_eq!(shown(&mut rig), [], "the last copy still holds");
    rig.now += 1;
    rig.presence();
    assert_eq!(shown(&mut rig), [(PresenceStatus::Busy, SNAPSHOT_MS)]);
    rig.now += PRESENCE_FADES_MS - SHOWN_AGAIN_MS - 5;
    rig.presence();
    assert_eq!(shown(&mut rig), [(PresenceStatus::Busy, 5)], "it fades then");
    rig.now += 5;
    rig.on(AgentEvent::Wake);
    assert_eq!(shown(&mut rig), [(PresenceStatus::Offline, SNAPSHOT_MS)]);
    rig.attach(1);
    assert_eq!(shown(&mut rig), [(PresenceStatus::Online, SNAPSHOT_MS)]);
    rig.attach(2);
    assert_eq!(shown(&mut rig), [], "nothing changed");
    let gone = |number| AgentEvent::Detach(SessionId { node: NodeId::default(), number });
    rig.on(gone(1));
    rig.on(gone(2));
    assert_eq!(shown(&mut rig), [(PresenceStatus::Offline, SNAPSHOT_MS)]);
    assert!(rig.ask(AgentRequest::Delete).is_ok());
    assert_eq!(shown(&mut rig), [(PresenceStatus::Offline, SNAPSHOT_MS)], "and when it was last here goes as well");
    assert_eq!(rig.agent.presence(Timestamp(rig.now)), Presence::default());
}

#[test]
fn only_those_in_the_book_are_shown_and_blocked_ones_are_not() {
    let mut rig = Rig::new();
    rig.attach(1);
    let update = |n: u8| AgentEvent::PeerPresence { peer: id(n), handle: "x".into(), presence: Presence::default() };
    rig.on(update(3));
    assert_eq!(rig.pushes.len(), 0, "not in the book");
    rig.on(update(2));
    assert_eq!(rig.pushes.len(), 1);
    assert!(rig.ask(AgentRequest::Block(id(2), "bob".into())).is_ok());
    rig.on(update(2));
    assert_eq!(rig.pushes.len(), 1);
    assert_eq!(rig.ask(AgentRequest::Presence(id(2))).err(), Some(Refusal::NoRelation), "nor does it see this one");
}

fn message(seq: u64) -> Arc<MessageRow> {
    Arc::new(MessageRow {
        conversation: ConversationId::direct(id(1), id(2)),
        seq: Seq(seq),
        sender: id(2),
        sender_handle: "bob".into(),
        client_msg_id: seq.to_string(),
        kind: MessageType::Text,
        content: "{}".into(),
        metadata: "{}".into(),
        mentions: Vec::new(),
        created_at: Timestamp(1),
    })
}

fn deliver(rig: &mut Rig, seq: u64) {
    let message = message(seq);
    let conversation = message.conversation;
    let peer = Some((id(2), "bob".to_owned()));
    let delivery = Delivery { message, after: Seq(0), peer, cold: false, established: None, ends: false };
    rig.on(AgentEvent::Deliver(Box::new(delivery)));
    rig.on(AgentEvent::Found(Found::AgentConversation(conversation, None)));
}

fn shown(rig: &Rig) -> Vec<u64> {
    let seq = |frame: &ToSession| match frame {
        ToSession::Message { message, .. } => Some(message.seq.0),
        _ => None,
    };
    rig.pushes.iter().filter_map(seq).collect()
}

/// Answers the pages that sockets ask for, as the store would.
fn feed(rig: &mut Rig, stored: &[u64]) {
    while let Some(at) = rig.reads.iter().position(|read| matches!(read, Read::InboxFor(..))) {
        let Read::InboxFor(_, session, after, through, limit) = rig.reads.swap_remove(at) else { unreachable!() };
        let inside = stored.iter().filter(|seq| after.0 < **seq && **seq <= through.0);
        let rows: Vec<InboxRow> = inside.map(|seq| InboxRow { pos: Pos(*seq), message: message(*seq) }).collect();
        rig.on(AgentEvent::Found(Found::InboxFor(session, rows, through, limit)));
    }
}

#[test]
fn a_mute_that_ends_by_itself_brings_back_what_it_passed_over() {
    let mut rig = Rig::new();
    let hook = WebhookRow {
        id: WebhookId(Key::from_bytes([7; 16])),
        url: "https://example.com".into(),
        events: vec![HookKind::MessageNew],
        secret: "s".into(),
        active: true,
        created_at: Timestamp(1),
    };
    assert!(rig.ask(AgentRequest::AddWebhook(Box::new(hook))).is_ok());
    rig.attach(1);
    feed(&mut rig, &[]);
    let until = Some(Timestamp(rig.now + 1_000));
    assert!(rig.ask(AgentRequest::Mute(MuteTarget::Agent(id(2), "bob".into()), until)).is_ok());
    deliver(&mut rig, 1);
    assert_eq!((shown(&rig), rig.hooks), (vec![], 0));
    rig.now += 1_000;
    rig.on(AgentEvent::Wake);
    feed(&mut rig, &[1]);
    assert_eq!(shown(&rig), [1]);
    deliver(&mut rig, 2);
    feed(&mut rig, &[1, 2]);
    assert_eq!((shown(&rig), rig.hooks), (vec![1, 2], 1), "each once, in order; webhooks get what comes after");
    let Ok(Reply::Mutes(mutes)) = rig.ask(AgentRequest::Mutes) else { panic!("answered") };
    assert_eq!(mutes, []);
}

#[test]
fn blocks_restrict_for_a_day_and_suspend_within_a_week() {
    let mut rig = Rig::new();
    for n in 0..15 {
        assert_eq!(rig.status(), AgentStatus::Active, "after {n}");
        rig.on(AgentEvent::Signal(id(50 + n), Signal::Block(Timestamp(rig.now))));
    }
    assert_eq!(rig.status(), AgentStatus::Restricted);
    rig.now += RESTRICT_WINDOW_MS;
    assert!(rig.ask(AgentRequest::Admit(KEY)).is_ok());
    assert_eq!(rig.status(), AgentStatus::Active, "a day later it is over");
    for n in 15..50 {
        rig.on(AgentEvent::Signal(id(50 + n), Signal::Block(Timestamp(rig.now))));
    }
    assert_eq!(rig.status(), AgentStatus::Suspended, "fifty within the week");
    rig.now += SIGNAL_WINDOW_MS;
    rig.on(AgentEvent::Signal(id(50), Signal::Unblock));
    assert_eq!(rig.status(), AgentStatus::Suspended, "that never ends by itself");
    assert!(rig.ask(AgentRequest::Suspend(false)).is_ok());
    assert_eq!(rig.status(), AgentStatus::Active);
}

#[test]
fn reports_and_blocks_count_once_each_and_an_unblock_takes_one_away() {
    let mut rig = Rig::new();
    for n in 0..9 {
        rig.on(AgentEvent::Signal(id(50 + n), Signal::Report(Timestamp(rig.now))));
        rig.on(AgentEvent::Signal(id(50 + n), Signal::Report(Timestamp(rig.now))));
    }
    assert_eq!(rig.status(), AgentStatus::Active, "nine reporters, however often");
    for n in 0..15 {
        rig.on(AgentEvent::Signal(id(80 + n), Signal::Block(Timestamp(rig.now))));
    }
    assert_eq!(rig.status(), AgentStatus::Restricted);
    rig.on(AgentEvent::Signal(id(80), Signal::Unblock));
    assert_eq!(rig.status(), AgentStatus::Active);
    rig.on(AgentEvent::Signal(id(200), Signal::Report(Timestamp(rig.now))));
    assert_eq!(rig.status(), AgentStatus::Suspended);
}

#[test]
fn a_system_agent_is_exempt() {
    let mut rig = Rig::new();
    assert!(rig.ask(AgentRequest::SetSystem(true)).is_ok());
    (0..60).for_each(|n| drop(rig.on(AgentEvent::Signal(id(50 + n), Signal::Block(Timestamp(rig.now))))));
    assert_eq!(rig.status(), AgentStatus::Active);
}

#[test]
fn invitations_are_set_aside_counted_and_come_back_after_a_day() {
    let mut rig = Rig::new();
    let allowance = |rig: &mut Rig| match rig.ask(AgentRequest::InviterFacts(id(2))) {
        Ok(Reply::Inviter(facts)) => facts.allowance,
        other => panic!("{other:?}"),
    };
    assert_eq!((allowance(&mut rig), allowance(&mut rig)), (Ok(()), Ok(())));
    assert!(allowance(&mut rig).is_err(), "two are set aside");
    rig.on(AgentEvent::InviteDone(false));
    rig.on(AgentEvent::InviteDone(false));
    rig.on(AgentEvent::InviteDone(true));
    assert_eq!(allowance(&mut rig), Ok(()));
    rig.on(AgentEvent::InviteDone(true));
    assert_eq!(allowance(&mut rig), Err(INVITE_WINDOW_MS));
    rig.on(AgentEvent::InviteDone(false));
    rig.now += INVITE_WINDOW_MS;
    assert_eq!(allowance(&mut rig), Ok(()));
}

#[test]
fn claims_end_and_leave_nothing_behind() {
    let mut rig = Rig::new();
    let claim = |rig: &mut Rig, holder: &str| {
        let command = ReplyCommand::Claim { messages: vec!["m".into()], holder: holder.into(), defer: false };
        match rig.ask(AgentRequest::Coordinate(command)) {
            Ok(Reply::Coordination(ReplyState::Claimed(count, _))) => count,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((claim(&mut rig, "one"), claim(&mut rig, "two")), (1, 0));
    assert!(!rig.agent.is_idle());
    rig.now += CLAIM_MS;
    assert_eq!(claim(&mut rig, "two"), 1);
    rig.now += CLAIM_MS;
    rig.on(AgentEvent::Wake);
    assert!(rig.agent.is_idle());
}
