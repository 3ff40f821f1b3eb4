//! Handles, email budgets, keys and pending codes.

use futures_util::future::join_all;
use schema::ids::KeyHash;
use schema::rows::PendingRow;
use schema::store::{CreateAgentError, EmailBudget, Store, Write};

use crate::fixtures::{account, agent, pending, submit};

const BUDGET: Option<EmailBudget> = Some(EmailBudget { live: 2, lifetime: 3 });

pub(crate) async fn a_handle_is_given_once(store: &dyn Store) {
    let racing = (0..32).map(|n| store.create_agent(account(n, "one"), None, BUDGET));
    let outcomes = join_all(racing).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).all(|e| *e == CreateAgentError::HandleTaken));
    let owner = store.agent_by_handle("one").await.expect("read").expect("created");
    let row = store.agent(owner).await.expect("read").expect("row");
    assert_eq!(store.agent_by_key(row.key_hash).await, Ok(Some(owner)));
    assert_eq!(store.agent_by_handle("two").await, Ok(None));
    // What was refused left nothing behind.
    assert_eq!(store.email("a@b.c").await.map(|email| (email.live, email.lifetime)), Ok((vec![owner], 1)));
}

pub(crate) async fn budgets_of_an_email_are_kept(store: &dyn Store) {
    let racing = (0..8).map(|n| store.create_agent(account(n, &format!("agent-{n}")), None, BUDGET));
    let created = join_all(racing).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(created, 2, "never more than the budget, also in a race");
    let refused = store.create_agent(account(9, "nine"), None, BUDGET).await;
    assert_eq!(refused, Err(CreateAgentError::EmailLimit { limit: 2 }));
    let live = store.email("a@b.c").await.expect("read").live;
    assert_eq!(store.release_email("a@b.c", live[0]).await, Ok(()));
    assert_eq!(store.create_agent(account(9, "nine"), None, BUDGET).await, Ok(()));
    assert_eq!(store.release_email("a@b.c", agent(9)).await, Ok(()));
    let refused = store.create_agent(account(10, "ten"), None, BUDGET).await;
    assert_eq!(refused, Err(CreateAgentError::EmailExhausted { limit: 3 }));
    assert_eq!(store.create_agent(account(10, "ten"), None, None).await, Ok(()), "operators are outside the budget");
}

pub(crate) async fn releasing_an_email_twice_changes_nothing(store: &dyn Store) {
    for n in 1..3 {
        assert_eq!(store.create_agent(account(n, &format!("agent-{n}")), None, BUDGET).await, Ok(()));
    }
    for _ in 0..2 {
        assert_eq!(store.release_email("a@b.c", agent(1)).await, Ok(()));
        let email = store.email("a@b.c").await.expect("read");
        assert_eq!((email.live, email.lifetime), (vec![agent(2)], 2));
    }
    assert_eq!(store.release_email("never@seen.org", agent(1)).await, Ok(()));
    assert_eq!(store.email("never@seen.org").await.map(|email| email.lifetime), Ok(0));
}

pub(crate) async fn a_key_resolves_until_it_is_removed(store: &dyn Store) {
    assert_eq!(store.create_agent(account(1, "one"), None, None).await, Ok(()));
    let (old, new) = (KeyHash([1; 32]), KeyHash([2; 32]));
    let mut row = account(1, "one");
    row.key_hash = new;
    assert_eq!(submit(store, vec![Write::KeyRemove(old), Write::Agent(Box::new(row.clone()))]).await, Ok(()));
    assert_eq!(store.agent_by_key(old).await, Ok(None));
    assert_eq!(store.agent_by_key(new).await, Ok(Some(agent(1))));
    assert_eq!(store.agent(agent(1)).await, Ok(Some(row)));
}

pub(crate) async fn a_pending_code_is_taken_once(store: &dyn Store) {
    assert_eq!(store.pending("pnd_1").await, Ok(None));
    assert_eq!(store.put_pending(pending("pnd_1")).await, Ok(()));
    let tried = PendingRow { attempts: 3, ..pending("pnd_1") };
    assert_eq!(store.put_pending(tried.clone()).await, Ok(()));
    assert_eq!(store.pending("pnd_1").await, Ok(Some(tried)));
    let taken = join_all((0..16).map(|_| store.take_pending("pnd_1"))).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken == Ok(true)).count(), 1);
    assert_eq!(store.pending("pnd_1").await, Ok(None));
    assert_eq!(store.take_pending("pnd_2").await, Ok(false));
}

pub(crate) async fn a_pending_code_changes_only_from_what_was_read(store: &dyn Store) {
    let counted = |attempts| PendingRow { attempts, ..pending("pnd_1") };
    assert_eq!(store.replace_pending(&counted(0), counted(1)).await, Ok(false), "it is not there");
    assert_eq!(store.put_pending(counted(0)).await, Ok(()));
    let (first, second) = (counted(0), counted(0));
    let raced = join_all([store.replace_pending(&first, counted(1)), store.replace_pending(&second, counted(1))]).await;
    assert_eq!(raced.into_iter().filter(|applied| *applied == Ok(true)).count(), 1, "one of two counts");
    assert_eq!(store.pending("pnd_1").await, Ok(Some(counted(1))));
    assert_eq!(store.replace_pending(&counted(1), counted(2)).await, Ok(true));
    assert_eq!(store.take_pending("pnd_1").await, Ok(true));
    assert_eq!(store.replace_pending(&counted(2), counted(3)).await, Ok(false), "what was taken does not come back");
    assert_eq!(store.pending("pnd_1").await, Ok(None));
}

pub(crate) async fn creation_consumes_its_pending_code(store: &dyn Store) {
    assert_eq!(store.create_agent(account(1, "one"), None, BUDGET).await, Ok(()));
    assert_eq!(store.put_pending(pending("pnd_1")).await, Ok(()));
    let paid = || Some("pnd_1".to_owned());
    // A refusal does not burn the code.
    assert_eq!(store.create_agent(account(2, "one"), paid(), BUDGET).await, Err(CreateAgentError::HandleTaken));
    assert!(store.pending("pnd_1").await.expect("read").is_some());
    assert_eq!(store.create_agent(account(2, "two"), paid(), BUDGET).await, Ok(()));
    assert_eq!(store.pending("pnd_1").await, Ok(None));
    assert_eq!(store.create_agent(account(3, "three"), paid(), None).await, Err(CreateAgentError::PendingGone));
    assert_eq!(store.agent_by_handle("three").await, Ok(None));
}
