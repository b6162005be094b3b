//! The state machine of a stop: its states, and the actions that each event causes.
//!
//! [`Machine::handle`] takes an event and the current time, changes the state, and returns actions.
//! It is pure: it reads no clock, takes no lock, and does no I/O. The caller performs the actions
//! (see [`crate::shutdown`]). So every rule of a stop can be tested without threads, and each event
//! is handled completely before the next one.

mod account;
mod budget;
mod event;
mod limit;
mod plan;
mod record_events;
mod requests;
mod stall;
mod teardown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::SiCode;
use forensics_core::cause::Cause;
use forensics_core::context::{ShutdownContext, Trigger};
use forensics_core::escape::Escaped;
use forensics_core::logfmt::Value;
use forensics_core::record::{self, ExitKind, Explained, SignalEvent, Stopped};
use tokio::time::Instant;

pub use self::budget::WorstCase;
pub(crate) use self::budget::{Offset, Seconds};
pub(crate) use self::event::{
    Action, Caught, Effect, Event, ExitReason, LogEvent, PhaseEnd, PhaseKey,
};
use self::limit::Limit;
pub(crate) use self::limit::{Timer, Unit};
use self::plan::Plan;
pub(crate) use self::plan::{StepId, Work};
#[cfg(feature = "testing")]
pub(crate) use self::requests::SAME_REQUEST;
#[cfg(feature = "testing")]
pub(crate) use self::stall::LATE_AFTER;

use self::budget::Budget;
use self::requests::Requests;
use self::stall::Stall;
use crate::config::{Config, Escalation};
use crate::outcome::{Outcome, ServiceOutcome};
use crate::panics::Panic;
use crate::recorded::Values;
use crate::report::micros;
use crate::report::{PhaseReport, RepeatedSignal, ShutdownReport};

/// The state of a guard. See the module's documentation.
#[derive(Clone)]
pub(crate) struct Machine {
    config: Arc<Config>,
    /// Whether a service manager receives our notifications.
    notifies: bool,
    /// Whether a termination message is written.
    writes_message: bool,
    /// What systemd has reported about our unit.
    unit: Option<Unit>,
    /// The phases and groups that have not started.
    pub(crate) plan: Plan,
    requests: Requests,
    service: Service,
    state: State,
    /// The facts of the stop. `None` until its context is captured.
    stop: Option<Stop>,
}

/// The state of a stop. The other fields of [`Machine`] and [`Stop`] only hold the facts that are
/// known in this state.
#[derive(Clone)]
enum State {
    /// No stop has been requested.
    Running {
        /// Whether the service is ready for traffic.
        ready: bool,
    },
    /// A stop has been requested, and its context is being captured. This is a separate state, so
    /// that a service that ends meanwhile is not taken for the cause.
    Capturing {
        at: Instant,
        /// Whether a pre-stop delay may follow.
        may_delay: bool,
        /// Signals that arrived while the context is being captured.
        repeated: Vec<RepeatedSignal>,
    },
    /// The service is not ready any more, but still serves until this time.
    PreStopDelay {
        until: Instant,
        /// The stage in which the teardown begins.
        first: Stage,
    },
    /// The token is cancelled, and the phases run.
    TearingDown(Stage),
    /// The teardown has ended and `run` returns, or the guard was dropped, with or without a stop.
    Finished,
    /// The teardown of every guard has ended. Since this time the process is expected to end.
    ExitExpected(Instant),
    /// The shutdown thread ends the process, for this reason.
    Exiting(ExitReason),
}

/// How far the teardown has progressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The part of the context that only the record shows is still being read. No phase starts
    /// before that, because the stop is recorded before its phases.
    Recording,
    /// `run` has not been called yet.
    BeforeRun,
    Phases,
    /// Every phase has ended. The service must end by `until`.
    Service {
        since: Instant,
        until: Instant,
    },
    /// The service is being dropped.
    DroppingService {
        since: Instant,
    },
    /// The diagnostic must end by `until`.
    Diagnostic {
        until: Instant,
    },
    /// The diagnostic was told to end at once. After `until` it is not waited for.
    EndingDiagnostic {
        until: Instant,
    },
    /// Everything has ended, and `run` is about to return.
    Closing {
        since: Instant,
    },
}

