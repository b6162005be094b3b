//! The checks of the shutdown thread during a stop: whether the runtime answers, whether the
//! deadline is near or over, and whether the process ends.

use std::time::Duration;

use forensics_core::escape::Escaped;
use forensics_core::record::{self, ExitKind, Stalled, StalledWhat, Stopped};
use tokio::time::Instant;

use super::{Action, ExitReason, LogEvent, Machine, Seconds, Stage, State, Stop, Turn};
use crate::report::micros;

/// How long the runtime may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long before the deadline the phases that still run are reported.
const NEAR: Duration = Duration::from_millis(500);

/// How long a process is watched after it was first seen to be late, before it is ended. So a
/// process that was stopped past its deadline (SIGSTOP, a frozen cgroup) has this long to end by
/// itself. It has half of what is left before the supervisor's SIGKILL if that is less.
pub(crate) const LATE_AFTER: Duration = Duration::from_millis(500);

/// How often the record says during a stop that the process is alive. If it is killed, the time of that
/// is known this exactly.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// How long a process has to end after its teardown, if the supervisor waits that long.
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
    reported_near: Option<Instant>,
    /// When the process was first seen to be late.
    late: Option<Instant>,
    /// When the record last said that the process is alive.
    alive: Option<Instant>,
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
    /// When a process that must have ended by `end` is ended by force, if it was first seen to be
    /// late at `late`. The supervisor's time is over at `over`.
    fn exit_at(late: Instant, over: Option<Instant>) -> Instant {
        // If that time has passed, the supervisor does not kill.
        let left =
            over.map(|over| over.saturating_duration_since(late)).filter(|left| !left.is_zero());
        late + left.map_or(LATE_AFTER, |left| LATE_AFTER.min(left / 2))
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
        let is_recorded = !matches!(
            self.state,
            State::PreStopDelay { first: Stage::Recording, .. }
                | State::TearingDown(Stage::Recording)
        );
        let (State::PreStopDelay { .. } | State::TearingDown(_), Some(stop)) =
            (&self.state, &mut self.stop)
        else {
            return;
        };
        if !is_closing {
            stop.watch(turn);
            // After the record of the stop itself.
            if is_recorded && turn.since(stop.stall.alive.unwrap_or(stop.began)) >= ALIVE_EVERY {
                stop.stall.alive = Some(turn.now);
                turn.record(record::Event::Alive);
            }
        }
        if stop.told.replace(stop.progress) != Some(stop.progress) {
            self.tell_stopping(None, turn);
        }
    }

    /// The reason to end the process now, if there is one.
    fn overdue(&mut self, now: Instant) -> Option<ExitReason> {
        let (reason, end) = self.must_end()?;
        let stop = self.stop.as_mut()?;
        if now < end {
            stop.stall.late = None;
            return None;
        }
        let late = *stop.stall.late.get_or_insert(now);
        (now >= Stall::exit_at(late, stop.killed_at())).then_some(reason)
    }

    /// By when the process must have ended, and the reason to end it if it has not.
    fn must_end(&self) -> Option<(ExitReason, Instant)> {
        let (ended, reason) = match self.state {
            State::TearingDown(Stage::Closing { since }) => (Some(since), ExitReason::NotClosed),
            State::PreStopDelay { .. } | State::TearingDown(_) => (None, ExitReason::Deadline),
            State::ExitExpected(since) => (Some(since), ExitReason::NoExit),
            _ => return None,
        };
        let stop = self.stop.as_ref()?;
        let end = ended.map_or(stop.deadline(), |ended| stop.deadline().max(ended + TO_END));
        let last_end = stop.limit.supervisor.map(|supervisor| stop.began + supervisor.last_end);
        Some((reason, last_end.map_or(end, |last| end.min(last.max(stop.deadline())))))
    }

    /// When the shutdown thread must handle [`Event::Watched`](super::Event::Watched) again at the
    /// latest.
    pub(crate) fn watch_by(&self) -> Option<Instant> {
        let (_, end) = self.must_end()?;
        let stop = self.stop.as_ref()?;
        Some(stop.stall.late.map_or(end, |late| Stall::exit_at(late, stop.killed_at())))
    }

    /// When the supervisor kills the process, if that is known.
    pub(crate) fn killed_at(&self) -> Option<Instant> {
        self.stop.as_ref()?.killed_at()
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

    /// Writes to the record and the log that the process is being ended by force.
    pub(super) fn exit_described(&mut self, detail: String, turn: &mut Turn) {
        turn.record(self.forced(None, &detail, turn));
        turn.log(LogEvent::Forced(detail, self.config.exit_status(ExitKind::Forced)));
    }

    /// Writes the exit status to the termination message and to the record. That is the last thing
    /// before the exit, so that a process that is killed meanwhile has not recorded a status with
    /// which it did not exit.
    pub(super) fn exiting(&mut self, detail: &str, turn: &mut Turn) {
        let why = detail.split(';').next().unwrap_or_default();
        let status = self.config.exit_status(ExitKind::Forced);
        let head = format!("was ended by force, exit status {status}: {}", Escaped(why));
        self.tell_end(&head, Some(detail), turn);
        turn.record(self.forced(Some(status), detail, turn));
    }

    fn forced(&self, status: Option<u8>, detail: &str, turn: &Turn) -> record::Event {
        record::Event::Stopped(Stopped {
            forced_by: self.exit_reason().map(ExitReason::by),
            detail: Some(detail.to_owned()),
            ..self.stopped(ExitKind::Forced, status, turn)
        })
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
    fn killed_at(&self) -> Option<Instant> {
        Some(self.began + self.limit.supervisor?.over)
    }

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
        let is_near = turn.now + near(self.limit.allowed) >= deadline && turn.now < deadline;
        if is_near && self.stall.reported_near != Some(deadline) {
            self.stall.reported_near = Some(deadline);
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
