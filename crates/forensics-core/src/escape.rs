//! Text from other processes, made safe to show.
//!
//! A process chooses its own name and command line, and any process that may write a marker file
//! chooses its content. Shown unescaped, such texts could end a log line early, forge a field of it,
//! or control the reader's terminal. All foreign text is escaped here: by [`Key`] and [`Quoted`] for
//! a `key=value` line, by [`Plain`] for running text; [`crate::json`] does the same for JSON.
//!
//! [`char::escape_debug`] decides what is unsafe ([`is_safe`]): all control characters, the
//! bidirectional controls, invisible, combining and unassigned characters and separators other than
//! a blank. The few letters and symbols that show as nothing are unsafe as well. [`fields`] reads such
//! a line back, which shows that escaping loses nothing. Letters that only look like others, or like a
//! quote or `=`, are not escaped.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// Longest command line shown, in characters.
pub const MAX_CMDLINE_CHARS: usize = 300;

/// Longest name that a service gives (its own, a phase's, a value's), in characters.
pub const MAX_NAME_CHARS: usize = 256;

/// Longest text that a service gives (a reason, an error, a recorded value), in characters.
pub const MAX_TEXT_CHARS: usize = 4000;

/// Whether a character can be shown as it is: it is seen, stays in its place, and leaves the others
/// in theirs. A quote and a backslash can, where nothing is quoted.
///
/// ```
/// use forensics_core::escape::is_safe;
/// assert!("größe \\ \"ok\"".chars().all(is_safe));
/// assert!(!['\n', '\u{9b}', '\u{202e}', '\u{200b}', '\u{3164}'].into_iter().any(is_safe));
/// ```
pub fn is_safe(c: char) -> bool {
    match c {
        '\'' | '"' | '\\' => true,
        // Letters and a symbol that are printable by their category, and show as nothing: the fillers
        // of Hangul, and the empty pattern of Braille.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => false,
        c => c.is_ascii_graphic() || c == ' ' || c.escape_debug().len() == 1,
    }
}

/// Shows the key of a `key=value` line: what could end it or is unsafe is escaped.
///
/// ```
/// use forensics_core::escape::Key;
/// assert_eq!(Key("active_now").to_string(), "active_now");
/// assert_eq!(Key("a=1 cause").to_string(), r"a\u{3d}1\u{20}cause");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Key<'a>(pub &'a str);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if stays_bare(c) { f.write_char(c) } else { write!(f, "{}", c.escape_unicode()) }
        })
    }
}

/// Shows a value of a `key=value` line: bare where that is unambiguous, else quoted and escaped;
/// in the alternate form `{:#}` always quoted.
///
/// ```
/// use forensics_core::escape::Quoted;
/// assert_eq!(Quoted("kill").to_string(), "kill");
/// assert_eq!(Quoted("kill 4100").to_string(), r#""kill 4100""#);
/// assert_eq!(Quoted("a\ncause=x").to_string(), r#""a\ncause=x""#);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_bare(self.0) && !f.alternate() {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        self.0.chars().try_for_each(|c| write_escaped(f, c))?;
        f.write_char('"')
    }
}

/// Shows running text: blanks and punctuation as they are, everything that could leave the line
/// or drive a terminal escaped.
///
/// ```
/// use forensics_core::escape::Plain;
/// assert_eq!(Plain("a b=\u{1b}[31m").to_string(), r"a b=\u{1b}[31m");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a>(pub &'a str);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if c == '"' { f.write_char(c) } else { write_escaped(f, c) })
    }
}

/// Whether [`Quoted`] shows a value as it is.
pub fn is_bare(value: &str) -> bool {
    !value.is_empty() && value.chars().all(stays_bare)
}

/// Cuts `text` to at most `max` characters, the last of which is then `…`.
pub fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.chars().nth(max).is_none() {
        return Cow::Borrowed(text);
    }
    text.chars().take(max.saturating_sub(1)).chain((max > 0).then_some('…')).collect()
}

/// The same for a `String`.
pub fn cut_to(text: String, max: usize) -> String {
    match cut(&text, max) {
        Cow::Owned(shorter) => shorter,
        Cow::Borrowed(_) => text,
    }
}

/// A line is not one that [`Key`]s and [`Quoted`] values were written into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field at byte {at} is not `key=value`, or has a bad quote or escape")]
#[non_exhaustive]
pub struct FieldsError {
    /// Where the field starts.
    pub at: usize,
}

/// Reads a line of `key=value` fields, with keys as [`Key`] and values as [`Quoted`] writes them, back
/// into pairs.
///
/// # Errors
/// Where the line is not of that form; nothing is guessed.
pub fn fields(line: &str) -> Result<Vec<(String, String)>, FieldsError> {
    let mut found = Vec::new();
    let mut rest = line.trim_start_matches(' ');
    while !rest.is_empty() {
        let at = line.len() - rest.len();
        let (key, value, after) = first_field(rest).ok_or(FieldsError { at })?;
        found.push((key, value));
        rest = after.trim_start_matches(' ');
    }
    Ok(found)
}

