//! One of the machine's processes, as its `stat` shows it, and its place among others.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::time::Duration;

use procfs::process::Stat;

/// The longest name kept. A process's own has 15 bytes at most; the kernel appends to that of a
/// worker what it works on.
const NAME: usize = 32;

/// The flag of the kernel's own threads: `include/linux/sched.h`.
const PF_KTHREAD: u32 = 0x0020_0000;

/// The order of processes side by side: the busiest first, among idle ones the largest.
pub(super) type Rank = (Reverse<u32>, Reverse<u64>, i32);

/// What is kept of a process until it is known which are shown: a row of fixed size, as small as it can
/// be, since a machine may have a hundred thousand.
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) ppid: i32,
    pub(super) state: char,
    pub(super) kernel_thread: bool,
    /// CPU time over lifetime, as `ps` has it, in thousandths of one processor.
    pub(super) cpu_permille: u32,
    /// In seconds.
    age: u32,
    /// Resident memory in pages. The kernel sums it up per processor only now and then, so that it
    /// may lag (`proc_pid_stat(5)`).
    pub(super) rss: u64,
    name: [u8; NAME],
    name_len: u8,
}

impl Process {
    pub(super) fn rank(&self) -> Rank {
        (Reverse(self.cpu_permille), Reverse(self.rss), self.pid)
    }

    /// Whether it is a kernel thread that neither works nor hangs: a small machine has more of
    /// those than of all others.
    pub(super) fn is_idle_kernel_thread(&self) -> bool {
        self.kernel_thread && self.cpu_permille == 0 && self.state != 'D'
    }

    pub(super) fn seen(stat: &Stat, now: u64, ticks_per_second: u64) -> Self {
        let at_most = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        // A process may have started after `now` was taken.
        let ticks = now.saturating_sub(stat.starttime);
        let kept = &stat.comm.as_bytes()[..stat.comm.len().min(NAME)];
        let mut name = [0; NAME];
        name[..kept.len()].copy_from_slice(kept);
        Self {
            pid: stat.pid,
            ppid: stat.ppid,
            state: stat.state,
            kernel_thread: stat.flags & PF_KTHREAD != 0,
            cpu_permille: at_most(
                stat.utime.saturating_add(stat.stime).saturating_mul(1000) / ticks.max(1),
            ),
            age: at_most(ticks / ticks_per_second),
            rss: stat.rss,
            name,
            name_len: u8::try_from(kept.len()).unwrap_or(0),
        }
    }

    pub(super) fn age(&self) -> Duration {
        Duration::from_secs(self.age.into())
    }

    /// The name, as the process chose it: not escaped.
    pub(super) fn name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.name[..usize::from(self.name_len)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfile::parse_stat;

    /// The fields of `stat` behind the resident memory that procfs requires.
    const REST: &str = "0 0 0 0 0 0 0 0 0 0 0 0 0";

    impl Process {
        /// A process for tests of the order alone.
        pub(in super::super) fn made_up(pid: i32, ppid: i32, cpu_permille: u32) -> Self {
            let line = format!("{pid} (x) S {ppid} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 {REST}");
            let stat = parse_stat(line.as_bytes()).unwrap();
            Self { cpu_permille, ..Self::seen(&stat, 0, 100) }
        }
    }

    #[test]
    fn cpu_use_is_time_over_lifetime() {
        let cases = [
            // CPU, start and now in ticks; thousandths.
            (50, 100, 200, 500),
            (400, 100, 200, 4000),
            (0, 0, 0, 0),
            (1, 200, 200, 1000),
            (1, 201, 200, 1000),
            (u64::MAX, 0, 1_000_000, u32::MAX),
        ];
        for (cpu, start, now, permille) in cases {
            let line = format!("1 (x) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 {REST}");
            let mut stat = parse_stat(line.as_bytes()).unwrap();
            (stat.utime, stat.starttime) = (cpu, start);
            assert_eq!(Process::seen(&stat, now, 100).cpu_permille, permille);
        }
    }

    #[test]
    fn the_age_is_in_whole_seconds_and_a_long_name_is_cut() {
        let name = "kworker/u256:3-events_unbound_and_more";
        let line =
            format!("42 ({name}) R 7 0 0 0 0 2097152 0 0 0 0 5 0 0 0 0 0 0 0 100 0 321 {REST}");
        let process = Process::seen(&parse_stat(line.as_bytes()).unwrap(), 350, 100);
        assert_eq!((process.pid, process.ppid, process.state, process.rss), (42, 7, 'R', 321));
        assert_eq!(process.age(), Duration::from_secs(2));
        assert!(process.kernel_thread);
        assert_eq!(process.name(), "kworker/u256:3-events_unbound_an");
        let forever = Process::seen(&parse_stat(line.as_bytes()).unwrap(), u64::MAX, 1);
        assert_eq!(forever.age(), Duration::from_secs(u32::MAX.into()));
    }
}
