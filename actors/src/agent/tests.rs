//! Rules of one agent that depend on time, stepped by hand.

use cluster::routes::NodeId;
use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, Key, KeyHash, MessageId, OwnerId, Pos, Seq, WebhookId};
use schema::rows::{
    AgentRow, AgentStatus, ContactRow, DeliveryState, EventAction, HookKind, InboxRow, MessageRow, MessageType,
    MuteTarget, Pause, PresenceStatus, ReceiptRow, RevokedReason, Timestamp, WebhookRow,
};
use schema::store::Write;

use super::Agent;
use super::events::{AgentEvent, AgentRequest, ClaimAttempt, Signal};
use crate::api::{AckMode, Presence, Refusal, ReplyCommand, ReplyState, SessionId, Snapshot, ToSession};
use crate::conversation::events::Delivery;
use crate::effects::{Effects, Event, Found, LoadedAgent, Port, Read, Reply};
use crate::limits::{
    CLAIM_MS, CLAIM_REJECTIONS, CLAIM_REJECTIONS_MS, INVITE_WINDOW_MS, Limits, ONCE_MAX, ONCE_MS, PRESENCE_FADES_MS,
    RESTRICT_WINDOW_MS, SHOWN_AGAIN_MS, SIGNAL_WINDOW_MS, SNAPSHOT_MS,
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
    batches: Vec<Vec<Write>>,
}

impl Rig {
    fn new() -> Self {
        let row = AgentRow::new(id(1), "alice", "a@b.c", KEY, Timestamp(1));
        let bob = ContactRow { agent: id(2), handle: "bob".into(), notes: None, added_at: Timestamp(1) };
        let loaded = LoadedAgent { contacts: vec![bob], ..LoadedAgent::bare(row) };
        let limits = Limits { invites_per_day: Some(2), ..Limits::default() };
        let agent = Agent::activate(loaded, limits.into());
        Self {
            agent,
            now: NOW,
            tells: Vec::new(),
            pushes: Vec::new(),
            reads: Vec::new(),
            hooks: 0,
            snapshots: Vec::new(),
            batches: Vec::new(),
        }
    }

