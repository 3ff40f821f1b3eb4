//! Groups, invitations, and everything beside messages that a batch can hold.

use schema::ids::{AgentId, ConversationId, ConversationKind, InviteId, Key, Pos, Seq};
use schema::rows::{
    AgentRow, AgentStateRow, AgentStatus, AttachmentRow, ContactRow, GroupRow, IdempotencyRow, InboxRow, InviteRow,
    MemberRow, MessageRow, MessageType, ReportRow, Role, Timestamp,
};
use schema::store::{CreateAgentError, EmailBudget, Store, Write, commit};

use crate::fixtures::{account, agent, direct, message, pending, submit};

fn group_id(n: u8) -> ConversationId {
    ConversationId { kind: ConversationKind::Group, key: Key::from_bytes([n; 16]) }
}

fn invite(n: u8, to: AgentId) -> InviteRow {
    InviteRow {
        id: InviteId(Key::from_bytes([n; 16])),
        group: group_id(n),
        agent: to,
        inviter: agent(1),
        inviter_handle: "one".into(),
        created_at: Timestamp(1),
    }
}

pub(crate) async fn a_group_and_its_invitations_are_kept(store: &dyn Store) {
    let member = MemberRow {
        agent: agent(1),
        handle: "one".into(),
        joined_at_seq: Seq(1),
        role: Role::Admin,
        joined_at: Timestamp(1),
        left_at_seq: None,
    };
    let row = GroupRow {
        id: group_id(1),
        name: "g".into(),
        description: None,
        picture: None,
        created_by: agent(1),
        created_by_handle: "one".into(),
        members: vec![member],
        invites: vec![invite(1, agent(2))],
        deleted: None,
        created_at: Timestamp(1),
    };
    let (mine, other) = (invite(1, agent(2)), invite(3, agent(2)));
    let writes = vec![Write::Group(Box::new(row.clone())), Write::Invite(Box::new(mine.clone()))];
    assert_eq!(submit(store, writes).await, Ok(()));
    assert_eq!(submit(store, vec![Write::Invite(Box::new(other.clone()))]).await, Ok(()));
    assert_eq!(store.group(group_id(1)).await, Ok(Some(row)));
    assert_eq!(store.group(group_id(2)).await, Ok(None));
    assert_eq!(store.invites(agent(2)).await, Ok(vec![mine, other.clone()]));
    assert_eq!(submit(store, vec![Write::InviteRemove(agent(2), group_id(1))]).await, Ok(()));
    assert_eq!(store.invites(agent(2)).await, Ok(vec![other]));
    assert_eq!(store.invites(agent(1)).await, Ok(vec![]));
}

pub(crate) async fn large_bodies_are_stored_once_and_delivered_whole(store: &dyn Store) {
    let large = message(1, &format!("{{\"text\":\"{}\"}}", "x".repeat(30_000)));
    let small = message(2, "{}");
    let log = vec![Write::Message(large.clone()), Write::Message(small.clone())];
    assert_eq!(submit(store, log).await, Ok(()));
    for owner in [agent(2), agent(3)] {
        let rows = [(1, &large), (2, &small)].map(|(pos, one)| InboxRow { pos: Pos(pos), message: one.clone() });
        let writes = rows.iter().map(|row| Write::Inbox(owner, row.clone())).collect();
        assert_eq!(submit(store, writes).await, Ok(()));
        assert_eq!(store.inbox(owner, Pos(0), Pos(9), 9).await, Ok(rows.to_vec()));
    }
}

pub(crate) async fn what_the_server_writes_leaves_no_replay_record(store: &dyn Store) {
    let told = MessageRow { kind: MessageType::System, ..MessageRow::clone(&message(1, "{}")) };
    assert_eq!(submit(store, vec![Write::Message(told.into())]).await, Ok(()));
    assert_eq!(store.replay(agent(1), "c1").await, Ok(None));
}

