//! The teardown: the steps of the plan, one after another, under one deadline.
//!
//! A step is a phase, or a group of phases that run concurrently. This module decides which steps
//! run, how much time each gets, and with which outcome it ends. The tasks are in
//! [`crate::phases`].

use std::collections::BTreeMap;
use std::time::Duration;

use forensics_core::record::{self, PhaseProgress, PhaseStarted, Stopped};
use tokio::time::Instant;

use super::account;
use super::budget::Budget;
use super::plan::{Step, Work};
use super::record_events;
use super::stall::near;
use super::{
    Action, Dropped, LogEvent, Machine, Pace, PhaseEnd, PhaseKey, RunningGroup, RunningPhase,
    Seconds, Service, Stage, State, StepId, Stop, Turn,
};
use crate::outcome::{Outcome, ServiceOutcome};
use crate::recorded::Values;
use crate::report::{PhaseReport, micros};

/// How often the log reports a phase that still runs.
const STILL_RUNNING_EVERY: Duration = Duration::from_secs(5);

/// How long the future of a dropped phase may still exist. The future is dropped when it yields and a
/// thread of the runtime is free, which is at once unless it blocks its thread or the runtime is busy.
const GONE_WITHIN: Duration = Duration::from_millis(100);

/// How long the diagnostic's task has to end its process and to report that.
const DIAGNOSTIC_ENDS: Duration = Duration::from_millis(100);

