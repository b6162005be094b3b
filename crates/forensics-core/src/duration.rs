//! Time spans as systemd writes them: `90`, `1min 30s`, `2.5h`, `infinity`.
//!
//! Deadlines and stop timeouts are compared with the settings in systemd's unit files, so they must be
//! read as systemd reads them. [`parse`] follows `parse_time()` of systemd 252
//! (`src/basic/time-util.c`, documented in systemd.time(7)) to the microsecond and to the kind of
//! error. The `Display` of [`Timespan`] follows `format_timespan()` there, and [`parse`] reads what it
//! prints as the same span. There is one exception, which systemd has as well: a span of 584 542 years
//! or more is printed but cannot be read.
//!
//! The crate `systemd-duration` is not used. Its version 0.3.1 gives systemd's answer in 164 of the 238
//! cases in `testdata/timespan_vectors.tsv`: its months and years have another length, it refuses
//! `infinity` and white space at the end, and it panics on a number that is too large.

mod grammar;

use std::fmt::{self, Display};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use grammar::{ParseError, parse, parse_stop_timeout};

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
/// 365.25 days.
const YEAR: u64 = 31_557_600 * SECOND;

/// The units in microseconds, with their names. The first name is the one that is printed.
const UNITS: [(u64, &[&str]); 9] = [
    (YEAR, &["y", "year", "years"]),
    (YEAR / 12, &["month", "months", "M"]),
    (7 * 24 * 60 * MINUTE, &["w", "week", "weeks"]),
    (24 * 60 * MINUTE, &["d", "day", "days"]),
    (60 * MINUTE, &["h", "hr", "hour", "hours"]),
    (MINUTE, &["min", "m", "minute", "minutes"]),
    (SECOND, &["s", "sec", "second", "seconds"]),
    (1_000, &["ms", "msec"]),
    // The last two have the Greek letter mu, and the micro sign.
    (1, &["us", "usec", "\u{3bc}s", "\u{b5}s"]),
];

/// A span of time: a number of microseconds, or forever.
///
/// Spans are ordered by length; [`Infinite`](Timespan::Infinite) is the longest.
///
/// `Display` prints systemd's own form, exact to the microsecond. Serialised it is an integer, the
/// microseconds, or the string `"infinity"`; systemd's form is for people.
///
/// ```
/// use forensics_core::duration::{Timespan, parse};
/// let span = parse("1.5min 500ms")?;
/// assert_eq!(span, Timespan::Finite(90_500_000));
/// assert_eq!(span.to_string(), "1min 30.500000s");
/// assert!(span < Timespan::Infinite);
/// # Ok::<(), forensics_core::duration::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Serialized", into = "Serialized")]
pub enum Timespan {
    /// This many microseconds, fewer than `u64::MAX`. That number is systemd's infinity, and
    /// [`Timespan::from_micros`] turns it into [`Infinite`](Timespan::Infinite).
    Finite(u64),
    /// systemd's `infinity`: no limit.
    Infinite,
}

impl Timespan {
    /// The longest finite span, some 584 542 years.
    pub const MAX_FINITE: Self = Self::Finite(u64::MAX - 1);

    /// Returns the span for a number that systemd uses, on D-Bus for example: microseconds, where
    /// `u64::MAX` (`USEC_INFINITY`) means infinite.
    pub const fn from_micros(micros: u64) -> Self {
        if micros == u64::MAX { Self::Infinite } else { Self::Finite(micros) }
    }

    /// Returns the microseconds, or `None` if the span is infinite.
    pub const fn as_micros(self) -> Option<u64> {
        match self {
            Self::Finite(micros) => Some(micros),
            Self::Infinite => None,
        }
    }

    /// Returns the standard library's form, or `None` if the span is infinite.
    pub fn to_std(self) -> Option<Duration> {
        self.as_micros().map(Duration::from_micros)
    }
}

/// Nanoseconds are cut off. A duration longer than [`Timespan::MAX_FINITE`] becomes that span. It
/// never becomes infinite: `Duration::MAX` is very long, but it is a limit.
impl From<Duration> for Timespan {
    fn from(duration: Duration) -> Self {
        u64::try_from(duration.as_micros())
            .map_or(Self::MAX_FINITE, |micros| Self::Finite(micros).min(Self::MAX_FINITE))
    }
}

/// As systemd's `format_timespan()` does it with an accuracy of 1 µs.
impl Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Finite(mut left) = *self else { return f.write_str("infinity") };
        if left == 0 {
            return f.write_str("0");
        }
        let mut blank = "";
        for (micros, names) in UNITS {
            let unit = names[0];
            let (count, rest) = (left / micros, left % micros);
            if count == 0 {
                continue;
            }
            if left < MINUTE && rest > 0 {
                // Only s and ms get here, both powers of ten.
                let places = micros.ilog10() as usize;
                return write!(f, "{blank}{count}.{rest:0places$}{unit}");
            }
            write!(f, "{blank}{count}{unit}")?;
            (left, blank) = (rest, " ");
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(expecting = "expected microseconds or the string \"infinity\"")]
enum Serialized {
    #[serde(rename = "infinity")]
    Infinity,
    #[serde(untagged)]
    Micros(u64),
}

