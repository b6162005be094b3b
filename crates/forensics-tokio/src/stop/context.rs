//! Taking the context down. What of it can hang, a sender's command line and the markers, is read on
//! threads of their own, and waited for so long and no longer.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use forensics_core::capture::Captured;
use forensics_core::context::{Baseline, ShutdownContext, Surroundings, Trigger};
use forensics_core::marker::{self, Marker};
use forensics_core::process;
use forensics_core::sender::Sender;

use crate::bounded::{self, Started, bounded};

/// How long a command line may take to be read; it can hang for as long as its process's memory
/// map is locked. So long as a busy machine can take its time to run a thread.
const CMDLINE_LIMIT: Duration = Duration::from_millis(100);

/// How long a marker may take to be read, likewise; it can hang for as long as the server of its file
/// system is away.
const MARKER_LIMIT: Duration = Duration::from_millis(100);

/// A signal, as whoever caught it knows it.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) captured: Captured,
    sender: OnceCell<Option<Sender>>,
}

impl Caught {
    pub(crate) fn of(captured: Captured) -> Self {
        Self { captured, sender: OnceCell::new() }
    }

    /// The same, from a sender that is known.
    #[cfg(feature = "testing")]
    pub(crate) fn known(captured: Captured, sender: Option<Sender>) -> Self {
        Self { captured, sender: sender.into() }
    }

    /// What a line shows of the sender. Looked up when it is first asked for: by then it is known
    /// whose signal it is to take in.
    pub(super) fn sender(&self) -> Option<Sender> {
        self.sender.get_or_init(|| Sender::glimpse(&self.captured)).clone()
    }
}

/// The context of a stop, as far as its line shows it. Takes some 100 µs, and 100 ms more where a command
/// line hangs, and for each marker that does.
pub(super) fn take_down(
    baseline: &Baseline,
    named_markers: &[(String, PathBuf)],
    trigger: Trigger,
    caught: Option<&Caught>,
    surroundings: &OnceLock<Surroundings>,
) -> ShutdownContext {
    let captured = caught.map(|caught| &caught.captured);
    let sender = caught.and_then(Caught::sender);
    // Needs a thread, which is done the sooner the sooner it begins.
    let cmdline = sender.as_ref().and_then(|sender| read_cmdline(baseline, sender));
    let mut context =
        ShutdownContext::capture_from(baseline, trigger, captured, sender, surroundings);
    if let Some(sender) = &mut context.sender
        && sender.process.cmdline.is_none()
    {
        let parent = context.parent.as_ref().filter(|parent| parent.is_same_as(&sender.process));
        sender.process.cmdline = match parent {
            Some(parent) => parent.cmdline.clone(),
            None => cmdline.and_then(|cmdline| sender_cmdline(sender, &cmdline)),
        };
    }
    context.markers = markers(named_markers);
    context
}

/// Begins to read the command line of a sender that is there and is not our parent, whose we know.
fn read_cmdline(baseline: &Baseline, sender: &Sender) -> Option<Started<Option<String>>> {
    let parent = baseline.parent.as_ref();
    let is_parent = parent.is_some_and(|parent| parent.is_same_as(&sender.process));
    // A zombie's is empty: that spares the thread in most cases.
    if is_parent || sender.process.state == Some('Z') || !sender.is_still_there() {
        return None;
    }
    let pid = sender.process.pid;
    bounded::start(move || process::cmdline(pid)).ok()
}

/// The sender's command line, if it can be had at once and is surely the sender's.
fn sender_cmdline(sender: &Sender, read: &Started<Option<String>>) -> Option<String> {
    let cmdline = read.result_within(CMDLINE_LIMIT).flatten();
    cmdline.filter(|_| sender.is_still_there())
}

/// The markers that are there, and can be had at once.
fn markers(named: &[(String, PathBuf)]) -> Vec<Marker> {
    let us = std::process::id();
    let read = |(name, path): (String, PathBuf)| {
        bounded(MARKER_LIMIT, move || marker::read(&name, &path, us)).flatten()
    };
    named.iter().cloned().filter_map(read).collect()
}
