//! Setting up a guard.

mod alignment;
pub(crate) mod environment;
pub(crate) mod install_error;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::capture::{install, is_ignored};
use forensics_core::context::StartupInfo;
use forensics_core::record::Run;
use forensics_core::secure_fs::Folder;
use forensics_core::{process, secret};
use tokio::runtime::Handle;

use self::install_error::InstallError;
use crate::blocking::run_with_timeout;
use crate::config::{Callback, Config, Escalation};
use crate::diag::DiagCommand;
use crate::guard::ShutdownGuard;
use crate::listener::Listeners;
use crate::message::TerminationMessage;
use crate::notify::{Notifier, watchdog};
use crate::recorder::Recorder;
use crate::shutdown::{Outlets, Shutdown};
use crate::{events, listener, low_latency, panics, shutdown_thread};

/// How long the parent's command line is waited for at the start.
const CMDLINE_LIMIT: Duration = Duration::from_millis(50);

/// What a guard should do; see [`ShutdownGuard::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing is guarded until `install` is called"]
pub struct Builder {
    pub(crate) config: Config,
}

impl ShutdownGuard {
    /// Returns a builder of a guard for the service of this name, which is shown in logs and records.
    pub fn builder(service: impl Into<String>) -> Builder {
        Builder { config: Config::new(service.into()) }
    }
}

impl Builder {
    fn set(mut self, set: impl FnOnce(&mut Config)) -> Self {
        set(&mut self.config);
        self
    }

    /// The signals that ask for a stop: by default SIGTERM, SIGINT, SIGHUP and SIGQUIT. A SIGHUP that
    /// was ignored when the process started, as under nohup(1), stays ignored.
    pub fn signals(self, signals: impl IntoIterator<Item = Signal>) -> Self {
        self.set(|config| config.signals = signals.into_iter().collect())
    }

