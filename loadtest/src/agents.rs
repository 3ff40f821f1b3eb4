//! Who takes part: agents by number, with keys that nobody has to remember.
//!
//! R1  Handle and key of agent `n` are functions of prefix, seed and `n`: a million agents take no memory and no file.
//! R2  The key is the function that the operator surface documents for `key_seed`; it is written here once more, as any
//!     client from outside would have to.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// What the operator surface puts before the handle.
const KEY_LABEL: &[u8] = b"agentchat provisioned key 1\n";
/// Shortest seed that the operator surface takes.
pub const KEY_SEED_MIN: usize = 64;
/// Largest number of an agent, from the operator surface.
pub const NUMBER_MAX: u64 = 1_000_000_000_000;

/// All agents of a run.
#[derive(Debug, Clone)]
pub struct Roster {
    prefix: String,
    key_seed: String,
}

impl Roster {
    /// Agents `prefix-0`, `prefix-1` and so on.
    pub fn new(prefix: &str, key_seed: &str) -> Self {
        Self { prefix: prefix.to_owned(), key_seed: key_seed.to_owned() }
    }

    /// A seed for servers that are thrown away: everybody who reads this can derive it.
    pub fn public_seed(number: u64) -> String {
        hex::encode(Sha256::digest(format!("agentchat load harness {number}")))
    }

    /// Beginning of every handle.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What the operator surface is told.
    pub fn key_seed(&self) -> &str {
        &self.key_seed
    }

    /// Handle of agent `n`.
    pub fn handle(&self, n: u64) -> String {
        format!("{}-{n}", self.prefix)
    }

    /// The number of an agent of this roster.
    pub fn number(&self, handle: &str) -> Option<u64> {
        handle.strip_prefix(&self.prefix)?.strip_prefix('-')?.parse().ok()
    }

    /// Key of agent `n` (R2).
    pub fn key(&self, n: u64) -> String {
        // Keys of any length are accepted, so the error cannot happen; an empty key would be refused by the server.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key_seed.as_bytes()) else { return String::new() };
        mac.update(KEY_LABEL);
        mac.update(self.handle(n).as_bytes());
        format!("ac_live_{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_the_documented_function() {
        let roster = Roster::new("bot", &"0".repeat(64));
        assert_eq!(roster.handle(7), "bot-7");
        assert_eq!((roster.number("bot-7"), roster.number("bot7"), roster.number("other-7")), (Some(7), None, None));
        assert_eq!(roster.key(7), "ac_live_4WzKwMrcn3VKRh_TBelb5lOmdt7LcOL97bYesdQ4BIU"); // made with Python
        assert!(Roster::public_seed(1).len() >= KEY_SEED_MIN);
        assert_ne!(Roster::public_seed(1), Roster::public_seed(2));
    }
}
