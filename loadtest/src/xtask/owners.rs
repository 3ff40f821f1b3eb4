//! Which owner acknowledged for a shard, and when: from the lines that servers log, on the clock that they share.
//!
//! O1  In the order of time, the epochs under which one shard acknowledges never go back: no two owners overlap.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::Failure;
use crate::history::Violation;

/// Marks the lines; the log filter of the servers has to let this target pass.
const TARGET: &str = " acknowledged: ";

/// One batch that a server vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Vouched {
    at_ns: i128,
    epoch: u64,
    server: usize,
}

/// All of them, by shard.
#[derive(Debug, Default)]
pub struct Owners(BTreeMap<u32, Vec<Vouched>>);

/// The number behind `name=`.
fn field<T: std::str::FromStr>(line: &str, name: &str) -> Option<T> {
    let rest = line.split_once(&format!(" {name}="))?.1;
    rest.split([' ', '\n']).next()?.parse().ok()
}

impl Owners {
    /// Adds what one server logged.
    pub fn read(&mut self, server: usize, log: &Path) -> Result<(), Failure> {
        let io = |e| Failure::Io(log.display().to_string(), e);
        let mut lines = BufReader::new(std::fs::File::open(log).map_err(io)?);
        let mut line = Vec::new();
        // A killed server may leave half a line, and half a character.
        while lines.read_until(b'\n', &mut line).map_err(io)? > 0 {
            self.line(server, &String::from_utf8_lossy(&line));
            line.clear();
        }
        Ok(())
    }

    fn line(&mut self, server: usize, line: &str) {
        let Some((_, fields)) = line.strip_suffix('\n').and_then(|line| line.split_once(TARGET)) else { return };
        let fields = format!(" {fields}");
        let (shard, epoch, at) = (field(&fields, "shard"), field(&fields, "epoch"), field(&fields, "at_ns"));
        if let (Some(shard), Some(epoch), Some(at_ns)) = (shard, epoch, at) {
            self.0.entry(shard).or_default().push(Vouched { at_ns, epoch, server });
        }
    }

    /// How many batches, and every overlap (O1).
    pub fn judge(mut self) -> (usize, Vec<Violation>) {
        let mut wrong = Vec::new();
        for (shard, vouched) in &mut self.0 {
            vouched.sort_unstable();
            for pair in vouched.windows(2).filter(|pair| pair[1].epoch < pair[0].epoch) {
                let behind_us = (pair[1].at_ns - pair[0].at_ns) / 1_000;
                let what = format!(
                    "shard {shard}: server {} acknowledged under epoch {} {behind_us} us after server {} under epoch {}",
                    pair[1].server, pair[1].epoch, pair[0].server, pair[0].epoch
                );
                wrong.push(Violation { rule: "O1", what });
            }
        }
        (self.0.values().map(Vec::len).sum(), wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaps(lines: &[(usize, &str)]) -> (usize, usize) {
        let mut owners = Owners::default();
        lines.iter().for_each(|(server, line)| owners.line(*server, line));
        let (count, wrong) = owners.judge();
        (count, wrong.len())
    }

    #[test]
    fn an_old_owner_that_acknowledges_after_a_new_one_is_seen() {
        let line = |shard, epoch, at| format!("2026 TRACE acknowledged: shard={shard} epoch={epoch} at_ns={at}\n");
        let (old, new, late) = (line(7, 3, 100), line(7, 4, 200), line(7, 3, 201));
        assert_eq!(overlaps(&[(1, &old), (2, &new), (2, &line(7, 4, 300))]), (3, 0));
        assert_eq!(overlaps(&[(1, &old), (1, &late), (2, &new)]), (3, 1), "whatever the order of the logs");
        assert_eq!(overlaps(&[(2, &new), (1, &line(8, 3, 500))]), (2, 0), "another shard");
        assert_eq!(overlaps(&[(1, "TRACE acknowledged: shard=7 epo"), (1, "INFO ready\n")]), (0, 0), "half a line");
    }
}
