//! JSON that can be shown: on one line, and nothing in it drives a terminal.
//!
//! JSON itself wants only quotes, backslashes and the ASCII control characters escaped. A record that
//! is shown by cat(1), or piped from `--json` to a terminal, would still carry the controls of C1,
//! bidirectional ones, and what is not seen. Here every character that [`is_safe`] refuses is `\uXXXX`,
//! which every reader of JSON takes for the same text.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::escape::{is_printable_ascii, is_safe};

/// As `serde_json::to_vec`.
///
/// # Errors
/// As that one: where the value cannot be JSON.
pub fn to_vec(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(1024);
    serde_json::to_writer(&mut json, value)?;
    // Looked at as a whole, which is sooner done than text by text.
    Ok(if is_printable_ascii(&json) { json } else { escaped(&json) })
}

/// As `serde_json::to_string`.
///
/// # Errors
/// As that one: where the value cannot be JSON.
pub fn to_string(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    // Replaces nothing: what is written is UTF-8.
    to_vec(value).map(|json| String::from_utf8_lossy(&json).into_owned())
}

/// As `serde_json::to_value`, by way of the text, whose writer and reader are there anyway: another
/// writer of all that is in a context takes 20 KiB.
///
/// # Errors
/// As that one: where the value cannot be JSON.
pub(crate) fn to_value(value: &impl Serialize) -> serde_json::Result<Value> {
    serde_json::from_slice(&to_vec(value)?)
}

/// The same JSON, which is on one line. What is not safe in it stands in its texts: all else is ASCII,
/// and so are the escapes that are there already.
fn escaped(json: &[u8]) -> Vec<u8> {
    let mut safe = String::with_capacity(json.len());
    for c in String::from_utf8_lossy(json).chars() {
        if is_safe(c) {
            safe.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing into a String cannot fail.
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
    fn what_is_unsafe_is_escaped_in_names_and_values() {
        let value =
            json!({ "a\u{9b}": "\u{1b}[2J\u{7f}\u{202e}\u{e0041}\n\"\\'é", "n": [1.5, null] });
        let json = to_string(&value).unwrap();
        let expected = r#"{"a\u009b":"\u001b[2J\u007f\u202e\udb40\udc41\n\"\\'é","n":[1.5,null]}"#;
        assert_eq!(json, expected);
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
