//! The guard inside a test: phases, budgets, outcomes, and the end of the service. The clock is
//! paused, so times are exact.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forensics_tokio::core::record::{ExitKind, PostMortem};
use forensics_tokio::testing::{Sender, TestHarness};
use forensics_tokio::{
    Builder, Cause, InstallError, Outcome, ServiceOutcome, ShutdownGuard, ShutdownReport, Signal,
};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn builder() -> Builder {
    ShutdownGuard::builder("test")
}

/// A guard without signals, with a deadline of ten seconds.
fn guard() -> ShutdownGuard {
    TestHarness::install(builder().deadline(10 * SECOND)).unwrap().1
}

/// Runs a service that ends with the token, after a request to stop.
async fn stop(guard: ShutdownGuard) -> ShutdownReport {
    guard.handle().request_shutdown("test");
    let service = guard.token().cancelled_owned();
    guard.run(service).await
}

fn outcomes(report: &ShutdownReport) -> Vec<(&str, Outcome)> {
    report.phases.iter().map(|phase| (phase.name.as_str(), phase.outcome)).collect()
}

#[tokio::test(start_paused = true)]
async fn phases_run_one_after_another_without_waiting_for_their_timeouts() {
    let guard = guard();
    guard.phase("one", |_| sleep(SECOND)).timeout(5 * SECOND);
    guard.phase("two", |_| sleep(2 * SECOND));
    let report = stop(guard).await;
    assert_eq!(outcomes(&report), [("one", Outcome::Ok), ("two", Outcome::Ok)]);
    assert_eq!(report.phases[0].duration, SECOND);
    assert_eq!(report.phases[1].started_after, SECOND);
    assert_eq!(report.total, 3 * SECOND);
    assert_eq!(report.exit_status, 0);
    assert_eq!(report.service_outcome, ServiceOutcome::Ended);
    assert!(!report.timed_out && !report.is_failed());
}

#[tokio::test(start_paused = true)]
async fn members_of_a_group_run_concurrently_each_with_its_timeout() {
    let guard = guard();
    guard.group("adapters", |group| {
        group.phase("telegram", |_| sleep(SECOND));
        group.phase("slack", |_| sleep(3 * SECOND));
        group.phase("irc", |_| sleep(9 * SECOND)).timeout(2 * SECOND);
    });
    guard.phase("db_close", async |_| {});
    let report = stop(guard).await;
    assert_eq!(outcomes(&report), [("adapters", Outcome::TimedOut), ("db_close", Outcome::Ok)]);
    let group = &report.phases[0];
    assert_eq!(group.duration, 3 * SECOND);
    let members: Vec<_> = group.members.iter().map(|m| (m.name.as_str(), m.outcome)).collect();
    assert_eq!(
        members,
        [("telegram", Outcome::Ok), ("slack", Outcome::Ok), ("irc", Outcome::TimedOut)]
    );
    assert_eq!(report.phase("slack").unwrap().duration, 3 * SECOND);
    assert_eq!(report.phase("irc").unwrap().duration, 2 * SECOND);
    assert_eq!(group.error.as_deref(), Some("irc timed_out"));
}

#[tokio::test(start_paused = true)]
async fn settings_of_a_group_apply_to_all_members_and_those_of_a_member_only_to_it() {
    let guard = guard();
    let bad = guard.phase("bad", async |_| Err::<(), _>("no")).id();
    guard.group("after_bad", |group| group.phase("a", async |_| {})).requires(bad);
    guard
        .group("adapters", |group| {
            group.phase("telegram", |_| sleep(3 * SECOND));
            group.phase("slack", async |_| {}).requires(bad);
            group.phase("irc", async |_| {});
        })
        .timeout(SECOND);
    let report = stop(guard).await;
    let expected = [
        ("bad", Outcome::Failed),
        ("after_bad", Outcome::Skipped),
        ("adapters", Outcome::TimedOut),
    ];
    assert_eq!(outcomes(&report), expected);
    assert_eq!(report.phases[1].error.as_deref(), Some("requires bad: failed"));
    assert_eq!(report.phases[2].duration, SECOND);
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
    let report = stop(guard).await;
    let expected =
        [("drain", Outcome::TimedOut), ("flush", Outcome::Skipped), ("db_close", Outcome::Ok)];
    assert_eq!(outcomes(&report), expected);
    assert_eq!(report.phases[0].duration, 7 * SECOND);
    assert_eq!(report.total, 9 * SECOND);
    assert!(report.timed_out);
    assert_eq!(report.exit_status, 0, "a timeout is not a failure of the unit");
}

