//! `agentchat backup` and `agentchat restore`: a consistent copy of an embedded node's data, and the way back.
//!
//! ```text
//!   backup    snapshot of the store (by the node that serves, or here if none does) ─▶ copy ─▶ objects ─▶ manifest
//!   restore   manifest ─▶ every hash ─▶ into a data directory without a store ─▶ every row checked (`agentchat check`)
//! ```
//! U1  What was answered before the backup began is in it, and nothing that came later is there by half.
//! U2  Objects are copied after the store, so that everything a row of it refers to is there.
//! U3  The manifest is written last: without it there is no backup. What it does not name, with length and SHA-256, is
//!     not restored.
//! U4  A restore replaces nothing: it wants a data directory without a store.
//! U5  Keys are stored as hashes, and messages as they are: a backup is for the eyes of its owner alone (mode 0700).

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use schema::embedded::{EmbeddedOptions, EmbeddedStore, OpenError, Presence, probe};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::admin::{AdminError, Node};
use crate::config::Config;
use crate::node::{snapshots_directory, store_directory};

/// The manifest of a backup.
const MANIFEST: &str = "MANIFEST.json";
/// How backups look; a reader that knows another one refuses.
const FORMAT: u32 = 1;
/// Bytes in memory while a file is copied.
const CHUNK: usize = 1 << 20;
/// What a node keeps beside its store, if objects are files.
const BESIDE: [&str; 2] = ["objects", "objects.key"];

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Rows elsewhere.
    #[error(
        "a cql store is backed up by the cluster itself (for example `nodetool snapshot` on every node), and objects on \
         S3 by their endpoint; this command copies the data directory of an embedded node"
    )]
    Cql,
    /// No store.
    #[error("there is no store in {}; name the data directory of the node with --data-dir", .0.display())]
    Nothing(PathBuf),
    /// Something is in the way.
    #[error("{} is there already; name a directory that is not", .0.display())]
    Exists(PathBuf),
    /// Not a backup.
    #[error("{} is no complete backup: {why}", dir.display())]
    Incomplete {
        /// Its directory.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// Bytes changed.
    #[error("{0} is not what was backed up: its length or SHA-256 differs")]
    Damaged(String),
    /// The node that serves did not do its part.
    #[error("a node serves this directory, and did not take a snapshot")]
    Node(#[from] AdminError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file system.
    #[error("{}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Below the directory of the backup.
    path: String,
    bytes: u64,
    /// Of its bytes, hexadecimal.
    sha256: String,
}

/// What a backup consists of.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    /// Of the binary that made it.
    version: String,
    /// When the copy of the store began, in milliseconds since 1970.
    taken_at_ms: u64,
    files: Vec<Entry>,
}

/// How much a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Manifest {
    fn size(&self) -> Size {
        Size { files: self.files.len(), bytes: self.files.iter().map(|file| file.bytes).sum() }
    }
}

/// Adds the path to an error of the file system.
fn at(path: &Path) -> impl Fn(io::Error) -> BackupError + '_ {
    |error| BackupError::Io(path.to_owned(), error)
}

fn private_dir(path: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Copies the data of the node at `config` into `dir`, which must not exist.
pub async fn backup(config: &Config, dir: &Path) -> Result<Size, BackupError> {
    if !matches!(config.cql(), Ok(None)) {
        return Err(BackupError::Cql);
    }
    if dir.exists() {
        return Err(BackupError::Exists(dir.to_owned()));
    }
    let taken_at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    // Beside it under its whole name: of `host.a` and `host.b` neither may take the other's for its own.
    let mut partial = dir.file_name().unwrap_or_default().to_owned();
    partial.push(".partial");
    let partial = dir.with_file_name(partial);
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(at(&partial))?; // of an attempt that died
    }
    private_dir(&partial)?;
    let snapshot = snapshot(config).await?;
    let copied = copy_out(config, &snapshot, &partial);
    // The copy is what counts; a snapshot that stays goes at the node's next start.
    let _ = std::fs::remove_dir_all(&snapshot);
    let manifest = Manifest { format: FORMAT, version: env!("CARGO_PKG_VERSION").into(), taken_at_ms, files: copied? };
    let file = partial.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| at(&file)(io::Error::other(error)))?;
    write_synced(&file, &text).map_err(at(&file))?;
    std::fs::rename(&partial, dir).map_err(at(dir))?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent)?;
    Ok(manifest.size())
}

