//! What waits for a shard: one queue beside the mailbox of its actor, which holds no more than one wake-up for all of it.
//!
//! Q1  Messages come out in the order in which they were put in, each once.
//! Q2  While something is inside, the actor has a wake-up before it or is at work: nothing stays behind.
//! Q3  What is put into a queue that is closed, or whose actor takes no wake-up any more, goes back at once.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Room that an empty queue keeps; what a burst needed beyond goes back.
const ROOM_KEPT: usize = 256;

/// The queue of one shard. What bounds it is what bounds a mailbox: requests are admitted, the rest was caused by them.
#[derive(Debug)]
pub(super) struct Queue<M>(Mutex<Inner<M>>);

#[derive(Debug)]
struct Inner<M> {
    messages: VecDeque<M>,
    /// The actor will look again by itself (Q2).
    awake: bool,
    closed: bool,
}

impl<M> Queue<M> {
    /// An empty one, whose actor sleeps.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner { messages: VecDeque::new(), awake: false, closed: false }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in, or gives it back (Q3). `wake` tells the actor, if it can be told; it must not block.
    pub(super) fn put(&self, message: M, wake: impl FnOnce() -> bool) -> Result<(), M> {
        let mut inner = self.inner();
        // Told under the lock: once the message is inside, another could not be taken back from behind it.
        if inner.closed || !(inner.awake || wake()) {
            return Err(message);
        }
        inner.awake = true;
        inner.messages.push_back(message);
        Ok(())
    }

    /// Moves the first messages, at most `most`, into `batch`. `false`: there were none, and the next one wakes the actor.
    pub(super) fn take(&self, batch: &mut VecDeque<M>, most: usize) -> bool {
        let mut inner = self.inner();
        let count = inner.messages.len().min(most);
        batch.extend(inner.messages.drain(..count));
        if inner.messages.is_empty() && inner.messages.capacity() > ROOM_KEPT {
            inner.messages.shrink_to(ROOM_KEPT);
        }
        inner.awake = count > 0;
        inner.awake
    }

    /// Takes nothing more (Q3).
    pub(super) fn close(&self) {
        self.inner().closed = true;
    }

    /// Whether it takes nothing more.
    pub(super) fn is_closed(&self) -> bool {
        self.inner().closed
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.inner().messages.len()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn one_wake_up_for_all_that_came_since_the_last_look() {
        let (queue, wakes, mut batch) = (Queue::new(), Cell::new(0), VecDeque::new());
        let put = |n: i32| queue.put(n, || wakes.replace(wakes.get() + 1) >= 0);
        (0..5).for_each(|n| assert_eq!(put(n), Ok(())));
        assert_eq!((queue.len(), wakes.get()), (5, 1));
        assert!(queue.take(&mut batch, 3));
        assert_eq!((put(5), wakes.get()), (Ok(()), 1), "at work");
        assert!(queue.take(&mut batch, 3));
        assert!(!queue.take(&mut batch, 3), "nothing left: asleep from here on");
        assert_eq!((put(6), wakes.get()), (Ok(()), 2));
        assert_eq!(batch, [0, 1, 2, 3, 4, 5], "Q1");
    }

    #[test]
    fn what_nobody_will_take_goes_back() {
        let (queue, mut batch) = (Queue::new(), VecDeque::new());
        assert_eq!(queue.put(1, || false), Err(1), "no actor");
        assert_eq!(queue.put(2, || true), Ok(()));
        queue.close();
        assert_eq!((queue.put(3, || true), queue.is_closed()), (Err(3), true));
        assert!(queue.take(&mut batch, 9));
        assert_eq!(batch, [2], "what was inside before comes out");
    }
}
