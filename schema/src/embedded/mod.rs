//! The store of one node: our own log for durability (`wal`), an LSM tree without a journal as the index.
//!
//! E1  A batch enters the tree only after its frame is synced, and is answered only after it is visible.
//! E2  Readers use our own `visible` counter. The tree raises its own when it installs tables, in the middle of a
//!     batch; were readers to use that one, they would see half a batch.
//! E3  A log segment goes away only after a flush wrote everything it holds into tables.

mod wal;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use fs4::fs_std::FileExt;
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, Guard, SequenceNumberCounter};

use self::wal::{AppendError, Faults, Segment};
use crate::kv::{Direction, Engine, KvOp, KvStore, Pairs};
use crate::store::{Done, StoreError};

/// Most batches that wait for the committer: some seconds of its work.
const QUEUE_BATCHES_MAX: usize = 65_536;
/// Most bytes that wait for the committer.
const QUEUE_BYTES_MAX: usize = 128 << 20;
/// Most bytes in one sync, so that its latency stays bounded.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Size at which a segment is closed and its memtable flushed.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Closed segments that may wait for a flush before writes are refused: they are in memory too.
const UNFLUSHED_MAX: u64 = 6;
/// Pause before a failed flush is tried again.
const FLUSH_RETRY: Duration = Duration::from_secs(1);

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Memory for blocks of tables.
    pub cache_bytes: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20 }
    }
}

