//! Lines of `key=value` fields, such as the context line.
//!
//! A value is quoted and [escaped](crate::escape) as needed, so it can neither end the line nor
//! look like another field. [`parse`] reads such a line back, which shows that escaping loses
//! nothing.

use std::fmt::{self, Display, Write};

use crate::escape::{is_safe, write_char};

/// Shows the key of a `key=value` line. Characters that could end the key or are unsafe are
/// escaped.
///
/// ```
/// use forensics_core::logfmt::Key;
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

/// Shows a value of a `key=value` line: bare if that is unambiguous, otherwise quoted and escaped.
/// The alternate form `{:#}` is always quoted.
///
/// ```
/// use forensics_core::logfmt::Value;
/// assert_eq!(Value("kill").to_string(), "kill");
/// assert_eq!(Value("kill 4100").to_string(), r#""kill 4100""#);
/// assert_eq!(Value("a\ncause=x").to_string(), r#""a\ncause=x""#);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Value<'a>(pub &'a str);

impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !needs_quotes(self.0) && !f.alternate() {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        self.0.chars().try_for_each(|c| write_char(f, c))?;
        f.write_char('"')
    }
}

/// Whether [`Value`] quotes a value.
pub fn needs_quotes(value: &str) -> bool {
    value.is_empty() || !value.chars().all(stays_bare)
}

fn stays_bare(c: char) -> bool {
    !matches!(c, ' ' | '"' | '=' | '\\') && is_safe(c)
}

/// A line is not made of [`Key`] and [`Value`] pairs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field at byte {at} is not `key=value`, or has a bad quote or escape")]
pub struct ParseError {
    /// Where the field starts.
    pub at: usize,
}

/// Reads a line of `key=value` fields, as [`Key`] and [`Value`] write them, back into pairs.
///
/// # Errors
/// If the line does not have that form. Nothing is guessed.
pub fn parse(line: &str) -> Result<Vec<(String, String)>, ParseError> {
    let mut found = Vec::new();
    let mut rest = line.trim_start_matches(' ');
    while !rest.is_empty() {
        let at = line.len() - rest.len();
        let (key, value, after) = first_field(rest).ok_or(ParseError { at })?;
        found.push((key, value));
        rest = after.trim_start_matches(' ');
    }
    Ok(found)
}

/// Key and value of a line's first field, and the rest of the line.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_quoted_only_if_they_would_be_ambiguous() {
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
            assert_eq!(Value(text).to_string(), shown);
        }
        assert_eq!(format!("{:#}", Value("/sbin/init")), r#""/sbin/init""#);
    }

    #[test]
    fn lines_in_another_form_are_refused() {
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
            assert_eq!(parse(line), Err(ParseError { at }), "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_line_reads_back_as_the_fields_it_was_written_from(
            written in proptest::collection::vec(any::<(String, String)>(), 0..5)
        ) {
            let mut line = String::new();
            for (key, value) in &written {
                write!(line, " {}={}", Key(key), Value(value)).unwrap();
            }
            prop_assert!(line.chars().all(is_safe));
            prop_assert_eq!(parse(&line).unwrap(), written);
        }

        #[test]
        fn reading_any_line_never_panics(line in any::<String>()) {
            let _ = parse(&line);
        }
    }
}