/// A directory with a copy of the store as it is now (U1).
async fn snapshot(config: &Config) -> Result<PathBuf, BackupError> {
    let store = store_directory(config);
    let snapshots = snapshots_directory(config);
    match probe(&store).map_err(at(&store))? {
        Presence::Absent => Err(BackupError::Nothing(store)),
        Presence::InUse => {
            let name = Node::nearby(config)?.snapshot().await?;
            Ok(snapshots.join(name))
        }
        Presence::Idle(_) => {
            let opened = EmbeddedStore::open(&store, EmbeddedOptions::default())?;
            let to = snapshots.join("of-a-stopped-node");
            if to.exists() {
                std::fs::remove_dir_all(&to).map_err(at(&to))?;
            }
            std::fs::create_dir_all(&snapshots).map_err(at(&snapshots))?;
            opened.snapshot(&to).map_err(at(&to))?;
            Ok(to)
        }
    }
}

/// The store from its snapshot, then what lies beside it (U2).
fn copy_out(config: &Config, snapshot: &Path, to: &Path) -> Result<Vec<Entry>, BackupError> {
    let mut files = Vec::new();
    copy_tree(snapshot, to, "store", &mut files)?;
    for name in BESIDE {
        let from = config.data_dir.join(name);
        if from.is_dir() {
            copy_tree(&from, to, name, &mut files)?;
        } else if from.exists() {
            files.extend(copy_file(&from, to, name)?);
        }
    }
    sync_dir(to)?;
    Ok(files)
}

fn copy_tree(from: &Path, to: &Path, name: &str, files: &mut Vec<Entry>) -> Result<(), BackupError> {
    private_dir(&to.join(name))?;
    let entries = std::fs::read_dir(from).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(at(from))?;
    for entry in entries {
        let (path, file_name) = (entry.path(), entry.file_name());
        // What is not finished has a name with `#`, from the store of objects; nothing refers to it.
        let Some(file_name) = file_name.to_str().filter(|name| !name.contains('#')) else { continue };
        let inner = format!("{name}/{file_name}");
        if entry.file_type().map_err(at(&path))?.is_dir() {
            copy_tree(&path, to, &inner, files)?;
        } else {
            files.extend(copy_file(&path, to, &inner)?);
        }
    }
    sync_dir(&to.join(name))
}

/// Copies one file below `to`; `None` if it was removed meanwhile, which only happens to objects that nothing needs.
fn copy_file(from: &Path, to: &Path, name: &str) -> Result<Option<Entry>, BackupError> {
    let source = match File::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(at(from))?,
    };
    let target = to.join(name);
    let (bytes, sha256) = copy_hashed(source, &target).map_err(at(&target))?;
    Ok(Some(Entry { path: name.to_owned(), bytes, sha256 }))
}

/// Copies, syncs, and says what it was.
fn copy_hashed(mut source: File, target: &Path) -> io::Result<(u64, String)> {
    let (mut target, mut hash, mut bytes) = (private_file(target)?, Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = source.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        target.write_all(&chunk[..read])?;
        hash.update(&chunk[..read]);
        bytes += read as u64;
    }
    target.sync_all()?;
    Ok((bytes, hex::encode(hash.finalize())))
}

fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path))
}

/// Puts the backup in `dir` into the data directory of `config`. The caller checks the rows afterwards.
pub fn restore(config: &Config, dir: &Path) -> Result<Size, BackupError> {
    if !matches!(config.cql(), Ok(None)) {
        return Err(BackupError::Cql);
    }
    for name in ["store"].iter().chain(&BESIDE).map(|name| config.data_dir.join(name)) {
        if name.exists() {
            return Err(BackupError::Exists(name)); // U4
        }
    }
    let manifest = manifest(dir)?;
    let partial = config.data_dir.join("restore.partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(at(&partial))?; // of an attempt that died
    }
    private_dir(&partial)?;
    for entry in &manifest.files {
        let (from, to) = (dir.join(&entry.path), partial.join(&entry.path));
        private_dir(to.parent().unwrap_or(&partial))?;
        let (bytes, sha256) = File::open(&from).and_then(|file| copy_hashed(file, &to)).map_err(at(&from))?;
        if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
            return Err(BackupError::Damaged(entry.path.clone()));
        }
    }
    // The store last: a directory without one is an empty one, whatever lies beside.
    for name in BESIDE.iter().rev().chain(&["store"]) {
        let (from, to) = (partial.join(name), config.data_dir.join(name));
        if from.exists() {
            std::fs::rename(&from, &to).map_err(at(&to))?;
        }
    }
    std::fs::remove_dir_all(&partial).map_err(at(&partial))?;
    sync_dir(&config.data_dir)?;
    Ok(manifest.size())
}

