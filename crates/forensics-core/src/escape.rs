//! Text from other processes, made safe to show.
//!
//! A process chooses its own name and command line, and whoever may write a marker file chooses
//! its content. Shown as they are, such texts could end a log line early, forge a field of it, or
//! drive the reader's terminal. Everything foreign passes through here: [`Quoted`] for a value in
//! a `key=value` line, [`Plain`] for running text.
//!
//! What counts as unsafe is decided by [`char::escape_debug`]: all control characters, the
//! bidirectional controls, invisible and unassigned characters and separators other than a blank.
//! [`fields`] reads such a line back, so that escaping can be shown to lose nothing.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// Longest command line shown, in characters.
pub const MAX_CMDLINE_CHARS: usize = 300;

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
        let bare = !self.0.is_empty() && self.0.chars().all(stays_bare);
        if bare && !f.alternate() {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            write_escaped(f, c)?;
        }
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
        self.0.chars().try_for_each(|c| match c {
            '"' => f.write_char(c),
            c => write_escaped(f, c),
        })
    }
}

/// Cuts `text` to at most `max` characters, the last of which is then `…`.
pub fn cut(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => Cow::Borrowed(text),
        Some(_) if max == 0 => Cow::Borrowed(""),
        Some(_) => {
            let end = text.char_indices().nth(max - 1).map_or(text.len(), |(at, _)| at);
            Cow::Owned(format!("{}…", &text[..end]))
        }
    }
}

/// Why a line is not one that [`Quoted`] values were written into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldsError {
    /// A word without `=`.
    #[error("no `=` after the key at byte {at}")]
    NoValue {
        /// Where the key starts.
        at: usize,
    },
    /// A quoted value that does not end, or is followed by something other than a blank.
    #[error("the quoted value at byte {at} does not end before a blank or the end of the line")]
    Unterminated {
        /// Where the value starts.
        at: usize,
    },
    /// A backslash followed by something that is not an escape.
    #[error("unknown escape at byte {at}")]
    BadEscape {
        /// Where the backslash stands.
        at: usize,
    },
}

/// Reads a line of `key=value` fields, with values as [`Quoted`] writes them, back into pairs.
///
/// # Errors
/// Where the line is not of that form; nothing is guessed.
pub fn fields(line: &str) -> Result<Vec<(String, String)>, FieldsError> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        at += line[at..].len() - line[at..].trim_start_matches(' ').len();
        if at == line.len() {
            return Ok(found);
        }
        let rest = &line[at..];
        let equals = rest
            .find(['=', ' '])
            .filter(|&i| rest.as_bytes()[i] == b'=')
            .ok_or(FieldsError::NoValue { at })?;
        let key = rest[..equals].to_owned();
        at += equals + 1;
        let (value, used) = match line[at..].strip_prefix('"') {
            Some(quoted) => unquote(quoted, at)?,
            None => {
                let bare = line[at..].split(' ').next().unwrap_or_default();
                (bare.to_owned(), bare.len())
            }
        };
        at += used;
        found.push((key, value));
    }
}

/// Reads a quoted value whose opening quote, at byte `at` of the line, has been taken off.
/// Returns the value and how many bytes it took, both quotes included.
fn unquote(quoted: &str, at: usize) -> Result<(String, usize), FieldsError> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => {
                let rest = &quoted[i + 1..];
                return match rest.is_empty() || rest.starts_with(' ') {
                    true => Ok((value, i + 2)),
                    false => Err(FieldsError::Unterminated { at }),
                };
            }
            '\\' => {
                let bad = FieldsError::BadEscape { at: at + 1 + i };
                let (_, kind) = chars.next().ok_or(bad.clone())?;
                value.push(match kind {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '0' => '\0',
                    '"' | '\\' => kind,
                    'u' => {
                        let hex = chars.as_str().strip_prefix('{').and_then(|h| h.split_once('}'));
                        let (hex, _) = hex.ok_or(bad.clone())?;
                        let code = u32::from_str_radix(hex, 16).map_err(|_| bad.clone())?;
                        // The braces and the digits, all of them ASCII.
                        chars.nth(hex.len() + 1);
                        char::from_u32(code).ok_or(bad)?
                    }
                    _ => return Err(bad),
                });
            }
            c => value.push(c),
        }
    }
    Err(FieldsError::Unterminated { at })
}

fn stays_bare(c: char) -> bool {
    !matches!(c, ' ' | '"' | '=' | '\\') && (c == '\'' || c.escape_debug().len() == 1)
}

fn write_escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '\'' => f.write_char(c),
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
        ];
        for (text, shown) in cases {
            assert_eq!(Quoted(text).to_string(), shown);
        }
        assert_eq!(format!("{:#}", Quoted("/sbin/init")), r#""/sbin/init""#);
    }

    #[test]
    fn cutting_keeps_whole_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("ab", 0), "");
    }

    #[test]
    fn lines_that_quoted_never_wrote_are_refused() {
        use FieldsError::*;
        assert_eq!(fields("a=1 word b=2"), Err(NoValue { at: 4 }));
        assert_eq!(fields(r#"a="open"#), Err(Unterminated { at: 2 }));
        assert_eq!(fields(r#"a="x"y=1"#), Err(Unterminated { at: 2 }));
        assert_eq!(fields(r#"a="\q""#), Err(BadEscape { at: 3 }));
        assert_eq!(fields(r#"a="\u{110000}""#), Err(BadEscape { at: 3 }));
    }

    proptest! {
        #[test]
        fn a_line_reads_back_as_the_fields_it_was_written_from(
            values in proptest::collection::vec(any::<String>(), 0..5)
        ) {
            let mut line = String::new();
            for (i, value) in values.iter().enumerate() {
                write!(line, " k{i}={}", Quoted(value)).unwrap();
            }
            prop_assert!(!line.chars().any(char::is_control));
            let read: Vec<String> = fields(&line).unwrap().into_iter().map(|(_, v)| v).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn plain_text_stays_on_its_line(text in any::<String>()) {
            prop_assert!(!Plain(&text).to_string().chars().any(char::is_control));
        }

        #[test]
        fn reading_any_line_never_panics(line in any::<String>()) {
            let _ = fields(&line);
        }
    }
}