impl From<Timespan> for Serialized {
    fn from(span: Timespan) -> Self {
        span.as_micros().map_or(Self::Infinity, Self::Micros)
    }
}

impl From<Serialized> for Timespan {
    fn from(serialized: Serialized) -> Self {
        match serialized {
            Serialized::Micros(micros) => Self::from_micros(micros),
            Serialized::Infinity => Self::Infinite,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_vector_gives_the_value_error_and_text_of_systemd() {
        let (mut parsed, mut stop_timeouts, mut excluded) = (0, 0, 0);
        let table = include_str!("../testdata/timespan_vectors.tsv");
        for row in table.lines().skip(1) {
            let columns: Vec<&str> = row.split('\t').collect();
            let [input, expected, source, errno, human] = columns[..] else {
                panic!("not five columns: {row:?}")
            };
            // Only the rows recorded from systemd-analyze have escapes for characters that would
            // break the table.
            let input = match source {
                "oracle-252" => {
                    input.replace(r"\n", "\n").replace(r"\t", "\t").replace(r"\v", "\u{b}")
                }
                _ => input.to_owned(),
            };
            let got = match source {
                "systemd-test" | "oracle-252" => {
                    parsed += 1;
                    parse(&input)
                }
                "systemd-test-fix0" => {
                    stop_timeouts += 1;
                    parse_stop_timeout(&input)
                }
                // parse_sec_def_infinity(), where an empty text means infinite, reads only
                // CPUQuotaPeriodSec=, which is not used here.
                "systemd-test-definf" => {
                    excluded += 1;
                    continue;
                }
                _ => panic!("unknown source: {row:?}"),
            };
            match (expected, got) {
                ("error", Err(error)) => {
                    assert_eq!(error.is_out_of_range(), errno == "ERANGE", "{row:?}: {error}");
                }
                ("error", Ok(span)) => panic!("{row:?}: got {span:?}"),
                (_, Err(error)) => panic!("{row:?}: {error}"),
                (_, Ok(span)) => {
                    let micros = expected.parse().ok();
                    assert!(micros.is_some() || expected == "infinity", "{row:?}");
                    assert_eq!(span.as_micros(), micros, "{row:?}");
                    // systemd's own cases for the stop timeout come without the human form.
                    if source != "systemd-test-fix0" {
                        assert_eq!(span.to_string(), human, "{row:?}");
                    }
                }
            }
        }
        assert_eq!((parsed, stop_timeouts, excluded), (238, 4, 7));
    }

    #[test]
    fn infinity_is_the_longest_span_and_never_results_from_a_duration() {
        assert!(Timespan::MAX_FINITE < Timespan::Infinite);
        assert_eq!(Timespan::from_micros(u64::MAX), Timespan::Infinite);
        assert_eq!(Timespan::from(Duration::MAX), Timespan::MAX_FINITE);
        assert_eq!(Timespan::from(Duration::from_micros(u64::MAX)), Timespan::MAX_FINITE);
        assert_eq!(Timespan::from(Duration::from_nanos(1_999)), Timespan::Finite(1));
        assert_eq!(Timespan::Infinite.to_std(), None);
        assert_eq!(Timespan::Finite(1_500).to_std(), Some(Duration::from_micros(1_500)));
    }

    #[test]
    fn json_is_a_number_of_microseconds_or_the_word_infinity() {
        for (span, json) in
            [(Timespan::Finite(90_000_000), "90000000"), (Timespan::Infinite, "\"infinity\"")]
        {
            assert_eq!(serde_json::to_string(&span).unwrap(), json);
            assert_eq!(serde_json::from_str::<Timespan>(json).unwrap(), span);
        }
        let max: Timespan = serde_json::from_str("18446744073709551615").unwrap();
        assert_eq!(max, Timespan::Infinite);
        for json in ["\"5s\"", "-1", "1.5", "null"] {
            let error = serde_json::from_str::<Timespan>(json).unwrap_err();
            assert_eq!(error.to_string(), "expected microseconds or the string \"infinity\"");
        }
    }

    #[test]
    fn the_last_year_is_printed_but_not_read_as_in_systemd() {
        let below = Timespan::Finite(584_542 * YEAR - 1);
        assert_eq!(parse(&below.to_string()), Ok(below));
        for span in [Timespan::Finite(584_542 * YEAR), Timespan::MAX_FINITE] {
            assert!(span.to_string().starts_with("584542y"), "{span}");
            assert!(parse(&span.to_string()).is_err_and(|error| error.is_out_of_range()));
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_as_the_same_span(
            // Any number of bits, so that short spans come up as often as long ones.
            (bits, shift) in (any::<u64>(), 0_u32..64)
        ) {
            let span = Timespan::from_micros(bits >> shift);
            prop_assume!(span == Timespan::Infinite || span < Timespan::Finite(584_542 * YEAR));
            prop_assert_eq!(parse(&span.to_string()), Ok(span));
        }
    }
}
