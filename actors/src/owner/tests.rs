//! Rules of sign-ins, one table or story each.

use schema::ids::{AgentId, ConversationId, Key, Seq};
use schema::rows::{MessageRow, MessageType};

use super::*;
use crate::api::Change;
use crate::owner::events::View;

const HOUR: u64 = 60 * 60 * 1_000;

fn port(number: u64) -> Port {
    Port { node: NodeId::default(), number }
}

fn socket(number: u64) -> SessionId {
    SessionId::new(NodeId::default(), number)
}

fn pair(n: u8) -> Pair {
    Pair { access: [n; 32], refresh: [n + 100; 32] }
}

/// An owner whose batches are durable at once; answers of a step in order.
struct Rig(Owner);

impl Rig {
    fn new() -> Self {
        Self(Owner::activate(OwnerId::of_email("o@b.c"), None))
    }

    fn step(&mut self, now: u64, event: OwnerEvent) -> Effects {
        let mut all = Effects::default();
        self.0.on(Timestamp(now), event, &mut all);
        while all.writes.take().is_some() {
            self.0.on(Timestamp(now), OwnerEvent::Stored(Ok(())), &mut all);
        }
        all
    }

    fn ask(&mut self, now: u64, request: OwnerRequest) -> Result<Reply, Refusal> {
        let mut fx = self.step(now, OwnerEvent::Request(port(1), Box::new(request)));
        assert_eq!(fx.replies.len(), 1);
        fx.replies.remove(0).1
    }

    fn sign_in(&mut self, now: u64, n: u8) -> u64 {
        match self.ask(now, OwnerRequest::SignIn("o@b.c".to_owned(), pair(n))) {
            Ok(Reply::Owner(view)) => view.sign_in,
            other => panic!("{other:?}"),
        }
    }

    fn admits(&mut self, now: u64, n: u8) -> bool {
        self.ask(now, OwnerRequest::Admit(pair(n).access)).is_ok()
    }

