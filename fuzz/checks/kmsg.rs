//! A record of `/dev/kmsg`, which root or the kernel writes. It is shown as one short line, and a
//! forged record is not shown as the kernel's.

#[path = "../../crates/forensics-core/src/diagnostic/system/kmsg/record.rs"]
mod record;

use record::Record;

pub(crate) fn check(data: &[u8]) {
    let Some(record) = Record::parse(data) else { return };
    let shown = record.shown();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    // The timestamp, then 300 characters, each escaped as `\u{10ffff}` at most.
    assert!(shown.chars().count() <= 300 * 10 + 40, "{shown}");
    assert!(shown.starts_with(&format!("[{}] ", record::stamp(record.since_boot))));
    assert!(!record.message.contains('\n'));
    let message = record.message.to_ascii_lowercase();
    let has = |word: &&str| message.contains(*word);
    assert!(!record.is_wanted() || ["kill", "oom", "segfault", "traps"].iter().any(has));
    let priority = format!("{},", record.priority);
    let digits = data.strip_prefix(b"+").unwrap_or(data);
    let first = digits.iter().position(|&b| b != b'0').unwrap_or(0);
    assert!(
        digits[first.min(digits.len())..].starts_with(priority.as_bytes())
            || (record.priority == 0 && digits.starts_with(b"0")),
        "the priority is not in the text"
    );
}
