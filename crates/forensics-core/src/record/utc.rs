//! The wall clock in records. The calendar is that of the crate time.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use time::UtcDateTime;
use time::format_description::well_known::Rfc3339;

use crate::escape::truncate;

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z: RFC 3339 has four digits for the year.
const MIN: i64 = -62_167_219_200_000_000;
const MAX: i64 = 253_402_300_799_999_999;

/// An instant of the wall clock, to the microsecond, in the years 0 to 9999.
///
/// ```
/// use forensics_core::record::Utc;
/// let text = "2026-11-23T10:15:00.123456Z";
/// let utc: Utc = text.parse().expect("a time in UTC");
/// assert_eq!(utc.to_string(), text);
/// assert!(utc < Utc::now());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Utc {
    /// Microseconds since 1970-01-01T00:00:00Z, from `MIN` to `MAX`.
    micros: i64,
}

impl Utc {
    /// Returns the current time of the wall clock.
    pub fn now() -> Self {
        Self::from_system(SystemTime::now())
    }

    /// Rounds down to the microsecond. A time before year 0 or after year 9999 becomes the nearest one
    /// in that range.
    pub(crate) fn from_system(time: SystemTime) -> Self {
        let nanos = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_nanos().cast_signed(),
            Err(before) => -before.duration().as_nanos().cast_signed(),
        };
        let micros = nanos.div_euclid(1000).clamp(MIN.into(), MAX.into());
        // Clamped to what fits.
        Self { micros: i64::try_from(micros).unwrap_or(MAX) }
    }

    /// The time that is this many microseconds after 1970-01-01T00:00:00Z. `None` outside of the
    /// years 0 to 9999.
    pub(super) fn from_micros(micros: i64) -> Option<Self> {
        (MIN..=MAX).contains(&micros).then_some(Self { micros })
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub(super) fn micros(self) -> i64 {
        self.micros
    }

    /// The form for file names: `20261123T101500.123456Z`. It sorts as text in the order of time.
    pub(super) fn compact(self) -> impl Display {
        self.to_string().replace(['-', ':'], "")
    }
}

/// RFC 3339 in UTC, with six digits of the second and `Z`: `2026-11-23T10:15:00.123456Z`.
impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.micros) * 1000;
        // Does not fail: the crate's calendar has the years 0 to 9999.
        let at = UtcDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| fmt::Error)?;
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second, micros) = at.as_hms_micro();
        write!(f, "{year:04}-{:02}-{day:02}T", u8::from(month))?;
        write!(f, "{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// A text that is not an RFC 3339 time in UTC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time such as 2026-11-23T10:15:00.123456Z")]
pub struct ParseUtcError(String);

/// Reads the format that [`Display`] writes, but with any number of digits after the second, up to
/// nine. Digits after the microsecond are dropped.
#[doc(hidden)]
impl FromStr for Utc {
    type Err = ParseUtcError;

    fn from_str(text: &str) -> Result<Self, ParseUtcError> {
        parse(text).ok_or_else(|| ParseUtcError(truncate(text, 40)))
    }
}

fn parse(text: &str) -> Option<Utc> {
    let nanos = UtcDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    let utc = Utc { micros: i64::try_from(nanos.div_euclid(1000)).ok()? };
    // The parser also accepts other offsets, leap seconds, other separators and more digits. Such a
    // text differs from the one that is written for the same instant.
    let is_as_written = text.ends_with('Z') && text.get(..19) == utc.to_string().get(..19);
    (is_as_written && text.len() <= "2026-11-23T10:15:00.123456789Z".len()).then_some(utc)
}

json_as_displayed!(Utc);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants_have_their_calendar_dates() {
        // Checked against `date -u -d @N`.
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z", "19700101T000000.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z", "20000229T000000.000001Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z", "21000228T235959.999999Z"),
            (1_795_428_900_123_456, "2026-11-23T10:15:00.123456Z", "20261123T101500.123456Z"),
            (-1, "1969-12-31T23:59:59.999999Z", "19691231T235959.999999Z"),
            (MIN, "0000-01-01T00:00:00.000000Z", "00000101T000000.000000Z"),
            (MAX, "9999-12-31T23:59:59.999999Z", "99991231T235959.999999Z"),
        ];
        for (micros, long, compact) in cases {
            let utc = Utc { micros };
            assert_eq!(utc.to_string(), long);
            assert_eq!(utc.compact().to_string(), compact);
            assert_eq!(long.parse(), Ok(utc));
        }
    }

    #[test]
    fn a_system_time_is_rounded_down_and_kept_within_four_digits_of_a_year() {
        let nanos = Duration::from_nanos;
        let cases = [
            (UNIX_EPOCH + nanos(1999), "1970-01-01T00:00:00.000001Z"),
            (UNIX_EPOCH - nanos(1), "1969-12-31T23:59:59.999999Z"),
            (UNIX_EPOCH + Duration::from_secs(1 << 60), "9999-12-31T23:59:59.999999Z"),
            (UNIX_EPOCH - Duration::from_secs(1 << 60), "0000-01-01T00:00:00.000000Z"),
        ];
        for (time, text) in cases {
            assert_eq!(Utc::from_system(time).to_string(), text);
        }
    }

    #[test]
    fn other_precisions_are_read_and_other_forms_refused() {
        let read = [
            ("2026-11-23T10:15:00Z", "2026-11-23T10:15:00.000000Z"),
            ("2026-11-23T10:15:00.5Z", "2026-11-23T10:15:00.500000Z"),
            ("2026-11-23T10:15:00.123456789Z", "2026-11-23T10:15:00.123456Z"),
        ];
        for (text, same) in read {
            assert_eq!(text.parse::<Utc>().map(|utc| utc.to_string()), Ok(same.to_owned()));
        }
        for text in [
            "",
            "Z",
            "2026-11-23",
            "2026-11-23T10:15:00",
            "2026-11-23 10:15:00Z",
            "2026-11-23T10:15:00.Z",
            "2026-11-23T10:15:00.1234567890Z",
            "2026-11-23T10:15:00+01:00",
            "2026-11-23T10:15:60Z",
            "2026-11-23T24:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-13-10T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "+026-11-23T10:15:00Z",
            "2026-11-23T10:15:0\u{663}Z",
        ] {
            assert!(text.parse::<Utc>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_reads_back_and_sorts_as_text(a in MIN..=MAX, b in MIN..=MAX) {
            let (a, b) = (Utc { micros: a }, Utc { micros: b });
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            let compact = |utc: Utc| utc.compact().to_string();
            prop_assert_eq!(compact(a).cmp(&compact(b)), a.cmp(&b));
        }

        #[test]
        fn reading_any_text_never_panics(text in any::<String>()) {
            let _ = text.parse::<Utc>();
        }
    }
}
