//! Metrics about the previous run, for the `metrics` facade.
//!
//! A process that has ended is not scraped any more, and a process that is killed cannot report
//! anything. So the next run reports the metrics, from the record, in
//! [`install`](crate::Builder::install). The program must install its metrics recorder before that.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `shutdown_runs_total` | counter: 1 for each run | `service`, `outcome` (`clean`, `failed`, `killed_in_phase` …), `cause`, `reason` |
//! | `shutdown_seconds` | histogram: from the request to stop to the end of the teardown | `service`, `outcome` |
//! | `shutdown_phase_seconds` | histogram: each phase that ran and ended | `service`, `phase`, `outcome` |
//! | `shutdown_phases_unfinished_total` | counter: each phase that was running when the run ended | `service`, `phase` |
//!
//! The `phase` of a member of a group is `GROUP/MEMBER`. `cause` is empty if nothing asked for a stop.
//! If a start fails before it begins its own record, or if it cannot write records, the next start reports
//! the same run again.

use std::time::Duration;

use forensics_core::record::{Entry, Event, PhaseOutcome, Run, RunOutcome, phase_name};
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

/// Reports the metrics of a run that has ended.
pub(crate) fn report(run: &Run) {
    let post_mortem = &run.post_mortem;
    if post_mortem.outcome == RunOutcome::Running {
        return;
    }
    describe();
    let (service, outcome) = (run.record.start.service.clone(), post_mortem.outcome.to_string());
    let cause = post_mortem.cause.clone().unwrap_or_default();
    counter!(
        "shutdown_runs_total", "service" => service.clone(), "outcome" => outcome.clone(),
        "cause" => cause, "reason" => post_mortem.reason.to_string(),
    )
    .increment(1);
    let report = |entry: &Entry, _: &[u8]| match &entry.event {
        Event::Stopped(stopped) if post_mortem.cause.is_some() => {
            histogram!("shutdown_seconds", "service" => service.clone(), "outcome" => outcome.clone())
                    .record(Duration::from_micros(stopped.total_us));
        }
        Event::PhaseFinished(phase) if phase.outcome != PhaseOutcome::Skipped => {
            histogram!(
                "shutdown_phase_seconds", "service" => service.clone(),
                "phase" => phase_name(&phase.phase, phase.group.as_deref()),
                "outcome" => phase.outcome.to_string(),
            )
            .record(Duration::from_micros(phase.took_us));
        }
        _ => {}
    };
    // It has been read before, so this fails only if it was removed meanwhile.
    let _ = run.file.read(report);
    for open in &post_mortem.phases {
        counter!(
            "shutdown_phases_unfinished_total", "service" => service.clone(),
            "phase" => phase_name(&open.phase, open.group.as_deref()),
        )
        .increment(1);
    }
}

fn describe() {
    describe_counter!("shutdown_runs_total", "Runs that have ended, by how and why.");
    describe_histogram!("shutdown_seconds", Unit::Seconds, "From the request to the end.");
    describe_histogram!("shutdown_phase_seconds", Unit::Seconds, "How long a phase ran.");
    describe_counter!("shutdown_phases_unfinished_total", "Phases that were running at the end.");
}
