//! How every command shows foreign text, spans and counts.

use forensics_core::escape::{Escaped, truncate};
use forensics_core::logfmt::Value;
use forensics_core::record::Digest;

/// A name of at most `max` characters, in quotes if it could be taken for more than one word.
pub(crate) fn name(name: &str, max: usize) -> String {
    truncate(Value(&truncate(name, max)).to_string(), max)
}

/// A text of at most `max` characters before escaping.
pub(crate) fn text(text: &str, max: usize) -> String {
    Escaped(&truncate(text, max)).to_string()
}

/// `1.20s`.
pub(crate) fn seconds(us: u64) -> String {
    format!("{:.2}s", us as f64 / 1e6)
}

/// The lines that could not be read, if there are any.
pub(crate) fn unread_lines(record: &Digest) -> Option<String> {
    let torn = if record.torn { ", and the last line is torn" } else { "" };
    let unread = format!("{} lines could not be read{torn}", record.corrupt);
    (record.corrupt > 0 || record.torn).then_some(unread)
}
