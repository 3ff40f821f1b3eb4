//! A node's own lease, and its view of the leases of others. Pure: every time is milliseconds of this node's own
//! monotonic clock, and rows are what the store answered.
//!
//! K1  A lease holds until `ttl - margin` after its last renewal was sent that the store has applied.
//! K2  Somebody else's lease has ended only if its row stayed the same for `ttl`, from the arrival of the answer that
//!     first showed it to the sending of the question that last showed it, and the row was then removed by
//!     compare-and-set. A renewal that is under way either comes first and the removal fails, or fails itself.
//! K3  No clocks are compared. Their rates may differ by as much as `ttl : ttl - margin`.
//! K4  A run of a node that lost its row, or may have, never holds a lease again: it starts anew under another
//!     incarnation. So what others saw end has ended.

use std::collections::BTreeMap;

use schema::ownership::NodeRow;

/// How long leases last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Others wait this long before they remove a lease that does not change.
    pub ttl_ms: u64,
    /// The holder stops this much earlier (K3).
    pub margin_ms: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self { ttl_ms: 5_000, margin_ms: 1_500 }
    }
}

/// A renewal under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Renewal {
    /// The row as it has to be.
    pub before: Option<NodeRow>,
    /// What it becomes.
    pub after: NodeRow,
    /// When it was sent.
    pub sent_at: u64,
}

/// Where a node stands with its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// A renewal may be sent.
    Ready,
    /// A renewal was sent whose outcome is open: read the own row.
    Unsure,
    /// The row is gone (K4).
    Lost,
}

/// A node's own lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnLease {
    terms: Terms,
    me: NodeRow,
    stored: Option<NodeRow>,
    until: u64,
    unsure: Option<Renewal>,
    standing: Standing,
}

impl OwnLease {
    /// A run that holds nothing yet; `me.version` is 0.
    pub fn new(me: NodeRow, terms: Terms) -> Self {
        Self { terms, me, stored: None, until: 0, unsure: None, standing: Standing::Ready }
    }

    /// What to do next.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Until when the lease holds; may lie in the past.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// The row, as far as is known.
    pub fn row(&self) -> Option<&NodeRow> {
        self.stored.as_ref()
    }

    /// How many renewals were sent.
    pub fn renewals(&self) -> u64 {
        self.me.version
    }

    /// The lease holds (K1).
    pub fn holds(&self, now: u64) -> bool {
        self.standing != Standing::Lost && now < self.until
    }

    /// From the next renewal on, others see whether this node takes shards.
    pub fn drain(&mut self, drain: bool) {
        self.me.draining = drain;
    }

    /// The run gives its lease up: whatever is still answered, it holds nothing any more. The row, as far as is known.
    pub fn end(&mut self) -> Option<NodeRow> {
        self.lose();
        self.stored.take()
    }

    /// The next renewal, to be sent now.
    pub fn renewal(&mut self, now: u64) -> Renewal {
        self.me.version += 1;
        Renewal { before: self.stored.clone(), after: self.me.clone(), sent_at: now }
    }

    /// The store answered a renewal: applied, refused, or nobody knows.
    pub fn answered(&mut self, renewal: Renewal, applied: Option<bool>) {
        match applied {
            _ if self.standing == Standing::Lost => {} // K4
            Some(true) => self.applied(renewal),
            // Refused may mean that an earlier one of ours was applied late: the row tells.
            Some(false) | None => {
                self.standing = Standing::Unsure;
                self.unsure = Some(renewal);
            }
        }
    }

    /// The own row was read after an outcome stayed open.
    pub fn reread(&mut self, row: Option<NodeRow>) {
        if self.standing == Standing::Lost {
            return; // K4
        }
        let unsure = self.unsure.take();
        match (row, unsure) {
            (Some(row), Some(renewal)) if row == renewal.after => self.applied(renewal),
            // An older one than is known: the row was gone meanwhile, and a first renewal came late (K4).
            (Some(row), _) if self.stored.as_ref().is_some_and(|known| row.version < known.version) => self.lose(),
            (Some(row), _) if row.incarnation == self.me.incarnation => {
                // An earlier renewal of ours. When it was sent is forgotten, so it extends nothing.
                self.stored = Some(row);
                self.standing = Standing::Ready;
            }
            // Also if it was the first: it may have been applied, seen by others, and removed.
            _ => self.lose(),
        }
    }

    fn lose(&mut self) {
        (self.standing, self.until) = (Standing::Lost, 0);
    }

    fn applied(&mut self, renewal: Renewal) {
        self.until = self.until.max(renewal.sent_at + self.terms.ttl_ms - self.terms.margin_ms);
        (self.stored, self.standing, self.unsure) = (Some(renewal.after), Standing::Ready, None);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    row: NodeRow,
    since: u64,
    asked_last: u64,
}

/// How long the leases of others have not changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watch {
    terms: Terms,
    seen: BTreeMap<String, Seen>,
}

