//! An owner: who it is, where it is signed in, and its dashboard sockets. A state machine without I/O.
//!
//! O1  A token works exactly while its sign-in stands here, so signing out ends it for every node at once, and its
//!     sockets with it.
//! O2  A refresh token works once. Who repeats it within [`REFRESH_REPEAT_MS`] gets the answer of the first time, on
//!     whichever node: two tabs that refresh together end with the same pair.
//! O3  An answer follows the write that it speaks of (`writer`).
//! O4  Nothing here is told to agents: agents tell their owner, never the other way.

pub mod events;
#[cfg(test)]
mod tests;

use cluster::routes::NodeId;
use schema::ids::OwnerId;
use schema::rows::{EventAction, EventActor, EventRow, OwnerRow, RotatedRow, SignInRow, Timestamp, TokenRow};
use schema::store::Write;
use subtle::ConstantTimeEq;

use self::events::{OwnerEvent, OwnerRequest, Pair, Seen, TokenHash};
use crate::api::{CloseReason, OwnerView, Refusal, SessionId, ToSession};
use crate::effects::{Effects, Port, Reply};
use crate::limits::{ACCESS_MS, REFRESH_MS, REFRESH_REPEAT_MS, ROTATED_KEPT, SIGN_INS_MAX, WATCHING_MAX};
use crate::writer::Writer;

/// What happens once the writes before it are durable (O3).
#[derive(Debug)]
enum After {
    Answer(Port, Result<Reply, Refusal>),
    /// Close the sockets of these sign-ins.
    Close(Vec<u64>),
}

/// A dashboard socket.
#[derive(Debug, Clone, Copy)]
struct Watching {
    session: SessionId,
    sign_in: u64,
}

/// The entity.
#[derive(Debug)]
pub struct Owner {
    id: OwnerId,
    /// `None`: nobody has signed in by this address yet.
    row: Option<Box<OwnerRow>>,
    watching: Vec<Watching>,
    writer: Writer<After>,
}

fn same(a: &TokenHash, b: &TokenHash) -> bool {
    bool::from(a.ct_eq(b))
}

impl Owner {
    /// An active owner from what is stored.
    pub fn activate(id: OwnerId, row: Option<Box<OwnerRow>>) -> Self {
        Self { id, row, watching: Vec::new(), writer: Writer::default() }
    }

    /// Nothing is under way and no socket is held: the entity can be dropped and activated again at no loss.
    pub fn is_idle(&self) -> bool {
        self.watching.is_empty() && self.is_quiet()
    }

