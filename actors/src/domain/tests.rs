//! The domain on real actors: admission, and what a panic in a shard costs.

mod cut;

use schema::ids::Key;
use schema::memory::MemoryStore;
use schema::rows::{MessageType, Timestamp};

use super::*;
use crate::agent::events::ClaimAttempt;
use crate::effects::Found;
use crate::node::NoHooks;
use crate::owner::events::Pair;

fn account(n: u8) -> AgentRow {
    let (id, key) = (AgentId(Key::from_bytes([n; 16])), KeyHash([n; 32]));
    AgentRow::new(id, format!("agent-{n}"), format!("{n}@example.com"), key, Timestamp(1))
}

fn draft(key: &str) -> Draft {
    Draft {
        client_msg_id: key.to_owned(),
        kind: MessageType::Text,
        content: r#"{"text":"x"}"#.to_owned(),
        metadata: "{}".to_owned(),
        mentions: Vec::new(),
        attachment: None,
    }
}

async fn domain() -> (Domain, AgentRow, AgentRow) {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (account(1), account(2));
    store.create_agent(a.clone(), None, None).await.expect("fresh store");
    store.create_agent(b.clone(), None, None).await.expect("fresh store");
    let options = DomainOptions { shards: 1, ..DomainOptions::default() };
    (Domain::start(store, options, Arc::new(NoHooks)).await.expect("starts"), a, b)
}

#[tokio::test]
async fn a_panic_costs_one_restart_and_nothing_durable() {
    let (domain, a, b) = domain().await;
    let sent = domain.send(a.id, Target::Agent(b.id), draft("one")).await.expect("sent");
    let who = Credential { agent: b.id, key: b.key_hash };
    let (_, mut frames, _) = domain.attach(who, AckMode::Explicit { window: 12 }).await.expect("attached");
    assert!(matches!(frames.recv().await, Some(ToSession::Message { .. })));

    // An answer that nobody asked for is a bug, and bugs in a step are panics.
    let id = sent.message.conversation;
    let poison = Event::Conversation(id, ConversationEvent::Found(Found::Inbox(Vec::new())));
    domain.node.tell(poison);

    assert_eq!(frames.recv().await, Some(ToSession::Close(CloseReason::Restart)), "its sockets come back");
    let replayed = loop {
        match domain.send(a.id, Target::Agent(b.id), draft("one")).await {
            Err(Refusal::Unavailable) => tokio::task::yield_now().await,
            outcome => break outcome.expect("sent again"),
        }
    };
    assert!(replayed.replayed);
    assert_eq!(replayed.message.seq, sent.message.seq);
    let (_, mut frames, _) = domain.attach(who, AckMode::OnWrite).await.expect("attached again");
    assert!(matches!(frames.recv().await, Some(ToSession::Message { drained: true, .. })));
    domain.stop().await;
}

#[tokio::test]
async fn what_a_failed_shard_had_not_come_to_is_handed_over_again() {
    let (domain, a, b) = domain().await;
    let sent = domain.send(a.id, Target::Agent(b.id), draft("one")).await.expect("sent");
    let id = sent.message.conversation;
    let poison = Event::Conversation(id, ConversationEvent::Found(Found::Inbox(Vec::new())));
    domain.node.tell(poison);
    let behind = domain.send(a.id, Target::Agent(b.id), draft("one")).await.expect("the next life answers");
    assert!(behind.replayed, "it was behind the poison in one batch");
    domain.stop().await;
}

#[tokio::test]
async fn a_stopped_domain_refuses_early() {
    let (domain, a, b) = domain().await;
    domain.stop().await;
    let refused = domain.send(a.id, Target::Agent(b.id), draft("late")).await;
    assert_eq!(refused.map(|sent| sent.replayed), Err(Refusal::Unavailable));
}

#[tokio::test]
async fn an_owner_of_both_sees_the_sender_first_and_nothing_again() {
    let (domain, a, b) = domain().await;
    let who = domain.sign_in("o@example.com", Pair { access: [1; 32], refresh: [2; 32] }).await.expect("signed in");
    for agent in [&a, &b] {
        let attempt = ClaimAttempt { key: agent.key_hash, owner: who.id, ip: String::new(), user_agent: None };
        domain.claim(agent.id, attempt).await.expect("claimed");
    }
    let (_, mut frames) = domain.watch(who.id, who.sign_in).await.expect("watching");
    for n in 0..20 {
        let (from, to) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let sent = domain.send(from.id, Target::Agent(to.id), draft(&n.to_string())).await.expect("sent");
        let again = domain.send(from.id, Target::Agent(to.id), draft(&n.to_string())).await.expect("replayed");
        assert!(again.replayed);
        let mut views = Vec::new();
        while views.len() < 2 {
            match frames.recv().await {
                Some(ToSession::Seen { agent, message, pos, .. }) => views.push((agent, message.seq, pos.is_some())),
                Some(ToSession::Changed { .. }) => {} // what was claimed a moment ago
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(views, [(from.id, sent.message.seq, false), (to.id, sent.message.seq, true)]);
    }
    assert_eq!(domain.sign_out_all(who.id, [1; 32]).await, Ok(1));
    let last = loop {
        match frames.recv().await {
            Some(ToSession::Changed { .. }) => {}
            frame => break frame,
        }
    };
    assert_eq!(last, Some(ToSession::Close(CloseReason::SignedOut)));
    domain.stop().await;
}
