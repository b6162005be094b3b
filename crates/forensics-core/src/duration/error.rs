//! Why a text is no time span.

use crate::escape::{Plain, cut};

/// Longest piece of the input an error keeps, in characters.
const MAX_EXCERPT_CHARS: usize = 60;

/// Why a text is no time span, with enough of the text to find the place.
///
/// `input` is the text, cut to 60 characters; `at` counts bytes of the whole text from 0. Texts are
/// kept as they came and escaped by `Display`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing but blanks.
    #[error("an empty time span; write a number and a unit, such as `90s`, or `infinity`")]
    Empty,
    /// Something else stands where a number must.
    #[error(
        "`{}`: `{}` at byte {at} is not a number; write a number before each unit, \
         such as `1h 30min`",
        Plain(.input), Plain(.found)
    )]
    NotANumber {
        /// The text.
        input: Box<str>,
        /// Where the number should start.
        at: usize,
        /// What stands there, cut to 60 characters.
        found: Box<str>,
    },
    /// No unit of systemd's follows a number. Case matters: `M` is a month, `m` a minute.
    #[error(
        "`{}`: unknown unit `{}` at byte {at}; write one of us, ms, s, min, h, d, w, month, y",
        Plain(.input), Plain(.unit)
    )]
    UnknownUnit {
        /// The text.
        input: Box<str>,
        /// Where the unit starts.
        at: usize,
        /// What stands there, cut to 60 characters.
        unit: Box<str>,
    },
    /// A decimal point without digits behind it.
    #[error("`{}`: no digit after the point at byte {at}; write `5` or `5.0`", Plain(.input))]
    NoFraction {
        /// The text.
        input: Box<str>,
        /// Where the point stands.
        at: usize,
    },
    /// `infinity` next to something else.
    #[error("`{}`: `infinity` at byte {at} must stand alone", Plain(.input))]
    InfinityNotAlone {
        /// The text.
        input: Box<str>,
        /// Where `infinity` starts.
        at: usize,
    },
    /// A minus sign, even before 0.
    #[error("`{}`: negative at byte {at}; a time span is 0 or more", Plain(.input))]
    Negative {
        /// The text.
        input: Box<str>,
        /// Where the negative number starts.
        at: usize,
    },
    /// A number above `i64::MAX`, or a sum of `u64::MAX` microseconds or more.
    #[error(
        "`{}`: too large for a time span at byte {at}; write `infinity` for no limit",
        Plain(.input)
    )]
    OutOfRange {
        /// The text.
        input: Box<str>,
        /// Where the number starts that is too large, or makes the sum too large.
        at: usize,
    },
}

impl ParseError {
    /// Whether systemd answers ERANGE; to everything else it answers EINVAL.
    pub fn is_out_of_range(&self) -> bool {
        matches!(self, Self::Negative { .. } | Self::OutOfRange { .. })
    }
}

/// The start of `text`, as an error keeps it.
pub(super) fn excerpt(text: &str) -> Box<str> {
    cut(text, MAX_EXCERPT_CHARS).into()
}
