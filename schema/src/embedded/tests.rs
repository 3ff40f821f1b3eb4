//! Faults, torn tails, rotation and reopening, on real files.

use std::sync::atomic::Ordering;

use super::*;

fn put(store: &EmbeddedStore, key: u8, len: usize) -> Result<(), StoreError> {
    let (tx, rx) = channel();
    let ops = vec![KvOp::Put(vec![key], vec![key; len]), KvOp::Put(vec![key, 0], vec![1])];
    store.backend.engine.apply(vec![ops], Box::new(move |outcome| drop(tx.send(outcome))));
    rx.recv().expect("answered").remove(0)
}

fn has(store: &EmbeddedStore, key: u8) -> bool {
    let halves = [vec![key], vec![key, 0]].map(|key| store.backend.engine.get(&key).expect("readable").is_some());
    assert_eq!(halves[0], halves[1], "W1");
    halves[0]
}

fn open(dir: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(dir, EmbeddedOptions { cache_bytes: 1 << 20, ..EmbeddedOptions::default() })
}

/// The newest log segment and its bytes.
fn newest(dir: &Path) -> (PathBuf, Vec<u8>) {
    let log = std::fs::read_dir(dir.join("log")).expect("log");
    let file = log.map(|entry| entry.expect("entry").path()).max().expect("a segment");
    let bytes = std::fs::read(&file).expect("bytes");
    (file, bytes)
}

/// Where the next frame begins.
fn end(store: &EmbeddedStore) -> usize {
    held(&store.backend.engine.shared.position).1 as usize
}

#[test]
fn faults_are_answered_and_lose_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let faults = Arc::new(Faults::default());
    let options = EmbeddedOptions { cache_bytes: 1 << 20, ..EmbeddedOptions::default() };
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
        let start = end(&store);
        assert_eq!(put(&store, 2, len), Ok(()));
        drop(store);
        let (file, whole) = newest(dir.path());
        for (cut, zeros) in (start..whole.len()).step_by(step).flat_map(|cut| [(cut, 0), (cut, 4_096)]) {
            let copy = tempfile::tempdir().expect("dir");
            std::fs::create_dir_all(copy.path().join("log")).expect("log");
            let name = file.file_name().expect("name");
            let torn = [&whole[..cut], &vec![0; zeros]].concat();
            std::fs::write(copy.path().join("log").join(name), torn).expect("torn");
            let store = open(copy.path()).expect("a torn tail is no error");
            assert!(has(&store, 1) && !has(&store, 2), "cut at {cut}, {zeros} zeros after it");
        }
    }
}

/// L4: what a process that is killed leaves behind, and one that ends does not.
#[test]
fn zeros_behind_the_frames_are_no_damage() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path()).expect("opens");
    assert_eq!(put(&store, 1, 300), Ok(()));
    let (file, killed) = newest(dir.path());
    let frames = end(&store);
    assert!(killed.len() > frames && killed[frames..].iter().all(|byte| *byte == 0));
    assert_eq!(put(&store, 2, 300), Ok(()));
    assert_eq!(newest(dir.path()).1.len(), killed.len(), "written over zeros");
    drop(store);
    assert!(newest(dir.path()).1.len() < killed.len());
    std::fs::write(file, killed).expect("killed");
    let store = open(dir.path()).expect("opens again");
    assert_eq!([has(&store, 1), has(&store, 2)], [true, false]);
}

#[test]
fn a_flipped_bit_before_good_frames_is_corruption() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path()).expect("opens");
    let start = end(&store);
    assert_eq!((put(&store, 1, 300), put(&store, 2, 300)), (Ok(()), Ok(())));
    drop(store);
    let (file, mut bytes) = newest(dir.path());
    bytes[start + 40] ^= 1;
    std::fs::write(&file, bytes).expect("damaged");
    let outcome = open(dir.path()).map(drop);
    assert!(matches!(&outcome, Err(OpenError::Corrupt { offset, .. }) if *offset == start as u64), "{outcome:?}");
}

fn small(dir: &Path) -> EmbeddedStore {
    let options = EmbeddedOptions { cache_bytes: 1 << 20, segment_bytes: 64 << 10 };
    EmbeddedStore::open(dir, options).expect("opens")
}

fn apply(store: &EmbeddedStore, batches: Vec<Vec<KvOp>>) -> Vec<Result<(), StoreError>> {
    let (tx, rx) = channel();
    store.backend.engine.apply(batches, Box::new(move |outcomes| drop(tx.send(outcomes))));
    rx.recv().expect("answered")
}

