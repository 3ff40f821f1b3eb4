//! Where a key lies in CQL: table, partition, bucket, place.
//!
//! Y1  Keys of one table compare within a partition as they do in `kv::keys`: the place is the rest of the key.
//! Y2  Ranges of one read share their partition and differ at most in bucket and place; buckets ascend with keys, or a
//!     hash spreads the rows, and a range is merged out of all buckets (`merge`). A row lies in exactly one of them.
//! Y3  What one entity changes in its own small rows lies in one partition, so it becomes visible at once.

use xxhash_rust::xxh3::xxh3_64;

use crate::kv::keys::Table;
use crate::store::StoreError;

/// A table of `schema/cql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Home {
    Agents,
    Conversations,
    Messages,
    Inboxes,
    Receipts,
    Replays,
    ApiKeys,
    Watchers,
    Directory,
    Reports,
    Attachments,
    AttachmentUses,
    Answers,
    Handles,
    Emails,
    Pendings,
    Owners,
    Events,
}

impl Home {
    /// In the order of their numbers.
    pub(super) const ALL: [Self; 18] = [
        Self::Agents,
        Self::Conversations,
        Self::Messages,
        Self::Inboxes,
        Self::Receipts,
        Self::Replays,
        Self::ApiKeys,
        Self::Watchers,
        Self::Directory,
        Self::Reports,
        Self::Attachments,
        Self::AttachmentUses,
        Self::Answers,
        Self::Handles,
        Self::Emails,
        Self::Pendings,
        Self::Owners,
        Self::Events,
    ];

    /// Its name in `schema/cql`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Conversations => "conversations",
            Self::Messages => "messages",
            Self::Inboxes => "inboxes",
            Self::Receipts => "receipts",
            Self::Replays => "replays",
            Self::ApiKeys => "api_keys",
            Self::Watchers => "watchers",
            Self::Directory => "directory",
            Self::Reports => "reports",
            Self::Attachments => "attachments",
            Self::AttachmentUses => "attachment_uses",
            Self::Answers => "answers",
            Self::Handles => "handles",
            Self::Emails => "emails",
            Self::Pendings => "pendings",
            Self::Owners => "owners",
            Self::Events => "events",
        }
    }
}

impl Home {
    /// Rows of several kinds lie in one partition, told apart by the byte that starts their place.
    fn is_shared(self) -> bool {
        matches!(self, Self::Agents | Self::Conversations | Self::Owners)
    }
}

/// How partitions of a table are kept from growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bucket {
    /// They cannot.
    One,
    /// By the number that ends the key, shifted right.
    Number(u32),
    /// By the next byte.
    Byte,
    /// By a hash of the rest of the key, into so many.
    Hash(i64),
}

/// Messages and positions: 512 to a partition, at most 16 MiB of them.
const LOG_SHIFT: u32 = 9;
/// Receipts are small.
const RECEIPT_SHIFT: u32 = 12;
/// Handles that start with the same two characters: names made in bulk all do. A row has some 100 bytes, so 16 million
/// of them make 100 MB in each bucket. Only searches, which are rare, read all of them.
const DIRECTORY_BUCKETS: i64 = 16;
/// Books that have one agent: a service that everybody knows is in all of them. A row has some 100 bytes, so 8 million
/// books make 100 MB in each bucket. Whoever watches an agent is read when its presence changes, so they are as few as
/// will do.
const WATCHER_BUCKETS: i64 = 8;
/// What a handle's partition is made of. No handle is shorter, and no search.
const DIRECTORY: usize = 2;
/// Keys and ids: bytes of an agent or owner, of a conversation.
const AGENT: usize = 16;
const CONVERSATION: usize = 17;
/// The whole key.
const WHOLE: usize = usize::MAX;

