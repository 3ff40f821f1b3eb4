//! The connection against a listener that can be told to fall silent, and the scripts against a real Redis.

use std::sync::atomic::AtomicBool;

use actors::api::{Presence, Snapshot};
use schema::ids::{AgentId, Key};
use schema::rows::PresenceStatus;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Waits that would be failures last so long; what is waited for comes much sooner.
const PATIENCE: Duration = Duration::from_secs(20);

fn fresh_agent() -> AgentId {
    AgentId(Key::from_bytes(rand::random()))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Answers whatever it is asked with `PONG`, while it answers.
async fn answer(stream: TcpStream, silent: Arc<AtomicBool>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        if let Some(parts) = line.strip_prefix('*') {
            let parts: usize = parts.trim().parse().expect("a number of parts");
            for _ in 0..2 * parts {
                stream.read_line(&mut line).await?; // a length, then a part without line ends
            }
            if !silent.load(Ordering::SeqCst) {
                stream.write_all(b"+PONG\r\n").await?;
            }
        }
        line.clear();
    }
    Ok(())
}

/// A listener that speaks as much of the protocol as a connection needs.
async fn listener() -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("redis://{}/", listener.local_addr().expect("bound"));
    let silent = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&silent);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&flag)));
        }
    });
    (url, silent)
}

async fn ping(shared: &Shared) -> Option<String> {
    let ask = |mut connection: MultiplexedConnection| async move {
        redis::cmd("PING").query_async::<String>(&mut connection).await
    };
    shared.call(Purpose::Probe, ask).await
}

#[tokio::test]
async fn a_silent_redis_costs_a_few_timeouts_and_comes_back_by_itself() {
    let (url, silent) = listener().await;
    let shared = Shared::open(&url).await.expect("a URL");
    assert_eq!(ping(&shared).await.as_deref(), Some("PONG"));
    silent.store(true, Ordering::SeqCst);
    let started = Instant::now();
    assert_eq!(ping(&shared).await, None, "S1");
    assert!(started.elapsed() >= CALL_TIMEOUT);
    let link = shared.0.as_ref().expect("a link");
    until("it is given up", async || ping(&shared).await.is_none() && link.connection().is_none()).await;
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(ping(&shared).await, None);
    }
    assert!(started.elapsed() < CALL_TIMEOUT, "S2: nobody waits for what is known to be away");
    silent.store(false, Ordering::SeqCst);
    until("it is back", async || ping(&shared).await.is_some()).await;
}

#[tokio::test]
async fn a_node_starts_without_its_redis_and_one_failure_is_no_outage() {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").port();
    let away = Shared::open(&format!("redis://127.0.0.1:{port}")).await.expect("a URL");
    let window = Window::new("test", 1, Duration::from_secs(60));
    assert_eq!(away.take(&[window.of("a")]).await, None);
    assert!(away.seen(&[(fresh_agent(), 1)]).await.is_empty());
    assert_eq!(away.replace_pending("register", &["a"], "pnd_1", 1_000).await, None);
    let (url, _) = listener().await;
    let shared = Shared::open(&url).await.expect("a URL");
    let link = shared.0.as_ref().expect("a link");
    (1..FAILURES_MAX).for_each(|_| link.failed(Purpose::Windows, "a mishap"));
    assert!(link.connection().is_some());
    link.failed(Purpose::Windows, "a mishap");
    assert!(link.connection().is_none(), "S2");
}

#[tokio::test]
async fn background_tasks_end_with_their_last_user() {
    let (url, _) = listener().await;
    let shared = Shared::open(&url).await.expect("a URL");
    let link = Arc::downgrade(shared.0.as_ref().expect("a link"));
    drop(shared);
    until("nothing is left", async || link.strong_count() == 0).await;
}

/// Against a real server: `AGENTCHAT_TEST_REDIS=redis://…`.
#[tokio::test]
async fn a_real_redis_judges_for_all() {
    let Ok(url) = std::env::var("AGENTCHAT_TEST_REDIS") else { return };
    let (one, other) = (Shared::open(&url).await.expect("a URL"), Shared::open(&url).await.expect("a URL"));
    windows_are_counted_together(&one, &other).await;
    codes_are_spaced_together(&one, &other).await;
    snapshots_do_not_go_back(&one, &other).await;
    let mut connection = one.0.as_ref().and_then(|link| link.connection()).expect("connected");
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("keys");
    assert!(keys.len() >= 5, "{keys:?}");
    for key in keys {
        assert!(key.starts_with("agentchat:"), "S3 {key}");
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.expect("a time to live");
        assert!(left > 0 || left == -2, "S3 {key} {left}");
    }
}