fn log_bytes(dir: &Path) -> u64 {
    let log = std::fs::read_dir(dir.join("log")).expect("log");
    log.map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |file| file.len())).sum()
}

/// Segments are closed, flushed, compacted and removed under writers and readers, and nothing is missed or torn.
#[test]
fn rotation_under_load_loses_nothing() {
    const WRITERS: u64 = 8;
    const BATCHES: u64 = 400;
    let dir = tempfile::tempdir().expect("dir");
    let store = small(dir.path());
    let key = |writer: u64, n: u64, half: u8| [&writer.to_be_bytes()[..], &n.to_be_bytes(), &[half]].concat();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                for n in 0..BATCHES {
                    let put = |half| KvOp::Put(key(writer, n, half), vec![half; 300]);
                    // The row of the batch before goes in the same step: a reader sees one of them, never both.
                    let remove = (n > 0 && n % 2 == 1).then(|| KvOp::Remove(key(writer, n - 1, 0)));
                    let ops = [put(0), put(1)].into_iter().chain(remove).collect();
                    assert_eq!(apply(store, vec![ops]), [Ok(())]);
                    let range = (key(writer, 0, 0), key(writer, u64::MAX, 1));
                    let rows = store.backend.engine.scan(&range.0, &range.1, usize::MAX, Direction::Up).expect("reads");
                    assert_eq!(rows.len() as u64, 2 * (n + 1) - n.div_ceil(2), "W1, W5 after batch {n}");
                }
            });
        }
    });
    let written = WRITERS * BATCHES * 2 * 300;
    assert!(log_bytes(dir.path()) < written / 2, "segments were let go: {} of {written}", log_bytes(dir.path()));
    for _ in 0..2 {
        let rows = store.backend.engine.scan(&[0; 8], &[255; 8], usize::MAX, Direction::Up).expect("reads");
        assert_eq!(rows.len() as u64, WRITERS * (2 * BATCHES - BATCHES / 2));
    }
    drop(store);
    let rows = small(dir.path()).backend.engine.scan(&[0; 8], &[255; 8], usize::MAX, Direction::Up).expect("reads");
    assert_eq!(rows.len() as u64, WRITERS * (2 * BATCHES - BATCHES / 2), "after reopening");
}

/// Batches of one group are replayed in their order, also where they touch the same row.
#[test]
fn the_last_change_of_a_row_wins_after_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let store = small(dir.path());
    let put = |key: u8, value: u8| KvOp::Put(vec![key], vec![value]);
    let outcomes = apply(
        &store,
        vec![
            vec![put(1, 1), put(2, 1), put(3, 1)],
            vec![put(1, 2), KvOp::Remove(vec![2]), KvOp::Remove(vec![3]), put(3, 2)],
            vec![KvOp::Remove(vec![1]), put(1, 3)],
        ],
    );
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(())]);
    let check = |store: &EmbeddedStore| {
        let rows = [1, 2, 3].map(|key| store.backend.engine.get(&[key]).expect("reads"));
        assert_eq!(rows, [Some(vec![3]), None, Some(vec![2])]);
    };
    check(&store);
    drop(store);
    check(&small(dir.path()));
}

/// The format, byte by byte: what was written before must open for ever.
#[test]
fn a_log_in_the_written_format_opens() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::create_dir_all(dir.path().join("log")).expect("log");
    let mut file = b"ACLOG\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
    file.extend(xxhash_rust::xxh3::xxh3_64(&file).to_le_bytes());
    let put = b"\x01\x02\0\0\0\x03\0\0\0ab123".as_slice();
    let remove = b"\0\x02\0\0\0\0\0\0\0cd".as_slice();
    for payload in [put, &[b"\x01\x02\0\0\0\x01\0\0\0cd4", remove].concat()] {
        let seed = 1 << 32 ^ file.len() as u64;
        file.extend((payload.len() as u32).to_le_bytes());
        file.extend(xxhash_rust::xxh3::xxh3_64_with_seed(payload, seed).to_le_bytes());
        file.extend(payload);
    }
    std::fs::write(dir.path().join("log/0000000000000001.log"), file).expect("written");
    let store = open(dir.path()).expect("opens");
    let get = |key: &[u8]| store.backend.engine.get(key).expect("reads");
    assert_eq!([get(b"ab"), get(b"cd")], [Some(b"123".to_vec()), None]);
}

