//! A guard's state machine, and everything that its actions need.
//!
//! Each event is handled by the thread or task in which it happens: it passes the event to the
//! machine, under a mutex, and then performs the returned actions. Log lines, records and
//! termination messages are queued before the mutex is released, so that they have the order of the
//! machine.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use forensics_core::capture::{self, SignalInfo};
use forensics_core::clock;
use forensics_core::context::{ShutdownContext, StartupInfo};
use forensics_core::escape::error_chain;
use forensics_core::record::{self, Before, Diag, DiagState, PostMortem};
use forensics_core::secure_fs::Folder;
use forensics_core::threads::Thread;
use tokio::runtime::Handle;
use tokio::sync::{Notify, SetOnce, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::blocking::run_with_timeout_or_here;
use crate::capture_context;
use crate::config::Config;
use crate::describe::READ_LIMIT;
use crate::diagnostic::{self, OpenedLog};
use crate::lock::lock;
use crate::log_thread::LogThread;
use crate::machine::{Action, Awaited, Event, ExitReason, LogEvent, Machine, StepId, Work};
use crate::message::{TerminationMessage, WRITE_LIMIT};
use crate::notify::Notifier;
use crate::phase_context::PhaseFn;
use crate::phases::Phases;
use crate::recorder::{FINISH_LIMIT, LAST_WRITE_LIMIT, Recorder};
use crate::report::ShutdownReport;
use crate::sinks::{self, EMIT_LIMIT};
use crate::spans::Spans;
use crate::{describe, events, explain, previous_run, shutdown_thread};

/// See the module's documentation.
pub(crate) struct Shutdown {
    pub(crate) config: Arc<Config>,
    startup: Arc<StartupInfo>,
    machine: Mutex<Machine>,
    pub(crate) log: LogThread,
    pub(crate) record: Recorder,
    pub(crate) message: TerminationMessage,
    pub(crate) notifier: Notifier,
    /// Whether the service is ready for traffic.
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) phases: Phases,
    pub(crate) spans: Spans,
    /// The token that is cancelled when the teardown begins. The service waits for it.
    pub(crate) token: CancellationToken,
    /// The runtime in which the guard was installed.
    pub(crate) runtime: Handle,
    /// What `run()` waits for.
    pub(crate) awaited: watch::Sender<Awaited>,
    /// Notified after every event.
    pub(crate) changed: watch::Sender<()>,
    /// The context of the stop, once it has begun.
    pub(crate) context: SetOnce<Arc<ShutdownContext>>,
    /// Whether the service's future still exists.
    pub(crate) service_running: watch::Sender<bool>,
    /// Notified when the runtime has to show that it still answers.
    pub(crate) runtime_asked: Notify,
    /// Notified when systemd has to be asked about the stop again.
    pub(crate) ask_again: Notify,
    /// Tells the diagnostic that no time is left for it.
    diagnostic_deadline: Arc<Notify>,
    /// The log of the diagnostic, as it was opened at the start.
    diag_log: OpenedLog,
    /// How the previous run ended.
    pub(crate) previous: Option<PostMortem>,
    /// How many signals had found no free slot when the guard was installed.
    missed_before: u64,
    /// The threads soon after the stop began, to compute the CPU time that each uses from then on.
    pub(crate) threads_before: OnceLock<Vec<Thread>>,
}

