//! The way to other nodes, behind a small trait: a server has links, a node that is alone has nobody.

use crate::routes::NodeId;

/// Carries messages to other nodes, in order while a generation lasts, each at most once.
pub trait Peers<M>: Send + Sync + 'static {
    /// Queues a message, or gives it back: there is no way, or its queue is full.
    fn send(&self, to: NodeId, message: M) -> Result<(), M>;

    /// Which connection it is: changes whenever something sent may be lost. 0: there is none.
    fn generation(&self, to: NodeId) -> u64;
}

/// Takes what other nodes send.
pub trait Receiver<M>: Send + Sync + 'static {
    /// A message from a peer that has shown who it is.
    fn receive(&self, message: M);

    /// The way to a peer is gone: what was under way may be lost.
    fn lost(&self, peer: NodeId);
}

/// No peers at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl<M> Peers<M> for Nobody {
    fn send(&self, _: NodeId, message: M) -> Result<(), M> {
        Err(message)
    }

    fn generation(&self, _: NodeId) -> u64 {
        0
    }
}