#[test]
fn what_is_dropped_is_answered() {
    let (tx, rx) = channel();
    drop(Job::new(&[Vec::new(), Vec::new()], Box::new(move |outcomes| drop(tx.send(outcomes)))));
    assert_eq!(rx.recv(), Ok(vec![Err(StoreError::Timeout), Err(StoreError::Timeout)]), "C2");
}

#[test]
fn a_missing_segment_is_corruption() {
    let dir = tempfile::tempdir().expect("dir");
    let (faults, header) = (Faults::default(), 24);
    for number in 1..=3 {
        Segment::create(dir.path(), number, header, &faults).expect("created");
    }
    let replay = || wal::replay(dir.path(), &mut |_| true);
    assert!(matches!(replay(), Ok((3, _))));
    std::fs::remove_file(wal::path(dir.path(), 2)).expect("removed");
    assert!(matches!(replay(), Err(OpenError::Corrupt { offset: 0, .. })));
}

/// Snapshots under writers, with segments closed, flushed and compacted all the time: each holds every batch that was
/// answered before it began, and no half of a later one.
#[test]
fn a_snapshot_under_load_holds_what_was_answered() {
    const WRITERS: u64 = 6;
    const SNAPSHOTS: usize = 5;
    let (dir, copies) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let store = small(dir.path());
    let key = |writer: u64, n: u64, half: u8| [&writer.to_be_bytes()[..], &n.to_be_bytes(), &[half]].concat();
    let answered: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, answered, stop) = (&store, &answered[writer as usize], &stop);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let put = |half| KvOp::Put(key(writer, n, half), vec![half; 700]);
                    // Segments this small close faster than they are flushed now and then; a refusal wrote nothing.
                    while let [Err(refused)] = &apply(store, vec![vec![put(0), put(1)]])[..] {
                        assert_eq!(*refused, unavailable("flush is behind"));
                        std::thread::yield_now();
                    }
                    answered.store(n + 1, Ordering::Release);
                }
            });
        }
        for number in 0..SNAPSHOTS {
            let goal = 60 * (number as u64 + 1); // some segments further each time
            while answered.iter().any(|answered| answered.load(Ordering::Acquire) < goal) {
                std::thread::yield_now();
            }
            let before: Vec<u64> = answered.iter().map(|answered| answered.load(Ordering::Acquire)).collect();
            let to = copies.path().join(number.to_string());
            store.snapshot(&to).expect("taken");
            taken.push((to, before));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(store.snapshot(&taken[0].0).is_err(), "B4: a snapshot is never overwritten");
    drop(store);
    for (copy, before) in taken {
        let copy = small(&copy);
        for (writer, before) in (0..WRITERS).zip(before) {
            let range = (key(writer, 0, 0), key(writer, u64::MAX, 1));
            let rows = copy.backend.engine.scan(&range.0, &range.1, usize::MAX, Direction::Up).expect("reads");
            assert!(rows.len() as u64 >= 2 * before, "writer {writer}: {} rows, {before} answered", rows.len());
            let whole = rows.len() / 2;
            let expected = (0..whole as u64).flat_map(|n| [key(writer, n, 0), key(writer, n, 1)]);
            assert!(rows.iter().map(|(key, _)| key.clone()).eq(expected), "W1: whole batches, without a hole");
        }
    }
}

/// R4: runs too large to be merged in passing are merged all the same, and nothing is missed meanwhile.
#[test]
fn large_runs_are_merged_beside_writers_and_readers() {
    const JOBS: u32 = 400;
    const BATCHES: u32 = 16;
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path()).expect("opens");
    let key = |n: u32| n.wrapping_mul(0x9E37_79B9).to_be_bytes().to_vec();
    for job in 0..JOBS {
        let batch = |n: u32| vec![KvOp::Put(key(n), vec![n as u8; 1_000])];
        let outcomes = apply(&store, (job * BATCHES..(job + 1) * BATCHES).map(batch).collect());
        assert!(outcomes.iter().all(Result::is_ok));
        for n in [0, job * BATCHES / 2, (job + 1) * BATCHES - 1] {
            assert_eq!(store.backend.engine.get(&key(n)), Ok(Some(vec![n as u8; 1_000])), "key {n} after job {job}");
        }
    }
    let everything = || store.backend.engine.scan(&[], &[0xFF; 8], usize::MAX, Direction::Up).expect("scans");
    assert_eq!(everything().len() as u32, JOBS * BATCHES);
    let shared = &store.backend.engine.shared;
    while matches!(read(&shared.memory).due(), Some((_, false))) {
        std::thread::yield_now(); // until the merger has come to it
    }
    assert_eq!(everything().len() as u32, JOBS * BATCHES);
}
