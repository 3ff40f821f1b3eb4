//! Acknowledged batches per second of embedded engines under the server's own access pattern.
//!
//! Many clients submit one small batch each and wait for its sync. A transaction engine gets the same group commit that
//! ours has: one writer thread takes everything that waits, writes it as one transaction and syncs once. Rows of a batch
//! are those of one delivered message: five rows, about 1 KB.

mod engines;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use engines::{Engine, Row};

/// Length of one measurement.
const RUN: Duration = Duration::from_secs(5);
/// Concurrent clients, one run each.
const CLIENTS: [usize; 3] = [1, 64, 512];
/// Most batches of one group.
const GROUP_MAX: usize = 1_024;

/// A batch and who waits for it.
type Job = (Vec<Row>, Sender<()>);

fn batch(n: u64, client: usize) -> Vec<Row> {
    // Spread like conversations and agents are: no client writes next to another.
    let spread = |kind: u8, n: u64| {
        let hash = n.wrapping_add(client as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [&[kind][..], &hash.to_be_bytes(), &n.to_be_bytes(), &[client as u8; 16]].concat()
    };
    let sizes = [420, 90, 380, 40, 70];
    (0..5).map(|kind| (spread(kind, n), vec![b'x'; sizes[usize::from(kind)]])).collect()
}

/// Writes groups until all clients are gone.
fn write_groups(engine: &mut dyn Engine, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX {
            let Ok(job) = jobs.try_recv() else { break };
            group.push(job);
        }
        engine.commit(&mut group.iter().flat_map(|(rows, _)| rows));
        group.iter().for_each(|(_, waiting)| {
            let _ = waiting.send(());
        });
    }
}

fn measure(mut engine: Box<dyn Engine>, clients: usize) -> f64 {
    let (jobs, queue) = channel::<Job>();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || write_groups(engine.as_mut(), &queue));
        for client in 0..clients {
            let (jobs, stop, done) = (jobs.clone(), Arc::clone(&stop), Arc::clone(&done));
            let run = move || {
                for n in 0_u64.. {
                    let (ack, acked) = channel();
                    jobs.send((batch(n, client), ack)).expect("the writer lives");
                    acked.recv().expect("answered");
                    done.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            };
            std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, run).expect("thread");
        }
        drop(jobs);
        std::thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
    });
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

fn baseline() -> f64 {
    use std::io::Write;
    let dir = tempfile::tempdir_in(".").expect("dir");
    let mut file = std::fs::File::create(dir.path().join("baseline")).expect("file");
    let (started, mut appends) = (Instant::now(), 0_u32);
    while started.elapsed() < Duration::from_secs(3) {
        file.write_all(&[7; 4_096]).expect("write");
        file.sync_data().expect("sync");
        appends += 1;
    }
    f64::from(appends) / started.elapsed().as_secs_f64()
}

fn main() {
    let base = baseline();
    println!("disk: {base:.0} appends of 4 KiB per second, each with fdatasync");
    println!("{:<10} {:>8} {:>12} {:>8}", "engine", "clients", "batches/s", "x disk");
    for name in engines::NAMES {
        for clients in CLIENTS {
            let dir = tempfile::tempdir_in(".").expect("dir");
            let rate = if *name == "ours" {
                engines::ours(dir.path(), clients, RUN)
            } else {
                measure(engines::open(name, dir.path()), clients)
            };
            println!("{name:<10} {clients:>8} {rate:>12.0} {:>8.2}", rate / base);
        }
    }
}