pub(crate) async fn watchers_follow_the_books(store: &dyn Store) {
    let contact = |n: u8| ContactRow { agent: agent(n), handle: format!("h{n}"), notes: None, added_at: Timestamp(1) };
    for owner in [5, 2, 9] {
        assert_eq!(submit(store, vec![Write::Contact(agent(owner), contact(1))]).await, Ok(()));
    }
    assert_eq!(submit(store, vec![Write::Contact(agent(1), contact(2))]).await, Ok(()));
    let mut all = vec![agent(2), agent(5), agent(9)];
    all.sort_unstable();
    assert_eq!(store.watchers(agent(1), None, 10).await, Ok(all.clone()));
    assert_eq!(store.watchers(agent(1), None, 2).await, Ok(all[..2].to_vec()));
    assert_eq!(store.watchers(agent(1), Some(all[1]), 10).await, Ok(all[2..].to_vec()));
    assert_eq!(submit(store, vec![Write::ContactRemove(agent(5), agent(1), "h1".into())]).await, Ok(()));
    assert_eq!(store.watchers(agent(1), None, 10).await.map(|left| left.len()), Ok(2));
}

pub(crate) async fn watchers_and_handles_come_in_pages_and_in_order(store: &dyn Store) {
    let book = ContactRow { agent: agent(1), handle: "h1".into(), notes: None, added_at: Timestamp(1) };
    let books = (1..=60).map(|n| Write::Contact(agent(n), book.clone())).collect();
    assert_eq!(submit(store, books).await, Ok(()));
    let mut all: Vec<AgentId> = (1..=60).map(agent).collect();
    all.sort_unstable();
    let mut found = store.watchers(agent(1), None, 25).await.expect("reads");
    while let Some(last) = found.last().copied().filter(|_| found.len() <= all.len()) {
        let page = store.watchers(agent(1), Some(last), 25).await.expect("reads");
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found, all);
    let accounts: Vec<AgentRow> = (1..=60).map(|n| account(n, &format!("spread-{n}"))).collect();
    let mut handles: Vec<String> = accounts.iter().map(|row| row.handle.clone()).collect();
    handles.sort();
    assert_eq!(store.create_agents(accounts).await, Ok(()));
    for (prefix, limit) in [("sp", 60), ("spread-", 9), ("spread-1", 7), ("spread-1", 900), ("spread-5", 3)] {
        let wanted: Vec<_> = handles.iter().filter(|handle| handle.starts_with(prefix)).take(limit).cloned().collect();
        let found = store.directory(prefix, limit).await.expect("reads");
        assert_eq!(found.into_iter().map(|(handle, _)| handle).collect::<Vec<_>>(), wanted, "{prefix} {limit}");
    }
}

pub(crate) async fn the_directory_lists_who_may_be_found(store: &dyn Store) {
    for (n, handle) in [(1, "alice"), (2, "alice-2"), (3, "alfred"), (4, "bob")] {
        store.create_agent(account(n, handle), None, None).await.expect("created");
    }
    let handles = |prefix: &'static str, limit| async move {
        let found = store.directory(prefix, limit).await.expect("reads");
        found.into_iter().map(|(handle, _)| handle).collect::<Vec<_>>()
    };
    assert_eq!(handles("al", 9).await, ["alfred", "alice", "alice-2"]);
    assert_eq!(handles("al", 2).await, ["alfred", "alice"]);
    let with = |status| AgentRow { status, ..account(1, "alice") };
    for (status, listed) in
        [(AgentStatus::Suspended, false), (AgentStatus::Restricted, true), (AgentStatus::Deleted, false)]
    {
        assert_eq!(submit(store, vec![Write::Agent(Box::new(with(status)))]).await, Ok(()));
        assert_eq!(handles("alice", 9).await.contains(&"alice".to_owned()), listed, "{status:?}");
    }
    assert_eq!(store.agent_by_handle("alice").await, Ok(Some(agent(1))), "the handle stays taken");
}

pub(crate) async fn agents_are_made_in_bulk_all_or_none(store: &dyn Store) {
    let rows = (10..20).map(|n| account(n, &format!("bulk-{n}"))).collect();
    assert_eq!(store.create_agents(rows).await, Ok(()));
    assert_eq!(store.agent_by_handle("bulk-19").await, Ok(Some(agent(19))));
    let again = vec![account(30, "bulk-30"), account(31, "bulk-19")];
    assert_eq!(store.create_agents(again).await, Err(CreateAgentError::HandleTaken));
    assert_eq!(store.agent_by_handle("bulk-30").await, Ok(None));
}

