//! Whole flows over the memory store, real shards and an outbox directory.

use std::collections::HashSet;
use std::time::Duration;

use actors::api::{Credential, ProfilePatch};
use actors::domain::DomainOptions;
use schema::memory::MemoryStore;
use schema::store::{Batch, Write};

use actors::node::NoHooks;

use super::*;

const MINUTE_MS: u64 = 60_000;

struct Rig {
    store: Arc<MemoryStore>,
    domain: Domain,
    clock: Clock,
    identity: Identity,
    outbox: tempfile::TempDir,
}

fn contract() -> Rules {
    Rules {
        budget: EmailBudget { live: 1, lifetime: 3 },
        otp_cooldown_ms: Some(MINUTE_MS),
        otp_per_hour: Some(5),
        reserved: Vec::new(),
    }
}

fn open() -> Rules {
    Rules { budget: EmailBudget { live: 10, lifetime: 30 }, otp_cooldown_ms: None, otp_per_hour: None, ..contract() }
}

impl Rig {
    async fn new(rules: Rules) -> Self {
        let store = Arc::new(MemoryStore::new());
        let options = DomainOptions { shards: 4, ..DomainOptions::default() };
        let domain = Domain::start(Arc::clone(&store) as Arc<dyn Store>, options, Arc::new(NoHooks)).await.unwrap();
        let outbox = tempfile::tempdir().unwrap();
        let mailer = Mailer::outbox(outbox.path().to_owned(), "agentchat@localhost").unwrap();
        let clock = Clock::default();
        let identity = Identity::new(domain.clone(), mailer, clock.clone(), rules, Shared::default());
        Self { store, domain, clock, identity, outbox }
    }

    async fn start(&self, email: &str, handle: &str) -> Result<String, ApiError> {
        let (email, handle) = (email.to_owned(), handle.to_owned());
        self.identity.register(Registration { email, handle, display_name: None, description: None }).await
    }

    /// Registers an agent from start to end.
    async fn agent(&self, email: &str, handle: &str) -> (AgentRow, String) {
        let before = self.codes(email).len();
        let id = self.start(email, handle).await.unwrap();
        let code = self.code(email, before).await;
        self.identity.verify_registration(&id, &code).await.unwrap()
    }

    /// Codes mailed to an address, oldest first.
    fn codes(&self, email: &str) -> Vec<String> {
        let ending = format!("-{email}.eml");
        let mut names: Vec<String> = std::fs::read_dir(self.outbox.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(&ending))
            .collect();
        names.sort();
        let code = |name: &String| {
            let mail = std::fs::read_to_string(self.outbox.path().join(name)).unwrap();
            mail.lines().find(|line| code_is_well_shaped(line)).map(str::to_owned).unwrap()
        };
        names.iter().map(code).collect()
    }

