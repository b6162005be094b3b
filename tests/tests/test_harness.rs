//! The test harness: simulated signals, with the real behaviour of everything after them.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forensics_tokio::core::duration::Timespan;
use forensics_tokio::core::record::{Event, ForcedBy, PostMortem, Record, RunOutcome, runs};
use forensics_tokio::testing::{Sender, TestHarness};
use forensics_tokio::{
    Builder, Escalation, ExitKind, Outcome, ShutdownGuard, ShutdownReport, Signal,
};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
const MS_200: Duration = Duration::from_millis(200);

/// A deadline of ten seconds.
fn builder() -> Builder {
    ShutdownGuard::builder("test").deadline(10 * SECOND)
}

/// A drain that never ends, and a close that takes one second and reserves two.
fn wedged(builder: Builder) -> (TestHarness, ShutdownGuard) {
    let (harness, guard) = TestHarness::install(builder).unwrap();
    guard.phase("drain", |_| std::future::pending::<()>());
    guard.phase("db_close", |_| sleep(SECOND)).reserve(2 * SECOND);
    (harness, guard)
}

async fn run(guard: ShutdownGuard) -> ShutdownReport {
    let service = guard.token().cancelled_owned();
    guard.run(service).await
}

fn outcomes(report: &ShutdownReport) -> Vec<(&str, Outcome)> {
    report.phases.iter().map(|phase| (phase.name.as_str(), phase.outcome)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_cause_follows_from_the_sender() {
    let cases = [
        (Signal::TERM, Sender::operator(), "operator", "sender_name=kill"),
        (Signal::TERM, Sender::systemd(), "systemd", "sender_pid=1 sender_name=systemd"),
        (Signal::ABRT, Sender::systemd(), "watchdog", "sender_pid=1"),
        (Signal::TERM, Sender::supervisor(), "supervisor", "sender_name=supervisor"),
        (Signal::TERM, Sender::container_init(), "container_stop", "sender_name=tini"),
        (Signal::INT, Sender::kernel(), "ctrl_c", "cause=ctrl_c under_systemd=no parent_pid="),
        (Signal::HUP, Sender::kernel(), "hangup", "signal=SIGHUP"),
        (Signal::TERM, Sender::this_process(), "self_sent", "sender_name=service"),
        (Signal::TERM, Sender::process(4242, "cron"), "process", "sender_pid=4242"),
        (Signal::TERM, Sender::gone(4242), "unknown", "sender_name=? sender_gone=yes"),
        (Signal::TERM, Sender::operator().unverified(), "unverified", "sender_unverified=yes"),
        (
            Signal::TERM,
            Sender::process(7, "deploy").uid(3).cmdline("deploy --now").child_of(
                Sender::process(6, "sh").child_of(Sender::process(5, "sshd").terminal("pts/0")),
            ),
            "operator",
            "sender_pid=7 sender_name=deploy sender_uid=3 sender_parent=sh(6)",
        ),
    ];
    for (signal, sender, cause, in_line) in cases {
        let (harness, guard) = TestHarness::install(builder()).unwrap();
        harness.signal_from(signal, &sender);
        let report = harness.run_to_exit(run(guard)).await.unwrap();
        let line = report.context.to_string();
        assert_eq!(report.context.cause().to_string(), cause, "{line}");
        assert!(line.contains(in_line), "{line}");
        assert_eq!(report.context.signal(), Some(signal));
    }
}

#[tokio::test(start_paused = true)]
async fn the_stop_timeout_shortens_a_stop_that_systemd_may_have_requested_and_is_recorded() {
    for (sender, deadline) in [
        (Sender::systemd(), 5 * SECOND),
        (Sender::gone(4242), 5 * SECOND),
        (Sender::operator(), 10 * SECOND),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (harness, guard) = TestHarness::install(builder().record_dir(dir.path())).unwrap();
        harness.stop_timeout(6 * SECOND);
        harness.signal_from(Signal::TERM, &sender);
        let report = harness.run_to_exit(run(guard)).await.unwrap();
        assert_eq!(report.deadline, deadline, "{sender:?}");
        let record = Record::read(&runs(dir.path()).unwrap()[0]).unwrap();
        let signal = record.entries.iter().find_map(|entry| match &entry.event {
            Event::Signal(signal) => Some(signal),
            _ => None,
        });
        assert_eq!(signal.unwrap().stop_timeout_us, Some(Timespan::Finite(6_000_000)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_line_is_the_senders() {
    let (harness, guard) = TestHarness::install(builder()).unwrap();
    harness.signal_from(Signal::TERM, &Sender::operator().cmdline("kill 1"));
    let report = harness.run_to_exit(run(guard)).await.unwrap();
    let line = report.context.to_string();
    assert!(line.contains("sender_parent=bash(4201)"), "{line}");
    assert!(line.contains("sender_cmdline=\"kill 1\""), "{line}");
}

#[tokio::test(start_paused = true)]
async fn times_are_exact_on_a_paused_clock() {
    let (harness, guard) = wedged(builder());
    // Even if some time of the clock has passed before.
    sleep(3600 * SECOND).await;
    harness.signal(Signal::TERM);
    sleep(SECOND).await;
    let report = harness.run_to_exit(run(guard)).await.unwrap();
    assert_eq!(outcomes(&report), [("drain", Outcome::TimedOut), ("db_close", Outcome::Ok)]);
    let [drain, close] = &report.phases[..] else { panic!("{report:?}") };
    assert_eq!((drain.started_after, drain.duration), (SECOND, 7 * SECOND));
    assert_eq!((close.started_after, close.duration), (8 * SECOND, SECOND));
    assert_eq!((report.total, report.deadline), (9 * SECOND, 10 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_cuts_short_and_one_within_200_ms_is_the_same() {
    let (harness, guard) = wedged(builder());
    let script = async {
        harness.signal(Signal::TERM);
        sleep(MS_200 - Duration::from_millis(1)).await;
        harness.signal(Signal::TERM);
        sleep(SECOND).await;
        harness.signal_from(Signal::INT, &Sender::kernel());
    };
    let (ended, ()) = tokio::join!(harness.run_to_exit(run(guard)), script);
    let report = ended.unwrap();
    assert_eq!(outcomes(&report), [("drain", Outcome::CutShort), ("db_close", Outcome::Ok)]);
    assert_eq!(report.phases[0].duration, Duration::from_millis(1199));
    let later: Vec<_> = report
        .repeated_signals
        .iter()
        .map(|later| (later.signal, later.ordinal, later.received_after))
        .collect();
    let [twice, again] = [199, 1199].map(Duration::from_millis);
    assert_eq!(later, [(Signal::TERM, None, twice), (Signal::INT, Some(2), again)]);
    assert!(
        report.repeated_signals[0].sender.is_some() && report.repeated_signals[1].sender.is_none()
    );
    assert_eq!((report.how, report.exit_status), (ExitKind::CutShort, 1));
}

#[tokio::test(start_paused = true)]
async fn a_third_signal_is_a_forced_exit_that_does_not_end_the_test() {
    let dir = tempfile::tempdir().unwrap();
    let flushed = Arc::new(AtomicBool::new(false));
    let flush = flushed.clone();
    let builder = builder()
        .record_dir(dir.path())
        .on_forced_exit(move || flush.store(true, Ordering::SeqCst));
    let (harness, guard) = TestHarness::install(builder).unwrap();
    guard.phase("drain", |_| std::future::pending::<()>()).reserve(5 * SECOND);
    let script = async {
        for _ in 0..3 {
            harness.signal(Signal::TERM);
            sleep(MS_200).await;
        }
    };
    let (ended, ()) = tokio::join!(harness.run_to_exit(run(guard)), script);
    let forced = ended.unwrap_err();
    assert_eq!((forced.by, forced.exit_status), (ForcedBy::Signal, 70));
    assert_eq!((forced.phases.as_slice(), forced.after), (&["drain".to_owned()][..], 2 * MS_200));
    let said = "ended by force 400ms after the signal: another SIGTERM requested an immediate exit; \
                in phase drain";
    assert_eq!(forced.to_string(), said);
    assert!(flushed.load(Ordering::SeqCst));
    let verdict = PostMortem::of_last(dir.path()).unwrap().unwrap();
    assert_eq!(verdict.outcome, RunOutcome::Forced, "{verdict}");
    assert_eq!(verdict.cause.as_deref(), Some("operator"));
}

#[tokio::test(start_paused = true)]
async fn after_a_forced_exit_no_other_end_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (harness, guard) = wedged(builder().record_dir(dir.path()));
    let running = tokio::spawn(run(guard));
    for _ in 0..3 {
        harness.signal(Signal::TERM);
        sleep(MS_200).await;
    }
    let forced = harness.run_to_exit(std::future::pending::<()>()).await.unwrap_err();
    assert_eq!((forced.by, forced.after), (ForcedBy::Signal, 2 * MS_200));
    sleep(60 * SECOND).await;
    assert!(!running.is_finished());
    let verdict = PostMortem::of_last(dir.path()).unwrap().unwrap();
    assert_eq!(verdict.outcome, RunOutcome::Forced, "{verdict}");
}

#[tokio::test(start_paused = true)]
async fn signals_after_the_end_have_no_effect() {
    let dir = tempfile::tempdir().unwrap();
    let (harness, guard) = TestHarness::install(builder().record_dir(dir.path())).unwrap();
    harness.signal(Signal::TERM);
    let report = harness.run_to_exit(run(guard)).await.unwrap();
    for _ in 0..3 {
        sleep(MS_200).await;
        harness.signal(Signal::TERM);
    }
    let later =
        tokio::time::timeout(60 * SECOND, harness.run_to_exit(std::future::pending::<()>()));
    assert!(later.await.is_err(), "nothing is forced");
    assert_eq!(report.exit_status, 0);
    assert!(PostMortem::of_last(dir.path()).unwrap().unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn the_escalation_of_the_builder_is_used() {
    for (escalation, signals, is_forced) in
        [(Escalation::Exit, 2, true), (Escalation::Never, 5, false)]
    {
        let (harness, guard) = wedged(builder().escalation(escalation));
        let script = async {
            for _ in 0..signals {
                harness.signal(Signal::TERM);
                sleep(MS_200).await;
            }
        };
        let (ended, ()) = tokio::join!(harness.run_to_exit(run(guard)), script);
        assert_eq!(ended.is_err(), is_forced, "{escalation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_main_that_never_starts_its_teardown_is_forced_at_the_deadline() {
    let (harness, guard) = TestHarness::install(builder()).unwrap();
    let stopped = guard.token().cancelled_owned();
    harness.signal(Signal::TERM);
    let main = async {
        stopped.await;
        sleep(60 * SECOND).await;
    };
    let forced = harness.run_to_exit(main).await.unwrap_err();
    assert_eq!(forced.by, ForcedBy::Deadline);
    assert_eq!(forced.after, 10 * SECOND + SECOND / 2);
    assert!(forced.phases.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_stop_timeout_of_systemd_shortens_a_stop_by_systemd() {
    for (sender, deadline) in [(Sender::systemd(), 3 * SECOND), (Sender::operator(), 10 * SECOND)] {
        let (harness, guard) = wedged(builder());
        harness.stop_timeout(4 * SECOND);
        harness.signal_from(Signal::TERM, &sender);
        let report = harness.run_to_exit(run(guard)).await.unwrap();
        assert_eq!(report.deadline, deadline);
        assert_eq!(report.total, deadline - SECOND);
        assert_eq!(report.phase("db_close").unwrap().outcome, Outcome::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn two_guards_do_not_affect_each_other() {
    let (one, guard) = wedged(builder());
    let (other, other_guard) = wedged(builder());
    one.signal(Signal::TERM);
    let report = one.run_to_exit(run(guard)).await.unwrap();
    assert_eq!(report.total, 9 * SECOND);
    assert!(!other_guard.token().is_cancelled());
    other_guard.handle().request_shutdown("after that");
    let report = other.run_to_exit(run(other_guard)).await.unwrap();
    assert_eq!(report.context.cause().to_string(), "requested");
    assert_eq!(report.total, 9 * SECOND);
}

#[test]
fn no_io_driver_is_needed_and_real_signals_are_left_alone() {
    let mut timed = tokio::runtime::Builder::new_current_thread();
    let runtime = timed.enable_time().start_paused(true).build().unwrap();
    let report = runtime.block_on(async {
        let (harness, guard) = wedged(builder().diag_log("/nonexistent/diag.log"));
        harness.signal(Signal::TERM);
        harness.run_to_exit(run(guard)).await.unwrap()
    });
    assert_eq!(report.total, 9 * SECOND);
    // SigCgt is the mask of the signals that are caught.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    let term = 1 << (Signal::TERM.as_raw() - 1);
    assert_eq!(caught & term, 0, "nothing handles SIGTERM");
}

#[test]
fn outside_a_runtime_there_is_no_harness() {
    assert!(
        TestHarness::install(builder()).unwrap_err().to_string().contains("needs a tokio runtime")
    );
}
