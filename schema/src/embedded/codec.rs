//! Payload of a frame: the changes of a group, in order.
//!
//! ```text
//!   per change   put or remove u8 | key length u32 | value length u32 | key | value
//! ```

use lsm_tree::{AbstractTree, AnyTree};

use crate::kv::KvOp;

/// Puts one batch into the tree under one sequence number.
pub(super) fn insert(tree: &AnyTree, ops: Vec<KvOp>, seqno: u64) {
    for op in ops {
        match op {
            KvOp::Put(key, value) => tree.insert(key, value, seqno),
            KvOp::Remove(key) => tree.remove(key, seqno),
        };
    }
}

/// The bytes of one batch; those of a group follow each other.
pub(super) fn encode(ops: &[KvOp]) -> Vec<u8> {
    let mut payload = Vec::new();
    for op in ops {
        let (tag, key, value) = match op {
            KvOp::Put(key, value) => (1u8, key, value.as_slice()),
            KvOp::Remove(key) => (0u8, key, [].as_slice()),
        };
        payload.push(tag);
        payload.extend_from_slice(&(key.len() as u32).to_le_bytes());
        payload.extend_from_slice(&(value.len() as u32).to_le_bytes());
        payload.extend_from_slice(key);
        payload.extend_from_slice(value);
    }
    payload
}

/// The changes in a payload, or `None` if it is not one.
pub(super) fn decode(mut rest: &[u8]) -> Option<Vec<KvOp>> {
    let mut ops = Vec::new();
    while let Some((tag, tail)) = rest.split_first() {
        let (key_len, tail) = tail.split_first_chunk::<4>()?;
        let (value_len, tail) = tail.split_first_chunk::<4>()?;
        let (key, tail) = tail.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        let (value, tail) = tail.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
        ops.push(if *tag == 1 { KvOp::Put(key.to_vec(), value.to_vec()) } else { KvOp::Remove(key.to_vec()) });
        rest = tail;
    }
    Some(ops)
}