impl Shutdown {
    /// Reads the record of the last run, and begins the record of this one.
    pub(crate) fn new(
        config: Config,
        mut startup: StartupInfo,
        notifier: Notifier,
        message: TerminationMessage,
        runtime: Handle,
    ) -> Arc<Self> {
        startup.markers.clone_from(&config.markers);
        // A folder that does not exist yet has no last run. `Recorder::open` reports a folder that cannot
        // be read, or that another user could have written to.
        let read = |dir| Before::read(&Folder::open(dir).ok()?, &config.service).ok();
        let before = config.record_dir.as_deref().and_then(read).unwrap_or_default();
        if let Some(run) = &before.previous {
            events::previous(&run.post_mortem);
            #[cfg(feature = "metrics")]
            crate::metrics::report(run);
        }
        if let Some(error) = &before.unreadable {
            events::previous_unreadable(&error_chain(error));
        }
        if let Some(dir) = config.record_dir.as_deref().filter(|_| !before.others.is_empty()) {
            events::record_dir_shared(dir, &before.others);
        }
        let record = Recorder::open(&config, &startup);
        if let Some(failure) = record.failure_to_log() {
            events::not_recorded(&failure);
        }
        if let Some(why) = record.not_removed() {
            events::records_not_removed(why);
        }
        let diag_log = config.diag_log.as_deref().map(OpenedLog::open).unwrap_or_default();
        let config = Arc::new(config);
        let previous = before.previous.as_ref().map(|run| run.post_mortem.clone());
        let machine = Machine::new(config.clone(), notifier.is_connected(), message.is_open());
        let shutdown = Arc::new(Self {
            config,
            startup: Arc::new(startup),
            machine: Mutex::new(machine),
            log: LogThread::new(),
            record,
            message,
            notifier,
            ready: watch::Sender::default(),
            phases: Phases::default(),
            spans: Spans::default(),
            token: CancellationToken::new(),
            runtime,
            awaited: watch::Sender::default(),
            changed: watch::Sender::default(),
            context: SetOnce::new(),
            service_running: watch::Sender::new(true),
            runtime_asked: Notify::new(),
            ask_again: Notify::new(),
            diagnostic_deadline: Arc::default(),
            diag_log,
            previous,
            missed_before: capture::overflow_count(),
            threads_before: OnceLock::new(),
        });
        if let Some(run) = before.previous.filter(previous_run::has_questions) {
            let ask = previous_run::ask_witnesses(shutdown.clone(), run);
            drop(shutdown.runtime.spawn(ask));
        }
        shutdown
    }

    /// The current time of the runtime's clock, which measures everything about a stop. It is the
    /// real clock, unless a test has paused it.
    pub(crate) fn now(&self) -> Instant {
        let _in = self.runtime.enter();
        Instant::now()
    }

    /// Handles an event: passes it to the machine, and performs the returned actions.
    pub(crate) fn handle(self: &Arc<Self>, event: Event) {
        let actions = self.decide(event);
        self.perform(actions);
    }

    /// The first half of [`handle`](Self::handle), which never blocks: passes an event to the
    /// machine, and performs the actions that cannot block. Returns the other actions, for
    /// [`perform`](Self::perform).
    pub(crate) fn decide(&self, event: Event) -> Vec<Action> {
        let now = self.now();
        let mut left = Vec::new();
        let mut machine = self.machine();
        for action in machine.handle(event, now) {
            match action {
                Action::Record(event) => self.record.push(event),
                Action::Log(event) => self.queue_log(event),
                Action::WriteMessage { text, is_last } => self.message.push(text, is_last),
                Action::BecomeReady => {
                    self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
                    self.notifier.ready();
                }
                Action::EndReadiness => drop(self.ready.send_replace(false)),
                other => left.push(other),
            }
        }
        // Sent under the lock, so that the last value is sent last.
        let awaited = machine.awaited();
        self.awaited.send_if_modified(|before| std::mem::replace(before, awaited) != awaited);
        drop(machine);
        self.changed.send_replace(());
        left
    }

    /// The second half of [`handle`](Self::handle): performs the actions that `decide` has
    /// returned.
    pub(crate) fn perform(self: &Arc<Self>, actions: Vec<Action>) {
        let actions = self.perform_urgent(actions);
        self.log.queue.start();
        self.record.queue.start();
        self.message.queue.start();
        for action in actions {
            self.perform_one(action);
        }
    }

    /// Performs only the actions that the service waits for, and returns the others. The threads of
    /// the log, the record and the message are started later, because on a busy host starting a
    /// thread takes longer than these actions.
    pub(crate) fn perform_urgent(&self, actions: Vec<Action>) -> Vec<Action> {
        let mut left = Vec::new();
        for action in actions {
            match action {
                Action::CaptureContext { trigger, signal } => {
                    // Before the first line is logged. The reader of stderr may be gone.
                    capture::survive_broken_pipes();
                    let context =
                        capture_context::capture(&self.startup, trigger, signal.as_deref());
                    let actions = self.decide(Event::ContextCaptured(Box::new(context)));
                    left.extend(self.perform_urgent(actions));
                }
                Action::CancelToken => self.token.cancel(),
                other => left.push(other),
            }
        }
        left
    }