pub(crate) async fn a_released_email_starts_anew(store: &dyn Store) {
    let budget = Some(EmailBudget { live: 1, lifetime: 1 });
    store.create_agent(account(1, "alice"), None, budget).await.expect("created");
    let refused = store.create_agent(account(2, "alice-2"), None, budget).await;
    assert_eq!(refused, Err(CreateAgentError::EmailExhausted { limit: 1 }));
    assert_eq!(store.reset_email("a@b.c").await, Ok(()));
    assert_eq!(store.create_agent(account(2, "alice-2"), None, budget).await, Ok(()));
}

pub(crate) fn file(id: &str, uploaded: bool) -> AttachmentRow {
    AttachmentRow {
        id: id.into(),
        uploader: agent(1),
        to: None,
        scope: None,
        filename: "f".into(),
        content_type: "text/plain".into(),
        size: 1,
        sha256: "0".repeat(64),
        uploaded,
        created_at: Timestamp(1),
    }
}

pub(crate) async fn states_reports_and_files_are_kept(store: &dyn Store) {
    let state = AgentStateRow { invited_at: vec![Timestamp(7)], ..AgentStateRow::default() };
    assert_eq!(store.agent_state(agent(1)).await, Ok(None));
    let report = |n: u8| ReportRow {
        reporter: "one".into(),
        target: agent(n),
        handle: format!("h{n}"),
        reason: None,
        at: Timestamp(1),
    };
    let file = file("att_0123456789abcdef", true);
    assert_eq!(commit(store, vec![Write::Attachment(Box::new(file.clone()))]).await, Ok(()));
    let writes = vec![
        Write::AgentState(agent(1), Box::new(state.clone())),
        Write::Report(agent(1), Box::new(report(2))),
        Write::Report(agent(1), Box::new(report(3))),
        Write::AttachmentUse(file.id.clone(), direct(1, 2), Seq(300)),
        Write::AttachmentUse(file.id.clone(), direct(1, 2), Seq(3)),
    ];
    assert_eq!(submit(store, writes).await, Ok(()));
    assert_eq!(store.agent_state(agent(1)).await, Ok(Some(state)));
    assert_eq!(store.reports(agent(1)).await, Ok(vec![report(2), report(3)]));
    let (first, next) = store.all_reports(None, 1).await.expect("reads");
    let (second, last) = store.all_reports(next, 9).await.expect("reads");
    assert_eq!((first, second, last), (vec![report(2)], vec![report(3)], None));
    assert_eq!(store.attachment(&file.id).await, Ok(Some(file.clone())));
    let uses = vec![(direct(1, 2), Seq(3)), (direct(1, 2), Seq(300))];
    assert_eq!(store.attachment_uses(&file.id).await, Ok(uses));
    assert_eq!(store.attachment_uses("att_0123456789abcdeg").await, Ok(vec![]));
}

pub(crate) async fn what_has_expired_is_swept_and_nothing_else(store: &dyn Store) {
    const DAY: u64 = 24 * 60 * 60 * 1_000;
    let answer = |key: &str, at| IdempotencyRow {
        key: key.into(),
        fingerprint: [0; 32],
        status: 200,
        body: b"{}".to_vec(),
        at: Timestamp(at),
    };
    let (old, new) = (answer("old", 1), answer("new", DAY));
    let writes = [&old, &new].map(|row| Write::Idempotency(agent(1), Box::new(row.clone()))).to_vec();
    assert_eq!(commit(store, writes).await, Ok(()));
    assert_eq!(store.put_pending(pending("gone")).await, Ok(()));
    let mut later = pending("later");
    later.expires_at = Timestamp(2 * DAY);
    assert_eq!(store.put_pending(later.clone()).await, Ok(()));
    let (kept, lost) = (file("att_0000000000000001", true), file("att_0000000000000002", false));
    let files = [&kept, &lost].map(|row| Write::Attachment(Box::new(row.clone()))).to_vec();
    assert_eq!(commit(store, files).await, Ok(()));
    assert_eq!(store.sweep(Timestamp(DAY + 1)).await, Ok(3));
    assert_eq!(store.attachment(&lost.id).await, Ok(None));
    assert_eq!(store.attachment(&kept.id).await, Ok(Some(kept)));
    assert_eq!(store.idempotency(agent(1), "old").await, Ok(None));
    assert_eq!(store.idempotency(agent(1), "new").await, Ok(Some(new)));
    assert_eq!(store.pending("gone").await, Ok(None));
    assert_eq!(store.pending("later").await, Ok(Some(later)));
    assert_eq!(store.sweep(Timestamp(DAY + 1)).await, Ok(0));
}
