//! Why a text is no time span.

use std::borrow::Cow;

use crate::escape::{Plain, cut};

/// The longest part of a text that an error holds, in characters.
const MAX_EXCERPT_CHARS: usize = 60;

/// Why a text is no time span. `Display` names the place in the text, and escapes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The text is blank.
    #[error("an empty time span; write a number and a unit, such as `90s`, or `infinity`")]
    Empty,
    /// The text is not of the form that systemd reads.
    #[error(transparent)]
    Invalid(Mistake),
    /// A negative number, one above `i64::MAX`, or a sum of `u64::MAX` microseconds or more.
    #[error(transparent)]
    OutOfRange(Mistake),
}

impl ParseError {
    /// Whether systemd reports ERANGE. It reports EINVAL for all other errors.
    pub fn is_out_of_range(&self) -> bool {
        matches!(self, Self::OutOfRange(_))
    }
}

/// A mistake in a text, and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}`: {} at byte {at}{advice}", Plain(.text), Plain(.what))]
pub struct Mistake {
    text: String,
    what: String,
    at: usize,
    advice: &'static str,
}

pub(super) fn invalid(text: &str, rest: &str, what: &str, advice: &'static str) -> ParseError {
    ParseError::Invalid(mistake(text, rest, what, advice))
}

pub(super) fn out_of_range(text: &str, rest: &str, what: &str, advice: &'static str) -> ParseError {
    ParseError::OutOfRange(mistake(text, rest, what, advice))
}

/// A mistake in `text` where `rest`, the end of `text`, begins.
fn mistake(text: &str, rest: &str, what: &str, advice: &'static str) -> Mistake {
    let (at, text) = (text.len() - rest.len(), excerpt(text).into_owned());
    Mistake { text, what: what.to_owned(), at, advice }
}

/// The start of `text`, as an error holds it.
pub(super) fn excerpt(text: &str) -> Cow<'_, str> {
    cut(text, MAX_EXCERPT_CHARS)
}
