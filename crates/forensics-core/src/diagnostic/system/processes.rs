//! The machine's processes: one small read for each, and further reads for those that are shown.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use procfs::process::Stat;

use super::super::elapsed;
use super::format::{problem, size};
use super::reads::{Reads, bytes, text};
use super::tree::{Row, Tree};
use crate::escape::{Escaped, MAX_CMDLINE_CHARS, truncate};
use crate::logfmt::Value;
use crate::os;
use crate::procfile::parse_stat;
use crate::secret::redact_some;

/// How many ancestors are shown above one of the busiest processes: the nearest ones.
const ANCESTORS: usize = 32;

/// How many descendants are shown in detail. Further ones are shown by their `stat` alone.
const CLOSELY: usize = 256;

/// Deeper rows are not indented further. Otherwise the text would grow with the square of the
/// length of a chain of forks.
const MAX_INDENT: usize = 24;

/// Flag of a kernel thread, `PF_KTHREAD` in the kernel's `include/linux/sched.h`.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A process as its `stat` describes it.
#[derive(Debug)]
pub(super) struct Process {
    /// The name is not escaped. The resident memory may be out of date (`proc_pid_stat(5)`).
    pub(super) stat: Stat,
    /// CPU time over lifetime, as in `ps`, in thousandths of one processor.
    cpu_permille: u64,
    age: Duration,
}

/// The facts that were read about each process, by pid.
type ByPid<R> = BTreeMap<i32, io::Result<R>>;

/// The facts that are read only for processes shown in detail.
struct Details {
    uids_and_waits: ByPid<(Option<u32>, Option<String>)>,
    command_lines: ByPid<Option<String>>,
}

impl Process {
    fn of(stat: Stat, now_ticks: u64) -> Self {
        // A process may have started after the time was taken.
        let ticks = now_ticks.saturating_sub(stat.starttime);
        let cpu = stat.utime.saturating_add(stat.stime);
        Self {
            cpu_permille: cpu.saturating_mul(1000) / ticks.max(1),
            age: Duration::from_secs(ticks / procfs::ticks_per_second()),
            stat,
        }
    }

    /// The order of siblings: the busiest first, then idle ones by size.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        (Reverse(self.cpu_permille), Reverse(self.stat.rss), self.stat.pid)
    }

    /// Whether it is a kernel thread that is idle and not blocked. On a small machine most
    /// processes are.
    pub(super) fn is_idle_kernel_thread(&self) -> bool {
        self.is_kernel_thread() && self.cpu_permille == 0 && self.stat.state != 'D'
    }

    fn is_kernel_thread(&self) -> bool {
        self.stat.flags & KERNEL_THREAD != 0
    }

    fn is_dead(&self) -> bool {
        matches!(self.stat.state, 'Z' | 'X')
    }

    /// Whether its command line is read. A zombie and a kernel thread have none. A process in an
    /// uninterruptible wait probably holds its memory map, on which the read would block.
    fn may_have_command_line(&self) -> bool {
        !self.is_dead() && !self.is_kernel_thread() && self.stat.state != 'D'
    }
}

/// Writes the process `pid` with all its descendants, and the machine's `top` busiest processes.
pub(super) fn write(
    out: &mut dyn Write,
    reads: &mut Reads<'_>,
    proc: &Path,
    pid: i32,
    top: usize,
) -> io::Result<()> {
    let folder = proc.to_owned();
    let pids = match reads.one(move || pids(&folder)) {
        Ok(pids) => pids,
        Err(error) => return writeln!(out, "--- processes\n{}", problem(&error)),
    };
    let since_boot = os::since_boot().unwrap_or_default().as_millis() as u64;
    let now = since_boot * procfs::ticks_per_second() / 1000;
    let stats = read_each(reads, proc, pids, move |home| {
        Some(Process::of(parse_stat(&bytes(&home.join("stat")).ok()?)?, now))
    });
    // A process whose `stat` could not be read has exited since it was listed.
    let processes: Vec<&Process> =
        stats.values().filter_map(|answer| answer.as_ref().ok()?.as_ref()).collect();
    let tree = Tree::of(processes.iter().copied());
    let below = tree.below(pid);
    let busiest = tree.busiest(top, ANCESTORS).rows();
    let mut seen = HashSet::new();
    let closely = below.iter().take(CLOSELY).chain(&busiest).map(|row| row.process);
    let closely: Vec<_> = closely.filter(|process| seen.insert(process.stat.pid)).collect();
    let pids = closely.iter().map(|process| process.stat.pid).collect();
    let uids_and_waits = read_each(reads, proc, pids, |home| (user(home), wait_channel(home)));
    // Command lines come last, because they are most likely to block.
    let may_have_one = closely.iter().filter(|process| process.may_have_command_line());
    let pids = may_have_one.map(|process| process.stat.pid).collect();
    let command_lines =
        read_each(reads, proc, pids, |home| command_line(&bytes(&home.join("cmdline")).ok()?));
    let details = Details { uids_and_waits, command_lines };

    match below.len() {
        n @ 0..=CLOSELY => writeln!(out, "--- subtree of {pid} ({n} processes)")?,
        n => writeln!(out, "--- subtree of {pid} ({n} processes, {CLOSELY} of them in detail)")?,
    }
    write_rows(out, &below, &details)?;
    writeln!(
        out,
        "--- busiest processes ({} of {}: with their ancestors, without idle kernel threads)",
        busiest.len(),
        processes.len()
    )?;
    write_rows(out, &busiest, &details)?;
    for (pid, answer) in &stats {
        if let Err(no_answer) = answer {
            writeln!(out, "process {pid} is not shown: {no_answer}")?;
        }
    }
    out.flush()
}

