//! A small validating scanner for client JSON that is stored as text.
//!
//! J1  The output is the input without whitespace outside strings: numbers and escapes keep their spelling.
//! J2  The output always parses: nesting at most [`DEPTH_MAX`], no lone surrogates, no duplicate top-level keys.
//! J3  Garbage is refused, never a panic; work and stack are bounded by the body limit and [`DEPTH_MAX`].

use std::collections::HashSet;

/// Deepest nesting that is stored. Parsers of clients commonly stop at 100.
pub const DEPTH_MAX: usize = 64;

/// Why a text is not storable JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not an object at the top.
    #[error("must be an object")]
    NotAnObject,
    /// Not JSON.
    #[error("is not valid JSON")]
    Syntax,
    /// Too deep.
    #[error("is nested too deeply (at most 64 levels)")]
    TooDeep,
    /// Half of a surrogate pair.
    #[error("contains a lone surrogate escape")]
    LoneSurrogate,
    /// The same key twice at the top.
    #[error("contains a key twice")]
    DuplicateKey,
}

/// Compacts a JSON object, leaving out top-level entries of `drop_null` whose value is `null`.
pub fn compact_object(text: &str, drop_null: &[&str]) -> Result<String, JsonFault> {
    let mut scan = Scan { input: text.as_bytes(), at: 0, out: Vec::with_capacity(text.len()) };
    scan.space();
    if scan.peek() != Some(b'{') {
        return Err(JsonFault::NotAnObject);
    }
    scan.object(1, Some(drop_null))?;
    scan.space();
    if scan.at != scan.input.len() {
        return Err(JsonFault::Syntax);
    }
    String::from_utf8(scan.out).map_err(|_| JsonFault::Syntax)
}

