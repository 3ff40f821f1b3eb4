//! Mentions in message text: `@` at a word boundary, then a handle.
//!
//! N1  `@` is not preceded by a letter, digit, `_`, `-`, `.` or `@`, and the handle is not followed by a handle character.
//! N2  Lower case, unique, in order of first appearance, at most [`MENTIONS_MAX`].
//! The conversation keeps only active participants; that is not decided here.

use crate::identity::handles;

/// Most mentions kept per message.
pub const MENTIONS_MAX: usize = 50;

/// Handles mentioned in `text`.
pub fn mentions(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut before: Option<char> = None;
    for (at, letter) in text.char_indices() {
        if letter == '@' && !before.is_some_and(glues) {
            let rest = &text[at + 1..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
            // A hyphen that ends the word belongs to the sentence, as in "@alice-".
            let word = rest[..end].trim_end_matches('-').to_ascii_lowercase();
            let glued = rest[end..].chars().next().is_some_and(|next| next == '_' || next.is_alphanumeric());
            if !glued && handles::well_formed(&word) && !found.contains(&word) {
                found.push(word);
                if found.len() == MENTIONS_MAX {
                    break;
                }
            }
        }
        before = Some(letter);
    }
    found
}

/// Characters after which `@` is part of an address or a word, not a mention.
fn glues(before: char) -> bool {
    before.is_alphanumeric() || matches!(before, '_' | '-' | '.' | '@')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(mentions(text), expected);
    }

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn boundaries() {
        check("hi @alice, @Bob-2!",     &["alice", "bob-2"]);
        check("@alice @ALICE @alice",   &["alice"]);
        check("mail a@example.com",     &[]);
        check("@@alice .@alice -@bob",  &[]);
        check("(@alice)",               &["alice"]);
        check("@alice-",                &["alice"]);
        check("@al @1abc @a--bcd",      &[]);
        check("@alice_x @aliceé",       &[]);
        check("@alice.",                &["alice"]);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "[@a-zA-Z0-9_. é-]{0,60}") {
            prop_assert!(mentions(&text).len() <= MENTIONS_MAX);
        }
    }
}
