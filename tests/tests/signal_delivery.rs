//! Signals that do not reach the guard's handlers: blocked, handled by something else, ignored. Each
//! still reaches the guard, or there is one warning.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy allows it in `#[test]` functions, but not in their helpers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use forensics_tests::preload::Preload;
use forensics_tests::{Ended, Program, example};
use forensics_tokio::core::record::{Event, PhaseOutcome, PostMortem, Record, runs};

fn program(how: &str) -> Program {
    let program = Program::start(Command::new(env!("CARGO_BIN_EXE_signal_delivery")).arg(how));
    program.wait_for_stdout("ready");
    program
}

/// How many lines of the log contain `text`.
fn count(ended: &Ended, text: &str) -> usize {
    ended.stderr.lines().filter(|line| line.contains(text)).count()
}

/// A gateway started by env(1) with this option.
fn gateway_with(option: &str) -> Program {
    let mut env = Command::new("env");
    Program::gateway_by(env.arg(option).arg(example("gateway"))).program
}

#[test]
fn a_signal_that_was_blocked_by_the_parent_is_unblocked_and_stops_the_service() {
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let gateway = gateway_with("--block-signal=TERM,INT,HUP,QUIT");
        gateway.kill(&format!("-{signal}"));
        let ended = gateway.wait();
        ended.assert_well(0);
        ended.line(&format!("Shutdown context: signal=SIG{signal}"));
        assert_eq!(count(&ended, "was blocked in every thread"), 4, "{}", ended.stderr);
    }
}

#[test]
fn a_blocked_signal_that_came_before_the_guard_was_installed_arrives_then() {
    let script = format!("kill -TERM $$; exec {}", example("gateway").display());
    let mut env = Command::new("env");
    let ended = Program::start(env.args(["--block-signal=TERM", "bash", "-c", &script])).wait();
    ended.assert_well(0);
    ended.line("Shutdown context: signal=SIGTERM");
}

#[test]
fn a_signal_that_sigwait_or_a_signalfd_takes_stays_blocked_and_there_is_one_warning() {
    for (how, why) in
        [("sigwait", "waits for it by sigwait(3)"), ("signalfd", "is a signalfd(2) for it")]
    {
        let program = program(how);
        program.kill("-TERM");
        program.wait_for_stdout("taken");
        program.kill("-QUIT");
        let ended = program.wait();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended.line("Shutdown context: signal=SIGQUIT");
        let warning = ended.line("SIGTERM does not reach the guard: it is blocked, and ");
        assert!(warning.contains(why), "{warning}");
        assert_eq!(count(&ended, " WARN "), 1, "{}", ended.stderr);
    }
}

#[test]
fn handlers_that_ctrlc_has_installed_before_the_guard_still_run_and_the_guard_receives_its_signals()
{
    for how in ["before", "over_tokio"] {
        for signal in ["TERM", "INT", "HUP"] {
            let program = program(how);
            program.kill(&format!("-{signal}"));
            let ended = program.wait();
            assert_eq!(ended.code(), 0, "{}", ended.stderr);
            ended.line(&format!("Shutdown context: signal=SIG{signal}"));
            let shared = usize::from(how == "over_tokio");
            assert_eq!(count(&ended, "also listens for SIGINT"), shared, "{}", ended.stderr);
            assert_eq!(count(&ended, " WARN "), shared, "{}", ended.stderr);
            // Over handlers that were there before tokio's it is the guard that runs.
            let by_ctrlc = ended.stdout.contains("handled by ctrlc");
            assert_eq!(by_ctrlc, how == "before", "{how}: {}", ended.stdout);
        }
    }
}

#[test]
fn there_is_one_warning_if_something_else_listens_for_sigint_through_tokio() {
    let cases = [
        ("none", 0),
        ("tokio_before", 1),
        ("tokio_after", 1),
        ("tokio_in_service", 1),
        // Not seen.
        ("tokio_term", 0),
    ];
    for (how, expected) in cases {
        // Stopped at once, and after the last check.
        for is_late in [false, true] {
            let program = program(how);
            if is_late && expected == 1 {
                program.wait_for_stderr("also listens for SIGINT");
            }
            program.kill("-INT");
            let ended = program.wait();
            assert_eq!(ended.code(), 0, "{}", ended.stderr);
            ended.line("Shutdown context: signal=SIGINT");
            assert_eq!(
                count(&ended, "also listens for SIGINT"),
                expected,
                "{how}: {}",
                ended.stderr
            );
            assert_eq!(count(&ended, " WARN "), expected, "{how}: {}", ended.stderr);
        }
    }
}

