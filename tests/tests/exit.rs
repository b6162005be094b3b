//! How the gateway's process ends: with an exit status, or by the signal that stopped it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use forensics_tests::{ANY_SIGNAL, Gateway, Program, example, outcomes, root_can};
use forensics_tokio::core::record::{PostMortem, RunOutcome};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use tempfile::TempDir;

const BY_SIGNAL: (&str, &str) = ("FORENSICS_EXIT_BY_SIGNAL", "yes");

/// A gateway that ends by its signal, and the folder of its records.
fn gateway(arguments: &[&str]) -> (Gateway, TempDir) {
    let records = tempfile::tempdir().unwrap();
    let mut command = Command::new(example("gateway"));
    command.arg("--records").arg(records.path().join("records")).args(arguments);
    (Program::gateway_by(command.envs([BY_SIGNAL, ANY_SIGNAL])), records)
}

fn verdict(records: &TempDir) -> PostMortem {
    PostMortem::of_last(&records.path().join("records")).unwrap().unwrap()
}

#[test]
fn after_the_teardown_it_ends_by_the_signal_that_stopped_it() {
    for (name, number) in [("SIGTERM", 15), ("SIGINT", 2), ("SIGHUP", 1), ("SIGQUIT", 3)] {
        let (gateway, records) = gateway(&[]);
        gateway.program.kill(&format!("-{number}"));
        let ended = gateway.program.wait();
        assert_eq!(ended.status.signal(), Some(number), "{name}: {}", ended.stderr);
        assert!(!ended.status.core_dumped(), "{name}");
        assert_eq!(ended.phases(), outcomes(["ok", "ok", "ok", "ok"]), "{}", ended.stderr);
        let complete = ended.line("Shutdown complete");
        assert!(complete.contains(&format!("exit_signal={name}")), "{complete}");
        let verdict = verdict(&records);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!((verdict.exit_code, verdict.exit_signal.as_deref()), (None, Some(name)));
    }
}

#[test]
fn a_teardown_that_was_not_as_planned_ends_by_the_signal_too_but_a_forced_end_has_its_status() {
    let (late, records) = gateway(&["--wedge", "drain", "--drain-timeout", "1s"]);
    late.program.kill("-TERM");
    let ended = late.program.wait();
    assert_eq!(ended.status.signal(), Some(15), "{}", ended.stderr);
    assert_eq!(verdict(&records).outcome, RunOutcome::TimedOut);

    let (blocked, records) = gateway(&["--block", "db_close", "--deadline", "2s"]);
    blocked.program.kill("-TERM");
    let ended = blocked.program.wait();
    assert_eq!(ended.code(), 70, "{}", ended.stderr);
    let verdict = verdict(&records);
    assert_eq!((verdict.exit_code, verdict.exit_signal.as_deref()), (Some(70), None));
}

#[test]
fn process_1_of_a_container_ends_with_the_number_of_the_signal() {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    if !root_can(Command::new("unshare").args(["--pid", "--fork", "true"])) {
        return;
    }
    let gateway = Program::gateway_by(unshare.arg(example("gateway")).envs([BY_SIGNAL]));
    let children = format!("/proc/{0}/task/{0}/children", gateway.program.pid());
    let child = std::fs::read_to_string(children).unwrap();
    assert!(Command::new("/bin/kill").arg(child.trim()).status().unwrap().success());
    let ended = gateway.program.wait();
    assert_eq!(ended.code(), 128 + 15, "{}", ended.stderr);
    assert_eq!(ended.phases(), outcomes(["ok", "ok", "ok", "ok"]), "{}", ended.stderr);
}

/// Runs the gateway in a loop of bash at a terminal, presses Ctrl-C once the gateway listens, and
/// returns what the terminal shows.
fn loop_at_a_terminal(by_signal: &str) -> String {
    let mut master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname_r(&master).unwrap();
    // It ends after the second run in any case.
    let script = "n=0; while [ $n -lt 1 ] && \"$0\"; do n=1; echo went on; done; echo out";
    let start = "exec setsid --ctty --wait bash -c \"$1\" \"$2\" <\"$0\" >\"$0\" 2>&1";
    let mut sh = Command::new("sh");
    sh.args(["-c", start, &path, script]).arg(example("gateway"));
    sh.env(BY_SIGNAL.0, by_signal).stdin(Stdio::null());
    let mut shell = sh.spawn().unwrap();
    let mut shown = String::new();
    let mut pressed = false;
    let mut buffer = [0; 4096];
    // The read fails when the last process that has the terminal open has ended.
    while let Ok(read @ 1..) = master.read(&mut buffer) {
        shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if !pressed && shown.contains("listening on") {
            master.write_all(b"\x03").unwrap();
            pressed = true;
        }
    }
    shell.wait().unwrap();
    assert!(pressed && shown.contains("Shutdown complete"), "{shown}");
    shown
}

#[test]
fn ctrl_c_ends_a_loop_of_a_shell_only_if_the_process_ends_by_the_signal() {
    assert!(!loop_at_a_terminal("yes").contains("went on"));
    assert!(loop_at_a_terminal("no").contains("went on"));
}
