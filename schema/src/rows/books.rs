//! Which books an agent has: what is written in none of them need not be looked for when it is activated.
//!
//! B1  The account names a book before, or in the same batch as, the first entry of it. It keeps naming it afterwards:
//!     a book that is named may be empty, one that is not named is.

use serde::{Deserialize, Serialize};

/// Rows of an agent beside its account and its inbox, of which most agents have some kinds only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Book {
    /// Contacts.
    Contacts = 1,
    /// Blocks.
    Blocks = 1 << 1,
    /// Cold threads.
    Cold = 1 << 2,
    /// Reports it made.
    Reports = 1 << 3,
    /// Mutes, presence, webhooks and the like.
    State = 1 << 4,
}

/// A set of [`Book`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books(u8);

impl Books {
    /// Of a fresh account.
    pub const NONE: Self = Self(0);
    /// Of an account that does not say: each may be there.
    pub const ALL: Self = Self(u8::MAX);

    pub(super) fn all() -> Self {
        Self::ALL
    }

    /// May have entries (B1).
    pub fn has(self, book: Book) -> bool {
        self.0 & book as u8 != 0
    }

    /// These and that one.
    #[must_use]
    pub fn with(self, book: Book) -> Self {
        Self(self.0 | book as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AgentId, Key, KeyHash};
    use crate::rows::{AgentRow, Timestamp};

    #[test]
    fn an_account_that_does_not_name_its_books_may_have_them_all() {
        let row = AgentRow::new(AgentId(Key::from_bytes([1; 16])), "a", "a@b.c", KeyHash([0; 32]), Timestamp(1));
        assert_eq!(row.books, Books::NONE);
        let mut encoded = rmp_serde::to_vec(&row).expect("encodes");
        // An array of one field less, as it was written before.
        let fields = encoded[1..].to_vec();
        assert_eq!(encoded[0], 0xDC, "an array of 16 bits of length");
        let count = u16::from_be_bytes([fields[0], fields[1]]) - 1;
        encoded[1..3].copy_from_slice(&count.to_be_bytes());
        encoded.pop();
        let before: AgentRow = rmp_serde::from_slice(&encoded).expect("reads what was written before");
        assert_eq!(before.books, Books::ALL);
        assert!(before.books.has(Book::State) && !Books::NONE.with(Book::Cold).has(Book::State));
    }
}
