//! The events that the machine handles and the actions that it returns: plain data.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::{Signal, SignalInfo};
use forensics_core::context::{Sender, ShutdownContext, Trigger};
use forensics_core::record::{self, Explained, ForcedBy, Stalled};
use tokio::time::Instant;

use super::StepId;
use super::limit::Unit;
use crate::outcome::ServiceOutcome;
use crate::panics::Panic;
use crate::recorded::Values;
use crate::report::{PhaseReport, RepeatedSignal};

/// A signal that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Caught {
    pub(crate) captured: SignalInfo,
    /// The sender, if a test provides one.
    pub(crate) sender: Option<Sender>,
}

impl Caught {
    pub(crate) fn of(captured: SignalInfo) -> Self {
        Self { captured, sender: None }
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The OS handler received a signal at the time `at`.
    SignalArrived {
        signal: Box<Caught>,
        at: Instant,
    },
    /// The program requested a stop, or tokio received a signal that the shutdown thread has not
    /// handled.
    Requested(Trigger),
    /// The program cancelled the guard's token, which requests a stop as well.
    TokenCancelled,
    /// [`Action::CaptureContext`] is done.
    ContextCaptured(Box<ShutdownContext>),
    /// [`Action::CompleteContext`] is done.
    ContextCompleted(Arc<ShutdownContext>),
    /// [`Action::ResolveSender`] is done. The signal now has its sender and its cause.
    SignalRepeated(Box<RepeatedSignal>),
    /// The program escalated the stop.
    Escalated,
    /// The program reported that the service is ready.
    Ready,
    /// `run` was called.
    RunStarted,
    ServiceEnded(ServiceOutcome),
    /// A phase recorded a value. These are all its values.
    PhaseProgressed(StepId, Values),
    /// A thread was running a phase at the moment of [`Action::DropPhase`].
    PhaseDroppedInPoll(StepId),
    /// A phase yielded after [`Action::DropPhase`], so it is dropped once a thread of the runtime is free.
    PhaseYielded(StepId),
    /// A phase waits for the end of the service.
    PhaseAwaitsService(StepId),
    /// A phase waits for what the text says.
    PhaseWaits(StepId, String),
    /// A phase's task has ended. These are all values of the phase.
    PhaseEnded(StepId, PhaseEnd, Values),
    /// The diagnostic's task has ended.
    DiagnosticEnded,
    /// systemd has reported the properties of our unit, at the start or during the stop.
    UnitKnown(Unit),
    /// systemd has shown why it stops us.
    StopExplained(Box<Explained>),
    /// systemd was asked for more time. The stop may take this long in all now.
    Extended(Duration),
    /// The runtime has answered [`Action::AskRuntime`].
    RuntimeAnswered,
    /// The timer of [`Awaited`](super::Awaited) is due.
    Tick,
    /// The shutdown thread checks the stop. `missed` is how many signals found no free slot in the
    /// OS handler since the guard was installed.
    Watched {
        missed: u64,
    },
    /// [`Action::ReportStall`] is done. `detail` is one line with everything that may explain the
    /// stall, safe to show.
    StallDescribed {
        stalled: Vec<Stalled>,
        detail: String,
    },
    /// The shutdown thread is about to end the process. The text is one line with the reason and
    /// everything that may explain it, safe to show.
    ExitDescribed(String),
    /// Everything else about the forced end is done, and the process exits now. The text is that of
    /// [`Event::ExitDescribed`].
    Exiting(String),
    /// `run` has flushed the record, the log and the termination message, and returns.
    Closed,
    /// The process is expected to end from now on, because the teardown of every guard has ended.
    ExitExpected,
    /// The guard, or the future of `run` that holds it, was dropped. Or this panic ends the
    /// process.
    GuardDropped(Option<Panic>),
}

/// How the future of a phase ended. It can end in the same ways as the future of the service.
pub(crate) type PhaseEnd = ServiceOutcome;

/// Something that the caller of the machine must do.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// The service is ready for traffic from now on.
    BecomeReady,
    /// The service is not ready for traffic any more.
    EndReadiness,
    /// Capture what the context line shows, then handle [`Event::ContextCaptured`].
    CaptureContext {
        trigger: Trigger,
        signal: Option<Box<Caught>>,
    },
    /// Read what only the record shows, then handle [`Event::ContextCompleted`].
    CompleteContext(Arc<ShutdownContext>),
    /// Find out who sent this signal, then handle [`Event::SignalRepeated`] with the sender.
    ResolveSender(Box<Caught>, Box<RepeatedSignal>),
    CancelToken,
    Log(LogEvent),
    Record(record::Event),
    /// Set the status line that `systemctl status` shows.
    SetStatus(String),
    /// Ask systemd why it stops us and by when, and then tell it that we are stopping.
    ExplainStop(Arc<ShutdownContext>),
    StartDiagnostic(Arc<ShutdownContext>),
    EndDiagnostic,
    /// Start the task of a phase. The context is that of the stop.
    StartPhase(PhaseKey, Arc<ShutdownContext>),
    /// Drop the future of a phase, then handle [`Event::PhaseProgressed`] with its last values, and
    /// [`Event::PhaseDroppedInPoll`] if a thread is running it.
    DropPhase(StepId),
    /// Write the termination message.
    WriteMessage {
        text: String,
        is_last: bool,
    },
    /// Ask the runtime to answer with [`Event::RuntimeAnswered`].
    AskRuntime,
    /// Wake the shutdown thread, because it must watch the stop from now on.
    WakeShutdownThread,
    /// Report a stall. `what` says what was seen, and `stalled` are the parts that do not progress.
    /// Find out what may explain it, then handle [`Event::StallDescribed`].
    ReportStall {
        what: String,
        stalled: Vec<Stalled>,
    },
    /// Handle [`Event::ExitDescribed`], then end the process. Only the shutdown thread does this.
    Exit,
}

