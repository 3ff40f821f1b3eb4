//! What nodes tell each other about entities, requests and sockets.

use serde::{Deserialize, Serialize};

use crate::api::{Refusal, SessionId, ToSession};
use crate::effects::{Event, Reply};

/// One message between nodes.
#[derive(Debug, Serialize, Deserialize)]
pub enum Wire {
    /// For an entity whose shard the receiver owns under this epoch.
    Event {
        /// Of the owner that the sender means.
        epoch: u64,
        /// What happens.
        event: Box<Event>,
    },
    /// A request that met no owner.
    Returned(Box<Event>),
    /// The answer to a request of the receiver's gateway.
    Answer(u64, Box<Result<Reply, Refusal>>),
    /// A frame for one of the receiver's sockets.
    Push {
        /// Which.
        session: SessionId,
        /// Under which the sender owns the socket's agent.
        epoch: u64,
        /// What to show.
        frame: Box<ToSession>,
    },
}

#[cfg(test)]
mod tests {
    use cluster::routes::NodeId;
    use schema::ids::{AgentId, Key};

    use super::*;
    use crate::agent::events::{AgentEvent, AgentRequest};
    use crate::api::ProfilePatch;
    use crate::effects::Port;

    #[test]
    fn a_cleared_field_is_not_an_absent_one_when_it_arrives() {
        let patch = ProfilePatch { description: Some(None), avatar_key: Some(Some("a".into())), ..Default::default() };
        let port = Port { node: NodeId(1), number: 2 };
        let request = AgentRequest::UpdateProfile(Box::new(patch.clone()));
        let event = Event::Agent(AgentId(Key::from_bytes([b'1'; 16])), AgentEvent::Request(port, request));
        let bytes = rmp_serde::to_vec(&Wire::Event { epoch: 3, event: Box::new(event) }).expect("encodes");
        let Ok(Wire::Event { epoch: 3, event }) = rmp_serde::from_slice(&bytes) else { panic!("{bytes:?}") };
        let Event::Agent(_, AgentEvent::Request(at, AgentRequest::UpdateProfile(arrived))) = *event else {
            panic!("another event")
        };
        assert_eq!((at, *arrived), (port, patch));
    }

    #[test]
    fn what_only_a_shard_tells_its_entities_does_not_travel() {
        let event = Event::Agent(AgentId(Key::from_bytes([b'1'; 16])), AgentEvent::Stored(Ok(())));
        assert!(rmp_serde::to_vec(&event).is_err());
    }
}
