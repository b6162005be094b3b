//! Text from other processes, made safe to show.
//!
//! A process chooses its own name and command line, and any process that may write a marker file
//! chooses its content. Without escaping, these texts could end a log line early, forge a field of
//! it, or control the reader's terminal. So all foreign text is escaped: running text by
//! [`Escaped`], the fields of a line by [`logfmt`](crate::logfmt), JSON by [`json`](crate::json).
//!
//! [`char::escape_debug`] decides what is unsafe ([`is_safe`]): all control characters, the
//! bidirectional controls, invisible, combining and unassigned characters and separators other than
//! a space. The few letters and symbols that are displayed as nothing are unsafe as well. Letters
//! that only look like others, or like a quote or `=`, are not escaped.

use std::error::Error;
use std::fmt::{self, Display, Write};
use std::iter;

/// Longest command line shown, in characters.
pub const MAX_CMDLINE_CHARS: usize = 300;

/// Longest name that a service gives (its own, a phase's, a value's), in characters.
pub const MAX_NAME_CHARS: usize = 256;

/// Longest text that a service gives (a reason, an error, a recorded value), in characters.
pub const MAX_TEXT_CHARS: usize = 4000;

/// Whether a character can be shown unescaped: it is visible and does not move or hide other
/// characters. Quotes and backslashes are safe in text that is not quoted.
///
/// ```
/// use forensics_core::escape::is_safe;
/// assert!("größe \\ \"ok\"".chars().all(is_safe));
/// assert!(!['\n', '\u{9b}', '\u{202e}', '\u{200b}', '\u{3164}'].into_iter().any(is_safe));
/// ```
pub fn is_safe(c: char) -> bool {
    match c {
        '\'' | '"' | '\\' => true,
        // Their category is printable, but they are displayed as nothing: the fillers of Hangul,
        // and the empty pattern of Braille.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => false,
        c => c.is_ascii_graphic() || c == ' ' || c.escape_debug().len() == 1,
    }
}

/// Shows running text. Blanks and punctuation are unchanged. Characters that could end the line or
/// control a terminal are escaped.
///
/// ```
/// use forensics_core::escape::Escaped;
/// assert_eq!(Escaped("a b=\u{1b}[31m").to_string(), r"a b=\u{1b}[31m");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| if c == '"' { f.write_char(c) } else { write_char(f, c) })
    }
}

/// Writes a character of a quoted text.
pub(crate) fn write_char(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '"' | '\\' => write!(f, "\\{c}"),
        c if is_safe(c) => f.write_char(c),
        // `escape_debug` does not escape these.
        c if c.escape_debug().len() == 1 => write!(f, "{}", c.escape_unicode()),
        c => write!(f, "{}", c.escape_debug()),
    }
}

/// The first `max` characters of `text`. If it is longer, the last of them is `…`.
pub fn truncate(text: impl AsRef<str> + Into<String>, max: usize) -> String {
    if text.as_ref().chars().nth(max).is_none() {
        return text.into();
    }
    let kept = text.as_ref().chars().take(max.saturating_sub(1));
    kept.chain((max > 0).then_some('…')).collect()
}

/// Cuts `text` to at most `max` bytes, between characters. If it was longer, it ends with `mark`.
pub fn truncate_bytes(text: &mut String, max: usize, mark: &str) {
    if text.len() > max {
        let mut end = max.saturating_sub(mark.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(mark);
    }
}

/// An error and its sources, each after a colon: `cannot read config.toml: permission denied`. Not
/// escaped.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut chain = error.to_string();
    // Bounded, because an error can be its own source.
    for source in iter::successors(error.source(), |&source| source.source()).take(32) {
        let source = source.to_string();
        // Many errors show their source themselves.
        if !chain.ends_with(&source) {
            chain = format!("{chain}: {source}");
        }
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::logfmt::{Key, Value};

    /// The characters that an attacker could use, grouped by their effect on a reader.
    const UNSAFE: &[std::ops::RangeInclusive<u32>] = &[
        // C0, DEL and C1: newlines, ESC, CSI, OSC, DCS, NUL.
        0x00..=0x1f,
        0x7f..=0x9f,
        // Special spaces, the soft hyphen, joiners, zero-width characters.
        0xa0..=0xa0,
        0xad..=0xad,
        0x34f..=0x34f,
        0x61c..=0x61c,
        0x115f..=0x1160,
        0x17b4..=0x17b5,
        0x180b..=0x180f,
        0x2000..=0x200f,
        // Line and paragraph separators, bidirectional controls.
        0x2028..=0x202f,
        0x205f..=0x206f,
        0x2800..=0x2800,
        0x3000..=0x3000,
        0x3164..=0x3164,
        0xfe00..=0xfe0f,
        0xfeff..=0xfeff,
        0xffa0..=0xffa0,
        0xfff0..=0xfffb,
        0x1d173..=0x1d17a,
        // Tags and variation selectors.
        0xe0000..=0xe0fff,
        // Private use.
        0xe000..=0xf8ff,
        0x10_0000..=0x10_ffff,
    ];

    #[test]
    fn no_character_that_moves_hides_or_controls_text_is_shown() {
        for c in UNSAFE.iter().cloned().flatten().filter_map(char::from_u32) {
            assert!(!is_safe(c), "{:x}", u32::from(c));
            for text in [Value(&c.to_string()).to_string(), Escaped(&c.to_string()).to_string()] {
                assert!(text.is_ascii() && text.chars().all(is_safe), "{text:?}");
            }
            assert!(Key(&c.to_string()).to_string().is_ascii());
        }
    }

    #[test]
    fn cutting_keeps_whole_characters() {
        for (max, cut) in [(7, "aäbö"), (6, "aäbö"), (5, "aäb~"), (4, "aä~"), (3, "a~"), (1, "~")]
        {
            let mut text = "aäbö".to_owned();
            truncate_bytes(&mut text, max, "~");
            assert_eq!(text, cut);
        }
        assert_eq!(truncate("abc", 3), "abc");
        assert_eq!(truncate("abcd", 3), "ab…");
        assert_eq!(truncate("äöüß", 3), "äö…");
        assert_eq!(truncate("ab", 0), "");
        assert_eq!(["", "…", "ä…", "äöü"], [0, 1, 2, 3].map(|max| truncate("äöü", max)));
    }

    proptest! {
        #[test]
        fn plain_text_stays_on_its_line(text in any::<String>()) {
            prop_assert!(Escaped(&text).to_string().chars().all(is_safe));
        }
    }
}
