//! The owner's view of the agents that belong to them.

pub mod pages;
