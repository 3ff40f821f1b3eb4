//! Email addresses: the one form in which they are stored, compared and counted.
//!
//! E1  An accepted address is plain ASCII in one line: it can stand in a header and in a file name's source.
//! E2  `+alias` and dots are part of the address; nothing is folded but case.

use lettre::Address;

use crate::wire::fields::Fields;

/// Longest address.
const LENGTH_MAX: usize = 254;
/// Longest part before the `@`, and longest label of the domain.
const PART_MAX: usize = 64;
const LABEL_MAX: usize = 63;

/// Trimmed and in lower case; `None` for what cannot be an address of a mailbox on the internet.
/// International domains are accepted in their ASCII form only, as mail servers exchange them.
pub fn normalise(email: &str) -> Option<String> {
    let email = email.trim().to_ascii_lowercase();
    if email.len() > LENGTH_MAX || !email.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let (local, domain) = email.split_once('@')?;
    let sane = local_is_sane(local) && domain_is_sane(domain);
    (sane && email.parse::<Address>().is_ok()).then_some(email)
}

/// The required field `email` of a body, in its stored form; what is wrong is complained of in `fields`.
pub fn field(fields: &mut Fields) -> String {
    let given = fields.required("email");
    let stored = normalise(&given);
    if stored.is_none() && !given.is_empty() {
        fields.complain("email", "must be a valid email address");
    }
    stored.unwrap_or_default()
}

/// Words of the unquoted form joined by single dots.
fn local_is_sane(local: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    local.len() <= PART_MAX && local.split('.').all(word)
}

/// At least two labels, the last one not a number: no address literals, no hosts of the local network.
fn domain_is_sane(domain: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = domain.rsplit_once('.').map(|(_, last)| last);
    domain.split('.').all(label) && last.is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn addresses() {
        let longest = format!("{}@{}.{}.{}.org", "a".repeat(64), "b".repeat(63), "c".repeat(63), "d".repeat(57));
        assert_eq!(longest.len(), 254);
        let too_long = longest.replace(".org", "d.org");
        for (given, stored) in [
            ("alice@example.com",        Some("alice@example.com")),
            ("  Alice@Example.COM ",     Some("alice@example.com")),
            ("a.b+tag@x-y.example.org",  Some("a.b+tag@x-y.example.org")),
            ("o'neil@example.com",       Some("o'neil@example.com")),
            (longest.as_str(),           Some(longest.as_str())),
            (too_long.as_str(),          None),
            ("",                         None),
            ("alice",                    None),
            ("alice@",                   None),
            ("@example.com",             None),
            ("a@b@example.com",          None),
            ("alice@localhost",          None),
            ("alice@127.0.0.1",          None),
            ("alice@[127.0.0.1]",        None),
            ("alice@-x.com",             None),
            ("alice@x..com",             None),
            (".alice@x.com",             None),
            ("a..b@x.com",               None),
            ("al ice@x.com",             None),
            ("\"al ice\"@x.com",         None),
            ("alice@x.com\r\nBcc: b@x.org", None),
            ("alice\0@x.com",            None),
            ("alice@x.com,b@x.com",      None),
            ("alice@exämple.com",        None),
        ] {
            assert_eq!(normalise(given).as_deref(), stored, "{given:?}");
        }
    }
}
