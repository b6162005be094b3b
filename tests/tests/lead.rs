//! The pre-stop delay and readiness, on a paused clock.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::time::Duration;

use forensics_tokio::core::context::Trigger;
use forensics_tokio::{Builder, Outcome, ShutdownGuard, ShutdownHandle, ShutdownReport};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn builder() -> Builder {
    ShutdownGuard::builder("test").signals([]).deadline(30 * SECOND).pre_stop_delay(5 * SECOND)
}

/// On a paused clock times are exact, except for the real milliseconds of a busy machine.
fn assert_about(actual: Duration, expected: Duration) {
    let off = actual.abs_diff(expected);
    assert!(off < Duration::from_millis(250), "{actual:?} is not about {expected:?}");
}

/// Runs a service that requests a stop at once, and ends with the token.
async fn stop(guard: ShutdownGuard) -> ShutdownReport {
    let service = stop_and(guard.handle(), guard.token().cancelled_owned());
    guard.run(service).await
}

/// Requests a stop, then waits for `then`.
async fn stop_and<T>(handle: ShutdownHandle, then: impl Future<Output = T>) -> T {
    handle.request_shutdown("test");
    then.await
}

#[tokio::test(start_paused = true)]
async fn the_pre_stop_delay_ends_readiness_at_once_and_the_service_afterwards() {
    let guard = builder().install().unwrap();
    guard.phase("drain", async move |cx| cx.service_ended().await).timeout(10 * SECOND);
    assert_eq!(
        guard.worst_case().to_string(),
        "pre_stop_delay 5.00s + drain 10.00s = at most 15.00s"
    );
    assert_eq!(guard.worst_case().duration(), 15 * SECOND);
    let readiness = guard.handle().readiness();
    assert!(!*readiness.borrow(), "`run` was not called yet");
    let (token, seen) = (guard.token(), readiness.clone());
    let asked_at = Instant::now();
    let (handle, late) = (guard.handle(), guard.handle());
    let service = async {
        assert!(*seen.borrow());
        stop_and(handle, async {
            assert!(!*seen.borrow());
            sleep(4 * SECOND).await;
            assert!(!token.is_cancelled());
            token.cancelled().await;
            assert_about(asked_at.elapsed(), 5 * SECOND);
        })
        .await;
    };
    let report = guard.run(service).await;
    assert_about(report.pre_stop_delay, 5 * SECOND);
    assert_about(report.phases[0].started_after, 5 * SECOND);
    assert_about(report.total, 5 * SECOND);
    assert_eq!((report.phases[0].outcome, report.exit_status), (Outcome::Ok, 0));
    late.ready();
    assert!(!*readiness.borrow(), "it is never ready again");
}

#[tokio::test(start_paused = true)]
async fn the_pre_stop_delay_counts_towards_the_deadline_but_leaves_the_reserves() {
    let guard = builder().deadline(6 * SECOND).install().unwrap();
    guard.phase("drain", |_| std::future::pending::<()>());
    guard.phase("db_close", |_| sleep(SECOND)).reserve(2 * SECOND);
    let report = stop(guard).await;
    assert_about(report.pre_stop_delay, 4 * SECOND);
    let outcomes: Vec<_> = report.phases.iter().map(|phase| phase.outcome).collect();
    assert_eq!(outcomes, [Outcome::Skipped, Outcome::Ok]);
    assert_about(report.total, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn escalation_ends_the_pre_stop_delay_and_the_phases_run_in_full() {
    let guard = builder().install().unwrap();
    guard.phase("drain", |_| sleep(3 * SECOND));
    let handle = guard.handle();
    tokio::spawn(async move {
        sleep(2 * SECOND).await;
        handle.escalate();
    });
    let report = stop(guard).await;
    assert_about(report.pre_stop_delay, 2 * SECOND);
    assert_eq!(report.phases[0].outcome, Outcome::Ok);
    assert_about(report.total, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn escalation_after_the_pre_stop_delay_cuts_the_phase_short() {
    let guard = builder().install().unwrap();
    guard.phase("drain", |_| sleep(9 * SECOND));
    let handle = guard.handle();
    tokio::spawn(async move {
        sleep(7 * SECOND).await;
        handle.escalate();
    });
    let report = stop(guard).await;
    assert_eq!(report.phases[0].outcome, Outcome::CutShort);
    assert_about(report.total, 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_ended_or_was_never_ready_has_no_pre_stop_delay() {
    let guard = builder().install().unwrap();
    let report = guard.run(async {}).await;
    assert_eq!(report.context.trigger, Some(Trigger::ServiceEnded { error: None }));
    assert_eq!(report.pre_stop_delay, Duration::ZERO);

    let guard = builder().auto_ready(false).install().unwrap();
    let report = stop(guard).await;
    assert_eq!(report.pre_stop_delay, Duration::ZERO);

    let guard = builder().install().unwrap();
    guard.handle().request_shutdown("before run");
    let service = guard.token().cancelled_owned();
    let report = guard.run(service).await;
    assert_eq!(report.pre_stop_delay, Duration::ZERO);

    // If the service ends during the delay, the delay ends, too.
    let guard = builder().install().unwrap();
    let handle = guard.handle();
    let report = guard.run(stop_and(handle, sleep(SECOND))).await;
    assert_about(report.pre_stop_delay, SECOND);
    assert_about(report.total, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_program_cancels_ends_the_pre_stop_delay() {
    let guard = builder().install().unwrap();
    let token = guard.token();
    let service = stop_and(guard.handle(), async {
        sleep(SECOND).await;
        token.cancel();
        sleep(SECOND).await;
    });
    let report = guard.run(service).await;
    assert_about(report.pre_stop_delay, SECOND);
    assert_about(report.total, 2 * SECOND);

    // If the program cancels the token first, there is no delay.
    let guard = builder().install().unwrap();
    let token = guard.token();
    let report = guard.run(async move { token.cancel() }).await;
    assert_eq!(report.pre_stop_delay, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_default_deadline_includes_the_pre_stop_delay() {
    let drain = ShutdownGuard::builder("test").signals([]).drain_timeout(20 * SECOND);
    let guard = drain.pre_stop_delay(7 * SECOND).install().unwrap();
    assert_eq!(stop(guard).await.deadline, 42 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_stop_timeout_of_a_supervisor_does_not_limit_a_stop_that_it_did_not_request() {
    let guard = builder().stop_timeout(10 * SECOND).install().unwrap();
    assert_eq!(stop(guard).await.deadline, 30 * SECOND);
}
