//! One-time codes across nodes: how they are spaced, and which pending of a slot is the live one. The pendings
//! themselves are rows of the store, which every node reads: nothing of a code is here.

use std::sync::LazyLock;

use redis::Script;
use sha2::{Digest, Sha256};

use super::{PREFIX, Purpose, Shared};

/// `KEYS[1]`: when codes went out, in milliseconds of Redis's clock, oldest first. `ARGV`: cooldown in milliseconds,
/// codes per hour (0 lifts either), the hour in milliseconds. Answers how long to wait, and when this one was counted.
static SPACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
         local now = time[1] * 1000 + math.floor(time[2] / 1000)
         local cooldown, most, hour = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
         local wait, last = 0, redis.call('LINDEX', KEYS[1], -1)
         if last then wait = math.max(wait, last + cooldown - now) end
         if most > 0 then
           local first = redis.call('LINDEX', KEYS[1], -most)
           if first then wait = math.max(wait, first + hour - now) end
         end
         if wait > 0 then return {wait, 0} end
         redis.call('RPUSH', KEYS[1], string.format('%.0f', now))
         redis.call('LTRIM', KEYS[1], -math.max(most, 1), -1)
         redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(cooldown, hour)))
         return {0, now}",
    )
});

/// How codes to one address and purpose are spaced.
#[derive(Debug, Clone, Copy)]
pub struct Spaced {
    /// Between two codes; `None` lifts.
    pub cooldown_ms: Option<u64>,
    /// In an hour; `None` lifts.
    pub per_hour: Option<u32>,
    /// The hour.
    pub hour_ms: u64,
}

/// A key that says nothing about what it is made of.
fn key(kind: &str, purpose: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("{PREFIX}:{kind}:{purpose}:{}", hex::encode(hash.finalize()))
}

impl Shared {
    /// Counts a code to an address and answers its mark, or for how many milliseconds none may be sent.
    pub async fn space_code(&self, purpose: &str, email: &str, rules: Spaced) -> Option<Result<u64, u64>> {
        self.0.as_ref()?;
        let mut script = SPACE.key(key("codes", purpose, &[email]));
        script.arg(rules.cooldown_ms.unwrap_or(0)).arg(rules.per_hour.unwrap_or(0)).arg(rules.hour_ms);
        let ask = |mut connection| async move { script.invoke_async::<(u64, u64)>(&mut connection).await };
        let (wait_ms, mark) = self.call(Purpose::Codes, ask).await?;
        Some(if wait_ms == 0 { Ok(mark) } else { Err(wait_ms) })
    }

    /// Takes back what [`Self::space_code`] counted under this mark: that code never left.
    pub async fn give_code_back(&self, purpose: &str, email: &str, mark: u64) {
        let mut command = redis::cmd("LREM");
        command.arg(key("codes", purpose, &[email])).arg(-1).arg(mark);
        // Unreachable: the code stays counted, and that ends by itself.
        self.call(Purpose::Codes, |mut connection| async move { command.exec_async(&mut connection).await }).await;
    }

    /// Makes `id` the live pending of a slot for as long as it lives; answers the one that was before it, if there is
    /// one and Redis tells.
    pub async fn replace_pending(&self, purpose: &str, slot: &[&str], id: &str, lifetime_ms: u64) -> Option<String> {
        self.0.as_ref()?;
        let mut command = redis::cmd("SET");
        command.arg(key("pending", purpose, slot)).arg(id).arg("PX").arg(lifetime_ms).arg("GET");
        let ask = |mut connection| async move { command.query_async::<Option<String>>(&mut connection).await };
        self.call(Purpose::Codes, ask).await.flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hide_addresses_and_keep_slots_apart() {
        let of = |parts: &[&str]| key("pending", "recover", parts);
        assert!(!of(&["alice@example.com"]).contains("alice"));
        assert_ne!(of(&["a", "bc"]), of(&["ab", "c"]));
        assert_ne!(of(&["a"]), of(&["a", ""]));
        assert_ne!(key("pending", "register", &["a"]), of(&["a"]));
    }
}