impl Machine {
    /// Advances the teardown until it has to wait for an event.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        while let (State::TearingDown(stage), Some(stop)) = (&mut self.state, &mut self.stop) {
            let has_ended = matches!(self.service, Service::Ended(_));
            *stage = match *stage {
                Stage::Recording | Stage::Closing { .. } => return,
                Stage::BeforeRun => {
                    if let Service::NotRun = self.service {
                        return;
                    }
                    let sum = self.plan.sum(stop.delayed, stop.limit.allowed).to_string();
                    let deadline = stop.limit.why.clone();
                    turn.log(LogEvent::TeardownStarted { sum, deadline });
                    for error in self.plan.check_requirements() {
                        turn.log(LogEvent::RegistrationError(error));
                    }
                    Stage::Phases
                }
                Stage::Phases => {
                    if !stop.running.is_empty() {
                        return;
                    }
                    if let Some((step, later)) = self.plan.take_next() {
                        let due = Budget::new(&step.claim, later, turn.now);
                        stop.start_step(step, None, due, turn);
                        continue;
                    }
                    let is_awaited = stop.service_awaited_by.is_some();
                    let timeout = self.config.service_timeout(stop.reports.len(), is_awaited);
                    let until = turn.now.checked_add(timeout).unwrap_or(stop.deadline());
                    Stage::Service { since: turn.now, until: until.min(stop.deadline()) }
                }
                Stage::Service { .. } if has_ended => stop.await_diagnostic(),
                // `run` polls the service once more before it drops it.
                Stage::Service { since, until } if turn.now >= until => {
                    Stage::DroppingService { since }
                }
                Stage::DroppingService { since } if has_ended => {
                    if let Service::Ended(ServiceOutcome::Dropped) = self.service {
                        turn.log(LogEvent::ServiceDropped(
                            turn.since(since),
                            stop.service_awaited_by.clone(),
                        ));
                    }
                    stop.await_diagnostic()
                }
                Stage::Service { .. } | Stage::DroppingService { .. } => return,
                // A phase was registered while the service or the diagnostic was ending.
                Stage::Diagnostic { .. } if !self.plan.is_empty() => Stage::Phases,
                Stage::Diagnostic { .. } if !stop.diagnostic_runs => {
                    return self.end_teardown(turn);
                }
                Stage::Diagnostic { until } if turn.now >= until => {
                    turn.act(Action::EndDiagnostic);
                    Stage::EndingDiagnostic { until: turn.now + DIAGNOSTIC_ENDS }
                }
                Stage::EndingDiagnostic { until } if turn.now >= until || !stop.diagnostic_runs => {
                    if stop.diagnostic_runs {
                        turn.log(LogEvent::DiagnosticLeftBehind);
                        stop.diagnostic_runs = false;
                    }
                    Stage::Diagnostic { until }
                }
                Stage::Diagnostic { .. } | Stage::EndingDiagnostic { .. } => return,
            }
        }
    }

    /// Records the outcome of a teardown that has ended, and lets `run` return.
    fn end_teardown(&mut self, turn: &mut Turn) {
        self.state = State::TearingDown(Stage::Closing { since: turn.now });
        let Some(report) = self.report() else { return };
        let status = report.exit_signal.is_none().then_some(report.exit_status);
        let stopped = self.stopped(report.how, status, turn);
        turn.record(record::Event::Stopped(Stopped {
            exit_signal: report.exit_signal.map(|signal| signal.to_string()),
            ..stopped
        }));
        self.tell_end(&account::ended(&report), None, turn);
    }

    pub(super) fn phase_progressed(&mut self, id: StepId, values: Values, turn: &mut Turn) {
        let Some(stop) = self.tearing_down() else { return };
        let Some(phase) = stop.running.get_mut(&id) else { return };
        stop.progress += 1;
        phase.values = values;
        turn.record(record::Event::PhaseProgress(PhaseProgress {
            phase: phase.key.name.to_string(),
            group: phase.key.group_name(),
            values: phase.values.all.clone(),
            offset_us: micros(turn.since(stop.began)),
        }));
    }

    pub(super) fn phase_awaits_service(&mut self, id: StepId) {
        let Some(stop) = self.tearing_down() else { return };
        if let Some(phase) = stop.running.get_mut(&id) {
            phase.awaits_service = true;
        }
    }

    /// Notes something about a phase that was dropped.
    pub(super) fn about_dropped(&mut self, id: StepId, note: impl FnOnce(&mut Dropped)) {
        let phase = self.tearing_down().and_then(|stop| stop.running.get_mut(&id));
        if let Some(dropped) = phase.and_then(|phase| phase.dropped.as_mut()) {
            note(dropped);
        }
    }

    pub(super) fn phase_waits(&mut self, id: StepId, what: String, turn: &mut Turn) {
        let Some(stop) = self.tearing_down() else { return };
        let Some(phase) = stop.running.get(&id) else { return };
        let (phase, offset) = (phase.key.clone(), turn.since(stop.began));
        turn.log(LogEvent::PhaseWaits { phase, offset, what });
    }

    pub(super) fn phase_ended(
        &mut self,
        id: StepId,
        end: PhaseEnd,
        values: Values,
        turn: &mut Turn,
    ) {
        let runs = matches!(self.service, Service::Running);
        let Some(stop) = self.tearing_down() else { return };
        // A phase that blocked its thread may already have been given up.
        let Some(mut phase) = stop.running.remove(&id) else { return };
        phase.values = values;
        let (outcome, error) = match (end, phase.dropped.take()) {
            (PhaseEnd::Dropped, Some(dropped)) => phase.end_of_dropped(dropped, ""),
            // The runtime is shutting down, so no other phase can run.
            (PhaseEnd::Dropped, None) => {
                let why = "the runtime has dropped it".to_owned();
                stop.finish_phase(phase, Outcome::CutShort, Some(why), turn);
                if !runs {
                    self.guard_dropped(None, turn);
                }
                return;
            }
            // The phase may have been dropped as well, but it ended by itself first.
            (PhaseEnd::Ended, _) => (Outcome::Ok, None),
            (PhaseEnd::Failed(error), _) => (Outcome::Failed, Some(error)),
            (PhaseEnd::Panicked(message), _) => (Outcome::Panicked, Some(message)),
        };
        stop.finish_phase(phase, outcome, error, turn);
    }
}

impl Stop {
    pub(super) fn await_diagnostic(&self) -> Stage {
        // The diagnostic is ended before the deadline is near, so that the teardown has time to
        // end.
        let before = near(self.limit.allowed) + DIAGNOSTIC_ENDS;
        let deadline = self.deadline();
        Stage::Diagnostic { until: deadline.checked_sub(before).unwrap_or(deadline) }
    }

    /// Starts a phase or a group, or skips it. `group` is the group of a member.
    fn start_step(&mut self, step: Step, group: Option<PhaseKey>, due: Budget, turn: &mut Turn) {
        let refusal = self.refusal(&step, due);
        let name = step.claim.name.into();
        let key = PhaseKey { id: step.id, name, group: group.map(Box::new) };
        if let Some(why) = refusal {
            let skipped = self.report(&key, Outcome::Skipped, turn.now, turn);
            return self.end_step(key, PhaseReport { error: Some(why), ..skipped }, turn);
        }
        self.progress += 1;
        let offset = due.started.saturating_duration_since(self.began);
        let budget = due.all(self.deadline());
        turn.record(record::Event::PhaseStarted(PhaseStarted {
            phase: key.name.to_string(),
            group: key.group_name(),
            timeout_us: Some(micros(budget)),
            // A member shares the reserve of its group.
            reserve_us: Some(micros(due.reserve)).filter(|&us| us > 0 && key.group.is_none()),
            offset_us: micros(offset),
        }));
        turn.log(LogEvent::PhaseStarted { phase: key.clone(), offset, budget });
        match step.work {
            Work::Phase => self.start_phase(key, due, turn),
            Work::Group(members) => self.start_group(&key, members, due, turn),
        }
    }

