//! `soak`: a moderate load for long, with churn. Does memory creep, does latency?
//!
//! K1  Creep is the slope of a straight line through the server's memory, second by second, after the first tenth of the
//!     run: caches and pools fill in the beginning, and that is no leak.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::Outcome;
use crate::drive::{Load, span};
use crate::error::LoadError;
use crate::exchange::{self, Pairs};
use crate::listen::Manner;
use crate::meter::Meter;
use crate::sample::MemoryWatch;
use crate::world::World;

/// What a long run is compared to: its memory after this many seconds.
const EARLY_S: f64 = 300.0;
/// Memory is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// Options of `soak`.
#[derive(Debug, Clone, Args)]
pub struct Soak {
    #[command(flatten)]
    pub(super) pairs: Pairs,
    /// Minutes, after the warm-up
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Messages a second
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Mean seconds that a socket lives
    #[arg(long, default_value_t = 30.0)]
    life: f64,
}

impl Soak {
    pub(super) async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        let life = span("life", self.life)?;
        let load = Load {
            rate: Some(self.rate),
            poisson: true,
            clients: self.clients,
            seconds: self.minutes * 60.0,
            warmup: 2.0,
            count: None,
        };
        let churn = Some((life, Duration::from_secs(1)));
        let manner = Manner { churn, ..Manner::default() };
        let watcher = MemoryWatch::start(world, LOOK);
        let (driven, lane) = exchange::run(world, meter, &self.pairs, &load, manner).await?;
        let memory = watcher.seen();
        let outcome = Outcome::of(&lane).driven(&driven);
        Ok(match slope(&memory[memory.len() / 10..]) {
            Some(per_second) => {
                let last = memory.last().map_or(0.0, |m| m.1);
                let outcome = outcome.figure("memory at the end", last / 1_048_576.0, "MiB");
                let outcome = match growth(&memory) {
                    Some(growth) => outcome.figure("memory at the end to early memory", growth, "times"),
                    None => outcome,
                };
                outcome.figure("memory creep", per_second * 3_600.0 / 1_048_576.0, "MiB/h")
            }
            None => outcome.note("memory of the server is unknown: name its process with --server-pid"),
        })
    }
}

/// Memory at the end ÷ memory after [`EARLY_S`], or after the first sixth of what is shorter. Both are means over a
/// twelfth of the whole: memory goes up until a flush, and down with it.
fn growth(points: &[(f64, f64)]) -> Option<f64> {
    let (first, last) = (points.first()?.0, points.last()?.0);
    let (early, twelfth) = (first + EARLY_S.min((last - first) / 6.0), (last - first) / 12.0);
    let mean = |from: f64| {
        let within = points.iter().filter(|point| (from..=from + twelfth).contains(&point.0)).map(|point| point.1);
        let (count, sum) = within.fold((0.0, 0.0), |(count, sum), memory| (count + 1.0, sum + memory));
        (count > 0.0).then(|| sum / count)
    };
    Some(mean(last - twelfth)? / mean(early)?)
}

/// Rise of the straight line that is nearest to all points. `None`: there are too few.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    if points.len() < 3 {
        return None;
    }
    let count = points.len() as f64;
    let (mean_x, mean_y) =
        (points.iter().map(|p| p.0).sum::<f64>() / count, points.iter().map(|p| p.1).sum::<f64>() / count);
    let spread: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    (spread > 0.0).then(|| points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_from_five_minutes_or_a_sixth_on() {
        let line = |seconds: u32| (0..seconds).map(|n| (7.0 + f64::from(n), f64::from(n))).collect::<Vec<_>>();
        // Of 1800 s the means over 300 to 450 and over 1650 to 1800; of 60 s over 10 to 15 and over 55 to 60.
        assert_eq!((growth(&line(1_801)), growth(&line(61))), (Some(1_725.0 / 375.0), Some(57.5 / 12.5)));
        let saw = |n: u32| (f64::from(n), 100.0 + f64::from(n % 50));
        assert!((growth(&(0..1_801).map(saw).collect::<Vec<_>>()).expect("points") - 1.0).abs() < 0.01);
        assert_eq!(growth(&[]), None);
    }

    #[test]
    fn slope_of_a_line_and_of_nothing() {
        let line: Vec<(f64, f64)> = (0..100).map(|n| (f64::from(n), 5.0 + 2.0 * f64::from(n))).collect();
        assert!((slope(&line).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(slope(&line[..2]), None);
        assert_eq!(slope(&[(1.0, 1.0); 5]), None);
    }
}
