//! The checks of the shutdown thread during a stop: whether the runtime answers, whether the
//! deadline is near or over, and whether the process ends.

use std::time::Duration;

use forensics_core::escape::Escaped;
use forensics_core::record::{self, ExitKind, Stalled, StalledWhat, Stopped};
use tokio::time::Instant;

use super::{Action, ExitReason, LogEvent, Machine, Seconds, Stage, State, Stop, Turn};
use crate::record_events::micros;

/// How long the runtime may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long before the deadline the phases that still run are reported.
const NEAR: Duration = Duration::from_millis(500);

/// How long a process is watched after it was first seen to be late, before it is ended. So a
/// process that was stopped past its deadline (SIGSTOP, a frozen cgroup) has this long to end by
/// itself.
pub(crate) const LATE_AFTER: Duration = Duration::from_millis(500);

/// How long a process has at least to end after its teardown.
const TO_END: Duration = Duration::from_secs(1);

/// How long before its deadline a teardown counts as near it. `allowed` is how long it may take.
pub(super) fn near(allowed: Duration) -> Duration {
    NEAR.min(allowed / 10)
}

/// What the checks have seen of one stop so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Stall {
    runtime: Runtime,
    /// The deadline that was last reported as near.
    said_near: Option<Instant>,
    /// When the process was first seen to be late.
    late: Option<Instant>,
}

/// Whether the runtime answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Runtime {
    #[default]
    Answers,
    Asked(Instant),
    /// The runtime has not answered, and this has been reported.
    Silent,
}

impl Stall {
    /// Whether `end` has passed, and this was first seen at least `LATE_AFTER` ago.
    fn is_overdue(&mut self, end: Instant, now: Instant) -> bool {
        if now < end {
            self.late = None;
            return false;
        }
        let late = *self.late.get_or_insert(now);
        now.saturating_duration_since(late) >= LATE_AFTER
    }
}

impl Machine {
    /// Checks the stop, on the shutdown thread.
    pub(super) fn watch(&mut self, missed: u64, turn: &mut Turn) {
        self.requests.missed = missed;
        if let Some(reason) = self.overdue(turn.now) {
            return self.force(reason, turn);
        }
        // Normally `run` handles the ticks in time, but it is not polled if the service blocks. If
        // the runtime does not answer, a tick is useless, because no phase could start or end.
        if self.stop.as_ref().is_some_and(|stop| stop.stall.runtime == Runtime::Answers) {
            self.tick(turn);
        }
        let is_closing = self.is_closing();
        let (State::PreStopDelay { .. } | State::TearingDown(_), Some(stop)) =
            (&self.state, &mut self.stop)
        else {
            return;
        };
        if !is_closing {
            stop.watch(turn);
        }
        if stop.told.replace(stop.progress) != Some(stop.progress) {
            self.tell_stopping(None, turn);
        }
    }

    /// The reason to end the process now, if there is one.
    fn overdue(&mut self, now: Instant) -> Option<ExitReason> {
        let (ended, reason) = match self.state {
            State::TearingDown(Stage::Closing { since }) => (Some(since), ExitReason::NotClosed),
            State::PreStopDelay { .. } | State::TearingDown(_) => (None, ExitReason::Deadline),
            State::ExitExpected(since) => (Some(since), ExitReason::NoExit),
            _ => return None,
        };
        let stop = self.stop.as_mut()?;
        let deadline = stop.deadline();
        let end = ended.map_or(deadline, |ended| deadline.max(ended + TO_END));
        stop.stall.is_overdue(end, now).then_some(reason)
    }

    pub(super) fn runtime_answered(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.stall.runtime = Runtime::Answers;
        }
    }

    /// Ends the process by force. No later event can change that.
    pub(super) fn force(&mut self, reason: ExitReason, turn: &mut Turn) {
        self.state = State::Exiting(reason);
        turn.act(Action::Exit);
    }

    /// Writes how the process is ended to the termination message, the record and the log.
    pub(super) fn exit_described(&mut self, detail: String, turn: &mut Turn) {
        let why = detail.split(';').next().unwrap_or_default();
        let status = self.config.exit_status(ExitKind::Forced);
        let head = format!("was ended by force, exit status {status}: {}", Escaped(why));
        self.tell_end(&head, Some(&detail), turn);
        turn.record(record::Event::Stopped(Stopped {
            forced_by: self.exit_reason().map(ExitReason::by),
            detail: Some(detail.clone()),
            ..self.stopped(ExitKind::Forced, Some(status), turn)
        }));
        turn.log(LogEvent::Forced(detail, status));
    }

    pub(super) fn stall_described(
        &mut self,
        stalled: Vec<Stalled>,
        detail: String,
        turn: &mut Turn,
    ) {
        self.tell_stopping(Some(&detail), turn);
        for one in stalled {
            turn.record(record::Event::Stalled(Stalled { detail: detail.clone(), ..one }));
        }
        turn.log(LogEvent::Stalled(detail));
    }
}

impl Stop {
    fn watch(&mut self, turn: &mut Turn) {
        match self.stall.runtime {
            Runtime::Answers => {
                self.stall.runtime = Runtime::Asked(turn.now);
                turn.act(Action::AskRuntime);
            }
            Runtime::Asked(at) if turn.since(at) >= ANSWER_WITHIN => {
                self.stall.runtime = Runtime::Silent;
                let what = format!("the runtime has not answered for {}", Seconds(ANSWER_WITHIN));
                let runtime = Stalled::new(StalledWhat::Runtime, micros(ANSWER_WITHIN), "");
                turn.act(Action::ReportStall { what, stalled: vec![runtime] });
            }
            Runtime::Asked(_) | Runtime::Silent => {}
        }
        let deadline = self.deadline();
        let is_near = turn.now + near(self.allowed) >= deadline && turn.now < deadline;
        if is_near && self.stall.said_near != Some(deadline) {
            self.stall.said_near = Some(deadline);
            let stalled = self.running.values().map(|phase| {
                let mut stalled = Stalled::new(StalledWhat::Phase, micros(phase.ran(turn.now)), "");
                stalled.phase = Some(phase.key.name.to_string());
                stalled
            });
            let stalled = stalled.collect();
            turn.act(Action::ReportStall { what: "the deadline is near".to_owned(), stalled });
        }
    }
}
