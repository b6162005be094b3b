//! The whole diagnostic, of made-up machines and of this one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use super::*;

/// The content that procfs needs in these files. The name of the process is one that procfs cannot
/// parse.
const STATUS: &[u8] = b"Name:\tgate\xffway\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t1\nTracerPid:\t0
Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t0 \nVmHWM:\t       9 kB\nVmRSS:\t       8 kB
VmSwap:\t       1 kB\nThreads:\t3\nSigQ:\t0/4096\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0
CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\n";
const PRESSURE: &str = "some avg10=0.17 avg60=1.20 avg300=0.04 total=9
full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
const MEMINFO: &str = "MemTotal:  9 kB\nMemFree:  1 kB\nMemAvailable:  5 kB\nBuffers: 0 kB\nCached: 0 kB
SwapCached: 0 kB\nActive: 0 kB\nInactive: 0 kB\nSwapTotal: 3 kB\nSwapFree: 2 kB\nDirty: 0 kB\nWriteback: 0 kB
Mapped: 0 kB\nSlab: 0 kB\nCommitted_AS: 0 kB\nVmallocTotal: 0 kB\nVmallocUsed: 0 kB\nVmallocChunk: 0 kB\n";

/// The fields of a `stat` line from the parent's pid on.
fn stat_fields(ppid: i32) -> String {
    format!("{ppid} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0 0 25 {}\n", "0 ".repeat(28))
}

/// A made-up machine that has only the files that are written.
struct Machine(tempfile::TempDir);

impl Machine {
    fn empty() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::create_dir(machine.0.path().join("proc")).unwrap();
        machine
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn process(&self, pid: i32, ppid: i32, name: impl AsRef<[u8]>) -> &Self {
        let head = format!("{pid} (");
        let tail = format!(") S {}", stat_fields(ppid));
        let stat = [head.as_bytes(), name.as_ref(), tail.as_bytes()].concat();
        self.file(&format!("proc/{pid}/stat"), stat)
    }

    /// A file that never answers: a FIFO without a writer, which blocks open(2).
    fn hangs(&self, path: &str) -> &Self {
        self.file(path, "");
        let path = self.0.path().join(path);
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        self
    }

    fn look(&self, pid: i32) -> Diagnostic {
        let root = self.0.path();
        Diagnostic {
            cgroup: root.join("cgroup"),
            kmsg: root.join("kmsg"),
            proc: root.join("proc"),
            ..Diagnostic::of(pid)
        }
    }
}

fn on_a_thread(work: Work) -> io::Result<()> {
    thread::Builder::new().spawn(work).map(drop)
}

fn text(look: &Diagnostic) -> String {
    let mut out = Vec::new();
    look.write_to(&mut out, on_a_thread).unwrap();
    String::from_utf8(out).unwrap()
}

/// The lines below the heading that starts with this text.
fn section<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let heading = format!("--- {heading}");
    let lines = text.lines().skip_while(|line| !line.starts_with(&heading)).skip(1);
    lines.take_while(|line| !line.starts_with("--- ")).collect()
}

/// Pids of the process lines of a section, from top to bottom.
fn pids(text: &str, heading: &str) -> Vec<i32> {
    let rows = section(text, heading);
    let first_word = |row: &&str| row.split_whitespace().next().unwrap().parse().unwrap();
    rows.iter().skip(1).map(first_word).collect()
}

fn is_complete(text: &str) -> bool {
    let last = text.lines().last().unwrap();
    last.starts_with("--- end of diagnostic (") && text.ends_with(" ms)\n")
}

#[test]
fn elapsed_time_has_the_format_of_ps() {
    let cases = [
        (0, "00:00"),
        (59, "00:59"),
        (3599, "59:59"),
        (3600, "01:00:00"),
        (86_399, "23:59:59"),
        (90_061, "1-01:01:01"),
    ];
    for (seconds, shown) in cases {
        assert_eq!(elapsed(Duration::from_secs(seconds)), shown);
    }
}

#[test]
fn the_sections_that_cannot_block_come_first() {
    let look = text(&Machine::empty().look(1));
    let headings: Vec<&str> =
        look.lines().filter_map(|l| l.strip_prefix("--- ")?.split_whitespace().next()).collect();
    let expected = ["date", "process", "load", "cgroup", "kernel", "subtree", "busiest", "end"];
    assert_eq!(headings, expected);
}