/// Why a directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works here.
    #[error("{} is in use by another process; stop that one, or set a different data directory", .0.display())]
    InUse(PathBuf),
    /// Stored bytes were damaged after they were synced.
    #[error("{} is damaged at offset {offset}; restore the directory from a backup", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// First bad byte.
        offset: u64,
    },
    /// The index cannot be read.
    #[error("index in {} does not open: {reason}", dir.display())]
    Index {
        /// Its directory.
        dir: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot use {}: {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl OpenError {
    fn io(dir: &Path, source: io::Error) -> Self {
        Self::Io { dir: dir.to_owned(), source }
    }
}

/// The store of one node.
pub type EmbeddedStore = KvStore<EmbeddedEngine>;

/// Log, index and the two threads that feed them.
pub struct EmbeddedEngine {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Job {
    payloads: Vec<Vec<u8>>,
    batches: Vec<Vec<KvOp>>,
    bytes: usize,
    done: Done,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    batches: usize,
    bytes: usize,
    closed: bool,
}

struct Shared {
    dir: PathBuf,
    tree: AnyTree,
    seqno: SequenceNumberCounter,
    /// Reads see what is below (E2).
    visible: AtomicU64,
    /// Held shared by each read and exclusively while a flush picks its watermark: no reader is below it.
    readers: RwLock<()>,
    queue: Mutex<Queue>,
    wake: Condvar,
    unflushed: AtomicU64,
    faults: Arc<Faults>,
    /// Kept open for its lock; given up when the threads have ended.
    lock: Mutex<Option<File>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EmbeddedStore {
    /// Opens or creates the store in `dir`, replaying what the log holds beyond the index.
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, OpenError> {
        Self::open_with(dir, options, Arc::default())
    }

    fn open_with(dir: &Path, options: EmbeddedOptions, faults: Arc<Faults>) -> Result<Self, OpenError> {
        let io = |e| OpenError::io(dir, e);
        let log = dir.join("log");
        std::fs::create_dir_all(&log).and_then(|()| wal::sync_dir(dir)).map_err(io)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("LOCK")).map_err(io)?;
        if !FileExt::try_lock_exclusive(&lock).map_err(io)? {
            return Err(OpenError::InUse(dir.to_owned()));
        }
        let seqno = SequenceNumberCounter::default();
        let index = |e: lsm_tree::Error| OpenError::Index { dir: dir.to_owned(), reason: e.to_string() };
        let tree = Config::new(dir.join("index"), seqno.clone(), SequenceNumberCounter::default())
            .use_cache(Arc::new(Cache::with_capacity_bytes(options.cache_bytes)))
            .open()
            .map_err(index)?;
        seqno.set(tree.get_highest_persisted_seqno().map_or(1, |highest| highest + 1));
        let (number, before) = wal::replay(&log, &mut |payload| match decode(payload) {
            Some(ops) => {
                insert(&tree, ops, seqno.next());
                true
            }
            None => false,
        })?;
        let segment = Segment::create(&log, number + 1, before, &faults).map_err(io)?;
        let shared = Arc::new(Shared {
            dir: log,
            visible: AtomicU64::new(seqno.get()),
            tree,
            seqno,
            readers: RwLock::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            unflushed: AtomicU64::new(0),
            faults,
            lock: Mutex::new(Some(lock)),
        });
        let (flush, flushes) = channel();
        shared.rotate(segment.number, &flush);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(io)
        };
        let (committer, flusher) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            spawn("store-flush", Box::new(move || flusher.flush_loop(&flushes)))?,
            spawn("store-commit", Box::new(move || committer.commit_loop(segment, &flush)))?,
        ];
        Ok(Self::over(EmbeddedEngine { shared, threads: Mutex::new(threads) }))
    }
}

fn insert(tree: &AnyTree, ops: Vec<KvOp>, seqno: u64) {
    for op in ops {
        match op {
            KvOp::Put(key, value) => tree.insert(key, value, seqno),
            KvOp::Remove(key) => tree.remove(key, seqno),
        };
    }
}

/// Payload of a frame: per change `put or remove u8 | key length u32 | value length u32 | key | value`.
fn encode(ops: &[KvOp]) -> Vec<u8> {
    let mut payload = Vec::new();
    for op in ops {
        let (tag, key, value) = match op {
            KvOp::Put(key, value) => (1u8, key, value.as_slice()),
            KvOp::Remove(key) => (0u8, key, [].as_slice()),
        };
        payload.push(tag);
        payload.extend_from_slice(&(key.len() as u32).to_le_bytes());
        payload.extend_from_slice(&(value.len() as u32).to_le_bytes());
        payload.extend_from_slice(key);
        payload.extend_from_slice(value);
    }
    payload
}

fn decode(mut rest: &[u8]) -> Option<Vec<KvOp>> {
    let mut ops = Vec::new();
    while let Some((tag, tail)) = rest.split_first() {
        let (key_len, tail) = tail.split_first_chunk::<4>()?;
        let (value_len, tail) = tail.split_first_chunk::<4>()?;
        let (key, tail) = tail.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        let (value, tail) = tail.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
        ops.push(if *tag == 1 { KvOp::Put(key.to_vec(), value.to_vec()) } else { KvOp::Remove(key.to_vec()) });
        rest = tail;
    }
    Some(ops)
}

fn unavailable(reason: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(reason.to_string())
}

fn read_error(error: lsm_tree::Error) -> StoreError {
    match error {
        lsm_tree::Error::Io(e) => unavailable(e),
        other => StoreError::Corrupt(other.to_string()),
    }
}

impl Shared {
    /// Seals the memtable; segments below `number` go once it is in tables.
    fn rotate(&self, number: u64, flush: &Sender<u64>) {
        self.tree.rotate_memtable();
        self.unflushed.fetch_add(1, Ordering::Relaxed);
        // The flusher ends only after the committer dropped its sender.
        let _ = flush.send(number);
    }

    /// Next group of jobs, or `None` when closed and empty.
    fn next_group(&self) -> Option<Vec<Job>> {
        let mut queue = held(&self.queue);
        while queue.jobs.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while queue.jobs.front().is_some_and(|job| group.is_empty() || bytes + job.bytes <= GROUP_BYTES_MAX) {
            let Some(job) = queue.jobs.pop_front() else { break };
            bytes += job.bytes;
            queue.batches -= job.batches.len();
            group.push(job);
        }
        queue.bytes -= bytes;
        Some(group)
    }

    fn commit_loop(&self, mut segment: Segment, flush: &Sender<u64>) {
        let _closes = CloseOnExit(self);
        while let Some(group) = self.next_group() {
            if (segment.abandoned || segment.synced >= SEGMENT_BYTES)
                && let Err(error) = self.next_segment(&mut segment, flush)
            {
                tracing::error!(%error, "no new log segment; writes are refused");
                fail(group, &unavailable(error));
                continue;
            }
            // One frame per group: pages of an unsynced group reach the disk in any order, so a tear may lie
            // anywhere in it, and must not look like damage in front of a good frame.
            let payload: Vec<u8> = group.iter().flat_map(|job| job.payloads.iter().flatten().copied()).collect();
            match segment.append(&payload, &self.faults) {
                Ok(()) => self.publish(group),
                Err(AppendError::NotWritten(error)) => {
                    tracing::error!(%error, "log write failed; nothing of it is kept");
                    fail(group, &unavailable(error));
                }
                Err(AppendError::Unknown(error)) => {
                    tracing::error!(%error, "log sync failed; outcome of the group is unknown");
                    fail(group, &StoreError::Timeout);
                }
            }
        }
    }

    fn next_segment(&self, segment: &mut Segment, flush: &Sender<u64>) -> io::Result<()> {
        // Until the next segment exists nothing more goes into this one: a failed attempt may have left a header on
        // disk that fixes this one's length (L1), and what came after it would not be replayed.
        segment.abandoned = true;
        *segment = Segment::create(&self.dir, segment.number + 1, segment.synced, &self.faults)?;
        self.rotate(segment.number, flush);
        Ok(())
    }

    fn publish(&self, group: Vec<Job>) {
        for job in group {
            let count = job.batches.len();
            for ops in job.batches {
                let seqno = self.seqno.next();
                insert(&self.tree, ops, seqno);
                self.visible.store(seqno + 1, Ordering::Release);
            }
            (job.done)(vec![Ok(()); count]);
        }
    }

    fn flush_loop(&self, flushes: &Receiver<u64>) {
        let (mut below, mut waiting) = (None, 0);
        loop {
            let wait = if below.is_some() { FLUSH_RETRY } else { Duration::from_secs(3600) };
            match flushes.recv_timeout(wait) {
                Ok(number) => {
                    below = Some(number);
                    waiting += 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(number) = below else { continue };
            match self.flush_below(number) {
                Ok(()) => {
                    self.unflushed.fetch_sub(waiting, Ordering::Relaxed);
                    (below, waiting) = (None, 0);
                }
                Err(error) => tracing::error!(%error, "flush failed; the log is kept and it is tried again"),
            }
        }
    }

    fn flush_below(&self, number: u64) -> Result<(), String> {
        let watermark = {
            let _no_readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
            self.visible.load(Ordering::Acquire)
        };
        self.tree.flush(&self.tree.get_flush_lock(), watermark).map_err(|e| e.to_string())?;
        wal::remove_below(&self.dir, number).map_err(|e| e.to_string())?;
        if let Err(error) = self.tree.compact(Arc::new(lsm_tree::compaction::Leveled::default()), watermark) {
            tracing::error!(%error, "compaction failed; reads stay correct and get slower");
        }
        Ok(())
    }
}

/// Answers what waits when the committer ends, also by a panic: nobody waits for a thread that is gone.
struct CloseOnExit<'a>(&'a Shared);

impl Drop for CloseOnExit<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut queue = held(&self.0.queue);
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        fail(waiting.into(), &unavailable("committer ended"));
    }
}