    /// How long the service may take to finish what it has accepted: 30 s by default. It is compared
    /// with systemd's stop timeout at the start. It does not limit a phase by itself: also give it to
    /// the phase that drains, as its timeout.
    pub fn drain_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.drain_timeout = timeout)
    }

    /// What systemd's stop timeout should leave beyond the drain timeout: 30 s by default.
    pub fn headroom(self, headroom: Duration) -> Self {
        self.set(|config| config.headroom = headroom)
    }

    /// How long the whole teardown may take, from the signal on. The default is the
    /// [pre-stop delay](Self::lead), the drain timeout and 15 s together. In a stop by systemd it is at
    /// most the unit's stop timeout less a second, and in a stop by any signal at most the
    /// [grace period](Self::grace) less a second.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.set(|config| config.deadline = Some(deadline))
    }

    /// How long the supervisor waits between its signal and SIGKILL: a pod's
    /// `terminationGracePeriodSeconds`, docker's `--stop-timeout`. A process in a container cannot find
    /// it out, so set it here. systemd's stop timeout is asked for and need not be set.
    ///
    /// Each stop by a signal then takes no longer than that less a second (less a quarter below 4 s),
    /// also where the sender is not the supervisor, since the sender is not always known. At the start
    /// it is compared with pre-stop delay, drain timeout and headroom; where it is too short, a warning
    /// names the fix. A `preStop` hook runs within the same time, before the signal: subtract what it
    /// takes. [`Duration::MAX`] says that it is not known.
    pub fn grace(self, grace: Duration) -> Self {
        self.set(|config| config.set_grace(grace))
    }

    /// The pre-stop delay: how long the service goes on as before once a stop has been asked for. Only
    /// its [readiness](ShutdownGuard::readiness) ends at once. For a service behind endpoints or a load
    /// balancer, which go on sending until they notice. The token is cancelled, and the listener closed
    /// with it, after the delay. Zero by default.
    ///
    /// It counts against the deadline, and leaves the phases what they have
    /// [reserved](crate::Phase::reserve). A second signal ends the delay, and the phases then run in
    /// full. There is no delay where the service has ended by itself or was never ready.
    pub fn lead(self, lead: Duration) -> Self {
        self.set(|config| config.lead = lead)
    }

    /// Where the termination message is written, which `kubectl describe pod` shows: the container's
    /// `terminationMessagePath`. By default it is `/dev/termination-log`, if that exists.
    ///
    /// It sums the stop up in at most 4096 bytes: how it ended, the cause, the sender, what timed out,
    /// the slowest phase. It is written when the stop begins, and again whenever a phase begins or ends,
    /// so that a SIGKILL leaves the last one. At the end it says how the stop ended, also where the end
    /// was forced. Only a regular file that already exists is written to.
    pub fn termination_message(self, path: impl Into<PathBuf>) -> Self {
        self.set(|config| config.termination_message = Some(path.into()))
    }

    /// How long the service's own future is waited for after the last phase before it is dropped:
    /// by default 1 s, or the drain timeout where no phase was registered. Never past the deadline.
    pub fn service_grace(self, grace: Duration) -> Self {
        self.set(|config| config.service_grace = Some(grace))
    }

    /// The file to which the diagnostic's output is appended. It is created with mode 0600, and its folder
    /// with mode 0700. Without this setting there is no diagnostic, and neither where another user could
    /// change the file or its folder ([`forensics_core::secure_fs`]).
    pub fn diag_log(self, path: impl Into<PathBuf>) -> Self {
        self.set(|config| config.diag_log = Some(path.into()))
    }

    /// The command to run at the signal, instead of the built-in diagnostic.
    pub fn diag_command(self, command: DiagCommand) -> Self {
        self.set(|config| config.diag_command = command)
    }

    /// The folder for the records of this service's runs, one file each. It is created with mode 0700,
    /// and the newest 50 records are kept. At the next start the newest says how its run ended
    /// ([`ShutdownGuard::previous`]). Without this setting nothing is recorded.
    ///
    /// It should be on a local disk: each event is a write(2), and a phase waits for it before it starts
    /// (100 ms at most).
    pub fn record_dir(self, path: impl Into<PathBuf>) -> Self {
        self.set(|config| config.record_dir = Some(path.into()))
    }

    /// Whether each event of the record is synced to the disk (`fdatasync(2)`), so that it survives a
    /// power loss, too: no by default. A thread of its own waits for the disk, no phase does. At the end
    /// the teardown waits for that thread for 100 ms at most.
    pub fn durable(self, durable: bool) -> Self {
        self.set(|config| config.durable = durable)
    }

    /// A marker file to look for at the signal; see [`forensics_core::marker`]. The context
    /// line shows it as `NAME_marker_present=`, so a name consists of lower-case letters, digits and `_`. A
    /// marker that cannot be read within 100 ms, such as on a network file system, counts as absent.
    pub fn marker(self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.set(|config| config.markers.push((name.into(), path.into())))
    }

    /// The exit status where a phase or the service failed or panicked: 1 by default.
    pub fn failure_status(self, status: u8) -> Self {
        self.set(|config| config.failure_status = status)
    }

    /// Whether the main thread asks the scheduler for a short time slice.
    ///
    /// Signal handlers run on the main thread. With a short slice it runs sooner after a signal, so
    /// that more of the senders that exit at once can still be named, and a stop on a busy host
    /// begins sooner. Needs Linux 6.12; before, it has no effect. A thread that computes for long is
    /// preempted more often; its share of the processor stays the same.
    ///
    /// By default it does so in a multi-threaded runtime, where the main thread waits for the
    /// workers, and does not in a current-thread runtime, where it does all the work. The guard's
    /// own threads ask for a short slice in both. With `false` no thread asks.
    ///
    /// Threads and child processes do not inherit the slice, unless the service runs with a negative
    /// nice value. In a service that systemd started with a seccomp filter nothing asks by default,
    /// because filters such as `SystemCallFilter=~@resources` kill a process that does
    /// ([`may_be_killed_for_short_slice`](forensics_core::capture::may_be_killed_for_short_slice)).
    /// Set `true` if your filter allows `sched_setattr`.
    pub fn low_latency_capture(self, low_latency: bool) -> Self {
        self.set(|config| config.low_latency_capture = Some(low_latency))
    }

    /// Whether command lines are shown as they are, in the log, the record and the diagnostic. By default
    /// what looks like a secret in them is shown as `***` ([`forensics_core::secret`]). This holds for the
    /// whole process.
    pub fn show_secrets(self, show: bool) -> Self {
        self.set(|config| config.show_secrets = show)
    }

    /// What a second and a third signal do: [`Escalation::CutThenExit`] by default.
    pub fn escalation(self, escalation: Escalation) -> Self {
        self.set(|config| config.escalation = escalation)
    }

    /// Adds a function to call before the process is ended by force, when no destructor runs: it should
    /// write out what a log writer or an exporter has buffered. Each has 200 ms, on a thread of its own.
    /// It is not called at a planned end, where destructors run.
    ///
    /// With tracing-appender's non-blocking writer, whose guard writes out the rest when dropped:
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    ///
    /// let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    /// // tracing_subscriber::fmt().with_writer(writer).init();
    /// # drop(writer);
    /// // Dropped at the end of `main`, or before a forced end.
    /// let guard = Arc::new(Mutex::new(Some(guard)));
    /// let flush = guard.clone();
    /// let builder = forensics_tokio::ShutdownGuard::builder("gateway")
    ///     .flush(move || drop(flush.lock().map(|mut guard| guard.take())));
    /// # drop((builder, guard));
    /// ```
    pub fn flush(self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.set(|config| config.flush.push(Callback(Arc::new(hook))))
    }

    /// Whether the service is ready when [`run`](ShutdownGuard::run) begins: yes by default. Then
    /// [`readiness`](ShutdownGuard::readiness) turns true, and `READY=1` is sent, for a unit of
    /// `Type=notify`. Where it is not, call [`ready`](ShutdownGuard::ready) once the service is up.
    pub fn ready_at_run(self, ready: bool) -> Self {
        self.set(|config| config.ready_at_run = ready)
    }

    /// Whether systemd's watchdog (`WatchdogSec=`) is fed while the runtime answers: no by default, since
    /// a service may have a health check of its own that feeds it.
    ///
    /// systemd ends a service that misses it with SIGABRT, which is not handled, so that it dumps core.
    /// With [`Signal::ABRT`] among the [signals](Self::signals) it asks for a stop like the others
    /// instead, with cause `watchdog`, and the teardown is tried.
    pub fn watchdog(self, feed: bool) -> Self {
        self.set(|config| config.watchdog = feed)
    }

    /// Asks systemd for more time while phases make progress: whenever one starts, ends or records a new
    /// value ([`PhaseContext::record`](crate::PhaseContext::record)), the unit's stop timeout starts
    /// again (`EXTEND_TIMEOUT_USEC`), and our deadline moves with it. A phase that makes no progress for as
    /// long as the stop timeout is still ended.
    ///
    /// `ceiling` is the longest a teardown may take that way, and never more than the
    /// [deadline](Self::deadline). Off by default, and without effect where systemd does not accept our
    /// messages (`NotifyAccess=`) or its timeout is not known.
    pub fn extend_stop_timeout(self, ceiling: Duration) -> Self {
        self.set(|config| config.extend_ceiling = Some(ceiling))
    }

    /// Installs the handlers. From here on a signal asks for a stop and does not end the process.
    ///
    /// Variables of the environment override the settings of the program, such as
    /// `FORENSICS_DEADLINE=1min`; `docs/configuration.md` lists them. Settings made that way are logged.
    ///
    /// Reads `/proc` and the newest records, and starts one thread, once a process. systemd is asked for
    /// the unit's stop timeout in the background. Blocks for 50 ms at most where the parent's command line
    /// cannot be read, and for 500 ms where the termination message's file cannot be opened.
    ///
    /// # Errors
    /// Where it is called outside a runtime, a marker's name or a variable of the environment is invalid,
    /// or the handlers, tokio's listeners or the thread cannot be set up.
    ///
    /// # Panics
    /// Where the runtime was built without its I/O or its time driver, in tokio's own calls.
    pub fn install(self) -> Result<ShutdownGuard, InstallError> {
        let mut config = self.config;
        let found = environment::apply(&mut config, std::env::vars_os())?;
        let runtime = check(&config)?;
        if !found.settings.is_empty() {
            events::configured(&found.settings);
        }
        for (variable, nearest) in &found.unknown {
            events::not_a_setting(variable, *nearest);
        }
        if config.signals.contains(&Signal::HUP) && is_ignored(Signal::HUP) {
            events::hangup_stays_ignored();
            config.signals.retain(|&signal| signal != Signal::HUP);
        }

        alignment::check_grace(&config);
        secret::show(config.show_secrets);
        let mut startup = StartupInfo::collect();
        if let Some(parent) = &mut startup.parent {
            let pid = parent.pid;
            parent.cmdline =
                run_with_timeout(CMDLINE_LIMIT, move || process::cmdline(pid)).flatten();
        }
        let unit = startup.systemd.unit.clone();
        let signals = config.signals.clone();
        low_latency::apply(config.low_latency_capture, &runtime);
        panics::watch(shutdown_thread::record_panic);
        let notifier = Notifier::from_environment();
        let notifier = notifier.inspect_err(|why| events::not_notified(why)).unwrap_or_default();
        let message = TerminationMessage::open(config.termination_message.as_deref());
        let message =
            message.inspect_err(|why| events::no_termination_message(why)).unwrap_or_default();
        let shutdown = prepare(config, startup, notifier.clone(), message, runtime);
        // The shutdown thread waits for a descriptor that is made here.
        drop(install(&[])?);
        // In this order: the shutdown thread before the first signal can arrive, and our handler before
        // tokio's, so that the signal is captured when tokio's task wakes up.
        shutdown_thread::attach(Arc::downgrade(&shutdown)).map_err(InstallError::Keeper)?;
        let handlers = install(&signals)?;
        let listeners = Listeners::register(&signals).map_err(InstallError::Listen)?;
        let listener = tokio::spawn(listener::listen(shutdown.clone(), listeners));
        let mut tasks = vec![listener, tokio::spawn(alignment::check(shutdown.clone(), unit))];
        if notifier.is_connected() {
            match watchdog::interval_of_environment() {
                Some(every) if shutdown.config.watchdog => {
                    tasks.push(tokio::spawn(watchdog::feed(notifier.clone(), every)));
                }
                Some(every) => events::watchdog_not_fed(every),
                None => {}
            }
            tasks.push(tokio::spawn(async move { notifier.send().await }));
        }
        Ok(ShutdownGuard::new(shutdown, Some(handlers), tasks))
    }
}

