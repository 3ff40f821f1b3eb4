//! Payload of a frame: the changes of a group, in order.
//!
//! ```text
//!   per change   put or remove u8 | key length u32 | value length u32 | key | value
//! ```

use crate::kv::KvOp;

/// Bytes in front of a key.
const CHANGE_HEADER: usize = 9;

/// What becomes of one key; no value: it goes away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
}

/// Bytes that a change takes in a payload.
pub(super) fn encoded_len(op: &KvOp) -> usize {
    CHANGE_HEADER + op.size()
}

/// Appends `ops` to `payload`.
pub(super) fn encode(ops: &[KvOp], payload: &mut Vec<u8>) {
    for op in ops {
        match op {
            KvOp::Put(key, value) => push(Change { key, value: Some(value) }, payload),
            KvOp::Remove(key) => push(Change { key, value: None }, payload),
        }
    }
}

/// Appends one change to `payload`.
pub(super) fn push(change: Change<'_>, payload: &mut Vec<u8>) {
    let value = change.value.unwrap_or_default();
    payload.push(u8::from(change.value.is_some()));
    payload.extend_from_slice(&(change.key.len() as u32).to_le_bytes());
    payload.extend_from_slice(&(value.len() as u32).to_le_bytes());
    payload.extend_from_slice(change.key);
    payload.extend_from_slice(value);
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    let raw = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*raw) as usize)
}

/// The change that starts at `at`, and where the next one does; `None` if there is no whole one.
pub(super) fn change(bytes: &[u8], at: usize) -> Option<(Change<'_>, usize)> {
    let key = at + CHANGE_HEADER;
    let value = key + length(bytes, at + 1)?;
    let end = value + length(bytes, at + 5)?;
    let put = *bytes.get(at)? == 1;
    let change = Change { key: bytes.get(key..value)?, value: put.then_some(bytes.get(value..end)?) };
    Some((change, end))
}

/// The key of a change that is known to start at `at`.
pub(super) fn key(bytes: &[u8], at: usize) -> &[u8] {
    change(bytes, at).map_or(&[], |(change, _)| change.key)
}
