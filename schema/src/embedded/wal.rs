//! The append-only segment log: the point at which a batch is durable.
//!
//! ```text
//!   segment  header | frame | frame ... | zeros   file name: 16 hex digits of its number, `.log`
//!   header   magic 8 | number of bytes of the segment before that count, u64 | xxh3 u64
//!   frame    length u32 | xxh3 of the payload, seeded with segment and offset, u64 | payload
//! ```
//! L1  A segment is followed by another only after its valid length was fixed in the next one's durable header.
//! L2  So only the end of the last segment can be torn; anything else that does not check is corruption.
//! L3  A frame is valid in one place only: bytes of an older file or offset never pass for a frame.
//! L4  Frames are written over zeros that an earlier sync has put there. A sync that makes a file longer has to write the
//!     file system's journal too: it takes half as long again, and three times the kernel's work.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::OpenError;
use super::runs::Run;

const MAGIC: &[u8; 8] = b"ACLOG\0\0\x01";
const HEADER: u64 = 24;
const FRAME_HEADER: usize = 12;
/// A file grows by as much at once (L4).
const PREPARED: u64 = 256 << 10;
static ZEROS: [u8; PREPARED as usize] = [0; PREPARED as usize];

/// Faults that tests inject where the log meets the disk.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) no_space: AtomicBool,
    pub(super) sync_fails: AtomicBool,
}

/// What became of a failed group.
#[derive(Debug)]
pub(super) enum AppendError {
    /// Nothing of it is in the log.
    NotWritten(io::Error),
    /// Only the disk knows; it is cut off by the next segment.
    Unknown(io::Error),
}

/// A frame on its way into the log: its header, filled in when its place is known, and a payload.
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// A frame with room for a payload.
    pub(super) fn with_capacity(payload: usize) -> Self {
        let mut bytes = Vec::with_capacity(FRAME_HEADER + payload);
        bytes.resize(FRAME_HEADER, 0);
        Self(bytes)
    }

    /// Adds to the payload.
    pub(super) fn extend(&mut self, payload: &[u8]) {
        self.0.extend_from_slice(payload);
    }

    /// What it carries.
    pub(super) fn payload(&self) -> &[u8] {
        &self.0[FRAME_HEADER..]
    }

    /// The changes it carries, for readers.
    pub(super) fn into_run(self) -> Option<Run> {
        Run::of(self.0, FRAME_HEADER)
    }

    /// Its bytes at one place of the log (L3).
    fn seal(&mut self, number: u64, offset: u64) -> &[u8] {
        let length = (self.payload().len() as u32).to_le_bytes();
        let sum = xxh3_64_with_seed(self.payload(), seed(number, offset)).to_le_bytes();
        self.0[..4].copy_from_slice(&length);
        self.0[4..FRAME_HEADER].copy_from_slice(&sum);
        &self.0
    }
}

/// The segment that is being written.
pub(super) struct Segment {
    pub(super) number: u64,
    file: File,
    /// Everything below is synced.
    pub(super) synced: u64,
    /// Zeros follow up to here (L4).
    prepared: u64,
    /// Writes ended in an unclear state: a new segment must follow.
    pub(super) abandoned: bool,
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

fn seed(number: u64, offset: u64) -> u64 {
    number << 32 ^ offset
}

impl Segment {
    /// Starts segment `number`, fixing how much of the one before counts (L1).
    pub(super) fn create(dir: &Path, number: u64, before: u64, faults: &Faults) -> io::Result<Self> {
        if faults.no_space.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&before.to_le_bytes());
        header.extend_from_slice(&xxh3_64(&header).to_le_bytes());
        // Truncates what an earlier attempt at the same number left.
        let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path(dir, number))?;
        file.write_all(&header)?;
        file.sync_all()?;
        sync_dir(dir)?;
        Ok(Self { number, file, synced: HEADER, prepared: HEADER, abandoned: false })
    }

    /// Appends one frame and syncs it.
    pub(super) fn append(&mut self, frame: &mut Frame, faults: &Faults) -> Result<(), AppendError> {
        let bytes = frame.seal(self.number, self.synced);
        if let Err(error) = self.write(bytes, faults) {
            let cut = self.file.set_len(self.synced).and_then(|()| self.file.sync_data());
            self.prepared = self.synced;
            self.abandoned = cut.is_err();
            return Err(if self.abandoned { AppendError::Unknown(error) } else { AppendError::NotWritten(error) });
        }
        let synced = if faults.sync_fails.load(Ordering::Relaxed) {
            Err(io::Error::other("injected"))
        } else {
            self.file.sync_data()
        };
        if let Err(error) = synced {
            self.abandoned = true;
            return Err(AppendError::Unknown(error));
        }
        self.synced += bytes.len() as u64;
        Ok(())
    }

    /// Ends the file where its frames do.
    pub(super) fn close(self) {
        if let Err(error) = self.file.set_len(self.synced) {
            tracing::warn!(%error, "zeros stay behind the log; nothing depends on it"); // L4
        }
    }

    fn write(&mut self, bytes: &[u8], faults: &Faults) -> io::Result<()> {
        if faults.no_space.load(Ordering::Relaxed) {
            // Half of it lands, as on a disk that fills up.
            self.file.write_all_at(&bytes[..bytes.len() / 2], self.synced)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(bytes, self.synced)?;
        let end = self.synced + bytes.len() as u64;
        if end > self.prepared {
            let zeros = PREPARED - end % PREPARED;
            // A disk too full for them takes the frame all the same.
            let written = self.file.write_all_at(&ZEROS[..zeros as usize], end);
            self.prepared = written.map_or(end, |()| end + zeros);
        }
        Ok(())
    }
}

