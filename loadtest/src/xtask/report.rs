//! What a run amounts to, for people and for the record.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::checker::Checked;
use crate::faults::Struck;
use crate::history::{Records, Sent};

/// A send counts for a fault if it was under way between its beginning and so long after it was mended.
const AFTERMATH: Duration = Duration::from_secs(2);

/// How many sends are named, and from which length on.
const SLOWEST: usize = 5;
const SLOW: Duration = Duration::from_secs(10);

/// Prints the figures and the verdict.
pub fn print(
    seed: u64,
    started: Instant,
    calm: &Range<Instant>,
    struck: &[Struck],
    records: &Records,
    checked: &Checked,
) {
    let answered = || records.sends.iter().filter_map(|sent| sent.took.map(|took| (sent, took)));
    let mut undisturbed: Vec<Duration> =
        answered().filter(|(sent, _)| calm.contains(&sent.since)).map(|(_, took)| took).collect();
    undisturbed.sort();
    let share = |hundredths: usize| undisturbed.get(undisturbed.len().saturating_sub(1) * hundredths / 100);
    let [median, late, longest] = [50, 99, 100].map(|part| share(part).map_or(0.0, Duration::as_secs_f64));
    let worst = |since: Instant, until: Instant| {
        let touched = |sent: &Sent, took: Duration| sent.since < until + AFTERMATH && sent.since + took > since;
        answered().filter(|(sent, took)| touched(sent, *took)).map(|(_, took)| took).max().unwrap_or_default()
    };
    let mut kinds: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for fault in struck {
        kinds.entry(fault.fault.name()).or_default().push(worst(fault.since, fault.until));
    }
    let attempts: u64 = records.sends.iter().map(|sent| u64::from(sent.attempts)).sum();
    println!("\nseed {seed}: {} faults in {:.0} s", struck.len(), started.elapsed().as_secs_f64());
    println!(
        "  sends        {} in {attempts} requests, {} messages in {} logs",
        records.sends.len(),
        checked.messages,
        checked.conversations
    );
    println!(
        "  deliveries   {} due, {} arrived with repeats, over {} sockets",
        checked.deliveries, records.arrivals, records.sockets
    );
    println!(
        "  acks         {} given, by which clients know {} messages to be settled",
        checked.acked, checked.settled
    );
    println!("  owners       {} batches acknowledged under epochs", checked.batches);
    println!("  without faults: a send takes {median:.3} s (p50), {late:.2} s (p99), {longest:.2} s at most");
    for (kind, mut worst) in kinds {
        worst.sort();
        let [longest, half] =
            [worst.last(), worst.get(worst.len() / 2)].map(|took| took.map_or(0.0, Duration::as_secs_f64));
        let times = worst.len();
        println!("  {kind:<22} {times:>3} times, longest send {longest:>5.2} s, {half:>5.2} s in half of them");
    }
    let mut slow: Vec<(&Sent, Duration)> = answered().collect();
    slow.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    for (sent, took) in slow.into_iter().take(SLOWEST).filter(|(_, took)| *took >= SLOW) {
        let (from, attempts) = (sent.since.saturating_duration_since(started).as_secs_f64(), sent.attempts);
        let place = sent.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok()).map_or("", |place| &place.0);
        println!("  slow: {} from {from:.1} s for {:.1} s, {attempts} requests, {place}", sent.key, took.as_secs_f64());
    }
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    records.violations.iter().for_each(|violation| *rules.entry(violation.rule).or_default() += 1);
    let rules: Vec<String> = rules.iter().map(|(rule, times)| format!("{rule} {times} times")).collect();
    let which = if rules.is_empty() { String::new() } else { format!(": {}", rules.join(", ")) };
    println!("  violations   {}{which}", records.violations.len());
}
