//! Handles: their grammar, their one normal form, and which of them nobody may register.
//!
//! H1  Every handle in a path, query or body is normalised before it is looked up or compared.
//! H2  Reserved words bind registration only: an agent that already has one is found like any other.

/// Shortest and longest handle.
const LENGTH: std::ops::RangeInclusive<usize> = 3..=30;

/// Prefixes kept for the platform.
const RESERVED_PREFIXES: [&str; 2] = ["agentchat-", "chatfather-"];

/// Words that nobody may register.
const RESERVED: &str = "about abuse access account accounts ack activity admin administrator agent agent-chat \
    agentchat agentchat-official agentchat-support agentchatme agents alert alerts all anonymous api app apps assets \
    assistant attachment attachments auth avatar avatars backup batch billing block blocked blocks blog bot bots \
    broadcast careers cdn channel channels chat chat-father chatfather claim claims compliance config console contact \
    contacts conversation conversations daemon dashboard data debug deleted demote demo dev developer developers \
    directory dns docs documentation domain download email error everyone example favicon feed feedback file files \
    forum ftp graphql group groups guest handle handles health healthz help helpdesk hermes home hostmaster http https \
    inbox index info install internal invite invites jobs leave legal list localhost login logout mail mailer-daemon \
    mcp media member members message messages metrics mod moderation moderator mods mute mutes nan news no-reply none \
    noreply notification notifications null oauth official openapi openclaw operator ops outbox owner owners password \
    pay payments ping platform plugin plugins policy postmaster presence press pricing privacy private profile promote \
    public read ready realtime recover recovery register reply report reports reserved robots root rotate-key safety \
    sales schema sdk search secure security server service services session settings shop signin signup skill skills \
    smtp socket sso staff static status store sudo superuser support sync sys sysadmin system team terms test testing \
    trust typing undefined unknown unsubscribe update upload uploads user users verify version void web webhook \
    webhooks webmaster websocket www";

/// The form in which handles are stored and compared: trimmed, one leading `@` stripped, lower case.
pub fn normalise(handle: &str) -> String {
    let trimmed = handle.trim();
    // ASCII only: the full mapping would turn a Kelvin sign into a plain `k`, and another name into this one.
    trimmed.strip_prefix('@').unwrap_or(trimmed).to_ascii_lowercase()
}

/// Whether a normalised handle can belong to anybody: words of letters and digits joined by single hyphens, the first
/// one starting with a letter.
pub fn well_formed(handle: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    LENGTH.contains(&handle.len())
        && handle.starts_with(|first: char| first.is_ascii_lowercase())
        && handle.split('-').all(word)
}

/// Whether a normalised handle may be registered; `extra_reserved` are the operator's additions.
pub fn registrable(handle: &str, extra_reserved: &[String]) -> bool {
    well_formed(handle)
        && !RESERVED.split(' ').any(|word| word == handle)
        && !RESERVED_PREFIXES.iter().any(|prefix| handle.starts_with(prefix))
        && !extra_reserved.iter().any(|word| normalise(word) == handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn one_normal_form() {
        for (given, normal) in [
            ("alice",     "alice"),
            ("@Alice",    "alice"),
            ("  @ALICE ", "alice"),
            ("@@alice",   "@alice"), // only one goes: what is left is malformed
            ("@ alice",   " alice"),
            ("\u{212a}ate", "\u{212a}ate"), // a Kelvin sign is no `k`
            ("",          ""),
        ] {
            assert_eq!(normalise(given), normal, "{given:?}");
        }
    }

    #[test]
    fn grammar() {
        let longest = "a".repeat(30);
        let too_long = "a".repeat(31);
        for good in ["abc", "a1b", "a-b", "a-1", "my-agent-2", "a1-2-3", longest.as_str()] {
            assert!(well_formed(good), "{good}");
        }
        for bad in
            ["", "ab", "1ab", "-ab", "ab-", "a--b", "a_b", "a.b", "a b", "Abc", "@abc", "äbc", "ab\u{212a}", &too_long]
        {
            assert!(!well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn reserved_words_and_prefixes_cannot_be_registered() {
        assert_eq!(RESERVED.split(' ').filter(|word| word.is_empty()).count(), 0, "the list is cut at single spaces");
        for word in ["about", "admin", "agent-chat", "rotate-key", "www", "chatfather", "mailer-daemon", "test"] {
            assert!(!registrable(word, &[]), "{word}");
        }
        for word in ["agentchat-helper", "chatfather-2", "ab", "Bad"] {
            assert!(!registrable(word, &[]), "{word}");
        }
        for word in ["alice", "admins", "agentchats", "chatfathers", "my-admin"] {
            assert!(registrable(word, &[]), "{word}");
        }
        assert!(!registrable("acme", &["Acme".to_owned()]));
    }
}
