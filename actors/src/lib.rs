//! The domain: agents, conversations and owners as state machines without I/O, hosted by one actor per shard.
//!
//! `agent`, `conversation` and `owner` decide; `shard` activates, passivates and carries effects out; `domain` is the door for
//! the gateway; `node` finds entities, requests and sockets wherever they are. Knows no JSON (but the content of messages it writes itself), no socket and no database driver.

pub mod agent;
pub mod api;
mod compact;
pub mod conversation;
pub mod domain;
pub mod effects;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod owner;
pub mod shard;
mod writer;
