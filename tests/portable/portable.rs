//! Tests that pass on any Unix: a real guarded service, stopped by real signals.
//!
//! `.ci/portable` runs them with the code for other Unix (`--cfg forensics_portable`), which does
//! not read `/proc`. The tests assert that nothing was read, so that they cannot run the wrong code
//! unnoticed.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};

use forensics_tokio::Signal;
use forensics_tokio::core::context::ShutdownContext;
use forensics_tokio::core::record::{Event, ForcedBy, PhaseOutcome, PostMortem, RunOutcome};
use forensics_tokio::testing::{Process, Run};
use nix::unistd::getuid;

/// Whether this is the code for other Unix.
const PORTABLE: bool = cfg!(forensics_portable) || cfg!(not(target_os = "linux"));

fn command(what: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_service"));
    command.arg(what).env_remove("container");
    // By default only a person's signals speed up a stop, and a test is none.
    command.env("FORENSICS_ESCALATION", "any_signal");
    command
}

fn start(command: &mut Command) -> Process {
    let service = Process::start(command);
    service.wait_for_stdout("working");
    service
}

/// The context as it was recorded.
fn context(run: &Run) -> ShutdownContext {
    let entries = &run.record.as_ref().unwrap().entries;
    let signal = entries.iter().find_map(|entry| match &entry.event {
        Event::Signal(signal) => Some(signal),
        _ => None,
    });
    serde_json::from_value(signal.unwrap().context.clone()).unwrap()
}

/// Starts `/bin/kill`. The kernel does not reuse its pid before it is waited for.
fn kill(service: &Process) -> Child {
    Command::new("/bin/kill").arg(service.pid().to_string()).spawn().unwrap()
}

#[test]
fn a_signal_runs_the_phases_and_is_recorded_with_the_pid_and_user_of_its_sender() {
    let service = start(&mut command(""));
    let mut killer = kill(&service);
    let run = service.wait();
    assert!(killer.wait().unwrap().success());
    assert_eq!(run.code(), 0, "{}", run.stderr);
    run.line("Shutdown context: signal=SIGTERM cause=");
    run.line("Shutdown complete");
    assert_eq!(run.outcomes(), [("drain", PhaseOutcome::Ok), ("db_close", PhaseOutcome::Ok)]);
    assert!(run.verdict.as_ref().unwrap().is_clean());

    let context = context(&run);
    let sender = context.sender.as_ref().unwrap();
    assert_eq!(sender.process.pid, killer.id().cast_signed());
    assert_eq!(sender.process.uid, Some(getuid().as_raw()));
    assert_eq!(context.process.ppid, Some(std::process::id().cast_signed()));
    assert_eq!(context.load.is_none(), PORTABLE);
    if PORTABLE {
        let line = run.line("Shutdown context");
        assert!(line.contains(" cause=unknown under_systemd="), "{line}");
        assert!(line.contains(" sender_name=? "), "{line}");
        assert!(line.contains(" parent_name=?"), "{line}");
        assert_eq!((&sender.process.name, &sender.exe, sender.ancestors.len()), (&None, &None, 0));
        assert_eq!((context.container, context.memory), (None, None));
        assert_eq!(run.record.unwrap().start.boot_id, None);
    }
}

#[test]
fn a_signal_from_the_parent_has_the_cause_supervisor() {
    let service = start(&mut command(""));
    service.signal(Signal::INT);
    let run = service.wait();
    assert_eq!((run.code(), run.cause()), (0, "supervisor"), "{}", run.stderr);
}

#[test]
fn a_second_signal_keeps_the_phase_with_a_reserve_and_a_third_ends_the_process() {
    let service = start(&mut command("hang"));
    service.signal(Signal::TERM);
    service.wait_for_stdout("draining");
    service.second_signal(Signal::TERM);
    let run = service.wait();
    assert_eq!(run.outcomes(), [("drain", PhaseOutcome::CutShort), ("db_close", PhaseOutcome::Ok)]);

    let service = start(&mut command("block"));
    service.signal(Signal::TERM);
    service.wait_for_stderr("Teardown started");
    for _ in 0..2 {
        service.second_signal(Signal::TERM);
    }
    let run = service.wait();
    assert_eq!(run.code(), 70, "{}", run.stderr);
    run.line("another SIGTERM requested an immediate exit");
    assert_eq!(run.verdict.unwrap().outcome, RunOutcome::Forced);
}

#[test]
fn at_the_deadline_a_blocked_runtime_is_ended_and_the_next_start_says_so() {
    let records = tempfile::tempdir().unwrap();
    let within = |what| {
        let mut command = command(what);
        command.env("FORENSICS_RECORD_DIR", records.path()).env("FORENSICS_DEADLINE", "2s");
        command
    };
    let service = start(&mut within("block"));
    service.signal(Signal::TERM);
    let run = service.wait();
    assert_eq!(run.code(), 70, "{}", run.stderr);
    let forced = run.line("Shutdown forced");
    assert!(forced.contains("phase drain has run for "), "{forced}");
    assert_eq!(forced.contains("; threads: "), !PORTABLE, "{forced}");
    let record = run.record.as_ref().unwrap();
    let Event::Stopped(stopped) = &record.entries.last().unwrap().event else {
        panic!("{}", run.stderr)
    };
    assert_eq!(stopped.forced_by, Some(ForcedBy::Deadline));

    let service = start(&mut within(""));
    service.signal(Signal::TERM);
    service.wait().line("Previous run: outcome=forced");
}

#[test]
fn the_lock_tells_a_killed_run_from_a_running_one() {
    let service = start(&mut command("hang"));
    service.signal(Signal::TERM);
    service.wait_for_stdout("draining");
    let last = |dir| PostMortem::of_last(dir).unwrap().unwrap();
    assert_eq!(last(service.records()).outcome, RunOutcome::Running);
    let pid = service.pid().to_string();
    assert!(Command::new("/bin/kill").args(["-KILL", &pid]).status().unwrap().success());
    let verdict = service.wait().verdict.unwrap();
    assert_eq!(verdict.outcome, RunOutcome::KilledInPhase);
    assert_eq!(verdict.phases.iter().map(|open| &*open.phase).collect::<Vec<_>>(), ["drain"]);
}

#[test]
fn the_diagnostic_is_this_program_and_says_if_it_has_nothing_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("diag.log");
    let service = start(command("").env("FORENSICS_DIAG_LOG", &log));
    service.signal(Signal::TERM);
    assert_eq!(service.wait().code(), 0);
    let text = fs::read_to_string(log).unwrap();
    assert!(text.starts_with("=== service["), "{text}");
    assert!(text.contains("\n--- end of diagnostic ("), "{text}");
    assert_eq!(text.contains("\nnothing to read"), PORTABLE, "{text}");
    assert_eq!(text.contains("\n--- process "), !PORTABLE, "{text}");
}

#[test]
fn a_service_manager_is_notified_over_a_socket_with_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let service = start(command("").env("NOTIFY_SOCKET", &path));
    service.signal(Signal::TERM);
    assert_eq!(service.wait().code(), 0);
    let mut message = [0; 512];
    let received = socket.recv(&mut message).unwrap();
    assert_eq!(&message[..received], b"READY=1");

    let service = start(command("").env("NOTIFY_SOCKET", "@forensics-nowhere"));
    service.signal(Signal::TERM);
    let run = service.wait();
    assert_eq!(run.code(), 0);
    let refused = run.line("NOTIFY_SOCKET=");
    assert_eq!(refused.contains("only Linux has abstract sockets"), PORTABLE, "{refused}");
}