/// Identifies a phase or a group.
#[derive(Debug, Clone)]
pub(crate) struct PhaseKey {
    pub(crate) id: StepId,
    pub(crate) name: Arc<str>,
    /// The group that the phase is a member of.
    pub(crate) group: Option<Box<PhaseKey>>,
}

impl PhaseKey {
    pub(crate) fn group_name(&self) -> Option<String> {
        self.group.as_ref().map(|group| group.name.to_string())
    }
}

/// Why the process is ended by force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// Another signal requested it.
    Signal(Signal),
    /// The teardown did not end by its deadline.
    Deadline,
    /// The teardown has ended, but `run` has not finished writing the record, the log and the
    /// termination message.
    NotClosed,
    /// The teardown has ended, but the process has not.
    NoExit,
}

impl ExitReason {
    /// The value of `forced_by` in the record.
    pub(crate) fn by(self) -> ForcedBy {
        match self {
            ExitReason::Signal(_) => ForcedBy::Signal,
            ExitReason::Deadline => ForcedBy::Deadline,
            ExitReason::NotClosed | ExitReason::NoExit => ForcedBy::NoExit,
        }
    }

    /// The reason as text, for the log and the record.
    pub(crate) fn text(self) -> String {
        match self {
            ExitReason::Signal(signal) => format!("another {signal} requested an immediate exit"),
            ExitReason::Deadline => {
                "the deadline has passed, and the teardown has not ended".to_owned()
            }
            ExitReason::NotClosed => {
                "the teardown has ended, but the record, the log or the termination message is \
                 not written"
                    .to_owned()
            }
            ExitReason::NoExit => "the process did not end after its teardown, maybe because a \
                blocked thread keeps the runtime from ending"
                .to_owned(),
        }
    }
}

/// What a repeated signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It belongs to the same request as the signal before.
    SameRequest,
    /// It is the first signal of a stop that began without one.
    FirstSignal,
    /// The escalation policy does not count it, or the teardown has ended.
    Nothing,
    EndsDelay,
    CutsShort,
    EndsProcess,
}

/// An event that the machine logs. The texts are in [`crate::events`].
#[derive(Debug, Clone)]
pub(crate) enum LogEvent {
    Context(Arc<ShutdownContext>),
    Repeated(Box<RepeatedSignal>, Effect),
    ImpossibleReserves(String),
    DelayStarted(Duration),
    /// How long the delay lasted, and the end of the line if it was cut short.
    DelayEnded(Duration, &'static str),
    /// How long the phases may take, and where the deadline comes from.
    TeardownStarted {
        sum: String,
        deadline: String,
    },
    RegistrationError(String),
    /// Why systemd stops us, and our unit.
    StopExplained {
        why: Box<Explained>,
        unit: Option<String>,
    },
    /// The deadline has moved. `deadline` says to what.
    DeadlineMoved {
        by: &'static str,
        deadline: String,
    },
    PhaseStarted {
        phase: PhaseKey,
        offset: Duration,
        budget: Duration,
    },
    /// What a phase waits for.
    PhaseWaits {
        phase: PhaseKey,
        offset: Duration,
        what: String,
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
    /// The service has failed or panicked after the stop had begun.
    ServiceFailed {
        offset: Duration,
        outcome: &'static str,
        error: String,
    },
    /// The guard was dropped before its teardown had ended. The phases are those that have not
    /// ended.
    Abandoned {
        what: &'static str,
        phases: Option<String>,
    },
    /// The same, because of a panic.
    Panicked {
        panic: Panic,
        phases: Option<String>,
    },
    /// How long it was waited for, and the phase that had already waited for it.
    ServiceDropped(Duration, Option<String>),
    DiagnosticLeftBehind,
    Stalled(String),
    /// What is known about a forced end, and the exit status.
    Forced(String, u8),
}
