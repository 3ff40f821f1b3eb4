//! What a run leaves: JSON for comparisons, a page for people, a summary for the terminal.

pub mod html;
pub mod model;
pub mod svg;
pub mod text;

use std::path::{Path, PathBuf};

use self::model::Run;
use crate::error::LoadError;

/// Runs of one comparison: as many as there are colours to tell them apart.
const RUNS_MAX: usize = 8;
/// Largest file of a run: a day of seconds with two hundred series.
const RUN_BYTES_MAX: u64 = 1 << 29;

/// Writes a run where it is wanted.
pub fn write(run: &Run, json: Option<&Path>, html: Option<&Path>) -> Result<(), LoadError> {
    if let Some(path) = json {
        let text = serde_json::to_vec(run).map_err(LoadError::answer)?;
        std::fs::write(path, text).map_err(|error| LoadError::Io("report", error))?;
    }
    if let Some(path) = html {
        std::fs::write(path, html::page(std::slice::from_ref(run))).map_err(|error| LoadError::Io("report", error))?;
    }
    Ok(())
}

/// `loadtest report`: any number of runs side by side.
pub fn compare(files: &[PathBuf], out: &Path) -> Result<(), LoadError> {
    if files.is_empty() || files.len() > RUNS_MAX {
        return Err(LoadError::Usage(format!("a comparison takes 1 to {RUNS_MAX} runs")));
    }
    let mut runs = Vec::with_capacity(files.len());
    for file in files {
        let named = |what: String| LoadError::Usage(format!("{}: {what}", file.display()));
        let size = std::fs::metadata(file).map_err(|error| named(error.to_string()))?.len();
        if size > RUN_BYTES_MAX {
            return Err(named(format!("is larger than {RUN_BYTES_MAX} bytes")));
        }
        let text = std::fs::read(file).map_err(|error| named(error.to_string()))?;
        let mut run: Run = serde_json::from_slice(&text).map_err(|error| named(format!("is no run: {error}")))?;
        if files.len() > 1 && run.label == "run" {
            run.label = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or(run.label);
        }
        runs.push(run);
    }
    std::fs::write(out, html::page(&runs)).map_err(|error| LoadError::Io("report", error))
}
