//! The guard in-process: phases, budgets, outcomes, and the service's own end, on a paused clock,
//! on which times are exact.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forensics_tokio::core::record::{ExitKind, PostMortem};
use forensics_tokio::testing::Kit;
use forensics_tokio::{
    Builder, InstallError, Outcome, ServiceOutcome, ShutdownGuard, ShutdownReport,
};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn builder() -> Builder {
    ShutdownGuard::builder("test")
}

/// A guard without signals, with ten seconds in all.
fn guard() -> ShutdownGuard {
    Kit::install(builder().deadline(10 * SECOND)).unwrap().guard()
}

/// Runs a service that ends with the token, after a request to stop.
async fn stop(guard: &ShutdownGuard) -> ShutdownReport {
    guard.request("test");
    guard.run(guard.token().cancelled_owned()).await
}

fn outcomes(report: &ShutdownReport) -> Vec<(&str, Outcome)> {
    report.phases.iter().map(|phase| (phase.name.as_str(), phase.outcome)).collect()
}

#[tokio::test(start_paused = true)]
async fn phases_run_one_after_another_and_nothing_sleeps_out_a_budget() {
    let guard = guard();
    guard.phase("one", |_| sleep(SECOND)).timeout(5 * SECOND);
    guard.phase("two", |_| sleep(2 * SECOND));
    let report = stop(&guard).await;
    assert_eq!(outcomes(&report), [("one", Outcome::Ok), ("two", Outcome::Ok)]);
    assert_eq!(report.phases[0].took, SECOND);
    assert_eq!(report.phases[1].offset, SECOND);
    assert_eq!(report.total, 3 * SECOND);
    assert_eq!(report.exit_status, 0);
    assert_eq!(report.service_outcome, ServiceOutcome::Ended);
    assert!(!report.timed_out && !report.is_failed());
}

