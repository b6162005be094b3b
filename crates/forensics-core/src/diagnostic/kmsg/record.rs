//! One record of `/dev/kmsg`, taken apart. Its format is that of the kernel's `ABI/testing/dev-kmsg`.
//!
//! Who may write to the device chooses the message, and with it everything behind the `;`.

use crate::escape::{Plain, cut};
use std::time::Duration;

/// Longest message shown, in characters.
const MAX_CHARS: usize = 300;

/// A line is shown where one of its words starts so, in lower or upper case: `Killed process`,
/// `oom-kill:`, `oom_reaper:`, but not `rfkill` or `room`. x86 logs other fatal exceptions than a
/// segfault as `traps: NAME[PID] general protection fault`.
const WORDS: [&[u8]; 4] = [b"kill", b"oom", b"segfault", b"traps"];

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Facility and level: below 8 it is the kernel's own, and no program's that wrote to the
    /// device.
    pub(super) priority: u32,
    pub(super) since_boot: Duration,
    pub(super) message: &'a [u8],
}

impl<'a> Record<'a> {
    /// Parses `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,…];MESSAGE`. What follows on lines of their
    /// own, each led in by a blank, names the device concerned; it is dropped.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let line = bytes.split(|&b| b == b'\n').next()?;
        let head_end = line.iter().position(|&b| b == b';')?;
        let mut head = std::str::from_utf8(&line[..head_end]).ok()?.split(',');
        let priority = head.next()?.parse().ok()?;
        let micros = head.nth(1)?.parse().ok()?;
        let (since_boot, message) = (Duration::from_micros(micros), &line[head_end + 1..]);
        Some(Self { priority, since_boot, message })
    }

    /// As it is shown: one line, safe on a terminal.
    pub(super) fn shown(&self) -> String {
        shown(self.since_boot, self.message)
    }

    /// Whether one of [`WORDS`] begins a word of the message.
    pub(super) fn is_wanted(&self) -> bool {
        has_word(self.message)
    }
}

/// A message and its time, as [`Record::shown`].
pub(super) fn shown(since_boot: Duration, message: &[u8]) -> String {
    let message = String::from_utf8_lossy(message);
    format!("[{}] {}", stamp(since_boot), Plain(&cut(&message, MAX_CHARS)))
}

/// Whether one of [`WORDS`] begins a word of the text: in a whole record, of its message or of what
/// stands around it.
pub(super) fn has_word(text: &[u8]) -> bool {
    let starts = |found: &[u8], word: &[u8]| {
        found.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    may_have_word(text)
        && text
            .split(|byte| !byte.is_ascii_alphanumeric())
            .any(|found| WORDS.iter().any(|word| starts(found, word)))
}

/// Whether three letters of one of [`WORDS`], which hardly ever stand elsewhere, are in the text. Without
/// a branch a byte, this is many at once: a log has hundreds of thousands.
fn may_have_word(text: &[u8]) -> bool {
    let [_, second @ ..] = text else { return false };
    let [_, third @ ..] = second else { return false };
    text.iter().zip(second).zip(third).fold(false, |has, ((a, b), c)| {
        let [a, b, c] = [a | 0x20, b | 0x20, c | 0x20];
        let is = |[x, y, z]: [u8; 3]| (a == x) & (b == y) & (c == z);
        has | is(*b"kil") | is(*b"oom") | is(*b"gfa") | is(*b"rap")
    })
}

/// Seconds since boot as `dmesg` has them.
pub(super) fn stamp(since_boot: Duration) -> String {
    format!("{:5}.{:06}", since_boot.as_secs(), since_boot.subsec_micros())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_taken_apart() {
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
                message: message.as_bytes(),
            });
            assert_eq!(Record::parse(bytes.as_bytes()), expected, "{bytes}");
        }
    }

    #[test]
    fn words_are_found_wherever_they_begin_and_in_no_other_word() {
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
            assert_eq!(has_word(text.as_bytes()), found, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_quick_look_misses_no_word(text in "[kKiIlLoOmMsegfaultTtraps0 :.]{0,100}") {
            let words = text.to_ascii_lowercase();
            let mut words = words.split(|c: char| !c.is_ascii_alphanumeric());
            let begins = |found: &str| {
                ["kill", "oom", "segfault", "traps"].iter().any(|word| found.starts_with(word))
            };
            prop_assert_eq!(has_word(text.as_bytes()), words.any(begins));
        }
    }
}
