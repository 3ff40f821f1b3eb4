//! Starts the shards of a node and restarts one that failed. The default supervisor would stop with its first child.

use std::collections::HashMap;
use std::sync::Arc;

use cluster::shard::ShardId;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tracing::error;

use super::ShardEvent;
use super::host::{Node, ShardHost, Start};

/// Supervises all shards of a node.
#[derive(Debug)]
pub struct Supervisor;

/// Which child hosts which shard.
#[derive(Debug)]
pub struct Children {
    node: Arc<Node>,
    shards: HashMap<ActorId, ShardId>,
}

/// The supervisor takes no messages.
#[derive(Debug)]
pub enum Nothing {}

impl Actor for Supervisor {
    type Msg = Nothing;
    type State = Children;
    type Arguments = Arc<Node>;

    async fn pre_start(&self, myself: ActorRef<Nothing>, node: Arc<Node>) -> Result<Children, ActorProcessingErr> {
        let mut children = Children { node: Arc::clone(&node), shards: HashMap::new() };
        for shard in (0..node.region.shards()).map(ShardId) {
            children.start(&myself, shard, Start::First).await?;
        }
        Ok(children)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Nothing>,
        event: SupervisionEvent,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(child, reason) => {
                if let Some(shard) = children.shards.remove(&child.get_id()) {
                    error!(shard = shard.0, %reason, "a shard failed and is started again");
                    metrics::counter!("agentchat_shard_restarts_total").increment(1);
                    children.start(&myself, shard, Start::Again).await?;
                }
            }
            SupervisionEvent::ActorTerminated(child, ..) => {
                children.shards.remove(&child.get_id());
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl Children {
    async fn start(
        &mut self,
        myself: &ActorRef<Nothing>,
        shard: ShardId,
        start: Start,
    ) -> Result<(), ActorProcessingErr> {
        let arguments = (shard, Arc::clone(&self.node), start);
        let (child, _): (ActorRef<ShardEvent>, _) =
            Actor::spawn_linked(None, ShardHost, arguments, myself.get_cell()).await?;
        self.shards.insert(child.get_id(), shard);
        Ok(())
    }
}