    fn queue_log(&self, event: LogEvent) {
        let text = match &event {
            LogEvent::Context(context) => Some(format!("Shutdown context: {context}")),
            LogEvent::Stalled(detail) => Some(format!("Shutdown stalled: {detail}")),
            LogEvent::Forced(detail, _) => Some(format!("Shutdown forced: {detail}")),
            // The subscriber is not asked whether it wants this event, because it may block.
            LogEvent::PhaseStarted { .. } if !sinks::may_want(Level::DEBUG) => return,
            _ => None,
        };
        let spans = self.spans.clone();
        self.log.push(text, move || events::emit(event, &spans));
    }

    fn perform_one(self: &Arc<Self>, action: Action) {
        match action {
            // Already performed by `decide` or `perform_urgent`.
            Action::Log(_)
            | Action::Record(_)
            | Action::WriteMessage { .. }
            | Action::BecomeReady
            | Action::EndReadiness
            | Action::CaptureContext { .. }
            | Action::CancelToken => {}
            Action::CompleteContext(mut context) => {
                self.spans.set_stop(&self.config.service, context.clone());
                capture_context::complete(&self.startup, Arc::make_mut(&mut context));
                // It is not set yet, because a stop begins only once.
                let _ = self.context.set(context.clone());
                self.handle(Event::ContextCompleted(context));
            }
            Action::ResolveSender(signal, mut repeated) => {
                // It may be that systemd has begun to stop the unit.
                self.ask_again.notify_one();
                (repeated.sender, repeated.cause) =
                    capture_context::resolve_sender(&self.startup, &signal);
                self.handle(Event::SignalRepeated(repeated));
            }
            Action::SetStatus(text) => self.notifier.status(&text),
            Action::ExplainStop(context) => {
                drop(self.runtime.spawn(explain::explain(self.clone(), context)));
            }
            Action::StartDiagnostic(context) => {
                drop(self.runtime.spawn(self.clone().run_diagnostic(context)));
            }
            Action::EndDiagnostic => self.diagnostic_deadline.notify_one(),
            Action::StartPhase(phase, context) => self.phases.start(self, phase, context),
            Action::DropPhase(phase) => {
                if let Some((values, is_polled)) = self.phases.drop_phase(phase) {
                    self.handle(Event::PhaseProgressed(phase, values));
                    if is_polled {
                        self.handle(Event::PhaseDroppedInPoll(phase));
                    }
                }
            }
            Action::AskRuntime => self.runtime_asked.notify_one(),
            Action::ReportStall { what, stalled } => {
                let detail = describe::describe(self, &what, READ_LIMIT);
                self.handle(Event::StallDescribed { stalled, detail });
            }
            // Only the shutdown thread ends the process.
            Action::WakeShutdownThread | Action::Exit => capture::wake(),
        }
    }

    /// Requests a stop without a signal. A signal that has already arrived is handled first.
    pub(crate) fn request(self: &Arc<Self>, event: Event) {
        shutdown_thread::perform(shutdown_thread::receive_signals());
        self.handle(event);
    }

    /// When the OS handler received this signal, by the clock of [`now`](Self::now).
    pub(crate) fn time_of(&self, captured: &SignalInfo) -> Instant {
        let since = clock::mono_us().saturating_sub(captured.mono_ns / 1000);
        let now = self.now();
        now.checked_sub(Duration::from_micros(since)).unwrap_or(now)
    }

    /// The time `mono_us` of `CLOCK_MONOTONIC`, by the clock of [`now`](Self::now). `None` if it is
    /// in the future.
    pub(crate) fn instant_of(&self, mono_us: u64) -> Option<Instant> {
        let since = clock::mono_us().checked_sub(mono_us)?;
        self.now().checked_sub(Duration::from_micros(since))
    }

    /// How many signals have found no free slot since the guard was installed.
    pub(crate) fn missed(&self) -> u64 {
        capture::overflow_count().saturating_sub(self.missed_before)
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }

    /// Registers a phase with the plan, and keeps its closure. Without a closure it is a group.
    pub(crate) fn register(
        &self,
        name: &str,
        group: Option<StepId>,
        work: Option<PhaseFn>,
    ) -> StepId {
        let mut machine = self.machine();
        let is_late = machine.is_over();
        let kind = if work.is_some() { Work::Phase } else { Work::Group(Vec::new()) };
        let (id, error) = machine.plan.push(name, group, kind);
        if let Some(work) = work.filter(|_| !is_late) {
            // Added under the lock, so that the closure is there when the machine starts the phase.
            self.phases.add(id, work);
        }
        drop(machine);
        let late = || format!("phase `{name}` was registered after the teardown: it does not run");
        if let Some(error) = error.or_else(|| is_late.then(late)) {
            self.log.emit(move || events::registration_error(&error));
        }
        id
    }

