//! Signals just after a guard is installed and after it has ended, and what an idle guard costs.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use forensics_tests::{Program, example};

/// Starts the program, and waits until it waits before or after `run()`.
fn at(edge: &str) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_edges"))
        .arg(edge)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "here\n");
    child
}

fn terminate(child: &Child) {
    let killed = Command::new("/bin/kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
}

#[test]
fn a_signal_between_install_and_run_is_logged_at_once_and_not_lost() {
    let mut child = at("before");
    terminate(&child);
    // Logged while the program still waits: its main thread is in a blocking read.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("Shutdown context: signal=SIGTERM"), "{line}");

    writeln!(child.stdin.take().unwrap()).unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("phase finished phase=db_close outcome=ok"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_after_a_request_by_the_program_starts_the_configured_stop_timeout() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edges"));
    command.arg("request").env("FORENSICS_STOP_TIMEOUT", "3s");
    let program = Program::start(&mut command);
    program.wait_for_stderr("Teardown started (deadline 45.00s)");
    program.kill("-TERM");
    let ended = program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let moved = ended.line("Deadline moved by the first signal");
    assert!(moved.contains("the configured stop timeout of 3.00s"), "{moved}");
    assert_eq!(ended.phases()[1], ("db_close".to_owned(), "ok".to_owned()), "{}", ended.stderr);
}

#[test]
fn after_the_teardown_no_handler_swallows_a_signal() {
    let mut child = at("after");
    terminate(&child);
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[test]
fn after_the_guard_is_dropped_a_signal_that_was_ignored_at_the_start_has_its_default_action() {
    // A shell starts a background job with SIGINT ignored, like this.
    let script = format!("trap '' INT; exec {} after", env!("CARGO_BIN_EXE_edges"));
    let mut child = Command::new("bash")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let interrupt = Command::new("/bin/kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(2));
}

/// The number of context switches, voluntary or not, of all threads of a process.
fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap();
    let status: String = tasks.map(|task| status(task.unwrap())).collect();
    let lines = status.lines().filter(|line| line.contains("_ctxt_switches:"));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn an_idle_guard_is_not_scheduled_once_in_ten_seconds() {
    let minimal = Program::start(&mut Command::new(example("minimal")));
    minimal.wait_for_stdout("working");
    // It prints its line shortly before all its threads sleep. Until then the count changes.
    let mut before = switches(minimal.pid());
    // A second after `run()` has begun, it checks its signals for the last time, which must not fall into
    // the ten seconds.
    let settled = (0..30).any(|_| {
        thread::sleep(Duration::from_secs(2));
        let now = switches(minimal.pid());
        std::mem::replace(&mut before, now) == now
    });
    assert!(settled, "it is still scheduled");
    // Not for synchronisation: the test measures that nothing happens in this time.
    thread::sleep(Duration::from_secs(10));
    assert_eq!(switches(minimal.pid()), before);
    minimal.kill("-TERM");
    assert_eq!(minimal.wait().code(), 0);
}
