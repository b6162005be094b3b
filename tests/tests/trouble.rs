//! Faults in the user's code. The process reports each, and ends by its deadline.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use forensics_tests::{Ended, Program, Small, copy_program};
use forensics_tokio::core::record::{PostMortem, Reason, RunOutcome};
use tempfile::TempDir;

/// The program, built with `panic = "abort"`.
fn aborting() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let deps = std::env::current_exe().unwrap();
    // From `target/debug/deps/trouble-…`.
    let target = deps.ancestors().nth(3).unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--profile", "abort", "--package", "forensics-tests"]);
    let built = build.args(["--bin", "trouble", "--target-dir"]).arg(target).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target.join("abort/trouble")
}

/// A program with a fault, and the folder of its records.
struct Trouble {
    program: Program,
    dir: TempDir,
}

impl Trouble {
    fn start(kind: &str) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_trouble")), kind)
    }

    fn start_program(program: &Path, kind: &str) -> Self {
        Self::start_command(&mut Command::new(program), kind)
    }

    fn start_command(command: &mut Command, kind: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        command.arg(kind).arg(dir.path().join("records"));
        let program = Program::start(command);
        program.wait_for_stdout("ready");
        Self { program, dir }
    }

    /// Waits until it has ended. Returns its output, the post-mortem, and whether the hook of a
    /// forced exit has run.
    fn end(self) -> (Ended, PostMortem, bool) {
        let records: PathBuf = self.dir.path().join("records");
        let ended = self.program.wait();
        let verdict = PostMortem::of_last(&records).unwrap().unwrap();
        (ended, verdict, records.join("flushed").exists())
    }

    /// The same for a forced exit. Asserts that it is recorded and that the hook has run.
    fn forced_end(self) -> (Ended, PostMortem) {
        let (ended, verdict, flushed) = self.end();
        assert_eq!(ended.code(), 70, "{}", ended.stderr);
        assert_eq!(verdict.outcome, RunOutcome::Forced, "{verdict}");
        assert!(flushed);
        (ended, verdict)
    }
}

#[test]
fn a_blocked_current_thread_runtime_is_reported_and_ended_at_the_deadline() {
    for (kind, ready) in [("blocked_phase", "ready"), ("blocked_task", "blocked")] {
        let trouble = Trouble::start(kind);
        trouble.program.wait_for_stdout(ready);
        trouble.program.kill("-TERM");
        let (ended, verdict) = trouble.forced_end();
        let said = ended.line("the runtime has not answered");
        assert!(said.contains("trouble(") && said.contains("futex"), "{said}");
        assert!(said.contains("; runtime: 1 workers, "), "{said}");
        assert!(said.contains("phase blocks has run for") == (kind == "blocked_phase"), "{said}");
        // Logged at once, even if the runtime never runs again.
        let context = ended.line("Shutdown context: signal=SIGTERM");
        assert!(!context.contains("the runtime has not"), "{context}");
        ended.line("the deadline is near");
        ended.line("Shutdown forced: the deadline has passed");
        assert_eq!(verdict.signal.as_deref(), Some("SIGTERM"));
    }
}

#[test]
fn with_every_worker_blocked_the_stop_is_still_watched_and_ended() {
    let trouble = Trouble::start("blocked_workers");
    trouble.program.wait_for_stdout("blocked");
    trouble.program.kill("-TERM");
    // This comes at least 200 ms after the signal, so the next signal counts as another request.
    trouble.program.wait_for_stderr("the runtime has not answered");
    trouble.program.kill("-INT");
    // Logged at once, and not only before the forced exit.
    trouble.program.wait_for_stderr("another SIGINT: ");
    let (ended, _) = trouble.forced_end();
    assert!(ended.line("another SIGINT: ").contains(" sender_pid="), "{}", ended.stderr);
    assert!(!ended.line("Shutdown context: signal=SIGTERM").contains("the runtime has not"));
    let said = ended.line("the runtime has not answered");
    assert!(said.contains("; runtime: 2 workers, "), "{said}");
}

#[test]
fn if_the_subscriber_is_stuck_too_the_warning_on_stderr_has_the_context() {
    let trouble = Trouble::start("all_stuck");
    trouble.program.wait_for_stdout("blocked");
    trouble.program.kill("-TERM");
    let (ended, _) = trouble.forced_end();
    let said = ended.line("the runtime has not answered");
    assert!(said.contains("; Shutdown context: signal=SIGTERM"), "{said}");
}