#[track_caller]
fn check_wait(answer: Option<Result<(), u64>>, most_ms: u64) {
    let Some(Err(wait_ms)) = answer else { panic!("{answer:?}") };
    assert!(wait_ms <= most_ms && wait_ms + 10_000 >= most_ms, "{wait_ms} of {most_ms}");
}

async fn windows_are_counted_together(one: &Shared, other: &Shared) {
    let client = fresh_agent();
    let hourly = Window::new("test-hour", 6, Duration::from_secs(3_600)).of(client);
    for node in [one, other, one, other, one, other] {
        assert_eq!(node.take(std::slice::from_ref(&hourly)).await, Some(Ok(())));
    }
    check_wait(one.take(std::slice::from_ref(&hourly)).await, 600_000);
    check_wait(other.take(std::slice::from_ref(&hourly)).await, 600_000);
    // Of two, none is taken from unless both pass.
    let (day, minute) = (Duration::from_secs(86_400), Duration::from_secs(60));
    let both = [Window::new("test-minute", 3, minute).of(client), Window::new("test-day", 2, day).of(client)];
    for node in [one, other] {
        assert_eq!(node.take(&both).await, Some(Ok(())));
    }
    for node in [one, other, one] {
        check_wait(node.take(&both).await, 43_200_000);
    }
    assert_eq!(one.take(&both[..1]).await, Some(Ok(())), "W2");
    check_wait(one.take(&both[..1]).await, 20_000);
    // What a refusal says is true: then the next one passes.
    let fast = Window::new("test-fast", 2, Duration::from_millis(400)).of(client);
    let mut passed = 0;
    while one.take(std::slice::from_ref(&fast)).await == Some(Ok(())) {
        passed += 1;
    }
    assert!((2..10).contains(&passed), "{passed}");
    until("one more passes", async || other.take(std::slice::from_ref(&fast)).await == Some(Ok(()))).await;
}

async fn codes_are_spaced_together(one: &Shared, other: &Shared) {
    let hour_ms = 3_600_000;
    let rules = Spaced { cooldown_ms: Some(60_000), per_hour: Some(5), hour_ms };
    let email = format!("{}@example.com", fresh_agent());
    let mark = one.space_code("register", &email, rules).await.expect("reachable").expect("the first");
    check_wait(other.space_code("register", &email, rules).await.map(|answer| answer.map(drop)), 60_000);
    assert!(matches!(other.space_code("recover", &email, rules).await, Some(Ok(_))), "another purpose");
    one.give_code_back("register", &email, mark).await;
    assert!(matches!(other.space_code("register", &email, rules).await, Some(Ok(_))), "that one never left");
    let hourly = Spaced { cooldown_ms: None, ..rules };
    for node in [one, other, one, other] {
        assert!(matches!(node.space_code("register", &email, hourly).await, Some(Ok(_))));
    }
    check_wait(one.space_code("register", &email, hourly).await.map(|answer| answer.map(drop)), hour_ms);
    let slot = [email.as_str(), "alice"];
    assert_eq!(one.replace_pending("register", &slot, "pnd_1", 60_000).await, None);
    assert_eq!(other.replace_pending("register", &slot, "pnd_2", 60_000).await.as_deref(), Some("pnd_1"));
    assert_eq!(one.replace_pending("recover", &slot, "pnd_3", 60_000).await, None);
}

async fn snapshots_do_not_go_back(one: &Shared, other: &Shared) {
    let agent = fresh_agent();
    let shown = |status| Presence { status, message: Some("ünïcode \"x\"".to_owned()), last_seen: None };
    let show = |node: &Shared, epoch, status| {
        node.show(epoch, Snapshot { agent, presence: shown(status), holds_ms: 60_000 });
    };
    show(one, 5, PresenceStatus::Online);
    until("one node sees what the other shows", async || {
        other.seen(&[(fresh_agent(), 5), (agent, 5)]).await.get(&agent) == Some(&shown(PresenceStatus::Online))
    })
    .await;
    show(other, 6, PresenceStatus::Busy);
    until("a new owner shows", async || one.seen(&[(agent, 6)]).await.contains_key(&agent)).await;
    show(one, 5, PresenceStatus::Offline);
    let written = || one.0.as_ref().is_some_and(|link| link.board.is_empty());
    until("the old owner has spoken", async || written()).await;
    // Its last write was under way when it left the board: one more call on its connection comes after it.
    assert!(ping(one).await.is_some());
    assert_eq!(one.seen(&[(agent, 6)]).await.get(&agent), Some(&shown(PresenceStatus::Busy)), "P2");
    assert!(one.seen(&[(agent, 7)]).await.is_empty(), "P1");
}
