//! Times of rows that no entity owns: files and remembered answers, written by whichever gateway was asked.
//!
//! U1  A row says its own time, so that gateways whose clocks differ agree on which of two rows is the later one.
//! U2  Only these two tables are written without an epoch. Handles, emails and codes change by transactions; rows of a
//!     creation are earlier than every epoch; everything else belongs to a shard, and nobody else may write it.

use super::pipeline::Change;
use crate::kv::keys::{self, Table};
use crate::rows::{AttachmentRow, IdempotencyRow};
use crate::store::StoreError;

/// What a file goes through. Its id is never given again, and what was uploaded is never removed. The sweep removes an
/// announcement at the announcement's time: of two writes of one time the removal wins, and an upload wins over both.
const ANNOUNCED: i64 = 1;
const UPLOADED: i64 = 2;

/// The time at which a row is written.
pub(super) fn time_of(Change(key, value): &Change) -> Result<i64, StoreError> {
    match (Table::of(key), value) {
        (Some(Table::Attachment), Some(value)) => {
            let file: AttachmentRow = keys::decode(key, value)?;
            Ok(if file.uploaded { UPLOADED } else { ANNOUNCED })
        }
        // An answer replaces another one when that has expired, a day later, so clocks would have to differ by as much;
        // of two that were given to one request at once either may stay. Microseconds, from the row's milliseconds.
        (Some(Table::Idempotency), Some(value)) => {
            let answer: IdempotencyRow = keys::decode(key, value)?;
            let at = i64::try_from(answer.at.0).ok().and_then(|ms| ms.checked_mul(1_000));
            at.ok_or_else(|| StoreError::Corrupt(format!("an answer of the year {}", answer.at.0 / 31_556_952_000)))
        }
        (table, _) => {
            let table = table.map_or("no table", Table::name);
            Err(StoreError::Unavailable(format!("{table}: only the owner of their shard writes them")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::CqlBackend;
    use crate::ids::{AgentId, Key};
    use crate::kv::Backend;
    use crate::kv::KvOp;
    use crate::rows::Timestamp;
    use crate::store::Write;

    fn time(write: &Write) -> Result<i64, StoreError> {
        let mut ops = Vec::new();
        keys::encode(write, CqlBackend::COPIED_MAX, &mut ops).expect("encodes");
        match ops.pop().expect("a row") {
            KvOp::Put(key, value) => time_of(&Change(key, Some(value))),
            KvOp::Remove(key) => time_of(&Change(key, None)),
        }
    }

    fn file(uploaded: bool, created_at: u64) -> Write {
        let uploader = AgentId(Key::from_bytes([1; 16]));
        Write::Attachment(Box::new(AttachmentRow {
            id: "att_0123456789abcdef".into(),
            uploader,
            to: None,
            scope: None,
            filename: "a.txt".into(),
            content_type: "text/plain".into(),
            size: 1,
            sha256: String::new(),
            uploaded,
            created_at: Timestamp(created_at),
        }))
    }

    fn answer(at: u64) -> Write {
        let row =
            IdempotencyRow { key: "k".into(), fingerprint: [0; 32], status: 200, body: Vec::new(), at: Timestamp(at) };
        Write::Idempotency(AgentId(Key::from_bytes([1; 16])), Box::new(row))
    }

    #[test]
    fn a_row_says_its_own_time() {
        // Whoever announced it, and by whatever clock, the upload is later (U1).
        assert_eq!((time(&file(false, 1 << 40)), time(&file(true, 7))), (Ok(ANNOUNCED), Ok(UPLOADED)));
        assert_eq!(time(&answer(86_400_000)), Ok(86_400_000_000));
        assert!(matches!(time(&answer(u64::MAX)), Err(StoreError::Corrupt(_))));
        let agent = AgentId(Key::from_bytes([1; 16]));
        let unowned = [Write::AgentState(agent, Box::default()), Write::BlockRemove(agent, "bob".into())];
        assert!(unowned.iter().all(|write| matches!(time(write), Err(StoreError::Unavailable(_)))), "U2");
    }
}
