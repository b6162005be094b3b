//! The state of a stop, and what follows from each event.
//!
//! [`Machine::handle`] takes an event and the present time, changes the state, and returns the
//! actions that follow. It is pure: it reads no clock, takes no lock, and does no I/O. The caller
//! performs the actions (see [`crate::shutdown`]). So every rule of a stop can be tested without
//! threads, and two events can never be handled half.

mod account;
mod budget;
mod event;
mod limit;
mod plan;
mod requests;
mod stall;
mod teardown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::context::{ShutdownContext, Trigger};
use forensics_core::record::{self, ExitKind};
use tokio::time::Instant;

pub(crate) use self::budget::Seconds;
pub use self::budget::WorstCase;
pub(crate) use self::event::{
    Action, DelayEnd, Event, ExitReason, LogEvent, PhaseEnd, PhaseKey, StallReport, StartPhase,
};
pub(crate) use self::limit::Unit;
use self::plan::Plan;
pub(crate) use self::plan::{StepId, Work};
#[cfg(feature = "testing")]
pub(crate) use self::requests::SAME_REQUEST;
pub(crate) use self::stall::FORCED_STATUS;
#[cfg(feature = "testing")]
pub(crate) use self::stall::LATE_AFTER;

use self::account::MessageState;
use self::budget::Budget;
use self::requests::Requests;
use self::stall::Stall;
use crate::capture_context::Caught;
use crate::config::{Config, Escalation};
use crate::outcome::{Outcome, ServiceOutcome};
use crate::record_events;
use crate::report::{PhaseReport, RepeatedSignal, ShutdownReport};

/// The state of a guard. See the module's documentation.
#[derive(Clone)]
pub(crate) struct Machine {
    config: Arc<Config>,
    /// Whether a service manager hears what we send it.
    notifies: bool,
    /// Whether a termination message is written.
    writes_message: bool,
    /// What systemd said of our unit.
    unit: Option<Unit>,
    /// The phases that have not started.
    pub(crate) plan: Plan,
    requests: Requests,
    service: Service,
    state: State,
}

/// The state of a stop. There is no other: whatever else is stored says how far a state has come.
#[derive(Clone)]
enum State {
    /// No stop has been requested.
    Running {
        /// Whether the service takes traffic.
        ready: bool,
    },
    /// A stop has been requested, and its context is being captured. A separate state, so that the
    /// end of the service in this moment is not taken for the cause.
    Capturing {
        at: Instant,
        /// Whether the service goes on for the pre-stop delay.
        may_delay: bool,
        /// Signals that came meanwhile.
        repeated: Vec<RepeatedSignal>,
    },
    /// The service is no longer ready, and still serves until then.
    PreStopDelay(Box<Stop>, Instant),
    /// The token is cancelled, and the phases run.
    TearingDown(Box<Stop>),
    /// The teardown has ended, and `run` has returned; or the guard is gone, with or without a stop.
    Finished(Option<Box<Stop>>),
    /// The process is about to end.
    Exiting(Option<Box<Stop>>, Exit),
}

/// Why a process is about to end.
#[derive(Clone)]
enum Exit {
    /// Its teardown has ended, and since then `main` returns.
    Planned(Instant),
    /// We end it.
    Forced,
}

/// The service's own future.
#[derive(Clone)]
enum Service {
    /// `run` has not been called.
    NotRun,
    Running,
    Ended(ServiceOutcome),
}

/// A stop that has begun.
#[derive(Clone)]
struct Stop {
    context: Arc<ShutdownContext>,
    /// When it was requested.
    began: Instant,
    /// How long it may take from then on, and why so long.
    allowed: Duration,
    allowed_why: String,
    /// How long the pre-stop delay may last, and how long it lasted.
    delay: Duration,
    delayed: Duration,
    stage: Stage,
    pace: Pace,
    /// Signals after the first.
    repeated: Vec<RepeatedSignal>,
    running: BTreeMap<StepId, RunningPhase>,
    /// The group whose members run.
    group: Option<RunningGroup>,
    /// The phases and groups that have ended, in order.
    reports: Vec<PhaseReport>,
    /// No later than the next instant at which something is due in a running phase.
    phase_timer: Option<Instant>,
    diagnostic: Diagnostic,
    /// Grows with everything that a phase gets done.
    progress: u64,
    /// The progress at which the termination message was last written.
    told: Option<u64>,
    stall: Stall,
}

