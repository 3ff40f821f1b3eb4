//! `group`: groups of 2 to 256; every send is a delivery to each other member, on its socket or in its inbox.
//!
//! G1  Members have the creator in their book, so they join at once; a server in consent mode invites them, and they accept.
//! G2  Group `g` is the agents `first + g * size ..`, and agent `first + g * size` made it.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::Outcome;
use crate::client::Client;
use crate::drive::{Arrival, Driven, Job, Load, drive};
use crate::error::LoadError;
use crate::exchange::texts;
use crate::ledger::{Audience, Lane};
use crate::listen::{Listeners, Manner};
use crate::meter::Meter;
use crate::settle;
use crate::wire::CreatedGroup;
use crate::world::{Outgoing, Task, World, each};

/// Connections that make groups.
const MAKERS: usize = 16;

/// Options of `group`.
#[derive(Debug, Clone, Args)]
pub struct Group {
    /// How many groups
    #[arg(long, default_value_t = 1)]
    pub groups: u64,
    /// Members of each, the sender included
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=256))]
    pub size: u64,
    /// Number of the first agent
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Share of the members that hold a socket; the others' inboxes are read at the end
    #[arg(long, default_value_t = 1.0)]
    pub online: f64,
    /// Bytes of text
    #[arg(long, default_value_t = 80)]
    pub bytes: usize,
    /// How much and how long
    #[command(flatten)]
    pub load: Load,
}

impl Group {
    pub(super) async fn run(&self, world: &Arc<World>, meter: &Arc<Meter>) -> Result<Outcome, LoadError> {
        let begun = Instant::now();
        let groups = self.assemble(world).await?;
        let assembled = begun.elapsed().as_secs_f64();
        let (driven, lane) = self.exchange(world, meter, groups).await?;
        Ok(Outcome::of(&lane).driven(&driven).figure(
            "members assembled",
            (self.groups * self.size) as f64 / assembled,
            "members/s",
        ))
    }

    /// Makes all groups; their ids.
    pub async fn assemble(&self, world: &Arc<World>) -> Result<Vec<String>, LoadError> {
        if self.groups == 0 || !(0.0..=1.0).contains(&self.online) {
            return Err(LoadError::Usage("groups has to be more than 0, online is a share from 0 to 1".to_owned()));
        }
        let book = Book { world: Arc::clone(world), first: self.first, size: self.size };
        each(world, self.groups * (self.size - 1), MAKERS, book).await?;
        let made: Arc<Vec<std::sync::OnceLock<String>>> =
            Arc::new((0..self.groups).map(|_| Default::default()).collect());
        let maker = Maker { world: Arc::clone(world), first: self.first, size: self.size, made: Arc::clone(&made) };
        each(world, self.groups, MAKERS, maker).await?;
        Ok(made.iter().filter_map(|id| id.get().cloned()).collect())
    }

    /// Sends to assembled groups, and waits for everything.
    pub async fn exchange(
        &self,
        world: &Arc<World>,
        meter: &Arc<Meter>,
        groups: Vec<String>,
    ) -> Result<(Driven, Arc<Lane>), LoadError> {
        let (first, size, all) = (self.first, self.size, self.groups * self.size);
        let lane = world.ledger.open(Audience::Group { first, size }, meter);
        let online = (size as f64 * self.online).round() as u64;
        let listening = (0..all).filter(|n| n % size < online).map(|n| first + n);
        let listeners = Listeners::open(world, meter, listening, Manner::default()).await?;
        let text = texts(&[self.bytes])?.remove(0);
        let sender = Sender { world: Arc::clone(world), lane: Arc::clone(&lane), first, size, groups, text };
        let driven = drive(&world.fleet, meter, &self.load, world.seed, sender).await?;
        if online == size {
            settle::wait(&lane).await;
        }
        listeners.close().await?;
        settle::sweep(world, &lane, all, move |n| first + n).await?;
        Ok((driven, lane))
    }
}

/// Puts the creator into the books of the others (G1).
struct Book {
    world: Arc<World>,
    first: u64,
    size: u64,
}

impl Task for Book {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        let creator = self.first + n / (self.size - 1) * self.size;
        let member = creator + 1 + n % (self.size - 1);
        let body = json!({"handle": self.world.roster.handle(creator)}).to_string();
        self.world.ask(client, Method::POST, "/v1/contacts", member, &body).await?;
        Ok(())
    }
}

struct Maker {
    world: Arc<World>,
    first: u64,
    size: u64,
    made: Arc<Vec<std::sync::OnceLock<String>>>,
}

impl Task for Maker {
    async fn run(&self, client: &mut Client, n: u64) -> Result<(), LoadError> {
        let (world, creator) = (&self.world, self.first + n * self.size);
        let handles: Vec<String> =
            (creator + 1..creator + self.size).map(|member| world.roster.handle(member)).collect();
        let body = json!({"name": format!("load {n}"), "member_handles": handles}).to_string();
        let answer = world.ask(client, Method::POST, "/v1/groups", creator, &body).await?;
        let created: CreatedGroup = answer.read()?;
        if created.add_results.len() as u64 != self.size - 1 {
            return Err(LoadError::Answer(format!(
                "{} of {} members were added",
                created.add_results.len(),
                self.size
            )));
        }
        for added in created.add_results.iter().filter(|added| added.outcome == "invited") {
            let member = world.roster.number(&added.handle).zip(added.invite_id.as_deref());
            let (member, invite) = member.ok_or_else(|| LoadError::answer("an invitation without invite_id"))?;
            world.ask(client, Method::POST, &format!("/v1/groups/invites/{invite}/accept"), member, "").await?;
        }
        if let Some(id) = self.made.get(usize::try_from(n).unwrap_or(usize::MAX)) {
            let _ = id.set(created.group.id); // each number is done once
        }
        Ok(())
    }
}

struct Sender {
    world: Arc<World>,
    lane: Arc<Lane>,
    first: u64,
    size: u64,
    groups: Vec<String>,
    text: String,
}

impl Job for Sender {
    async fn run(&self, client: &mut Client, arrival: Arrival) -> Result<(), LoadError> {
        let groups = self.groups.len() as u64;
        let (to, turn) = (arrival.number % groups, arrival.number / groups);
        let sender = self.first + to * self.size + turn % self.size;
        let target = format!(r#""conversation_id":"{}""#, self.groups[to as usize]);
        let message = Outgoing { sender, target, to, text: &self.text, intended_us: arrival.intended_us };
        self.world.send(&self.lane, client, message).await?;
        Ok(())
    }
}
