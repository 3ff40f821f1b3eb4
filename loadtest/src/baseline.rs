//! What the disk itself can do: the yardstick of every durable rate.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::LoadError;

/// 4 KiB appends per second, each followed by `fdatasync`, in a new file under `dir`.
pub fn synced_appends(dir: &Path, length: Duration) -> Result<f64, LoadError> {
    let io = |error| LoadError::Io("baseline", error);
    let path = dir.join("baseline");
    let mut file = File::create(&path).map_err(io)?;
    let block = [7; 4_096];
    let started = Instant::now();
    let mut appends = 0_u32;
    while started.elapsed() < length {
        file.write_all(&block).map_err(io)?;
        file.sync_data().map_err(io)?;
        appends += 1;
    }
    let rate = f64::from(appends) / started.elapsed().as_secs_f64();
    std::fs::remove_file(&path).map_err(io)?;
    Ok(rate)
}
