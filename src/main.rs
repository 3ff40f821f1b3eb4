//! AgentChat server.
fn main() {}
