//! One record of `/dev/kmsg`, parsed. Its format is described in the kernel's
//! `ABI/testing/dev-kmsg`.
//!
//! Any process that may write to the device chooses its message, which is everything after the `;`.

use std::time::Duration;

use crate::escape::{Escaped, truncate};

/// Longest message shown, in characters.
const MAX_CHARS: usize = 300;

/// A record is shown if one of its words starts with one of these, in lower or upper case:
/// `Killed process`, `oom-kill:`, `oom_reaper:`, but not `rfkill` or `room`. x86 logs fatal
/// exceptions other than a segfault as `traps: NAME[PID] general protection fault`.
const WORDS: [&str; 4] = ["kill", "oom", "segfault", "traps"];

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Facility and level. Below 8 the record is the kernel's own; a program that writes to the
    /// device cannot choose that.
    pub(super) priority: u32,
    pub(super) since_boot: Duration,
    /// The message. Bytes that are not UTF-8 are replaced.
    pub(super) message: String,
}

impl Record {
    /// Parses `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,…];MESSAGE`. Further lines, each starting with
    /// a space, name the device concerned; they are dropped.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let line = bytes.split(|&b| b == b'\n').next()?;
        let head_end = line.iter().position(|&b| b == b';')?;
        let mut head = std::str::from_utf8(&line[..head_end]).ok()?.split(',');
        let priority = head.next()?.parse().ok()?;
        let micros = head.nth(1)?.parse().ok()?;
        let since_boot = Duration::from_micros(micros);
        let message = String::from_utf8_lossy(&line[head_end + 1..]).into_owned();
        Some(Self { priority, since_boot, message })
    }

    /// The record as it is shown: on one line, safe on a terminal.
    pub(super) fn shown(&self) -> String {
        format!("[{}] {}", stamp(self.since_boot), Escaped(&truncate(&self.message, MAX_CHARS)))
    }

    /// Whether one of [`WORDS`] begins a word of the message.
    pub(super) fn is_wanted(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        let mut words = message.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|word| WORDS.iter().any(|start| word.starts_with(start)))
    }
}

/// Seconds since boot in the format of `dmesg`.
pub(super) fn stamp(since_boot: Duration) -> String {
    format!("{:5}.{:06}", since_boot.as_secs(), since_boot.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_parsed() {
        let cases: [(&str, Option<(u64, &str)>); 9] = [
            ("6,339,5140900,-;NET: Registered\n", Some((5_140_900, "NET: Registered"))),
            ("3,1,0,-,caller=T12;a;b,c\n", Some((0, "a;b,c"))),
            ("7,160,424069,-;pci: x\n SUBSYSTEM=acpi\n DEVICE=+a\n", Some((424_069, "pci: x"))),
            ("6,1,2,-;\n", Some((2, ""))),
            ("6,1,2,-;no end", Some((2, "no end"))),
            ("6,1,99999999999999999999,-;x\n", None),
            ("6,1;x\n", None),
            ("no record\n", None),
            ("", None),
        ];
        for (bytes, parsed) in cases {
            let expected = parsed.map(|(micros, message)| Record {
                priority: u32::from(bytes.as_bytes()[0] - b'0'),
                since_boot: Duration::from_micros(micros),
                message: message.to_owned(),
            });
            assert_eq!(Record::parse(bytes.as_bytes()), expected, "{bytes}");
        }
    }

    #[test]
    fn words_are_found_at_the_start_of_a_word_only() {
        let cases = [
            ("OOM", true),
            ("a:kIlled", true),
            ("x SegFault", true),
            ("<traps>", true),
            ("\u{e4}oom", true),
            ("skill room xtraps asegfault 0oom", false),
            ("kil oo segfaul trap", false),
        ];
        for (text, found) in cases {
            let message = text.to_owned();
            let record = Record { priority: 6, since_boot: Duration::ZERO, message };
            assert_eq!(record.is_wanted(), found, "{text}");
        }
    }
}
