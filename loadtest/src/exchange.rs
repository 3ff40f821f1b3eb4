//! Direct messages between pairs: what `direct`, `churn` and `soak` have in common.
//!
//! E1  Pair `n` is the agents `first + 2n`, who sends, and `first + 2n + 1`, who receives: no agent is in two pairs, so a
//!     hot pair is one hot conversation and one hot inbox, and nothing else.
//! E2  Threads are established before the clock starts, by one message each way, as the contract asks of strangers.

use std::sync::Arc;

use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::Client;
use crate::drive::{Arrival, Driven, Job, Load, drive};
use crate::error::LoadError;
use crate::ledger::{Audience, Lane};
use crate::listen::{Listeners, Manner};
use crate::meter::Meter;
use crate::schedule::{Distribution, Picker};
use crate::settle;
use crate::world::{Outgoing, Task, World, each};

/// Connections that establish pairs.
const OPENERS: usize = 32;
/// Largest text: with the rest of the content it stays below the contract's 32,768 bytes.
pub const TEXT_MAX: usize = 32_000;

/// Who writes to whom, and what.
#[derive(Debug, Clone, Args)]
pub struct Pairs {
    /// Pairs of a sender and a recipient, two agents each
    #[arg(long, default_value_t = 100)]
    pub pairs: u64,
    /// Number of the first agent
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Which pair is next
    #[arg(long, value_enum, default_value = "uniform")]
    pub distribution: Distribution,
    /// Of zipf: larger is more unequal
    #[arg(long, default_value_t = 1.0)]
    pub exponent: f64,
    /// Bytes of text; of several, each message takes one at random
    #[arg(long, value_delimiter = ',', default_value = "80")]
    pub bytes: Vec<usize>,
    /// Recipients that hold a socket; the others' inboxes are read at the end [default: all, but at most 2,000]
    #[arg(long)]
    pub online: Option<u64>,
}

/// Recipients that hold a socket, if nothing else is said.
const ONLINE: u64 = 2_000;

impl Pairs {
    /// Recipients that hold a socket.
    pub fn online(&self) -> u64 {
        self.online.unwrap_or(ONLINE).min(self.pairs)
    }

    /// All of them: the first, and how many.
    pub fn agents(&self) -> (u64, u64) {
        (self.first, self.pairs.saturating_mul(2))
    }

    /// Who receives in pair `n`.
    pub fn recipient(&self, n: u64) -> u64 {
        self.first + 2 * n + 1
    }

    /// Checks what clap cannot.
    pub fn check(&self) -> Result<(), LoadError> {
        if self.pairs == 0 || self.exponent <= 0.0 {
            return Err(LoadError::Usage("pairs and exponent have to be more than 0".to_owned()));
        }
        texts(&self.bytes).map(|_| ())
    }

    /// Establishes all pairs (E2).
    pub async fn establish(&self, world: &Arc<World>) -> Result<(), LoadError> {
        let opener = Opener { world: Arc::clone(world), first: self.first };
        each(world, self.pairs, OPENERS, opener).await
    }
}

struct Opener {
    world: Arc<World>,
    first: u64,
}

impl Task for Opener {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        let sender = self.first + 2 * n;
        self.world.establish(client, sender, sender + 1).await
    }
}

/// Texts of the given sizes.
pub fn texts(bytes: &[usize]) -> Result<Vec<String>, LoadError> {
    const WORDS: &str = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all today. ";
    if bytes.is_empty() || bytes.iter().any(|bytes| !(1..=TEXT_MAX).contains(bytes)) {
        return Err(LoadError::Usage(format!("a text has 1 to {TEXT_MAX} bytes")));
    }
    Ok(bytes.iter().map(|bytes| WORDS.chars().cycle().take(*bytes).collect()).collect())
}

/// Sends to the pair that is picked.
pub struct Sender {
    world: Arc<World>,
    lane: Arc<Lane>,
    pairs: Pairs,
    picker: Picker,
    texts: Vec<String>,
}

impl Sender {
    /// Over established pairs.
    pub fn new(world: &Arc<World>, lane: &Arc<Lane>, pairs: &Pairs) -> Result<Self, LoadError> {
        let picker = Picker::new(pairs.distribution, pairs.pairs, pairs.exponent, world.seed);
        let texts = texts(&pairs.bytes)?;
        Ok(Self { world: Arc::clone(world), lane: Arc::clone(lane), pairs: pairs.clone(), picker, texts })
    }
}

impl Job for Sender {
    async fn run(&self, client: &mut Client, arrival: Arrival) -> Result<(), LoadError> {
        let to = self.pairs.recipient(self.picker.pick(arrival.number));
        let text = match &*self.texts {
            [only] => only,
            several => &several[StdRng::seed_from_u64(arrival.number).random_range(0..several.len())],
        };
        let target = format!(r#""to":"{}""#, self.world.roster.handle(to));
        let message = Outgoing { sender: to - 1, target, to, text, intended_us: arrival.intended_us };
        self.world.send(&self.lane, client, message).await?;
        Ok(())
    }
}

/// Establishes, listens, drives, and waits for everything.
pub async fn run(
    world: &Arc<World>,
    meter: &Arc<Meter>,
    pairs: &Pairs,
    load: &Load,
    manner: Manner,
) -> Result<(Driven, Arc<Lane>), LoadError> {
    pairs.check()?;
    let lane = world.ledger.open(Audience::Direct, meter);
    pairs.establish(world).await?;
    let online: Vec<u64> = (0..pairs.online()).map(|n| pairs.recipient(n)).collect();
    let listeners = Listeners::open(world, meter, online.into_iter(), manner).await?;
    let driven = drive(&world.fleet, meter, load, world.seed, Sender::new(world, &lane, pairs)?).await?;
    if pairs.online() > 0 {
        settle::wait(&lane).await;
    }
    listeners.close().await?;
    let first = pairs.first;
    settle::sweep(world, &lane, pairs.pairs, move |n| first + 2 * n + 1).await?;
    Ok((driven, lane))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_size_they_are_asked_for_and_need_no_escape() {
        let texts = texts(&[1, 80, TEXT_MAX]).unwrap();
        assert_eq!(texts.iter().map(String::len).collect::<Vec<_>>(), [1, 80, TEXT_MAX]);
        assert!(texts.iter().all(|text| text.bytes().all(|byte| byte.is_ascii() && !matches!(byte, b'"' | b'\\'))));
        assert!(super::texts(&[0]).is_err() && super::texts(&[TEXT_MAX + 1]).is_err() && super::texts(&[]).is_err());
    }
}
