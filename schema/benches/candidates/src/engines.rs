//! The candidates behind one door, each set to be durable when `commit` returns.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use schema::embedded::{EmbeddedOptions, EmbeddedStore};
use schema::ids::{AgentId, ConversationId, Key, Pos, Seq};
use schema::rows::{ConversationRow, InboxHeadRow, InboxRow, MessageRow, MessageType, ReceiptRow, Timestamp};
use schema::store::{Batch, Store, Write};

/// Key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// What is compared.
pub const NAMES: &[&str] = &[
    "ours",
    "fjall",
    "redb",
    "heed",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
];

/// An engine that is durable when `commit` returns.
pub trait Engine: Send {
    /// One transaction, one sync.
    fn commit(&mut self, rows: &mut dyn Iterator<Item = &Row>);
}

/// Opens a candidate.
pub fn open(name: &str, dir: &Path) -> Box<dyn Engine> {
    match name {
        "fjall" => Box::new(Fjall::open(dir)),
        "redb" => Box::new(Redb::open(dir)),
        "heed" => Box::new(Heed::open(dir)),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Box::new(Rocks::open(dir)),
        other => panic!("no candidate {other}"),
    }
}

struct Fjall(fjall::Database, fjall::Keyspace);

impl Fjall {
    fn open(dir: &Path) -> Self {
        let database = fjall::Database::builder(dir).open().expect("opens");
        let keyspace = database.keyspace("rows", fjall::KeyspaceCreateOptions::default).expect("opens");
        Self(database, keyspace)
    }
}

impl Engine for Fjall {
    fn commit(&mut self, rows: &mut dyn Iterator<Item = &Row>) {
        let mut batch = self.0.batch().durability(Some(fjall::PersistMode::SyncData));
        rows.for_each(|(key, value)| batch.insert(&self.1, key.as_slice(), value.as_slice()));
        batch.commit().expect("commits");
    }
}

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("rows");

struct Redb(redb::Database);

impl Redb {
    fn open(dir: &Path) -> Self {
        Self(redb::Database::create(dir.join("redb")).expect("opens"))
    }
}

impl Engine for Redb {
    fn commit(&mut self, rows: &mut dyn Iterator<Item = &Row>) {
        let transaction = self.0.begin_write().expect("begins");
        {
            let mut table = transaction.open_table(TABLE).expect("table");
            rows.for_each(|(key, value)| drop(table.insert(key.as_slice(), value.as_slice()).expect("inserts")));
        }
        transaction.commit().expect("commits");
    }
}

struct Heed(heed::Env, heed::Database<heed::types::Bytes, heed::types::Bytes>);

impl Heed {
    fn open(dir: &Path) -> Self {
        // SAFETY: the directory is fresh and only this process maps it.
        let env = unsafe { heed::EnvOpenOptions::new().map_size(16 << 30).open(dir) }.expect("opens");
        let mut transaction = env.write_txn().expect("begins");
        let database = env.create_database(&mut transaction, None).expect("table");
        transaction.commit().expect("commits");
        Self(env, database)
    }
}

impl Engine for Heed {
    fn commit(&mut self, rows: &mut dyn Iterator<Item = &Row>) {
        let mut transaction = self.0.write_txn().expect("begins");
        rows.for_each(|(key, value)| self.1.put(&mut transaction, key, value).expect("puts"));
        transaction.commit().expect("commits");
    }
}

#[cfg(feature = "rocksdb")]
struct Rocks(rocksdb::DB);

#[cfg(feature = "rocksdb")]
impl Rocks {
    fn open(dir: &Path) -> Self {
        Self(rocksdb::DB::open_default(dir).expect("opens"))
    }
}

#[cfg(feature = "rocksdb")]
impl Engine for Rocks {
    fn commit(&mut self, rows: &mut dyn Iterator<Item = &Row>) {
        let mut batch = rocksdb::WriteBatch::default();
        rows.for_each(|(key, value)| batch.put(key, value));
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        self.0.write_opt(batch, &options).expect("writes");
    }
}

fn domain_batch(n: u64, client: usize) -> Batch {
    let mut entropy = [client as u8; 16];
    entropy[8..].copy_from_slice(&(client as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let (a, b) = (AgentId(Key::from_bytes(entropy)), AgentId(Key::from_bytes([255; 16])));
    let (id, seq, pos) = (ConversationId::direct(a, b), Seq(n + 1), Pos(n + 1));
    let message = Arc::new(MessageRow {
        conversation: id,
        seq,
        sender: a,
        sender_handle: "sender".into(),
        client_msg_id: format!("{client}-{n}"),
        kind: MessageType::Text,
        content: format!("{{\"text\":\"{}\"}}", "x".repeat(200)),
        metadata: "{}".into(),
        mentions: vec![],
        created_at: Timestamp(n),
    });
    let row = ConversationRow {
        id,
        members: vec![],
        established: true,
        cold: None,
        opened_by: a,
        last_seq: seq,
        fanned_out: seq,
        created_at: Timestamp(1),
        last_message_at: Timestamp(n),
    };
    let writes = vec![
        Write::Message(Arc::clone(&message)),
        Write::Conversation(Box::new(row)),
        Write::Inbox(a, InboxRow { pos, message }),
        Write::Receipt(a, id, seq, ReceiptRow::default()),
        Write::InboxHead(a, InboxHeadRow { last_pos: pos, backlog: 1, floor: Pos(0) }),
    ];
    Batch { writes, ..Batch::default() }
}

/// The server's own engine, through its own door.
pub fn ours(dir: &Path, clients: usize, run: Duration) -> f64 {
    let store = EmbeddedStore::open(dir, EmbeddedOptions::default()).expect("opens");
    let (done, started) = (AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (store, done) = (&store, &done);
            let run = move || {
                for n in 0.. {
                    let (ack, acked) = channel();
                    store.submit(vec![domain_batch(n, client)], Box::new(move |outcomes| drop(ack.send(outcomes))));
                    assert_eq!(acked.recv().expect("answered"), [Ok(())]);
                    done.fetch_add(1, Ordering::Relaxed);
                    if started.elapsed() >= run {
                        break;
                    }
                }
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, run).expect("thread");
        }
    });
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}
