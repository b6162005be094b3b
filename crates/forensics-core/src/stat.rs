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
