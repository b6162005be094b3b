//! The grammar of time spans. It follows systemd 252's `parse_time()` step by step, because the
//! order of the checks decides which error a text gets.

use super::{SECOND, Timespan, UNITS};
use crate::escape::{Escaped, truncate};

/// The longest part of a text that an error shows, in characters.
const MAX_EXCERPT_CHARS: usize = 60;

/// systemd's `WHITESPACE`.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// What strtoll(3) skips in the C and the UTF-8 locales.
const STRTOLL_BLANKS: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];

const NO_FRACTION: &str = "; write `5` or `5.0`";
const TOO_LARGE: &str = "; write `infinity` for no limit";
const NOT_A_NUMBER: &str = " is not a number; write a number before each unit, such as `1h 30min`";
const UNKNOWN_UNIT: &str = "; write one of us, ms, s, min, h, d, w, month, y";

/// Why a text is not a time span. `Display` names the place in the text, and escapes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    message: String,
    is_out_of_range: bool,
}

impl ParseError {
    /// Returns whether systemd reports ERANGE. It reports EINVAL for all other errors.
    pub fn is_out_of_range(&self) -> bool {
        self.is_out_of_range
    }
}

/// A mistake in `text` where `rest`, the end of `text`, begins.
fn invalid(text: &str, rest: &str, what: &str, advice: &str) -> ParseError {
    let (at, what) = (text.len() - rest.len(), Escaped(what));
    let message = format!("`{}`: {what} at byte {at}{advice}", Escaped(&excerpt(text)));
    ParseError { message, is_out_of_range: false }
}

/// The same for a negative number, one above `i64::MAX`, or a sum of `u64::MAX` microseconds or more.
fn out_of_range(text: &str, rest: &str, what: &str, advice: &str) -> ParseError {
    ParseError { is_out_of_range: true, ..invalid(text, rest, what, advice) }
}

fn excerpt(text: &str) -> String {
    truncate(text, MAX_EXCERPT_CHARS)
}

/// Reads a time span as systemd 252 does (`parse_time()` with seconds as the unit of bare numbers,
/// that is, `parse_sec()`).
///
/// Parts are added up: `1h 30min`, and `1h30` with 30 seconds. Fractions are cut off after the
/// microsecond, digit by digit: `0.33333333min` is 19 999 998 µs. A NUL, which systemd's C strings
/// cannot hold, is refused. Allocates only for an error.
///
/// # Errors
/// If systemd refuses the text; [`ParseError::is_out_of_range`] distinguishes its ERANGE from
/// EINVAL.
pub fn parse(text: &str) -> Result<Timespan, ParseError> {
    let mut rest = text.trim_start_matches(BLANKS);
    if let Some(after) = rest.strip_prefix("infinity")
        && after.trim_start_matches(BLANKS).is_empty()
    {
        return Ok(Timespan::Infinite);
    }
    if rest.is_empty() {
        let message = "an empty time span; write a number and a unit, such as `90s`, or `infinity`";
        return Err(ParseError { message: message.to_owned(), is_out_of_range: false });
    }

    let mut total: u64 = 0;
    while !rest.is_empty() {
        let too_large = || out_of_range(text, rest, "too large for a time span", TOO_LARGE);
        let negative = || out_of_range(text, rest, "negative", "; a time span is 0 or more");
        let (whole, after) = match strtoll(rest) {
            _ if rest.starts_with('-') => return Err(negative()),
            Some((true, 1.., _)) => return Err(negative()),
            Some((_, whole, _)) if i64::try_from(whole).is_err() => return Err(too_large()),
            Some((_, whole, after)) => (whole, after),
            None if rest.starts_with('.') => (0, rest),
            None => return Err(not_a_number(text, rest)),
        };
        let fraction = after.strip_prefix('.').map(split_digits);
        let after = fraction.map_or(after, |(_, after)| after);

        let unit = after.trim_start_matches(BLANKS);
        let known = known_unit(unit);
        // Without a unit, the number must end at white space or at the end of the text.
        if known.is_none() && !unit.is_empty() && unit.len() == after.len() {
            return Err(unknown_unit(text, unit, word(unit)));
        }
        let (micros, next) = known.unwrap_or((SECOND, unit));

        // u64::MAX means infinity, so a sum must be less.
        if whole >= u64::MAX / micros {
            return Err(too_large());
        }
        total = add(total, whole * micros).ok_or_else(too_large)?;
        if let Some((digits, after)) = fraction {
            let mut place = micros / 10;
            for digit in digits.bytes() {
                total = add(total, u64::from(digit - b'0') * place).ok_or_else(too_large)?;
                place /= 10;
            }
            if digits.is_empty() {
                let point = &text[text.len() - after.len() - 1..];
                return Err(invalid(text, point, "no digit after the point", NO_FRACTION));
            }
        }
        // In `5mins` systemd reads `min` and fails at the `s`. The error names the unit `mins`,
        // which was meant.
        if next.starts_with(char::is_alphabetic) && !next.starts_with("infinity") {
            return Err(unknown_unit(text, unit, letters(unit)));
        }
        rest = next.trim_start_matches(BLANKS);
    }
    Ok(Timespan::Finite(total))
}

