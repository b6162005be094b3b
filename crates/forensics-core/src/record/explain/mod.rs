//! The texts of the post-mortem: why a run ended as it did, the evidence for it, and what to
//! change.
//!
//! Each module has the texts for one kind of end. A text says only what its [`Basis`] supports:
//! what was observed is stated, and what was inferred names the facts it follows from.

mod audit;
mod container;
mod elsewhere;
mod ended;
mod killed;
mod memory;
mod supervisor;
mod timer;
mod unit;
mod words;

use self::elsewhere::{not_visible, rebooted};
use self::ended::{abandoned, ended, forced, panicked, timed_out};
use self::killed::killed;
use self::timer::StopTimer;
use self::words::signal_from;
use super::summary::Summary;
use super::verdict::Verdict;
use super::{HostState, ProcessState, Reason, RunOutcome, SignalEvent};
use crate::basis::{Basis, Source};

/// Evidence and advice. The advice can be empty.
type Texts = (String, String);

fn texts(evidence: impl Into<String>, advice: impl Into<String>) -> Texts {
    (evidence.into(), advice.into())
}

/// The verdict for an outcome, and the likely time of the kill on the monotonic clock.
pub(super) fn explain(
    outcome: RunOutcome,
    run: &Summary<'_>,
    host: &HostState,
) -> (Verdict, Option<u64>) {
    let timer = StopTimer::of(run);
    let verdict = match outcome {
        RunOutcome::Clean | RunOutcome::CutShort | RunOutcome::Failed | RunOutcome::Unknown => {
            if run.has_failed_to_start() {
                unit::not_started(run)
            } else if let Some(status) = run.failed_after_end() {
                unit::failed_after_the_end(run, status)
            } else {
                recorded(Reason::Recorded, texts(ended(run) + &unit::result(run), ""))
            }
        }
        RunOutcome::TimedOut => recorded(Reason::Recorded, timed_out(run)),
        RunOutcome::Abandoned => recorded(Reason::Recorded, abandoned(run)),
        RunOutcome::Forced => recorded(Reason::Recorded, forced(run)),
        RunOutcome::Panicked => recorded(Reason::Panic, panicked(run)),
        RunOutcome::Running => {
            let evidence = if host.process == ProcessState::Alive {
                "its process lives: the same pid and start time"
            } else {
                "a living process holds the lock on its record"
            };
            // In another pid namespace the run's pid means another process, so it is not named here.
            let is_here = host.place.pid_namespace == run.start.pid_namespace;
            let advice = format!("if it should have ended, look at process {}", run.start.pid);
            let advice = if is_here { advice } else { String::new() };
            Verdict::new(Reason::Alive, Basis::observed(Source::Kernel), evidence, advice)
        }
        RunOutcome::MaybeAlive => {
            let basis = no_end().and("neither its process nor its lock can be seen from here");
            Verdict::new(Reason::Unknown, basis, not_visible(run), "")
        }
        RunOutcome::Rebooted => rebooted(run, host),
        RunOutcome::KilledAfterTeardown => unit::after_the_end(run),
        RunOutcome::Vanished
        | RunOutcome::Exited
        | RunOutcome::KilledInPhase
        | RunOutcome::KilledBeforeTeardown => killed(run, host, timer.as_ref()),
    };
    let timer = timer.filter(|timer| timer.reason == verdict.reason());
    (verdict, timer.map(|timer| timer.over_us().max(run.last_us)))
}

/// When the supervisor's stop timeout ends, on the monotonic clock. `None` if that is not known.
pub(super) fn stop_timeout_over_us(run: &Summary<'_>) -> Option<u64> {
    let timer = StopTimer::of(run).filter(|timer| !timer.is_default)?;
    Some(timer.over_us())
}

/// A verdict that the run recorded itself.
fn recorded(reason: Reason, (evidence, advice): Texts) -> Verdict {
    Verdict::new(reason, Basis::observed(Source::Program), evidence, advice)
}

/// The basis of each verdict about a run that did not record its end.
fn no_end() -> Basis {
    Basis::inferred("its record has no end")
}

/// The same, and what had asked it to stop.
fn no_end_after(asked: Option<&SignalEvent>) -> Basis {
    no_end().and(match asked {
        Some(signal) => format!("{} had arrived", signal_from(signal)),
        None => "its record has no request to stop".to_owned(),
    })
}