/// Numbers of all segments, ascending.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| u64::from_str_radix(name.strip_suffix(".log")?, 16).ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes segments below `number`, oldest first.
pub(super) fn remove_below(dir: &Path, number: u64) -> io::Result<()> {
    for old in numbers(dir)?.into_iter().filter(|old| *old < number) {
        std::fs::remove_file(path(dir, old))?;
        sync_dir(dir)?;
    }
    Ok(())
}

fn field(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|raw| raw.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// End of the valid frames of `bytes`, handing each payload to `each`.
fn frames(bytes: &[u8], number: u64, each: &mut dyn FnMut(&[u8]) -> bool) -> u64 {
    let mut at = HEADER as usize;
    loop {
        let Some(raw) = bytes.get(at..at + 4).and_then(|raw| <[u8; 4]>::try_from(raw).ok()) else {
            return at as u64;
        };
        let end = at + FRAME_HEADER + u32::from_le_bytes(raw) as usize;
        let Some(payload) = bytes.get(at + FRAME_HEADER..end) else {
            return at as u64;
        };
        let sound = field(bytes, at + 4) == xxh3_64_with_seed(payload, seed(number, at as u64));
        if !sound || !each(payload) {
            return at as u64;
        }
        at = end;
    }
}

/// Whether a whole valid frame starts anywhere after `from`: then the bad bytes at `from` are no torn tail.
fn good_frame_after(bytes: &[u8], number: u64, from: usize) -> bool {
    (from + 1..bytes.len()).any(|at| {
        let Some(raw) = bytes.get(at..at + 4).and_then(|raw| <[u8; 4]>::try_from(raw).ok()) else {
            return false;
        };
        let payload = bytes.get(at + FRAME_HEADER..at + FRAME_HEADER + u32::from_le_bytes(raw) as usize);
        payload.is_some_and(|payload| field(bytes, at + 4) == xxh3_64_with_seed(payload, seed(number, at as u64)))
    })
}

/// A segment that recovery found.
struct Found {
    number: u64,
    /// Length of the segment before, as fixed in this one's header.
    before: u64,
}

/// The headers of all segments, in order without a gap. A last one that was never started is removed.
fn headers(dir: &Path) -> Result<Vec<Found>, OpenError> {
    let io = |e| OpenError::io(dir, e);
    let numbers = numbers(dir).map_err(io)?;
    let mut found: Vec<Found> = Vec::with_capacity(numbers.len());
    for (index, number) in numbers.iter().copied().enumerate() {
        let file = path(dir, number);
        let corrupt = |offset| OpenError::Corrupt { file: file.clone(), offset };
        let mut header = [0; HEADER as usize];
        let len = File::open(&file).and_then(|file| file.metadata()).map_err(io)?.len();
        let whole = len >= HEADER && File::open(&file).and_then(|file| file.read_exact_at(&mut header, 0)).is_ok();
        if whole && header.starts_with(MAGIC) && field(&header, 16) == xxh3_64(&header[..16]) {
            if found.last().is_some_and(|last| last.number + 1 != number) {
                return Err(corrupt(0));
            }
            found.push(Found { number, before: field(&header, 8) });
        } else if index + 1 == numbers.len() && len <= HEADER {
            tracing::warn!(segment = number, "log segment was never started; removing it");
            std::fs::remove_file(&file).and_then(|()| sync_dir(dir)).map_err(io)?;
        } else {
            return Err(corrupt(0));
        }
    }
    Ok(found)
}

/// Replays all segments in order, one in memory at a time; returns the last number and how much of it counts.
pub(super) fn replay(dir: &Path, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(u64, u64), OpenError> {
    let io = |e| OpenError::io(dir, e);
    let segments = headers(dir)?;
    let mut last = (0, 0);
    for (index, Found { number, .. }) in segments.iter().enumerate() {
        let file = path(dir, *number);
        let corrupt = |offset| OpenError::Corrupt { file: file.clone(), offset };
        let bytes = std::fs::read(&file).map_err(io)?;
        let next = segments.get(index + 1);
        let valid = next.map_or(bytes.len() as u64, |next| next.before);
        let counted = bytes.get(..valid as usize).ok_or_else(|| corrupt(bytes.len() as u64))?;
        let end = frames(counted, *number, each);
        if end < valid {
            if next.is_some() || good_frame_after(counted, *number, end as usize) {
                return Err(corrupt(end));
            }
            let lost = counted[end as usize..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if lost > 0 {
                tracing::warn!(segment = number, offset = end, lost, "torn log tail cut off");
            }
            let file = OpenOptions::new().write(true).open(&file).map_err(io)?;
            file.set_len(end).and_then(|()| file.sync_all()).map_err(io)?;
        }
        last = (*number, end);
    }
    Ok(last)
}