    fn on(&mut self, event: AgentEvent) -> Vec<Result<Reply, Refusal>> {
        let (mut events, mut replies) = (vec![event], Vec::new());
        while let Some(event) = events.pop() {
            let mut fx = Effects::default();
            self.agent.on(Timestamp(self.now), event, &mut fx);
            if let Some(batch) = fx.writes {
                self.batches.push(batch);
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
        assert!(self.ask(AgentRequest::Attach(KEY, SessionId::new(NodeId::default(), session), mode)).is_ok());
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
    rig.on(AgentEvent::Detach(SessionId::new(NodeId::default(), 1)));
    assert_eq!(rig.presence().0, PresenceStatus::Busy, "neither the first nor the last socket");
    rig.on(AgentEvent::Detach(SessionId::new(NodeId::default(), 2)));
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
    let gone = |number| AgentEvent::Detach(SessionId::new(NodeId::default(), number));
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

#[test]
fn a_key_is_free_again_when_its_request_ends_or_whoever_took_it_is_gone() {
    let mut rig = Rig::new();
    let begin = |rig: &mut Rig, key: &str| match rig.ask(AgentRequest::BeginOnce(key.into())) {
        Ok(Reply::Begun(begun)) => begun,
        other => panic!("{other:?}"),
    };
    assert_eq!((begin(&mut rig, "a"), begin(&mut rig, "a"), begin(&mut rig, "b")), (true, false, true));
    rig.on(AgentEvent::EndOnce("a".into()));
    assert_eq!((begin(&mut rig, "a"), begin(&mut rig, "b")), (true, false));
    rig.now += ONCE_MS;
    assert!(begin(&mut rig, "b"), "it never ended");
    for key in 1..ONCE_MAX {
        assert!(begin(&mut rig, &key.to_string()));
    }
    let one_more = rig.ask(AgentRequest::BeginOnce("one more".into()));
    assert!(matches!(one_more, Err(Refusal::Unavailable)), "bounded: {one_more:?}");
}

fn owner(n: u8) -> OwnerId {
    OwnerId(Key::from_bytes([n; 16]))
}

impl Rig {
    fn claim(&mut self, n: u8, key: KeyHash) -> Result<Reply, Refusal> {
        let attempt = ClaimAttempt { key, owner: owner(n), ip: "192.0.2.1".into(), user_agent: None };
        self.ask(AgentRequest::Claim(Box::new(attempt)))
    }

    /// Actions of the entries in the last batch, in order.
    fn logged(&self) -> Vec<EventAction> {
        let events = self.batches.last().into_iter().flatten();
        events
            .filter_map(|write| if let Write::Event(_, row) = write { Some(row.action.clone()) } else { None })
            .collect()
    }

    /// Who alone may read each of these entries.
    fn readers(&self) -> Vec<Option<OwnerId>> {
        let events = self.batches.last().into_iter().flatten();
        events.filter_map(|write| if let Write::Event(_, row) = write { Some(row.owner) } else { None }).collect()
    }

    /// The owner in the account as the last batch leaves it.
    fn stored_owner(&self) -> Option<OwnerId> {
        let accounts = self.batches.last().into_iter().flatten();
        let last =
            accounts.filter_map(|write| if let Write::Agent(row) = write { Some(row) } else { None }).next_back();
        last.expect("an account").claim.as_ref().map(|claim| claim.owner)
    }
}

#[test]
fn one_owner_at_most_and_attempts_are_counted() {
    let mut rig = Rig::new();
    assert!(matches!(rig.claim(1, KeyHash([9; 32])), Err(Refusal::Unauthorized)));
    let before = rig.agent.row.updated_at;
    assert!(rig.claim(1, KEY).is_ok());
    assert_eq!((rig.stored_owner(), rig.logged()), (Some(owner(1)), vec![EventAction::Claimed]));
    assert!(rig.batches.last().is_some_and(|batch| batch.contains(&Write::Claim(owner(1), id(1)))), "F1");
    assert_eq!((rig.agent.row.updated_at, rig.pushes.len()), (before, 0), "F2");
    let batches = rig.batches.len();
    assert!(matches!(rig.claim(1, KEY), Err(Refusal::AlreadyClaimed)));
    assert_eq!(rig.batches.len(), batches, "the own claim again is no attempt");
    for _ in 0..CLAIM_REJECTIONS {
        assert!(matches!(rig.claim(2, KEY), Err(Refusal::AlreadyClaimed)));
        assert!(matches!(rig.logged()[..], [EventAction::ClaimAttempted { .. }]));
    }
    let batches = rig.batches.len();
    assert!(matches!(rig.claim(3, KEY), Err(Refusal::TooManyClaims { retry_after_ms: CLAIM_REJECTIONS_MS })));
    assert_eq!(rig.batches.len(), batches);
    rig.now += CLAIM_REJECTIONS_MS;
    assert!(matches!(rig.claim(3, KEY), Err(Refusal::AlreadyClaimed)));
    assert!(matches!(rig.ask(AgentRequest::Release(owner(2))), Err(Refusal::ClaimNotFound)));
    assert!(matches!(rig.ask(AgentRequest::SetPause(Some(owner(2)), Pause::Full)), Err(Refusal::AgentNotFound)));
    assert!(rig.ask(AgentRequest::Release(owner(1))).is_ok());
    assert_eq!((rig.stored_owner(), rig.logged()), (None, vec![EventAction::Released]));
    assert!(rig.claim(2, KEY).is_ok());
}

#[test]
fn a_new_key_and_a_deletion_end_claim_and_pause_in_one_batch() {
    let ends = [
        (AgentRequest::ReplaceKey(KeyHash([2; 32])), EventAction::KeyRotated, RevokedReason::KeyRotated),
        (AgentRequest::Delete, EventAction::Deleted, RevokedReason::Deleted),
    ];
    for (request, action, reason) in ends {
        let mut rig = Rig::new();
        assert!(rig.claim(1, KEY).is_ok());
        assert!(rig.ask(AgentRequest::SetPause(Some(owner(1)), Pause::Full)).is_ok());
        let before = rig.batches.len();
        rig.tells.clear();
        assert!(rig.ask(request).is_ok());
        assert_eq!(rig.batches.len(), before + 1);
        assert_eq!(rig.logged(), [action, EventAction::ClaimRevoked(reason), EventAction::Unpaused]);
        assert_eq!(rig.readers(), [None, Some(owner(1)), Some(owner(1))], "F3: the next owner learns of the key alone");
        assert_eq!((rig.stored_owner(), rig.agent.row.paused), (None, Pause::None));
        assert!(rig.batches[before].contains(&Write::ClaimRemove(owner(1), id(1))));
        assert!(
            rig.tells.iter().all(|event| matches!(event, Event::Owner(to, _) if *to == owner(1)))
                && !rig.tells.is_empty()
        );
    }
    let mut rig = Rig::new();
    assert!(rig.ask(AgentRequest::ReplaceKey(KeyHash([2; 32]))).is_ok());
    assert_eq!(rig.logged(), [EventAction::KeyRotated], "nobody lost anything");
    assert!(rig.tells.is_empty());
}

#[test]
fn a_page_that_was_asked_for_before_a_full_pause_waits_for_its_end() {
    let mut rig = Rig::new();
    assert!(rig.claim(1, KEY).is_ok());
    rig.attach(1);
    let Some(Read::InboxFor(_, session, _, through, limit)) =
        rig.reads.iter().rev().find(|read| matches!(read, Read::InboxFor(..))).cloned()
    else {
        panic!("a socket that came is fed")
    };
    let message = Arc::new(MessageRow {
        conversation: ConversationId::direct(id(1), id(2)),
        seq: Seq(1),
        sender: id(2),
        sender_handle: "bob".into(),
        client_msg_id: "c".into(),
        kind: MessageType::Text,
        content: "{}".into(),
        metadata: "{}".into(),
        mentions: Vec::new(),
        created_at: Timestamp(1),
    });
    let page = || Found::InboxFor(session, vec![InboxRow { pos: Pos(1), message: message.clone() }], through, limit);
    assert!(rig.ask(AgentRequest::SetPause(Some(owner(1)), Pause::Full)).is_ok());
    rig.on(AgentEvent::Found(page()));
    assert!(rig.pushes.is_empty(), "nothing is pushed under full pause");
    rig.reads.clear();
    assert!(rig.ask(AgentRequest::SetPause(Some(owner(1)), Pause::None)).is_ok());
    assert!(matches!(rig.reads[..], [Read::InboxFor(..)]), "it is read again");
    rig.on(AgentEvent::Found(page()));
    assert!(matches!(rig.pushes[..], [ToSession::Message { pos: Some(Pos(1)), .. }]));
}

/// Acks one message, as a socket does; its receipt is found as delivery wrote it.
fn ack(rig: &mut Rig, seq: u64) {
    let message = MessageId { conversation: message(seq).conversation, seq: Seq(seq) };
    let receipt = ReceiptRow { pos: Some(Pos(seq)), state: DeliveryState::Stored, ..ReceiptRow::default() };
    rig.on(AgentEvent::Ack(message));
    rig.on(AgentEvent::Found(Found::Receipts(vec![(message, receipt)])));
}

#[test]
fn reads_of_the_inbox_begin_behind_what_was_acked() {
    let mut rig = Rig::new();
    let floor = |rig: &Rig| rig.agent.head.floor.0;
    (1..=4).for_each(|seq| deliver(&mut rig, seq));
    ack(&mut rig, 2);
    assert_eq!(floor(&rig), 0, "1 waits");
    ack(&mut rig, 1);
    assert_eq!(floor(&rig), 1, "what follows is found by a look");
    rig.reads.clear();
    let through = AgentRequest::AckThrough(Pos(3));
    rig.on(AgentEvent::Request(Port { node: NodeId::default(), number: 1 }, through));
    let Some(Read::Inbox(_, after, ..)) = rig.reads.pop() else { panic!("a page is read") };
    assert_eq!(after, Pos(1));
    rig.on(AgentEvent::Found(Found::Inbox(vec![InboxRow { pos: Pos(3), message: message(3) }])));
    assert_eq!((floor(&rig), rig.agent.head.backlog), (3, 1));
    ack(&mut rig, 4);
    assert_eq!((floor(&rig), rig.agent.head.backlog), (4, 0));
    deliver(&mut rig, 5);
    rig.reads.clear();
    rig.attach(1);
    let from_floor = |read: &Read| matches!(read, Read::InboxFor(_, _, Pos(4), ..));
    assert!(rig.reads.iter().any(from_floor), "{:?}", rig.reads);
}

#[test]
fn a_floor_is_shown_once_it_is_durable() {
    let mut rig = Rig::new();
    let from = |rig: &mut Rig| match rig.ask(AgentRequest::Inbox) {
        Ok(Reply::Inbox(view)) => view.from,
        other => panic!("{other:?}"),
    };
    deliver(&mut rig, 1);
    let message = MessageId { conversation: message(1).conversation, seq: Seq(1) };
    let receipt = ReceiptRow { pos: Some(Pos(1)), state: DeliveryState::Stored, ..ReceiptRow::default() };
    rig.on(AgentEvent::Ack(message));
    let mut fx = Effects::default();
    rig.agent.on(Timestamp(rig.now), AgentEvent::Found(Found::Receipts(vec![(message, receipt)])), &mut fx);
    assert!(fx.writes.is_some());
    assert_eq!((rig.agent.head.floor, from(&mut rig)), (Pos(1), Pos(0)), "O3: a crash now would bring it back");
    rig.on(AgentEvent::Stored(Ok(())));
    assert_eq!(from(&mut rig), Pos(1));
}
