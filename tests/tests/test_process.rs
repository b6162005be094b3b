//! The harness with which users test their own programs, used on our smallest example.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forensics_tests::{ANY_SIGNAL, example, until_started};
use forensics_tokio::Signal;
use forensics_tokio::core::record::{PhaseOutcome, RunOutcome};
use forensics_tokio::testing::{Process, Run};

fn minimal() -> Command {
    Command::new(example("minimal"))
}

fn gateway(arguments: &[&str]) -> Process {
    let gateway = Process::start(Command::new(example("gateway")).args(arguments));
    gateway.wait_for_stdout("listening on");
    gateway
}

/// Starts it, stops it once it works, and waits until it has ended.
fn stopped(command: &mut Command) -> Run {
    let process = Process::start(command);
    process.wait_for_stdout("working");
    process.signal(Signal::TERM);
    process.wait()
}

#[test]
fn a_run_is_described_by_its_record() {
    let run = stopped(&mut minimal());
    assert_eq!(run.code(), 0, "{}", run.stderr);
    // The sender is the test itself, which is the parent.
    assert_eq!(run.cause(), "supervisor");
    assert_eq!(run.phase("drain").outcome, PhaseOutcome::Ok);
    let record = run.record.as_ref().unwrap();
    assert_eq!(record.start.service, "minimal");
    assert!(run.verdict.unwrap().is_clean());
}

#[test]
fn a_group_ends_after_its_members() {
    let gateway = gateway(&[]);
    gateway.signal(Signal::INT);
    let run = gateway.wait();
    let ok = |name| (name, PhaseOutcome::Ok);
    assert_eq!(run.outcomes(), ["notify", "drain", "adapters", "db_close"].map(ok));
    assert_eq!(run.phase("slack").group.as_deref(), Some("adapters"));
    assert_eq!(run.phases().count(), 6);
}

#[test]
fn second_and_third_signal_escalate_without_a_wait_in_the_test() {
    let mut command = Command::new(example("gateway"));
    command.args(["--wedge", "db_close", "--deadline", "55s"]).envs([ANY_SIGNAL]);
    let process = Process::start(&mut command);
    process.wait_for_stdout("listening on");
    process.signal(Signal::TERM);
    process.second_signal(Signal::TERM);
    process.second_signal(Signal::TERM);
    let run = process.wait();
    assert_eq!(run.code(), 70, "{}", run.stderr);
    assert_eq!(run.verdict.unwrap().outcome, RunOutcome::Forced);
}

#[test]
fn a_killed_run_has_a_verdict_but_no_exit_code() {
    let process = gateway(&["--wedge", "drain"]);
    process.signal(Signal::TERM);
    until_started(process.records(), "drain");
    process.signal("SIGKILL".parse().unwrap());
    let run = process.wait();
    assert_eq!(run.status.code(), None);
    let verdict = run.verdict.as_ref().unwrap();
    assert_eq!(verdict.outcome, RunOutcome::KilledInPhase, "{verdict}");
    assert_eq!(run.outcomes(), [("notify", PhaseOutcome::Ok)]);
}

#[test]
fn a_second_start_with_the_same_records_reports_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("records");
    let mut command = minimal();
    command.env("FORENSICS_RECORD_DIR", &records);
    assert_eq!(stopped(&mut command).code(), 0);
    let process = Process::start(&mut command);
    assert_eq!(process.records(), records);
    assert!(process.wait_for_stderr("Previous run: ").contains("outcome=clean"));
    process.wait_for_stdout("working");
    process.signal(Signal::TERM);
    // The record of the second start, not of the first.
    let pid = process.pid();
    assert_eq!(process.wait().record.unwrap().start.pid, pid);
}

#[test]
fn each_start_of_a_command_has_another_folder() {
    let mut command = minimal();
    let (one, other) = (Process::start(&mut command), Process::start(&mut command));
    assert_ne!(one.records(), other.records());
    let folder = one.records().parent().map(Path::to_owned).unwrap();
    assert!(folder.exists());
    drop(one);
    assert!(!folder.exists(), "the folder is removed");
}

#[test]
fn the_environment_overrides_the_program() {
    let run =
        stopped(minimal().env("FORENSICS_DEADLINE", "1min 30s").env("FORENSICS_DEADLIN", "1"));
    let said = run.line("Configured by the environment");
    assert!(said.contains("FORENSICS_DEADLINE=\"1min 30s\" FORENSICS_RECORD_DIR="), "{said}");
    let warned = run.line("FORENSICS_DEADLIN in the environment is not a setting of the guard");
    assert!(
        warned.contains("WARN") && warned.ends_with("did you mean FORENSICS_DEADLINE?"),
        "{warned}"
    );
    assert!(run.line("Teardown started").contains("deadline 90.00s"));
    assert_eq!(run.record.unwrap().start.deadline_us, Some(90_000_000));
}

#[test]
fn an_invalid_value_prevents_the_start() {
    let run = Process::start(minimal().env("FORENSICS_FSYNC_RECORDS", "perhaps")).wait();
    assert_eq!(run.code(), 1);
    assert!(run.stderr.contains("FORENSICS_FSYNC_RECORDS"), "{}", run.stderr);
    assert!(run.record.is_none() && run.verdict.is_none());
}

#[test]
#[should_panic(expected = "no `never said` on stdout")]
fn waiting_for_a_missing_line_fails_once_the_program_has_ended() {
    Process::start(Command::new("echo").arg("said")).wait_for_stdout("never said");
}

#[test]
#[should_panic(expected = "it does not end")]
fn waiting_for_a_program_that_does_not_end_fails_at_the_limit() {
    let sleep = Process::start(Command::new("sleep").arg("600"));
    sleep.limit(Duration::from_millis(10)).wait();
}

#[test]
#[should_panic(expected = "no phase nothing has ended")]
fn asking_for_a_missing_phase_fails() {
    let run = stopped(&mut minimal());
    run.phase("nothing");
}
