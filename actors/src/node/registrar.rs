//! Registers the sockets of this node with whoever owns their agents now, without their clients noticing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::Node;
use super::sessions::{Holder, Known, Registration};
use crate::agent::events::{AgentEvent, AgentRequest};
use crate::api::{CloseReason, Refusal, SessionId};
use crate::effects::Event;
use crate::owner::events::{OwnerEvent, OwnerRequest};

/// Registrations under way.
const AT_ONCE: usize = 256;
/// Pause before those that failed are tried again although no route changed.
const AGAIN: Duration = Duration::from_millis(200);

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
                node.tell(gone(socket.holder, session)); // it closed meanwhile, and that was told to an owner before this one
            }
        }
        Err(Refusal::Unauthorized) => node.sessions.end(session, CloseReason::KeyRevoked),
        Err(Refusal::Suspended) => node.sessions.end(session, CloseReason::Suspended),
        Err(refusal) => tracing::debug!(%refusal, "a socket could not be registered yet"),
    }
}

/// What an owner is told of a socket that is gone.
fn gone(holder: Holder, session: SessionId) -> Event {
    match holder {
        Holder::Agent(who, _) => Event::Agent(who.agent, AgentEvent::Detach(session)),
        Holder::Owner(owner, _) => Event::Owner(owner, OwnerEvent::Detach(session)),
    }
}
