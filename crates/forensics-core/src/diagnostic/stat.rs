//! What the list of processes keeps of `/proc/PID/stat`, the one file read for every process of the
//! machine: a row of fixed size.

use crate::stat;
use std::borrow::Cow;

/// The longest name kept. A process's own has 15 bytes at most; the kernel appends to that of a
/// worker what it works on.
const NAME: usize = 32;

/// What is kept of a process until it is known which are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    pub(super) ppid: i32,
    pub(super) state: char,
    pub(super) kernel_thread: bool,
    /// User and system time together, in clock ticks.
    pub(super) cpu: u64,
    /// Start after boot, in clock ticks.
    pub(super) start: u64,
    /// Resident memory in pages. The kernel sums it up per processor only now and then, so that it
    /// may lag (`proc_pid_stat(5)`).
    pub(super) rss: u64,
    name: [u8; NAME],
    name_len: u8,
}

impl Stat {
    /// Parses the line.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let seen = stat::Stat::parse(line)?;
        let kept = &seen.name[..seen.name.len().min(NAME)];
        let mut name = [0; NAME];
        name[..kept.len()].copy_from_slice(kept);
        Some(Self {
            pid: seen.pid,
            ppid: seen.ppid,
            state: seen.state,
            kernel_thread: seen.is_kernel_thread(),
            cpu: seen.cpu,
            start: seen.start,
            rss: seen.rss,
            name,
            name_len: u8::try_from(kept.len()).unwrap_or(0),
        })
    }

    /// The name, as the process chose it: not escaped.
    pub(super) fn name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.name[..usize::from(self.name_len)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REST: &str = "S 7 42 42 0 -1 4194560 10 0 0 0 30 12 0 0 20 0 1 0 9876 11247616 321 \
                        18446744073709551615 1 1 0 0 0 0 0 0 65536 0 0 0 17 1 0 0 0 0 0";

    fn parse(line: impl AsRef<[u8]>) -> Option<Stat> {
        Stat::parse(line.as_ref())
    }

    #[test]
    fn the_fields_wanted_are_found() {
        let stat = parse(format!("42 (sleep) {REST}\n")).unwrap();
        assert_eq!((stat.pid, stat.ppid, stat.state), (42, 7, 'S'));
        assert_eq!((stat.cpu, stat.start, stat.rss), (42, 9876, 321));
        assert!(!stat.kernel_thread);
        assert_eq!(stat.name(), "sleep");
    }

    #[test]
    fn a_kernel_thread_is_told_by_its_flag() {
        let line = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 1 0 0 0";
        assert!(parse(line).unwrap().kernel_thread);
    }

    #[test]
    fn no_name_moves_the_fields() {
        let names: [(&[u8], &str); 7] = [
            (b"", ""),
            (b") R 1 1", ") R 1 1"),
            (b"a) S 9 (b", "a) S 9 (b"),
            (b"((()", "((()"),
            (b"a\nb c", "a\nb c"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"kworker/u256:3-events_unbound_and_more", "kworker/u256:3-events_unbound_an"),
        ];
        for (name, shown) in names {
            let line = [b"42 (", name, b") ", REST.as_bytes(), b"\n"].concat();
            let stat = parse(&line).unwrap();
            assert_eq!((stat.ppid, stat.start), (7, 9876));
            assert_eq!(stat.name(), shown);
        }
    }

    #[test]
    fn a_line_that_is_not_one_is_refused() {
        let cases = [
            "",
            "42",
            "42 (",
            "42 (sleep)",
            "42 (sleep) ",
            ")(",
            "(sleep) S 1",
            "42 (sleep) S 7 42 42 0 -1 0 10 0 0 0 30 12 0 0 20 0 1 0 9876 11247616",
            "99999999999 (sleep) S 7 42 42 0 -1 0 10 0 0 0 30 12 0 0 20 0 1 0 9876 11247616 321",
        ];
        for line in cases {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn this_process_is_parsed() {
        let stat = parse(std::fs::read("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(u32::try_from(stat.pid).unwrap(), std::process::id());
        assert!(stat.rss > 0);
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
            let _ = parse([b"1 (", &line[..], b") ", REST.as_bytes()].concat());
        }
    }
}
