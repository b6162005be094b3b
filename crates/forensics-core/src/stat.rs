//! A line of `/proc/PID/stat`, or of a thread's, by `proc_pid_stat(5)`.
//!
//! Parsed in place: it is read for the sender and each of its ancestors while a stop waits, and for
//! every process of the machine. Procfs-core's parser, which this took the place of, allocates three
//! times, reads all 52 fields where ten are wanted, and panics on a line that ends at the name's `)`.

/// What is wanted of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat<'a> {
    pub(crate) pid: i32,
    /// As the process chose it.
    pub(crate) name: &'a [u8],
    pub(crate) state: char,
    pub(crate) ppid: i32,
    pub(crate) session: i32,
    /// The device number of the controlling terminal, packed as the kernel packs it.
    tty: i32,
    flags: u32,
    /// User and system time together, in clock ticks.
    pub(crate) cpu: u64,
    /// Start after boot, in clock ticks.
    pub(crate) start: u64,
    /// Resident memory in pages.
    pub(crate) rss: u64,
}

impl<'a> Stat<'a> {
    /// The name is whatever the process chose, `)` and line ends included, so it ends at the line's
    /// last `)`.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let open = line.iter().position(|&b| b == b'(')?;
        let close = line.iter().rposition(|&b| b == b')')?;
        let pid = number(line.get(..open)?.strip_suffix(b" ")?)?;
        let name = line.get(open + 1..close)?;

        let mut fields = line.get(close + 1..)?.trim_ascii().split(|&b| b == b' ');
        let state = char::from(*fields.next()?.first()?);
        // Counted from the state, which is field 3 in `proc_pid_stat(5)`.
        let ppid = number(fields.next()?)?;
        let session = number(fields.nth(1)?)?;
        let tty = number(fields.next()?)?;
        let flags = number(fields.nth(1)?)?;
        let utime: u64 = number(fields.nth(4)?)?;
        let stime = number(fields.next()?)?;
        let start = number(fields.nth(6)?)?;
        let rss: i64 = number(fields.nth(1)?)?;
        let (cpu, rss) = (utime.saturating_add(stime), u64::try_from(rss).unwrap_or(0));
        Some(Self { pid, name, state, ppid, session, tty, flags, cpu, start, rss })
    }

    /// Whether it is a thread of the kernel's own: `PF_KTHREAD`, in the kernel's
    /// `include/linux/sched.h`.
    pub(crate) fn is_kernel_thread(&self) -> bool {
        const PF_KTHREAD: u32 = 0x0020_0000;
        self.flags & PF_KTHREAD != 0
    }

    /// The name as text, what is not UTF-8 replaced.
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(self.name).into_owned()
    }

    /// Major and minor number of the controlling terminal, (0, 0) for none: `new_encode_dev()` of
    /// the kernel's `include/linux/kdev_t.h`.
    pub(crate) fn tty(&self) -> (i32, i32) {
        ((self.tty >> 8) & 0xfff, (self.tty & 0xff) | ((self.tty >> 12) & 0xf_ff00))
    }
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REST: &str = "S 7 42 43 0 -1 4194560 10 0 0 0 30 12 0 0 20 0 1 0 9876 11247616 321 \
                        18446744073709551615 1 1 0 0 0 0 0 0 65536 0 0 0 17 1 0 0 0 0 0";

    #[test]
    fn the_fields_wanted_are_found() {
        let line = format!("42 (sleep) {REST}\n");
        let stat = Stat::parse(line.as_bytes()).unwrap();
        assert_eq!((stat.pid, stat.ppid, stat.session, stat.state), (42, 7, 43, 'S'));
        assert_eq!((stat.cpu, stat.start, stat.rss), (42, 9876, 321));
        assert!(!stat.is_kernel_thread());
        assert_eq!(stat.name(), "sleep");
    }

    #[test]
    fn a_kernel_thread_is_told_by_its_flag() {
        let line = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 1 0 0 0";
        assert!(Stat::parse(line).unwrap().is_kernel_thread());
    }

    #[test]
    fn no_name_moves_the_fields() {
        let (longest, longer) = ([b')'; 63], [b')'; 200]);
        let names: [(&[u8], &str); 9] = [
            (b"", ""),
            (b") R 1 1", ") R 1 1"),
            (b"a) S 9 (b", "a) S 9 (b"),
            (b"((()", "((()"),
            (b"a\nb c", "a\nb c"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"kworker/u256:3-events_unbound_and_more", "kworker/u256:3-events_unbound_and_more"),
            (&longest, &")".repeat(63)),
            // Of no kernel's.
            (&longer, &")".repeat(200)),
        ];
        for (name, shown) in names {
            let line = [b"4194304 (", name, b") ", REST.as_bytes(), b"\n"].concat();
            let stat = Stat::parse(&line).unwrap();
            assert_eq!((stat.pid, stat.ppid, stat.start), (4_194_304, 7, 9876));
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
            assert_eq!(Stat::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn this_process_is_parsed() {
        let line = std::fs::read("/proc/self/stat").unwrap();
        let stat = Stat::parse(&line).unwrap();
        assert_eq!(u32::try_from(stat.pid).unwrap(), std::process::id());
        assert!(stat.rss > 0);
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Stat::parse(&line);
            let _ = Stat::parse(&[b"1 (", &line[..], b") ", REST.as_bytes()].concat());
        }
    }
}