/// Checks that a guard can be set up with this configuration, and returns the runtime.
pub(crate) fn check(config: &Config) -> Result<Handle, InstallError> {
    let fits = |c| matches!(c, 'a'..='z' | '0'..='9' | '_');
    let is_valid = |name: &str| !name.is_empty() && name.chars().all(fits);
    if let Some((name, _)) = config.markers.iter().find(|(name, _)| !is_valid(name)) {
        return Err(InstallError::MarkerName(name.clone()));
    }
    let runtime = Handle::try_current().map_err(|_| InstallError::NoRuntime)?;
    // Panics in a runtime without timers. Else the teardown would panic, before its phases run.
    drop(tokio::time::sleep(Duration::ZERO));
    Ok(runtime)
}

/// Reads the record of the last run, begins the record of this one, and builds the guard's state.
pub(crate) fn prepare(
    config: Config,
    mut startup: StartupInfo,
    notifier: Notifier,
    message: TerminationMessage,
    runtime: Handle,
) -> Arc<Shutdown> {
    startup.markers.clone_from(&config.markers);
    // A folder that does not exist yet has no last run. `Recorder::open` reports one that cannot be read
    // or to which another user could have written.
    let record_dir = config.record_dir.as_deref();
    let last = |dir| Run::last_in(&Folder::open(dir).ok()?).ok().flatten();
    let previous = record_dir.and_then(last);
    if let Some(run) = &previous {
        events::previous(&run.post_mortem);
        #[cfg(feature = "metrics")]
        crate::metrics::report(run);
    }
    let previous = previous.map(|run| run.post_mortem);
    let record = record_dir.map(|dir| Recorder::open(dir, &config, &startup)).unwrap_or_default();
    if let Some(failure) = record.failure_to_say() {
        events::not_recorded(failure);
    }
    let outlets = Outlets { record, notifier, message };
    Arc::new(Shutdown::new(config, startup, outlets, previous, runtime))
}
