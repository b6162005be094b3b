//! Capturing the context. What may block is read on threads of its own, with a bound.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use forensics_core::capture::Captured;
use forensics_core::context::{Baseline, ShutdownContext, Trigger};
use forensics_core::marker::{self, Marker};
use forensics_core::process;
use forensics_core::sender::Sender;

use crate::blocking::run_with_timeout;

/// How long a command line may take to be read; it can hang for as long as its process's memory
/// map is locked. So long as a busy machine can take its time to run a thread.
const CMDLINE_LIMIT: Duration = Duration::from_millis(100);

/// How long a marker may take to be read, likewise; it can hang for as long as the server of its file
/// system is away.
const MARKER_LIMIT: Duration = Duration::from_millis(100);

/// A signal that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Caught {
    pub(crate) captured: Captured,
    /// The sender, where a test says who it is.
    known: Option<Option<Sender>>,
}

impl Caught {
    pub(crate) fn of(captured: Captured) -> Self {
        Self { captured, known: None }
    }

    /// The same, from a sender that is known.
    #[cfg(feature = "testing")]
    pub(crate) fn known(captured: Captured, sender: Option<Sender>) -> Self {
        Self { captured, known: Some(sender) }
    }

    fn sender(&self) -> Option<Sender> {
        self.known.clone().unwrap_or_else(|| Sender::glimpse(&self.captured))
    }
}

/// Who sent a signal.
pub(crate) fn resolve_sender(signal: &Caught) -> Option<Sender> {
    let mut sender = signal.sender();
    if let Some(sender) = &mut sender {
        sender.complete();
    }
    sender
}

/// Adds what the record shows beside the line.
pub(crate) fn complete(baseline: &Baseline, context: &mut ShutdownContext) {
    context.complete(baseline);
}

/// The context of a stop, as far as its line shows it. Takes some 100 µs, and 100 ms more where a command
/// line hangs, and for each marker that does.
pub(crate) fn capture(
    baseline: &Baseline,
    named_markers: &[(String, PathBuf)],
    trigger: Trigger,
    caught: Option<&Caught>,
) -> ShutdownContext {
    let captured = caught.map(|caught| &caught.captured);
    let sender = caught.and_then(Caught::sender);
    let mut context =
        ShutdownContext::capture_from(baseline, trigger, captured, sender, &OnceLock::new());
    if let Some(sender) = &mut context.sender
        && sender.process.cmdline.is_none()
    {
        let parent = context.parent.as_ref().filter(|parent| parent.is_same_as(&sender.process));
        sender.process.cmdline = match parent {
            Some(parent) => parent.cmdline.clone(),
            None => read_cmdline(baseline, sender),
        };
    }
    context.markers = markers(named_markers);
    context
}

/// The command line of a sender that is there and is not our parent, whose we know.
fn read_cmdline(baseline: &Baseline, sender: &Sender) -> Option<String> {
    let parent = baseline.parent.as_ref();
    let is_parent = parent.is_some_and(|parent| parent.is_same_as(&sender.process));
    // A zombie's is empty.
    if is_parent || sender.process.state == Some('Z') || !sender.is_still_there() {
        return None;
    }
    let pid = sender.process.pid;
    let cmdline = run_with_timeout(CMDLINE_LIMIT, move || process::cmdline(pid)).flatten();
    cmdline.filter(|_| sender.is_still_there())
}

/// The markers that are there, and can be had at once.
fn markers(named: &[(String, PathBuf)]) -> Vec<Marker> {
    let us = std::process::id();
    let read = |(name, path): (String, PathBuf)| {
        run_with_timeout(MARKER_LIMIT, move || marker::read(&name, &path, us)).flatten()
    };
    named.iter().cloned().filter_map(read).collect()
}