#[test]
fn a_stuck_subscriber_stops_no_phase_and_the_context_is_on_stderr() {
    let trouble = Trouble::start("stuck_subscriber");
    trouble.program.kill("-TERM");
    let (ended, verdict, _) = trouble.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended.line("shutdown: Shutdown context: signal=SIGTERM");
    assert_eq!(verdict.outcome, RunOutcome::Clean, "{verdict}");
}

#[test]
fn a_subscriber_that_blocks_in_the_first_line_hides_no_later_signal() {
    let trouble = Trouble::start("stuck_and_impatient");
    trouble.program.kill("-TERM");
    // This comes at least 200 ms after the signal, so the next signal counts as another request.
    trouble.program.wait_for_stderr("shutdown: Shutdown context: signal=SIGTERM");
    trouble.program.kill("-INT");
    let (ended, _) = trouble.forced_end();
    ended.line("Shutdown forced: another SIGINT");
}

#[test]
fn a_blocking_task_that_never_returns_does_not_keep_the_process_alive() {
    let trouble = Trouble::start("blocked_pool");
    trouble.program.kill("-TERM");
    let (ended, verdict, _) = trouble.end();
    assert_eq!(ended.code(), 70, "{}", ended.stderr);
    assert!(ended.line("phase=db_close").contains("outcome=ok"));
    ended.line("the process did not end after its teardown");
    assert_eq!(verdict.outcome, RunOutcome::Forced, "{verdict}");
    assert!(verdict.evidence.contains("the process did not, exit code 70"), "{verdict}");
}

#[test]
fn a_main_that_does_not_return_is_ended_by_default() {
    let trouble = Trouble::start("goes_on");
    trouble.program.kill("-TERM");
    let (ended, _) = trouble.forced_end();
    ended.line("the process did not end after its teardown");
}

#[test]
fn a_test_or_a_program_without_enforce_exit_is_not_ended_after_its_teardown() {
    let dir = tempfile::tempdir().unwrap();
    // Cargo names the program of a test like this.
    let test = dir.path().join("trouble-0123456789abcdef");
    copy_program(env!("CARGO_BIN_EXE_trouble"), &test);
    for trouble in [Trouble::start_program(&test, "goes_on"), Trouble::start("may_go_on")] {
        trouble.program.kill("-TERM");
        let (ended, verdict, _) = trouble.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert!(verdict.is_clean(), "{verdict}");
    }
}

#[test]
fn a_program_can_ignore_the_variables_of_the_environment() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trouble"));
    command.env("FORENSICS_DEADLINE", "1min").env("FORENSICS_ESCALATION", "invalid");
    let trouble = Trouble::start_command(&mut command, "ignores_environment");
    trouble.program.kill("-TERM");
    let (ended, _, _) = trouble.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.line("Teardown started").contains("deadline 3.00s"), "{}", ended.stderr);
}

#[test]
fn the_end_of_one_guard_does_not_end_a_process_that_has_another() {
    for kind in ["starts_again", "has_another"] {
        let trouble = Trouble::start(kind);
        trouble.program.kill("-TERM");
        let (ended, _, _) = trouble.end();
        assert_eq!(ended.code(), 0, "{kind}: {}", ended.stderr);
    }
}

#[test]
fn with_the_policy_exit_the_second_signal_ends_it_after_the_hook() {
    let trouble = Trouble::start("impatient");
    trouble.program.kill("-INT");
    trouble.program.wait_for_stderr("Teardown started");
    // Within 200 ms it would be the same request. Those are real time.
    thread::sleep(Duration::from_millis(250));
    trouble.program.kill("-INT");
    let (ended, _) = trouble.forced_end();
    ended.line("another SIGINT: the process ends at once");
    ended.line("Shutdown forced: another SIGINT");
}

