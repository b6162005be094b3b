//! JSON that is safe to show on a terminal, on one line.
//!
//! JSON requires only quotes, backslashes and ASCII control characters to be escaped. A record
//! shown by cat(1), or `--json` piped to a terminal, could still contain C1 controls, bidirectional
//! controls and invisible characters. Here every character that [`is_safe`] refuses is written as
//! `\uXXXX`, which every JSON parser reads as the same text.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::escape::is_safe;

/// Like `serde_json::to_vec`.
///
/// # Errors
/// If the value cannot be JSON.
pub fn to_vec(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    // Most JSON has nothing to escape.
    if json.iter().all(|byte| matches!(byte, b' '..=b'~')) { Ok(json) } else { Ok(escaped(&json)) }
}

/// Like `serde_json::to_string`.
///
/// # Errors
/// If the value cannot be JSON.
pub fn to_string(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    // JSON is UTF-8, so nothing is replaced.
    to_vec(value).map(|json| String::from_utf8_lossy(&json).into_owned())
}

/// The value that results from writing `value` as text and parsing it. `null` if it cannot be JSON.
/// `serde_json::to_value` differs for an `f32`: it keeps 0.42 as 0.41999998688697815.
pub fn to_value(value: &impl Serialize) -> Value {
    to_vec(value).and_then(|json| serde_json::from_slice(&json)).unwrap_or_default()
}

/// JSON that another program wrote, on one line and safe to show. It must be valid.
pub fn safe_line(json: &[u8]) -> Vec<u8> {
    // In valid JSON these can only be between two tokens.
    let is_space = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r');
    let json: Vec<_> = json.iter().map(|byte| if is_space(byte) { b' ' } else { *byte }).collect();
    escaped(&json)
}

/// Escapes unsafe characters. Only strings can contain them: the rest of JSON is ASCII, and so are
/// its existing escapes.
fn escaped(json: &[u8]) -> Vec<u8> {
    let mut safe = String::with_capacity(json.len());
    for c in String::from_utf8_lossy(json).chars() {
        if is_safe(c) {
            safe.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    safe.into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn unsafe_characters_are_escaped_in_names_and_values() {
        let value =
            json!({ "a\u{9b}": "\u{1b}[2J\u{7f}\u{202e}\u{e0041}\n\"\\'é", "n": [1.5, null] });
        let json = to_string(&value).unwrap();
        let expected = r#"{"a\u009b":"\u001b[2J\u007f\u202e\udb40\udc41\n\"\\'é","n":[1.5,null]}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn json_of_others_becomes_one_line_that_reads_the_same() {
        let foreign = "{\"a\"\r:\t[1,\n\"\u{202e}\\t\"]\n}";
        let line = safe_line(foreign.as_bytes());
        assert_eq!(line, br#"{"a" : [1, "\u202e\t"] }"#);
        let read = |json| serde_json::from_slice::<Value>(json).unwrap();
        assert_eq!(read(&line), read(foreign.as_bytes()));
    }

    #[test]
    fn a_float_keeps_its_written_digits() {
        assert_eq!(to_value(&0.42_f32).to_string(), "0.42");
    }

    proptest! {
        #[test]
        fn any_text_reads_back_and_is_safe(texts in proptest::collection::vec(any::<String>(), 0..5)) {
            let value = json!({ "texts": texts, texts.concat(): 1 });
            let json = to_string(&value).unwrap();
            prop_assert!(json.chars().all(is_safe));
            prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        }
    }
}
