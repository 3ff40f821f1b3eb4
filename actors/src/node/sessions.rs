//! The sockets that this node holds, wherever their agents live.
//!
//! Q1  A message is never dropped from a live socket: where its queue is full, the socket goes.
//! Q2  What a socket is shown comes from one owner of its agent after the other: once a newer epoch has spoken, what an
//!     older one sent late is dropped.
//! Q3  A socket is known to the present owner of its agent, over a connection that lost nothing since; otherwise it is
//!     registered again, and is shown again what it has not acked.
//! Q4  What an owner sent before it heard of that registration is dropped: something may be missing before it.
//! Q5  A socket that is gone stays on a list until the present owner of its entity has answered that it knows of none:
//!     whatever was lost on the way, no owner takes an agent for online once it can be reached.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cluster::routes::NodeId;
use cluster::shard::ShardId;
use tokio::sync::{Notify, mpsc};

use crate::api::{AckMode, CloseReason, Credential, SessionId, ToSession};
use crate::effects::EntityId;
use schema::ids::OwnerId;

/// Under which epoch, and over which connection, a socket is known to the owner of its agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The owner's epoch.
    pub epoch: u64,
    /// Generation of the connection; 0 on the owner's own node.
    pub generation: u64,
}

/// Whose a socket is.
#[derive(Debug, Clone, Copy)]
pub enum Holder {
    /// An agent's, and how it acks.
    Agent(Credential, AckMode),
    /// A dashboard's: the owner of agents, and by which of its sign-ins.
    Owner(OwnerId, u64),
}

/// What an owner needs to know of a socket.
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    /// The socket.
    pub session: SessionId,
    /// Whose.
    pub holder: Holder,
    /// Shard of its entity.
    pub shard: ShardId,
}

/// A socket that is gone, and whose owner has not said that it knows (Q5).
#[derive(Debug, Clone, Copy)]
pub struct Gone {
    /// The socket.
    pub session: SessionId,
    /// Whose it was.
    pub whose: EntityId,
    /// Shard of that.
    pub shard: ShardId,
    /// It may be listed again while it is asked for: an answer counts for the listing that it follows.
    listing: u64,
}

#[derive(Debug)]
struct Seat {
    registration: Registration,
    queue: mpsc::Sender<ToSession>,
    known: Option<Known>,
    /// Newest epoch that has spoken (Q2).
    spoken: u64,
}

/// Sockets of this node.
#[derive(Debug)]
pub struct Sessions {
    node: NodeId,
    next: AtomicU64,
    seats: Mutex<HashMap<u64, Seat>>,
    /// Q5. No more than were ever handed to owners that cannot be reached now: without a way nothing is handed over.
    gone: Mutex<HashMap<u64, Gone>>,
    listed: Notify,
}

impl Sessions {
    /// None yet.
    pub fn new(node: NodeId) -> Self {
        let (seats, gone, listed) = (Mutex::default(), Mutex::default(), Notify::new());
        Self { node, next: AtomicU64::new(0), seats, gone, listed }
    }

    fn gone(&self) -> MutexGuard<'_, HashMap<u64, Gone>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a socket as gone (Q5).
    pub fn list_gone(&self, session: SessionId, whose: EntityId, shard: ShardId) {
        let listing = self.next.fetch_add(1, Ordering::Relaxed);
        self.gone().insert(session.number, Gone { session, whose, shard, listing });
        self.listed.notify_one();
    }

    /// Sockets that are gone, and whose owner can be asked now whether it knows.
    pub fn untold(&self, reachable: impl Fn(ShardId) -> bool) -> Vec<Gone> {
        self.gone().values().filter(|gone| reachable(gone.shard)).copied().collect()
    }

    /// The present owner knows.
    pub fn told(&self, told: &Gone) {
        let mut gone = self.gone();
        if gone.get(&told.session.number).is_some_and(|gone| gone.listing == told.listing) {
            gone.remove(&told.session.number);
        }
    }

