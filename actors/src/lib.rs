//! The domain: agents and conversations as state machines, hosted by shard actors.
