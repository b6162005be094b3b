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
use forensics_core::escape::Escaped;
use forensics_core::record::{self, ExitKind, SignalEvent, Stopped};
use tokio::time::Instant;

pub(crate) use self::budget::Seconds;
pub use self::budget::WorstCase;
pub(crate) use self::event::{Action, Event, ExitReason, LogEvent, PhaseEnd, PhaseKey};
pub(crate) use self::limit::Unit;
use self::plan::Plan;
pub(crate) use self::plan::{StepId, Work};
#[cfg(feature = "testing")]
pub(crate) use self::requests::SAME_REQUEST;
pub(crate) use self::stall::FORCED_STATUS;
#[cfg(feature = "testing")]
pub(crate) use self::stall::LATE_AFTER;

use self::budget::Budget;
use self::requests::Requests;
use self::stall::Stall;
use crate::capture_context::Caught;
use crate::config::{Config, Escalation};
use crate::outcome::{Outcome, ServiceOutcome};
use crate::panics::Panic;
use crate::record_events;
use crate::record_events::micros;
use crate::recorded::Values;
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
    /// What is known of the stop. Absent until its context is captured.
    stop: Option<Stop>,
}

/// The state of a stop. There is no other: everything else says what is known in a state.
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
    PreStopDelay {
        until: Instant,
        /// The stage in which the teardown begins.
        first: Stage,
    },
    /// The token is cancelled, and the phases run.
    TearingDown(Stage),
    /// The teardown has ended, and `run` has returned; or the guard is gone, with or without a stop.
    Finished,
    /// The teardown has ended, and since then the process is expected to end.
    ExitExpected(Instant),
    /// We end the process.
    Exiting(ExitReason),
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
    /// Whether the diagnostic's task runs.
    diagnostic_runs: bool,
    /// Grows with everything that a phase gets done.
    progress: u64,
    /// The progress at which the termination message was last written.
    told: Option<u64>,
    stall: Stall,
}

/// What still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Full,
    /// Only phases with a reserve, because the stop was escalated.
    ReservedOnly,
}

/// A phase that has not ended.
#[derive(Clone)]
struct RunningPhase {
    key: PhaseKey,
    due: Budget,
    /// When it is dropped, as it stands now.
    end: Instant,
    /// When it is named the next time as still running.
    next_notice: Instant,
    dropped: Option<Dropped>,
    values: Values,
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
    /// The members that have ended. Their ids are in the order of registration.
    members: BTreeMap<StepId, PhaseReport>,
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

