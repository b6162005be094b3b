//! The whole look, at made-up trees and at a real one.

use super::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A made-up machine without any file but those written.
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
        let tail = format!(
            ") S {ppid} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0 0 25 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        let stat = [head.as_bytes(), name.as_ref(), tail.as_bytes()].concat();
        self.file(&format!("proc/{pid}/stat"), stat)
    }

    fn look(&self, pid: i32) -> Diagnostic {
        let root = self.0.path();
        Diagnostic {
            cgroup: root.join("cgroup"),
            kmsg: root.join("kmsg"),
            ..Diagnostic::of(pid).proc_root(root.join("proc"))
        }
    }
}

fn text(look: &Diagnostic) -> String {
    let mut out = Vec::new();
    look.write_to(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The lines below the heading that starts so.
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
fn the_sections_that_cannot_block_come_first() {
    let look = text(&Machine::empty().look(1).heading("signal=SIGTERM").heading("second"));
    let headings: Vec<&str> =
        look.lines().filter_map(|l| l.strip_prefix("--- ")?.split_whitespace().next()).collect();
    let expected =
        ["date", "context", "process", "load", "cgroup", "kernel", "subtree", "busiest", "end"];
    assert_eq!(headings, expected);
    assert_eq!(section(&look, "context"), ["signal=SIGTERM", "second"]);
    assert!(!text(&Machine::empty().look(1)).contains("--- context"));
}

#[test]
fn a_missing_file_costs_its_own_line() {
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
    let look = text(&nothing.look(7).proc_root(nothing.0.path().join("none")));
    assert_eq!(section(&look, "processes"), ["not readable (ENOENT)"]);
    assert!(is_complete(&look));
}

#[test]
fn the_process_and_its_surroundings_are_shown() {
    let machine = Machine::empty();
    machine
        .process(7, 1, "gateway")
        .file("proc/7/status", "Name:\tgateway\nState:\tS (sleeping)\nThreads:\t3\n")
        .file("proc/7/limits", "Max open files            1024    4096    files\n")
        .file("proc/7/cgroup", "0::/system.slice/gateway.service\n")
        .file("proc/loadavg", "0.42 0.30 0.20 1/80 4242\n")
        .file("proc/pressure/cpu", "some avg10=0.17 total=9\nfull avg10=0.00 total=0\n")
        .file("proc/meminfo", "MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:   5 kB\n")
        .file("cgroup/cgroup.controllers", "cpu memory pids\n")
        .file("cgroup/system.slice/gateway.service/memory.events", "oom 1\noom_kill 1\n")
        .file("cgroup/system.slice/gateway.service/memory.max", "1572864\n")
        .file("kmsg", "6,1,5000042,-;Killed process 9 (x)\n");
    let look = text(&machine.look(7));
    for line in [
        "status: State: S (sleeping) | Threads: 3",
        "limits: nofile soft 1024, hard 4096",
        "cgroup: 0::/system.slice/gateway.service",
        "loadavg: 0.42 0.30 0.20 1/80 4242",
        "pressure cpu: some avg10=0.17 total=9 | full avg10=0.00 total=0",
        "meminfo: MemTotal: 9 kB | MemAvailable: 5 kB",
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
fn a_process_in_an_uninterruptible_wait_is_not_asked_for_its_command_line() {
    let machine = Machine::empty();
    machine
        .file(
            "proc/7/stat",
            "7 (db) D 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0 0 25 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        )
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
fn a_deep_chain_is_shown_whole_and_its_text_stays_linear() {
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
fn only_the_busiest_are_shown_of_many() {
    let machine = Machine::empty();
    for pid in 1..=500 {
        machine.process(pid, 0, "one");
    }
    let look = text(&machine.look(1));
    assert_eq!(pids(&look, "busiest").len(), DEFAULT_TOP);
    assert_eq!(pids(&text(&machine.look(1).top(3)), "busiest").len(), 3);
}

#[test]
fn a_writer_that_fails_ends_the_look() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let failed = Machine::empty().look(1).write_to(&mut Full).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn each_row_is_handed_on_before_the_command_line_that_may_block() {
    /// Keeps each piece it is handed.
    struct Pieces(Vec<String>);
    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let machine = Machine::empty();
    machine.process(7, 1, "x").file("proc/7/cmdline", "the-command\0");
    let mut pieces = Pieces(Vec::new());
    machine.look(7).write_to(&mut pieces).unwrap();
    let with_command = pieces.0.iter().position(|p| p.starts_with("the-command\n")).unwrap();
    assert!(pieces.0[with_command - 1].lines().last().unwrap().starts_with("      7       1 "));
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