    /// Nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.writer.is_idle()
    }

    /// Sockets that a node holds.
    pub(crate) fn sockets_of(&self, node: NodeId) -> impl Iterator<Item = SessionId> {
        self.watching.iter().map(|socket| socket.session).filter(move |session| session.node == node)
    }

    /// One step.
    pub fn on(&mut self, now: Timestamp, event: OwnerEvent, fx: &mut Effects) {
        match event {
            OwnerEvent::Request(port, request) => self.request(now, port, *request, fx),
            OwnerEvent::Detach(session) => self.watching.retain(|socket| socket.session != session),
            OwnerEvent::Seen(seen) => self.show(*seen, fx),
            OwnerEvent::Changed { handle, change } => {
                let frame = ToSession::Changed { handle, change };
                fx.pushes.extend(self.watching.iter().map(|socket| (socket.session, frame.clone())));
            }
            OwnerEvent::Stored(outcome) => {
                let after = self.writer.stored(now, outcome, fx);
                self.run(after, fx);
            }
            OwnerEvent::Found(_) => debug_assert!(false, "E2: only the shard reads owners"),
            OwnerEvent::Wake => self.writer.retry(fx),
        }
        let ready = self.writer.flush(fx);
        self.run(ready, fx);
    }

    fn run(&mut self, after: Vec<After>, fx: &mut Effects) {
        for after in after {
            match after {
                After::Answer(port, reply) => fx.answer(port, reply),
                After::Close(sign_ins) => {
                    let ended = self.watching.extract_if(.., |socket| sign_ins.contains(&socket.sign_in));
                    fx.pushes.extend(ended.map(|socket| (socket.session, ToSession::Close(CloseReason::SignedOut))));
                }
            }
        }
    }

    /// Each view of a message is a frame of its own, on every socket in the same order.
    fn show(&self, seen: Seen, fx: &mut Effects) {
        for view in seen.views {
            let message = seen.message.clone();
            let frame = ToSession::Seen { agent: view.agent, handle: view.handle.into(), message, pos: view.pos };
            fx.pushes.extend(self.watching.iter().map(|socket| (socket.session, frame.clone())));
        }
    }

    fn request(&mut self, now: Timestamp, port: Port, request: OwnerRequest, fx: &mut Effects) {
        match request {
            OwnerRequest::SignIn(email, pair) => self.sign_in(now, port, email, pair),
            OwnerRequest::Admit(access) => {
                let reply = self.admitted(now, &access).and_then(|number| self.view(number));
                fx.answer(port, reply.map(Reply::Owner).ok_or(Refusal::Unauthorized));
            }
            OwnerRequest::Refresh { old, seed, next } => self.refresh(now, port, (old, seed, next), fx),
            OwnerRequest::SignOut(tokens) => self.sign_out(now, port, &tokens),
            OwnerRequest::SignOutAll(access) => self.sign_out_all(now, port, access, fx),
            OwnerRequest::Watch(sign_in, session) => self.watch(port, sign_in, session, fx),
            OwnerRequest::Forget(session) => {
                self.watching.retain(|socket| socket.session != session);
                fx.answer(port, Ok(Reply::Done));
            }
        }
    }

    fn view(&self, sign_in: u64) -> Option<OwnerView> {
        let row = self.row.as_ref()?;
        let (email, display_name) = (row.email.clone(), row.display_name.clone());
        Some(OwnerView { id: self.id, email, display_name, created_at: row.created_at, sign_in })
    }

    /// The sign-in that an access token opens; one that a refresh has just replaced still does (O2).
    fn admitted(&self, now: Timestamp, access: &TokenHash) -> Option<u64> {
        let opens = |sign_in: &&SignInRow| {
            let current = same(&sign_in.access.hash, access) && now < sign_in.access.until;
            current || sign_in.rotated.iter().any(|old| is_recent(now, old) && same(&old.access, access))
        };
        self.row.as_ref()?.sign_ins.iter().find(opens).map(|sign_in| sign_in.number)
    }

    fn log(&mut self, now: Timestamp, action: EventAction) {
        let Some(row) = &mut self.row else { return };
        row.events += 1;
        let event = EventRow { number: row.events, actor: EventActor::Owner, action, owner: Some(self.id), at: now };
        self.writer.write(Write::OwnerEvent(self.id, Box::new(event)));
    }

    fn save(&mut self) {
        if let Some(row) = &self.row {
            self.writer.write(Write::Owner(row.clone()));
        }
    }

    fn sign_in(&mut self, now: Timestamp, port: Port, email: String, pair: Pair) {
        if self.row.is_none() {
            self.row = Some(Box::new(OwnerRow {
                id: self.id,
                email,
                display_name: None,
                created_at: now,
                events: 0,
                last_sign_in: 0,
                sign_ins: Vec::new(),
            }));
            self.log(now, EventAction::OwnerCreated);
        }
        self.log(now, EventAction::OwnerSignedIn);
        let Some(row) = &mut self.row else { return };
        row.last_sign_in += 1;
        let number = row.last_sign_in;
        row.sign_ins.push(SignInRow {
            number,
            access: TokenRow { hash: pair.access, until: now.plus_ms(ACCESS_MS) },
            refresh: TokenRow { hash: pair.refresh, until: now.plus_ms(REFRESH_MS) },
            rotated: Vec::new(),
        });
        let excess = row.sign_ins.len().saturating_sub(SIGN_INS_MAX);
        let mut ended: Vec<u64> = row.sign_ins.drain(..excess).map(|sign_in| sign_in.number).collect();
        let over = row.sign_ins.extract_if(.., |sign_in| sign_in.refresh.until <= now);
        ended.extend(over.map(|sign_in| sign_in.number));
        self.save();
        self.writer.then(After::Close(ended));
        let reply = self.view(number).map(Reply::Owner).ok_or(Refusal::Unauthorized);
        self.writer.then(After::Answer(port, reply));
    }

    /// O2.
    fn refresh(
        &mut self,
        now: Timestamp,
        port: Port,
        (old, seed, next): (TokenHash, [u8; 32], Pair),
        fx: &mut Effects,
    ) {
        let sign_ins = self.row.iter_mut().flat_map(|row| &mut row.sign_ins);
        for sign_in in sign_ins {
            if same(&sign_in.refresh.hash, &old) && now < sign_in.refresh.until {
                sign_in.rotated.retain(|rotated| is_recent(now, rotated));
                let excess = (sign_in.rotated.len() + 1).saturating_sub(ROTATED_KEPT);
                sign_in.rotated.drain(..excess);
                sign_in.rotated.push(RotatedRow { refresh: old, access: sign_in.access.hash, seed, at: now });
                sign_in.access = TokenRow { hash: next.access, until: now.plus_ms(ACCESS_MS) };
                sign_in.refresh = TokenRow { hash: next.refresh, until: now.plus_ms(REFRESH_MS) };
                self.save();
                return self.writer.then(After::Answer(port, Ok(Reply::Seed(seed))));
            }
            let repeated =
                sign_in.rotated.iter().find(|rotated| is_recent(now, rotated) && same(&rotated.refresh, &old));
            if let Some(first) = repeated {
                let seed = first.seed;
                return self.writer.then(After::Answer(port, Ok(Reply::Seed(seed))));
            }
        }
        fx.answer(port, Err(Refusal::Unauthorized));
    }

    fn sign_out(&mut self, now: Timestamp, port: Port, tokens: &[TokenHash]) {
        let named = |sign_in: &mut SignInRow| {
            let rotated = sign_in.rotated.iter().filter(|old| is_recent(now, old));
            let mut known = rotated.flat_map(|old| [old.access, old.refresh]).collect::<Vec<_>>();
            known.extend([sign_in.access.hash, sign_in.refresh.hash]);
            known.iter().any(|hash| tokens.iter().any(|token| same(hash, token)))
        };
        let sign_ins = self.row.as_mut().map(|row| &mut row.sign_ins);
        let ended: Vec<u64> = sign_ins
            .map(|sign_ins| sign_ins.extract_if(.., named).map(|sign_in| sign_in.number).collect())
            .unwrap_or_default();
        if !ended.is_empty() {
            self.save();
            self.writer.then(After::Close(ended));
        }
        self.writer.then(After::Answer(port, Ok(Reply::Done)));
    }

    fn sign_out_all(&mut self, now: Timestamp, port: Port, access: TokenHash, fx: &mut Effects) {
        if self.admitted(now, &access).is_none() {
            return fx.answer(port, Err(Refusal::Unauthorized));
        }
        self.log(now, EventAction::OwnerSignedOutAll);
        let sign_ins = self.row.as_mut().map(|row| std::mem::take(&mut row.sign_ins)).unwrap_or_default();
        self.save();
        let ended: Vec<u64> = sign_ins.iter().map(|sign_in| sign_in.number).collect();
        let count = u32::try_from(sign_ins.iter().filter(|sign_in| now < sign_in.refresh.until).count());
        self.writer.then(After::Close(ended));
        self.writer.then(After::Answer(port, Ok(Reply::SignedOut(count.unwrap_or(u32::MAX)))));
    }

    /// Registers a socket, also again after it or its shard moved.
    fn watch(&mut self, port: Port, sign_in: u64, session: SessionId, fx: &mut Effects) {
        self.watching.retain(|socket| socket.session != session);
        let known = self.row.iter().flat_map(|row| &row.sign_ins).any(|known| known.number == sign_in);
        if !known {
            return fx.answer(port, Err(Refusal::Unauthorized));
        }
        if self.watching.len() >= WATCHING_MAX {
            fx.pushes.push((session, ToSession::Close(CloseReason::TooManySockets)));
        } else {
            self.watching.push(Watching { session, sign_in });
        }
        fx.answer(port, Ok(Reply::Done));
    }
}

fn is_recent(now: Timestamp, rotated: &RotatedRow) -> bool {
    now.ms_since(rotated.at) < REFRESH_REPEAT_MS
}