fn pids(proc: &Path) -> io::Result<Vec<i32>> {
    let names = fs::read_dir(proc)?.map_while(Result::ok).map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.to_str()?.parse().ok()).collect())
}

/// The result of `read` in the folder of each process, by pid.
fn read_each<R: Send + 'static>(
    reads: &mut Reads<'_>,
    proc: &Path,
    pids: Vec<i32>,
    read: impl Fn(&Path) -> R + Send + Sync + 'static,
) -> ByPid<R> {
    let proc = proc.to_owned();
    let answers = reads.all(pids.clone(), move |pid| Ok(read(&proc.join(pid.to_string()))));
    pids.into_iter().zip(answers).collect()
}

/// The effective user. The kernel keeps the owner of `/proc/PID` up to date for every process,
/// dumpable or not (`task_dump_owner` in `fs/proc/base.c`).
fn user(home: &Path) -> Option<u32> {
    Some(fs::metadata(home).ok()?.uid())
}

/// The kernel function that the process sleeps in, without the compiler's suffix (`.isra.0`). The
/// kernel writes `0` for none, or if we may not know it.
fn wait_channel(home: &Path) -> Option<String> {
    let name = text(&home.join("wchan")).ok()?;
    let name = name.split('.').next().filter(|name| !matches!(*name, "" | "0"))?;
    Some(Escaped(name).to_string())
}

fn write_rows(out: &mut dyn Write, rows: &[Row<'_>], details: &Details) -> io::Result<()> {
    writeln!(
        out,
        "{:>7} {:>7} {:>6} S {:>6} {:>8} {:>11} {:<24} COMMAND",
        "PID", "PPID", "UID", "%CPU", "RSS", "ELAPSED", "WCHAN"
    )?;
    for Row { process, depth } in rows {
        let (uid, wait_channel) = match details.uids_and_waits.get(&process.stat.pid) {
            Some(Ok((uid, wait_channel))) => (*uid, wait_channel.as_deref()),
            Some(Err(_)) => (None, Some("(no answer)")),
            None => (None, None),
        };
        write!(
            out,
            "{:>7} {:>7} {:>6} {} {:>6} {:>8} {:>11} {:<24} {:indent$}",
            process.stat.pid,
            process.stat.ppid,
            uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string()),
            Escaped(process.stat.state.encode_utf8(&mut [0; 4])),
            format!("{}.{}", process.cpu_permille / 10, process.cpu_permille % 10),
            size(process.stat.rss.saturating_mul(procfs::page_size())),
            elapsed(process.age),
            wait_channel.unwrap_or("-"),
            "",
            indent = (2 * depth).min(MAX_INDENT),
        )?;
        let name = Escaped(&process.stat.comm);
        match details.command_lines.get(&process.stat.pid) {
            Some(Ok(Some(line))) => writeln!(out, "{line}")?,
            Some(Err(no_answer)) => writeln!(out, "({name}) {no_answer}")?,
            _ if process.is_dead() => writeln!(out, "({name}) defunct")?,
            _ if process.is_kernel_thread() => writeln!(out, "[{name}]")?,
            _ if process.stat.state == 'D' => {
                writeln!(out, "({name}) command line not read in state D")?;
            }
            _ => writeln!(out, "({name})")?,
        }
    }
    out.flush()
}

