//! The smallest example, which a reader copies first.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::process::Command;

use forensics_tests::{example, kill};
use forensics_tokio::Signal;
use forensics_tokio::core::record::PhaseOutcome;
use forensics_tokio::testing::Process;

#[test]
fn a_terminated_service_names_the_sender_and_ends_with_0() {
    let minimal = Process::start(&mut Command::new(example("minimal")));
    minimal.wait_for_stdout("working");
    kill(&minimal, "-TERM");
    let run = minimal.wait();
    assert_eq!(run.code(), 0);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(lines[0].contains("Configured by the environment: FORENSICS_RECORD_DIR="), "{lines:?}");
    assert!(lines[1].contains("Shutdown context: signal=SIGTERM cause="), "{lines:?}");
    assert!(run.line("phase=drain").contains("outcome=ok"));
    assert!(run.line("phase=db_close").contains("outcome=ok"));
    assert!(run.line("Shutdown complete").contains("exit_status=0"));
    assert_eq!(run.outcomes(), [("drain", PhaseOutcome::Ok), ("db_close", PhaseOutcome::Ok)]);
    assert!(run.verdict.unwrap().is_clean());
}

#[test]
fn the_diagnostic_also_runs_inside_a_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("diag.log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_inside_runtime"));
    let program = Process::start(command.env("FORENSICS_DIAG_LOG", &log));
    let pid = program.pid();
    program.wait_for_stdout("working");
    program.signal(Signal::TERM);
    assert_eq!(program.wait().code(), 0);
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.starts_with(&format!("=== inside-runtime[{pid}] ")), "{text}");
    assert!(text.lines().last().unwrap().starts_with("--- end of diagnostic"), "{text}");
}
