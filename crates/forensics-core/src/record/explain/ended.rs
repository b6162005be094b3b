//! The texts for runs that recorded their end themselves.

use super::words::{
    bad_phases, deadline, exit, optional, shown, signal_from, stalled, state, timeouts,
};
use super::{Texts, texts};
use crate::record::summary::Summary;
use crate::record::{ExitKind, ForcedBy, PhaseFinished, PhaseOutcome};

/// The evidence for a run that ended by itself.
pub(super) fn ended(run: &Summary<'_>) -> String {
    let evidence = match (run.stopped.map(|stop| stop.how), bad_phases(run, |_| true)) {
        (Some(ExitKind::Other), _) => {
            "it ended by itself, in a way that this version does not know".to_owned()
        }
        (_, Some(bad)) => format!("it ended by itself, but {bad}"),
        (Some(ExitKind::Failed), None) => "it ended by itself, but the service failed".to_owned(),
        (_, None) => "it ended as planned".to_owned(),
    };
    evidence + &exit(run)
}

pub(super) fn abandoned(run: &Summary<'_>) -> Texts {
    let (when, advice) = if run.asked.is_none() {
        let advice = "see what it logged last, most likely an error at its start; pass a service that \
                      ends by itself to run()";
        (
            "without a teardown, because nothing had requested one: main returned early",
            advice.to_owned(),
        )
    } else if run.teardown_began() {
        let advice = "wait for run(), and put no timeout of your own around it";
        ("in the middle of its teardown", format!("{}: {advice}", state(run)))
    } else {
        let when = "after the request to stop, before a phase had begun";
        (when, "wait for run()".to_owned())
    };
    texts(format!("its guard was dropped {when}"), advice)
}

pub(super) fn timed_out(run: &Summary<'_>) -> Texts {
    let late = |phase: &PhaseFinished| {
        matches!(phase.outcome, PhaseOutcome::TimedOut | PhaseOutcome::Skipped)
    };
    if let Some(late) = bad_phases(run, late) {
        return texts(late, "raise the timeout, or find what the phase waited for");
    }
    let advice = match deadline(run) {
        Some(_) => "raise the deadline, or lower the phases' timeouts",
        None => "find what it waited for",
    };
    let deadline = optional(" of ", deadline(run));
    let evidence = format!("the teardown took longer than its deadline{deadline}");
    texts(evidence, format!("{}: {advice}", state(run)))
}

pub(super) fn forced(run: &Summary<'_>) -> Texts {
    let (exit, deadline) = (exit(run), deadline(run));
    let (evidence, what_to_do) = match run.stopped.and_then(|stopped| stopped.forced_by) {
        Some(ForcedBy::NoExit) => {
            let is_dropped = |phase: &PhaseFinished| {
                matches!(phase.outcome, PhaseOutcome::TimedOut | PhaseOutcome::CutShort)
            };
            let dropped = bad_phases(run, is_dropped)
                .map(|bad| format!("; {bad}, and its work may still block a thread"))
                .unwrap_or_default();
            let evidence = format!("its teardown ended but the process did not{dropped}{exit}");
            let advice = "a blocked thread keeps the runtime from ending: see what each thread waited for \
                          in the record's last line";
            return texts(evidence, advice);
        }
        Some(ForcedBy::Deadline) => {
            let of = optional(" of ", deadline);
            let evidence = format!("the deadline{of} passed before the teardown ended");
            (evidence, "find what blocks its thread".to_owned())
        }
        _ => {
            let evidence = match run.asked_last.filter(|signal| signal.ordinal > 1) {
                Some(last) => {
                    let from = signal_from(last);
                    format!("stop request number {}, {from}, ended it at once", last.ordinal)
                }
                None => "it was ended at once".to_owned(),
            };
            let wait = match deadline {
                Some(deadline) => format!("wait for its deadline of {deadline}"),
                None => "wait for its end".to_owned(),
            };
            (evidence, format!("{wait} before you send another signal"))
        }
    };
    let (state, timeouts) = (state(run) + &stalled(run), timeouts(run));
    texts(evidence + &exit, format!("{state}: {what_to_do}, or lower {timeouts}"))
}

pub(super) fn panicked(run: &Summary<'_>) -> Texts {
    let at = run.stopped.and_then(|stop| stop.location.as_deref()).map(shown);
    let message = run.stopped.and_then(|stop| stop.panic.as_deref()).map(shown);
    let (at, message) = (optional(" at ", at), optional(": ", message));
    texts(format!("panicked{at}{message}"), format!("fix the panic{at}"))
}