/// The state of the service's own future.
#[derive(Clone)]
enum Service {
    /// `run` has not been called.
    NotRun,
    Running,
    Ended(ServiceOutcome),
}

/// The facts of a stop that has begun.
#[derive(Clone)]
struct Stop {
    context: Arc<ShutdownContext>,
    /// Why systemd stops us.
    explained: Option<Box<Explained>>,
    /// When the stop was requested.
    began: Instant,
    /// When its first signal arrived. `None` if there was only a request by the program so far.
    signalled: Option<Instant>,
    /// How long the stop may take from `began` on.
    limit: Limit,
    /// How long the unit's stop timeout lasts, from `began` on, because systemd was asked for more
    /// time. Zero if it was not.
    extended: Duration,
    /// How long the pre-stop delay may last, and how long it has lasted.
    delay: Duration,
    delayed: Duration,
    pace: Pace,
    /// Signals after the first.
    repeated: Vec<RepeatedSignal>,
    running: BTreeMap<StepId, RunningPhase>,
    /// The group that runs now.
    group: Option<RunningGroup>,
    /// The phases and groups that have ended, in order. A group's report contains the reports of
    /// its members.
    reports: Vec<PhaseReport>,
    /// When the running phases must be checked next. It may be too early, but is never too late.
    phase_timer: Option<Instant>,
    /// A phase that waited for the service until its own time was up.
    service_awaited_by: Option<String>,
    /// Whether the diagnostic's task runs.
    diagnostic_runs: bool,
    /// Counts the progress of the phases: it grows when a phase starts, records a value, or ends.
    progress: u64,
    /// The value of `progress` when the termination message was last written.
    told: Option<u64>,
    stall: Stall,
}

/// Which phases may still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Full,
    /// Only phases with a reserve, because the stop was escalated.
    ReservedOnly,
}

/// A phase that has started and has not ended.
#[derive(Clone)]
struct RunningPhase {
    key: PhaseKey,
    due: Budget,
    /// When the phase is dropped. It changes with the deadline, and after an escalation.
    end: Instant,
    /// When the log reports it next as still running.
    next_notice: Instant,
    dropped: Option<Dropped>,
    /// Whether it waits for the end of the service, or has waited for it.
    awaits_service: bool,
    values: Values,
}

/// Why a phase was dropped, and by when its future must be gone. After that the phase is given up:
/// it is reported as ended, although its future still exists.
#[derive(Debug, Clone)]
struct Dropped {
    outcome: Outcome,
    what: String,
    gone_by: Instant,
    /// A thread was running it at that moment.
    in_poll: bool,
    /// It has yielded since.
    has_yielded: bool,
}

#[derive(Clone)]
struct RunningGroup {
    key: PhaseKey,
    started: Instant,
    /// The members that have ended, sorted by id, which is the order of registration.
    members: BTreeMap<StepId, PhaseReport>,
}

/// One call of [`Machine::handle`]: the current time, and the actions that it returns.
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

    fn since(&self, earlier: Instant) -> Duration {
        self.now.saturating_duration_since(earlier)
    }
}

/// What `run()` waits for. `run()` is woken only when this changes, not by every event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// The teardown has ended, and [`Machine::report`] returns the report.
    pub(crate) is_finished: bool,
    /// `run()` must drop the service's future.
    pub(crate) drops_service: bool,
    /// When [`Event::Tick`] is due.
    pub(crate) timer: Option<Instant>,
}

