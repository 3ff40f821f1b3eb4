//! Requests of this node's gateway that wait for an answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cluster::routes::NodeId;
use tokio::sync::oneshot;

use crate::api::Refusal;
use crate::effects::{Event, Port, Reply};

/// What became of a request.
#[derive(Debug)]
pub enum Answer {
    /// The entity answered.
    Reply(Result<Reply, Refusal>),
    /// It went to a node that is not the owner (any more): nothing happened.
    Returned(Box<Event>),
    /// The way to the node that has it is gone: the outcome is unknown.
    Lost,
}

#[derive(Debug)]
struct Waiting {
    at: Option<NodeId>,
    sender: oneshot::Sender<Answer>,
}

/// Requests that wait for an answer.
#[derive(Debug)]
pub struct Ports {
    node: NodeId,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

/// Closes its port when the request is over, whatever way.
#[derive(Debug)]
pub struct Open<'a> {
    /// Name of the port.
    pub port: Port,
    ports: &'a Ports,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.ports.waiting().remove(&self.port.number);
    }
}

impl Ports {
    /// None yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, next: AtomicU64::new(0), waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new port.
    pub fn open(&self) -> Open<'_> {
        let port = Port { node: self.node, number: self.next.fetch_add(1, Ordering::Relaxed) };
        Open { port, ports: self }
    }

    /// Where the answer of a request arrives that is sent now, to another node or to a shard here.
    pub fn wait(&self, port: Port, at: Option<NodeId>) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(port.number, Waiting { at, sender });
        receiver
    }

    /// Ends the wait of a request, unless it has ended.
    pub fn answer(&self, number: u64, answer: Answer) {
        let waiting = self.waiting().remove(&number);
        if let Some(waiting) = waiting {
            let _ = waiting.sender.send(answer); // the request may have been dropped with its connection
        }
    }

    /// Ends the waits of everything that a node has.
    pub fn lost(&self, node: NodeId) {
        let lost: Vec<Waiting> =
            self.waiting().extract_if(|_, waiting| waiting.at == Some(node)).map(|(_, waiting)| waiting).collect();
        for waiting in lost {
            let _ = waiting.sender.send(Answer::Lost);
        }
    }
}