/// The microseconds of the unit that `text` begins with, and the rest of the text. The longest
/// matching name counts, because `min` and `m` both begin with `m`.
fn known_unit(text: &str) -> Option<(u64, &str)> {
    let names = UNITS.iter().flat_map(|(micros, names)| names.iter().map(|name| (*micros, *name)));
    let found = names.filter_map(|(micros, name)| Some((micros, text.strip_prefix(name)?)));
    found.min_by_key(|(_, after)| after.len())
}

/// Reads the value of `TimeoutStopSec=` as systemd reads it in a unit file: as [`parse`] does,
/// but 0 means infinite.
///
/// systemd reads most settings with `parse_sec()`, which is [`parse`] here. `TimeoutStopSec=` is read
/// with `parse_sec_fix_0()` (load-fragment-gperf.gperf.in), which is this function: 0 switches the
/// timeout off, and so does `0.4us`, which is cut to 0. `parse_sec_def_infinity()`, where an empty text
/// means infinite, is for `CPUQuotaPeriodSec=` and is not provided. The values that `systemctl show`
/// prints have been read this way already, and are read with [`parse`].
///
/// # Errors
/// As [`parse`]. systemd then logs the error and keeps the default.
pub fn parse_stop_timeout(text: &str) -> Result<Timespan, ParseError> {
    parse(text).map(|span| match span {
        Timespan::Finite(0) => Timespan::Infinite,
        span => span,
    })
}