fn fail(group: Vec<Job>, error: &StoreError) {
    for job in group {
        (job.done)(vec![Err(error.clone()); job.batches.len()]);
    }
}

impl EmbeddedEngine {
    /// Ends both threads after the queue is empty, then gives up the lock.
    fn stop(shared: &Shared, threads: Vec<JoinHandle<()>>) -> Result<(), StoreError> {
        held(&shared.queue).closed = true;
        shared.wake.notify_all();
        let mut outcome = Ok(());
        for thread in threads.into_iter().rev() {
            if thread.join().is_err() {
                outcome = Err(unavailable("a store thread panicked"));
            }
        }
        held(&shared.lock).take();
        outcome
    }
}

impl Drop for EmbeddedEngine {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut *held(&self.threads));
        if let Err(error) = Self::stop(&self.shared, threads) {
            tracing::error!(%error, "store did not stop cleanly");
        }
    }
}

#[async_trait]
impl Engine for EmbeddedEngine {
    fn apply(&self, batches: Vec<Vec<KvOp>>, done: Done) {
        let payloads: Vec<Vec<u8>> = batches.iter().map(|ops| encode(ops)).collect();
        let (count, bytes) = (batches.len(), payloads.iter().map(Vec::len).sum());
        let mut queue = held(&self.shared.queue);
        let refusal = if queue.closed {
            Some("store is closed")
        } else if queue.batches + count > QUEUE_BATCHES_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            Some("write queue is full")
        } else if self.shared.unflushed.load(Ordering::Relaxed) > UNFLUSHED_MAX {
            Some("flush is behind")
        } else {
            None
        };
        if let Some(reason) = refusal {
            drop(queue);
            return done(vec![Err(unavailable(reason)); count]);
        }
        queue.batches += count;
        queue.bytes += bytes;
        queue.jobs.push_back(Job { payloads, batches, bytes, done });
        drop(queue);
        self.shared.wake.notify_one();
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let _reading = self.shared.readers.read().unwrap_or_else(PoisonError::into_inner);
        let seqno = self.shared.visible.load(Ordering::Acquire);
        Ok(self.shared.tree.get(key, seqno).map_err(read_error)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], through: &[u8], limit: usize, direction: Direction) -> Result<Pairs, StoreError> {
        let _reading = self.shared.readers.read().unwrap_or_else(PoisonError::into_inner);
        let seqno = self.shared.visible.load(Ordering::Acquire);
        let range = (Bound::Included(from), Bound::Included(through));
        let range = self.shared.tree.range::<&[u8], _>(range, seqno, None);
        let pair = |item: lsm_tree::IterGuardImpl| {
            item.into_inner().map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(read_error)
        };
        match direction {
            Direction::Up => range.take(limit).map(pair).collect(),
            Direction::Down => range.rev().take(limit).map(pair).collect(),
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        let threads = std::mem::take(&mut *held(&self.threads));
        let shared = Arc::clone(&self.shared);
        let stopped = tokio::task::spawn_blocking(move || Self::stop(&shared, threads)).await;
        stopped.unwrap_or_else(|e| Err(unavailable(e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &EmbeddedStore, key: u8, len: usize) -> Result<(), StoreError> {
        let (tx, rx) = channel();
        let ops = vec![KvOp::Put(vec![key], vec![key; len]), KvOp::Put(vec![key, 0], vec![1])];
        store.engine.apply(vec![ops], Box::new(move |outcome| drop(tx.send(outcome))));
        rx.recv().expect("answered").remove(0)
    }

    fn has(store: &EmbeddedStore, key: u8) -> bool {
        let halves = [vec![key], vec![key, 0]].map(|key| store.engine.get(&key).expect("readable").is_some());
        assert_eq!(halves[0], halves[1], "W1");
        halves[0]
    }

    fn open(dir: &Path) -> Result<EmbeddedStore, OpenError> {
        EmbeddedStore::open(dir, EmbeddedOptions { cache_bytes: 1 << 20 })
    }

    /// The newest log segment and its bytes.
    fn newest(dir: &Path) -> (PathBuf, Vec<u8>) {
        let log = std::fs::read_dir(dir.join("log")).expect("log");
        let file = log.map(|entry| entry.expect("entry").path()).max().expect("a segment");
        let bytes = std::fs::read(&file).expect("bytes");
        (file, bytes)
    }

    #[test]
    fn faults_are_answered_and_lose_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let faults = Arc::new(Faults::default());
        let options = EmbeddedOptions { cache_bytes: 1 << 20 };
        let store = EmbeddedStore::open_with(dir.path(), options, Arc::clone(&faults)).expect("opens");
        assert_eq!(put(&store, 1, 300), Ok(()));
        faults.no_space.store(true, Ordering::Relaxed);
        assert!(matches!(put(&store, 2, 300), Err(StoreError::Unavailable(_))));
        faults.no_space.store(false, Ordering::Relaxed);
        assert_eq!(put(&store, 3, 300), Ok(()));
        faults.sync_fails.store(true, Ordering::Relaxed);
        assert_eq!(put(&store, 4, 300), Err(StoreError::Timeout));
        faults.sync_fails.store(false, Ordering::Relaxed);
        assert_eq!(put(&store, 5, 300), Ok(()));
        assert!(matches!(open(dir.path()), Err(OpenError::InUse(_))));
        drop(store);
        let store = open(dir.path()).expect("opens again");
        assert_eq!([1, 2, 3, 4, 5].map(|key| has(&store, key)), [true, false, true, false, true]);
    }

    #[test]
    fn a_torn_tail_costs_only_the_torn_group() {
        for (len, step) in [(300, 1), (16 << 10, 997)] {
            let dir = tempfile::tempdir().expect("dir");
            let store = open(dir.path()).expect("opens");
            assert_eq!(put(&store, 1, 300), Ok(()));
            let start = newest(dir.path()).1.len();
            assert_eq!(put(&store, 2, len), Ok(()));
            drop(store);
            let (file, whole) = newest(dir.path());
            for cut in (start..whole.len()).step_by(step) {
                let copy = tempfile::tempdir().expect("dir");
                std::fs::create_dir_all(copy.path().join("log")).expect("log");
                let name = file.file_name().expect("name");
                std::fs::write(copy.path().join("log").join(name), &whole[..cut]).expect("torn");
                let store = open(copy.path()).expect("a torn tail is no error");
                assert!(has(&store, 1) && !has(&store, 2), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_before_good_frames_is_corruption() {
        let dir = tempfile::tempdir().expect("dir");
        let store = open(dir.path()).expect("opens");
        let start = newest(dir.path()).1.len();
        assert_eq!((put(&store, 1, 300), put(&store, 2, 300)), (Ok(()), Ok(())));
        drop(store);
        let (file, mut bytes) = newest(dir.path());
        bytes[start + 40] ^= 1;
        std::fs::write(&file, bytes).expect("damaged");
        let outcome = open(dir.path()).map(drop);
        assert!(matches!(&outcome, Err(OpenError::Corrupt { offset, .. }) if *offset == start as u64), "{outcome:?}");
    }
}