/// The facts of a stop for code outside the machine.
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
            stop: None,
        }
    }

    /// Handles an event, and returns actions. The caller must perform them in this order.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let turn = &mut Turn { now, actions: Vec::new() };
        match event {
            Event::SignalArrived { signal, at } => self.signal_arrived(signal, at, turn),
            Event::Requested(trigger) => self.request(trigger, None, now, true, turn),
            Event::TokenCancelled => self.token_cancelled(turn),
            Event::ContextCaptured(context) => self.begin(*context, turn),
            Event::ContextCompleted(context) => self.record_begin(context, turn),
            Event::SignalRepeated(repeated) => self.repeat(repeated, turn),
            Event::Escalated => drop(self.escalate(turn)),
            Event::Ready => self.become_ready(turn),
            Event::RunStarted => self.run_started(turn),
            Event::ServiceEnded(outcome) => self.service_ended(outcome, turn),
            Event::PhaseProgressed(phase, values) => self.phase_progressed(phase, values, turn),
            Event::PhaseAwaitsService(phase) => self.phase_awaits_service(phase),
            Event::PhaseWaits(phase, what) => self.phase_waits(phase, what, turn),
            Event::PhaseDroppedInPoll(phase) => self.about_dropped(phase, |it| it.in_poll = true),
            Event::PhaseYielded(phase) => self.about_dropped(phase, |it| it.has_yielded = true),
            Event::PhaseEnded(phase, end, values) => self.phase_ended(phase, end, values, turn),
            Event::DiagnosticEnded => self.diagnostic_ended(),
            Event::UnitKnown(unit) => self.unit_known(unit, turn),
            Event::StopExplained(explained) => self.explained(explained, turn),
            Event::Extended(allowed) => self.extend(allowed, turn),
            Event::RuntimeAnswered => self.runtime_answered(),
            Event::Tick => self.tick(turn),
            Event::Watched { missed } => self.watch(missed, turn),
            Event::StallDescribed { stalled, detail } => {
                self.stall_described(stalled, detail, turn);
            }
            Event::ExitDescribed(detail) => self.exit_described(detail, turn),
            Event::Exiting(detail) => self.exiting(&detail, turn),
            Event::Closed => self.closed(),
            Event::ExitExpected => self.exit_expected(now),
            Event::GuardDropped(panic) => self.guard_dropped(panic, turn),
        }
        self.advance(turn);
        std::mem::take(&mut turn.actions)
    }

    /// When [`Event::Tick`] is due.
    fn next_timer(&self) -> Option<Instant> {
        match self.state {
            State::PreStopDelay { until, .. }
            | State::TearingDown(
                Stage::Service { until, .. }
                | Stage::Diagnostic { until }
                | Stage::EndingDiagnostic { until },
            ) => Some(until),
            State::TearingDown(Stage::Phases) => self.stop.as_ref()?.phase_timer,
            _ => None,
        }
    }

    /// Whether the shutdown thread must check the stop four times a second, with
    /// [`Event::Watched`].
    pub(crate) fn is_watched(&self) -> bool {
        !matches!(self.state, State::Running { .. } | State::Finished | State::Exiting(_))
    }

    /// Whether no stop has been requested.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Whether the token is cancelled and the teardown has not ended.
    pub(crate) fn is_tearing_down(&self) -> bool {
        matches!(self.state, State::TearingDown(_))
    }

    /// Whether signals have no effect any more. They still have an effect while a teardown is
    /// [closing](Stage::Closing).
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Finished | State::ExitExpected(_) | State::Exiting(_))
    }

    /// The reason to end the process, if there is one.
    pub(crate) fn exit_reason(&self) -> Option<ExitReason> {
        match self.state {
            State::Exiting(reason) => Some(reason),
            _ => None,
        }
    }

    /// What `run()` waits for.
    pub(crate) fn awaited(&self) -> Awaited {
        let drops_service = matches!(self.state, State::TearingDown(Stage::DroppingService { .. }));
        Awaited { is_finished: self.is_closing(), drops_service, timer: self.next_timer() }
    }

    /// The report of a teardown that has ended. `None` unless `run` is about to return.
    pub(crate) fn report(&self) -> Option<ShutdownReport> {
        let State::TearingDown(Stage::Closing { since }) = self.state else { return None };
        let stop = self.stop.as_ref()?;
        let any = |outcome: Outcome| stop.ended().any(|phase| phase.outcome == outcome);
        let mut report = ShutdownReport {
            service: self.config.service.clone(),
            context: ShutdownContext::clone(&stop.context),
            explained: stop.explained.as_deref().cloned(),
            timed_out: any(Outcome::TimedOut),
            how: ExitKind::Clean,
            phases: stop.reports.clone(),
            service_outcome: match &self.service {
                Service::Ended(outcome) => outcome.clone(),
                _ => ServiceOutcome::Dropped,
            },
            repeated_signals: stop.repeated.clone(),
            unlisted_signals: self.requests.unlisted(),
            errors: self.plan.errors.clone(),
            deadline: stop.limit.allowed,
            pre_stop_delay: stop.delayed,
            total: since.saturating_duration_since(stop.began),
            exit_status: 0,
            exit_signal: None,
        };
        report.how = if report.is_failed() {
            ExitKind::Failed
        } else if any(Outcome::CutShort)
            || (any(Outcome::Skipped) && stop.pace == Pace::ReservedOnly)
        {
            ExitKind::CutShort
        } else if report.timed_out || any(Outcome::Skipped) {
            ExitKind::TimedOut
        } else {
            ExitKind::Clean
        };
        report.exit_signal = stop
            .context
            .signal()
            .filter(|signal| self.config.exit_by_signal && signal.ends_process());
        report.exit_status = match report.exit_signal {
            // The number that a shell shows for a process that a signal has ended.
            Some(signal) => 128 + signal.as_raw().unsigned_abs() as u8,
            None => self.config.exit_status(report.how),
        };
        Some(report)
    }

    /// For how long another signal counts as the same request as the last one.
    pub(crate) fn same_request_for(&self, now: Instant) -> Duration {
        self.requests.same_for(now)
    }

    /// The deadline of a stop that has begun.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stop.as_ref().map(Stop::deadline)
    }

    pub(crate) fn snapshot(&self, now: Instant) -> Option<Snapshot> {
        let stop = self.stop.as_ref()?;
        let running = stop
            .running
            .values()
            .map(|phase| (phase.key.name.to_string(), phase.ran(now), phase.values.all.clone()));
        Some(Snapshot {
            running: running.collect(),
            since: now.saturating_duration_since(stop.began),
            allowed: stop.limit.allowed,
            progress: stop.progress,
        })
    }

    /// When the guard's token was cancelled.
    pub(crate) fn token_cancelled_at(&self) -> Option<Instant> {
        self.stop.as_ref().map(|stop| stop.began + stop.delayed)
    }

    /// When a running phase is dropped if it has not ended by then.
    pub(crate) fn phase_end(&self, phase: StepId) -> Option<Instant> {
        Some(self.stop.as_ref()?.running.get(&phase)?.end)
    }

    /// The longest time that the pre-stop delay and the phases registered so far may take.
    pub(crate) fn sum(&self) -> WorstCase {
        self.plan.sum(self.config.pre_stop_delay, self.config.deadline())
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
        let began = match (&self.state, &self.stop) {
            (State::Capturing { at, .. }, _) => Some(*at),
            (_, stop) => stop.as_ref().map(|stop| stop.began),
        };
        // The error of a service whose end begins the stop is in the context line.
        if let (Some(began), ServiceOutcome::Failed(error) | ServiceOutcome::Panicked(error)) =
            (began, &outcome)
        {
            let panicked = matches!(outcome, ServiceOutcome::Panicked(_));
            let (offset, error) = (turn.since(began), error.clone());
            let outcome = if panicked { "panicked" } else { "failed" };
            turn.log(LogEvent::ServiceFailed { offset, outcome, error });
        }
        self.service = Service::Ended(outcome);
        self.request(Trigger::ServiceEnded { error }, None, turn.now, false, turn);
        self.end_delay(", cut short: the service has ended", turn);
    }

    fn token_cancelled(&mut self, turn: &mut Turn) {
        let reason = "the guard's token was cancelled".to_owned();
        self.request(Trigger::Request { reason }, None, turn.now, false, turn);
        self.end_delay(", cut short: the token was cancelled", turn);
    }

    fn signal_arrived(&mut self, signal: Box<Caught>, at: Instant, turn: &mut Turn) {
        if self.is_over() {
            return;
        }
        let ordinal = self.requests.add(at);
        let began = match &self.state {
            State::Running { .. } => {
                let trigger = Trigger::Signal { signal: signal.captured.signal };
                return self.request(trigger, Some(signal), at, true, turn);
            }
            State::Capturing { at, .. } => *at,
            _ => self.stop.as_ref().map_or(at, |stop| stop.began),
        };
        let is_from_kernel = signal.captured.code == SiCode::Kernel;
        if self.requests.may_look_up(at, is_from_kernel) {
            let repeated = RepeatedSignal {
                signal: signal.captured.signal,
                sender: None,
                cause: Cause::Unknown,
                ordinal,
                received_after: at.saturating_duration_since(began),
                ended_delay: false,
            };
            turn.act(Action::ResolveSender(signal, Box::new(repeated)));
        }
    }

    /// Begins the stop if this is the first request. Later requests have no effect.
    fn request(
        &mut self,
        trigger: Trigger,
        signal: Option<Box<Caught>>,
        at: Instant,
        may_delay: bool,
        turn: &mut Turn,
    ) {
        let State::Running { ready } = self.state else { return };
        // A service that is not ready gets no traffic, so it needs no pre-stop delay.
        let may_delay = may_delay && ready;
        self.state = State::Capturing { at, may_delay, repeated: Vec::new() };
        turn.act(Action::EndReadiness);
        turn.act(Action::CaptureContext { trigger, signal });
    }

    /// systemd has shown why it stops us.
    fn explained(&mut self, explained: Box<Explained>, turn: &mut Turn) {
        // The last line of the record is written by then.
        let has_ended = self.is_closing() || self.is_over();
        let Some(stop) = self.stop.as_mut().filter(|_| !has_ended) else { return };
        turn.record(record::Event::Explained((*explained).clone()));
        let unit = stop.context.systemd.unit.as_ref().map(|unit| unit.unit.clone());
        turn.log(LogEvent::StopExplained { why: explained.clone(), unit });
        stop.explained = Some(explained);
    }

    /// Begins the stop, now that its context is captured.
    fn begin(&mut self, context: ShutdownContext, turn: &mut Turn) {
        let State::Capturing { at, may_delay, repeated } = &mut self.state else { return };
        let (began, may_delay, repeated) = (*at, *may_delay, std::mem::take(repeated));
        let signalled = context.signal().map(|_| began);
        let limit = self.limit(&context, began, signalled);
        let allowed = limit.allowed;
        let context = Arc::new(context);
        // The context line must be queued before the token is cancelled.
        turn.log(LogEvent::Context(context.clone()));
        let planned =
            if may_delay { self.config.pre_stop_delay.min(allowed) } else { Duration::ZERO };
        // The delay must not use the time that the phases have reserved.
        let delay = planned.min(allowed.saturating_sub(self.plan.reserved()));
        if delay.is_zero() {
            turn.act(Action::CancelToken);
            self.state = State::TearingDown(Stage::Recording);
        } else {
            turn.log(LogEvent::DelayStarted(delay));
            let status = format!("Stopping: pre-stop delay of {}, still serving", Seconds(delay));
            turn.act(Action::SetStatus(status));
            self.state = State::PreStopDelay { until: began + delay, first: Stage::Recording };
        }
        turn.act(Action::ExplainStop(context.clone()));
        let diagnostic_runs = self.config.diag_log.is_some();
        if diagnostic_runs {
            turn.act(Action::StartDiagnostic(context.clone()));
        }
        turn.act(Action::CompleteContext(context.clone()));
        self.stop = Some(Stop {
            context,
            explained: None,
            began,
            signalled,
            limit,
            extended: Duration::ZERO,
            delay: planned,
            delayed: Duration::ZERO,
            pace: Pace::Full,
            repeated: Vec::new(),
            running: BTreeMap::new(),
            group: None,
            reports: Vec::new(),
            phase_timer: None,
            service_awaited_by: None,
            diagnostic_runs,
            progress: 0,
            told: None,
            stall: Stall::default(),
        });
        for one in repeated {
            self.repeat(Box::new(one), turn);
        }
    }

    /// Records the stop, now that the context has everything that the record shows.
    fn record_begin(&mut self, context: Arc<ShutdownContext>, turn: &mut Turn) {
        let (State::PreStopDelay { first: stage, .. } | State::TearingDown(stage)) =
            &mut self.state
        else {
            return;
        };
        let (Stage::Recording, Some(stop)) = (&*stage, &mut self.stop) else { return };
        *stage = Stage::BeforeRun;
        stop.context = context;
        turn.record(record::Event::Signal(SignalEvent {
            deadline_us: Some(micros(stop.limit.allowed)),
            lead_us: Some(micros(stop.delay)).filter(|&delay| delay > 0),
            stop_timeout_us: self.unit.as_ref().and_then(Unit::shortest),
            ..record_events::begun(&stop.context)
        }));
        // From now on the shutdown thread watches the deadline, because it needs no runtime.
        turn.act(Action::WakeShutdownThread);
    }

    /// Handles a signal after the first one, once its sender has been looked up.
    fn repeat(&mut self, mut repeated: Box<RepeatedSignal>, turn: &mut Turn) {
        if let State::Capturing { repeated: waiting, .. } = &mut self.state {
            return waiting.push(*repeated);
        }
        if self.is_over() {
            return;
        }
        let Some(began) = self.stop.as_ref().map(|stop| stop.began) else { return };
        self.signalled(began + repeated.received_after, turn);
        let policy = self.config.escalation;
        // A teardown that has ended is neither cut short nor ended by force.
        let counts = policy.counts(repeated.cause) && !self.is_closing();
        let request =
            if counts { self.requests.escalate(began + repeated.received_after) } else { None };
        if !self.requests.may_list(request.is_some()) {
            return;
        }
        let effect = match (request, repeated.ordinal) {
            (None, None) => Effect::SameRequest,
            (None, Some(1)) => Effect::FirstSignal,
            (None, Some(_)) => Effect::Nothing,
            (Some(..=2), _) if policy != Escalation::Exit => {
                if self.escalate(turn) {
                    Effect::EndsDelay
                } else {
                    Effect::CutsShort
                }
            }
            (Some(_), _) => Effect::EndsProcess,
        };
        repeated.ended_delay = effect == Effect::EndsDelay;
        turn.log(LogEvent::Repeated(repeated.clone(), effect));
        turn.record(record_events::repeated(&repeated, self.requests.count()));
        if effect == Effect::EndsProcess {
            self.force(ExitReason::Signal(repeated.signal), turn);
        }
        if let Some(stop) = &mut self.stop {
            stop.repeated.push(*repeated);
        }
    }

    /// Escalates the stop: ends the pre-stop delay, or else lets only the phases with a reserve
    /// run. Returns whether it ended the delay.
    fn escalate(&mut self, turn: &mut Turn) -> bool {
        let ends_delay = self.end_delay(", cut short by an escalation", turn);
        if !ends_delay && let Some(stop) = self.tearing_down() {
            stop.pace = Pace::ReservedOnly;
            stop.adjust(turn);
        }
        ends_delay
    }

    /// Ends the pre-stop delay. If the context is still being captured, there will be no delay.
    /// Returns whether a delay had begun. The log line is `Pre-stop delay over`, followed by `why`.
    fn end_delay(&mut self, why: &'static str, turn: &mut Turn) -> bool {
        if let State::Capturing { may_delay, .. } = &mut self.state {
            *may_delay = false;
        }
        let (State::PreStopDelay { first, .. }, Some(stop)) = (&self.state, &mut self.stop) else {
            return false;
        };
        stop.delayed = turn.since(stop.began);
        turn.log(LogEvent::DelayEnded(stop.delayed, why));
        turn.act(Action::CancelToken);
        self.state = State::TearingDown(*first);
        true
    }

    fn diagnostic_ended(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.diagnostic_runs = false;
        }
    }

    fn tick(&mut self, turn: &mut Turn) {
        match self.state {
            State::PreStopDelay { until, .. } if turn.now >= until => {
                self.end_delay("", turn);
            }
            _ => {
                if let Some(stop) = self.tearing_down() {
                    stop.check_phases(turn);
                }
            }
        }
    }

    /// The stop, if its teardown is running.
    fn tearing_down(&mut self) -> Option<&mut Stop> {
        self.stop.as_mut().filter(|_| matches!(self.state, State::TearingDown(_)))
    }

    fn is_closing(&self) -> bool {
        matches!(self.state, State::TearingDown(Stage::Closing { .. }))
    }

    fn closed(&mut self) {
        if self.is_closing() {
            self.state = State::Finished;
        }
    }

    fn exit_expected(&mut self, now: Instant) {
        if let State::Finished = self.state {
            self.state = State::ExitExpected(now);
        }
    }

    /// Handles the end of a guard before its teardown has ended: `main` returned early, or a panic
    /// ends the process.
    fn guard_dropped(&mut self, panic: Option<Panic>, turn: &mut Turn) {
        // The exit status of a Rust program that panicked. With `panic = "abort"` it dies by
        // SIGABRT instead.
        const PANIC_STATUS: u8 = 101;
        // If the teardown has ended, its end is already recorded.
        self.closed();
        if self.is_over() {
            return;
        }
        let phases = self.unfinished();
        turn.log(match (&panic, &self.service) {
            (Some(panic), _) => LogEvent::Panicked { panic: panic.clone(), phases },
            (None, Service::NotRun) => LogEvent::Abandoned {
                what: "The guard was dropped, and run() was never called: no phase runs",
                phases,
            },
            (None, _) => LogEvent::Abandoned {
                what: "run() was left before its teardown had ended: no other phase starts",
                phases,
            },
        });
        let stopped = if let Some(Panic { message, location }) = panic {
            let at = location.iter().map(|place| format!(" at {}", Escaped(place)));
            let at: String = at.collect();
            self.tell_end(&format!("panicked{at}: {}", Escaped(&message)), None, turn);
            let stopped = self.stopped(ExitKind::Panicked, Some(PANIC_STATUS), turn);
            Stopped { panic: Some(message), location, ..stopped }
        } else {
            self.tell_end("dropped its guard before its teardown had ended", None, turn);
            self.stopped(ExitKind::Abandoned, None, turn)
        };
        turn.record(record::Event::Stopped(stopped));
        self.state = State::Finished;
    }

    /// The phases that have not ended, as text. `None` if there are none.
    fn unfinished(&self) -> Option<String> {
        let running = self.stop.iter().flat_map(|stop| stop.running.values());
        let running = running.map(|phase| format!("{} (running)", Value(&phase.key.name)));
        let waiting = self.plan.names().into_iter().map(|name| Value(&name).to_string());
        let all = running.chain(waiting).collect::<Vec<_>>().join(", ");
        Some(all).filter(|all| !all.is_empty())
    }

    /// The last event of the record, which says how the run has ended. `status` is `None` if the
    /// exit status is not known.
    fn stopped(&self, how: ExitKind, status: Option<u8>, turn: &Turn) -> Stopped {
        let total = self.stop.as_ref().map_or(Duration::ZERO, |stop| turn.since(stop.began));
        let mut stopped = Stopped::new(how, status.map(i32::from), micros(total));
        stopped.more_signals = Some(self.requests.unlisted()).filter(|&more| more > 0);
        stopped
    }
}

impl Stop {
    fn deadline(&self) -> Instant {
        self.began + self.limit.allowed
    }

    /// The phases and groups that have ended. The members of a group come before it.
    fn ended(&self) -> impl Iterator<Item = &PhaseReport> {
        self.reports.iter().flat_map(|step| step.members.iter().chain([step]))
    }
}