    fn start_group(&mut self, key: &PhaseKey, members: Vec<Step>, due: Budget, turn: &mut Turn) {
        let (started, ended) = (turn.now, BTreeMap::new());
        self.group = Some(RunningGroup { key: key.clone(), started, members: ended });
        for member in members {
            let due = due.of_member(member.claim.timeout);
            self.start_step(member, Some(key.clone()), due, turn);
        }
        self.finish_group(turn);
    }

    fn start_phase(&mut self, key: PhaseKey, due: Budget, turn: &mut Turn) {
        let mut phase = RunningPhase {
            key: key.clone(),
            due,
            end: due.started + due.all(self.deadline()),
            next_notice: due.started + STILL_RUNNING_EVERY,
            dropped: None,
            awaits_service: false,
            values: Values::default(),
        };
        if self.pace == Pace::ReservedOnly {
            phase.end = phase.reserved_end(phase.end);
        }
        // The phase must be checked by then.
        let by = phase.next_check();
        self.phase_timer = Some(self.phase_timer.map_or(by, |timer| timer.min(by)));
        self.running.insert(key.id, phase);
        turn.act(Action::StartPhase(key, self.context.clone()));
    }

    /// The reason to skip a step, if there is one.
    fn refusal(&self, step: &Step, due: Budget) -> Option<String> {
        let unmet = step.requires.iter().find(|name| self.outcome(name) != Some(Outcome::Ok));
        if let Some(name) = unmet {
            let state = self
                .outcome(name)
                .map_or_else(|| "has not run".to_owned(), |outcome| outcome.to_string());
            return Some(format!("requires {name}: {state}"));
        }
        if due.reserve.is_zero() && self.pace == Pace::ReservedOnly {
            return Some("the stop was escalated: only phases with a reserve run".to_owned());
        }
        let deadline = self.deadline();
        if !due.all(deadline).is_zero() {
            return None;
        }
        let why = if due.unreserved(deadline).is_zero() {
            "no time is left for it before the deadline"
        } else {
            "the remaining time is reserved for later phases"
        };
        Some(why.to_owned())
    }

    /// The outcome of the phase or group with this name, if it has ended.
    fn outcome(&self, name: &str) -> Option<Outcome> {
        self.ended().find(|report| report.name == name).map(|report| report.outcome)
    }

    fn finish_phase(
        &mut self,
        phase: RunningPhase,
        outcome: Outcome,
        error: Option<String>,
        turn: &mut Turn,
    ) {
        if phase.awaits_service && outcome != Outcome::Ok {
            self.service_awaited_by = Some(phase.key.name.to_string());
        }
        let report = self.report(&phase.key, outcome, phase.due.started, turn);
        let report = PhaseReport { error, values: phase.values.all, ..report };
        self.end_step(phase.key, report, turn);
        self.finish_group(turn);
    }

    /// Ends the group if its last member has ended.
    fn finish_group(&mut self, turn: &mut Turn) {
        if !self.running.is_empty() {
            return;
        }
        let Some(RunningGroup { key, started, members }) = self.group.take() else { return };
        let members: Vec<PhaseReport> = members.into_values().collect();
        let not_ok = members.iter().filter(|member| member.outcome != Outcome::Ok);
        let not_ok: Vec<String> =
            not_ok.map(|member| format!("{} {}", member.name, member.outcome)).collect();
        let outcome = members.iter().map(|member| member.outcome).max().unwrap_or(Outcome::Ok);
        let report = self.report(&key, outcome, started, turn);
        let error = (!not_ok.is_empty()).then(|| not_ok.join(", "));
        self.end_step(key, PhaseReport { error, members, ..report }, turn);
    }

    /// The report of a phase or group that has run from `started` until now.
    fn report(
        &self,
        key: &PhaseKey,
        outcome: Outcome,
        started: Instant,
        turn: &Turn,
    ) -> PhaseReport {
        PhaseReport {
            name: key.name.to_string(),
            outcome,
            error: None,
            started_after: started.saturating_duration_since(self.began),
            duration: turn.since(started),
            values: serde_json::Map::new(),
            members: Vec::new(),
        }
    }

