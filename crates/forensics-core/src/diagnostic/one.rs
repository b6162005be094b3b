//! One of the machine's processes, as its `stat` shows it, and its place among others.

use std::cmp::Reverse;
use std::time::Duration;

use super::stat::Stat;

/// The order of processes side by side: the busiest first, among idle ones the largest.
pub(super) type Rank = (Reverse<u64>, Reverse<u64>, i32);

pub(super) struct Process {
    pub(super) stat: Stat,
    /// CPU time over lifetime, as `ps` has it, in thousandths of one processor.
    pub(super) cpu_permille: u64,
    pub(super) age: Duration,
}

impl Process {
    pub(super) fn rank(&self) -> Rank {
        (Reverse(self.cpu_permille), Reverse(self.stat.rss), self.stat.pid)
    }

    /// Whether it is a kernel thread that neither works nor hangs: a small machine has more of
    /// those than of all others.
    pub(super) fn is_idle_kernel_thread(&self) -> bool {
        self.stat.kernel_thread && self.cpu_permille == 0 && self.stat.state != 'D'
    }

    pub(super) fn seen(stat: Stat, now: u64, ticks_per_second: u64) -> Self {
        // A process may have started after `now` was taken.
        let ticks = now.saturating_sub(stat.start);
        let cpu_permille = stat.cpu.saturating_mul(1000) / ticks.max(1);
        Self { stat, cpu_permille, age: Duration::from_secs(ticks / ticks_per_second) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Process {
        /// A process for tests of the order alone.
        pub(in super::super) fn made_up(pid: i32, ppid: i32, cpu_permille: u64) -> Self {
            let line = format!("{pid} (x) S {ppid} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0");
            let stat = Stat::parse(line.as_bytes()).unwrap();
            Self { stat, cpu_permille, age: Duration::ZERO }
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
            (u64::MAX, 0, 1_000_000, u64::MAX / 1_000_000),
        ];
        for (cpu, start, now, permille) in cases {
            let mut stat = Process::made_up(1, 0, 0).stat;
            (stat.cpu, stat.start) = (cpu, start);
            assert_eq!(Process::seen(stat, now, 100).cpu_permille, permille);
        }
    }
}