/// How far a teardown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// What only the record shows is still being read. No phase is recorded before the stop is.
    Recording,
    /// `run` has not been called yet.
    BeforeRun,
    Phases,
    /// Every phase has ended, and the service has until then to end.
    Service {
        since: Instant,
        until: Instant,
    },
    /// The service is being dropped.
    DroppingService {
        since: Instant,
    },
    /// The diagnostic has until then to end.
    Diagnostic {
        until: Instant,
    },
    /// It has been told to end at once.
    EndingDiagnostic {
        until: Instant,
    },
    /// All has ended, and `run` is about to return.
    Closing {
        since: Instant,
    },
}

/// What still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Full,
    /// Only phases with a reserve, as a second signal asked for.
    ReservedOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Diagnostic {
    None,
    Running,
    Ended,
}

/// A phase that has not ended.
#[derive(Clone)]
struct RunningPhase {
    key: PhaseKey,
    /// Its place in the group.
    place: usize,
    due: Budget,
    /// When it is dropped, as it stands now.
    end: Instant,
    /// When it is named the next time as still running.
    next_notice: Instant,
    dropped: Option<Dropped>,
    values: serde_json::Map<String, serde_json::Value>,
    /// What it recorded last, as `key=value`.
    last_value: Option<String>,
}

/// Why a phase was dropped, and until when its future has to be gone.
#[derive(Debug, Clone)]
struct Dropped {
    outcome: Outcome,
    what: String,
    gone_by: Instant,
}

#[derive(Clone)]
struct RunningGroup {
    key: PhaseKey,
    started: Instant,
    members: Vec<Option<PhaseReport>>,
}

/// One call of [`Machine::handle`]: the time, and the actions so far.
struct Turn {
    now: Instant,
    actions: Vec<Action>,
}

impl Turn {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn log(&mut self, event: LogEvent) {
        self.act(Action::Log(event));
    }

    fn record(&mut self, event: record::Event) {
        self.act(Action::Record(event));
    }
}

/// What `run()` waits for. It sleeps until this changes, so that no other event wakes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// [`Machine::report`] has the report to return.
    pub(crate) is_finished: bool,
    /// The service's future is to be dropped.
    pub(crate) drops_service: bool,
    /// When [`Event::Tick`] is due.
    pub(crate) timer: Option<Instant>,
}

/// What others may know of a stop.
pub(crate) struct Snapshot {
    pub(crate) running: Vec<(String, Duration, serde_json::Map<String, serde_json::Value>)>,
    /// How long ago the stop was requested.
    pub(crate) since: Duration,
    pub(crate) allowed: Duration,
    pub(crate) progress: u64,
}

impl Machine {
    pub(crate) fn new(config: Arc<Config>, notifies: bool, writes_message: bool) -> Self {
        Self {
            config,
            notifies,
            writes_message,
            unit: None,
            plan: Plan::default(),
            requests: Requests::default(),
            service: Service::NotRun,
            state: State::Running { ready: false },
        }
    }

