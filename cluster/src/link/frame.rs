//! What one batch looks like on the wire.

use serde::{Deserialize, Serialize};

use crate::routes::{NodeId, Route};
use crate::shard::ShardId;

/// Of frames and what they carry. Nodes of different versions do not talk.
pub const VERSION: u16 = 1;

/// One message.
#[derive(Debug, Serialize, Deserialize)]
pub enum Envelope<M> {
    /// For the receiver's part of the domain.
    Message(M),
    /// Who owns shards.
    News(Vec<(ShardId, Route)>),
    /// Look at the tables soon.
    Nudge,
    /// Look at these groups of shards: some were given to the receiver.
    Given(Vec<u32>),
}

/// A batch; an empty one says only that its sender lives and what it has received.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Frame<M> {
    pub(super) version: u16,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    /// The sender's number for this generation of the link; rises.
    pub(super) connection: u64,
    /// Of the batch, from 1; an empty frame repeats the last one's.
    pub(super) number: u64,
    /// Last batch received, and in which generation, by the receiver's number.
    pub(super) received: (u64, u64),
    pub(super) messages: Vec<Envelope<M>>,
}
