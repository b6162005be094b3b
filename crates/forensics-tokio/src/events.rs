//! The log: every event of the target `shutdown` is in this file.
//!
//! Each is one line with the plain fmt subscriber, and a set of fields with any other. Texts of
//! other processes and of the service are escaped in messages. In string fields they are as they
//! are: a subscriber that shows a field (fmt by `Debug`, JSON, the journal in its binary form) escapes
//! it itself. Only a name that needs no quotes is recorded by its `Display`, so that fmt shows it
//! without quotes ([`named`]).

use std::io;
use std::path::Path;
use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::context::ShutdownContext;
use forensics_core::escape::Escaped;
use forensics_core::logfmt::{Value, needs_quotes};
use forensics_core::record::{PostMortem, values_line};
use forensics_core::systemd::StopReason;
use tracing::{Span, debug, debug_span, error, info, info_span, warn};

use crate::config::Escalation;
use crate::diag::DiagError;
use crate::machine::{DelayEnd, LogEvent, Seconds};
use crate::outcome::Outcome;
use crate::phases::Phases;
use crate::record_events::micros;
use crate::report::{LaterSignal, PhaseReport};

/// `Shutdown context: …`, the first line of a stop.
fn context(context: &ShutdownContext) {
    let sender = context.sender.as_ref();
    let who = sender.map(|sender| &sender.process);
    let parent = context.parent.as_ref();
    let pod = context.pod.as_ref().map(ToString::to_string);
    let markers =
        context.markers.iter().map(|marker| format!("{}={}", marker.name, marker.target.as_str()));
    let markers = (!context.markers.is_empty()).then(|| markers.collect::<Vec<_>>().join(" "));
    info!(
        name: "shutdown_context", target: "shutdown",
        signal = context.signal().map(tracing::field::display),
        cause = %context.cause(),
        evidence = context.evidence(),
        under_systemd = context.under_systemd,
        unit = context.systemd.unit.as_ref().map(|unit| unit.unit.as_str()),
        sender_pid = who.map(|who| who.pid),
        sender_name = who.map(|who| who.name.as_deref().unwrap_or("?")),
        sender_uid = who.and_then(|who| who.uid),
        sender_user = sender.and_then(|sender| sender.user.as_deref()),
        sender_parent = sender.and_then(|sender| sender.parent()).map(tracing::field::display),
        sender_cmdline = who.and_then(|who| who.cmdline.as_deref()),
        parent_pid = parent.map(|parent| parent.pid),
        parent_name = parent.and_then(|parent| parent.name.as_deref()),
        parent_cmdline = parent.and_then(|parent| parent.cmdline.as_deref()),
        loadavg_1m = context.load.map(|[one, ..]| one),
        sender_forwards = sender.and_then(|sender| sender.forwards.then_some(true)),
        pod = pod.as_deref().map(named),
        tracer_pid = context.process.tracer_pid,
        markers,
        "Shutdown context: {context}",
    );
}

/// Why systemd stops us, as it says itself.
pub(crate) fn stop_reason(cause: Cause, unit: &str, reason: &StopReason) {
    info!(name: "stop_explained", target: "shutdown", cause = %cause, unit, "Shutdown explained by systemd: {reason}");
}

/// systemd did not say why it stops us.
pub(crate) fn unexplained(why: &str) {
    info!(name: "stop_unexplained", target: "shutdown", "Shutdown not explained by systemd: {}", Escaped(why));
}

/// What follows from it.
fn consequence(later: &LaterSignal, escalation: Escalation) -> &'static str {
    match (later.ordinal, escalation) {
        _ if later.ended_lead => "the lead is over, and the teardown begins",
        (None, _) => "the same request once more",
        (Some(1), _) => "the stop has begun already",
        (_, Escalation::Ignore) => "the teardown goes on as before",
        (Some(2), Escalation::CutThenExit) => {
            "the running phase is cut short, and only phases with a reserve go on"
        }
        _ => "the process ends at once",
    }
}