/// Arguments as they could be typed in a shell, at most [`MAX_CMDLINE_CHARS`] characters. `None` if
/// there are none, or only blank ones.
///
/// A first argument that starts with a bracket is quoted, so that it cannot look like a kernel
/// thread or one of our remarks.
fn command_line(bytes: &[u8]) -> Option<String> {
    let text = redact_some(bytes, 4 * MAX_CMDLINE_CHARS + 4);
    let text = text.trim_end_matches('\0');
    if text.trim_matches(['\0', ' ']).is_empty() {
        return None;
    }
    // A title that the process set, as nginx and postgres do, is not quoted.
    let is_title = !text.contains('\0');
    let argument = |(n, argument): (usize, &str)| {
        let is_ambiguous = argument.is_empty() || argument.contains(['"', ' ']);
        let is_imitation = n == 0 && argument.trim_start().starts_with(['[', '(', '<']);
        if is_imitation || is_ambiguous && !is_title {
            format!("{:#}", Value(argument))
        } else {
            Escaped(argument).to_string()
        }
    };
    let arguments: Vec<String> = text.split('\0').enumerate().map(argument).collect();
    Some(truncate(arguments.join(" "), MAX_CMDLINE_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a `stat` line, from the state on.
    fn fields(ppid: i32, flags: u32, cpu: u64, start: u64, rss: u64) -> String {
        let rest = "0 ".repeat(28);
        format!("S {ppid} 0 0 0 0 {flags} 0 0 0 0 {cpu} 0 0 0 0 0 0 0 {start} 0 {rss} {rest}")
    }

    impl Process {
        /// A process with only the fields that decide the order.
        pub(in super::super) fn made_up(pid: i32, ppid: i32, cpu_permille: u64) -> Self {
            let line = format!("{pid} (x) {}", fields(ppid, 0, 0, 0, 0));
            Self { cpu_permille, ..Self::of(parse_stat(line.as_bytes()).unwrap(), 0) }
        }

        /// Turns it into a kernel thread in this state.
        pub(in super::super) fn kernel_thread(&mut self, state: char) {
            (self.stat.flags, self.stat.state) = (KERNEL_THREAD, state);
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
            let line = format!("1 (x) {}", fields(0, 0, cpu, start, 0));
            let process = Process::of(parse_stat(line.as_bytes()).unwrap(), now);
            assert_eq!(process.cpu_permille, permille);
        }
    }

    #[test]
    fn the_age_is_in_seconds_and_kernel_threads_are_recognized() {
        let line = format!("42 (kworker/u256:3-events) {}", fields(7, KERNEL_THREAD, 5, 100, 321));
        let process = |now| Process::of(parse_stat(line.as_bytes()).unwrap(), now);
        let one = process(100 + 5 * procfs::ticks_per_second() / 2);
        assert_eq!((one.stat.pid, one.stat.ppid, one.stat.state), (42, 7, 'S'));
        assert_eq!((one.age, one.stat.rss), (Duration::from_secs(2), 321));
        assert!(one.is_kernel_thread());
        assert_eq!(one.stat.comm, "kworker/u256:3-events");
        assert_eq!(process(0).age, Duration::ZERO);
    }

    #[test]
    fn no_command_line_looks_like_a_kernel_thread_or_a_remark() {
        let cases: [(&[u8], &str); 6] = [
            (b"[kworker/0:1]\0", r#""[kworker/0:1]""#),
            (b"[kworker/0:1]", r#""[kworker/0:1]""#),
            (b"(sleep) defunct\0", r#""(sleep) defunct""#),
            (b" <defunct>\0-x\0", r#"" <defunct>" -x"#),
            (b"(sh) (no answer within 1.0s)", r#""(sh) (no answer within 1.0s)""#),
            (b"a\0[b]\0", "a [b]"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(command_line(bytes).as_deref(), Some(shown));
        }
    }

    #[test]
    fn command_lines_are_shown_as_they_could_be_typed() {
        let cases: [(&[u8], Option<&str>); 10] = [
            (b"sleep\x0030\0", Some("sleep 30")),
            (b"sh\0-c\0sleep 30 & wait\0", Some(r#"sh -c "sleep 30 & wait""#)),
            (b"a\0\0--b=c\0", Some(r#"a "" --b=c"#)),
            (b"a\0say \"hi\"\0", Some(r#"a "say \"hi\"""#)),
            (b"nginx: master process\0\0\0\0", Some("nginx: master process")),
            (b"a\0b\nc\x1b[2J\0", Some(r"a b\nc\u{1b}[2J")),
            (b"\xff\xfe\0", Some("\u{fffd}\u{fffd}")),
            (b"", None),
            (b"\0\0\0", None),
            (b" \0 \0", None),
        ];
        for (bytes, shown) in cases {
            assert_eq!(command_line(bytes).as_deref(), shown);
        }
    }

    #[test]
    fn a_long_command_line_is_cut() {
        for text in ["a", "ä", "\u{1f980}", "\n", "x\0"] {
            let shown = command_line(text.repeat(4000).as_bytes()).unwrap();
            assert_eq!(shown.chars().count(), MAX_CMDLINE_CHARS);
            assert!(shown.ends_with('…'));
        }
    }
}
