//! A guard's machine, and everything that its actions need.
//!
//! An event is brought by the thread or task in which it happens: it is handed to the machine under
//! its mutex, and then the same thread performs the actions. Log lines, records and termination
//! messages are queued before the mutex is released, so that their order is the machine's.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use forensics_core::capture::{self, SignalInfo};
use forensics_core::clock;
use forensics_core::context::{ShutdownContext, StartupInfo};
use forensics_core::record::{self, Diag, DiagState, PostMortem, Run};
use forensics_core::secure_fs::Folder;
use forensics_core::threads::Thread;
use tokio::runtime::Handle;
use tokio::sync::{Notify, SetOnce, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use crate::blocking::run_with_timeout_or_here;
use crate::capture_context;
use crate::config::Config;
use crate::diagnostic;
use crate::lock::lock;
use crate::log_thread::{EMIT_LIMIT, LogThread};
use crate::machine::{Action, Awaited, Event, ExitReason, LogEvent, Machine, StepId};
use crate::message::TerminationMessage;
use crate::notify::Notifier;
use crate::outcome::Outcome;
use crate::phase_context::PhaseFn;
use crate::phases::Phases;
use crate::recorder::{FINISH_LIMIT, LAST_WRITE_LIMIT, Recorder};
use crate::report::ShutdownReport;
use crate::{describe, events, explain, shutdown_thread};

/// See the module's documentation.
pub(crate) struct Shutdown {
    pub(crate) config: Arc<Config>,
    startup: Arc<StartupInfo>,
    machine: Mutex<Machine>,
    pub(crate) log: LogThread,
    pub(crate) record: Recorder,
    pub(crate) message: TerminationMessage,
    pub(crate) notifier: Notifier,
    /// Whether the service takes traffic.
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) phases: Phases,
    /// What the service waits for.
    pub(crate) token: CancellationToken,
    /// The runtime in which the guard was installed.
    pub(crate) runtime: Handle,
    /// What `run()` waits for.
    pub(crate) awaited: watch::Sender<Awaited>,
    /// Changes with every event.
    pub(crate) changed: watch::Sender<()>,
    /// The context of the stop, once it has begun.
    pub(crate) context: SetOnce<Arc<ShutdownContext>>,
    /// Whether the service's future is there.
    pub(crate) service_running: watch::Sender<bool>,
    /// The shutdown thread asks the runtime for a sign of life.
    pub(crate) runtime_asked: Notify,
    /// Tells the diagnostic that no time is left for it.
    diagnostic_deadline: Arc<Notify>,
    /// How the previous run ended.
    pub(crate) previous: Option<PostMortem>,
    /// How many signals had found no free slot when the guard was installed.
    missed_before: u64,
    /// The threads soon after the stop began, for the CPU time of each.
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
        let last = |dir| Run::last_in(&Folder::open(dir).ok()?).ok().flatten();
        let previous = config.record_dir.as_deref().and_then(last);
        if let Some(run) = &previous {
            events::previous(&run.post_mortem);
            #[cfg(feature = "metrics")]
            crate::metrics::report(run);
        }
        let record = Recorder::open(&config, &startup);
        if let Some(failure) = record.failure_to_log() {
            events::not_recorded(&failure);
        }
        let config = Arc::new(config);
        let machine = Machine::new(config.clone(), notifier.is_connected(), message.is_open());
        Arc::new(Self {
            config,
            startup: Arc::new(startup),
            machine: Mutex::new(machine),
            log: LogThread::new(),
            record,
            message,
            notifier,
            ready: watch::Sender::default(),
            phases: Phases::default(),
            token: CancellationToken::new(),
            runtime,
            awaited: watch::Sender::default(),
            changed: watch::Sender::default(),
            context: SetOnce::new(),
            service_running: watch::Sender::new(true),
            runtime_asked: Notify::new(),
            diagnostic_deadline: Arc::default(),
            previous: previous.map(|run| run.post_mortem),
            missed_before: capture::overflow_count(),
            threads_before: OnceLock::new(),
        })
    }

    /// Now, on the clock that everything about a stop is measured by: the runtime's. It is the real
    /// one, unless a test has paused it.
    pub(crate) fn now(&self) -> Instant {
        let _in = self.runtime.enter();
        Instant::now()
    }

    /// Brings an event: hands it to the machine, and performs what follows.
    pub(crate) fn handle(self: &Arc<Self>, event: Event) {
        let actions = self.decide(event);
        self.perform(actions);
    }

    /// The first half of [`handle`](Self::handle), which never blocks. Returns the actions that are left
    /// for [`perform`](Self::perform).
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
        // Under the lock, so that the last one is sent last.
        let awaited = machine.awaited();
        self.awaited.send_if_modified(|before| std::mem::replace(before, awaited) != awaited);
        drop(machine);
        self.changed.send_replace(());
        left
    }

    /// The second half.
    pub(crate) fn perform(self: &Arc<Self>, actions: Vec<Action>) {
        let actions = self.perform_urgent(actions);
        self.log.queue.start();
        self.record.queue.start();
        self.message.start();
        for action in actions {
            self.perform_one(action);
        }
    }

    /// Performs the first part of the second half: what the service waits for. Returns the actions that
    /// are left. The threads of the log and the like are started only with those, because starting a
    /// thread takes longer on a busy host than all of this.
    pub(crate) fn perform_urgent(&self, actions: Vec<Action>) -> Vec<Action> {
        let mut left = Vec::new();
        for action in actions {
            match action {
                Action::CaptureContext { trigger, signal } => {
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
            LogEvent::Forced(detail) => Some(format!("Shutdown forced: {detail}")),
            // The subscriber is not asked whether it wants them, since it may block.
            LogEvent::PhaseStarted { .. } if LevelFilter::current() < LevelFilter::DEBUG => return,
            LogEvent::PhaseFinished { report, .. }
                if report.outcome == Outcome::Ok && LevelFilter::current() < LevelFilter::INFO =>
            {
                return;
            }
            _ => None,
        };
        let phases = self.phases.clone();
        self.log.push(text, move || events::emit(event, &phases));
    }

    fn perform_one(self: &Arc<Self>, action: Action) {
        match action {
            // By `decide` and `perform_urgent`.
            Action::Log(_)
            | Action::Record(_)
            | Action::WriteMessage { .. }
            | Action::BecomeReady
            | Action::EndReadiness
            | Action::CaptureContext { .. }
            | Action::CancelToken => {}
            Action::CompleteContext(mut context) => {
                self.phases.set_stop(&self.config.service, context.clone());
                capture_context::complete(&self.startup, Arc::make_mut(&mut context));
                // A stop begins once, so this is the first.
                let _ = self.context.set(context.clone());
                self.handle(Event::ContextCompleted(context));
            }
            Action::ResolveSender(signal, mut repeated) => {
                repeated.sender = capture_context::resolve_sender(&self.startup, &signal);
                self.handle(Event::SignalRepeated(repeated));
            }
            Action::SetStatus(text) => self.notifier.status(&text),
            Action::ExplainStop(context) => {
                drop(self.runtime.spawn(explain::explain_stop(self.clone(), context)));
            }
            Action::StartDiagnostic(context) => {
                drop(self.runtime.spawn(self.clone().run_diagnostic(context)));
            }
            Action::EndDiagnostic => self.diagnostic_deadline.notify_one(),
            Action::StartPhase(phase, context) => self.phases.start(self, phase, context),
            Action::DropPhase(phase) => {
                if let Some(values) = self.phases.drop_phase(phase) {
                    self.handle(Event::PhaseProgressed(phase, values));
                }
            }
            Action::AskRuntime => self.runtime_asked.notify_one(),
            Action::ReportStall { what, stalled } => {
                let detail = describe::describe(self, &what);
                self.handle(Event::StallDescribed { stalled, detail });
            }
            // Only the shutdown thread ends the process.
            Action::WakeShutdownThread | Action::Exit => capture::wake(),
        }
    }

    /// Asks for a stop without a signal. One that is already on its way comes first.
    pub(crate) fn request(self: &Arc<Self>, event: Event) {
        shutdown_thread::perform(shutdown_thread::take_in());
        self.handle(event);
    }

    /// When the OS handler saw this signal, by [`now`](Self::now).
    pub(crate) fn time_of(&self, captured: &SignalInfo) -> Instant {
        let since = clock::mono_us().saturating_sub(captured.mono_ns / 1000);
        let now = self.now();
        now.checked_sub(Duration::from_micros(since)).unwrap_or(now)
    }

    /// How many signals have found no free slot since the guard was installed.
    pub(crate) fn missed(&self) -> u64 {
        capture::overflow_count().saturating_sub(self.missed_before)
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }

    /// Registers a phase with the plan, and keeps its closure.
    pub(crate) fn register(
        &self,
        name: &str,
        push: impl FnOnce(&mut Machine) -> (StepId, Option<String>),
        work: Option<PhaseFn>,
    ) -> StepId {
        let mut machine = self.machine();
        let is_late = machine.is_over();
        let (id, error) = push(&mut machine);
        if let Some(work) = work.filter(|_| !is_late) {
            // Under the lock, so that it is there when the machine starts the phase.
            self.phases.add(id, work);
        }
        drop(machine);
        let late = || format!("phase `{name}` was registered after the teardown: it does not run");
        if let Some(error) = error.or_else(|| is_late.then(late)) {
            self.log.emit(move || events::registration_error(&error));
        }
        id
    }

    /// Records and logs that the process is ended by force, and writes out what is buffered. Blocks, with
    /// a limit on each step if a thread can be started.
    pub(crate) fn last_words(self: &Arc<Self>, reason: ExitReason) {
        let detail = match reason {
            ExitReason::Signal(_) => reason.text(),
            _ => describe::describe(self, &reason.text()),
        };
        self.handle(Event::ExitDescribed(detail));
        self.record.flush(LAST_WRITE_LIMIT);
        self.log.finish(EMIT_LIMIT);
        for hook in &self.config.on_forced_exit {
            let hook = hook.clone();
            run_with_timeout_or_here(EMIT_LIMIT, move || (hook.0)());
        }
        self.message.finish();
    }

    /// Writes everything that is left to write at the end of a teardown.
    pub(crate) fn close(self: &Arc<Self>, report: &ShutdownReport) {
        self.record.flush(FINISH_LIMIT);
        if let Some(failure) = self.record.failure_to_log() {
            self.log.emit(move || events::not_recorded(&failure));
        }
        if report.unlisted_signals > 0 {
            let more = report.unlisted_signals;
            self.log.emit(move || events::unlisted_signals(more));
        }
        if let Some(failure) = self.message.failure() {
            self.log.emit(move || events::no_termination_message(&failure));
        }
        let (phases, report) = (self.phases.clone(), report.clone());
        self.log.emit(move || {
            events::complete(&report);
            phases.end_spans();
        });
        self.log.finish(FINISH_LIMIT);
        self.message.finish();
        self.handle(Event::Closed);
    }

    /// Writes what is left if no teardown has ended: the guard is dropped, or a panic ends the run.
    pub(crate) fn flush(&self) {
        self.record.flush(FINISH_LIMIT);
        self.message.finish();
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
        self.log.emit(move || events::diagnostic_ended(&path, ended));
        self.handle(Event::DiagnosticEnded);
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("service", &self.config.service).finish_non_exhaustive()
    }
}