    /// The code of mail `n` to an address, as soon as it is there.
    async fn code(&self, email: &str, n: usize) -> String {
        for _ in 0..500 {
            if let Some(code) = self.codes(email).get(n) {
                return code.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no mail {n} to {email}");
    }

    async fn key_works(&self, agent: AgentId, key: &str) -> bool {
        let who = Credential { agent, key: KeyHash::of(key) };
        let resolves = self.store.agent_by_key(who.key).await.unwrap() == Some(agent);
        resolves && self.domain.admit(who).await.is_ok()
    }
}

fn wrong(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

#[tokio::test]
async fn a_registration_creates_the_agent_once_and_its_key_works() {
    let rig = Rig::new(contract()).await;
    let id = rig.start("a@example.com", "alice").await.unwrap();
    let code = rig.code("a@example.com", 0).await;
    let (row, key) = rig.identity.verify_registration(&id, &code).await.unwrap();
    assert_eq!((row.handle.as_str(), row.email.as_str()), ("alice", "a@example.com"));
    assert!(rig.key_works(row.id, &key).await);
    assert_eq!(rig.identity.verify_registration(&id, &code).await, Err(ApiError::Expired));
    assert_eq!(rig.start("b@example.com", "alice").await, Err(ApiError::HandleTaken));
}

#[tokio::test]
async fn five_wrong_codes_end_a_pending() {
    let rig = Rig::new(contract()).await;
    let id = rig.start("a@example.com", "alice").await.unwrap();
    let code = rig.code("a@example.com", 0).await;
    for _ in 0..5 {
        assert_eq!(rig.identity.verify_registration(&id, wrong(&code)).await, Err(ApiError::InvalidCode));
    }
    assert_eq!(rig.identity.verify_registration(&id, &code).await, Err(ApiError::Expired));
}

#[tokio::test]
async fn four_wrong_codes_do_not() {
    let rig = Rig::new(contract()).await;
    let id = rig.start("a@example.com", "alice").await.unwrap();
    let code = rig.code("a@example.com", 0).await;
    for _ in 0..4 {
        assert_eq!(rig.identity.verify_registration(&id, wrong(&code)).await, Err(ApiError::InvalidCode));
    }
    assert!(rig.identity.verify_registration(&id, &code).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_guesses_share_one_budget() {
    let rig = Rig::new(contract()).await;
    let id = rig.start("a@example.com", "alice").await.unwrap();
    let code = rig.code("a@example.com", 0).await;
    let guesses = (0..40).map(|_| rig.identity.verify_registration(&id, wrong(&code)));
    let answers = futures_util::future::join_all(guesses).await;
    let invalid = answers.iter().filter(|answer| **answer == Err(ApiError::InvalidCode)).count();
    let expired = answers.iter().filter(|answer| **answer == Err(ApiError::Expired)).count();
    assert_eq!((invalid, expired), (5, 35));
}

/// Lets everything go on that can go on, and then the writes that were held.
async fn release_at_last(store: &MemoryStore) {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    store.hold_writes(false);
}

/// Two nodes over one store know nothing of each other's turns: both read a row before either changes it.
#[tokio::test]
async fn guesses_on_two_nodes_share_one_budget() {
    let rig = Rig::new(contract()).await;
    let mailer = Mailer::outbox(rig.outbox.path().to_owned(), "agentchat@localhost").unwrap();
    let other = Identity::new(rig.domain.clone(), mailer, rig.clock.clone(), contract(), Shared::default());
    let id = rig.start("a@example.com", "alice").await.unwrap();
    let code = rig.code("a@example.com", 0).await;
    for counted in [2, 4] {
        rig.store.hold_writes(true);
        let here = rig.identity.verify_registration(&id, wrong(&code));
        let there = other.verify_registration(&id, wrong(&code));
        let (one, two, ()) = tokio::join!(here, there, release_at_last(&rig.store));
        assert_eq!((one, two), (Err(ApiError::InvalidCode), Err(ApiError::InvalidCode)));
        assert_eq!(rig.store.pending(&id).await.unwrap().map(|row| row.attempts), Some(counted), "C2");
    }
    // What one node has used does not come back by what the other one counts.
    rig.store.hold_writes(true);
    let (right, wrong) = (rig.identity.verify_registration(&id, &code), other.verify_registration(&id, wrong(&code)));
    let (used, guessed, ()) = tokio::join!(right, wrong, release_at_last(&rig.store));
    assert_eq!((used.is_ok(), guessed), (true, Err(ApiError::Expired)));
    assert_eq!(rig.store.pending(&id).await, Ok(None), "C4");
}

#[tokio::test]
async fn a_fault_while_counting_is_no_free_guess_and_burns_nothing() {
    let rig = Rig::new(contract()).await;
    let id = rig.start("a@example.com", "alice").await.unwrap();
    let code = rig.code("a@example.com", 0).await;
    rig.store.fail_writes(true);
    assert_eq!(rig.identity.verify_registration(&id, wrong(&code)).await, Err(ApiError::Unavailable));
    assert_eq!(rig.identity.verify_registration(&id, &code).await, Err(ApiError::Unavailable));
    rig.store.fail_writes(false);
    assert!(rig.identity.verify_registration(&id, &code).await.is_ok());
}

#[tokio::test]
async fn a_code_lives_ten_minutes_and_a_newer_one_replaces_it() {
    let rig = Rig::new(open()).await;
    let first = rig.start("a@example.com", "alice").await.unwrap();
    let second = rig.start("a@example.com", "alice").await.unwrap();
    let other = rig.start("a@example.com", "alicia").await.unwrap();
    let codes = rig.codes("a@example.com");
    assert_eq!(rig.identity.verify_registration(&first, &codes[0]).await, Err(ApiError::Expired));
    assert!(rig.identity.verify_registration(&second, &codes[1]).await.is_ok());
    rig.clock.advance_ms(10 * MINUTE_MS);
    assert_eq!(rig.identity.verify_registration(&other, &codes[2]).await, Err(ApiError::Expired));
    // The next start has the row of what timed out removed.
    rig.start("a@example.com", "alison").await.unwrap();
    while rig.store.pending(&other).await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn codes_are_spaced_and_a_failed_mail_does_not_count() {
    let rig = Rig::new(contract()).await;
    let away = rig.outbox.path().with_extension("away");
    std::fs::rename(rig.outbox.path(), &away).unwrap();
    assert_eq!(rig.start("a@example.com", "alice").await, Err(ApiError::OtpFailed));
    std::fs::rename(&away, rig.outbox.path()).unwrap();
    rig.start("a@example.com", "alice").await.unwrap();
    let again = rig.start("a@example.com", "alicia").await;
    let Err(ApiError::OtpCooldown { retry_after_ms }) = again else { panic!("{again:?}") };
    assert!((1..=MINUTE_MS).contains(&retry_after_ms));
    rig.start("b@example.com", "alice").await.unwrap();
    for _ in 1..5 {
        rig.clock.advance_ms(MINUTE_MS);
        rig.start("a@example.com", "alice").await.unwrap();
    }
    rig.clock.advance_ms(MINUTE_MS);
    let sixth = rig.start("a@example.com", "alice").await;
    assert!(matches!(sixth, Err(ApiError::OtpCooldown { retry_after_ms }) if retry_after_ms > 50 * MINUTE_MS));
}

#[tokio::test]
async fn the_email_budget_is_one_live_and_three_in_a_lifetime() {
    let rig = Rig::new(Rules { otp_cooldown_ms: None, otp_per_hour: None, ..contract() }).await;
    for handle in ["one", "two", "three"] {
        let (row, _) = rig.agent("a@example.com", handle).await;
        if handle != "three" {
            assert_eq!(rig.start("a@example.com", "more").await, Err(ApiError::EmailLimitReached { limit: 1 }));
        }
        rig.domain.delete_agent(row.id).await.unwrap();
    }
    assert_eq!(rig.start("a@example.com", "four").await, Err(ApiError::EmailExhausted { limit: 3 }));
    assert_eq!(rig.start("b@example.com", "one").await, Err(ApiError::HandleTaken), "retired for good");
}

#[tokio::test]
async fn races_are_lost_at_verification() {
    let rig = Rig::new(Rules { otp_cooldown_ms: None, otp_per_hour: None, ..contract() }).await;
    let first = rig.start("a@example.com", "alice").await.unwrap();
    let rival = rig.start("b@example.com", "alice").await.unwrap();
    let second = rig.start("a@example.com", "alicia").await.unwrap();
    let (mine, theirs) = (rig.codes("a@example.com"), rig.codes("b@example.com"));
    let (won, lost) = tokio::join!(
        rig.identity.verify_registration(&first, &mine[0]),
        rig.identity.verify_registration(&rival, &theirs[0]),
    );
    let outcomes = [won.map(drop), lost.map(drop)];
    assert!(outcomes.contains(&Ok(())) && outcomes.contains(&Err(ApiError::HandleTaken)), "{outcomes:?}");
    if outcomes[0].is_ok() {
        let over = rig.identity.verify_registration(&second, &mine[1]).await;
        assert_eq!(over, Err(ApiError::EmailLimitReached { limit: 1 }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_code_creates_one_agent_however_often_it_is_sent() {
    let rig = Rig::new(open()).await;
    let id = rig.start("a@example.com", "alice").await.unwrap();
    let code = rig.code("a@example.com", 0).await;
    let answers = futures_util::future::join_all((0..20).map(|_| rig.identity.verify_registration(&id, &code))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(ApiError::Expired))));
    assert_eq!(rig.store.email("a@example.com").await.unwrap().lifetime, 1);
}

#[tokio::test]
async fn recovery_replaces_the_key() {
    let rig = Rig::new(open()).await;
    let (row, old) = rig.agent("a@example.com", "alice").await;
    let id = rig.identity.recover("a@example.com", None).await.unwrap();
    let code = rig.code("a@example.com", 1).await;
    let (handle, key) = rig.identity.verify_recovery(&id, &code).await.unwrap();
    assert_eq!(handle, "alice");
    assert!(rig.key_works(row.id, &key).await && !rig.key_works(row.id, &old).await);
    assert_eq!(rig.identity.verify_recovery(&id, &code).await, Err(ApiError::Expired));
}

#[tokio::test]
async fn a_store_fault_at_recovery_does_not_burn_the_code() {
    let rig = Rig::new(open()).await;
    let (row, old) = rig.agent("a@example.com", "alice").await;
    let id = rig.identity.recover("a@example.com", None).await.unwrap();
    let code = rig.code("a@example.com", 1).await;
    rig.store.fail_writes(true);
    assert_eq!(rig.identity.verify_recovery(&id, &code).await, Err(ApiError::Unavailable));
    rig.store.fail_writes(false);
    let (_, key) = rig.identity.verify_recovery(&id, &code).await.unwrap();
    assert!(rig.key_works(row.id, &key).await && !rig.key_works(row.id, &old).await);
}

#[tokio::test]
async fn a_code_is_put_back_when_the_key_could_not_be_replaced() {
    let rig = Rig::new(open()).await;
    let (alice, old) = rig.agent("a@example.com", "alice").await;
    let id = rig.identity.start_rotation(&alice).await.unwrap();
    let code = rig.code("a@example.com", 1).await;
    rig.domain.stop().await;
    assert_eq!(rig.identity.verify_rotation(&alice, &id, &code).await, Err(ApiError::Unavailable));
    assert!(rig.store.pending(&id).await.unwrap().is_some());
    assert_eq!(rig.store.agent_by_key(KeyHash::of(&old)).await, Ok(Some(alice.id)));
}

#[tokio::test]
async fn a_slot_that_a_crash_left_with_a_deleted_agent_comes_free() {
    let rig = Rig::new(Rules { otp_cooldown_ms: None, otp_per_hour: None, ..contract() }).await;
    let (row, _) = rig.agent("a@example.com", "alice").await;
    let gone = AgentRow { status: AgentStatus::Deleted, ..row };
    let batch = Batch { writes: vec![Write::Agent(Box::new(gone))], ..Batch::default() };
    rig.store.submit(vec![batch], Box::new(|outcome| assert_eq!(outcome, [Ok(())])));
    rig.agent("a@example.com", "alicia").await;
}

/// A guess and a replacement at once: whoever is second, the replaced pending is gone afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_guess_does_not_bring_a_replaced_pending_back() {
    let rig = Rig::new(open()).await;
    for _ in 0..50 {
        let id = rig.start("a@example.com", "alice").await.unwrap();
        let guesses = (0..3).map(|_| rig.identity.verify_registration(&id, "000000"));
        let (_, again) = tokio::join!(futures_util::future::join_all(guesses), rig.start("a@example.com", "alice"));
        again.unwrap();
        assert_eq!(rig.store.pending(&id).await, Ok(None));
    }
}

#[tokio::test]
async fn a_decoy_answers_like_a_real_pending() {
    let rig = Rig::new(open()).await;
    rig.agent("a@example.com", "alice").await;
    let asked = [("a@example.com", None), ("nobody@example.com", None), ("a@example.com", Some("bob"))];
    let mut shapes = HashSet::new();
    for (email, handle) in asked {
        let id = rig.identity.recover(email, handle).await.unwrap();
        let code = if (email, handle) == asked[0] { rig.code(email, 1).await } else { "000000".to_owned() };
        let mut answers = Vec::new();
        for _ in 0..7 {
            answers.push(format!("{:?}", rig.identity.verify_recovery(&id, wrong(&code)).await));
        }
        shapes.insert(answers);
        // A second start ends the first alike.
        let id = rig.identity.recover(email, handle).await.unwrap();
        rig.identity.recover(email, handle).await.unwrap();
        assert_eq!(rig.identity.verify_recovery(&id, "000002").await, Err(ApiError::Expired));
    }
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    assert!(rig.codes("nobody@example.com").is_empty());
}

#[tokio::test]
async fn the_recovery_cooldown_is_masked_and_the_mailed_code_keeps_working() {
    let rig = Rig::new(contract()).await;
    rig.agent("a@example.com", "alice").await;
    let first = rig.identity.recover("a@example.com", None).await.unwrap();
    let code = rig.code("a@example.com", 1).await;
    let masked = rig.identity.recover("a@example.com", None).await.unwrap();
    assert_ne!(first, masked);
    assert_eq!(rig.identity.verify_recovery(&masked, &code).await, Err(ApiError::InvalidCode));
    assert!(rig.identity.verify_recovery(&first, &code).await.is_ok());
    rig.clock.advance_ms(MINUTE_MS);
    rig.identity.recover("a@example.com", None).await.unwrap();
    rig.code("a@example.com", 2).await;
    assert_eq!(rig.codes("a@example.com").len(), 3, "registration, first and last recovery");
}

#[tokio::test]
async fn several_agents_need_a_handle() {
    let rig = Rig::new(open()).await;
    rig.agent("a@example.com", "zoe").await;
    let (alice, _) = rig.agent("a@example.com", "alice").await;
    let id = rig.identity.recover("a@example.com", None).await.unwrap();
    let code = rig.code("a@example.com", 2).await;
    let handles = vec!["zoe".to_owned(), "alice".to_owned()];
    assert_eq!(rig.identity.verify_recovery(&id, &code).await, Err(ApiError::HandleRequired { handles }));
    assert_eq!(rig.identity.verify_recovery(&id, &code).await, Err(ApiError::Expired), "the code is consumed");
    let id = rig.identity.recover("a@example.com", Some("alice")).await.unwrap();
    let code = rig.code("a@example.com", 3).await;
    let (handle, key) = rig.identity.verify_recovery(&id, &code).await.unwrap();
    assert_eq!(handle, "alice");
    assert!(rig.key_works(alice.id, &key).await);
}

#[tokio::test]
async fn suspended_agents_are_recoverable_and_deleted_ones_are_not() {
    let rig = Rig::new(open()).await;
    let (template, _) = rig.agent("t@example.com", "template").await;
    let id = AgentId(Key::from_bytes([7; 16]));
    let row = AgentRow { id, handle: "sus".into(), email: "s@example.com".into(), ..template };
    let row = AgentRow { status: AgentStatus::Suspended, key_hash: KeyHash::of("s"), ..row };
    rig.store.create_agent(row, None, None).await.unwrap();
    let pending = rig.identity.recover("s@example.com", Some("sus")).await.unwrap();
    let code = rig.code("s@example.com", 0).await;
    assert_eq!(rig.identity.verify_recovery(&pending, &code).await.map(|(handle, _)| handle), Ok("sus".to_owned()));
    let (gone, _) = rig.agent("g@example.com", "gone").await;
    let pending = rig.identity.recover("g@example.com", None).await.unwrap();
    let code = rig.code("g@example.com", 1).await;
    rig.domain.delete_agent(gone.id).await.unwrap();
    assert_eq!(rig.identity.verify_recovery(&pending, &code).await, Err(ApiError::Expired));
    rig.identity.recover("g@example.com", None).await.unwrap();
    rig.identity.recover("t@example.com", None).await.unwrap();
    rig.code("t@example.com", 1).await;
    assert_eq!(rig.codes("g@example.com").len(), 2);
}

#[tokio::test]
async fn rotation_is_bound_to_its_agent_and_purpose() {
    let rig = Rig::new(open()).await;
    let (alice, old) = rig.agent("a@example.com", "alice").await;
    let (bob, _) = rig.agent("b@example.com", "bob").await;
    let id = rig.identity.start_rotation(&alice).await.unwrap();
    let code = rig.code("a@example.com", 1).await;
    assert_eq!(rig.identity.verify_rotation(&bob, &id, &code).await, Err(ApiError::Expired));
    assert_eq!(rig.identity.verify_recovery(&id, &code).await, Err(ApiError::Expired));
    assert_eq!(rig.identity.verify_registration(&id, &code).await, Err(ApiError::Expired));
    assert_eq!(rig.identity.verify_rotation(&alice, &id, wrong(&code)).await, Err(ApiError::InvalidCode));
    let (handle, key) = rig.identity.verify_rotation(&alice, &id, &code).await.unwrap();
    assert_eq!(handle, "alice");
    assert!(rig.key_works(alice.id, &key).await && !rig.key_works(alice.id, &old).await);
    assert_eq!(rig.identity.verify_rotation(&alice, &id, &code).await, Err(ApiError::Expired));
    let patch = ProfilePatch { display_name: Some(Some("Al".into())), ..ProfilePatch::default() };
    let row = rig.domain.update_profile(alice.id, patch).await.unwrap();
    assert_eq!(row.key_hash, KeyHash::of(&key), "later changes keep the new key");
}

#[tokio::test]
async fn ids_that_are_none_have_expired() {
    let rig = Rig::new(contract()).await;
    for id in ["", "pnd_", "pnd_0123456789abcdef", "agt_0123456789abcdef", "pnd_0123456789abcde\0"] {
        assert_eq!(rig.identity.verify_registration(id, "123456").await, Err(ApiError::Expired), "{id:?}");
    }
}

#[tokio::test]
async fn stored_pendings_carry_no_code() {
    let rig = Rig::new(contract()).await;
    let id = rig.start("a@example.com", "alice").await.unwrap();
    let code = rig.code("a@example.com", 0).await;
    let row = rig.store.pending(&id).await.unwrap().unwrap();
    assert!(!format!("{row:?}").contains(&code));
}
