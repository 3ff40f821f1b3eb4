//! What is stored and how: identifiers, rows, the store contract and the engines that keep it.
//!
//! Owns every byte on disk. Knows no actor, no JSON and no client. See [`store::Store`] for the contract that
//! every engine keeps; `tests/conformance` is the same text as tests.

pub mod cql;
pub mod embedded;
pub mod ids;
mod kv;
pub mod memory;
pub mod metrics;
pub mod ownership;
pub mod rows;
pub mod store;

pub use kv::check::CheckReport;