    /// Records and logs that the process is ended by force, and flushes the record, the log and the
    /// termination message. Blocks, with a limit on each step if a thread can be started. All steps
    /// together end before the supervisor's SIGKILL, if the time of that is known.
    pub(crate) fn report_forced_exit(self: &Arc<Self>, reason: ExitReason) {
        let left = self.machine().killed_at().map(|at| at.saturating_duration_since(self.now()));
        // The last third of that is for a busy host.
        let by = left.filter(|left| !left.is_zero()).map(|left| self.now() + left * 2 / 3);
        let within = |limit: Duration| {
            by.map_or(limit, |by| limit.min(by.saturating_duration_since(self.now())))
        };
        let detail = match reason {
            ExitReason::Signal(_) => reason.text(),
            _ => describe::describe(self, &reason.text(), within(READ_LIMIT) / 2),
        };
        self.handle(Event::ExitDescribed(detail.clone()));
        self.record.flush(within(LAST_WRITE_LIMIT));
        self.log.finish(within(EMIT_LIMIT));
        for hook in &self.config.on_forced_exit {
            let hook = hook.clone();
            run_with_timeout_or_here(within(EMIT_LIMIT), move || (hook.0)());
        }
        self.handle(Event::Exiting(detail));
        self.message.finish(within(WRITE_LIMIT));
        self.notifier.flush();
        self.record.flush(within(LAST_WRITE_LIMIT));
    }

    /// Flushes the record, the log and the termination message at the end of a teardown.
    pub(crate) fn close(self: &Arc<Self>, report: &ShutdownReport) {
        self.record.flush(FINISH_LIMIT);
        if let Some(failure) = self.record.failure_to_log() {
            self.log.emit(move || events::not_recorded(&failure));
        }
        if let Some((loss, path)) = self.record.restored() {
            let path = path.to_owned();
            self.log.emit(move || events::record_restored(&path, loss));
        }
        if report.unlisted_signals > 0 {
            let more = report.unlisted_signals;
            self.log.emit(move || events::unlisted_signals(more));
        }
        if let Some(failure) = self.message.failure() {
            self.log.emit(move || events::no_termination_message(&failure));
        }
        let (spans, report) = (self.spans.clone(), report.clone());
        self.log.emit(move || {
            events::complete(&report);
            spans.close_all();
        });
        self.log.finish(FINISH_LIMIT);
        self.message.finish(WRITE_LIMIT);
        self.notifier.flush();
        self.handle(Event::Closed);
    }

    /// Flushes the record, the log and the termination message if no teardown has ended, because
    /// the guard is dropped or a panic ends the process.
    pub(crate) fn flush(&self) {
        self.record.flush(FINISH_LIMIT);
        self.log.finish(FINISH_LIMIT);
        self.message.finish(WRITE_LIMIT);
        self.notifier.flush();
    }

    /// Runs the diagnostic, and logs and records how it ended.
    async fn run_diagnostic(self: Arc<Self>, context: Arc<ShutdownContext>) {
        let Some(path) = self.config.diag_log.clone() else { return };
        let note = |state, error| {
            let path = Some(path.to_string_lossy().into_owned());
            self.record.push(record::Event::Diag(Diag { path, error, ..Diag::new(state) }));
            self.record.queue.start();
        };
        note(DiagState::Started, None);
        let plan = diagnostic::Plan {
            command: self.config.diag_command.clone(),
            log: path.clone(),
            opened: self.diag_log.clone(),
            service: self.config.service.clone(),
            unit: context.systemd.unit.clone(),
            deadline: self.diagnostic_deadline.clone(),
        };
        let ended = diagnostic::run(plan, context.to_string()).await;
        match &ended {
            Ok(Some(_)) => {}
            Ok(None) => note(DiagState::Finished, None),
            Err(e) => note(e.state, Some(e.to_string())),
        }
        let is_known = self.diag_log.is_refused;
        self.log.emit(move || events::diagnostic_ended(&path, ended, is_known));
        self.handle(Event::DiagnosticEnded);
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("service", &self.config.service).finish_non_exhaustive()
    }
}
