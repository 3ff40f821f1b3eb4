//! Closed-loop sends: each client sends its next message when the one before was acknowledged.
//!
//! D1  Every client has its own pair of agents in an established thread, so no conversation is a bottleneck by design.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hyper::StatusCode;

use crate::baseline::synced_appends;
use crate::client::Client;
use crate::error::LoadError;
use crate::meter::{LATENCY_MAX_US, histogram};
use crate::server::Server;

/// Text of every message: a short chat line.
pub const TEXT: &str = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all today.";
/// Length of the baseline measurement.
const BASELINE: Duration = Duration::from_secs(3);

/// A sender and its recipient.
struct Pair {
    key: String,
    to: String,
}

/// Runs the whole measurement and prints one line per number of clients.
pub async fn run(binary: &Path, disk: &Path, clients: &[usize], length: Duration) -> Result<(), LoadError> {
    let baseline = synced_appends(disk, BASELINE)?.rate;
    println!("disk: {baseline:.0} appends of 4 KiB per second, each with fdatasync");
    let server = Server::start(binary, disk, &[]).await?;
    let pairs = pairs(&server, clients.iter().copied().max().unwrap_or(1)).await?;
    println!("{:>8} {:>10} {:>8} {:>9} {:>9} {:>9}", "clients", "sends/s", "x disk", "p50 ms", "p99 ms", "max ms");
    for &count in clients {
        let (rate, latencies) = measure(server.address, &pairs[..count], length).await?;
        let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        let (p50, p99, max) = (ms(0.5), ms(0.99), latencies.max() as f64 / 1_000.0);
        println!("{count:>8} {rate:>10.0} {:>8.2} {p50:>9.2} {p99:>9.2} {max:>9.2}", rate / baseline);
    }
    Ok(())
}

/// Registers pairs and answers once in each thread, so that it is established.
async fn pairs(server: &Server, count: usize) -> Result<Vec<Pair>, LoadError> {
    let mut anonymous = Client::connect(server.address, "").await?;
    let mut pairs = Vec::with_capacity(count);
    for n in 0..count {
        let (a, b) = (format!("sender-{n}"), format!("receiver-{n}"));
        let (key, peer) = (server.register(&mut anonymous, &a).await?, server.register(&mut anonymous, &b).await?);
        Client::connect(server.address, &key).await?.call("/v1/messages", message(&b, "first")).await?;
        Client::connect(server.address, &peer).await?.call("/v1/messages", message(&a, "answer")).await?;
        pairs.push(Pair { key, to: b });
    }
    Ok(pairs)
}

fn message(to: &str, id: &str) -> String {
    format!(r#"{{"to":"{to}","client_msg_id":"{id}","content":{{"text":"{TEXT}"}}}}"#)
}

async fn measure(address: SocketAddr, pairs: &[Pair], length: Duration) -> Result<(f64, Histogram<u64>), LoadError> {
    let mut clients = Vec::with_capacity(pairs.len());
    for pair in pairs {
        clients.push((Client::connect(address, &pair.key).await?, pair.to.clone()));
    }
    let (started, run) = (Instant::now(), pairs.len());
    let tasks: Vec<_> =
        clients.into_iter().map(|(client, to)| tokio::spawn(one_client(client, to, run, started + length))).collect();
    let mut all = histogram()?;
    for task in tasks {
        let latencies = task.await.map_err(|error| LoadError::Answer(error.to_string()))??;
        all.add(latencies).map_err(|error| LoadError::Answer(error.to_string()))?;
    }
    Ok((all.len() as f64 / started.elapsed().as_secs_f64(), all))
}

async fn one_client(mut client: Client, to: String, run: usize, until: Instant) -> Result<Histogram<u64>, LoadError> {
    let mut latencies = histogram()?;
    for n in 0_u64.. {
        let sent_at = Instant::now();
        if sent_at >= until {
            break;
        }
        let (status, body) = client.post("/v1/messages", message(&to, &format!("{run}-{n}"))).await?;
        if status != StatusCode::CREATED {
            return Err(LoadError::Answer(format!("{status} {}", String::from_utf8_lossy(&body))));
        }
        latencies.saturating_record(u64::try_from(sent_at.elapsed().as_micros()).unwrap_or(LATENCY_MAX_US));
    }
    Ok(latencies)
}
