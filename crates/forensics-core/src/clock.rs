//! The two clocks that a record is stamped with.
//!
//! [`Utc`] is for people and for comparing hosts; it jumps when somebody sets the clock.
//! [`mono_us`] is for arithmetic: it never goes back, but means something only within one boot,
//! which [`boot_id`] names. The calendar is computed here, since a crate for it would be the
//! largest dependency of this one.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::procfile;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z: RFC 3339 has four digits for the year.
const MIN: i64 = days_from_civil(0, 1, 1) * DAY;
const MAX: i64 = days_from_civil(10_000, 1, 1) * DAY - 1;

/// An instant of the wall clock, to the microsecond, in the years 0 to 9999.
///
/// ```
/// use forensics_core::clock::Utc;
/// let text = "2026-11-23T10:15:00.123456Z";
/// let utc: Utc = text.parse()?;
/// assert_eq!(utc.to_string(), text);
/// assert_eq!(utc.compact().to_string(), "20261123T101500.123456Z");
/// # Ok::<(), forensics_core::clock::ParseUtcError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utc {
    /// Microseconds since 1970-01-01T00:00:00Z, from `MIN` to `MAX`.
    micros: i64,
}

impl Utc {
    /// The wall clock now.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn unix_micros(self) -> i64 {
        self.micros
    }

    /// The form for file names: `20261123T101500.123456Z`. Sorted as text it is sorted by time.
    pub fn compact(self) -> impl Display {
        let Civil { year, month, day, hour, minute, second, micros } = self.civil();
        fmt::from_fn(move |f| {
            write!(f, "{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{micros:06}Z")
        })
    }

    /// RFC 3339, digit by digit: each line of a record has one, of which the formatting of numbers
    /// would be the longest part.
    fn rfc3339(self) -> Text {
        let Civil { year, month, day, hour, minute, second, micros } = self.civil();
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let fields = [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, hour),
            (14..16, minute),
            (17..19, second),
            (20..26, micros),
        ];
        for (place, number) in fields {
            let mut rest = number;
            for digit in text[place].iter_mut().rev() {
                // A decimal digit: no field is negative.
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        Text(text)
    }

    fn civil(self) -> Civil {
        let (year, month, day) = civil_from_days(self.micros.div_euclid(DAY));
        let in_day = self.micros.rem_euclid(DAY);
        let seconds = in_day / SECOND;
        Civil {
            year,
            month,
            day,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros: in_day % SECOND,
        }
    }
}

/// The bytes of an instant, all of them ASCII.
struct Text([u8; 27]);

impl Text {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
}

/// Rounded down to the microsecond; a time outside of the years 0 to 9999 becomes the nearest
/// one inside.
impl From<SystemTime> for Utc {
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(MAX),
            Err(before) => {
                let micros = before.duration().as_nanos().div_ceil(1000);
                i64::try_from(micros).map_or(MIN, |micros| -micros)
            }
        };
        Self { micros: micros.clamp(MIN, MAX) }
    }
}

/// RFC 3339 in UTC, with six digits of the second and `Z`.
impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rfc3339().as_str())
    }
}

/// A text that is no RFC 3339 time in UTC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time like 2026-11-23T10:15:00.123456Z")]
pub struct ParseUtcError(String);

/// Takes what [`Display`] writes, and also fewer or more digits of the second: digits beyond the
/// microsecond are dropped. No offset but `Z`, no leap second.
impl FromStr for Utc {
    type Err = ParseUtcError;

    fn from_str(text: &str) -> Result<Self, ParseUtcError> {
        parse(text.as_bytes()).ok_or_else(|| ParseUtcError(crate::escape::cut(text, 40).into()))
    }
}

fn parse(text: &[u8]) -> Option<Utc> {
    let text = text.strip_suffix(b"Z")?;
    let (whole, fraction) = text.split_at_checked(19)?;
    let [y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1, b'T', rest @ ..] = whole else {
        return None;
    };
    let [h0, h1, b':', mi0, mi1, b':', s0, s1] = rest else { return None };
    let year = number(&[*y0, *y1, *y2, *y3])?;
    let (month, day) = (number(&[*mo0, *mo1])?, number(&[*d0, *d1])?);
    let (hour, minute, second) =
        (number(&[*h0, *h1])?, number(&[*mi0, *mi1])?, number(&[*s0, *s1])?);
    let micros = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            number(digits)? * 10_i64.pow(9 - u32::try_from(digits.len()).ok()?) / 1000
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    let exists = civil_from_days(days) == (year, month, day);
    (exists && hour < 24 && minute < 60 && second < 60).then_some(Utc {
        micros: days * DAY + (hour * 3600 + minute * 60 + second) * SECOND + micros,
    })
}

/// At most nine ASCII digits as a number.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar, after Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`. The years start in March
/// there, so that the leap day is the last of its year.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of so many days after 1970-01-01; `civil_from_days` of the same source.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

impl Serialize for Utc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.rfc3339().as_str())
    }
}

impl<'de> Deserialize<'de> for Utc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A time as RFC 3339 in UTC with six digits of the second: `2026-11-23T10:15:00.123456Z`.
pub fn rfc3339(time: SystemTime) -> String {
    Utc::from(time).to_string()
}

/// `CLOCK_MONOTONIC` in microseconds: since the boot, without the time spent suspended, and the
/// clock that systemd runs its timeouts on. Differs between time namespaces
/// (`time_namespaces(7)`).
pub fn mono_us() -> u64 {
    // Not by `expect`, which shows the error: a table of all there are.
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        unreachable!("clock_gettime(2) fails only for a clock the kernel does not have");
    };
    u64::try_from(Duration::from(now).as_micros()).unwrap_or(u64::MAX)
}

/// The id of this boot, from `/proc/sys/kernel/random/boot_id` (`random(4)`), the same in all
/// containers of a machine. Absent where `/proc` is not mounted.
pub fn boot_id() -> Option<String> {
    // It is asked for with each record that is judged, and stays as it is.
    static READ: OnceLock<String> = OnceLock::new();
    if READ.get().is_none() {
        let id = procfile::text("/proc/sys/kernel/random/boot_id")?;
        let _ = READ.set(id.trim_end().to_owned());
    }
    READ.get().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants_are_written_as_the_calendar_has_them() {
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
            assert_eq!(rfc3339(time), text);
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

    #[test]
    fn the_monotonic_clock_and_the_boot_id_are_the_kernels() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        // The uptime counts suspended time too (proc_uptime(5)), so it bounds the clock above.
        let mono = mono_us();
        assert!(mono > 0 && mono as f64 / 1e6 <= uptime + 1.0);
        assert!(mono_us() >= mono);
        assert_eq!(boot_id().unwrap().len(), 36);
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
