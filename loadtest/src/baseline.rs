//! What the disk itself can do: the yardstick of every durable rate.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::LoadError;
use crate::meter::histogram;

/// What a run of appends came to.
#[derive(Debug, Clone, Copy)]
pub struct Appends {
    /// Per second.
    pub rate: f64,
    /// Half of them took at most this, in milliseconds.
    pub p50_ms: f64,
}

/// 4 KiB appends, each followed by `fdatasync`, in a new file under `dir`.
pub fn synced_appends(dir: &Path, length: Duration) -> Result<Appends, LoadError> {
    let io = |error| LoadError::Io("baseline", error);
    let path = dir.join("baseline");
    let mut file = File::create(&path).map_err(io)?;
    let block = [7; 4_096];
    let started = Instant::now();
    let mut took = histogram()?;
    while started.elapsed() < length {
        let before = Instant::now();
        file.write_all(&block).map_err(io)?;
        file.sync_data().map_err(io)?;
        took.saturating_record(u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    let rate = took.len() as f64 / started.elapsed().as_secs_f64();
    std::fs::remove_file(&path).map_err(io)?;
    Ok(Appends { rate, p50_ms: took.value_at_quantile(0.5) as f64 / 1_000.0 })
}
