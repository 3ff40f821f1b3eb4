//! The store of one node: our own log for durability (`wal`), an LSM tree without a journal as the index.
//!
//! E1  A batch is visible only after its frame is synced, and is answered only after it is visible.
//! E2  What is not in tables is in memory (`runs`). A reader takes the runs first and the number up to which it reads
//!     the tree after them: runs that were forgotten before are in tables below that number.
//! E3  A log segment goes away only after a flush wrote everything it holds into tables.
//!
//! ```text
//!   submit: encodes > queue > committer: frame, sync > publisher: run, visible, answer > flusher: tables > compactor
//! ```
//!
//! Why our own log: acknowledged batches of five rows (1 KB) per second, each answered after its sync, as ratios to the
//! same disk's 4 KiB append with `fdatasync` (4,995/s), two cores, every candidate behind the same group commit:
//!
//! ```text
//!   clients   this engine   fjall 3   rocksdb 10.4   heed 0.22 (LMDB)   redb 3
//!         1          1.12      0.88           0.94               0.52     0.49
//!        64          7.46      7.00           7.72               2.25     1.98
//!       512          5.10      7.05           7.40               3.53     2.28
//! ```
//! Three are in one class (ours encodes domain rows in this run, the others write raw bytes). rocksdb costs a quarter of
//! an hour of C++ and libclang in every fresh build. fjall refuses to open after a torn tail inside a large value of an
//! unsynced batch; a tail that nobody was promised must never keep a node down. So: fjall's index, and our own log, whose
//! tail is cut off. Measured again by `cargo run --release --manifest-path schema/benches/candidates/Cargo.toml`.
//!
//! Why runs in front of the tables, and not the index's skip list, as when the table above was made: of 512 writers a
//! batch then cost 27.1 to 28.3 us of processor, and now 7.0 to 7.4, writers, flushes and compactions included (15 s,
//! `cargo bench -p schema --bench alone`).

mod codec;
mod commit;
mod compact;
mod flush;
mod probe;
mod publish;
mod runs;
mod scan;
mod snapshot;
mod wal;

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use async_trait::async_trait;
use fs4::fs_std::FileExt;
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, Guard, SequenceNumberCounter};

pub use self::probe::{Presence, free_bytes, probe};

use self::commit::{Job, Queue};
use self::compact::STEPS_MAX;
use self::publish::GROUPS_MAX;
use self::runs::{Memory, Run};
use self::wal::{Faults, Segment};
use crate::kv::local::{Engine, Local};
use crate::kv::{Direction, KvOp, KvStore, Pairs};
use crate::store::{Done, StoreError};

/// Size at which a segment is closed and its runs are flushed.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Memory for blocks of tables.
    pub cache_bytes: u64,
    /// Size at which a log segment is closed and what it holds is flushed.
    pub segment_bytes: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, segment_bytes: SEGMENT_BYTES }
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
pub type EmbeddedStore = KvStore<Local<EmbeddedEngine>>;

/// Log, index and the threads that feed them.
pub struct EmbeddedEngine {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    dir: PathBuf,
    tree: AnyTree,
    seqno: SequenceNumberCounter,
    /// What is visible and not in tables.
    memory: RwLock<Memory>,
    /// Held shared by each read and exclusively while a flush picks its watermark: no reader is below it.
    readers: RwLock<()>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Steps of the committer that the publisher has not finished.
    unpublished: AtomicU64,
    unflushed: AtomicU64,
    /// Flushes whose step of compaction is not done.
    unmerged: AtomicU64,
    /// The segment that is written, and how much of it is answered for (see `snapshot`).
    position: Mutex<(u64, u64)>,
    /// Held shared while files of the index and closed segments come and go, and exclusively while they are copied.
    files: RwLock<()>,
    segment_bytes: u64,
    faults: Arc<Faults>,
    /// Kept open for its lock; given up when the threads have ended.
    lock: Mutex<Option<File>>,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
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
        let mut memory = Memory::default();
        let (number, before) = wal::replay(&log, &mut |payload| {
            let run = Run::of(payload.to_vec(), 0);
            let whole = run.is_some();
            run.into_iter().for_each(|run| memory.push(run));
            memory.merge_due();
            whole
        })?;
        let segment = Segment::create(&log, number + 1, before, &faults).map_err(io)?;
        let shared = Arc::new(Shared {
            dir: log,
            memory: RwLock::new(memory),
            tree,
            seqno,
            readers: RwLock::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            unpublished: AtomicU64::new(0),
            unflushed: AtomicU64::new(0),
            unmerged: AtomicU64::new(0),
            position: Mutex::new((segment.number, segment.synced)),
            files: RwLock::default(),
            segment_bytes: options.segment_bytes,
            faults,
            lock: Mutex::new(Some(lock)),
        });
        let (flush, flushes) = channel();
        let (publish, steps) = sync_channel(GROUPS_MAX);
        shared.rotate(segment.number, &flush);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(io)
        };
        let (compact, compactions) = sync_channel(STEPS_MAX);
        let (merge, merges) = sync_channel(1);
        let merge_too = merge.clone();
        let [committer, publisher, flusher, compactor, merger] = [(); 5].map(|()| Arc::clone(&shared));
        let threads = vec![
            spawn("store-merge", Box::new(move || merger.merge_loop(&merges)))?,
            spawn("store-compact", Box::new(move || compactor.compact_loop(&compactions)))?,
            spawn("store-flush", Box::new(move || flusher.flush_loop(&flushes, &compact)))?,
            spawn("store-publish", Box::new(move || publisher.publish_loop(&steps, &flush, &merge_too)))?,
            spawn("store-commit", Box::new(move || committer.commit_loop(segment, &publish, &merge)))?,
        ];
        Ok(Self::over(Local::over(EmbeddedEngine { shared, threads: Mutex::new(threads) })))
    }
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

impl EmbeddedEngine {
    /// Ends the threads after the queue is empty, each before the one that it feeds, then gives up the lock.
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
        self.shared.enqueue(Job::new(&batches, done));
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let _reading = read(&self.shared.readers);
        let seqno = {
            let memory = read(&self.shared.memory);
            if let Some(change) = memory.find(key) {
                return Ok(change.value.map(<[u8]>::to_vec));
            }
            self.shared.seqno.get() // E2
        };
        Ok(self.shared.tree.get(key, seqno).map_err(read_error)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], through: &[u8], limit: usize, direction: Direction) -> Result<Pairs, StoreError> {
        let _reading = read(&self.shared.readers);
        let (parts, seqno) = {
            let memory = read(&self.shared.memory);
            (memory.between(from, through), self.shared.seqno.get()) // E2
        };
        let range = (Bound::Included(from), Bound::Included(through));
        let tables = self.shared.tree.range::<&[u8], _>(range, seqno, None);
        let pair = |item: lsm_tree::IterGuardImpl| item.into_inner().map_err(read_error);
        match direction {
            Direction::Up => scan::pairs(parts, tables.map(pair), limit, direction),
            Direction::Down => scan::pairs(parts, tables.rev().map(pair), limit, direction),
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
mod tests;
