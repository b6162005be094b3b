//! The lead and readiness, on a paused clock.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::time::Duration;

use forensics_tokio::core::context::Trigger;
use forensics_tokio::{Builder, Outcome, ShutdownGuard, ShutdownReport};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn builder() -> Builder {
    ShutdownGuard::builder("test").signals([]).deadline(30 * SECOND).lead(5 * SECOND)
}

/// Times on a paused clock are exact, but for the real milliseconds of a busy machine.
fn assert_about(actual: Duration, expected: Duration) {
    let off = actual.abs_diff(expected);
    assert!(off < Duration::from_millis(250), "{actual:?} is not about {expected:?}");
}

/// Lets a service run that is asked to stop at once, and ends with the token.
async fn stop(guard: &ShutdownGuard) -> ShutdownReport {
    guard.run(asked(guard, guard.token().cancelled_owned())).await
}

/// `then`, after a request to stop.
async fn asked<T>(guard: &ShutdownGuard, then: impl Future<Output = T>) -> T {
    guard.request("test");
    then.await
}

#[tokio::test(start_paused = true)]
async fn the_lead_ends_readiness_at_once_and_the_service_only_after_it() {
    let guard = builder().install().unwrap();
    guard.phase("drain", |cx| async move { cx.service_ended().await }).timeout(10 * SECOND);
    assert_eq!(guard.worst_case_sum(), "lead 5.00s + drain 10.00s = at most 15.00s");
    assert_eq!(guard.worst_case(), 15 * SECOND);
    let readiness = guard.readiness();
    assert!(!*readiness.borrow(), "nothing runs yet");
    let (token, seen) = (guard.token(), readiness.clone());
    let asked_at = Instant::now();
    let service = async {
        assert!(*seen.borrow());
        asked(&guard, async {
            assert!(!*seen.borrow());
            sleep(4 * SECOND).await;
            assert!(!token.is_cancelled());
            token.cancelled().await;
            assert_about(asked_at.elapsed(), 5 * SECOND);
        })
        .await;
    };
    let report = guard.run(service).await;
    assert_about(report.lead, 5 * SECOND);
    assert_about(report.phases[0].offset, 5 * SECOND);
    assert_about(report.total, 5 * SECOND);
    assert_eq!((report.phases[0].outcome, report.exit_status), (Outcome::Ok, 0));
    guard.ready();
    assert!(!*readiness.borrow(), "it is never ready again");
}

#[tokio::test(start_paused = true)]
async fn the_lead_counts_against_the_deadline_and_spares_what_is_reserved() {
    let guard = builder().deadline(6 * SECOND).install().unwrap();
    guard.phase("drain", |_| std::future::pending::<()>());
    guard.phase("db_close", |_| sleep(SECOND)).reserve(2 * SECOND);
    let report = stop(&guard).await;
    assert_about(report.lead, 4 * SECOND);
    let outcomes: Vec<_> = report.phases.iter().map(|phase| phase.outcome).collect();
    assert_eq!(outcomes, [Outcome::Skipped, Outcome::Ok]);
    assert_about(report.total, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn haste_ends_the_lead_and_the_phases_run_in_full() {
    let guard = builder().install().unwrap();
    guard.phase("drain", |_| sleep(3 * SECOND));
    let hasty = guard.clone();
    tokio::spawn(async move {
        sleep(2 * SECOND).await;
        hasty.hurry();
    });
    let report = stop(&guard).await;
    assert_about(report.lead, 2 * SECOND);
    assert_eq!(report.phases[0].outcome, Outcome::Ok);
    assert_about(report.total, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn haste_after_the_lead_cuts_the_phase_short() {
    let guard = builder().install().unwrap();
    guard.phase("drain", |_| sleep(9 * SECOND));
    let hasty = guard.clone();
    tokio::spawn(async move {
        sleep(7 * SECOND).await;
        hasty.hurry();
    });
    let report = stop(&guard).await;
    assert_eq!(report.phases[0].outcome, Outcome::CutShort);
    assert_about(report.total, 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_ended_or_never_was_ready_has_no_lead() {
    let guard = builder().install().unwrap();
    let report = guard.run(async {}).await;
    assert_eq!(report.context.trigger, Some(Trigger::ServiceEnded { error: None }));
    assert_eq!(report.lead, Duration::ZERO);

    let guard = builder().ready_at_run(false).install().unwrap();
    let report = stop(&guard).await;
    assert_eq!(report.lead, Duration::ZERO);

    let guard = builder().install().unwrap();
    guard.request("before run");
    let report = guard.run(guard.token().cancelled_owned()).await;
    assert_eq!(report.lead, Duration::ZERO);

    // Its end during the lead is the lead's.
    let guard = builder().install().unwrap();
    let report = guard.run(asked(&guard, sleep(SECOND))).await;
    assert_about(report.lead, SECOND);
    assert_about(report.total, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_user_cancels_ends_the_lead() {
    let guard = builder().install().unwrap();
    let token = guard.token();
    let service = asked(&guard, async {
        sleep(SECOND).await;
        token.cancel();
        sleep(SECOND).await;
    });
    let report = guard.run(service).await;
    assert_about(report.lead, SECOND);
    assert_about(report.total, 2 * SECOND);

    // And one that he cancels first has none.
    let guard = builder().install().unwrap();
    let token = guard.token();
    let report = guard.run(async move { token.cancel() }).await;
    assert_eq!(report.lead, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn unless_told_the_deadline_has_room_for_the_lead() {
    let drain = ShutdownGuard::builder("test").signals([]).drain_timeout(20 * SECOND);
    let guard = drain.lead(7 * SECOND).install().unwrap();
    assert_eq!(stop(&guard).await.deadline, 42 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_of_a_supervisor_does_not_bound_what_it_did_not_ask_for() {
    let guard = builder().grace(10 * SECOND).install().unwrap();
    assert_eq!(stop(&guard).await.deadline, 30 * SECOND);
}