#[test]
fn a_missing_file_affects_only_its_own_line() {
    let look = text(&Machine::empty().look(7));
    assert!(is_complete(&look));
    for line in [
        "status: not readable (ENOENT)",
        "open files: not readable (ENOENT)",
        "pressure memory: not readable (ENOENT)",
        "meminfo: not readable (ENOENT)",
        "cgroup: not readable (ENOENT)",
        "kernel log: not readable (ENOENT)",
        "--- subtree of 7 (0 processes)",
    ] {
        assert!(look.lines().any(|l| l == line), "no line `{line}` in:\n{look}");
    }
    let nothing = Machine::empty();
    let look = text(&Diagnostic { proc: nothing.0.path().join("none"), ..nothing.look(7) });
    assert_eq!(section(&look, "processes"), ["not readable (ENOENT)"]);
    assert!(is_complete(&look));
}

#[test]
fn the_process_and_its_surroundings_are_shown() {
    let machine = Machine::empty();
    machine
        .process(7, 1, "gateway")
        .file("proc/7/status", STATUS)
        .file("proc/7/limits", "Max open files            1024    4096    files\n")
        .file("proc/7/cgroup", "0::/system.slice/gateway.service\n")
        .file("proc/loadavg", "0.42 0.30 0.20 1/80 4242\n")
        // The format before Linux 5.13.
        .file("proc/pressure/cpu", "some avg10=0.17 avg60=0.00 avg300=0.00 total=9\n")
        .file("proc/pressure/io", PRESSURE)
        .file("proc/meminfo", MEMINFO)
        .file("cgroup/cgroup.controllers", "cpu memory pids\n")
        .file("cgroup/system.slice/gateway.service/memory.events", "oom 1\noom_kill 1\n")
        .file("cgroup/system.slice/gateway.service/memory.max", "1572864\n")
        .file("kmsg", "6,1,5000042,-;Killed process 9 (x)\n");
    let look = text(&machine.look(7));
    for line in [
        "status: State: S (sleeping) | TracerPid: 0 | Threads: 3 | VmHWM: 9 kB | VmRSS: 8 kB | \
         VmSwap: 1 kB",
        "limits: nofile soft 1024, hard 4096",
        "cgroup: 0::/system.slice/gateway.service",
        "loadavg: 0.42 0.30 0.20 1/80 4242",
        "pressure cpu: some avg10=0.17 avg60=0.00 avg300=0.00 total=9",
        "pressure io: some avg10=0.17 avg60=1.20 avg300=0.04 total=9 | \
         full avg10=0.00 avg60=0.00 avg300=0.00 total=0",
        "meminfo: MemTotal: 9 kB | MemAvailable: 5 kB | SwapTotal: 3 kB | SwapFree: 2 kB",
        "memory.events: oom 1 | oom_kill 1",
        "memory.max: 1572864 (1.5M)",
        "memory.current: not readable (ENOENT)",
        "[    5.000042] Killed process 9 (x)",
    ] {
        assert!(look.lines().any(|l| l == line), "no line `{line}` in:\n{look}");
    }
}

#[test]
fn version_1_groups_are_found_where_they_are_mounted() {
    let machine = Machine::empty();
    machine
        .file("proc/7/cgroup", "4:memory:/docker/1f\n0::/\n")
        .file("cgroup/memory/memory.oom_control", "under_oom 0\noom_kill 3\n")
        .file("cgroup/unified/pids.max", "max\n");
    let look = text(&machine.look(7));
    let lines = section(&look, "cgroup");
    assert!(lines[0].ends_with("/memory (the process's own path is not visible here)"), "{look}");
    assert_eq!(lines[1], "memory.oom_control: under_oom 0 | oom_kill 3");
    assert!(lines.contains(&"pids.max: max"));
}