    /// Records and logs the outcome of a phase or group, and keeps its report.
    fn end_step(&mut self, key: PhaseKey, report: PhaseReport, turn: &mut Turn) {
        self.progress += 1;
        turn.record(record_events::phase_finished(&key, &report));
        match &mut self.group {
            Some(group) if key.group.is_some() => {
                group.members.insert(key.id, report.clone());
            }
            _ => self.reports.push(report.clone()),
        }
        turn.log(LogEvent::PhaseFinished { phase: key, report });
    }

    /// Drops the phases whose time is over, logs those that still run, and gives up dropped phases
    /// whose futures still exist.
    pub(super) fn check_phases(&mut self, turn: &mut Turn) {
        if self.phase_timer.is_none_or(|timer| turn.now < timer) {
            return;
        }
        let mut stuck = Vec::new();
        for (&id, phase) in &mut self.running {
            match &phase.dropped {
                Some(dropped) if turn.now >= dropped.gone_by => stuck.push(id),
                Some(_) => {}
                None if turn.now >= phase.end => {
                    let ran = Seconds(phase.ran(turn.now));
                    phase.drop_it(Outcome::TimedOut, format!("still running after {ran}"), turn);
                }
                None if turn.now >= phase.next_notice => {
                    phase.next_notice = turn.now + STILL_RUNNING_EVERY;
                    turn.log(LogEvent::PhaseStillRunning {
                        phase: phase.key.clone(),
                        offset: turn.since(self.began),
                        elapsed: phase.ran(turn.now),
                        budget: phase.ran(phase.end),
                        last_value: phase.values.last.clone(),
                    });
                }
                None => {}
            }
        }
        for id in stuck {
            let Some(mut phase) = self.running.remove(&id) else { continue };
            let Some(dropped) = phase.dropped.take() else { continue };
            // A poll that begins after the drop ends at once. So a phase holds a thread only if a thread was
            // running it then, and it has not yielded since.
            let due_to = match dropped.in_poll && !dropped.has_yielded {
                true => ", and blocking its thread",
                false => ", and the runtime has not dropped it within 0.1s",
            };
            let (outcome, error) = phase.end_of_dropped(dropped, due_to);
            self.finish_phase(phase, outcome, error, turn);
        }
        self.phase_timer = self.running.values().map(RunningPhase::next_check).min();
    }

    /// Computes the end of each running phase again, because the deadline has changed or the stop
    /// was escalated.
    pub(super) fn adjust(&mut self, turn: &mut Turn) {
        let deadline = self.deadline();
        for phase in self.running.values_mut() {
            if phase.dropped.is_some() {
                continue;
            }
            phase.end = phase.due.started + phase.due.all(deadline);
            if self.pace == Pace::ReservedOnly {
                phase.end = phase.reserved_end(phase.end);
                if phase.due.reserve.is_zero() {
                    let why = "the stop was escalated".to_owned();
                    phase.drop_it(Outcome::CutShort, why, turn);
                }
            }
        }
        self.phase_timer = self.running.values().map(RunningPhase::next_check).min();
    }
}

impl RunningPhase {
    /// How long the phase has run at the time `at`.
    pub(super) fn ran(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.due.started)
    }

    /// When this phase must be checked next.
    fn next_check(&self) -> Instant {
        match &self.dropped {
            Some(dropped) => dropped.gone_by,
            None => self.end.min(self.next_notice),
        }
    }

    /// The end of a phase that may use only its reserve, and must end by `end` in any case.
    fn reserved_end(&self, end: Instant) -> Instant {
        let reserved = self.due.started.checked_add(self.due.reserve);
        reserved.map_or(end, |reserved| end.min(reserved))
    }

    fn drop_it(&mut self, outcome: Outcome, what: String, turn: &mut Turn) {
        let gone_by = turn.now + GONE_WITHIN;
        self.dropped = Some(Dropped { outcome, what, gone_by, in_poll: false, has_yielded: false });
        turn.act(Action::DropPhase(self.key.id));
    }

    /// The outcome and the error text of a dropped phase: why it was dropped, the cause, and the
    /// last recorded value.
    fn end_of_dropped(&self, dropped: Dropped, due_to: &str) -> (Outcome, Option<String>) {
        let mut what = dropped.what + due_to;
        if let Some(last) = &self.values.last {
            what = format!("{what}; last recorded {last}");
        }
        (dropped.outcome, Some(what))
    }
}
