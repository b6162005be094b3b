//! Figures on the run before, for the `metrics` facade.
//!
//! A process that ends is not scraped any more, and one that is killed says nothing at all. So the
//! figures of a run are reported by the next one, at [`install`](crate::Builder::install), from the
//! record: which recorder takes them is the program's business, and it has to be installed by then.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `shutdown_runs_total` | counter, 1 a run | `service`, `outcome` (`clean`, `failed`, `killed_in_phase` …), `cause`, `reason` |
//! | `shutdown_seconds` | histogram: from the request to stop to the end of the teardown | `service`, `outcome` |
//! | `shutdown_phase_seconds` | histogram: each phase that ran and ended | `service`, `phase`, `outcome` |
//! | `shutdown_phases_unfinished_total` | counter: each phase that the run was ended in | `service`, `phase` |
//!
//! A member of a group has `GROUP/MEMBER` for its `phase`. `cause` is empty where nobody asked for a
//! stop. A start that fails before its own record is begun, and one on which records cannot be
//! written, lets the run before be reported again by the next.

use std::time::Duration;

use forensics_core::record::{Event, PhaseOutcome, Run, RunOutcome};
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

/// Reports what there is to say of a run that has ended.
pub(crate) fn report(run: &Run) {
    let verdict = &run.post_mortem;
    if verdict.outcome == RunOutcome::Running {
        return;
    }
    describe();
    let service = run.record.start.service.clone();
    let outcome = verdict.ended();
    let cause = verdict.cause.clone().unwrap_or_default();
    counter!(
        "shutdown_runs_total", "service" => service.clone(), "outcome" => outcome.clone(),
        "cause" => cause, "reason" => verdict.reason.to_string(),
    )
    .increment(1);
    for entry in &run.record.entries {
        match &entry.event {
            Event::Stopped(stopped) if verdict.cause.is_some() => {
                histogram!("shutdown_seconds", "service" => service.clone(), "outcome" => outcome.clone())
                    .record(Duration::from_micros(stopped.total_us));
            }
            Event::PhaseFinished(phase) if phase.outcome != PhaseOutcome::Skipped => {
                histogram!(
                    "shutdown_phase_seconds", "service" => service.clone(),
                    "phase" => label(phase.group.as_deref(), &phase.phase),
                    "outcome" => phase.outcome.as_str().to_owned(),
                )
                .record(Duration::from_micros(phase.took_us));
            }
            _ => {}
        }
    }
    for open in &verdict.phases {
        counter!(
            "shutdown_phases_unfinished_total", "service" => service.clone(),
            "phase" => label(open.group.as_deref(), &open.phase),
        )
        .increment(1);
    }
}

fn label(group: Option<&str>, phase: &str) -> String {
    group.map_or_else(|| phase.to_owned(), |group| format!("{group}/{phase}"))
}

fn describe() {
    describe_counter!("shutdown_runs_total", "Runs that have ended, by how and why.");
    describe_histogram!(
        "shutdown_seconds",
        Unit::Seconds,
        "From the request to stop to the end of the teardown."
    );
    describe_histogram!("shutdown_phase_seconds", Unit::Seconds, "How long a phase ran.");
    describe_counter!("shutdown_phases_unfinished_total", "Phases that a run was ended in.");
}
