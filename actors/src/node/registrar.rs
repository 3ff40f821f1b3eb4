//! Keeps the owners of agents right about the sockets of this node: registers those that live with whoever owns their
//! agents now, without their clients noticing, and has those that are gone forgotten (`sessions`: Q3, Q5).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::Node;
use super::sessions::{Gone, Holder, Known, Registration};
use crate::agent::events::{AgentEvent, AgentRequest};
use crate::api::{CloseReason, Refusal};
use crate::effects::{EntityId, Event};
use crate::owner::events::{OwnerEvent, OwnerRequest};

/// Registrations under way.
const AT_ONCE: usize = 256;
/// Pause before those that failed are tried again although no route changed.
const AGAIN: Duration = Duration::from_millis(200);
/// An owner that does not say so soon that it has forgotten a socket is asked again with the others, which wait meanwhile.
const FORGETS_WITHIN: Duration = Duration::from_secs(2);

/// Works until the node's routes are gone.
pub async fn keep_registered(node: Arc<Node>) {
    let mut changes = node.routes.changes();
    loop {
        changes.mark_unchanged();
        let unknown = node.sessions.unknown(|shard| node.present(shard));
        if unknown.is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        tracing::info!(sockets = unknown.len(), "sockets are registered with the new owners of their agents");
        stream::iter(unknown).for_each_concurrent(AT_ONCE, |(socket, known)| register(&node, socket, known)).await;
        let _ = tokio::time::timeout(AGAIN, changes.changed()).await;
    }
}

async fn register(node: &Node, socket: Registration, known: Known) {
    let Some(session) = node.sessions.renew(socket.session) else { return };
    let open = node.ports.open();
    let event = match socket.holder {
        Holder::Agent(who, mode) => {
            let attach = AgentRequest::Attach(who.key, session, mode);
            Event::Agent(who.agent, AgentEvent::Request(open.port, attach))
        }
        Holder::Owner(owner, sign_in) => {
            let watch = OwnerRequest::Watch(sign_in, session);
            Event::Owner(owner, OwnerEvent::Request(open.port, Box::new(watch)))
        }
    };
    match node.ask(&open, event).await {
        // Should the owner have changed meanwhile, then what is noted here differs from it, and it is done again.
        Ok(_) => {
            if !node.sessions.registered(session, known) {
                node.let_go(whose(socket.holder), session); // it closed meanwhile, and an owner before this one was told
            }
        }
        Err(Refusal::Unauthorized) => node.sessions.end(session, CloseReason::KeyRevoked),
        Err(Refusal::Suspended) => node.sessions.end(session, CloseReason::Suspended),
        Err(refusal) => tracing::debug!(%refusal, "a socket could not be registered yet"),
    }
}

fn whose(holder: Holder) -> EntityId {
    match holder {
        Holder::Agent(who, _) => EntityId::Agent(who.agent),
        Holder::Owner(owner, _) => EntityId::Owner(owner),
    }
}

/// Has sockets that are gone forgotten, each until the present owner of its entity has answered (Q5). Works until the
/// node's routes are gone.
pub async fn keep_told(node: Arc<Node>) {
    let mut changes = node.routes.changes();
    loop {
        changes.mark_unchanged();
        let untold = node.sessions.untold(|shard| node.present(shard).is_some());
        if untold.is_empty() {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = node.sessions.next_gone() => {}
            }
            continue;
        }
        stream::iter(untold).for_each_concurrent(AT_ONCE, |gone| forget(&node, gone)).await;
        let _ = tokio::time::timeout(AGAIN, changes.changed()).await; // more may go in the meantime, and share a round
    }
}

async fn forget(node: &Node, gone: Gone) {
    let open = node.ports.open();
    let event = match gone.whose {
        EntityId::Agent(agent) => {
            Event::Agent(agent, AgentEvent::Request(open.port, AgentRequest::Forget(gone.session)))
        }
        EntityId::Owner(owner) => {
            Event::Owner(owner, OwnerEvent::Request(open.port, Box::new(OwnerRequest::Forget(gone.session))))
        }
        EntityId::Conversation(_) => return node.sessions.told(&gone), // it has none
    };
    match tokio::time::timeout(FORGETS_WITHIN, node.ask(&open, event)).await {
        Err(_) | Ok(Err(Refusal::Unavailable | Refusal::TimedOut)) => {
            tracing::debug!("the owner of a socket that is gone could not be asked yet");
        }
        Ok(_) => node.sessions.told(&gone),
    }
}