/// Key and value of a line's first field, and what follows it.
fn first_field(line: &str) -> Option<(String, String, &str)> {
    let (key, rest) = line.split_once('=').filter(|(key, _)| !key.contains(' '))?;
    let (value, after) = match rest.strip_prefix('"') {
        Some(quoted) => {
            let mut escaped = false;
            let end = quoted.find(|c| {
                let is_end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                is_end
            })?;
            (&quoted[..end], &quoted[end + 1..])
        }
        None => rest.split_at(rest.find(' ').unwrap_or(rest.len())),
    };
    let ends = after.is_empty() || after.starts_with(' ');
    Some((unescape(key)?, unescape(value)?, after)).filter(|_| ends)
}

fn unescape(text: &str) -> Option<String> {
    let mut found = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        found.push_str(before);
        let mut chars = escape.chars();
        found.push(match chars.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            c @ ('"' | '\\') => c,
            'u' => {
                let (hex, after) = chars.as_str().strip_prefix('{')?.split_once('}')?;
                chars = after.chars();
                char::from_u32(u32::from_str_radix(hex, 16).ok()?)?
            }
            _ => return None,
        });
        rest = chars.as_str();
    }
    Some(found + rest)
}

fn stays_bare(c: char) -> bool {
    !matches!(c, ' ' | '"' | '=' | '\\') && is_safe(c)
}

fn write_escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '"' | '\\' => write!(f, "\\{c}"),
        c if is_safe(c) => f.write_char(c),
        // Of a character that is unsafe by no category there is no other escape.
        c if c.escape_debug().len() == 1 => write!(f, "{}", c.escape_unicode()),
        c => write!(f, "{}", c.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_quoted_only_where_a_reader_could_be_misled() {
        let cases = [
            ("kill", "kill"),
            ("it's", "it's"),
            ("größe", "größe"),
            ("", r#""""#),
            ("two words", r#""two words""#),
            ("a=b", r#""a=b""#),
            (r#"say "hi""#, r#""say \"hi\"""#),
            (r"C:\x", r#""C:\\x""#),
            ("a\nb\tc\rd\0e", r#""a\nb\tc\rd\0e""#),
            ("\u{1b}[31mred", r#""\u{1b}[31mred""#),
            ("\u{202e}evil", r#""\u{202e}evil""#),
            ("\u{2028}", r#""\u{2028}""#),
            ("\u{9b}31m", r#""\u{9b}31m""#),
            ("a\u{3164}b\u{2800}", r#""a\u{3164}b\u{2800}""#),
        ];
        for (text, shown) in cases {
            assert_eq!(Quoted(text).to_string(), shown);
        }
        assert_eq!(format!("{:#}", Quoted("/sbin/init")), r#""/sbin/init""#);
    }

    /// All that an attacker could hide behind, by what it does to a reader.
    const UNSAFE: &[std::ops::RangeInclusive<u32>] = &[
        // C0, DEL and C1: newlines, ESC, CSI, OSC, DCS, NUL.
        0x00..=0x1f,
        0x7f..=0x9f,
        // Blanks that are none, the soft hyphen, joiners, zero-width ones.
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
    fn no_character_that_moves_hides_or_drives_anything_is_shown() {
        for c in UNSAFE.iter().cloned().flatten().filter_map(char::from_u32) {
            assert!(!is_safe(c), "{:x}", u32::from(c));
            for text in [Quoted(&c.to_string()).to_string(), Plain(&c.to_string()).to_string()] {
                assert!(text.is_ascii() && text.chars().all(is_safe), "{text:?}");
            }
            assert!(Key(&c.to_string()).to_string().is_ascii());
        }
    }

    #[test]
    fn cutting_keeps_whole_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("ab", 0), "");
        for max in 0..4 {
            assert_eq!(cut_to("äöü".to_owned(), max), cut("äöü", max));
        }
    }

    #[test]
    fn lines_that_quoted_never_wrote_are_refused() {
        let cases = [
            ("a=1 word b=2", 4),
            (r#"a="open"#, 0),
            (r#"a="x"y=1"#, 0),
            (r#"a="\q""#, 0),
            (r#"a="\u{110000}""#, 0),
            (r"a=1 b\x=2", 4),
            (r"a=1  b=\", 5),
        ];
        for (line, at) in cases {
            assert_eq!(fields(line), Err(FieldsError { at }), "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_line_reads_back_as_the_fields_it_was_written_from(
            written in proptest::collection::vec(any::<(String, String)>(), 0..5)
        ) {
            let mut line = String::new();
            for (key, value) in &written {
                write!(line, " {}={}", Key(key), Quoted(value)).unwrap();
            }
            prop_assert!(line.chars().all(is_safe));
            prop_assert_eq!(fields(&line).unwrap(), written);
        }

        #[test]
        fn plain_text_stays_on_its_line(text in any::<String>()) {
            prop_assert!(Plain(&text).to_string().chars().all(is_safe));
        }

        #[test]
        fn reading_any_line_never_panics(line in any::<String>()) {
            let _ = fields(&line);
        }
    }
}
