//! What the signal path costs in system calls, allocations and instructions, which are the same on
//! every machine. The benches measure how long it takes; see `docs/performance.md`.
//!
//! The bounds detect regressions, such as a file that is read twice or a loop that became
//! quadratic. They are not targets: raise one if simpler code needs it, and say why in the commit.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::path::Path;
use std::process::Command;

use allocation_counter::measure;
use forensics_tests::cost::{Subjects, context_and_line, event_recorded, timespan_read};
use forensics_tests::{Program, can};

/// Files opened from the signal's arrival until the context line is written and the token cancelled:
/// two by the handler, three if the sender is in a login session; four for the context line; one for
/// each of at most 8 ancestors that may decide the cause; and four about the sender if it still
/// exists. Files that only the record needs are read at the same time: those of control groups are
/// not counted, and some two about the sender may come first. Futex and epoll calls vary, so they
/// are not counted.
const OPENS_TO_TOKEN: usize = 21;
/// The thread that reads the facts of the context line, the log thread, and, if it starts early
/// enough, the thread that reads the facts of the record.
const THREADS_TO_TOKEN: usize = 3;

/// Counted: 361 with 8 ancestors, in control groups of version 1. procfs copies every text, and keeps
/// a map of the fields of `status`.
const ALLOCATIONS_OF_CONTEXT: u64 = 340;
const ALLOCATIONS_OF_AN_ANCESTOR: u64 = 7;

/// Counted: 10. Some of them are for looking for the file at its path before the write.
const ALLOCATIONS_OF_AN_EVENT: u64 = 10;

/// In the test profile, which optimises only forensics-core and procfs-core. Counted: 681,000 with
/// 8 ancestors; 17,500; 5,080. procfs parses all 52 fields of a `stat`.
const INSTRUCTIONS_OF_CONTEXT: u64 = 700_000;
const INSTRUCTIONS_OF_AN_ANCESTOR: u64 = 17_000;
const INSTRUCTIONS_OF_AN_EVENT: u64 = 21_000;
const INSTRUCTIONS_OF_A_TIMESPAN: u64 = 6_600;

#[test]
fn from_the_signal_to_the_cancelled_token_few_files_are_opened_and_few_threads_started() {
    if !can(Command::new("strace").arg("--version")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-I2", "-s", "200", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_cost"))
        .arg("signal");
    let program = Program::start(&mut command);
    program.wait_for_stdout("ready");
    let service = children(program.pid());
    let killed = Command::new("/bin/kill").arg("-TERM").arg(service.trim()).status().unwrap();
    assert!(killed.success());
    program.wait_for_stdout("cancelled");
    assert_eq!(program.wait().code(), 0);

    let trace = std::fs::read_to_string(trace).unwrap();
    let after = trace.split_once("--- SIGTERM").unwrap().1;
    let path = after.split_once(r#"write(1, "cancelled"#).unwrap().0;
    // strace splits a call that another thread interrupts into two lines, with its name in the first.
    // What is read about our own threads and about control groups does not delay the token.
    let is_aside = |line: &&str| line.contains("/proc/self/task") || line.contains("cgroup");
    let calls = path.lines().filter(|line| !is_aside(line));
    let count = |call| calls.clone().filter(|line| line.contains(call)).count();
    let (opens, threads) = (count(" openat("), count(" clone3("));
    println!("{opens} opens, {threads} threads");
    assert!(opens <= OPENS_TO_TOKEN && threads <= THREADS_TO_TOKEN, "{opens}, {threads}:\n{path}");
}

/// The only child of a process.
fn children(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
}

#[test]
fn context_record_and_time_span_allocate_little() {
    let subjects = Subjects::prepare().unwrap();
    let ancestors = subjects.ancestors();
    event_recorded(&subjects).unwrap();
    let context = measure(|| drop(context_and_line(&subjects))).count_total;
    let event = measure(|| event_recorded(&subjects).unwrap()).count_total;
    let timespan = measure(|| assert!(timespan_read().is_ok())).count_total;
    println!("context {context} with {ancestors} ancestors, event {event}, time span {timespan}");
    let bound = ALLOCATIONS_OF_CONTEXT + ALLOCATIONS_OF_AN_ANCESTOR * ancestors;
    assert!(context <= bound, "{context} allocations with {ancestors} ancestors, not {bound}");
    assert!(event <= ALLOCATIONS_OF_AN_EVENT, "{event} allocations");
    assert_eq!(timespan, 0);
}

#[test]
fn context_record_and_time_span_take_few_instructions() {
    if !can(Command::new("valgrind").arg("--version")) {
        return;
    }
    // The program that valgrind runs has this process as an ancestor, too.
    let ancestors = Subjects::prepare().unwrap().ancestors() + 1;
    println!("{ancestors} ancestors");
    for (what, bound) in [
        ("context", INSTRUCTIONS_OF_CONTEXT + INSTRUCTIONS_OF_AN_ANCESTOR * ancestors),
        ("record", INSTRUCTIONS_OF_AN_EVENT),
        ("timespan", INSTRUCTIONS_OF_A_TIMESPAN),
    ] {
        // The difference excludes the start of the program and its one-time work.
        let each = (instructions(what, 60) - instructions(what, 10)) / 50;
        println!("{what}: {each} instructions");
        assert!(each <= bound, "{what}: {each} instructions, not {bound}");
    }
}

/// The number of instructions that valgrind counts.
fn instructions(what: &str, times: u32) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(Path::new(env!("CARGO_BIN_EXE_cost")))
        .args([what, &times.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let line = said.lines().find(|line| line.contains("Collected")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
