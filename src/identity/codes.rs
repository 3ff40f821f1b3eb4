//! One-time codes at rest: made, checked, counted.
//!
//! C1  Neither a code nor a key is ever stored or logged; rows carry SHA-256 over id and code.
//! C2  A pending admits [`ATTEMPTS_MAX`] wrong codes. Each one is durable before it is answered, and is counted from the
//!     row as it was read or not at all, so parallel guesses cost as much as guesses in a row, on one node or on many.
//! C3  Unknown, timed out, used up and of another kind are one and the same answer.
//! C4  A row is changed only from what it was, and on one node by whoever has its turn, so what has ended does not come
//!     back.
//! C5  A decoy behaves like a pending whose code nobody knows.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::Rng;
use schema::rows::{PendingPurpose, PendingRow, Timestamp};
use schema::store::{Store, StoreError};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::OwnedMutexGuard;

use super::fresh_key;
use crate::wire::error::ApiError;

/// Wrong codes that a pending survives.
pub(super) const ATTEMPTS_MAX: u8 = 5;
/// How long a code works.
pub(super) const LIFETIME_MS: u64 = 10 * 60 * 1_000;
/// Checks that can run side by side; of one pending it is one at a time.
const TURNS: usize = 64;
/// Times that a row is read again because another node has changed it: each time it has one attempt less.
const RACES_MAX: u8 = ATTEMPTS_MAX + 1;
/// Started pendings whose rows are still to be removed once they time out.
const STARTED_MAX: usize = 100_000;
/// Rows removed per new start: more than one, so that the rest of a burst goes as well.
const REMOVED_PER_START: usize = 4;

/// Whether this can be a code at all: six ASCII digits.
pub fn well_shaped(code: &str) -> bool {
    code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit())
}

/// Six random digits.
pub(super) fn new_code() -> String {
    format!("{:06}", rand::rng().random_range(0..1_000_000_u32))
}

