//! Starts and stops the shards of a node, and restarts one that failed. The default supervisor would stop with its first
//! child.
//!
//! V1  A node that is alone restarts a shard itself; in a cluster a failed shard is reported, and comes back under a new
//!     epoch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::shard::ShardId;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use schema::store::Fence;
use tokio::sync::oneshot;
use tracing::error;

use super::host::{ShardHost, Start, ToHost};
use crate::node::Node;

/// A shard that leaves has this long to come to rest; what is under way then is asked for again by whoever waits.
const LEAVE_PATIENCE: Duration = Duration::from_millis(1_500);

/// Supervises all shards of a node.
#[derive(Debug)]
pub struct Supervisor;

/// Which child hosts which shard.
#[derive(Debug)]
pub struct Children {
    node: Arc<Node>,
    shards: HashMap<ActorId, (Fence, ActorRef<ToHost>)>,
}

/// What a supervisor is told.
#[derive(Debug)]
pub enum Command {
    /// Host a shard under an epoch; answered when it is.
    Start(Fence, oneshot::Sender<()>),
    /// Let a shard come to rest and stop; answered when it has.
    Leave(ShardId, oneshot::Sender<()>),
    /// End all shards: they are not held any more.
    Abandon,
}

impl ractor::Message for Command {}

impl Actor for Supervisor {
    type Msg = Command;
    type State = Children;
    /// Whether the node is alone and hosts everything.
    type Arguments = (Arc<Node>, bool);

    async fn pre_start(
        &self,
        myself: ActorRef<Command>,
        (node, alone): Self::Arguments,
    ) -> Result<Children, ActorProcessingErr> {
        let mut children = Children { node: Arc::clone(&node), shards: HashMap::new() };
        if alone {
            for shard in 0..node.region.shards() {
                children.start(&myself, Fence { shard, epoch: 0 }, Start::First).await?;
            }
        }
        Ok(children)
    }

    async fn handle(
        &self,
        myself: ActorRef<Command>,
        command: Command,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        match command {
            Command::Start(fence, done) => {
                children.start(&myself, fence, Start::First).await?;
                let _ = done.send(()); // whoever asked may have given up
            }
            Command::Leave(shard, done) => {
                // One of an earlier epoch may still be on its way out.
                let of_shard = children.shards.values().filter(|(fence, _)| fence.shard == shard.0);
                let child = of_shard.max_by_key(|(fence, _)| fence.epoch);
                if let Some((fence, child)) = child {
                    tokio::spawn(leave(Arc::clone(&children.node), *fence, child.clone(), done));
                }
            }
            Command::Abandon => children.shards.values().for_each(|(_, child)| {
                let _ = child.cast(ToHost::Leave); // N4; it may have stopped by itself
            }),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Command>,
        event: SupervisionEvent,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(child, reason) => {
                if let Some((fence, _)) = children.shards.remove(&child.get_id()) {
                    error!(shard = fence.shard, %reason, "a shard failed and is started again");
                    metrics::counter!(crate::metrics::SHARD_RESTARTS).increment(1);
                    children.failed(&myself, fence).await?;
                }
            }
            SupervisionEvent::ActorTerminated(child, ..) => {
                if let Some((fence, _)) = children.shards.remove(&child.get_id()) {
                    children.node.region.remove(ShardId(fence.shard), fence.epoch);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

async fn leave(node: Arc<Node>, fence: Fence, child: ActorRef<ToHost>, done: oneshot::Sender<()>) {
    let _ = child.cast(ToHost::Leave); // it may have stopped by itself
    let _ = child.wait(Some(LEAVE_PATIENCE)).await; // whatever it does after that is fenced
    node.region.remove(ShardId(fence.shard), fence.epoch);
    let _ = done.send(());
}

impl Children {
    async fn start(
        &mut self,
        myself: &ActorRef<Command>,
        fence: Fence,
        start: Start,
    ) -> Result<(), ActorProcessingErr> {
        let arguments = (fence, Arc::clone(&self.node), start);
        let (child, _): (ActorRef<ToHost>, _) =
            Actor::spawn_linked(None, ShardHost, arguments, myself.get_cell()).await?;
        self.shards.insert(child.get_id(), (fence, child));
        Ok(())
    }

    /// V1.
    async fn failed(&mut self, myself: &ActorRef<Command>, fence: Fence) -> Result<(), ActorProcessingErr> {
        self.node.region.remove(ShardId(fence.shard), fence.epoch);
        match &self.node.failures {
            Some(failures) => {
                failures.wake();
                Ok(())
            }
            None => self.start(myself, fence, Start::Again).await,
        }
    }
}