/// Reads and judges a manifest (U3). Its paths stay below the backup, whoever wrote it.
fn manifest(dir: &Path) -> Result<Manifest, BackupError> {
    let incomplete = |why: String| BackupError::Incomplete { dir: dir.to_owned(), why };
    let text = std::fs::read(dir.join(MANIFEST)).map_err(|error| incomplete(format!("{MANIFEST}: {error}")))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| incomplete(format!("{MANIFEST}: {error}")))?;
    if manifest.format != FORMAT {
        return Err(incomplete(format!("format {}, this binary knows {FORMAT}", manifest.format)));
    }
    let plain = |entry: &Entry| Path::new(&entry.path).components().all(|part| matches!(part, Component::Normal(_)));
    if let Some(entry) = manifest.files.iter().find(|entry| !plain(entry)) {
        return Err(incomplete(format!("{:?} is no path below it", entry.path)));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    fn config(data: &Path) -> Config {
        let file = data.with_extension("toml");
        std::fs::write(&file, format!("data_dir = {data:?}\n")).unwrap();
        let mut flags = Flags::default();
        flags.config = Some(file);
        Config::load(&flags).unwrap()
    }

    fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut pending = vec![root.to_owned()];
        let mut found = Vec::new();
        while let Some(dir) = pending.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    found.push((path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }

    /// A stopped node with a store, an object, a key, and an object that is being written.
    async fn made(data: &Path) -> Config {
        let config = config(data);
        drop(EmbeddedStore::open(&store_directory(&config), EmbeddedOptions::default()).unwrap());
        let objects = data.join("objects").join("attachments");
        std::fs::create_dir_all(&objects).unwrap();
        std::fs::write(objects.join("att_1"), "bytes").unwrap();
        std::fs::write(objects.join("att_2#1"), "by").unwrap();
        std::fs::write(data.join("objects.key"), [7; 32]).unwrap();
        config
    }

    #[tokio::test]
    async fn what_was_backed_up_comes_back_and_opens() {
        let dir = tempfile::tempdir().unwrap();
        let config = made(&dir.path().join("data")).await;
        let copy = dir.path().join("copy");
        let size = backup(&config, &copy).await.unwrap();
        assert!(!snapshots_directory(&config).join("of-a-stopped-node").exists(), "nothing is left behind");
        assert!(matches!(backup(&config, &copy).await, Err(BackupError::Exists(_))));
        assert!(matches!(restore(&config, &copy), Err(BackupError::Exists(_))), "U4");
        let other = super::tests::config(&dir.path().join("other"));
        assert_eq!(restore(&other, &copy).unwrap(), size);
        assert_eq!(std::fs::read(other.data_dir.join("objects/attachments/att_1")).unwrap(), b"bytes");
        assert!(!other.data_dir.join("objects/attachments/att_2#1").exists(), "half of an object");
        assert_eq!(std::fs::read(other.data_dir.join("objects.key")).unwrap(), [7; 32]);
        let manifest = PathBuf::from(MANIFEST);
        let backed_up: Vec<_> = tree(&copy).into_iter().filter(|(path, _)| *path != manifest).collect();
        assert_eq!(tree(&other.data_dir), backed_up);
        let opened = EmbeddedStore::open(&store_directory(&other), EmbeddedOptions::default()).unwrap();
        assert_eq!(opened.check().unwrap().fault_count, 0);
    }

    #[tokio::test]
    async fn damage_is_found_and_restores_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = made(&dir.path().join("data")).await;
        let copy = dir.path().join("copy");
        backup(&config, &copy).await.unwrap();
        let other = super::tests::config(&dir.path().join("other"));
        let object = copy.join("objects/attachments/att_1");
        std::fs::write(&object, "bytez").unwrap();
        assert!(matches!(restore(&other, &copy), Err(BackupError::Damaged(path)) if path.ends_with("att_1")));
        assert!(!store_directory(&other).exists());
        std::fs::write(&object, "bytes").unwrap();
        let text = std::fs::read_to_string(copy.join(MANIFEST)).unwrap();
        for bad in
            [text.replace("objects/attachments/att_1", "../att_1"), text.replace("\"format\": 1", "\"format\": 2")]
        {
            std::fs::write(copy.join(MANIFEST), bad).unwrap();
            assert!(matches!(restore(&other, &copy), Err(BackupError::Incomplete { .. })), "U3");
        }
        std::fs::remove_file(copy.join(MANIFEST)).unwrap();
        assert!(matches!(restore(&other, &copy), Err(BackupError::Incomplete { .. })), "U3");
    }

    #[tokio::test]
    async fn other_stores_are_not_backed_up_here() {
        let dir = tempfile::tempdir().unwrap();
        let empty = config(&dir.path().join("data"));
        assert!(matches!(backup(&empty, &dir.path().join("copy")).await, Err(BackupError::Nothing(_))));
    }
}