#[tokio::test(start_paused = true)]
async fn members_of_a_group_run_side_by_side_each_with_its_time() {
    let guard = guard();
    guard
        .group("adapters")
        .phase("telegram", |_| sleep(SECOND))
        .phase("slack", |_| sleep(3 * SECOND))
        .phase("irc", |_| sleep(9 * SECOND))
        .timeout(2 * SECOND);
    guard.phase("db_close", |_| async {});
    let report = stop(&guard).await;
    assert_eq!(outcomes(&report), [("adapters", Outcome::TimedOut), ("db_close", Outcome::Ok)]);
    let group = &report.phases[0];
    assert_eq!(group.took, 3 * SECOND);
    let members: Vec<_> = group.members.iter().map(|m| (m.name.as_str(), m.outcome)).collect();
    assert_eq!(
        members,
        [("telegram", Outcome::Ok), ("slack", Outcome::Ok), ("irc", Outcome::TimedOut)]
    );
    assert_eq!(report.phase("slack").unwrap().took, 3 * SECOND);
    assert_eq!(report.phase("irc").unwrap().took, 2 * SECOND);
    assert_eq!(group.error.as_deref(), Some("irc timed_out"));
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_group_holds_for_all_of_it_and_of_a_member_for_it_alone() {
    let guard = guard();
    guard.phase("bad", |_| async { Err::<(), _>("no") });
    guard.group("after_bad").requires("bad").phase("a", |_| async {});
    guard
        .group("adapters")
        .timeout(SECOND)
        .phase("telegram", |_| sleep(3 * SECOND))
        .phase("slack", |_| async {})
        .requires("bad")
        .phase("irc", |_| async {});
    let report = stop(&guard).await;
    let expected = [
        ("bad", Outcome::Failed),
        ("after_bad", Outcome::Skipped),
        ("adapters", Outcome::TimedOut),
    ];
    assert_eq!(outcomes(&report), expected);
    assert_eq!(report.phases[1].error.as_deref(), Some("requires bad, which failed"));
    assert_eq!(report.phases[2].took, SECOND);
    let members = &report.phases[2].members;
    let members: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.outcome)).collect();
    assert_eq!(
        members,
        [("telegram", Outcome::TimedOut), ("slack", Outcome::Skipped), ("irc", Outcome::Ok)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_phase_cannot_take_what_a_later_one_reserved() {
    let guard = guard();
    guard.phase("drain", |_| std::future::pending::<()>());
    guard.phase("flush", |_| sleep(SECOND));
    guard.phase("db_close", |_| sleep(2 * SECOND)).reserve(3 * SECOND);
    let report = stop(&guard).await;
    let expected =
        [("drain", Outcome::TimedOut), ("flush", Outcome::Skipped), ("db_close", Outcome::Ok)];
    assert_eq!(outcomes(&report), expected);
    assert_eq!(report.phases[0].took, 7 * SECOND);
    assert_eq!(report.total, 9 * SECOND);
    assert!(report.timed_out);
    assert_eq!(report.exit_status, 0, "a phase that timed out fails no unit");
}

#[tokio::test(start_paused = true)]
async fn time_without_end_is_time_enough() {
    const FOREVER: Duration = Duration::MAX;
    let builder = builder().deadline(FOREVER).drain_timeout(FOREVER).lead(SECOND).grace(FOREVER);
    let kit = Kit::install(builder.service_grace(FOREVER)).unwrap();
    let guard = kit.guard();
    guard.phase("starved", |_| async {});
    guard.phase("long", |_| sleep(SECOND)).timeout(FOREVER).reserve(FOREVER);
    let hurry = guard.clone();
    guard.phase("hurried", |_| async move { hurry.hurry() }).reserve(FOREVER);
    guard.phase("cut", |_| async {});
    let report = stop(&guard).await;
    let (ok, skipped) = (Outcome::Ok, Outcome::Skipped);
    let expected = [("starved", skipped), ("long", ok), ("hurried", ok), ("cut", skipped)];
    assert_eq!(outcomes(&report), expected);
}

#[tokio::test(start_paused = true)]
async fn what_fails_or_panics_is_told_and_the_next_phase_runs() {
    let guard = guard();
    guard.phase("failed", |_| async { Err::<(), _>("disk full") });
    guard.phase("panicked", |_| async {
        assert!(Instant::now().elapsed() > SECOND, "boom");
    });
    guard.phase("panicked_at_once", |_| -> std::future::Ready<()> { panic!("no future") });
    guard.phase("last", |_| async { Ok::<_, std::io::Error>(7) });
    let report = stop(&guard).await;
    let expected = [
        ("failed", Outcome::Failed),
        ("panicked", Outcome::Panicked),
        ("panicked_at_once", Outcome::Panicked),
        ("last", Outcome::Ok),
    ];
    assert_eq!(outcomes(&report), expected);
    assert_eq!(report.phases[0].error.as_deref(), Some("disk full"));
    assert_eq!(report.phases[1].error.as_deref(), Some("boom"));
    assert_eq!(report.exit_status, 1);
}

#[tokio::test(start_paused = true)]
async fn a_phase_that_requires_another_is_skipped_unless_that_ended_well() {
    let guard = guard();
    guard.phase("good", |_| async {});
    guard.phase("bad", |_| async { Err::<(), _>("no") });
    guard.phase("after_good", |_| async {}).requires("good");
    guard.phase("after_bad", |_| async {}).requires("good").requires("bad");
    guard.phase("after_nothing", |_| async {}).requires("typo");
    let report = stop(&guard).await;
    let after = |name| report.phase(name).map(|phase| (phase.outcome, phase.error.as_deref()));
    assert_eq!(after("after_good"), Some((Outcome::Ok, None)));
    assert_eq!(after("after_bad"), Some((Outcome::Skipped, Some("requires bad, which failed"))));
    let unknown = Some((Outcome::Skipped, Some("requires typo, which has not run")));
    assert_eq!(after("after_nothing"), unknown);
    assert_eq!(report.errors, ["phase `after_nothing` requires `typo`, which is no phase"]);
    assert_eq!(report.exit_status, 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_given_twice_is_an_error_and_its_work_is_not_lost() {
    let guard = guard();
    guard.phase("close", |_| async {});
    guard.phase("close", |cx| async move { cx.record("ran", true) });
    let report = stop(&guard).await;
    assert_eq!(outcomes(&report), [("close", Outcome::Ok), ("close#2", Outcome::Ok)]);
    assert_eq!(report.phases[1].values["ran"], true);
    assert_eq!(report.errors.len(), 1);
    assert_eq!(report.exit_status, 1);
}

#[tokio::test(start_paused = true)]
async fn phases_added_during_the_teardown_run_last() {
    let guard = guard();
    let late = guard.clone();
    guard.phase("first", |_| async move {
        late.phase("late", |_| async {});
    });
    guard.phase("second", |_| async {});
    let report = stop(&guard).await;
    let names: Vec<_> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["first", "second", "late"]);
}

#[tokio::test(start_paused = true)]
async fn a_phase_knows_its_deadline_and_is_dropped_at_it() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let guard = guard();
    let dropped = Arc::new(AtomicBool::new(false));
    let token = Arc::new(Mutex::new(None));
    let (drops, gives) = (Dropped(dropped.clone()), token.clone());
    guard
        .phase("wedged", move |cx| async move {
            let _drops = drops;
            assert_eq!(cx.name(), "wedged");
            assert_eq!(cx.remaining(), 2 * SECOND);
            *gives.lock().unwrap() = Some(cx.token().clone());
            cx.record("rows", 3);
            cx.progress(1, 9);
            std::future::pending::<()>().await;
        })
        .timeout(2 * SECOND);
    let report = stop(&guard).await;
    assert!(dropped.load(Ordering::SeqCst));
    assert!(token.lock().unwrap().take().unwrap().is_cancelled());
    let phase = &report.phases[0];
    assert_eq!(phase.outcome, Outcome::TimedOut);
    let error = "still running after 2.00s; last recorded progress=1/9";
    assert_eq!(phase.error.as_deref(), Some(error));
    assert_eq!(phase.values["rows"], 3);
}

#[tokio::test(start_paused = true)]
async fn the_services_own_end_leads_to_the_same_teardown() {
    let cases: [(Option<&str>, ServiceOutcome, u8); 2] = [
        (None, ServiceOutcome::Ended, 0),
        (Some("port in use"), ServiceOutcome::Failed("port in use".into()), 1),
    ];
    for (error, outcome, status) in cases {
        let guard = guard();
        guard.phase("db_close", |_| async {});
        let report = guard.run(async move { error.map_or(Ok(()), Err) }).await;
        assert_eq!(report.context.cause().to_string(), "service_ended");
        assert_eq!(outcomes(&report), [("db_close", Outcome::Ok)]);
        assert_eq!((report.service_outcome.clone(), report.exit_status), (outcome, status));
        assert!(guard.token().is_cancelled());
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_is_torn_down_and_told() {
    let guard = guard();
    guard.phase("db_close", |_| async {});
    let report = guard
        .run(async {
            sleep(SECOND).await;
            panic!("boom");
        })
        .await;
    assert_eq!(report.service_outcome, ServiceOutcome::Panicked("boom".into()));
    assert_eq!(outcomes(&report), [("db_close", Outcome::Ok)]);
    assert_eq!(report.exit_status, 1);
}

#[tokio::test(start_paused = true)]
async fn the_service_is_polled_on_and_a_phase_can_wait_for_its_end() {
    let guard = guard();
    guard.phase("drain", |cx| async move { cx.service_ended().await });
    let token = guard.token();
    guard.request("test");
    let report = guard
        .run(async move {
            token.cancelled().await;
            sleep(3 * SECOND).await;
        })
        .await;
    assert_eq!(report.phases[0].took, 3 * SECOND);
    assert_eq!(report.service_outcome, ServiceOutcome::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_ends_is_dropped_after_its_grace() {
    let guard = guard();
    guard.phase("db_close", |_| async {});
    guard.request("test");
    let report = guard.run(std::future::pending::<()>()).await;
    assert_eq!(report.service_outcome, ServiceOutcome::Dropped);
    assert_eq!(report.total, SECOND);

    let guard = Kit::install(builder().drain_timeout(4 * SECOND)).unwrap().guard();
    guard.request("test");
    let report = guard.run(std::future::pending::<()>()).await;
    assert_eq!(report.total, 4 * SECOND);

    let guard = Kit::install(builder().deadline(7 * SECOND).service_grace(Duration::MAX)).unwrap();
    let guard = guard.guard();
    guard.request("test");
    let report = guard.run(std::future::pending::<()>()).await;
    assert_eq!(report.total, 7 * SECOND, "no grace goes past the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_ready_to_end_is_polled_once_also_without_any_grace() {
    let guard = Kit::install(builder().service_grace(Duration::ZERO)).unwrap().guard();
    let (end, ends) = tokio::sync::oneshot::channel::<()>();
    guard.phase("db_close", |_| async move { drop(end) });
    guard.request("test");
    let report = guard.run(async move { drop(ends.await) }).await;
    assert_eq!((report.service_outcome, report.total), (ServiceOutcome::Ended, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn run_goes_into_a_task_where_the_service_does_and_also_with_one_that_may_not() {
    let guard = guard();
    guard.request("test");
    let of_many = {
        let guard = guard.clone();
        async move { stop(&guard).await }
    };
    let report = tokio::spawn(of_many).await.unwrap();
    assert_eq!(report.service_outcome, ServiceOutcome::Ended);

    let guard = self::guard();
    guard.request("test");
    let of_one_thread = std::rc::Rc::new(());
    let service = async {
        tokio::task::yield_now().await;
        drop(of_one_thread.clone());
    };
    assert_eq!(guard.run(service).await.service_outcome, ServiceOutcome::Ended);
}

#[tokio::test(start_paused = true)]
async fn cancelling_the_token_is_a_request_and_only_the_first_request_counts() {
    let guard = guard();
    guard.token().cancel();
    let report = guard.run(std::future::pending::<()>()).await;
    assert!(
        report.context.to_string().starts_with(
            "cause=requested reason=\"the guard's token was cancelled\" under_systemd="
        )
    );

    let guard = self::guard();
    guard.request("first");
    guard.request("second");
    let report = guard.run(async {}).await;
    assert!(report.context.to_string().starts_with("cause=requested reason=first "));
}

#[tokio::test(start_paused = true)]
async fn the_worst_case_is_reckoned_before_anything_runs() {
    let guard = guard();
    assert_eq!(guard.worst_case(), Duration::ZERO);
    guard.phase("notify", |_| async {}).timeout(SECOND);
    guard.group("adapters").phase("a", |_| async {}).timeout(2 * SECOND);
    assert_eq!(guard.worst_case(), 3 * SECOND);
    assert_eq!(guard.worst_case_sum(), "notify 1.00s + adapters 2.00s = at most 3.00s");
    guard.phase("drain", |_| async {}).timeout(60 * SECOND);
    assert_eq!(guard.worst_case(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_report_goes_through_json_and_comes_back() {
    let guard = guard();
    guard.phase("drain", |cx| async move { cx.record("rows", 3) });
    guard.group("adapters").phase("slack", |_| async { Err::<(), _>("no") });
    let report = stop(&guard).await;
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["phases"][0]["values"]["rows"], 3);
    assert_eq!(json["phases"][1]["members"][0]["outcome"], "failed");
    assert_eq!(json["service_outcome"]["outcome"], "ended");
    assert_eq!(json["context"]["verdict"]["cause"], "requested");
    let back: ShutdownReport = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&back).unwrap(), json);
}

#[test]
fn without_a_runtime_or_with_a_bad_name_nothing_is_installed() {
    let builder = || builder().signals([]);
    assert!(matches!(builder().install(), Err(InstallError::NoRuntime)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _in = runtime.enter();
    for name in ["", "Take over", "a=b", "x\ny"] {
        let error = builder().marker(name, "/run/x").install().unwrap_err();
        assert!(matches!(error, InstallError::MarkerName(_)), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
#[should_panic(expected = "enable_time")]
fn a_runtime_without_timers_is_refused_at_once_and_not_in_the_teardown() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _in = runtime.enter();
    let _ = builder().signals([]).install();
}

#[tokio::test]
async fn a_guard_that_is_dropped_without_its_teardown_is_no_clean_end() {
    let dir = tempfile::tempdir().unwrap();
    let guard = || builder().signals([]).record_dir(dir.path().join("records")).install().unwrap();
    let verdict = || PostMortem::of_last(&dir.path().join("records")).unwrap().unwrap();
    // As where the address is in use, and `main` returns the error.
    drop(guard());
    assert!(!verdict().is_clean(), "{}", verdict());
    assert_eq!((verdict().how, verdict().exit_code), (Some(ExitKind::Abandoned), None));

    let guard = guard();
    guard.phase("drain", |_| std::future::pending::<()>());
    guard.request("test");
    let run = guard.run(guard.token().cancelled_owned());
    assert!(tokio::time::timeout(Duration::from_millis(100), run).await.is_err());
    drop(guard);
    assert!(!verdict().is_clean(), "{}", verdict());
    assert!(verdict().evidence.contains("in the middle of its teardown"), "{}", verdict());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_timed_out_is_not_hidden_by_one_that_failed() {
    let guard = guard();
    guard
        .group("adapters")
        .timeout(SECOND)
        .phase("slack", |_| std::future::pending::<()>())
        .phase("irc", |_| async { Err::<(), _>("no") });
    let report = stop(&guard).await;
    assert_eq!(outcomes(&report), [("adapters", Outcome::Failed)]);
    assert!(report.timed_out);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_time_for_what_others_reserved_is_told_so() {
    let guard = guard();
    guard.phase("drain", |_| async {});
    guard.phase("db_close", |_| async {}).reserve(10 * SECOND);
    let report = stop(&guard).await;
    assert_eq!(outcomes(&report), [("drain", Outcome::Skipped), ("db_close", Outcome::Ok)]);
    let why = report.phases[0].error.as_deref();
    assert_eq!(why, Some("what time is left is reserved for later phases"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_multi_thread_runtime_a_phase_that_blocks_its_thread_is_passed_over() {
    let guard = guard();
    let (_end, ended) = std::sync::mpsc::channel::<()>();
    guard
        .phase("blocks", move |_| async move {
            // Until the test ends: `_end` is dropped then.
            let _ = ended.recv();
        })
        .timeout(Duration::from_millis(50));
    guard.phase("db_close", |_| async {});
    let report = stop(&guard).await;
    assert_eq!(outcomes(&report), [("blocks", Outcome::TimedOut), ("db_close", Outcome::Ok)]);
    assert!(report.phases[0].error.as_deref().unwrap().ends_with("and blocking its thread"));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a guard runs one service, once")]
async fn a_guard_runs_once() {
    let guard = guard();
    let _ = stop(&guard).await;
    let _ = guard.run(async {}).await;
}
