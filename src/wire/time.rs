//! Times on the wire: RFC 3339, UTC, three fractional digits, `Z`. Older Python parsers take 3 or 6 digits only.

use schema::rows::Timestamp;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

/// A time as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ts(pub Timestamp);

impl std::fmt::Display for Ts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = i128::from(self.0.0) * 1_000_000;
        // Beyond the year 9999 the epoch is as good an answer as any: no clock of ours gets there.
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (hour, minute, second, milli) = at.to_hms_milli();
        let (year, month, day) = at.to_calendar_date();
        write!(f, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", u8::from(month))
    }
}

/// A time from a client: RFC 3339 with any offset; `None` for anything else and for times before 1970.
pub fn parse(text: &str) -> Option<Timestamp> {
    let at = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Timestamp)
}

impl Serialize for Ts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_any_offset_are_read() {
        assert_eq!(parse("2026-01-01T02:00:00.007+02:00"), Some(Timestamp(1_767_225_600_007)));
        for bad in ["", "2026-01-01", "2026-01-01T00:00:00", "1960-01-01T00:00:00Z", "tomorrow"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn three_digits_and_z() {
        assert_eq!(Ts(Timestamp(0)).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Ts(Timestamp(1_767_225_600_007)).to_string(), "2026-01-01T00:00:00.007Z");
        assert!(Ts(Timestamp(u64::MAX)).to_string().ends_with('Z'));
    }
}
