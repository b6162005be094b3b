//! The events of a stop, as the record has them: from our types to the record's.

use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::context::{ShutdownContext, Trigger};
use forensics_core::duration::Timespan;
use forensics_core::json;
use forensics_core::record::{
    Diag, DiagState, Event, ExitKind, PhaseFinished, PhaseProgress, PhaseStarted, SignalEvent,
    SignalKind, Stalled, StalledWhat, Stopped,
};
use serde_json::{Map, Value};

use crate::report::{LaterSignal, PhaseReport};

/// Names a phase, or a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) phase: &'a str,
    pub(crate) group: Option<&'a str>,
}

/// What began the stop.
pub(crate) fn begun(
    context: &ShutdownContext,
    allowed: Duration,
    delay: Duration,
    stop_timeout: Option<Timespan>,
) -> Event {
    let kind = match context.trigger {
        Some(Trigger::Request { .. }) => SignalKind::Request,
        Some(Trigger::ServiceEnded { .. }) => SignalKind::ServiceEnded,
        _ => SignalKind::Signal,
    };
    let mut event = SignalEvent::new(kind, 1, context.cause().to_string());
    event.signal = context.signal().map(|signal| signal.to_string());
    if let Some(sender) = &context.sender {
        event.sender_pid = u32::try_from(sender.process.pid).ok();
        event.sender_name.clone_from(&sender.process.name);
        event.sender_uid = sender.process.uid;
    }
    event.line = context.to_string();
    event.context = json::to_value(context);
    event.deadline_us = Some(micros(allowed));
    event.lead_us = Some(micros(delay)).filter(|_| !delay.is_zero());
    event.stop_timeout_us = stop_timeout;
    Event::Signal(event)
}

/// A signal after that, which with it makes so many requests. One that counts as the same request as
/// the one before adds none.
pub(crate) fn repeated(repeated: &LaterSignal, requests: u32) -> Event {
    // Its cause would need the context, which belongs to the first one.
    let mut event = SignalEvent::new(SignalKind::Signal, requests, Cause::Unknown.to_string());
    event.signal = Some(repeated.signal.to_string());
    if let Some(sender) = &repeated.sender {
        event.sender_pid = u32::try_from(sender.process.pid).ok();
        event.sender_name.clone_from(&sender.process.name);
        event.sender_uid = sender.process.uid;
        event.context = json::to_value(sender);
    }
    Event::Signal(event)
}

pub(crate) fn phase_started(place: Place<'_>, budget: Duration, offset: Duration) -> Event {
    let mut event = PhaseStarted::new(place.phase, micros(offset));
    event.group = place.group.map(str::to_owned);
    event.timeout_us = Some(micros(budget));
    Event::PhaseStarted(event)
}

pub(crate) fn phase_progress(
    place: Place<'_>,
    values: Map<String, Value>,
    offset: Duration,
) -> Event {
    let mut event = PhaseProgress::new(place.phase, values, micros(offset));
    event.group = place.group.map(str::to_owned);
    Event::PhaseProgress(event)
}

pub(crate) fn phase_finished(place: Place<'_>, report: &PhaseReport) -> Event {
    let (took, offset) = (micros(report.took), micros(report.offset + report.took));
    let mut event = PhaseFinished::new(place.phase, report.outcome, took, offset);
    event.group = place.group.map(str::to_owned);
    event.error.clone_from(&report.error);
    event.values.clone_from(&report.values);
    Event::PhaseFinished(event)
}

/// A phase, or the runtime where none is named, makes no progress.
pub(crate) fn stalled(phase: Option<&str>, waited: Duration, detail: &str) -> Event {
    let what = if phase.is_some() { StalledWhat::Phase } else { StalledWhat::Runtime };
    let mut event = Stalled::new(what, micros(waited), detail);
    event.phase = phase.map(str::to_owned);
    Event::Stalled(event)
}

pub(crate) fn diagnostic(state: DiagState, path: &std::path::Path, error: Option<String>) -> Event {
    let mut event = Diag::new(state);
    event.path = Some(path.to_string_lossy().into_owned());
    event.error = error;
    Event::Diag(event)
}

/// The run is over; without a status where it is not known.
pub(crate) fn stopped(
    how: ExitKind,
    exit_status: Option<u8>,
    total: Duration,
    more_signals: u64,
) -> Stopped {
    let mut event = Stopped::new(how, exit_status.map(i32::from), micros(total));
    event.more_signals = Some(more_signals).filter(|&more| more > 0);
    event
}

/// A panic ends the run.
pub(crate) fn panicked(message: String, location: Option<String>, total: Duration) -> Event {
    // The status of a Rust program that panicked; one that aborts dies of SIGABRT instead.
    const PANIC_STATUS: i32 = 101;
    let mut event = Stopped::new(ExitKind::Panicked, PANIC_STATUS, micros(total));
    event.panic = Some(message);
    event.location = location;
    Event::Stopped(event)
}

pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
