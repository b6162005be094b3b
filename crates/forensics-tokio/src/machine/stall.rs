//! What the shutdown thread looks for while a stop is under way: a runtime that does not answer, a
//! deadline that is near or over, a process that does not end.

use std::time::Duration;

use forensics_core::record::{self, ExitKind};
use tokio::time::Instant;

use super::account::MessageState;
use super::{
    Action, Exit, ExitReason, LogEvent, Machine, Seconds, Stage, StallReport, State, Stop, Turn,
};
use crate::record_events;

/// How long the runtime may leave a question unanswered.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long before the deadline what still runs is named.
const NEAR: Duration = Duration::from_millis(500);

/// How long a process that is late is watched before it is ended. One that was stopped (SIGSTOP, a
/// frozen cgroup) then has as long to end by itself as one that was not.
pub(crate) const LATE_AFTER: Duration = Duration::from_millis(500);

/// How long a process that is about to end has at least.
const TO_END: Duration = Duration::from_secs(1);

/// The exit status of a forced end (`EX_SOFTWARE` of sysexits.h).
pub(crate) const FORCED_STATUS: u8 = 70;

/// How long before its deadline a teardown that may take so long is near it.
pub(super) fn near(allowed: Duration) -> Duration {
    NEAR.min(allowed / 10)
}

/// What has been seen of one stop so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Stall {
    runtime: Runtime,
    /// The deadline that was said to be near.
    said_near: Option<Instant>,
    /// Since when the process is late.
    late: Option<Instant>,
}

/// Whether the runtime answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Runtime {
    #[default]
    Answers,
    Asked(Instant),
    /// It has not answered, and this has been reported.
    Silent,
}

impl Stall {
    pub(super) fn runtime_answered(&mut self) {
        self.runtime = Runtime::Answers;
    }

    /// Whether `end` has passed, and that has been seen for a while.
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
    /// The shutdown thread looks.
    pub(super) fn watch(&mut self, turn: &mut Turn) {
        if let Some(reason) = self.overdue(turn.now) {
            return self.force(reason, turn);
        }
        // `run` brings ticks in time, but it may not be polled, as where the service blocks. In a runtime
        // that does not answer, no phase could begin or end.
        if self.stop().is_some_and(|stop| stop.stall.runtime == Runtime::Answers) {
            self.tick(turn);
        }
        if let State::PreStopDelay(stop, _) | State::TearingDown(stop) = &mut self.state {
            if !matches!(stop.stage, Stage::Closing { .. }) {
                stop.watch(turn);
            }
            if stop.told != Some(stop.progress) {
                stop.told = Some(stop.progress);
                self.write_message(&MessageState::Stopping { alarm: None }, turn);
            }
        }
    }

    /// Why the process has to be ended now, if it has.
    fn overdue(&mut self, now: Instant) -> Option<ExitReason> {
        let (stop, ended, reason) = match &mut self.state {
            State::PreStopDelay(stop, _) => (stop, None, ExitReason::Deadline),
            State::TearingDown(stop) => match stop.stage {
                Stage::Closing { since } => (stop, Some(since), ExitReason::NotClosed),
                _ => (stop, None, ExitReason::Deadline),
            },
            State::Exiting(Some(stop), Exit::Planned(since)) => {
                (stop, Some(*since), ExitReason::NoExit)
            }
            _ => return None,
        };
        let deadline = stop.deadline();
        let end = ended.map_or(deadline, |ended| deadline.max(ended + TO_END));
        stop.stall.is_overdue(end, now).then_some(reason)
    }

    /// Ends the process: from here on there is no other end.
    pub(super) fn force(&mut self, reason: ExitReason, turn: &mut Turn) {
        if matches!(self.state, State::Exiting(_, Exit::Forced)) {
            return;
        }
        self.state = State::Exiting(self.take_stop(), Exit::Forced);
        turn.act(Action::Exit(reason));
    }

    /// Says, records and tells how the process is ended.
    pub(super) fn exit_described(&mut self, reason: ExitReason, detail: String, turn: &mut Turn) {
        let state = MessageState::Forced { status: FORCED_STATUS, why: detail.clone() };
        self.write_message(&state, turn);
        let (since, more) = (self.since(turn.now), self.requests.unlisted());
        let mut stopped =
            record_events::stopped(ExitKind::Forced, Some(FORCED_STATUS), since, more);
        stopped.forced_by = Some(reason.by());
        stopped.detail = Some(detail.clone());
        turn.record(record::Event::Stopped(stopped));
        let event = LogEvent::Forced { why: detail, status: FORCED_STATUS };
        turn.log(event);
    }

    pub(super) fn stall_described(
        &mut self,
        report: &StallReport,
        detail: String,
        turn: &mut Turn,
    ) {
        let state = MessageState::Stopping { alarm: Some(detail.clone()) };
        self.write_message(&state, turn);
        if report.phases.is_empty() {
            let event = record_events::stalled(None, report.waited, &detail);
            turn.record(event);
        }
        for (phase, ran) in &report.phases {
            let event = record_events::stalled(Some(phase), *ran, &detail);
            turn.record(event);
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
            Runtime::Asked(at) if turn.now.saturating_duration_since(at) >= ANSWER_WITHIN => {
                self.stall.runtime = Runtime::Silent;
                let what = format!("the runtime has not answered for {}", Seconds(ANSWER_WITHIN));
                let report = StallReport { what, phases: Vec::new(), waited: ANSWER_WITHIN };
                turn.act(Action::ReportStall(report));
            }
            Runtime::Asked(_) | Runtime::Silent => {}
        }
        let deadline = self.deadline();
        let is_near = turn.now + near(self.allowed) >= deadline && turn.now < deadline;
        if is_near && self.stall.said_near != Some(deadline) {
            self.stall.said_near = Some(deadline);
            let ran = |started| turn.now.saturating_duration_since(started);
            let phases = self.running.values();
            let phases =
                phases.map(|one| (one.key.name.to_string(), ran(one.due.started))).collect();
            let what = "the deadline is near".to_owned();
            turn.act(Action::ReportStall(StallReport { what, phases, waited: Duration::ZERO }));
        }
    }
}
