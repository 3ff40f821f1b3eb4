//! What owners read and acknowledged, in the order of true time, and what has to hold of it.

use std::collections::BTreeMap;

use crate::core::Core;
use crate::node::{head_key, row_key};

/// Who did it: which node, and which run of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct By {
    pub node: usize,
    pub id: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Deed {
    /// An owner has read its shard: the operations found, by number from 1.
    Loaded(Vec<u64>),
    /// An owner acknowledged an operation under a number, `at` by its own clock in milliseconds.
    Acked { op: u64, number: u64, at_ms: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// True time.
    pub at: u64,
    pub by: By,
    pub shard: u32,
    pub epoch: u64,
    pub deed: Deed,
}

#[derive(Debug, Default)]
struct Book {
    /// The highest epoch whose owner has read, and that owner.
    epoch: u64,
    owner: Option<By>,
    /// Operations by number, as acknowledged.
    acked: BTreeMap<u64, u64>,
    /// Stamp of the last one.
    stamp: i64,
}

#[derive(Debug, Default)]
pub struct Ledger {
    notes: Vec<Note>,
    books: BTreeMap<u32, Book>,
    /// Names of nodes.
    pub names: Vec<String>,
    pub acks: u64,
    pub loads: u64,
}

impl Ledger {
    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// The highest epoch whose owner has read this shard.
    pub fn loaded(&self, shard: u32) -> u64 {
        self.books.get(&shard).map_or(0, |book| book.epoch)
    }
}

/// Takes what the nodes did since the last time.
pub fn check(core: &mut Core) {
    let mut notes = std::mem::take(&mut core.ledger.notes);
    notes.sort_by_key(|note| note.at);
    for note in notes {
        core.digest(&note);
        let name = core.ledger.names[note.by.node].clone();
        let (shard, epoch) = (note.shard, note.epoch);
        let wrong = match &note.deed {
            Deed::Loaded(found) => {
                core.tell(note.at, || format!("{name} reads shard {shard} under {epoch}: {} operations", found.len()));
                loaded(core, &note, found)
            }
            Deed::Acked { op, number, at_ms } => {
                core.tell(note.at, || format!("{name} acks {op} as {number} of shard {shard} under {epoch}"));
                acked(core, &note, (*op, *number), *at_ms).or_else(|| entitled(core, &note, &name, *at_ms))
            }
        };
        if let Some(wrong) = wrong {
            core.broken(format!("shard {shard} epoch {epoch} on {name}: {wrong}"));
        }
    }
}

fn loaded(core: &mut Core, note: &Note, found: &[u64]) -> Option<String> {
    core.ledger.loads += 1;
    let book = core.ledger.books.entry(note.shard).or_default();
    if note.epoch < book.epoch || (note.epoch == book.epoch && book.owner != Some(note.by)) {
        return Some(format!("reads although epoch {} has read before", book.epoch));
    }
    (book.epoch, book.owner) = (note.epoch, Some(note.by));
    let missing = book.acked.iter().find(|(number, op)| found.get(**number as usize - 1) != Some(*op));
    missing.map(|(number, op)| format!("does not see operation {op}, acknowledged as {number}"))
}

fn acked(core: &mut Core, note: &Note, (op, number): (u64, u64), _: u64) -> Option<String> {
    core.ledger.acks += 1;
    let (head, row) = (core.row(&head_key(note.shard)), core.row(&row_key(note.shard, number)));
    let head = head.map_or(0, |(head, _)| as_number(head));
    let stored = row.map(|(value, at)| (as_number(value), at));
    let gap = (1..number).find(|earlier| core.row(&row_key(note.shard, *earlier)).is_none());
    let book = core.ledger.books.entry(note.shard).or_default();
    if (note.epoch, Some(note.by)) != (book.epoch, book.owner) {
        return Some(format!("acknowledges {op} although epoch {} has read", book.epoch));
    }
    if let Some((last, other)) = book.acked.last_key_value().filter(|(last, _)| **last >= number) {
        return Some(format!("acknowledges {op} as {number} after {other} as {last}"));
    }
    book.acked.insert(number, op);
    let Some((_, at)) = stored.filter(|(stored, _)| *stored == op && head >= number) else {
        return Some(format!("acknowledges {op} as {number}, but stored are {stored:?} and head {head}"));
    };
    if (at >> 32) as u64 != note.epoch || at < book.stamp {
        return Some(format!("acknowledges {op} at {}.{}, out of order", at >> 32, at & 0xFFFF_FFFF));
    }
    book.stamp = at;
    gap.map(|gap| format!("acknowledges {op} as {number} although {gap} is missing"))
}

/// By what the tables say, and by when renewals that took effect were sent: not by what the node believes.
fn entitled(core: &Core, note: &Note, name: &str, at_ms: u64) -> Option<String> {
    let lease = core.node_now(name).filter(|row| row.incarnation >> 16 == note.by.id);
    let Some(lease) = lease else { return Some("acknowledges without a lease".to_owned()) };
    let until = core.leases.get(&lease.incarnation).copied().unwrap_or_default();
    if at_ms >= until {
        return Some(format!("acknowledges at {at_ms} with a lease until {until}"));
    }
    let row = core.shard_now(note.shard)?;
    let owns = row.owner.as_ref().is_some_and(|owner| owner.name == name && owner.incarnation == lease.incarnation);
    (row.epoch != note.epoch || !owns).then(|| format!("acknowledges, but the table says {row:?}"))
}

/// In the end everything acknowledged is there.
pub fn final_check(core: &mut Core) {
    let mut lost = Vec::new();
    for (shard, book) in &core.ledger.books {
        let there = |number: &u64| core.row(&row_key(*shard, *number)).map(|(value, _)| as_number(value));
        let missing = book.acked.iter().find(|(number, op)| there(number) != Some(**op));
        lost.extend(missing.map(|(number, op)| format!("operation {op}, {number} of shard {shard}, is lost")));
    }
    lost.into_iter().for_each(|what| core.broken(what));
}

pub fn as_number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
}