/// Table, bytes of the key that make the partition, bucket.
fn layout(table: Table) -> (Home, usize, Bucket) {
    match table {
        Table::Message => (Home::Messages, CONVERSATION, Bucket::Number(LOG_SHIFT)),
        Table::Conversation | Table::Group => (Home::Conversations, CONVERSATION, Bucket::One),
        Table::Inbox => (Home::Inboxes, AGENT, Bucket::Number(LOG_SHIFT)),
        Table::Receipt => (Home::Receipts, AGENT + CONVERSATION, Bucket::Number(RECEIPT_SHIFT)),
        // Views and books have a row of some 150 bytes for each conversation and contact: 700,000 of them make 100 MB.
        // They stay in one partition nevertheless (Y3). The contract sets no number. An agent opens 100 conversations a
        // day that are not answered, others open as many with it as they like, and a book takes 60 entries a second at
        // most, of 4 KB at most (1,000 characters of notes), so that only an agent that means to gets there. It is its
        // own rows that become slow then: both lists are read whole, by its own requests and when its shard loads it,
        // and that hurts at 100,000 (15 MB), long before the partition does.
        Table::InboxHead
        | Table::AgentConversation
        | Table::Agent
        | Table::Contact
        | Table::Block
        | Table::ColdThread
        | Table::Invite
        | Table::AgentState => (Home::Agents, AGENT, Bucket::One),
        Table::KeyHash => (Home::ApiKeys, WHOLE, Bucket::One),
        Table::Handle => (Home::Handles, WHOLE, Bucket::One),
        Table::Email => (Home::Emails, WHOLE, Bucket::One),
        Table::Pending => (Home::Pendings, WHOLE, Bucket::One),
        Table::Replay => (Home::Replays, WHOLE, Bucket::One),
        Table::Watcher => (Home::Watchers, AGENT, Bucket::Hash(WATCHER_BUCKETS)),
        Table::Report => (Home::Reports, 0, Bucket::Byte),
        Table::Directory => (Home::Directory, DIRECTORY, Bucket::Hash(DIRECTORY_BUCKETS)),
        Table::Attachment => (Home::Attachments, WHOLE, Bucket::One),
        Table::AttachmentUse => (Home::AttachmentUses, ATTACHMENT, Bucket::One),
        Table::Idempotency => (Home::Answers, WHOLE, Bucket::One),
        // Bounded by their number, so one partition holds them.
        Table::Owner | Table::Claim | Table::OwnerEvent => (Home::Owners, AGENT, Bucket::One),
        Table::Event => (Home::Events, AGENT, Bucket::One),
    }
}

/// Characters of an attachment's id.
const ATTACHMENT: usize = 20;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Partition {
    /// Table.
    pub(super) home: Home,
    /// `p`.
    pub(super) key: Vec<u8>,
    /// `b`.
    pub(super) bucket: i64,
}

/// Where one row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its partition.
    pub(super) partition: Partition,
    /// `c`.
    pub(super) place: Vec<u8>,
}

impl Place {
    /// The place of a whole key.
    pub(super) fn of(key: &[u8]) -> Result<Self, StoreError> {
        Self::bound(key, 0x00)
    }

    /// The place of a bound that may lack its end: what lacks counts as `pad`.
    pub(super) fn bound(key: &[u8], pad: u8) -> Result<Self, StoreError> {
        let table = Table::of(key).ok_or_else(|| StoreError::Corrupt("a key of no table".to_owned()))?;
        let (home, cut, by) = layout(table);
        let rest = &key[1..];
        let (partition, tail) = rest.split_at(cut.min(rest.len()));
        let bucket = match by {
            Bucket::One => 0,
            Bucket::Byte => i64::from(tail.first().copied().unwrap_or(pad)),
            Bucket::Hash(buckets) => (xxh3_64(tail) >> 1).cast_signed() % buckets,
            Bucket::Number(shift) => {
                let byte = |n: usize| tail.get(n).copied().unwrap_or(pad);
                (u64::from_be_bytes(std::array::from_fn(byte)) >> shift).cast_signed()
            }
        };
        let place = if home.is_shared() { [&key[..1], tail].concat() } else { tail.to_vec() };
        // A partition key may not be empty.
        let key = if partition.is_empty() { key[..1].to_vec() } else { partition.to_vec() };
        Ok(Self { partition: Partition { home, key, bucket }, place })
    }
}