    /// Takes in an event. The actions are to be performed in their order.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut turn = Turn { now, actions: Vec::new() };
        match event {
            Event::SignalArrived { signal, at } => self.signal_arrived(signal, at, &mut turn),
            Event::SignalForwarded(signal) => {
                let trigger = Trigger::Signal { signal };
                self.request(trigger, None, now, true, &mut turn);
            }
            Event::SignalsMissed(missed) => self.requests.set_missed(missed),
            Event::Requested { reason } => {
                self.request(Trigger::Request { reason }, None, now, true, &mut turn);
            }
            Event::TokenCancelled => self.token_cancelled(&mut turn),
            Event::ContextCaptured(context) => self.begin(*context, &mut turn),
            Event::ContextCompleted(context) => self.record_begin(context, &mut turn),
            Event::SignalRepeated(repeated) => self.repeat(repeated, &mut turn),
            Event::Escalated => drop(self.escalate(&mut turn)),
            Event::Ready => self.become_ready(&mut turn),
            Event::RunStarted => self.run_started(&mut turn),
            Event::ServiceEnded(outcome) => self.service_ended(outcome, &mut turn),
            Event::PhaseProgressed { phase, values, last_value } => {
                self.phase_progressed(phase, values, last_value, &mut turn);
            }
            Event::PhaseEnded { phase, end, values } => {
                self.phase_ended(phase, end, values, &mut turn);
            }
            Event::DiagnosticEnded => {
                if let Some(stop) = self.stop_mut() {
                    stop.diagnostic = Diagnostic::Ended;
                }
            }
            Event::UnitKnown(unit) => {
                self.unit.get_or_insert(unit);
            }
            Event::Extended(allowed) => self.extend(allowed, &mut turn),
            Event::RuntimeAnswered => {
                if let Some(stop) = self.stop_mut() {
                    stop.stall.runtime_answered();
                }
            }
            Event::Tick => self.tick(&mut turn),
            Event::Watched => self.watch(&mut turn),
            Event::StallDescribed { report, detail } => {
                self.stall_described(&report, detail, &mut turn);
            }
            Event::ExitDescribed { reason, detail } => {
                self.exit_described(reason, detail, &mut turn);
            }
            Event::Closed => self.closed(),
            Event::ExitExpected => self.exit_expected(now),
            Event::GuardDropped => self.guard_dropped(&mut turn),
            Event::Panicked { message, location } => {
                self.panicked(message, location, &mut turn);
            }
            Event::ForcedByHarness(reason) => self.force(reason, &mut turn),
        }
        self.advance(&mut turn);
        turn.actions
    }

    /// When [`Event::Tick`] is due.
    fn next_timer(&self) -> Option<Instant> {
        match &self.state {
            State::PreStopDelay(_, until) => Some(*until),
            State::TearingDown(stop) => match stop.stage {
                Stage::Phases => stop.phase_timer,
                Stage::Service { until, .. }
                | Stage::Diagnostic { until }
                | Stage::EndingDiagnostic { until } => Some(until),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether [`Event::Watched`] is due four times a second.
    pub(crate) fn is_watched(&self) -> bool {
        !matches!(
            self.state,
            State::Running { .. } | State::Finished(_) | State::Exiting(_, Exit::Forced)
        )
    }

    /// Whether no stop has been requested.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Whether the token is cancelled and the teardown has not ended.
    pub(crate) fn is_tearing_down(&self) -> bool {
        matches!(self.state, State::TearingDown(_))
    }

    /// Whether signals mean nothing to us any more. A teardown that is [closing](Stage::Closing) is not
    /// over.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Finished(_) | State::Exiting(..))
    }

    /// What `run()` waits for.
    pub(crate) fn awaited(&self) -> Awaited {
        Awaited {
            is_finished: self.is_closing(),
            drops_service: matches!(self.stage(), Some(Stage::DroppingService { .. })),
            timer: self.next_timer(),
        }
    }

    /// The report of a teardown that has ended, while `run` is about to return.
    pub(crate) fn report(&self) -> Option<ShutdownReport> {
        match (&self.state, self.stage()?) {
            (State::TearingDown(stop), Stage::Closing { since }) => {
                Some(self.report_of(stop, since))
            }
            _ => None,
        }
    }

    /// For how long another signal is the same request as the last one.
    pub(crate) fn same_request_for(&self, now: Instant) -> Duration {
        self.requests.same_for(now)
    }

    /// When a stop that has begun must have ended.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stop().map(Stop::deadline)
    }

    pub(crate) fn snapshot(&self, now: Instant) -> Option<Snapshot> {
        let stop = self.stop()?;
        let running = stop.running.values().map(|phase| {
            let ran = now.saturating_duration_since(phase.due.started);
            (phase.key.name.to_string(), ran, phase.values.clone())
        });
        Some(Snapshot {
            running: running.collect(),
            since: now.saturating_duration_since(stop.began),
            allowed: stop.allowed,
            progress: stop.progress,
        })
    }

    /// What the pre-stop delay and the phases registered so far may take.
    pub(crate) fn sum(&self) -> WorstCase {
        self.plan.sum(self.config.pre_stop_delay, self.config.deadline())
    }

    fn stop(&self) -> Option<&Stop> {
        match &self.state {
            State::PreStopDelay(stop, _) | State::TearingDown(stop) => Some(stop),
            State::Finished(stop) | State::Exiting(stop, _) => stop.as_deref(),
            State::Running { .. } | State::Capturing { .. } => None,
        }
    }

    fn stop_mut(&mut self) -> Option<&mut Stop> {
        match &mut self.state {
            State::PreStopDelay(stop, _) | State::TearingDown(stop) => Some(stop),
            State::Finished(stop) | State::Exiting(stop, _) => stop.as_deref_mut(),
            State::Running { .. } | State::Capturing { .. } => None,
        }
    }

    fn become_ready(&mut self, turn: &mut Turn) {
        if let State::Running { ready } = &mut self.state {
            *ready = true;
            turn.act(Action::BecomeReady);
        }
    }

    fn run_started(&mut self, turn: &mut Turn) {
        self.service = Service::Running;
        let sum = self.sum();
        if !sum.is_possible() {
            turn.log(LogEvent::ImpossibleReserves(sum.to_string()));
        }
        if self.config.auto_ready {
            self.become_ready(turn);
        }
    }

    fn service_ended(&mut self, outcome: ServiceOutcome, turn: &mut Turn) {
        if let Service::Ended(_) = self.service {
            return;
        }
        let error = outcome.error();
        self.service = Service::Ended(outcome);
        self.request(Trigger::ServiceEnded { error }, None, turn.now, false, turn);
        self.end_delay(DelayEnd::Service, turn);
    }

    fn token_cancelled(&mut self, turn: &mut Turn) {
        let reason = "the guard's token was cancelled".to_owned();
        self.request(Trigger::Request { reason }, None, turn.now, false, turn);
        self.end_delay(DelayEnd::Token, turn);
    }

    fn signal_arrived(&mut self, signal: Box<Caught>, at: Instant, turn: &mut Turn) {
        if self.is_over() {
            return;
        }
        let ordinal = self.requests.add(at);
        if let State::Running { .. } = self.state {
            let trigger = Trigger::Signal { signal: signal.captured.signal };
            self.request(trigger, Some(signal), at, true, turn);
        } else if self.requests.may_list(ordinal) {
            let began = match &self.state {
                State::Capturing { at, .. } => *at,
                _ => self.stop().map_or(at, |stop| stop.began),
            };
            let offset = at.saturating_duration_since(began);
            turn.act(Action::ResolveSender { signal, ordinal, offset });
        }
    }

    /// The first request of all begins the stop; every other one has no effect.
    fn request(
        &mut self,
        trigger: Trigger,
        signal: Option<Box<Caught>>,
        at: Instant,
        may_delay: bool,
        turn: &mut Turn,
    ) {
        let State::Running { ready } = self.state else { return };
        // Traffic is only sent to a service that is ready.
        let may_delay = may_delay && ready;
        self.state = State::Capturing { at, may_delay, repeated: Vec::new() };
        turn.act(Action::EndReadiness);
        turn.act(Action::CaptureContext { trigger, signal });
    }

    /// The context is there: from here on the stop is under way.
    fn begin(&mut self, context: ShutdownContext, turn: &mut Turn) {
        let State::Capturing { at, may_delay, repeated } = &mut self.state else { return };
        let (began, may_delay, repeated) = (*at, *may_delay, std::mem::take(repeated));
        let (allowed, allowed_why) = self.limit(&context);
        let context = Arc::new(context);
        // The line is queued before the token is cancelled.
        turn.log(LogEvent::Context(context.clone()));
        let planned =
            if may_delay { self.config.pre_stop_delay.min(allowed) } else { Duration::ZERO };
        // What the phases have reserved is theirs.
        let delay = planned.min(allowed.saturating_sub(self.plan.reserved()));
        let stop = Box::new(Stop {
            context: context.clone(),
            delay: planned,
            began,
            allowed,
            allowed_why,
            delayed: Duration::ZERO,
            stage: Stage::Recording,
            pace: Pace::Full,
            repeated: Vec::new(),
            running: BTreeMap::new(),
            group: None,
            reports: Vec::new(),
            phase_timer: None,
            diagnostic: Diagnostic::None,
            progress: 0,
            told: None,
            stall: Stall::default(),
        });
        if delay.is_zero() {
            turn.act(Action::CancelToken);
            self.state = State::TearingDown(stop);
        } else {
            turn.log(LogEvent::DelayStarted(delay));
            let status = format!("Stopping: pre-stop delay of {}, still serving", Seconds(delay));
            turn.act(Action::SetStatus(status));
            self.state = State::PreStopDelay(stop, began + delay);
        }
        turn.act(Action::ExplainStop(context.clone()));
        if self.config.diag_log.is_some() {
            if let Some(stop) = self.stop_mut() {
                stop.diagnostic = Diagnostic::Running;
            }
            turn.act(Action::StartDiagnostic(context.clone()));
        }
        turn.act(Action::CompleteContext(context));
        for one in repeated {
            self.repeat(Box::new(one), turn);
        }
    }

    /// The context has all that the record shows: now the stop is recorded.
    fn record_begin(&mut self, context: Arc<ShutdownContext>, turn: &mut Turn) {
        if self.is_over() {
            return;
        }
        let stop_timeout = self.unit.map(|unit| unit.stop_timeout);
        let Some(stop) = self.stop_mut() else { return };
        if stop.stage != Stage::Recording {
            return;
        }
        stop.context = context;
        stop.stage = Stage::BeforeRun;
        let event = record_events::begun(&stop.context, stop.allowed, stop.delay, stop_timeout);
        turn.record(event);
        // The deadline is watched from here on, by the thread that needs no runtime.
        turn.act(Action::WakeShutdownThread);
    }

    /// Takes in a signal after the first one, whose sender is known by now.
    fn repeat(&mut self, mut repeated: Box<RepeatedSignal>, turn: &mut Turn) {
        if let State::Capturing { repeated: waiting, .. } = &mut self.state {
            waiting.push(*repeated);
            return;
        }
        if self.is_over() || self.stop().is_none() {
            return;
        }
        let escalation = self.config.escalation;
        let cuts = escalation == Escalation::SkipThenExit && repeated.ordinal >= Some(2);
        repeated.ended_delay = cuts && self.escalate(turn);
        turn.log(LogEvent::Repeated(repeated.clone(), escalation));
        let requests = self.requests.count();
        turn.record(record_events::repeated(&repeated, requests));
        let (signal, ordinal) = (repeated.signal, repeated.ordinal);
        if let Some(stop) = self.stop_mut() {
            stop.repeated.push(*repeated);
        }
        let exits = match escalation {
            Escalation::SkipThenExit => ordinal >= Some(3),
            Escalation::Exit => ordinal >= Some(2),
            Escalation::Ignore => false,
        };
        // A teardown that has ended needs no force.
        if exits && !self.is_closing() {
            self.force(ExitReason::Signal(signal), turn);
        }
    }

    /// Ends the pre-stop delay, or leaves only the phases with a reserve to run. Returns whether it
    /// was the delay.
    fn escalate(&mut self, turn: &mut Turn) -> bool {
        if let State::Capturing { may_delay, .. } = &mut self.state {
            *may_delay = false;
        }
        if let State::PreStopDelay(..) = self.state {
            self.end_delay(DelayEnd::Escalated, turn);
            return true;
        }
        if let State::TearingDown(stop) = &mut self.state {
            stop.pace = Pace::ReservedOnly;
            stop.adjust(turn);
        }
        false
    }

    fn end_delay(&mut self, why: DelayEnd, turn: &mut Turn) {
        if let State::Capturing { may_delay, .. } = &mut self.state {
            *may_delay = false;
        }
        if !matches!(self.state, State::PreStopDelay(..)) {
            return;
        }
        if let Some(mut stop) = self.take_stop() {
            stop.delayed = turn.now.saturating_duration_since(stop.began);
            turn.log(LogEvent::DelayEnded(stop.delayed, why));
            turn.act(Action::CancelToken);
            self.state = State::TearingDown(stop);
        }
    }

    fn extend(&mut self, allowed: Duration, turn: &mut Turn) {
        if let Some(stop) = self.stop_mut() {
            stop.allowed = allowed;
            stop.adjust(turn);
        }
    }

    fn tick(&mut self, turn: &mut Turn) {
        match &mut self.state {
            State::PreStopDelay(_, until) if turn.now >= *until => {
                self.end_delay(DelayEnd::Over, turn);
            }
            State::TearingDown(stop) => stop.look_at_phases(turn),
            _ => {}
        }
    }

    /// Takes the stop out of the state, to put it into another.
    fn take_stop(&mut self) -> Option<Box<Stop>> {
        match std::mem::replace(&mut self.state, State::Finished(None)) {
            State::PreStopDelay(stop, _) | State::TearingDown(stop) => Some(stop),
            State::Finished(stop) | State::Exiting(stop, _) => stop,
            State::Running { .. } | State::Capturing { .. } => None,
        }
    }

    /// How far the teardown has come, while it is under way.
    fn stage(&self) -> Option<Stage> {
        match &self.state {
            State::TearingDown(stop) => Some(stop.stage),
            _ => None,
        }
    }

    fn is_closing(&self) -> bool {
        matches!(self.stage(), Some(Stage::Closing { .. }))
    }

    fn closed(&mut self) {
        if self.is_closing() {
            self.state = State::Finished(self.take_stop());
        }
    }

    fn exit_expected(&mut self, now: Instant) {
        if let State::Finished(_) = self.state {
            self.state = State::Exiting(self.take_stop(), Exit::Planned(now));
        }
    }

    /// The guard goes before its teardown has ended: `main` returned early, or unwinds.
    fn guard_dropped(&mut self, turn: &mut Turn) {
        // The end of a teardown is recorded once.
        self.closed();
        if self.is_over() {
            return;
        }
        self.write_message(&MessageState::Abandoned, turn);
        let more = self.requests.unlisted();
        let stopped = record_events::stopped(ExitKind::Abandoned, None, self.since(turn.now), more);
        turn.record(record::Event::Stopped(stopped));
        self.state = State::Finished(self.take_stop());
    }

    fn panicked(&mut self, message: String, location: Option<String>, turn: &mut Turn) {
        self.closed();
        if self.is_over() {
            return;
        }
        let state = MessageState::Panicked { message: message.clone(), location: location.clone() };
        self.write_message(&state, turn);
        turn.record(record_events::panicked(message, location, self.since(turn.now)));
        self.state = State::Finished(self.take_stop());
    }

    /// How long ago the stop was requested; zero where none was.
    fn since(&self, now: Instant) -> Duration {
        self.stop().map_or(Duration::ZERO, |stop| now.saturating_duration_since(stop.began))
    }

    fn report_of(&self, stop: &Stop, ended: Instant) -> ShutdownReport {
        let timed_out = |phase: &PhaseReport| phase.outcome == Outcome::TimedOut;
        let mut report = ShutdownReport {
            service: self.config.service.clone(),
            context: ShutdownContext::clone(&stop.context),
            timed_out: (stop.reports.iter())
                .any(|phase| timed_out(phase) || phase.members.iter().any(timed_out)),
            phases: stop.reports.clone(),
            service_outcome: match &self.service {
                Service::Ended(outcome) => outcome.clone(),
                _ => ServiceOutcome::Dropped,
            },
            repeated_signals: stop.repeated.clone(),
            unlisted_signals: self.requests.unlisted(),
            errors: self.plan.errors().to_vec(),
            deadline: stop.allowed,
            pre_stop_delay: stop.delayed,
            total: ended.saturating_duration_since(stop.began),
            exit_status: 0,
        };
        if report.is_failed() {
            report.exit_status = self.config.failure_status;
        }
        report
    }

    fn write_message(&mut self, state: &MessageState, turn: &mut Turn) {
        if !self.writes_message {
            return;
        }
        let is_last = !matches!(state, MessageState::Stopping { .. });
        let text = self.account(state, turn.now);
        turn.act(Action::WriteMessage { text, is_last });
    }
}

impl Stop {
    fn deadline(&self) -> Instant {
        self.began + self.allowed
    }
}

#[cfg(test)]
impl Machine {
    fn service_runs(&self) -> bool {
        matches!(self.service, Service::Running)
    }

    /// The report of a run that has ended as planned.
    fn report_of_finished(&self) -> Option<ShutdownReport> {
        match &self.state {
            State::Finished(Some(stop)) | State::Exiting(Some(stop), _) => match stop.stage {
                Stage::Closing { since } => Some(self.report_of(stop, since)),
                _ => None,
            },
            _ => None,
        }
    }
}
