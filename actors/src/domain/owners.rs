//! Owners: signing in and out, claims, pauses, dashboard sockets.

use std::sync::Arc;

use schema::ids::{AgentId, OwnerId};
use schema::rows::{AgentRow, Pause};
use tokio::sync::mpsc;

use super::{Domain, SESSION_QUEUE};
use crate::agent::events::{AgentRequest, ClaimAttempt};
use crate::api::{OwnerView, Refusal, SessionId, ToSession};
use crate::effects::{EntityId, Event, Reply};
use crate::node::sessions::{Holder, Known};
use crate::owner::events::{OwnerEvent, OwnerRequest, Pair, TokenHash};

impl Domain {
    async fn ask_owner(&self, owner: OwnerId, request: OwnerRequest) -> Result<Reply, Refusal> {
        self.ask(|port| Event::Owner(owner, OwnerEvent::Request(port, Box::new(request)))).await
    }

    /// Signs in by an address that was proved; the first time makes the owner.
    pub async fn sign_in(&self, email: &str, pair: Pair) -> Result<OwnerView, Refusal> {
        let request = OwnerRequest::SignIn(email.to_owned(), pair);
        let reply = self.ask_owner(OwnerId::of_email(email), request).await?;
        expect_reply!(reply, Reply::Owner(view) => view)
    }

    /// Who signed in with this access token.
    pub async fn admit_owner(&self, owner: OwnerId, access: TokenHash) -> Result<OwnerView, Refusal> {
        let reply = self.ask_owner(owner, OwnerRequest::Admit(access)).await?;
        expect_reply!(reply, Reply::Owner(view) => view)
    }

    /// Replaces a pair of tokens; what the valid new ones follow from, which is not `seed` if somebody was faster.
    pub async fn refresh_owner(
        &self,
        owner: OwnerId,
        old: TokenHash,
        seed: [u8; 32],
        next: Pair,
    ) -> Result<[u8; 32], Refusal> {
        let reply = self.ask_owner(owner, OwnerRequest::Refresh { old, seed, next }).await?;
        expect_reply!(reply, Reply::Seed(seed) => seed)
    }

    /// Ends the sign-in that one of these tokens belongs to, if there is one.
    pub async fn sign_out(&self, owner: OwnerId, tokens: Vec<TokenHash>) -> Result<(), Refusal> {
        self.ask_owner(owner, OwnerRequest::SignOut(tokens)).await.map(drop)
    }

    /// Ends all sign-ins of an owner; how many there were.
    pub async fn sign_out_all(&self, owner: OwnerId, access: TokenHash) -> Result<u32, Refusal> {
        let reply = self.ask_owner(owner, OwnerRequest::SignOutAll(access)).await?;
        expect_reply!(reply, Reply::SignedOut(count) => count)
    }

    /// Makes an owner the owner of an agent whose key it has shown.
    pub async fn claim(&self, agent: AgentId, attempt: ClaimAttempt) -> Result<Arc<AgentRow>, Refusal> {
        self.change_account(agent, AgentRequest::Claim(Box::new(attempt))).await
    }

    /// Gives an agent up.
    pub async fn release(&self, agent: AgentId, owner: OwnerId) -> Result<(), Refusal> {
        self.change_account(agent, AgentRequest::Release(owner)).await.map(drop)
    }

    /// Its owner pauses an agent, or ends that.
    pub async fn pause_owned(&self, agent: AgentId, owner: OwnerId, pause: Pause) -> Result<Arc<AgentRow>, Refusal> {
        self.change_account(agent, AgentRequest::SetPause(Some(owner), pause)).await
    }

    /// Registers a dashboard socket of a sign-in; see [`Domain::attach`] for the receiver.
    pub async fn watch(&self, owner: OwnerId, sign_in: u64) -> Result<(SessionId, mpsc::Receiver<ToSession>), Refusal> {
        let shard = self.node.region.shard_of(owner.0.as_bytes());
        let (socket, frames) = self.node.sessions.open(Holder::Owner(owner, sign_in), shard, SESSION_QUEUE);
        let (session, known) = (socket.session, self.node.present(shard));
        match self.ask_owner(owner, OwnerRequest::Watch(sign_in, session)).await {
            Ok(_) => {
                // Without a way before, or with another one now, the registrar does it again.
                self.node.sessions.registered(session, known.unwrap_or(Known::default()));
                self.node.routes.touch_if(known != self.node.present(shard));
                Ok((session, frames))
            }
            Err(refusal) => {
                self.not_attached(EntityId::Owner(owner), session, &refusal);
                Err(refusal)
            }
        }
    }

    /// A dashboard socket is gone.
    pub fn unwatch(&self, owner: OwnerId, session: SessionId) {
        self.node.let_go(EntityId::Owner(owner), session);
    }
}