#[test]
fn hostile_names_stay_in_their_line() {
    let machine = Machine::empty();
    machine
        .process(7, 1, "a) S 1 (b")
        .process(8, 7, "\n--- end")
        .file("proc/8/cmdline", "x\n--- end of diagnostic (1 ms)\n\0\u{1b}[2J\0")
        .process(9, 7, b"\xff\n\x1b[2J")
        .file("proc/9/wchan", "a\nb");
    let look = text(&machine.look(7));
    assert_eq!(look.lines().filter(|line| line.starts_with("--- end")).count(), 1);
    assert!(!look.chars().any(|c| c.is_control() && c != '\n'));
    assert_eq!(pids(&look, "subtree of 7 (3 processes)"), [7, 8, 9]);
    let rows = section(&look, "subtree");
    assert!(rows[1].ends_with(" (a) S 1 (b)"), "{}", rows[1]);
    assert!(rows[2].ends_with(r#"  "x\n--- end of diagnostic (1 ms)\n" \u{1b}[2J"#), "{}", rows[2]);
    assert!(rows[3].contains(r" a\nb ") && rows[3].ends_with(r"\n\u{1b}[2J)"), "{}", rows[3]);
}

#[test]
fn the_command_line_of_a_process_in_an_uninterruptible_wait_is_not_read() {
    let machine = Machine::empty();
    machine
        .file("proc/7/stat", format!("7 (db) D {}", stat_fields(1)))
        .file("proc/7/cmdline", "db\0--serve\0");
    let look = text(&machine.look(7));
    assert!(!look.contains("--serve"));
    assert!(section(&look, "subtree")[1].contains(" (db) "));
}

#[test]
fn rings_and_processes_without_a_parent_are_all_shown() {
    let machine = Machine::empty();
    machine.process(5, 6, "ring").process(6, 5, "ring").process(7, 7, "own parent");
    machine.process(8, 99, "orphan").file("proc/10/stat", "nonsense").file("proc/11/comm", "x");
    let look = text(&machine.look(5));
    assert_eq!(pids(&look, "subtree"), [5, 6]);
    let mut all = pids(&look, "busiest processes (4 of 4:");
    all.sort_unstable();
    assert_eq!(all, [5, 6, 7, 8]);
}

#[test]
fn a_deep_chain_is_shown_completely_with_text_of_linear_size() {
    let machine = Machine::empty();
    for pid in 1..=5000 {
        machine.process(pid, pid - 1, "link");
    }
    let look = text(&machine.look(1));
    assert_eq!(pids(&look, "subtree"), (1..=5000).collect::<Vec<_>>());
    assert!(look.lines().all(|line| line.len() < 150));
    assert!(is_complete(&look));
}

#[test]
fn only_the_busiest_of_many_are_shown() {
    let machine = Machine::empty();
    for pid in 1..=500 {
        machine.process(pid, 0, "one");
    }
    let look = text(&machine.look(1));
    assert_eq!(pids(&look, "busiest").len(), DEFAULT_TOP);
    let look = text(&Diagnostic { top: 3, ..machine.look(1) });
    assert_eq!(pids(&look, "busiest").len(), 3);
}

#[test]
fn a_writer_that_fails_ends_the_diagnostic() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let failed = Machine::empty().look(1).write_to(&mut Full, on_a_thread).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn files_that_do_not_answer_are_named_and_the_rest_is_shown() {
    let machine = Machine::empty();
    machine
        .process(7, 1, "gateway")
        .process(8, 7, "worker")
        .process(9, 7, "other")
        .hangs("proc/7/oom_score_adj")
        .hangs("proc/loadavg")
        .hangs("proc/pressure/memory")
        .file("proc/pressure/io", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n")
        .hangs("proc/meminfo")
        .file("proc/7/cgroup", "0::/\n")
        .file("cgroup/cgroup.controllers", "")
        .file("cgroup/memory.events", "oom 1\n")
        .hangs("cgroup/memory.current")
        .file("cgroup/pids.max", "max\n")
        .file("kmsg", "6,1,5000042,-;Killed process 9 (x)\n")
        .hangs("proc/8/cmdline")
        .hangs("proc/9/wchan")
        .file("proc/9/cmdline", "other\0--with=arguments\0")
        .process(10, 7, "silent")
        .hangs("proc/10/stat");
    let look = text(&machine.look(7));
    for line in [
        "oom_score_adj: (no answer within 1.0s)",
        "cgroup: 0::/",
        "loadavg: (no answer within 1.0s)",
        "pressure memory: (no answer within 1.0s)",
        "pressure io: some avg10=0.00 avg60=0.00 avg300=0.00 total=1",
        "meminfo: (no answer within 1.0s)",
        "memory.events: oom 1",
        "pids.max: max",
        "[    5.000042] Killed process 9 (x)",
    ] {
        assert!(look.lines().any(|l| l == line), "no line `{line}` in:\n{look}");
    }
    // By now, the waits add up to three seconds.
    assert!(look.contains("\nmemory.current: (no answer within "), "{look}");
    assert!(look.contains("\nprocess 10 is not shown: (no answer within 0.1s)\n"), "{look}");
    let rows = section(&look, "subtree of 7 (3 processes)");
    assert!(rows[2].ends_with("  (worker) (no answer within 0.1s)"), "{look}");
    assert!(rows[3].contains(" (no answer) "), "{look}");
    assert!(rows[3].ends_with("  other --with=arguments"), "{look}");
    assert!(is_complete(&look));
}

#[test]
fn one_command_line_that_blocks_does_not_affect_the_others() {
    let machine = Machine::empty();
    for pid in 1..=50 {
        machine.process(pid, 0, format!("name-{pid}"));
        machine.file(&format!("proc/{pid}/cmdline"), format!("command-{pid}\0"));
    }
    machine.hangs("proc/20/cmdline");
    let look = text(&machine.look(20));
    assert!(section(&look, "subtree")[1].ends_with("(name-20) (no answer within 1.0s)"), "{look}");
    for row in &section(&look, "busiest")[1..] {
        let is_silent = row.contains("(name-20) (no answer within 1.0s)");
        assert!(is_silent || row.contains(" command-"), "{row}");
    }
}

#[test]
fn a_machine_on_which_nothing_answers_takes_a_limited_time() {
    let machine = Machine::empty();
    for pid in 1..=40 {
        machine.hangs(&format!("proc/{pid}/stat"));
    }
    for file in ["status", "limits", "oom_score_adj", "cgroup"] {
        machine.hangs(&format!("proc/1/{file}"));
    }
    for file in ["loadavg", "meminfo", "pressure/cpu", "pressure/memory", "pressure/io"] {
        machine.hangs(&format!("proc/{file}"));
    }
    let started = Instant::now();
    let look = text(&machine.look(1));
    assert!(started.elapsed() < Duration::from_secs(5), "{look}");
    let unread = " is not shown: (not read, because too many other files do not answer)";
    assert_eq!(look.lines().filter(|line| line.ends_with(unread)).count(), 40 - 16, "{look}");
    assert!(is_complete(&look));
}

#[test]
fn without_a_thread_the_files_are_read_on_the_calling_thread() {
    let machine = Machine::empty();
    machine.process(7, 1, "gateway").file("proc/7/cmdline", "gateway\0--serve\0");
    let mut out = Vec::new();
    let no_thread = |_| Err(io::ErrorKind::WouldBlock.into());
    machine.look(7).write_to(&mut out, no_thread).unwrap();
    let look = String::from_utf8(out).unwrap();
    assert!(section(&look, "subtree")[1].ends_with(" gateway --serve"), "{look}");
    assert!(is_complete(&look));
}

#[test]
fn no_process_can_look_like_a_kernel_thread_or_a_zombie() {
    let machine = Machine::empty();
    let kernel_thread = stat_fields(2).replacen(" -1 0 ", " -1 2129984 ", 1);
    machine
        .file("proc/3/stat", format!("3 (kworker/0:1) D {kernel_thread}"))
        .file("proc/4/stat", format!("4 (sleep) Z {}", stat_fields(1)))
        .process(5, 1, "[kworker/0:1]")
        .process(6, 1, "x")
        .file("proc/6/cmdline", "[kworker/0:1]\0")
        .process(7, 1, "x")
        .file("proc/7/cmdline", "(sleep) defunct");
    let look = text(&machine.look(1));
    let rows = section(&look, "busiest");
    let row = |pid: i32| {
        let start = format!("{pid:>7} ");
        rows.iter().find(|row| row.starts_with(&start)).unwrap_or_else(|| panic!("{look}"))
    };
    for (pid, shown) in [
        (3, " [kworker/0:1]"),
        (4, " (sleep) defunct"),
        (5, " ([kworker/0:1])"),
        (6, r#" "[kworker/0:1]""#),
        (7, r#" "(sleep) defunct""#),
    ] {
        assert!(row(pid).ends_with(shown), "{}", row(pid));
    }
}

#[test]
fn a_real_tree_of_processes_is_shown() {
    let mut shell = Command::new("sh")
        .args(["-c", "sleep 30 & echo $!; sh -c 'sleep 31 & echo $!; wait' & echo $!; wait"])
        .process_group(0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(shell.stdout.take().unwrap()).lines().take(3);
    let descendants: Vec<i32> = said.map(|pid| pid.unwrap().parse().unwrap()).collect();
    let pid = i32::try_from(shell.id()).unwrap();

    let look = text(&Diagnostic::of(pid));

    for &pid in descendants.iter().chain([&pid]) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    shell.wait().unwrap();

    let mut shown = pids(&look, &format!("subtree of {pid} (4 processes)"));
    assert_eq!(shown.first(), Some(&pid), "{look}");
    let mut expected = [&descendants[..], &[pid]].concat();
    shown.sort_unstable();
    expected.sort_unstable();
    assert_eq!(shown, expected, "{look}");
    assert!(section(&look, "subtree")[1].contains(r#" sh -c "sleep 30 & echo"#), "{look}");
    assert!(section(&look, "process").iter().any(|line| line.starts_with("status: State: ")));
    assert!(!pids(&look, "busiest").is_empty());
    assert!(is_complete(&look));
}