/// Signals that are not listed one by one.
pub(crate) fn more_signals(more: u64) {
    warn!(name: "more_signals", target: "shutdown", more, "and {more} more signals");
}

/// What the operator has set.
pub(crate) fn configured(settings: &[(&'static str, String)]) {
    let show = |(variable, value): &(_, String)| format!(" {variable}={}", Value(value));
    let settings: String = settings.iter().map(show).collect();
    info!(name: "configured", target: "shutdown", "Configured by the environment:{settings}");
}

/// What an operator may have meant to set.
pub(crate) fn not_a_setting(variable: &str, nearest: Option<&str>) {
    let meant = nearest.map(|nearest| format!(": was {nearest} meant?")).unwrap_or_default();
    warn!(
        name: "not_a_setting", target: "shutdown",
        "{} in the environment is no setting of the guard's, and without effect{meant}",
        Escaped(variable),
    );
}

/// How the previous run ended.
pub(crate) fn previous(verdict: &PostMortem) {
    let phase = verdict.phases.first().map(|open| open.phase.as_str());
    // The level has to be known when this is compiled, so each has its own call.
    macro_rules! previous {
        ($level:ident) => {
            $level!(
                name: "previous_run", target: "shutdown", outcome = %verdict.outcome, phase, reason = %verdict.reason,
                previous_pid = verdict.pid, advice = verdict.advice.as_deref(),
                "Previous run: {verdict}",
            )
        };
    }
    if verdict.is_clean() {
        previous!(info);
    } else {
        previous!(warn);
    }
}

/// The record is missing or has gaps.
pub(crate) fn not_recorded(why: &str) {
    warn!(name: "not_recorded", target: "shutdown", "Not all of this run is recorded: {}", Escaped(why));
}

/// The termination message is missing or not the last one.
pub(crate) fn no_termination_message(why: &str) {
    warn!(name: "no_termination_message", target: "shutdown", "No termination message is written: {}", Escaped(why));
}

/// The service manager has a socket for us, and it cannot be used.
pub(crate) fn not_notified(why: &str) {
    warn!(name: "not_notified", target: "shutdown", "The service manager is told nothing: {}", Escaped(why));
}

/// The unit has a watchdog, and it was not left to us.
pub(crate) fn watchdog_not_fed(every: Duration) {
    info!(
        name: "watchdog_not_fed", target: "shutdown",
        "WatchdogSec={every:?} is not fed by the guard: Builder::watchdog(true), or WATCHDOG=1 by \
         your own check",
    );
}

/// systemd is asked for more time.
pub(crate) fn extending(granted: Duration, ceiling: Duration) {
    info!(
        name: "stop_timeout_extended", target: "shutdown",
        "Phases make progress: systemd is asked to restart its stop timeout of {}, up to {} in all",
        Seconds(granted), Seconds(ceiling),
    );
}

/// SIGHUP was ignored when we started, and stays so.
pub(crate) fn hangup_stays_ignored() {
    info!(name: "hangup_ignored", target: "shutdown", "SIGHUP is ignored, as by nohup(1), and stays so");
}

/// The request of [`low_latency`](crate::low_latency) failed, and the operator or the program made it.
pub(crate) fn no_low_latency_capture(error: &io::Error) {
    info!(
        name: "no_low_latency_capture", target: "shutdown",
        "The kernel refused the short time slice for low_latency_capture: {error}",
    );
}

/// A phase was registered wrongly.
pub(crate) fn registration_error(what: &str) {
    error!(name: "registration_error", target: "shutdown", "{}", Escaped(what));
}

/// The diagnostic is complete, goes on in a transient unit, or failed.
pub(crate) fn diagnostic_ended(log: &Path, ended: Result<Option<String>, DiagError>) {
    let log = log.to_string_lossy();
    let log = named(&log);
    match ended {
        Ok(None) => {
            info!(name: "diagnostic_finished", target: "shutdown", log, "Diagnostic written");
        }
        Ok(Some(unit)) => {
            info!(name: "diagnostic_elsewhere", target: "shutdown", log, unit, "Diagnostic goes on in a unit of its own");
        }
        Err(e) => {
            warn!(name: "diagnostic_failed", target: "shutdown", log, "Diagnostic failed: {}", Escaped(&e.to_string()));
        }
    }
}

/// systemd will not wait for as long as the teardown may take. The text, of our own making, holds a
/// command to be copied, so that it is not escaped once more.
pub(crate) fn misaligned(advice: &str) {
    warn!(name: "stop_timeout_short", target: "shutdown", "{advice}");
}

/// systemd waits for as long as the teardown may take.
pub(crate) fn aligned(summary: &str) {
    info!(name: "stop_timeout_aligned", target: "shutdown", "{summary}");
}

/// Whether systemd will wait is not known.
pub(crate) fn alignment_unknown(why: &str) {
    info!(name: "stop_timeout_unknown", target: "shutdown", "Stop timeout not checked: {}", Escaped(why));
}

/// The span of a phase or of a group; a member's has its group's for parent.
pub(crate) fn phase_span(name: &str, parent: &Span) -> Span {
    info_span!(target: "shutdown", parent: parent.id(), "phase", phase = named(name))
}

/// The span of a whole teardown, with what began it: the parent of its phases, for traces. Of level
/// `DEBUG`, so that it stands in front of no line of an ordinary log.
pub(crate) fn teardown_span(service: &str, context: &ShutdownContext, parent: &Span) -> Span {
    let who = context.sender.as_ref().map(|sender| &sender.process);
    debug_span!(
        target: "shutdown", parent: parent.id(), "shutdown", service,
        cause = %context.cause(),
        signal = context.signal().map(tracing::field::display),
        sender_pid = who.map(|who| who.pid),
        sender_name = who.and_then(|who| who.name.as_deref()),
    )
}

/// Emits an event of the machine, in the span of the phase that it is about.
pub(crate) fn emit(event: LogEvent, phases: &Phases) {
    match event {
        LogEvent::Context(about) => context(&about),
        LogEvent::Repeated(later, escalation) => {
            let who = later.sender.as_ref().map(|sender| &sender.process);
            warn!(
                name: "later_signal", target: "shutdown",
                signal = %later.signal,
                sender_pid = who.map(|who| who.pid),
                sender_name = who.map(|who| who.name.as_deref().unwrap_or("?")),
                sender_uid = who.and_then(|who| who.uid),
                "+{} another {}: {}", Seconds(later.offset), later.signal, consequence(&later, escalation),
            );
        }
        LogEvent::ImpossibleReserves(sum) => {
            error!(name: "impossible_reserves", target: "shutdown", "Reserves that no deadline of this length can honour: {sum}");
        }
        LogEvent::DelayStarted(delay) => {
            info!(name: "lead_started", target: "shutdown", "Lead of {}: readiness is off, still serving", Seconds(delay));
        }
        LogEvent::DelayEnded(delayed, why) => {
            let why = match why {
                DelayEnd::Over => "",
                DelayEnd::Escalated => ", cut short by a second request",
                DelayEnd::Service => ", cut short: the service has ended",
                DelayEnd::Token => ", cut short: the token was cancelled",
            };
            info!(name: "lead_ended", target: "shutdown", "+{} Lead over{why}", Seconds(delayed));
        }
        LogEvent::TeardownStarted { sum, deadline } => {
            info!(name: "teardown_started", target: "shutdown", "Teardown started ({deadline}): {sum}");
        }
        LogEvent::RegistrationError(what) => registration_error(&what),
        LogEvent::PhaseStarted { phase, offset, budget } => {
            let _in = phases.span(&phase).entered();
            debug!(
                name: "phase_started", target: "shutdown", phase = named(&phase.name), budget = %Seconds(budget),
                "+{} phase started", Seconds(offset),
            );
        }
        LogEvent::PhaseStillRunning { phase, offset, elapsed, budget, last_value } => {
            let _in = phases.span(&phase).entered();
            warn!(
                name: "phase_still_running", target: "shutdown", phase = named(&phase.name),
                elapsed = %Seconds(elapsed), budget = %Seconds(budget), last_recorded = last_value,
                "+{} phase still running", Seconds(offset),
            );
        }
        LogEvent::PhaseFinished { phase, report } => {
            let _in = phases.take_span(&phase).entered();
            phase_finished(&report);
        }
        LogEvent::ServiceDropped(waited) => warn!(
            name: "service_dropped", target: "shutdown", waited = %Seconds(waited),
            "The service's future is dropped, as it did not end after the last phase: let it end \
             when the guard's token is cancelled, and wait for that in a phase (service_ended)",
        ),
        LogEvent::DiagnosticLeftBehind => {
            warn!(name: "diagnostic_left_behind", target: "shutdown", "Diagnostic still running at the deadline: not waited for");
        }
        LogEvent::Stalled(detail) => {
            warn!(name: "shutdown_hangs", target: "shutdown", "Shutdown hangs: {detail}");
        }
        LogEvent::Forced { why, status } => {
            error!(name: "shutdown_forced", target: "shutdown", exit_status = status, "Shutdown forced: {why}");
        }
    }
}

/// A phase has ended.
fn phase_finished(report: &PhaseReport) {
    let offset = report.offset + report.took;
    let recorded = (!report.values.is_empty()).then(|| values_line(&report.values));
    // The level has to be known when this is compiled, so each has its own call.
    macro_rules! finished {
        ($level:ident) => {
            $level!(
                name: "phase_finished", target: "shutdown", phase = named(&report.name), outcome = %report.outcome,
                took = %Seconds(report.took), offset_usec = micros(offset), error = report.error,
                recorded,
                "+{} phase finished", Seconds(offset),
            )
        };
    }
    match report.outcome {
        Outcome::Ok => finished!(info),
        Outcome::Skipped | Outcome::CutShort | Outcome::TimedOut => finished!(warn),
        _ => finished!(error),
    }
}

/// All is over.
pub(crate) fn complete(cause: Cause, phases: usize, timed_out: bool, total: Duration, status: u8) {
    info!(
        name: "shutdown_complete", target: "shutdown", cause = %cause, phases, timed_out,
        total_usec = micros(total), exit_status = status,
        "+{} Shutdown complete", Seconds(total),
    );
}

/// A name as a field: bare in a line where that is unambiguous, else as any other text.
fn named(name: &str) -> Box<dyn tracing::Value + '_> {
    if needs_quotes(name) { Box::new(name) } else { Box::new(tracing::field::display(name)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forensics_core::capture::Signal;

    use super::*;

    #[test]
    fn what_follows_from_a_later_signal_is_said_as_it_was_set() {
        use Escalation::{CutThenExit, Exit, Ignore};
        let cases = [
            (None, CutThenExit, "the same request"),
            (Some(1), Exit, "the stop has begun already"),
            (Some(2), CutThenExit, "the running phase is cut short"),
            (Some(3), CutThenExit, "the process ends at once"),
            (Some(2), Exit, "the process ends at once"),
            (Some(2), Ignore, "the teardown goes on as before"),
            (Some(3), Ignore, "the teardown goes on as before"),
        ];
        for (ordinal, escalation, expected) in cases {
            let (signal, offset) = (Signal::TERM, Duration::ZERO);
            let later = LaterSignal { signal, sender: None, ordinal, offset, ended_lead: false };
            let said = consequence(&later, escalation);
            assert!(said.starts_with(expected), "{ordinal:?} {escalation:?}: {said}");
        }
    }
}