    fn since(&self, earlier: Instant) -> Duration {
        self.now.saturating_duration_since(earlier)
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
            stop: None,
        }
    }

    /// Takes in an event. The actions are to be performed in their order.
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
            Event::PhaseEnded(phase, end, values) => self.phase_ended(phase, end, values, turn),
            Event::DiagnosticEnded => self.diagnostic_ended(),
            Event::UnitKnown(unit) => drop(self.unit.get_or_insert(unit)),
            Event::Extended(allowed) => self.extend(allowed, turn),
            Event::RuntimeAnswered => self.runtime_answered(),
            Event::Tick => self.tick(turn),
            Event::Watched { missed } => self.watch(missed, turn),
            Event::StallDescribed { stalled, detail } => {
                self.stall_described(stalled, detail, turn);
            }
            Event::ExitDescribed(detail) => self.exit_described(detail, turn),
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

    /// Whether [`Event::Watched`] is due four times a second.
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

    /// Whether signals mean nothing to us any more. A teardown that is [closing](Stage::Closing) is not
    /// over.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Finished | State::ExitExpected(_) | State::Exiting(_))
    }

    /// Why the process is to be ended, if it is.
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

    /// The report of a teardown that has ended, while `run` is about to return.
    pub(crate) fn report(&self) -> Option<ShutdownReport> {
        let State::TearingDown(Stage::Closing { since }) = self.state else { return None };
        let stop = self.stop.as_ref()?;
        let timed_out = |phase: &PhaseReport| phase.outcome == Outcome::TimedOut;
        let mut report = ShutdownReport {
            service: self.config.service.clone(),
            context: ShutdownContext::clone(&stop.context),
            timed_out: stop.ended().any(timed_out),
            phases: stop.reports.clone(),
            service_outcome: match &self.service {
                Service::Ended(outcome) => outcome.clone(),
                _ => ServiceOutcome::Dropped,
            },
            repeated_signals: stop.repeated.clone(),
            unlisted_signals: self.requests.unlisted(),
            errors: self.plan.errors.clone(),
            deadline: stop.allowed,
            pre_stop_delay: stop.delayed,
            total: since.saturating_duration_since(stop.began),
            exit_status: 0,
        };
        if report.is_failed() {
            report.exit_status = self.config.failure_status;
        }
        Some(report)
    }

    /// For how long another signal is the same request as the last one.
    pub(crate) fn same_request_for(&self, now: Instant) -> Duration {
        self.requests.same_for(now)
    }

    /// When a stop that has begun must have ended.
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
            allowed: stop.allowed,
            progress: stop.progress,
        })
    }

    /// When a phase that runs is dropped.
    pub(crate) fn phase_end(&self, phase: StepId) -> Option<Instant> {
        Some(self.stop.as_ref()?.running.get(&phase)?.end)
    }

    /// What the pre-stop delay and the phases registered so far may take.
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
        if self.requests.may_list(ordinal) {
            let repeated = RepeatedSignal {
                signal: signal.captured.signal,
                sender: None,
                ordinal,
                received_after: at.saturating_duration_since(began),
                ended_delay: false,
            };
            turn.act(Action::ResolveSender(signal, Box::new(repeated)));
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
            began,
            allowed,
            allowed_why,
            delay: planned,
            delayed: Duration::ZERO,
            pace: Pace::Full,
            repeated: Vec::new(),
            running: BTreeMap::new(),
            group: None,
            reports: Vec::new(),
            phase_timer: None,
            diagnostic_runs,
            progress: 0,
            told: None,
            stall: Stall::default(),
        });
        for one in repeated {
            self.repeat(Box::new(one), turn);
        }
    }

    /// The context has all that the record shows: now the stop is recorded.
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
            deadline_us: Some(micros(stop.allowed)),
            lead_us: Some(micros(stop.delay)).filter(|&delay| delay > 0),
            stop_timeout_us: self.unit.map(|unit| unit.stop_timeout),
            ..record_events::begun(&stop.context)
        }));
        // The deadline is watched from here on, by the thread that needs no runtime.
        turn.act(Action::WakeShutdownThread);
    }

    /// Takes in a signal after the first one, whose sender is known by now.
    fn repeat(&mut self, mut repeated: Box<RepeatedSignal>, turn: &mut Turn) {
        if let State::Capturing { repeated: waiting, .. } = &mut self.state {
            return waiting.push(*repeated);
        }
        if self.is_over() {
            return;
        }
        let escalation = self.config.escalation;
        let (signal, ordinal) = (repeated.signal, repeated.ordinal);
        let cuts = escalation == Escalation::SkipThenExit && ordinal >= Some(2);
        repeated.ended_delay = cuts && self.escalate(turn);
        turn.log(LogEvent::Repeated(repeated.clone(), escalation));
        turn.record(record_events::repeated(&repeated, self.requests.count));
        if let Some(stop) = &mut self.stop {
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
        let ends_delay = self.end_delay(", cut short by an escalation", turn);
        if !ends_delay && let Some(stop) = self.tearing_down() {
            stop.pace = Pace::ReservedOnly;
            stop.adjust(turn);
        }
        ends_delay
    }

    /// Ends the pre-stop delay if it has begun; otherwise there will be none. Returns whether it had begun.
    /// The log says `why` after `Pre-stop delay over`.
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

    fn extend(&mut self, allowed: Duration, turn: &mut Turn) {
        if let Some(stop) = &mut self.stop {
            stop.allowed = allowed;
            stop.adjust(turn);
        }
    }

    fn tick(&mut self, turn: &mut Turn) {
        match self.state {
            State::PreStopDelay { until, .. } if turn.now >= until => {
                self.end_delay("", turn);
            }
            _ => {
                if let Some(stop) = self.tearing_down() {
                    stop.look_at_phases(turn);
                }
            }
        }
    }

    /// The stop, while its teardown runs.
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

    /// The guard goes before its teardown has ended: `main` returned early, or a panic ends the run.
    fn guard_dropped(&mut self, panic: Option<Panic>, turn: &mut Turn) {
        // The status of a Rust program that panicked. With `panic = "abort"` it dies by SIGABRT instead.
        const PANIC_STATUS: u8 = 101;
        // The end of a teardown is recorded once.
        self.closed();
        if self.is_over() {
            return;
        }
        let stopped = if let Some(Panic { message, location }) = panic {
            let at = location.iter().map(|place| format!(" at {}", Escaped(place)));
            let at: String = at.collect();
            self.write_message(&format!("panicked{at}: {}", Escaped(&message)), None, true, turn);
            let stopped = self.stopped(ExitKind::Panicked, Some(PANIC_STATUS), turn);
            Stopped { panic: Some(message), location, ..stopped }
        } else {
            self.write_message("left its guard before its teardown had ended", None, true, turn);
            self.stopped(ExitKind::Abandoned, None, turn)
        };
        turn.record(record::Event::Stopped(stopped));
        self.state = State::Finished;
    }

    /// The last event of the record: the run has ended. The exit status is absent if it is not known.
    fn stopped(&self, how: ExitKind, status: Option<u8>, turn: &Turn) -> Stopped {
        let total = self.stop.as_ref().map_or(Duration::ZERO, |stop| turn.since(stop.began));
        let mut stopped = Stopped::new(how, status.map(i32::from), micros(total));
        stopped.more_signals = Some(self.requests.unlisted()).filter(|&more| more > 0);
        stopped
    }
}

impl Stop {
    fn deadline(&self) -> Instant {
        self.began + self.allowed
    }

    /// The phases and groups that have ended; the members of a group before it.
    fn ended(&self) -> impl Iterator<Item = &PhaseReport> {
        self.reports.iter().flat_map(|step| step.members.iter().chain([step]))
    }
}
