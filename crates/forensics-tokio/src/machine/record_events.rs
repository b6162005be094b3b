//! Converts our types to the events of the record.

use forensics_core::capture::Signal;
use forensics_core::context::{Sender, ShutdownContext, Trigger};
use forensics_core::json;
use forensics_core::record::{Event, PhaseFinished, SignalEvent, SignalKind};

use super::PhaseKey;
use crate::report::{PhaseReport, RepeatedSignal, micros};

/// The event for the signal or the request that began the stop.
pub(super) fn begun(context: &ShutdownContext) -> SignalEvent {
    SignalEvent {
        kind: match context.trigger {
            Some(Trigger::Request { .. }) => SignalKind::Request,
            Some(Trigger::ServiceEnded { .. }) => SignalKind::ServiceEnded,
            _ => SignalKind::Signal,
        },
        ordinal: 1,
        cause: context.cause().to_string(),
        line: context.to_string(),
        context: json::to_value(context),
        ..signal(context.signal(), context.sender.as_ref())
    }
}

/// The event for a later signal. `requests` is the number of requests so far. A signal that counts
/// as the same request as the one before does not increase it.
pub(super) fn repeated(repeated: &RepeatedSignal, requests: u32) -> Event {
    let sender = repeated.sender.as_ref();
    Event::Signal(SignalEvent {
        ordinal: requests,
        cause: repeated.cause.to_string(),
        context: sender.map(json::to_value).unwrap_or_default(),
        ..signal(Some(repeated.signal), sender)
    })
}

fn signal(signal: Option<Signal>, sender: Option<&Sender>) -> SignalEvent {
    let process = sender.map(|sender| &sender.process);
    SignalEvent {
        signal: signal.map(|signal| signal.to_string()),
        sender_pid: process.and_then(|process| process.pid.try_into().ok()),
        sender_name: process.and_then(|process| process.name.clone()),
        sender_uid: process.and_then(|process| process.uid),
        ..SignalEvent::default()
    }
}

pub(super) fn phase_finished(phase: &PhaseKey, report: &PhaseReport) -> Event {
    let (took, offset) = (micros(report.duration), micros(report.started_after + report.duration));
    let mut event = PhaseFinished::new(&*phase.name, report.outcome, took, offset);
    event.group = phase.group_name();
    event.error.clone_from(&report.error);
    event.values.clone_from(&report.values);
    Event::PhaseFinished(event)
}
