//! The published contract: bodies, error envelope, shapes. The only client-facing JSON lives here.
//!
//! Owns names and shapes; decides nothing. `http` and `ws` serialise these types, `queries` fills them.

pub mod account;
pub mod content;
pub mod conversation;
pub mod error;
pub mod fields;
pub mod group;
pub mod json;
pub mod mentions;
pub mod message;
pub mod social;
pub mod time;
pub mod urls;
