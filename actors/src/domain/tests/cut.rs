//! Two nodes in one process: one holds sockets, the other owns their agents, and the link between them is cut while both
//! go on. What a socket does meanwhile is known to the owner soon after the link is back, and a socket that does nothing
//! notices nothing.

use std::sync::Mutex;
use std::time::Duration;

use cluster::peers::Receiver;
use cluster::routes::Route;
use schema::rows::PresenceStatus;

use super::*;

const HOLDER: NodeId = NodeId(1);
const OWNER: NodeId = NodeId(2);
const EPOCH: u64 = 1;
/// Within this everything has to be right again once the link is back.
const SOON: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What is sent arrives.
    Up(u64),
    /// What is sent is lost, and nobody knows it yet: the connection of this generation is dead.
    Silent(u64),
    /// There is no way.
    Down,
}

/// One direction of the link; both share its state.
struct Way {
    state: Arc<Mutex<State>>,
    to: Arc<Node>,
}

impl Way {
    fn state(&self) -> State {
        *self.state.lock().expect("no test panics with it")
    }
}

impl Peers<Wire> for Way {
    fn send(&self, _: NodeId, message: Wire) -> Result<(), Wire> {
        match self.state() {
            State::Up(_) => {
                let bytes = rmp_serde::to_vec(&message).expect("encodes");
                self.to.receive(rmp_serde::from_slice(&bytes).expect("decodes"));
                Ok(())
            }
            State::Silent(_) => Ok(()),
            State::Down => Err(message),
        }
    }

    fn generation(&self, _: NodeId) -> u64 {
        match self.state() {
            State::Up(generation) | State::Silent(generation) => generation,
            State::Down => 0,
        }
    }
}

struct Pair {
    holder: Domain,
    owner: Domain,
    link: Arc<Mutex<State>>,
}

impl Pair {
    async fn start(agents: &[AgentRow]) -> Self {
        let store = Arc::new(MemoryStore::new());
        for agent in agents {
            store.create_agent(agent.clone(), None, None).await.expect("fresh store");
        }
        let options = DomainOptions { shards: 1, ..DomainOptions::default() };
        let join = async |id: NodeId| {
            let (routes, held) = (Arc::new(Routes::new(1)), Arc::new(Held::nothing(1)));
            held.lease(u64::MAX);
            if id == OWNER {
                held.set(ShardId(0), EPOCH);
            }
            routes.learn([(ShardId(0), Route { epoch: EPOCH, owner: Some(OWNER) })]);
            let failures = Some(News::new(id, Arc::clone(&routes), Arc::clone(&held)));
            let seat = Seat { id, routes, held, failures };
            Domain::join(store.clone(), options, Arc::new(NoHooks), seat).await.expect("joins")
        };
        let (holder, owner) = (join(HOLDER).await, join(OWNER).await);
        let link = Arc::new(Mutex::new(State::Up(1)));
        holder.connect(Arc::new(Way { state: Arc::clone(&link), to: owner.receiver() }));
        owner.connect(Arc::new(Way { state: Arc::clone(&link), to: holder.receiver() }));
        Hosts::start(&owner, ShardId(0), EPOCH).await;
        Self { holder, owner, link }
    }

    fn set(&self, state: State) {
        *self.link.lock().expect("no test panics with it") = state;
    }

    /// Both notice that the link has ended, and it comes up again.
    fn back(&self, generation: u64) {
        self.set(State::Down);
        self.holder.node.lost(OWNER);
        self.owner.node.lost(HOLDER);
        self.set(State::Up(generation));
        self.holder.node.routes.touch();
        self.owner.node.routes.touch();
    }

    /// Returns when nothing that is gone is left on the holder's list.
    async fn all_told(&self) {
        while !self.holder.node.sessions.untold(|_| true).is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

async fn soon<T>(frames: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, frames).await.expect("soon after the link is back")
}

fn who(agent: &AgentRow) -> Credential {
    Credential { agent: agent.id, key: agent.key_hash }
}

/// Presences until this one, by handle.
async fn presences(frames: &mut mpsc::Receiver<ToSession>, last: (&str, PresenceStatus)) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        if let ToSession::Presence { handle, presence } = frames.recv().await.expect("the socket stays") {
            seen.push(format!("{handle} {:?}", presence.status));
            if (handle.as_str(), presence.status) == last {
                return seen;
            }
        }
    }
}

#[tokio::test]
async fn a_socket_that_goes_while_the_link_is_cut_is_forgotten_and_one_that_stays_loses_nothing() {
    let (watcher, goes, stays) = (account(1), account(2), account(3));
    let pair = Pair::start(&[watcher.clone(), goes.clone(), stays.clone()]).await;
    let explicit = AckMode::Explicit { window: 12 };
    for peer in [&goes, &stays] {
        pair.owner.put_contact(watcher.id, peer.id, None).await.expect("added");
    }
    let (_, mut watched, _) = pair.owner.attach(who(&watcher), explicit).await.expect("attached");
    let (gone, frames, _) = pair.holder.attach(who(&goes), explicit).await.expect("attached");
    soon(presences(&mut watched, ("agent-2", PresenceStatus::Online))).await;
    let (_, mut kept, _) = pair.holder.attach(who(&stays), explicit).await.expect("attached");
    soon(presences(&mut watched, ("agent-3", PresenceStatus::Online))).await;

    pair.set(State::Silent(1));
    drop(frames);
    pair.holder.detach(goes.id, gone);
    let sent = pair.owner.send(watcher.id, Target::Agent(stays.id), draft("cut")).await.expect("sent");
    assert!(kept.try_recv().is_err(), "what was pushed over the dead link is lost");
    pair.back(2);

    let changes = soon(presences(&mut watched, ("agent-2", PresenceStatus::Offline))).await;
    assert_eq!(changes, ["agent-2 Offline"], "the socket that stayed did not flicker");
    let Some(ToSession::Message { message, .. }) = soon(kept.recv()).await else { panic!("the message comes") };
    assert_eq!(message.seq, sent.message.seq);
    let presence = pair.owner.presence(stays.id, watcher.id).await.expect("seen");
    assert_eq!(presence.status, PresenceStatus::Online);
    soon(pair.all_told()).await;
}

#[tokio::test]
async fn a_dashboard_that_goes_while_there_is_no_way_is_forgotten() {
    let agent = account(1);
    let pair = Pair::start(std::slice::from_ref(&agent)).await;
    let tokens = crate::owner::events::Pair { access: [1; 32], refresh: [2; 32] };
    let owner = pair.holder.sign_in("o@example.com", tokens).await.expect("signed in");
    let (session, frames) = pair.holder.watch(owner.id, owner.sign_in).await.expect("watching");

    pair.set(State::Down);
    drop(frames);
    pair.holder.unwatch(owner.id, session);
    assert_eq!(pair.holder.node.sessions.untold(|_| true).len(), 1, "it stays on the list");
    pair.back(2);
    soon(pair.all_told()).await;
}

#[tokio::test]
async fn a_key_is_taken_once_on_whichever_node() {
    let agent = account(1);
    let pair = Pair::start(std::slice::from_ref(&agent)).await;
    assert_eq!(pair.holder.begin_once(agent.id, "key").await, Ok(true));
    assert_eq!(pair.owner.begin_once(agent.id, "key").await, Ok(false));
    assert_eq!(pair.owner.begin_once(agent.id, "another").await, Ok(true));
    pair.holder.end_once(agent.id, "key");
    assert_eq!(pair.owner.begin_once(agent.id, "key").await, Ok(true), "the first has ended");
    assert_eq!(pair.holder.begin_once(agent.id, "key").await, Ok(false));
}