    /// Returns when another socket is gone.
    pub async fn next_gone(&self) {
        self.listed.notified().await;
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<u64, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new socket of an entity on `shard`, whose queue holds `capacity` frames.
    pub fn open(&self, holder: Holder, shard: ShardId, capacity: usize) -> (Registration, mpsc::Receiver<ToSession>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let registration = Registration { session: SessionId::new(self.node, number), holder, shard };
        let (queue, receiver) = mpsc::channel(capacity);
        self.seats().insert(number, Seat { registration, queue, known: None, spoken: 0 });
        (registration, receiver)
    }

    /// Drops the queue; its socket sees the end of the stream.
    pub fn close(&self, session: SessionId) {
        self.seats().remove(&session.number);
    }

    /// Queues a frame for this life of a socket, from an owner of this epoch (Q1, Q2, Q4).
    pub fn push(&self, to: SessionId, epoch: u64, frame: ToSession) {
        let (mut seats, number) = (self.seats(), to.number);
        let here = |seat: &&mut Seat| seat.spoken <= epoch && to.is_same_life(seat.registration.session);
        let Some(seat) = seats.get_mut(&number).filter(here) else { return };
        seat.spoken = epoch;
        // A dashboard has no other way to learn that it missed something than to come back.
        let droppable = !matches!(
            frame,
            ToSession::Message { .. } | ToSession::Seen { .. } | ToSession::Changed { .. } | ToSession::Close(_)
        );
        // The socket goes, and the client drains when it is back.
        if seat.queue.try_send(frame).is_err() && !droppable {
            seats.remove(&number);
        }
    }

    /// A socket is about to be registered again: its next life begins (Q4). `None`: it is gone.
    pub fn renew(&self, session: SessionId) -> Option<SessionId> {
        let mut seats = self.seats();
        let session = &mut seats.get_mut(&session.number)?.registration.session;
        session.life += 1;
        Some(*session)
    }

    /// An owner knows a socket now. `false`: it is gone, and the owner has to learn that.
    pub fn registered(&self, session: SessionId, known: Known) -> bool {
        let mut seats = self.seats();
        let seat = seats.get_mut(&session.number);
        seat.map(|seat| seat.known = Some(known)).is_some()
    }

    /// Sockets that the present owner of their agent does not know (Q3). `present` says how it would.
    pub fn unknown(&self, present: impl Fn(ShardId) -> Option<Known>) -> Vec<(Registration, Known)> {
        let seats = self.seats();
        let stale = seats.values().filter(|seat| seat.known.is_some()).filter_map(|seat| {
            let known = present(seat.registration.shard)?;
            (seat.known != Some(known)).then_some((seat.registration, known))
        });
        stale.collect()
    }

    /// Nobody may know any socket any more: this node was taken for dead.
    pub fn forget_registrations(&self) {
        for seat in self.seats().values_mut().filter(|seat| seat.known.is_some()) {
            seat.known = Some(Known { epoch: u64::MAX, generation: u64::MAX });
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.seats().len()
    }

    /// Ends every socket of this node.
    pub fn close_all(&self, reason: CloseReason) {
        self.close_where(|_| true, reason);
    }

    /// Ends one socket.
    pub fn end(&self, session: SessionId, reason: CloseReason) {
        self.close_where(|seat| seat.registration.session == session, reason);
    }

    /// Ends the sockets of a shard that lost its memory, and with it who they belong to.
    pub fn close_shard(&self, shard: ShardId, reason: CloseReason) {
        self.close_where(|seat| seat.registration.shard == shard, reason);
    }

    fn close_where(&self, ends: impl Fn(&Seat) -> bool, reason: CloseReason) {
        for (_, seat) in self.seats().extract_if(|_, seat| ends(seat)) {
            let _ = seat.queue.try_send(ToSession::Close(reason)); // a full queue ends with the stream
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_to_an_earlier_life_of_a_socket_is_dropped() {
        let sessions = Sessions::new(NodeId(1));
        let (socket, mut frames) = sessions.open(Holder::Owner(OwnerId::of_email("o@example.com"), 1), ShardId(0), 8);
        let frame = || ToSession::Close(CloseReason::Restart);
        sessions.push(socket.session, 5, frame());
        assert!(frames.try_recv().is_ok());
        let renewed = sessions.renew(socket.session).expect("it is there");
        sessions.push(socket.session, 5, frame());
        assert!(frames.try_recv().is_err(), "Q4: its owner does not know yet that something was lost");
        sessions.push(renewed, 5, frame());
        assert!(frames.try_recv().is_ok());
        sessions.push(renewed, 4, frame());
        assert!(frames.try_recv().is_err(), "Q2");
        sessions.close(renewed);
        assert!(sessions.renew(renewed).is_none());
    }
}
