//! The metrics that the next start reports about a run, through the `metrics` facade.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use forensics_tokio::ShutdownGuard;
use forensics_tokio::core::record::{
    Event, PhaseStarted, Recorder, RunStarted, SignalEvent, SignalKind,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

/// Installs a guard, and returns the metrics that it reported: name with labels, and value.
fn reported_at_start(dir: &Path) -> (ShutdownGuard, BTreeMap<String, DebugValue>) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let install = || ShutdownGuard::builder("gateway").record_dir(dir).install().unwrap();
    let guard = metrics::with_local_recorder(&recorder, install);
    let all = snapshotter.snapshot().into_vec().into_iter();
    let named = all.map(|(key, _, _, value)| {
        let (name, labels) = key.key().clone().into_parts();
        let mut labels: Vec<_> =
            labels.iter().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort();
        (format!("{} {}", name.as_str(), labels.join(" ")), value)
    });
    (guard, named.collect())
}

fn seconds(value: &DebugValue) -> f64 {
    match value {
        DebugValue::Histogram(values) if values.len() == 1 => values[0].into_inner(),
        other => panic!("not one value of a histogram: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_start_reports_the_phases_of_the_run_that_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (guard, reported) = reported_at_start(dir.path());
    assert!(reported.is_empty(), "{reported:?}");
    let drain = guard
        .phase("drain", |_| tokio::time::sleep(Duration::from_secs(60)))
        .timeout(Duration::from_secs(2))
        .id();
    guard.group("adapters", |group| group.phase("slack", async |_| {}));
    guard.phase("skipped", async |_| {}).requires(drain);
    guard.handle().request_shutdown("a test");
    let report = guard.run(async {}).await;
    assert!(report.timed_out);

    let (_guard, reported) = reported_at_start(dir.path());
    let names: Vec<_> = reported.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "shutdown_phase_seconds outcome=ok phase=adapters service=gateway",
            "shutdown_phase_seconds outcome=ok phase=adapters/slack service=gateway",
            "shutdown_phase_seconds outcome=timed_out phase=drain service=gateway",
            "shutdown_runs_total cause=requested outcome=timed_out reason=recorded service=gateway",
            "shutdown_seconds outcome=timed_out service=gateway",
        ]
    );
    let drain = &reported["shutdown_phase_seconds outcome=timed_out phase=drain service=gateway"];
    assert!((2.0..3.0).contains(&seconds(drain)), "{drain:?}");
    let total = &reported["shutdown_seconds outcome=timed_out service=gateway"];
    assert!((2.0..4.0).contains(&seconds(total)), "{total:?}");
}

#[tokio::test]
async fn a_run_that_failed_is_not_counted_as_clean() {
    let dir = tempfile::tempdir().unwrap();
    let (guard, _) = reported_at_start(dir.path());
    assert!(guard.run(async { Err::<(), _>("no database") }).await.is_failed());

    let (_guard, reported) = reported_at_start(dir.path());
    let counted =
        "shutdown_runs_total cause=service_ended outcome=failed reason=recorded service=gateway";
    assert!(reported.contains_key(counted), "{reported:?}");
}

#[tokio::test]
async fn a_run_that_was_killed_is_counted_with_its_running_phase() {
    let dir = tempfile::tempdir().unwrap();
    let run = Recorder::create(dir.path(), RunStarted::new("gateway", 1)).unwrap();
    run.record(&Event::Signal(SignalEvent::new(SignalKind::Signal, 1, "operator"))).unwrap();
    run.record(&Event::PhaseStarted(PhaseStarted::new("drain", 10))).unwrap();
    drop(run);

    let (_guard, reported) = reported_at_start(dir.path());
    let names: Vec<_> = reported.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "shutdown_phases_unfinished_total phase=drain service=gateway",
            "shutdown_runs_total cause=operator outcome=killed_in_phase reason=unknown \
             service=gateway",
        ]
    );
    assert!(reported.values().all(|value| *value == DebugValue::Counter(1)), "{reported:?}");
}