#[test]
fn a_signal_received_twice_does_not_end_a_process_whose_teardown_was_quick() {
    // If the machine is slow and 200 ms pass, the second one is another request.
    let said = (0..20).map(|_| {
        let trouble = Trouble::start("received_twice");
        trouble.program.kill("-INT");
        let (ended, verdict, _) = trouble.end();
        assert!(verdict.is_clean(), "{verdict}");
        assert!(!ended.stderr.contains("another"), "{}", ended.stderr);
        // Then the signal has its default action again.
        assert_eq!(ended.status.signal(), Some(2), "{}", ended.stderr);
        ended.stdout.clone()
    });
    let after = |stdout: &str| {
        let (_, after) = stdout.split_once("after ").unwrap();
        after.split_once(" ms").unwrap().0.parse::<u32>().unwrap()
    };
    let quick = said.into_iter().find(|stdout| after(stdout) < 100).unwrap();
    assert!(quick.contains("survived"), "{quick}");
}

#[test]
fn a_panic_that_ends_the_run_is_in_its_record() {
    let (ended, verdict, _) = Trouble::start("panic").end();
    assert_eq!(ended.code(), 101);
    assert_eq!(verdict.outcome, RunOutcome::Panicked, "{verdict}");
    assert!(verdict.evidence.contains("main is lost"), "{verdict}");
}

#[test]
fn a_panic_that_aborts_is_in_its_record() {
    let (ended, verdict, _) = Trouble::start_program(&aborting(), "panic_in_service").end();
    assert_eq!(ended.status.signal(), Some(6), "{}", ended.stderr);
    assert_eq!(verdict.outcome, RunOutcome::Panicked, "{verdict}");
    assert!(verdict.evidence.contains("service is lost"), "{verdict}");
}

#[test]
fn a_caught_panic_is_not_recorded_as_the_end() {
    let (ended, verdict, _) = Trouble::start("panic_in_service").end();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_eq!(verdict.outcome, RunOutcome::Failed, "{verdict}");
    assert_eq!(verdict.exit_code, Some(1));
}

#[test]
fn a_durable_record_is_on_the_disk_before_the_process_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (records, calls) = (dir.path().join("records"), dir.path().join("calls"));
    let mut strace = Command::new("strace");
    strace.args([
        "--follow-forks",
        "--quiet=all",
        "--string-limit=200",
        "--trace=fdatasync,write",
        "--output",
    ]);
    strace.arg(&calls).arg(env!("CARGO_BIN_EXE_trouble")).arg("durable").arg(&records);
    let program = Program::start(&mut strace);
    program.wait_for_stdout("ready");
    // strace does not forward signals. The program is its only child.
    let children = format!("/proc/{0}/task/{0}/children", program.pid());
    let child = std::fs::read_to_string(children).unwrap();
    assert!(Command::new("/bin/kill").arg(child.trim()).status().unwrap().success());
    assert_eq!(program.wait().code(), 0);
    let calls = std::fs::read_to_string(calls).unwrap();
    let written = calls.rfind(r#"\"event\":\"stopped\""#).unwrap();
    let synced = calls.rfind("fdatasync").unwrap();
    assert!(synced > written, "{calls}");
    assert!(calls[synced..].contains("= 0"), "{calls}");
}

#[test]
fn a_run_that_was_oom_killed_is_reported_as_that() {
    let (Some(small), Ok(_)) = (Small::new(32 << 20), std::fs::File::open("/dev/kmsg")) else {
        eprintln!("skipped: needs a new control group and the kernel's log");
        return;
    };
    let trouble = Trouble::start("eats_memory");
    let pid = trouble.program.pid().to_string();
    std::fs::write(small.processes(), pid).unwrap();
    trouble.program.kill("-TERM");
    let (ended, verdict, _) = trouble.end();
    assert_eq!(ended.status.signal(), Some(9), "{}", ended.stderr);
    assert_eq!(verdict.outcome, RunOutcome::KilledInPhase, "{verdict}");
    assert_eq!(verdict.phases[0].phase, "eats");
    assert_eq!(verdict.reason, Reason::OutOfMemory, "{verdict}");
    assert!(verdict.evidence.contains("out of memory: Killed process"), "{verdict}");
    assert!(verdict.advice.as_deref().unwrap().contains("MemoryMax="), "{verdict}");
}

#[test]
fn reserves_that_do_not_fit_are_reported_before_any_signal() {
    let trouble = Trouble::start("reserves");
    let said = trouble.program.wait_for_stderr("Phases reserve more time than the deadline allows");
    assert!(said.contains("at most 3.00s, though 5.00s are reserved in all"), "{said}");
    trouble.program.kill("-TERM");
    assert_eq!(trouble.end().0.code(), 0);
}
