//! The events of a stop as the record has them: converts our types to the record's.

use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::cause::Cause;
use forensics_core::context::{Sender, ShutdownContext, Trigger};
use forensics_core::duration::Timespan;
use forensics_core::record::{
    Event, PhaseFinished, PhaseProgress, PhaseStarted, SignalEvent, SignalKind,
};
use serde_json::{Map, Value};

use crate::machine::PhaseKey;
use crate::report::{PhaseReport, RepeatedSignal};

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
    let mut event = signal(kind, 1, context.cause(), context.signal(), context.sender.as_ref());
    event.line = context.to_string();
    event.context = context.to_json();
    event.deadline_us = Some(micros(allowed));
    event.lead_us = Some(micros(delay)).filter(|_| !delay.is_zero());
    event.stop_timeout_us = stop_timeout;
    Event::Signal(event)
}

/// A later signal, and how many requests there were with it. One that counts as the same request as the
/// one before adds none.
pub(crate) fn repeated(repeated: &RepeatedSignal, requests: u32) -> Event {
    let sender = repeated.sender.as_ref();
    // Its cause would need the context, which belongs to the first signal.
    let (kind, cause) = (SignalKind::Signal, Cause::Unknown);
    let mut event = signal(kind, requests, cause, Some(repeated.signal), sender);
    event.context = sender.map(Sender::to_json).unwrap_or_default();
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
    phase.group.as_ref().map(|group| group.name.to_string())
}

pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