#[test]
fn handlers_that_ctrlc_installs_over_the_guards_are_reported_once() {
    for how in ["after", "late"] {
        let program = program(how);
        // At `run()`, or a second later.
        program.wait_for_stderr("SIGHUP may not reach the guard");
        program.kill("-TERM");
        program.wait_for_stdout("handled by ctrlc");
        // ctrlc does not handle it.
        program.kill("-QUIT");
        let ended = program.wait();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended.line("Shutdown context: signal=SIGQUIT");
        for signal in ["SIGTERM", "SIGINT", "SIGHUP"] {
            let warning = format!("{signal} may not reach the guard: a handler of ");
            assert_eq!(count(&ended, &warning), 1, "{}", ended.stderr);
            assert!(
                ended.line(&warning).contains("signal_delivery was installed over the guard's")
            );
        }
        assert_eq!(count(&ended, " WARN "), 3, "{}", ended.stderr);
    }
}

#[test]
fn an_action_that_c_code_sets_over_the_guards_is_reported_with_its_library() {
    let set = |action: &str| {
        // As soon as the guard is installed.
        format!(
            "while (handler_of(SIGTERM) == (void *)SIG_DFL) usleep(1000); signal(SIGTERM, {action})"
        )
    };
    for (action, expected) in [
        ("handler", "may not reach the guard: a handler of /"),
        ("SIG_IGN", "does not reach the guard: it was set to be ignored"),
        ("SIG_DFL", "does not reach the guard: its default action was installed"),
    ] {
        let preload = Preload::thread(&set(action));
        let mut command = Command::new(example("gateway"));
        let gateway = Program::gateway_by(command.env("LD_PRELOAD", preload.library())).program;
        let warning = gateway.wait_for_stderr("SIGTERM ");
        assert!(warning.contains(expected), "{warning}");
        let names_library = warning.contains(preload.library().to_str().unwrap());
        assert_eq!(names_library, action == "handler", "{warning}");
        gateway.kill("-INT");
        gateway.wait().assert_well(1);
    }
}

#[test]
fn if_sigpipe_has_its_default_action_a_stop_survives_the_end_of_the_logs_reader() {
    let reset =
        "while (handler_of(SIGPIPE) != (void *)SIG_IGN) usleep(1000); signal(SIGPIPE, SIG_DFL)";
    let preload = Preload::thread(reset);
    let own = Path::new(env!("CARGO_BIN_EXE_signal_delivery"));
    for (program, argument) in [(example("gateway").as_path(), None), (own, Some("none"))] {
        let records = tempfile::tempdir().unwrap();
        let (reader, stderr) = std::io::pipe().unwrap();
        let mut command = Command::new(program);
        command.args(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        command.env("FORENSICS_RECORD_DIR", records.path().join("records"));
        command.env("LD_PRELOAD", preload.library());
        let mut child = command.spawn().unwrap();
        let mut reader = BufReader::new(reader).lines();
        let is_warned = reader.any(|line| line.unwrap().contains("SIGPIPE has its default action"));
        assert!(is_warned, "{program:?}");
        drop(reader);
        let killed = Command::new("/bin/kill").arg(child.id().to_string()).status();
        assert!(killed.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{program:?}");
        let record = runs(&records.path().join("records")).unwrap().pop().unwrap();
        assert!(PostMortem::of(&record).unwrap().is_clean(), "{program:?}");
        for entry in Record::read(&record).unwrap().entries {
            if let Event::PhaseFinished(phase) = entry.event {
                assert_eq!(phase.outcome, PhaseOutcome::Ok, "{}", phase.phase);
            }
        }
    }
}

#[test]
fn if_sigchld_is_ignored_a_complete_diagnostic_is_not_reported_as_failed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("diag.log");
    let mut env = Command::new("env");
    env.arg("--ignore-signal=CHLD").arg(example("gateway")).arg("--diag-log").arg(&log);
    let gateway = Program::gateway_by(&mut env).program;
    gateway.kill("-TERM");
    let ended = gateway.wait();
    ended.assert_well(0);
    ended.line("Diagnostic written");
    let text = fs::read_to_string(log).unwrap();
    assert!(text.trim_end().lines().last().unwrap().starts_with("--- end of diagnostic"), "{text}");
}
