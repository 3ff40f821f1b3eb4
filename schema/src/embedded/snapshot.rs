//! A copy of the directory of a store that goes on serving: every batch answered before it began, and no half of any.
//!
//! B1  `position` is how far the log is durable; it moves before a batch is answered.
//! B2  While files are collected flusher and compactor wait, so no table, version or closed segment that counts comes or
//!     goes. Writers go on: they only make the log longer.
//! B3  What never changes again is linked, not copied: collecting takes milliseconds, whatever the size of the store. The
//!     segment that is written is copied up to `position`, so the copy ends with a whole frame.
//! B4  The copy appears under its name when it is complete and synced, or not at all.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::{EmbeddedStore, Shared, held, wal, write};

impl EmbeddedStore {
    /// Puts a copy of the store into `to`, which must not exist. On the file system of the store it costs one segment
    /// of space until tables are compacted; on another one everything is copied. Blocks; call it outside the runtime.
    ///
    /// The copy opens like any directory of a store that crashed.
    pub fn snapshot(&self, to: &Path) -> io::Result<()> {
        if to.exists() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists already", to.display())));
        }
        let partial = to.with_extension("partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial)?; // of a process that died
        }
        std::fs::create_dir_all(partial.join("log"))?;
        let collected = self.backend.engine.shared.collect(&partial);
        if collected.is_err() {
            let _ = std::fs::remove_dir_all(&partial); // the first error says more
        }
        collected?;
        std::fs::rename(&partial, to)?;
        to.parent().map_or(Ok(()), wal::sync_dir)
    }
}

impl Shared {
    fn collect(&self, to: &Path) -> io::Result<()> {
        let log = to.join("log");
        {
            let _no_changes = write(&self.files); // B2
            let (number, end) = *held(&self.position);
            let index = self.dir.with_file_name("index");
            link_all(&index, &to.join("index"))?;
            for closed in wal::numbers(&self.dir)?.into_iter().filter(|closed| *closed < number) {
                link(&wal::path(&self.dir, closed), &wal::path(&log, closed))?;
            }
            copy_prefix(&wal::path(&self.dir, number), &wal::path(&log, number), end)?; // B3
        }
        wal::sync_dir(&log)?;
        wal::sync_dir(to)
    }
}

/// Links every file below `from`. One that is gone was not part of the present version: only the flusher and the
/// compactor, which wait, make or end what is, and a reader may still let an older one go.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            link_all(&source, &target)?;
            continue;
        }
        match link(&source, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            linked => linked?,
        }
    }
    wal::sync_dir(to)
}

/// A second name for a file that never changes, or a copy where file systems differ or have no links.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(_) => {
            std::fs::copy(from, to)?;
            File::open(to)?.sync_all()
        }
        Ok(()) => Ok(()),
    }
}

fn copy_prefix(from: &Path, to: &Path, end: u64) -> io::Result<()> {
    let mut target = File::create_new(to)?;
    let copied = io::copy(&mut File::open(from)?.take(end), &mut target)?;
    if copied < end {
        return Err(io::Error::other(format!("{} ends at {copied}, {end} bytes of it are durable", from.display())));
    }
    target.sync_all()
}
