//! A look at a directory without opening a store in it: nothing there is touched.

use std::fs::File;
use std::io;
use std::path::Path;

use fs4::fs_std::FileExt;

/// What is in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// No store.
    Absent,
    /// A store that nobody has open, of so many bytes.
    Idle(u64),
    /// A store that a process has open.
    InUse,
}

/// Looks at `dir`.
pub fn probe(dir: &Path) -> io::Result<Presence> {
    let lock = match File::options().write(true).open(dir.join("LOCK")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Presence::Absent),
        Err(error) => return Err(error),
    };
    if !FileExt::try_lock_exclusive(&lock)? {
        return Ok(Presence::InUse);
    }
    bytes(dir).map(Presence::Idle)
}

/// Room that is left on the file system of an existing directory.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    fs4::available_space(dir)
}

fn bytes(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}
