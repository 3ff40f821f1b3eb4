//! Where an entity lives: shards and the region that reaches them.