/// `ac_live_` and 256 random bits.
pub fn new_api_key() -> String {
    format!("ac_live_{}", BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

fn hash(id: &str, code: &str) -> [u8; 32] {
    Sha256::new().chain_update(id).chain_update(code).finalize().into()
}

fn is_pending_id(id: &str) -> bool {
    let suffix = id.strip_prefix("pnd_").unwrap_or_default();
    suffix.len() == 16 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The only one who may judge or change a pending while this lives (C2).
pub(super) type Turn = OwnedMutexGuard<()>;

/// The pendings of a store.
pub(super) struct Codes {
    store: Arc<dyn Store>,
    turns: Vec<Arc<tokio::sync::Mutex<()>>>,
    hasher: RandomState,
    /// Oldest first, as all live equally long.
    started: Mutex<VecDeque<(Timestamp, String)>>,
}

impl Codes {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        let turns = (0..TURNS).map(|_| Arc::default()).collect();
        Self { store, turns, hasher: RandomState::new(), started: Mutex::default() }
    }

    async fn turn(&self, id: &str) -> Turn {
        let place = self.hasher.hash_one(id) as usize % self.turns.len();
        Arc::clone(&self.turns[place]).lock_owned().await
    }

    /// Stores a new pending and returns its id. Without a code nothing will ever match it.
    pub(super) async fn put(
        &self,
        now: Timestamp,
        email: &str,
        purpose: PendingPurpose,
        code: Option<&str>,
    ) -> Result<String, StoreError> {
        let id = format!("pnd_{}", fresh_key().as_str());
        let code_hash = code.map_or_else(rand::random, |code| hash(&id, code));
        let expires_at = now.plus_ms(LIFETIME_MS);
        let row = PendingRow { id: id.clone(), email: email.to_owned(), purpose, code_hash, attempts: 0, expires_at };
        self.store.put_pending(row).await?;
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if started.len() >= STARTED_MAX {
            // Its row stays behind, timed out: better than a queue without end.
            started.pop_front();
        }
        started.push_back((expires_at, id.clone()));
        Ok(id)
    }

    /// Gives a decoy a code and a purpose. Guesses made meanwhile stay counted. `false`: it is gone.
    pub(super) async fn arm(&self, id: &str, purpose: PendingPurpose, code: &str) -> Result<bool, StoreError> {
        let _turn = self.turn(id).await;
        for _ in 0..RACES_MAX {
            let Some(row) = self.store.pending(id).await? else { return Ok(false) };
            let armed = PendingRow { purpose: purpose.clone(), code_hash: hash(id, code), ..row.clone() };
            if self.store.replace_pending(&row, armed).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The pending, if `code` is its code. Nobody else judges it before the turn is dropped.
    pub(super) async fn check(
        &self,
        now: Timestamp,
        id: &str,
        code: &str,
        wanted: impl Fn(&PendingPurpose) -> bool + Send,
    ) -> Result<(PendingRow, Turn), ApiError> {
        if !is_pending_id(id) {
            return Err(ApiError::Expired);
        }
        let turn = self.turn(id).await;
        for _ in 0..RACES_MAX {
            let row = self.store.pending(id).await?.filter(|row| wanted(&row.purpose));
            let row = row.filter(|row| now < row.expires_at && row.attempts < ATTEMPTS_MAX).ok_or(ApiError::Expired)?;
            let decoy = matches!(row.purpose, PendingPurpose::Recover { decoy: true, .. });
            if bool::from(row.code_hash.ct_eq(&hash(id, code))) && !decoy {
                return Ok((row, turn));
            }
            let counted = PendingRow { attempts: row.attempts + 1, ..row.clone() };
            // A failure here answers as a failure would after the right code: the guess learns nothing for free.
            if self.store.replace_pending(&row, counted).await? {
                return Err(ApiError::InvalidCode);
            }
        }
        Err(ApiError::Expired)
    }

    /// Ends a pending that nobody should use any more. Waits for its turn, as whoever has it may write the row again.
    pub(super) async fn end(&self, id: &str) -> Result<(), StoreError> {
        let _turn = self.turn(id).await;
        self.store.take_pending(id).await.map(drop)
    }

    /// Consumes a pending that was checked; `true` for exactly one caller.
    pub(super) async fn take(&self, _: &Turn, id: &str) -> Result<bool, StoreError> {
        self.store.take_pending(id).await
    }

    /// Puts a pending back that was taken for a change that then failed.
    pub(super) async fn put_back(&self, _: &Turn, row: PendingRow) -> Result<(), StoreError> {
        self.store.put_pending(row).await
    }

    /// Some that have timed out and whose rows can go.
    pub(super) fn timed_out(&self, now: Timestamp) -> Vec<String> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let due = started.iter().take(REMOVED_PER_START).take_while(|(expires_at, _)| *expires_at <= now).count();
        started.drain(..due).map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_codes_have_their_published_shapes() {
        let key = new_api_key();
        assert_eq!(key.len(), 51);
        let suffix = key.strip_prefix("ac_live_").unwrap();
        assert!(suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{suffix}");
        assert_ne!(key, new_api_key());
        (0..100).for_each(|_| assert!(well_shaped(&new_code())));
        for bad in ["", "12345", "1234567", "12345a", " 12345", "١٢٣٤٥٦", "12345\n"] {
            assert!(!well_shaped(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_same_code_hashes_differently_for_every_pending() {
        assert_ne!(hash("pnd_a", "123456"), hash("pnd_b", "123456"));
        assert!(is_pending_id("pnd_0123456789abcDEF"));
        for bad in
            ["", "pnd_", "0123456789abcDEF", "pnd_0123456789abcDE", "pnd_0123456789abcDE!", "pend_0123456789abcDEF"]
        {
            assert!(!is_pending_id(bad), "{bad}");
        }
    }
}