struct Scan<'a> {
    input: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Copies the next byte if it is `wanted`.
    fn copy(&mut self, wanted: u8) -> Result<(), JsonFault> {
        if self.peek() != Some(wanted) {
            return Err(JsonFault::Syntax);
        }
        self.out.push(wanted);
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<(), JsonFault> {
        if depth > DEPTH_MAX {
            return Err(JsonFault::TooDeep);
        }
        match self.peek() {
            Some(b'{') => self.object(depth, None),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) | None => Err(JsonFault::Syntax),
        }
    }

    /// An object; `top` marks the outermost one, where keys are unique and some nulls are dropped.
    fn object(&mut self, depth: usize, top: Option<&[&str]>) -> Result<(), JsonFault> {
        let mut seen = HashSet::new();
        let mut kept = 0;
        self.copy(b'{')?;
        self.space();
        if self.peek() == Some(b'}') {
            return self.copy(b'}');
        }
        loop {
            let before = self.out.len();
            if kept > 0 {
                self.out.push(b',');
            }
            let key_at = self.out.len();
            self.string()?;
            let key_end = self.out.len();
            self.space();
            self.copy(b':')?;
            self.space();
            let value_at = self.out.len();
            self.value(depth + 1)?;
            kept += 1;
            if let Some(drop_null) = top {
                let key: String = serde_json::from_slice(&self.out[key_at..key_end]).map_err(|_| JsonFault::Syntax)?;
                if drop_null.contains(&key.as_str()) && self.out[value_at..] == *b"null" {
                    self.out.truncate(before);
                    kept -= 1;
                } else if !seen.insert(key) {
                    return Err(JsonFault::DuplicateKey);
                }
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.copy(b'}'),
                Some(_) | None => return Err(JsonFault::Syntax),
            }
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonFault> {
        self.copy(b'[')?;
        self.space();
        if self.peek() == Some(b']') {
            return self.copy(b']');
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.copy(b',')?,
                Some(b']') => return self.copy(b']'),
                Some(_) | None => return Err(JsonFault::Syntax),
            }
            self.space();
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonFault> {
        if !self.input[self.at..].starts_with(word) {
            return Err(JsonFault::Syntax);
        }
        self.out.extend_from_slice(word);
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let from = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            self.out.push(digit);
            self.at += 1;
        }
        if self.at == from { Err(JsonFault::Syntax) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        if self.peek() == Some(b'-') {
            self.copy(b'-')?;
        }
        if self.peek() == Some(b'0') {
            self.copy(b'0')?;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.copy(b'.')?;
            self.digits()?;
        }
        if let Some(exponent @ (b'e' | b'E')) = self.peek() {
            self.copy(exponent)?;
            if let Some(sign @ (b'+' | b'-')) = self.peek() {
                self.copy(sign)?;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), JsonFault> {
        self.copy(b'"')?;
        loop {
            match self.peek() {
                Some(b'"') => return self.copy(b'"'),
                Some(b'\\') => self.escape()?,
                None | Some(0..=0x1f) => return Err(JsonFault::Syntax),
                Some(byte) => self.copy(byte)?,
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonFault> {
        self.copy(b'\\')?;
        match self.peek() {
            Some(plain @ (b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => self.copy(plain),
            Some(b'u') => match self.unit()? {
                0xd800..=0xdbff => {
                    // The other half has to follow at once.
                    self.copy(b'\\').map_err(|_| JsonFault::LoneSurrogate)?;
                    if self.peek() != Some(b'u') || !(0xdc00..=0xdfff).contains(&self.unit()?) {
                        return Err(JsonFault::LoneSurrogate);
                    }
                    Ok(())
                }
                0xdc00..=0xdfff => Err(JsonFault::LoneSurrogate),
                _ => Ok(()),
            },
            Some(_) | None => Err(JsonFault::Syntax),
        }
    }

    /// `u` and four hex digits.
    fn unit(&mut self) -> Result<u32, JsonFault> {
        self.copy(b'u')?;
        let mut unit = 0;
        for _ in 0..4 {
            let byte = self.peek().ok_or(JsonFault::Syntax)?;
            unit = unit * 16 + char::from(byte).to_digit(16).ok_or(JsonFault::Syntax)?;
            self.copy(byte)?;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, JsonFault>) {
        assert_eq!(compact_object(text, &["text", "data"]).as_deref(), expected.as_ref().copied());
    }

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn compacts_and_refuses() {
        check("{}",                                      Ok("{}"));
        check(" { \"a\" : [ 1 , 2.50 , -0e+1 ] } ",      Ok(r#"{"a":[1,2.50,-0e+1]}"#));
        check(r#"{"text": null}"#,                       Ok("{}"));
        check(r#"{"text": null, "x": null}"#,            Ok(r#"{"x":null}"#));
        check(r#"{"x": 1, "te\u0078t": null, "y": 2}"#,  Ok(r#"{"x":1,"y":2}"#));
        check(r#"{"x": {"text": null}}"#,                Ok(r#"{"x":{"text":null}}"#));
        check(r#"{"x": " a  b "}"#,                      Ok(r#"{"x":" a  b "}"#));
        check(r#"{"x": "\ud83d\ude00"}"#,                Ok(r#"{"x":"\ud83d\ude00"}"#));
        check(r#"{"x": "\ud83d"}"#,                      Err(JsonFault::LoneSurrogate));
        check(r#"{"x": "\ude00"}"#,                      Err(JsonFault::LoneSurrogate));
        check(r#"{"x": "\ud83d\u0041"}"#,                Err(JsonFault::LoneSurrogate));
        check(r#"{"x": 1, "x": 2}"#,                     Err(JsonFault::DuplicateKey));
        check(r#"{"x": 01}"#,                            Err(JsonFault::Syntax));
        check(r#"{"x": 1,}"#,                            Err(JsonFault::Syntax));
        check(r#"{"x": nul}"#,                           Err(JsonFault::Syntax));
        check("{\"x\": \"\n\"}",                         Err(JsonFault::Syntax));
        check("{} {}",                                   Err(JsonFault::Syntax));
        check("[]",                                      Err(JsonFault::NotAnObject));
        check("",                                        Err(JsonFault::NotAnObject));
    }

    #[test]
    fn depth_is_limited() {
        let nested = |n: usize| format!("{{\"a\":{}1{}}}", "[".repeat(n), "]".repeat(n));
        assert!(compact_object(&nested(DEPTH_MAX - 2), &[]).is_ok());
        assert_eq!(compact_object(&nested(DEPTH_MAX + 1), &[]), Err(JsonFault::TooDeep));
        assert_eq!(compact_object(&nested(30_000), &[]), Err(JsonFault::TooDeep));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "\\PC{0,80}") {
            let _ = compact_object(&text, &["text"]);
            let _ = compact_object(&format!("{{{text}}}"), &["text"]);
        }

        #[test]
        fn what_is_accepted_parses(text in r#"\{("(a|\\u[0-9a-f]{4}|\\n)":(1|null|"b"|\{\}|\[1,2\]|[0-9.eE+-]{1,4})(,| )?){0,3}\}"#) {
            if let Ok(compact) = compact_object(&text, &["a"]) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&compact).is_ok());
            }
        }
    }
}