    /// Uses the refresh token `old` and proposes the pair `next`; the seed that counts.
    fn refresh(&mut self, now: u64, old: u8, next: u8) -> Option<u8> {
        let request = OwnerRequest::Refresh { old: pair(old).refresh, seed: [next; 32], next: pair(next) };
        match self.ask(now, request) {
            Ok(Reply::Seed(seed)) => Some(seed[0]),
            Err(Refusal::Unauthorized) => None,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_access_token_lasts_an_hour_and_a_refresh_works_once() {
    let mut rig = Rig::new();
    assert!(!rig.admits(1, 1));
    rig.sign_in(0, 1);
    assert!(rig.admits(HOUR - 1, 1) && !rig.admits(HOUR, 1));
    assert_eq!(rig.refresh(HOUR, 1, 2), Some(2));
    assert!(rig.admits(HOUR, 2) && !rig.admits(2 * HOUR, 2));
    assert_eq!(rig.refresh(HOUR + REFRESH_REPEAT_MS, 1, 3), None, "it is used up");
    assert_eq!(rig.refresh(HOUR + REFRESH_MS - 1, 2, 4), Some(4), "thirty idle days");
    assert_eq!(rig.refresh(HOUR + 2 * REFRESH_MS, 4, 5), None);
}

#[test]
fn refreshes_together_get_one_answer_and_the_old_access_token_lives_on_for_a_moment() {
    let mut rig = Rig::new();
    rig.sign_in(0, 1);
    assert_eq!((rig.refresh(10, 1, 2), rig.refresh(11, 1, 3), rig.refresh(12, 1, 4)), (Some(2), Some(2), Some(2)));
    assert!(rig.admits(13, 1) && rig.admits(13, 2) && !rig.admits(13, 3));
    // Also when the new pair was used meanwhile.
    assert_eq!((rig.refresh(20, 2, 5), rig.refresh(21, 1, 6)), (Some(5), Some(2)));
    assert!(!rig.admits(10 + REFRESH_REPEAT_MS, 1));
    // The answer outlives the memory of the one that gave it.
    let mut again = Rig(Owner::activate(rig.0.id, rig.0.row.clone()));
    assert_eq!(again.refresh(22, 1, 7), Some(2));
}

#[test]
fn signing_out_ends_one_browser_or_all_and_their_sockets() {
    let mut rig = Rig::new();
    let (one, two) = (rig.sign_in(0, 1), rig.sign_in(0, 2));
    for (sign_in, number) in [(one, 7), (two, 8)] {
        assert!(rig.ask(1, OwnerRequest::Watch(sign_in, socket(number))).is_ok());
    }
    let closed =
        |fx: Effects| fx.pushes.into_iter().map(|(session, frame)| (session.number, frame)).collect::<Vec<_>>();
    let close = |number| (number, ToSession::Close(CloseReason::SignedOut));
    let fx = rig.step(2, OwnerEvent::Request(port(1), Box::new(OwnerRequest::SignOut(vec![[9; 32], pair(1).refresh]))));
    assert_eq!(closed(fx), [close(7)]);
    assert!(!rig.admits(3, 1) && rig.admits(3, 2));
    assert!(rig.ask(3, OwnerRequest::Watch(one, socket(9))).is_err(), "its ticket is worth nothing any more");
    assert!(rig.ask(3, OwnerRequest::SignOutAll(pair(1).access)).is_err());
    rig.sign_in(4, 3);
    let fx = rig.step(5, OwnerEvent::Request(port(1), Box::new(OwnerRequest::SignOutAll(pair(2).access))));
    assert!(matches!(fx.replies[..], [(_, Ok(Reply::SignedOut(2)))]), "{:?}", fx.replies);
    assert_eq!(closed(fx), [close(8)]);
    assert!(!rig.admits(6, 2) && !rig.admits(6, 3) && rig.refresh(6, 3, 4).is_none());
}

#[test]
fn a_message_is_shown_in_each_agents_eyes_and_changes_follow_in_order() {
    let mut rig = Rig::new();
    let sign_in = rig.sign_in(0, 1);
    assert!(rig.ask(1, OwnerRequest::Watch(sign_in, socket(7))).is_ok());
    let (a, b) = (AgentId(Key::from_bytes([1; 16])), AgentId(Key::from_bytes([2; 16])));
    let message = std::sync::Arc::new(MessageRow {
        conversation: ConversationId::direct(a, b),
        seq: Seq(1),
        sender: a,
        sender_handle: "alice".to_owned(),
        client_msg_id: "c".to_owned(),
        kind: MessageType::Text,
        content: "{}".to_owned(),
        metadata: "{}".to_owned(),
        mentions: Vec::new(),
        created_at: Timestamp(1),
    });
    let view = |agent, handle: &str| View { agent, handle: handle.to_owned(), pos: None };
    let seen = Seen { message, views: vec![view(a, "alice"), view(b, "bob")] };
    let fx = rig.step(2, OwnerEvent::Seen(Box::new(seen)));
    let handles = fx.pushes.iter().map(|(_, frame)| match frame {
        ToSession::Seen { handle, .. } => handle.as_ref(),
        other => panic!("{other:?}"),
    });
    assert_eq!(handles.collect::<Vec<_>>(), ["alice", "bob"]);
    let fx = rig.step(3, OwnerEvent::Changed { handle: "bob".to_owned(), change: Change::Activity });
    assert!(matches!(fx.pushes[..], [(_, ToSession::Changed { change: Change::Activity, .. })]));
    assert!(!rig.0.is_idle());
    rig.step(4, OwnerEvent::Detach(socket(7)));
    assert!(rig.0.is_idle());
}

#[test]
fn the_oldest_of_too_many_sign_ins_goes() {
    let mut rig = Rig::new();
    let first = rig.sign_in(0, 1);
    assert!(rig.ask(0, OwnerRequest::Watch(first, socket(7))).is_ok());
    let mut pushed = Vec::new();
    for n in 0..SIGN_INS_MAX {
        let number = u8::try_from(n).expect("small") + 2;
        let request = OwnerRequest::SignIn("o@b.c".to_owned(), Pair { access: [number; 32], refresh: [255; 32] });
        pushed.extend(rig.step(1, OwnerEvent::Request(port(1), Box::new(request))).pushes);
    }
    assert!(matches!(pushed[..], [(_, ToSession::Close(CloseReason::SignedOut))]), "{pushed:?}");
    assert!(!rig.admits(2, 1) && rig.admits(2, 2));
}
