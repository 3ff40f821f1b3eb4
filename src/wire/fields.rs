//! Reading request bodies and queries field by field, collecting complaints instead of stopping at the first.
//!
//! F1  Unknown keys are ignored; `null` means absent unless the caller asks for the difference.
//! F2  Every complaint names its field, so that clients can show it where it belongs.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::value::RawValue;
use unicode_normalization::UnicodeNormalization;

use super::error::{ApiError, Complaints};

/// A JSON object that arrived as a body.
#[derive(Debug, Default)]
pub struct Fields {
    values: HashMap<String, Box<RawValue>>,
    complaints: Complaints,
}

impl Fields {
    /// Parses a body; an empty one counts as `{}`.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let text = std::str::from_utf8(body).map_err(|_| ApiError::form("the body is not UTF-8"))?;
        let values = serde_json::from_str(text)
            .map_err(|error| ApiError::form(format!("the body is not a JSON object: {error}")))?;
        Ok(Self { values, complaints: Complaints::default() })
    }

    /// Adds a complaint.
    pub fn complain(&mut self, name: &str, complaint: impl Into<String>) {
        self.complaints.fields.entry(name.to_owned()).or_default().push(complaint.into());
    }

    /// Whether the key is there, `null` included.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The raw text of a value; `null` is absent.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|raw| raw.get()).filter(|raw| *raw != "null")
    }

    /// A string; anything else is a complaint.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let parsed = serde_json::from_str::<String>(self.raw(name)?);
        if parsed.is_err() {
            self.complain(name, "must be a string");
        }
        parsed.ok()
    }

    /// A string that has to be there and not be empty.
    pub fn required(&mut self, name: &str) -> String {
        match self.text(name) {
            Some(text) if !text.is_empty() => text,
            Some(_) => {
                self.complain(name, "must not be empty");
                String::new()
            }
            None => {
                if self.raw(name).is_none() {
                    self.complain(name, "is required");
                }
                String::new()
            }
        }
    }

    /// An array of strings; anything else is a complaint. `None`: absent, or complained of.
    pub fn strings(&mut self, name: &str) -> Option<Vec<String>> {
        let parsed = serde_json::from_str(self.raw(name)?);
        if parsed.is_err() {
            self.complain(name, "must be an array of strings");
        }
        parsed.ok()
    }

    /// The same, and it has to be there. `None`: complained of.
    pub fn required_strings(&mut self, name: &str) -> Option<Vec<String>> {
        if self.raw(name).is_none() {
            self.complain(name, "must be an array of strings");
        }
        self.strings(name)
    }

    /// An integer within `range`; anything else is a complaint. `None`: absent, or complained of.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = whole(self.raw(name)?).filter(|number| range.contains(number));
        if number.is_none() {
            self.complain(name, format!("must be an integer from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// Free text of at most `max` characters, in NFC. `None`: key absent. `Some(None)`: cleared by `null` or `""`.
    pub fn clearable(&mut self, name: &str, max: usize) -> Option<Option<String>> {
        if !self.has(name) {
            return None;
        }
        let text: String = self.text(name).unwrap_or_default().nfc().collect();
        if text.chars().count() > max {
            self.complain(name, format!("must be at most {max} characters"));
        }
        Some(Some(text).filter(|text| !text.is_empty()))
    }

    /// A display name: trimmed, at most 100 characters, no control characters.
    pub fn display_name(&mut self, name: &str) -> Option<Option<String>> {
        let text = self.clearable(name, usize::MAX)?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        if let Some(text) = &text {
            if text.chars().count() > 100 {
                self.complain(name, "must be at most 100 characters");
            }
            if text.chars().any(char::is_control) {
                self.complain(name, "must not contain control characters");
            }
        }
        Some(text)
    }

    /// All complaints at once.
    pub fn finish(self) -> Result<(), ApiError> {
        if self.complaints == Complaints::default() { Ok(()) } else { Err(ApiError::Validation(self.complaints)) }
    }
}

/// A number without a fraction, also when it is written as `1.0` or `1e3`: to JSON Schema these are integers too.
fn whole(raw: &str) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = || raw.parse::<f64>().ok().filter(|number| (0.0..=EXACT).contains(number) && number.fract() == 0.0);
    raw.parse().ok().or_else(|| float().map(|number| number as u64))
}

/// Query parameters; of repeated ones the last counts.
#[derive(Debug, Default)]
pub struct Query(HashMap<String, String>);

/// A page of an offset listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Most rows.
    pub limit: usize,
    /// Rows skipped.
    pub offset: usize,
}

impl Query {
    /// Over decoded pairs.
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// A parameter's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parsed parameter; what does not parse is a 400.
    pub fn parsed<T: FromStr>(&self, name: &str, complaint: &str) -> Result<Option<T>, ApiError> {
        self.text(name).map(|text| text.parse().map_err(|_| ApiError::field(name, complaint))).transpose()
    }

    /// `limit`: clamped to `max`, refused below 1.
    pub fn limit(&self, default: usize, max: usize) -> Result<usize, ApiError> {
        match self.parsed::<u128>("limit", "must be a positive integer")? {
            Some(0) => Err(ApiError::field("limit", "must be a positive integer")),
            Some(wanted) => Ok(usize::try_from(wanted).unwrap_or(max).min(max)),
            None => Ok(default),
        }
    }

    /// `limit` and `offset`.
    pub fn page(&self, default: usize, max: usize) -> Result<Page, ApiError> {
        let offset = self.parsed::<u64>("offset", "must be a non-negative integer")?.unwrap_or(0);
        Ok(Page { limit: self.limit(default, max)?, offset: usize::try_from(offset).unwrap_or(usize::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent_and_wrong_types_are_named() {
        let mut fields = Fields::parse(br#"{"a": null, "b": 1, "c": "x", "d": ""}"#).unwrap();
        assert_eq!(fields.text("a"), None);
        assert_eq!(fields.text("c").as_deref(), Some("x"));
        assert_eq!(fields.clearable("a", 5), Some(None));
        assert_eq!(fields.clearable("d", 5), Some(None));
        assert_eq!(fields.clearable("e", 5), None);
        assert_eq!(fields.text("b"), None);
        let Err(ApiError::Validation(complaints)) = fields.finish() else { panic!("a number is no string") };
        assert_eq!(complaints.fields.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn integers_are_whole_numbers_in_any_notation() {
        assert_eq!(["7", "7.0", "7e2", "0"].map(whole), [Some(7), Some(7), Some(700), Some(0)]);
        assert_eq!(["7.5", "-1", "1e300", "\"7\"", "true", "[7]"].map(whole), [None; 6]);
    }

    #[test]
    fn limits_clamp_and_refuse() {
        let query = |text: &str| Query::new(vec![("limit".into(), text.into())]);
        assert_eq!(query("1000").limit(50, 200), Ok(200));
        assert_eq!(query("99999999999999999999999").limit(50, 200), Ok(200));
        assert!(query("0").limit(50, 200).is_err());
        assert!(query("-1").limit(50, 200).is_err());
        assert!(query("x").limit(50, 200).is_err());
    }
}
