//! What the machine takes in, and what it gives back: plain data.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::context::{ShutdownContext, Trigger};
use forensics_core::record::{self, ForcedBy, Stalled};
use tokio::time::Instant;

use super::StepId;
use super::limit::Unit;
use crate::capture_context::Caught;
use crate::config::Escalation;
use crate::outcome::ServiceOutcome;
use crate::panics::Panic;
use crate::recorded::Values;
use crate::report::{PhaseReport, RepeatedSignal};

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The OS handler saw a signal, at that time.
    SignalArrived {
        signal: Box<Caught>,
        at: Instant,
    },
    /// The program asked for a stop, or tokio heard a signal that the shutdown thread has not brought.
    Requested(Trigger),
    /// The program cancelled the guard's token, which asks for a stop as well.
    TokenCancelled,
    /// [`Action::CaptureContext`] is done.
    ContextCaptured(Box<ShutdownContext>),
    /// [`Action::CompleteContext`] is done.
    ContextCompleted(Arc<ShutdownContext>),
    /// [`Action::ResolveSender`] is done.
    SignalRepeated(Box<RepeatedSignal>),
    /// The program escalated the stop.
    Escalated,
    /// The program said that the service is up.
    Ready,
    /// `run` was called.
    RunStarted,
    ServiceEnded(ServiceOutcome),
    /// A phase recorded something: these are all its values.
    PhaseProgressed(StepId, Values),
    /// A phase's task has ended, with all its values.
    PhaseEnded(StepId, PhaseEnd, Values),
    /// The diagnostic's task has ended.
    DiagnosticEnded,
    /// systemd has told us about our unit.
    UnitKnown(Unit),
    /// systemd was asked for more time: how long the teardown may take now.
    Extended(Duration),
    /// The runtime has answered [`Action::AskRuntime`].
    RuntimeAnswered,
    /// The timer of [`Awaited`](super::Awaited) is due.
    Tick,
    /// The shutdown thread looks whether something stalls. So many signals found no free slot in the OS
    /// handler since the guard was installed.
    Watched {
        missed: u64,
    },
    /// [`Action::ReportStall`] is done: with everything that may explain it, safe to show.
    StallDescribed {
        stalled: Vec<Stalled>,
        detail: String,
    },
    /// [`Action::Exit`] is under way: with everything that may explain it, safe to show.
    ExitDescribed(String),
    /// `run` has written everything that was left to write, and returns.
    Closed,
    /// The process is expected to end from now on, as the teardown of every guard has ended.
    ExitExpected,
    /// The guard was dropped, with or without the future of `run`; or this panic ends the process.
    GuardDropped(Option<Panic>),
}

/// How a phase's task ended.
#[derive(Debug, Clone)]
pub(crate) enum PhaseEnd {
    Ok,
    Failed(String),
    Panicked(String),
    /// It was dropped before it was done.
    Dropped,
}

/// Something to do.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// The service takes traffic from now on.
    BecomeReady,
    /// The service takes no more traffic.
    EndReadiness,
    /// Capture what the context line shows, and bring [`Event::ContextCaptured`].
    CaptureContext {
        trigger: Trigger,
        signal: Option<Box<Caught>>,
    },
    /// Read what the record shows beside that, and bring [`Event::ContextCompleted`].
    CompleteContext(Arc<ShutdownContext>),
    /// Find out who sent this signal, and bring [`Event::SignalRepeated`] with that.
    ResolveSender(Box<Caught>, Box<RepeatedSignal>),
    CancelToken,
    Log(LogEvent),
    Record(record::Event),
    /// The line that `systemctl status` shows.
    SetStatus(String),
    /// Ask systemd why it stops us, and then tell it that we are stopping.
    ExplainStop(Arc<ShutdownContext>),
    StartDiagnostic(Arc<ShutdownContext>),
    EndDiagnostic,
    /// The phase runs in a stop with this context.
    StartPhase(PhaseKey, Arc<ShutdownContext>),
    /// Abort the task of a phase, and bring [`Event::PhaseProgressed`] with its last values.
    DropPhase(StepId),
    /// Write the termination message.
    WriteMessage {
        text: String,
        is_last: bool,
    },
    /// Ask the runtime for a sign of life.
    AskRuntime,
    /// The stop has to be watched from now on.
    WakeShutdownThread,
    /// `what` was seen, and these stall. Find out what may explain it, and bring
    /// [`Event::StallDescribed`].
    ReportStall {
        what: String,
        stalled: Vec<Stalled>,
    },
    /// Bring [`Event::ExitDescribed`], and end the process. Only on the shutdown thread.
    Exit,
}

/// Names a phase or a group.
#[derive(Debug, Clone)]
pub(crate) struct PhaseKey {
    pub(crate) id: StepId,
    pub(crate) name: Arc<str>,
    /// The group that it belongs to.
    pub(crate) group: Option<Box<PhaseKey>>,
}

impl PhaseKey {
    pub(crate) fn group_name(&self) -> Option<String> {
        self.group.as_ref().map(|group| group.name.to_string())
    }
}

/// Why the process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// Another signal asked for it.
    Signal(Signal),
    /// The teardown did not end by its deadline.
    Deadline,
    /// The teardown has ended, and what it left to write is not written.
    NotClosed,
    /// The teardown has ended, and the process has not.
    NoExit,
}

impl ExitReason {
    /// The word for it in the record.
    pub(crate) fn by(self) -> ForcedBy {
        match self {
            ExitReason::Signal(_) => ForcedBy::Signal,
            ExitReason::Deadline => ForcedBy::Deadline,
            ExitReason::NotClosed | ExitReason::NoExit => ForcedBy::NoExit,
        }
    }

    /// The same in words.
    pub(crate) fn text(self) -> String {
        match self {
            ExitReason::Signal(signal) => format!("another {signal} asked for an end at once"),
            ExitReason::Deadline => {
                "the deadline is over and the teardown has not ended".to_owned()
            }
            ExitReason::NotClosed => {
                "the teardown has ended, but not what is to be recorded of that".to_owned()
            }
            ExitReason::NoExit => "the process did not end after its teardown: the runtime's drop \
                waits for a blocked thread"
                .to_owned(),
        }
    }
}

/// What the machine has to say in the log. The texts are in [`crate::events`].
#[derive(Debug, Clone)]
pub(crate) enum LogEvent {
    Context(Arc<ShutdownContext>),
    Repeated(Box<RepeatedSignal>, Escalation),
    ImpossibleReserves(String),
    DelayStarted(Duration),
    /// How long it lasted, and what the line adds if it was cut short.
    DelayEnded(Duration, &'static str),
    /// What the phases may take, and how the deadline came about.
    TeardownStarted {
        sum: String,
        deadline: String,
    },
    RegistrationError(String),
    PhaseStarted {
        phase: PhaseKey,
        offset: Duration,
        budget: Duration,
    },
    PhaseStillRunning {
        phase: PhaseKey,
        offset: Duration,
        elapsed: Duration,
        budget: Duration,
        last_value: Option<String>,
    },
    PhaseFinished {
        phase: PhaseKey,
        report: PhaseReport,
    },
    ServiceDropped(Duration),
    DiagnosticLeftBehind,
    Stalled(String),
    Forced(String),
}
