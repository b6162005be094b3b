//! Converts our types to the events of the record.

use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::context::{Sender, ShutdownContext, Trigger};
use forensics_core::json;
use forensics_core::logfmt::Value;
use forensics_core::record::{Event, PhaseFinished, SignalEvent, SignalKind};

use crate::machine::PhaseKey;
use crate::report::{PhaseReport, RepeatedSignal};

/// The event for the signal or the request that began the stop.
pub(crate) fn begun(context: &ShutdownContext) -> SignalEvent {
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
pub(crate) fn repeated(repeated: &RepeatedSignal, requests: u32) -> Event {
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

pub(crate) fn phase_finished(phase: &PhaseKey, report: &PhaseReport) -> Event {
    let (took, offset) = (micros(report.duration), micros(report.started_after + report.duration));
    let mut event = PhaseFinished::new(&*phase.name, report.outcome, took, offset);
    event.group = phase.group_name();
    event.error.clone_from(&report.error);
    event.values.clone_from(&report.values);
    Event::PhaseFinished(event)
}

/// Names an event for the log.
pub(crate) fn name(event: &Event) -> String {
    match event {
        Event::Signal(_) => "the signal or request".to_owned(),
        Event::PhaseStarted(started) => format!("the start of phase {}", Value(&started.phase)),
        Event::PhaseProgress(progress) => format!("a value of phase {}", Value(&progress.phase)),
        Event::PhaseFinished(finished) => format!("the end of phase {}", Value(&finished.phase)),
        Event::Stopped(_) => "the end of the run".to_owned(),
        _ => "an event between the phases".to_owned(),
    }
}

pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
