//! Process 1 of a pid namespace: it inherits orphans, and the kernel ignores every signal for which
//! it has no handler.

use std::fs;
use std::process::Command;

use forensics_tests::{outcomes, until};

use crate::container::{Container, Running, can_contain};

/// The state of each child of the process: `(name, state)`.
fn children(pid: u32) -> Vec<(String, char)> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let stat = |child: &str| fs::read_to_string(format!("/proc/{child}/stat")).ok();
    children
        .split_whitespace()
        .filter_map(|child| {
            let stat = stat(child)?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            Some((name.to_owned(), rest.chars().next()?))
        })
        .collect()
}

/// Runs a shell script in the container, as `kubectl exec` does, and returns whether it succeeded
/// before the container ended.
fn exec(running: &Running, script: &str) -> bool {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--pid", "--target", &running.pid.to_string(), "sh", "-c", script]);
    nsenter.status().unwrap().success()
}

#[test]
fn inherited_orphans_stay_zombies_and_delay_no_stop() {
    if !can_contain() {
        return;
    }
    let running = Container::default().start(&[]);
    // The shell ends before its child, so the gateway inherits the child.
    assert!(exec(&running, "sleep 0.1 & exit"));
    let is_zombie = ("sleep".to_owned(), 'Z');
    until("its orphan has ended", || children(running.pid).contains(&is_zombie));
    let stopped = running.stop();
    assert_eq!(stopped.ended.code(), 0, "{}", stopped.ended.stderr);
    assert_eq!(stopped.ended.phases(), outcomes(["ok", "ok", "ok", "ok"]));
}

#[test]
fn no_process_of_the_diagnostic_remains() {
    if !can_contain() {
        return;
    }
    let folder = "/var/lib/gateway";
    let container = Container { volumes: vec![folder.to_owned()], ..Container::default() };
    let log = format!("{folder}/log/diag.log");
    let running = container.start(&["--diag-log", &log, "--wedge", "drain"]);
    running.kill("-TERM");
    running.program.wait_for_stderr("Diagnostic written");
    assert_eq!(children(running.pid), []);
    running.kill("-KILL");
    let stopped = running.wait();
    let text = fs::read_to_string(stopped.volume(0).join("log/diag.log")).unwrap();
    assert!(text.starts_with("=== gateway[1] signal=SIGTERM cause=container_stop"), "{text}");
    assert!(text.contains("\n--- end of diagnostic"), "{text}");
}

#[test]
fn a_signal_without_a_handler_does_nothing_and_one_from_inside_is_named() {
    if !can_contain() {
        return;
    }
    let running = Container::default().start(&[]);
    // Each of these signals would end any other process.
    running.kill("-USR1");
    running.kill("-ALRM");
    assert!(exec(&running, "kill -KILL 1"));
    // When process 1 ends, the kernel kills all processes of the container.
    let outlived = exec(&running, "kill -TERM 1; sleep 60");
    let stopped = running.wait();
    assert!(!outlived, "{}", stopped.ended.stderr);
    assert_eq!(stopped.ended.code(), 0, "{}", stopped.ended.stderr);
    assert_eq!(stopped.field("sender_name"), Some("sh"));
    assert_eq!(stopped.field("sender_forwards"), None);
    // A new session without a terminal, like `kubectl exec` without -t.
    assert_ne!(stopped.field("cause"), Some("container_stop"));
    assert!(stopped.message.contains("\nsender: sh("), "{}", stopped.message);
}

#[test]
fn in_a_shared_pid_namespace_it_is_not_process_one_and_a_sidecar_that_kills_it_is_named() {
    if !can_contain() {
        return;
    }
    let shared = Container { shared: true, ..Container::default() };
    let running = shared.start(&[]);
    let pids = fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
    let pids = pids.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    let inside = pids.split_whitespace().last().unwrap();
    assert_ne!(inside, "1");
    let outlived = exec(&running, &format!("kill -TERM {inside}; sleep 60"));
    let stopped = running.wait();
    assert!(!outlived, "{}", stopped.ended.stderr);
    assert_eq!(stopped.ended.code(), 0, "{}", stopped.ended.stderr);
    assert_eq!(stopped.field("sender_name"), Some("sh"));
    assert_ne!(stopped.field("cause"), Some("supervisor"));

    let stopped = shared.start(&[]).stop();
    assert_eq!(stopped.field("cause"), Some("container_stop"));
    assert_eq!(stopped.field("sender_pid"), Some("0"));
    assert_eq!(stopped.ended.code(), 0, "{}", stopped.ended.stderr);
}
