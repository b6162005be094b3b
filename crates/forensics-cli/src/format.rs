//! How every command shows foreign text, spans and counts.

use forensics_core::escape::{Escaped, truncate};
use forensics_core::logfmt::Value;
use forensics_core::record::{Digest, Utc};

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

/// `1.20s`, or `8.7ms` if it is shorter than 10 ms.
pub(crate) fn short(us: u64) -> String {
    if (1..10_000).contains(&us) { format!("{:.1}ms", us as f64 / 1e3) } else { seconds(us) }
}

/// `2026-11-23 10:15:00`, in UTC.
pub(crate) fn utc(at: Utc) -> String {
    at.to_string()[..19].replace('T', " ")
}

/// The lines that could not be read, if there are any.
pub(crate) fn unread_lines(record: &Digest) -> Option<String> {
    let torn = if record.torn { ", and the last line is torn" } else { "" };
    let unread = format!("{} lines could not be read{torn}", record.corrupt);
    (record.corrupt > 0 || record.torn).then_some(unread)
}
