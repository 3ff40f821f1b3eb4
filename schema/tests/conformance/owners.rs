//! Owners, claims and activity.

use schema::ids::OwnerId;
use schema::rows::{
    AgentStatus, ClaimRow, EVENTS_KEPT, EventAction, EventActor, EventRow, OwnerRow, Pause, PendingPurpose, PendingRow,
    RotatedRow, SignInRow, StatusReason, Timestamp, TokenRow,
};
use schema::store::{Store, Write};

use crate::fixtures::{account, agent, pending, submit};

fn owner(email: &str) -> OwnerRow {
    let token = |n: u8| TokenRow { hash: [n; 32], until: Timestamp(u64::from(n)) };
    let rotated = RotatedRow { refresh: [4; 32], access: [5; 32], seed: [6; 32], at: Timestamp(7) };
    let sign_in = SignInRow { number: 1, access: token(1), refresh: token(2), rotated: vec![rotated] };
    OwnerRow {
        id: OwnerId::of_email(email),
        email: email.to_owned(),
        display_name: None,
        created_at: Timestamp(1),
        events: 0,
        last_sign_in: 1,
        sign_ins: vec![sign_in],
    }
}

fn event(number: u64, action: EventAction) -> Box<EventRow> {
    let owner = number.is_multiple_of(2).then(|| OwnerId::of_email("o@b.c"));
    Box::new(EventRow { number, actor: EventActor::System, action, owner, at: Timestamp(number) })
}

pub(crate) async fn owners_and_their_agents_are_kept(store: &dyn Store) {
    let (one, two) = (owner("one@b.c"), owner("two@b.c"));
    assert_ne!(one.id, two.id);
    assert_eq!(store.owner(one.id).await, Ok(None));
    assert_eq!(submit(store, vec![Write::Owner(Box::new(one.clone()))]).await, Ok(()));
    assert_eq!(submit(store, vec![Write::Owner(Box::new(two.clone()))]).await, Ok(()));
    let later = OwnerRow { sign_ins: vec![], last_sign_in: 2, ..one.clone() };
    assert_eq!(submit(store, vec![Write::Owner(Box::new(later.clone()))]).await, Ok(()));
    assert_eq!((store.owner(one.id).await, store.owner(two.id).await), (Ok(Some(later)), Ok(Some(two.clone()))));

    assert_eq!(store.create_agent(account(1, "one"), None, None).await, Ok(()));
    let mut claimed = account(1, "one");
    let claim = ClaimRow { owner: one.id, at: Timestamp(3), rejected: vec![Timestamp(4)] };
    claimed.claim = Some(Box::new(claim));
    let writes = vec![Write::Agent(Box::new(claimed.clone())), Write::Claim(one.id, agent(1))];
    assert_eq!(submit(store, writes).await, Ok(()));
    assert_eq!(submit(store, vec![Write::Claim(one.id, agent(2)), Write::Claim(two.id, agent(3))]).await, Ok(()));
    assert_eq!(store.agent(agent(1)).await, Ok(Some(claimed)));
    assert_eq!(store.claims(one.id).await, Ok(vec![agent(1), agent(2)]));
    let gone = [(one.id, 2), (two.id, 3), (one.id, 9)].map(|(owner, n)| Write::ClaimRemove(owner, agent(n)));
    assert_eq!(submit(store, gone.to_vec()).await, Ok(()));
    assert_eq!((store.claims(one.id).await, store.claims(two.id).await), (Ok(vec![agent(1)]), Ok(vec![])));
}

pub(crate) async fn activity_is_bounded_and_newest_first(store: &dyn Store) {
    let reason = StatusReason::Operator;
    let status = EventAction::StatusChanged { from: AgentStatus::Active, to: AgentStatus::Suspended, reason };
    let attempt = EventAction::ClaimAttempted { ip: "192.0.2.1".to_owned(), user_agent: None };
    let first = [event(1, status), event(2, attempt), event(3, EventAction::Paused(Pause::Full))];
    let writes = first.iter().map(|row| Write::Event(agent(1), row.clone())).collect();
    assert_eq!(submit(store, writes).await, Ok(()));
    let rows: Vec<EventRow> = first.into_iter().rev().map(|row| *row).collect();
    assert_eq!(store.events(agent(1)).await, Ok(rows));
    assert_eq!(store.events(agent(2)).await, Ok(vec![]));
    let more = (4..=EVENTS_KEPT + 2).map(|n| Write::Event(agent(1), event(n, EventAction::Unpaused))).collect();
    assert_eq!(submit(store, more).await, Ok(()));
    let kept = store.events(agent(1)).await.expect("read");
    let bounds = (kept.first().map(|row| row.number), kept.last().map(|row| row.number));
    assert_eq!((kept.len() as u64, bounds), (EVENTS_KEPT, (Some(EVENTS_KEPT + 2), Some(3))));

    let id = OwnerId::of_email("one@b.c");
    let own = event(1, EventAction::OwnerCreated);
    assert_eq!(submit(store, vec![Write::OwnerEvent(id, own.clone())]).await, Ok(()));
    assert_eq!(store.owner_events(id).await, Ok(vec![*own]));
}

pub(crate) async fn codes_and_tickets_of_owners_are_swept(store: &dyn Store) {
    let ticket = PendingPurpose::Ticket { owner: OwnerId::of_email("o@b.c"), sign_in: 3 };
    let rows = [
        PendingRow { purpose: PendingPurpose::SignIn, ..pending("dpnd_1") },
        PendingRow { purpose: ticket, ..pending("tkt_1") },
    ];
    for row in rows {
        assert_eq!(store.put_pending(row.clone()).await, Ok(()));
        assert_eq!(store.pending(&row.id).await, Ok(Some(row)));
    }
    assert_eq!(store.take_pending("tkt_1").await, Ok(true));
    assert_eq!(store.sweep(Timestamp(10)).await, Ok(1));
    assert_eq!(store.pending("dpnd_1").await, Ok(None));
}
