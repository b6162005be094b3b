//! Taking the context down. What of it can hang, a sender's command line and the markers, is read on
//! threads of their own, and waited for so long and no longer.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::SignalInfo;
use forensics_core::context::{Finding, Probe, ShutdownContext, StartupInfo, Trigger};
use forensics_core::sender::Sender;

use crate::bounded::bounded;

/// How long a command line may take to be read; it can hang for as long as its process's memory
/// map is locked. So long as a busy machine can take its time to run a thread. A marker likewise; it
/// can hang for as long as the server of its file system is away.
const PROBE_LIMIT: Duration = Duration::from_millis(100);

/// A signal, and its sender if a test has made one up.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) captured: SignalInfo,
    sender: Option<Sender>,
}

impl Caught {
    pub(crate) fn of(captured: SignalInfo) -> Self {
        Self { captured, sender: None }
    }

    /// The same, from a sender that is known.
    #[cfg(feature = "testing")]
    pub(crate) fn known(captured: SignalInfo, sender: Option<Sender>) -> Self {
        Self { captured, sender }
    }
}

/// The context of a stop, as far as its line shows it. Takes some 100 µs, and 100 ms more if a command
/// line hangs, and for each marker that does.
pub(super) fn take_down(
    startup: &Arc<StartupInfo>,
    trigger: Trigger,
    caught: Option<&Caught>,
) -> ShutdownContext {
    let mut context = start(startup, trigger, caught);
    run(&mut context, startup, startup.line_probes());
    context
}

/// The sender of a later signal.
pub(super) fn sender(startup: &Arc<StartupInfo>, caught: &Caught) -> Option<Sender> {
    let trigger = Trigger::Signal { signal: caught.captured.signal };
    let mut context = start(startup, trigger, Some(caught));
    run(&mut context, startup, startup.sender_probes());
    context.sender
}

/// Adds what these probes find.
pub(super) fn run(
    context: &mut ShutdownContext,
    startup: &Arc<StartupInfo>,
    probes: impl IntoIterator<Item = Probe>,
) {
    for probe in probes {
        let finding = match probe {
            Probe::SenderCmdline | Probe::Marker(_) => {
                let (known, startup) = (context.clone(), startup.clone());
                bounded(PROBE_LIMIT, move || probe.run(&known, &startup))
            }
            _ => Some(probe.run(context, startup)),
        };
        if let Some(finding) = finding {
            context.apply(finding);
        }
    }
}

fn start(startup: &StartupInfo, trigger: Trigger, caught: Option<&Caught>) -> ShutdownContext {
    let signal = caught.map(|caught| &caught.captured);
    let mut context = ShutdownContext::start(startup, trigger, signal);
    if let Some(sender) = caught.and_then(|caught| caught.sender.clone()) {
        context.apply(Finding::sender(sender));
    }
    context
}
