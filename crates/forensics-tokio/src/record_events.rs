//! Converts our types to the events of the record.

use std::path::Path;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::cause::Cause;
use forensics_core::context::Sender;
use forensics_core::context::{ShutdownContext, Trigger};
use forensics_core::duration::Timespan;
use forensics_core::json;
use forensics_core::record::{
    Diag, DiagState, Event, ExitKind, PhaseFinished, PhaseProgress, PhaseStarted, SignalEvent,
    SignalKind, Stalled, StalledWhat, Stopped,
};
use serde_json::{Map, Value};

use crate::machine::PhaseKey;
use crate::report::{PhaseReport, RepeatedSignal};

/// The event that began the stop.
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
    let mut event = signal(kind, 1, context.cause(), context.signal(), context.sender.as_ref());
    event.line = context.to_string();
    event.context = json::to_value(context);
    event.deadline_us = Some(micros(allowed));
    event.lead_us = Some(micros(delay)).filter(|_| !delay.is_zero());
    event.stop_timeout_us = stop_timeout;
    Event::Signal(event)
}

/// A later signal, and the number of requests so far. A signal that counts as the same request as
/// the one before does not increase that number.
pub(crate) fn repeated(repeated: &RepeatedSignal, requests: u32) -> Event {
    let sender = repeated.sender.as_ref();
    // Its cause would need the context, which belongs to the first signal.
    let (kind, cause) = (SignalKind::Signal, Cause::Unknown);
    let mut event = signal(kind, requests, cause, Some(repeated.signal), sender);
    event.context = sender.map(json::to_value).unwrap_or_default();
    Event::Signal(event)
}

fn signal(
    kind: SignalKind,
    ordinal: u32,
    cause: Cause,
    signal: Option<Signal>,
    sender: Option<&Sender>,
) -> SignalEvent {
    let process = sender.map(|sender| &sender.process);
    let mut event = SignalEvent::new(kind, ordinal, cause.to_string());
    event.signal = signal.map(|signal| signal.to_string());
    event.sender_pid = process.and_then(|process| process.pid.try_into().ok());
    event.sender_name = process.and_then(|process| process.name.clone());
    event.sender_uid = process.and_then(|process| process.uid);
    event
}

pub(crate) fn phase_started(phase: &PhaseKey, budget: Duration, offset: Duration) -> Event {
    let mut event = PhaseStarted::new(&*phase.name, micros(offset));
    event.group = group(phase);
    event.timeout_us = Some(micros(budget));
    Event::PhaseStarted(event)
}

pub(crate) fn phase_progress(
    phase: &PhaseKey,
    values: Map<String, Value>,
    offset: Duration,
) -> Event {
    let mut event = PhaseProgress::new(&*phase.name, values, micros(offset));
    event.group = group(phase);
    Event::PhaseProgress(event)
}

pub(crate) fn phase_finished(phase: &PhaseKey, report: &PhaseReport) -> Event {
    let (took, offset) = (micros(report.duration), micros(report.started_after + report.duration));
    let mut event = PhaseFinished::new(&*phase.name, report.outcome, took, offset);
    event.group = group(phase);
    event.error.clone_from(&report.error);
    event.values.clone_from(&report.values);
    Event::PhaseFinished(event)
}

fn group(phase: &PhaseKey) -> Option<String> {
    phase.group.as_ref().map(|(_, group)| group.to_string())
}

/// A phase, or the runtime if no phase is named, is stalled.
pub(crate) fn stalled(phase: Option<&str>, waited: Duration, detail: &str) -> Event {
    let what = if phase.is_some() { StalledWhat::Phase } else { StalledWhat::Runtime };
    let mut event = Stalled::new(what, micros(waited), detail);
    event.phase = phase.map(str::to_owned);
    Event::Stalled(event)
}

pub(crate) fn diagnostic(state: DiagState, path: &Path, error: Option<String>) -> Event {
    let mut event = Diag::new(state);
    event.path = Some(path.to_string_lossy().into_owned());
    event.error = error;
    Event::Diag(event)
}

/// The run has ended. The exit status is absent if it is not known.
pub(crate) fn stopped(
    how: ExitKind,
    status: Option<u8>,
    total: Duration,
    unlisted: u64,
) -> Stopped {
    let mut event = Stopped::new(how, status.map(i32::from), micros(total));
    event.more_signals = Some(unlisted).filter(|&unlisted| unlisted > 0);
    event
}

/// A panic ends the run.
pub(crate) fn panicked(message: String, location: Option<String>, total: Duration) -> Event {
    // The status of a Rust program that panicked. With `panic = "abort"` it dies by SIGABRT instead.
    const PANIC_STATUS: i32 = 101;
    let mut event = Stopped::new(ExitKind::Panicked, PANIC_STATUS, micros(total));
    (event.panic, event.location) = (Some(message), location);
    Event::Stopped(event)
}

pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