/// Among how many buckets a hash spreads the partition of a range that starts at `from`; `None` where buckets ascend.
pub(super) fn spread(from: &[u8]) -> Result<Option<i64>, StoreError> {
    match Table::of(from).map(layout) {
        Some((home, cut, Bucket::Hash(_))) if from.len() <= cut => {
            Err(StoreError::Unavailable(format!("a range over every partition of {}", home.name())))
        }
        Some((_, _, Bucket::Hash(buckets))) => Ok(Some(buckets)),
        _ => Ok(None),
    }
}

/// Turns a place back into the key; `like` is any key of the same table and partition.
pub(super) fn key_at(like: &[u8], place: &[u8]) -> Vec<u8> {
    let (home, cut, _) = Table::of(like).map_or((Home::Agents, 0, Bucket::One), layout);
    let partition = &like[..like.len().min(1 + cut.min(like.len()))];
    match home {
        home if home.is_shared() => [partition, &place[1..]].concat(),
        _ => [partition, place].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_buckets_ascend() {
        let seq = |n: u64| [&[1][..], &[7; 17], &n.to_be_bytes()].concat();
        let mut before = -1;
        for n in [0, 1, 511, 512, 1 << 40] {
            let at = Place::of(&seq(n)).expect("a table");
            assert_eq!(key_at(&seq(1), &at.place), seq(n), "Y1");
            assert!(at.partition.bucket >= before, "Y2");
            assert_eq!(at.partition.bucket, i64::try_from(n / 512).expect("small"));
            before = at.partition.bucket;
        }
        let contact = [&[12][..], &[5; 16], b"bob"].concat();
        let at = Place::of(&contact).expect("a table");
        assert_eq!((at.partition.home, at.place.as_slice()), (Home::Agents, &b"\x0cbob"[..]));
        assert_eq!(key_at(&contact, &at.place), contact);
        let report = [&[20][..], b"abc"].concat();
        let at = Place::of(&report).expect("a table");
        assert_eq!((at.partition.bucket, key_at(&[20], &at.place)), (i64::from(b'a'), report));
        assert_eq!(spread(&[20]), Ok(None));
        let all = (Place::bound(&[20], 0).expect("a table"), Place::bound(&[20, 0xFF], 0xFF).expect("a table"));
        assert_eq!((all.0.partition.bucket, all.1.partition.bucket), (0, 255));
    }

    #[test]
    fn what_may_grow_is_spread_and_found_again() {
        let entry = |handle: &str| [&[21][..], handle.as_bytes()].concat();
        let mut rows = [0; DIRECTORY_BUCKETS as usize];
        for n in 0..1_600 {
            let key = entry(&format!("agent-{n}"));
            let at = Place::of(&key).expect("a table");
            assert_eq!((at.partition.home, at.partition.key.as_slice()), (Home::Directory, &b"ag"[..]));
            assert_eq!(key_at(&entry("ag"), &at.place), key, "Y1");
            assert_eq!(Place::of(&key), Ok(at.clone()), "Y2: one bucket, always the same");
            rows[usize::try_from(at.partition.bucket).expect("Y2: a bucket")] += 1;
        }
        assert!(rows.iter().all(|rows| (50..200).contains(rows)), "{rows:?}");
        assert_eq!(spread(&entry("ag")), Ok(Some(DIRECTORY_BUCKETS)));
        assert!(spread(&entry("a")).is_err(), "no search is that short");
        let watchers = [&[18][..], &[b'x'; 16]].concat();
        assert_eq!(spread(&watchers), Ok(Some(WATCHER_BUCKETS)));
        // Where a row lies is part of the format.
        assert_eq!(Place::of(&entry("alice")).expect("a table").partition.bucket, 4);
    }
}