/// strtoll(3) in base 10: whether there is a minus sign, the number without it, and what follows. A
/// number that is too large becomes `u64::MAX`.
fn strtoll(text: &str) -> Option<(bool, u64, &str)> {
    let text = text.trim_start_matches(STRTOLL_BLANKS);
    let (digits, after) = split_digits(text.strip_prefix(['+', '-']).unwrap_or(text));
    let add = |value: u64, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    let value = digits.bytes().fold(0, add);
    (!digits.is_empty()).then_some((text.starts_with('-'), value, after))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// `None` if the sum would be `u64::MAX`, which is infinity, or more.
fn add(total: u64, more: u64) -> Option<u64> {
    total.checked_add(more).filter(|&sum| sum != u64::MAX)
}

/// The error for `rest`, where a number should begin.
fn not_a_number(text: &str, rest: &str) -> ParseError {
    if rest.starts_with("infinity") {
        invalid(text, rest, "`infinity`", " must stand alone")
    } else {
        invalid(text, rest, &format!("`{}`", excerpt(word(rest))), NOT_A_NUMBER)
    }
}

fn unknown_unit(text: &str, rest: &str, unit: &str) -> ParseError {
    invalid(text, rest, &format!("unknown unit `{}`", excerpt(unit)), UNKNOWN_UNIT)
}

/// The letters that `text` begins with, or everything up to white space if it begins with none.
fn word(text: &str) -> &str {
    match letters(text) {
        "" => text.split(BLANKS).next().unwrap_or(text),
        letters => letters,
    }
}

fn letters(text: &str) -> &str {
    text.split(|c: char| !c.is_alphabetic()).next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_name_the_input_the_place_and_the_fix() {
        const UNITS: &str = "write one of us, ms, s, min, h, d, w, month, y";
        const NUMBER: &str = "write a number before each unit, such as `1h 30min`";
        let cases = [
            (
                " ",
                "an empty time span; write a number and a unit, such as `90s`, or `infinity`"
                    .into(),
            ),
            ("5mins", format!("`5mins`: unknown unit `mins` at byte 1; {UNITS}")),
            ("1h 5 mo", format!("`1h 5 mo`: unknown unit `mo` at byte 5; {UNITS}")),
            ("1.2.3", format!("`1.2.3`: unknown unit `.3` at byte 3; {UNITS}")),
            (
                "5\u{1b}[31m",
                format!(r"`5\u{{1b}}[31m`: unknown unit `\u{{1b}}[31m` at byte 1; {UNITS}"),
            ),
            ("soon", format!("`soon`: `soon` at byte 0 is not a number; {NUMBER}")),
            ("5s s", format!("`5s s`: `s` at byte 3 is not a number; {NUMBER}")),
            ("1h,5 m", format!("`1h,5 m`: `,5` at byte 2 is not a number; {NUMBER}")),
            ("1s 5. s", "`1s 5. s`: no digit after the point at byte 4; write `5` or `5.0`".into()),
            ("1 infinity", "`1 infinity`: `infinity` at byte 2 must stand alone".into()),
            ("infinity 1", "`infinity 1`: `infinity` at byte 0 must stand alone".into()),
            ("5s -1s", "`5s -1s`: negative at byte 3; a time span is 0 or more".into()),
            (
                "1s 99y 600000y",
                "`1s 99y 600000y`: too large for a time span at byte 7; write `infinity` for no limit".into(),
            ),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_long_input_is_cut_in_the_message() {
        let message = parse(&"x".repeat(1_000_000)).unwrap_err().to_string();
        assert!(message.len() < 300, "{message}");
    }

    /// Each of these was checked with systemd-analyze 252.
    #[test]
    fn the_edge_cases_of_strtoll_are_those_of_systemd() {
        let inval = Err(false);
        let range = Err(true);
        let cases = [
            ("\u{b}+5", Ok(5_000_000)),
            ("\u{b}-0s", Ok(0)),
            ("\u{b}-0.5", Ok(500_000)),
            ("\u{b}-5", range),
            ("\u{b}-99999999999999999999", range),
            ("\u{b}.5", inval),
            ("5\u{b}s", inval),
            ("5s\u{b}", inval),
            ("5s\u{b}5", Ok(10_000_000)),
            ("5 \u{b} 5", Ok(10_000_000)),
            ("\u{c} infinity", inval),
            ("+.5", inval),
            ("++5", inval),
            ("9223372036854775808us", range),
            ("99999999999999. ", range),
            ("99999999999999.x", inval),
        ];
        for (text, expected) in cases {
            let got = parse(text).map_err(|error| error.is_out_of_range());
            assert_eq!(got, expected.map(Timespan::Finite), "{text:?}");
        }
    }

    #[test]
    fn a_nul_does_not_end_the_text() {
        assert!(parse("5s\0").is_err());
        assert!(parse("infinity\0").is_err());
    }

    proptest! {
        #[test]
        fn any_text_gives_a_span_or_a_message_on_one_line(
            text in prop_oneof![any::<String>(), "([-+.0-9 \u{b}\t]|[0-9]{1,20}|min|ms|M|y|µs|infinity|é){0,8}"]
        ) {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }
}