#[tokio::test(start_paused = true)]
async fn an_infinite_time_is_accepted() {
    const FOREVER: Duration = Duration::MAX;
    let builder = builder()
        .deadline(FOREVER)
        .drain_timeout(FOREVER)
        .pre_stop_delay(SECOND)
        .stop_timeout(FOREVER);
    let (_, guard) = TestHarness::install(builder.service_timeout(FOREVER)).unwrap();
    guard.phase("starved", async |_| {});
    guard.phase("long", |_| sleep(SECOND)).timeout(FOREVER).reserve(FOREVER);
    let handle = guard.handle();
    guard.phase("hurried", async move |_| handle.escalate()).reserve(FOREVER);
    guard.phase("cut", async |_| {});
    let report = stop(guard).await;
    let (ok, skipped) = (Outcome::Ok, Outcome::Skipped);
    let expected = [("starved", skipped), ("long", ok), ("hurried", ok), ("cut", skipped)];
    assert_eq!(outcomes(&report), expected);
}

#[tokio::test(start_paused = true)]
async fn a_phase_that_fails_or_panics_is_reported_and_the_next_one_runs() {
    let guard = guard();
    guard.phase("failed", async |_| Err::<(), _>("disk full"));
    guard.phase("panicked", async |_| {
        assert!(Instant::now().elapsed() > SECOND, "boom");
    });
    guard.phase("panicked_at_once", |_| -> std::future::Ready<()> { panic!("no future") });
    guard.phase("last", async |_| Ok::<(), std::io::Error>(()));
    let report = stop(guard).await;
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
async fn a_phase_that_requires_another_is_skipped_unless_that_succeeded() {
    let guard = guard();
    let good = guard.phase("good", async |_| {}).id();
    let bad = guard.phase("bad", async |_| Err::<(), _>("no")).id();
    guard.phase("after_good", async |_| {}).requires(good);
    guard.phase("after_bad", async |_| {}).requires(good).requires(bad);
    let report = stop(guard).await;
    let after = |name| report.phase(name).map(|phase| (phase.outcome, phase.error.as_deref()));
    assert_eq!(after("after_good"), Some((Outcome::Ok, None)));
    assert_eq!(after("after_bad"), Some((Outcome::Skipped, Some("requires bad: failed"))));
    assert!(report.errors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn requiring_a_phase_that_does_not_run_before_is_an_error() {
    let guard = guard();
    let early = guard.phase("early", async |_| {});
    let late = guard.phase("late", async |_| {}).id();
    drop(early.requires(late));
    let mut sibling = None;
    let group = guard.group("group", |group| {
        let one = group.phase("one", async |_| {}).id();
        sibling = Some(group.phase("two", async |_| {}).requires(one).id());
    });
    guard.phase("last", async |_| {}).requires(group.id()).requires(sibling.unwrap());
    let report = stop(guard).await;
    let of = |name| report.phase(name).map(|phase| (phase.outcome, phase.error.as_deref()));
    assert_eq!(of("early"), Some((Outcome::Skipped, Some("requires late: has not run"))));
    assert_eq!(of("two"), Some((Outcome::Skipped, Some("requires one: has not run"))));
    assert_eq!(of("last"), Some((Outcome::Skipped, Some("requires group: skipped"))));
    let errors = [
        "phase `early` requires `late`, which does not run before it",
        "phase `two` requires `one`, which does not run before it",
    ];
    assert_eq!(report.errors, errors);
    assert_eq!(report.exit_status, 1);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_name_is_an_error_but_its_phase_still_runs() {
    let guard = guard();
    guard.phase("close", async |_| {});
    guard.phase("close", async move |cx| cx.record("ran", true));
    let report = stop(guard).await;
    assert_eq!(outcomes(&report), [("close", Outcome::Ok), ("close#2", Outcome::Ok)]);
    assert_eq!(report.phases[1].values["ran"], true);
    assert_eq!(report.errors.len(), 1);
    assert_eq!(report.exit_status, 1);
}

#[tokio::test(start_paused = true)]
async fn phases_added_during_the_teardown_run_last() {
    let guard = guard();
    let late = guard.handle();
    guard.phase("first", async move |_| {
        late.phase("late", async |_| {});
    });
    guard.phase("second", async |_| {});
    let report = stop(guard).await;
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
        .phase("wedged", async move |cx| {
            let _drops = drops;
            assert_eq!(cx.name(), "wedged");
            assert_eq!(cx.remaining(), 2 * SECOND);
            *gives.lock().unwrap() = Some(cx.token().clone());
            cx.record("rows", 3);
            cx.progress(1, 9);
            std::future::pending::<()>().await;
        })
        .timeout(2 * SECOND);
    let report = stop(guard).await;
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
        guard.phase("db_close", async |_| {});
        let token = guard.token();
        let report = guard.run(async move { error.map_or(Ok(()), Err) }).await;
        assert_eq!(report.context.cause().to_string(), "service_ended");
        assert_eq!(outcomes(&report), [("db_close", Outcome::Ok)]);
        assert_eq!((report.service_outcome.clone(), report.exit_status), (outcome, status));
        assert!(token.is_cancelled());
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_is_torn_down_and_reported() {
    let guard = guard();
    guard.phase("db_close", async |_| {});
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
async fn the_service_is_still_polled_and_a_phase_can_wait_for_its_end() {
    let guard = guard();
    guard.phase("drain", async move |cx| cx.service_ended().await);
    let token = guard.token();
    guard.handle().request_shutdown("test");
    let report = guard
        .run(async move {
            token.cancelled().await;
            sleep(3 * SECOND).await;
        })
        .await;
    assert_eq!(report.phases[0].duration, 3 * SECOND);
    assert_eq!(report.service_outcome, ServiceOutcome::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_phase_that_waits_for_the_service_says_so() {
    let guard = guard();
    guard.phase("drain", async |cx| cx.service_ended().await).timeout(4 * SECOND);
    guard.handle().request_shutdown("test");
    let report = guard.run(std::future::pending::<()>()).await;
    let waited =
        r#"still running after 4.00s; last recorded waited_for="the service, which has not ended""#;
    assert_eq!(report.phases[0].error.as_deref(), Some(waited));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_ends_is_dropped_after_its_timeout() {
    let guard = guard();
    guard.phase("db_close", async |_| {});
    guard.handle().request_shutdown("test");
    let report = guard.run(std::future::pending::<()>()).await;
    assert_eq!(report.service_outcome, ServiceOutcome::Dropped);
    assert_eq!(report.total, SECOND);

    let guard = TestHarness::install(builder().drain_timeout(4 * SECOND)).unwrap().1;
    guard.handle().request_shutdown("test");
    let report = guard.run(std::future::pending::<()>()).await;
    assert_eq!(report.total, 4 * SECOND);

    let builder = builder().deadline(7 * SECOND).service_timeout(Duration::MAX);
    let (_, guard) = TestHarness::install(builder).unwrap();
    guard.handle().request_shutdown("test");
    let report = guard.run(std::future::pending::<()>()).await;
    assert_eq!(report.total, 7 * SECOND, "the service timeout ends at the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_ready_to_end_is_polled_once_even_with_a_timeout_of_zero() {
    let guard = TestHarness::install(builder().service_timeout(Duration::ZERO)).unwrap().1;
    let (end, ends) = tokio::sync::oneshot::channel::<()>();
    guard.phase("db_close", async move |_| drop(end));
    guard.handle().request_shutdown("test");
    let report = guard.run(async move { drop(ends.await) }).await;
    assert_eq!((report.service_outcome, report.total), (ServiceOutcome::Ended, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn run_is_send_if_the_service_is_and_accepts_a_service_that_is_not() {
    let guard = guard();
    guard.handle().request_shutdown("test");
    let report = tokio::spawn(stop(guard)).await.unwrap();
    assert_eq!(report.service_outcome, ServiceOutcome::Ended);

    let guard = self::guard();
    guard.handle().request_shutdown("test");
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
    guard.handle().request_shutdown("first");
    guard.handle().request_shutdown("second");
    let report = guard.run(async {}).await;
    assert!(report.context.to_string().starts_with("cause=requested reason=first "));
}

#[tokio::test(start_paused = true)]
async fn the_worst_case_is_known_before_anything_runs() {
    let guard = guard();
    assert_eq!(guard.worst_case().duration(), Duration::ZERO);
    guard.phase("notify", async |_| {}).timeout(SECOND);
    guard.group("adapters", |group| group.phase("a", async |_| {}).timeout(2 * SECOND));
    assert_eq!(guard.worst_case().duration(), 3 * SECOND);
    assert_eq!(guard.worst_case().to_string(), "notify 1.00s + adapters 2.00s = at most 3.00s");
    guard.phase("drain", async |_| {}).timeout(60 * SECOND);
    assert_eq!(guard.worst_case().duration(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_report_is_the_same_after_json() {
    let guard = guard();
    guard.phase("drain", async move |cx| cx.record("rows", 3));
    guard.group("adapters", |group| group.phase("slack", async |_| Err::<(), _>("no")));
    let report = stop(guard).await;
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
fn a_runtime_without_timers_is_refused_at_install() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _in = runtime.enter();
    let _ = builder().signals([]).install();
}

#[tokio::test]
async fn a_guard_that_is_dropped_without_its_teardown_is_not_a_clean_end() {
    let dir = tempfile::tempdir().unwrap();
    let guard = || builder().signals([]).record_dir(dir.path().join("records")).install().unwrap();
    let verdict = || PostMortem::of_last(&dir.path().join("records")).unwrap().unwrap();
    // As if the address were in use, and `main` returned the error.
    drop(guard());
    assert!(!verdict().is_clean(), "{}", verdict());
    assert_eq!((verdict().how, verdict().exit_code), (Some(ExitKind::Abandoned), None));

    let guard = guard();
    guard.phase("drain", |_| std::future::pending::<()>());
    guard.handle().request_shutdown("test");
    let service = guard.token().cancelled_owned();
    let run = guard.run(service);
    assert!(tokio::time::timeout(Duration::from_millis(100), run).await.is_err());
    assert!(!verdict().is_clean(), "{}", verdict());
    assert!(verdict().evidence.contains("in the middle of its teardown"), "{}", verdict());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_timed_out_is_not_hidden_by_one_that_failed() {
    let guard = guard();
    guard
        .group("adapters", |group| {
            group.phase("slack", |_| std::future::pending::<()>());
            group.phase("irc", async |_| Err::<(), _>("no"));
        })
        .timeout(SECOND);
    let report = stop(guard).await;
    assert_eq!(outcomes(&report), [("adapters", Outcome::Failed)]);
    assert!(report.timed_out);
}

#[tokio::test(start_paused = true)]
async fn a_phase_without_time_because_of_reserves_says_so() {
    let guard = guard();
    guard.phase("drain", async |_| {});
    guard.phase("db_close", async |_| {}).reserve(10 * SECOND);
    let report = stop(guard).await;
    assert_eq!(outcomes(&report), [("drain", Outcome::Skipped), ("db_close", Outcome::Ok)]);
    let why = report.phases[0].error.as_deref();
    assert_eq!(why, Some("the remaining time is reserved for later phases"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_multi_thread_runtime_the_next_phase_runs_if_one_blocks_its_thread() {
    let guard = guard();
    let (_end, ended) = std::sync::mpsc::channel::<()>();
    guard
        .phase("blocks", async move |_| {
            // Until the end of the test, which drops `_end`.
            let _ = ended.recv();
        })
        .timeout(Duration::from_millis(50));
    guard.phase("db_close", async |_| {});
    let report = stop(guard).await;
    assert_eq!(outcomes(&report), [("blocks", Outcome::TimedOut), ("db_close", Outcome::Ok)]);
    assert!(report.phases[0].error.as_deref().unwrap().ends_with("and blocking its thread"));
}

/// A type that implements `Error` and has a source.
#[derive(Debug)]
struct Lost(std::io::Error);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot flush the queue")
    }
}

impl Error for Lost {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn any_error_is_shown_with_its_sources() {
    fn lost() -> Lost {
        Lost(std::io::Error::other("disk full"))
    }
    let guard = guard();
    guard.phase("error", async |_| Err::<(), _>(lost()));
    guard.phase("boxed", async |_| -> Result<(), Box<dyn Error>> { Err(lost())? });
    guard.phase("boxed_send", async |_| -> Result<(), Box<dyn Error + Send + Sync>> {
        Err(lost())?
    });
    guard.phase("task", |_| tokio::spawn(async { Err::<(), _>(lost()) }));
    let service = tokio::spawn(async { Err::<(), _>(lost()) });
    let report = guard.run(service).await;
    let expected = "cannot flush the queue: disk full";
    assert_eq!(report.phases.len(), 4);
    for phase in &report.phases {
        let error = phase.error.as_deref();
        assert_eq!((phase.outcome, error), (Outcome::Failed, Some(expected)), "{}", phase.name);
    }
    assert_eq!(report.service_outcome, ServiceOutcome::Failed(expected.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_phase_knows_who_requested_the_stop() {
    let (harness, guard) = TestHarness::install(builder()).unwrap();
    guard.phase("drain", async |cx| {
        assert_eq!((cx.cause(), cx.signal()), (Cause::Systemd, Some(Signal::TERM)));
        cx.record("context", cx.context().to_string());
    });
    harness.signal_from(Signal::TERM, &Sender::systemd());
    let report = guard.run(async {}).await;
    assert_eq!(report.phases[0].outcome, Outcome::Ok);
    assert_eq!(report.phases[0].values["context"], report.context.to_string());
}

#[tokio::test(start_paused = true)]
async fn every_handle_learns_of_the_stop_once_it_has_begun() {
    let (harness, guard) = TestHarness::install(builder().pre_stop_delay(SECOND)).unwrap();
    let handle = guard.handle();
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { (handle.stopped().await, handle.token().is_cancelled()) }
    });
    // Cancel safe: a wait that is dropped has no effect on the next one.
    assert!(tokio::time::timeout(SECOND, handle.stopped()).await.is_err());
    let at = Instant::now();
    let stop = async {
        sleep(SECOND).await;
        harness.signal(Signal::INT);
    };
    let service = guard.token().cancelled_owned();
    let (report, ()) = tokio::join!(guard.run(service), stop);
    let (context, is_cancelled) = waiting.await.unwrap();
    assert_eq!(context.signal(), Some(Signal::INT));
    assert!(!is_cancelled, "the delay had only begun");
    assert_eq!(context.to_string(), report.context.to_string());
    assert_eq!(at.elapsed(), 2 * SECOND);
    // Also after the end.
    assert_eq!(handle.stopped().await.signal(), Some(Signal::INT));
}

#[tokio::test(start_paused = true)]
async fn a_handle_has_no_effect_once_the_guard_is_gone() {
    let guard = guard();
    let handle = guard.handle();
    let report = guard.run(async {}).await;
    assert_eq!(report.context.cause(), Cause::ServiceEnded);
    handle.phase("late", async |_| panic!("it does not run"));
    handle.request_shutdown("late");
    handle.escalate();
    handle.ready();
    assert!(!*handle.readiness().borrow());
    tokio::task::yield_now().await;
}

#[test]
fn the_exit_code_is_a_plain_getter_and_main_can_return_the_report() {
    fn is_termination(_: &impl std::process::Termination) {}
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async { guard().run(async { Err::<(), _>("no") }).await });
    is_termination(&report);
    assert_eq!(report.exit_status, 1);
    let code = format!("{:?}", report.exit_code());
    assert_eq!(code, format!("{:?}", std::process::ExitCode::from(1)));
    assert_eq!(code, format!("{:?}", std::process::Termination::report(report)));
}
