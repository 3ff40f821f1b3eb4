//! When the next message is meant to go, and between whom.
//!
//! A1  An open loop has its whole timetable before it begins: a slow server changes no arrival, so a stall is counted in the
//!     latency of everything that should have been sent meanwhile.
//! A2  One seed is one run: arrivals and picks are functions of seed and number, whichever worker gets there first.

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The times of an open loop, in microseconds since it began.
#[derive(Debug, Clone)]
pub struct Timetable {
    gap_us: f64,
    poisson: Option<StdRng>,
    next_us: f64,
    end_us: f64,
}

impl Timetable {
    /// `rate` arrivals a second for `length_us`: evenly, or with exponential gaps.
    pub fn new(rate: f64, length_us: u64, poisson: Option<u64>) -> Self {
        let poisson = poisson.map(StdRng::seed_from_u64);
        Self { gap_us: 1e6 / rate, poisson, next_us: 0.0, end_us: length_us as f64 }
    }
}

impl Iterator for Timetable {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.next_us >= self.end_us {
            return None;
        }
        let at = self.next_us;
        // 1 - [0, 1) is never 0, so the logarithm is finite.
        let stretch = self.poisson.as_mut().map_or(1.0, |rng| -(1.0 - rng.random::<f64>()).ln());
        self.next_us += self.gap_us * stretch;
        Some(at as u64)
    }
}

/// How the pair of a message is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// One after the other
    Own,
    /// Any, with the same probability
    Uniform,
    /// A few get most: the n-th has a share of 1/n^exponent
    Zipf,
}

/// Chooses one of `0..count` for each number.
#[derive(Debug, Clone)]
pub struct Picker {
    distribution: Distribution,
    count: u64,
    zipf: Zipf,
    seed: u64,
}

impl Picker {
    /// `count` must not be 0.
    pub fn new(distribution: Distribution, count: u64, exponent: f64, seed: u64) -> Self {
        Self { distribution, count: count.max(1), zipf: Zipf::new(count.max(1), exponent), seed }
    }

    /// The choice for number `n` (A2).
    pub fn pick(&self, n: u64) -> u64 {
        let mut rng = StdRng::seed_from_u64(self.seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        match self.distribution {
            Distribution::Own => n % self.count,
            Distribution::Uniform => rng.random_range(0..self.count),
            Distribution::Zipf => self.zipf.sample(&mut rng),
        }
    }
}

/// Zipf's law over `0..count`, by rejection-inversion (Hörmann and Derflinger 1996): no table, however many there are.
#[derive(Debug, Clone)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    integral_low: f64,
    integral_high: f64,
    shortcut: f64,
}

impl Zipf {
    /// Rank `n` (from 1) has a share of `1/n^exponent`; the exponent is positive.
    pub fn new(count: u64, exponent: f64) -> Self {
        let mut zipf = Self { count: count as f64, exponent, integral_low: 0.0, integral_high: 0.0, shortcut: 0.0 };
        zipf.integral_low = zipf.integral(1.5) - 1.0;
        zipf.integral_high = zipf.integral(zipf.count + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    /// A rank, from 0.
    pub fn sample(&self, rng: &mut impl Rng) -> u64 {
        loop {
            let area = self.integral_high + rng.random::<f64>() * (self.integral_low - self.integral_high);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.shortcut || area >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// `(x^(1-e) - 1) / (1-e)`, and `ln x` where that is its limit.
    fn integral(&self, x: f64) -> f64 {
        let (log, power) = (x.ln(), 1.0 - self.exponent);
        if (power * log).abs() < 1e-8 { log } else { (power * log).exp_m1() / power }
    }

    fn inverse(&self, area: f64) -> f64 {
        let power = 1.0 - self.exponent;
        let scaled = (power * area).max(-1.0);
        if scaled.abs() < 1e-8 { area.exp() } else { (scaled.ln_1p() / power).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_timetable_is_even_and_ends() {
        let times: Vec<u64> = Timetable::new(4.0, 1_000_000, None).collect();
        assert_eq!(times, [0, 250_000, 500_000, 750_000]);
        assert_eq!(Timetable::new(1_000.0, 60_000_000, None).count(), 60_000);
    }

    #[test]
    fn a_poisson_timetable_has_its_rate_and_its_spread() {
        let times: Vec<f64> = Timetable::new(1_000.0, 100_000_000, Some(7)).map(|at| at as f64).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((980.0..1_020.0).contains(&mean), "{mean}");
        assert!((0.95..1.05).contains(&(variance.sqrt() / mean)), "an exponential's spread is its mean");
        assert_eq!(times, Timetable::new(1_000.0, 100_000_000, Some(7)).map(|at| at as f64).collect::<Vec<_>>());
    }

    /// Shares that were drawn, beside those of the law.
    #[track_caller]
    fn check_zipf(count: u64, exponent: f64) {
        const DRAWS: usize = 400_000;
        let zipf = Zipf::new(count, exponent);
        let mut rng = StdRng::seed_from_u64(3);
        let mut drawn = vec![0_u32; count as usize];
        (0..DRAWS).for_each(|_| drawn[zipf.sample(&mut rng) as usize] += 1);
        let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        for (rank, weight) in weights.iter().enumerate().take(20) {
            let (expected, found) = (weight / total, f64::from(drawn[rank]) / DRAWS as f64);
            let tolerance = 5.0 * (expected / DRAWS as f64).sqrt();
            assert!((expected - found).abs() < tolerance, "rank {rank} of {count}^{exponent}: {found}, not {expected}");
        }
    }

    #[test]
    fn zipf_follows_the_law() {
        check_zipf(1, 1.0);
        check_zipf(2, 1.0);
        check_zipf(10, 0.5);
        check_zipf(1_000, 1.0);
        check_zipf(1_000, 1.1);
        check_zipf(100_000, 2.0);
    }

    #[test]
    fn picks_stay_inside_and_repeat() {
        for distribution in [Distribution::Own, Distribution::Uniform, Distribution::Zipf] {
            let picker = Picker::new(distribution, 10, 1.0, 1);
            let picks: Vec<u64> = (0..1_000).map(|n| picker.pick(n)).collect();
            assert!(picks.iter().all(|pick| *pick < 10));
            assert!((0..10).all(|pick| picks.contains(&pick)), "{distribution:?} leaves nobody out");
            assert_eq!(picks, (0..1_000).map(|n| picker.pick(n)).collect::<Vec<_>>());
        }
    }
}