impl Watch {
    /// Has seen nobody.
    pub fn new(terms: Terms) -> Self {
        Self { terms, seen: BTreeMap::new() }
    }

    /// All leases as the store had them between `asked_at` and `answered_at`.
    pub fn saw(&mut self, asked_at: u64, answered_at: u64, rows: &[NodeRow]) {
        self.seen.retain(|name, _| rows.iter().any(|row| row.name == *name));
        for row in rows {
            match self.seen.get_mut(&row.name).filter(|seen| seen.row == *row) {
                Some(seen) => seen.asked_last = asked_at,
                None => {
                    let seen = Seen { row: row.clone(), since: answered_at, asked_last: asked_at };
                    self.seen.insert(row.name.clone(), seen);
                }
            }
        }
    }

    /// Some lease has not changed for half a term: it is worth looking more often.
    pub fn overdue(&self) -> bool {
        self.seen.values().any(|seen| seen.asked_last >= seen.since + self.terms.ttl_ms / 2)
    }

    /// Leases to be removed by compare-and-set (K2).
    pub fn silent(&self) -> impl Iterator<Item = &NodeRow> {
        let ttl = self.terms.ttl_ms;
        self.seen.values().filter(move |seen| seen.asked_last >= seen.since + ttl).map(|seen| &seen.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> NodeRow {
        NodeRow { name: "a".to_owned(), incarnation: 1, version: 0, address: String::new(), draining: false }
    }

    #[test]
    fn a_lease_counts_from_when_its_renewal_was_sent() {
        let mut own = OwnLease::new(me(), Terms { ttl_ms: 60, margin_ms: 20 });
        assert!(!own.holds(0));
        let first = own.renewal(100);
        own.answered(first, Some(true));
        assert!(own.holds(139) && !own.holds(140), "K1");
        // The answer is lost; the row tells that it was applied.
        let second = own.renewal(130);
        let stored = second.after.clone();
        own.answered(second, None);
        assert_eq!((own.standing(), own.until()), (Standing::Unsure, 140));
        own.reread(Some(stored));
        assert_eq!((own.standing(), own.until()), (Standing::Ready, 170));
        let third = own.renewal(150);
        assert_eq!(third.before.as_ref().map(|row| row.version), Some(2));
        own.answered(third, Some(false));
        own.reread(None);
        assert!(own.standing() == Standing::Lost && !own.holds(151), "K4");
        let late = own.renewal(155);
        own.answered(late, Some(true));
        assert!(own.standing() == Standing::Lost && !own.holds(156), "K4: whatever is answered");
    }

    #[test]
    fn a_first_renewal_that_comes_late_brings_no_lease_back() {
        let mut own = OwnLease::new(me(), Terms { ttl_ms: 60, margin_ms: 20 });
        let late = own.renewal(0);
        let row = late.after.clone();
        own.answered(late, None);
        own.reread(None);
        assert_eq!((own.standing(), own.until()), (Standing::Lost, 0), "K4: others may have seen it");
        own.reread(Some(row));
        assert_eq!((own.standing(), own.until()), (Standing::Lost, 0), "K4");
    }

    #[test]
    fn who_gives_its_lease_up_has_none_whatever_is_still_under_way() {
        let mut own = OwnLease::new(me(), Terms { ttl_ms: 60, margin_ms: 20 });
        let first = own.renewal(0);
        own.answered(first, Some(true));
        let second = own.renewal(10);
        assert_eq!(own.end().map(|row| row.version), Some(1));
        own.answered(second, Some(true));
        assert!(own.standing() == Standing::Lost && !own.holds(11));
    }

    #[test]
    fn a_lease_is_silent_only_after_a_whole_term_between_two_questions() {
        let mut watch = Watch::new(Terms { ttl_ms: 60, margin_ms: 20 });
        let row = NodeRow { version: 5, ..me() };
        watch.saw(10, 15, std::slice::from_ref(&row));
        watch.saw(70, 80, std::slice::from_ref(&row));
        assert_eq!(watch.silent().count(), 0, "asked 55 after the first answer");
        watch.saw(75, 76, std::slice::from_ref(&row));
        assert_eq!(watch.silent().collect::<Vec<_>>(), [&row]);
        watch.saw(77, 78, &[NodeRow { version: 6, ..me() }]);
        assert_eq!(watch.silent().count(), 0, "it moved");
        watch.saw(200, 201, &[]);
        assert_eq!(watch.silent().count(), 0, "it is gone");
    }
}
