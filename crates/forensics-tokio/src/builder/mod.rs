//! Setting up a guard.

mod alignment;
pub(crate) mod environment;
pub(crate) mod install_error;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::capture::{Disposition, disposition, install, is_secure_execution};
use forensics_core::context::StartupInfo;
use forensics_core::record::ExitKind;
use forensics_core::{process, secret};
use tokio::runtime::Handle;

use self::install_error::InstallError;
use crate::blocking::run_with_timeout;
use crate::config::{Callback, Config, Escalation};
use crate::diagnostic::DiagCommand;
use crate::guard::ShutdownGuard;
use crate::listener::Listeners;
use crate::message::TerminationMessage;
use crate::notify::{Notifier, watchdog};
use crate::shutdown::Shutdown;
use crate::signal_check::SignalCheck;
use crate::sinks::{self, Origin};
use crate::{events, listener, low_latency, panics, shutdown_thread};

/// How long to wait for the parent's command line at the start.
const CMDLINE_LIMIT: Duration = Duration::from_millis(50);

/// The settings of a guard. [`ShutdownGuard::builder`] returns it.
///
/// The operator can override many settings with environment variables; each method names its own.
#[derive(Debug, Clone)]
#[must_use = "nothing is guarded until `install` is called"]
pub struct Builder {
    pub(crate) config: Config,
}

impl ShutdownGuard {
    /// Returns a builder. The name of the service is shown in logs and records.
    pub fn builder(service: impl Into<String>) -> Builder {
        Builder { config: Config::new(service.into()) }
    }
}

impl Builder {
    fn set(mut self, set: impl FnOnce(&mut Config)) -> Self {
        set(&mut self.config);
        self
    }

    /// Sets the signals that request a stop.
    ///
    /// Default: SIGTERM, SIGINT, SIGHUP and SIGQUIT. A SIGHUP that was ignored when the process
    /// started, as under nohup(1), stays ignored.
    pub fn signals(self, signals: impl IntoIterator<Item = Signal>) -> Self {
        self.set(|config| config.signals = signals.into_iter().collect())
    }

    /// Sets how long the service may take to finish the work that it has accepted.
    ///
    /// At the start it is compared with the supervisor's stop timeout. It does not limit a phase by
    /// itself: give the phase that drains the timeout
    /// [`guard.drain_timeout()`](ShutdownGuard::drain_timeout), which is the one in effect.
    ///
    /// Default: 30 s. Environment: `FORENSICS_DRAIN_TIMEOUT`.
    pub fn drain_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.drain_timeout = timeout)
    }

    /// Sets how much longer than the drain the supervisor's stop timeout should be.
    ///
    /// Default: 30 s. Environment: `FORENSICS_HEADROOM`.
    pub fn headroom(self, headroom: Duration) -> Self {
        self.set(|config| config.headroom = headroom)
    }

    /// Sets how long the whole teardown may take, measured from the signal.
    ///
    /// The teardown must end before the supervisor's SIGKILL. So if systemd stops the service, the
    /// deadline is at most the unit's stop timeout minus one second. If a
    /// [stop timeout](Self::stop_timeout) is configured, the deadline of a stop by any signal is at
    /// most that minus one second.
    ///
    /// Default: the pre-stop delay, the drain timeout and 15 s together. Environment:
    /// `FORENSICS_DEADLINE`.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.set(|config| config.deadline = Some(deadline))
    }

    /// Sets how long the supervisor waits between its signal and SIGKILL.
    ///
    /// For Kubernetes this is `terminationGracePeriodSeconds`, for docker `--stop-timeout`. A process
    /// in a container cannot find it out. systemd is asked for its stop timeout, so it need not be set
    /// there.
    ///
    /// Every stop by a signal, from any sender, then takes at most this time minus one second (minus a
    /// quarter if it is below 4 s). If the program had requested the stop before, the time counts from
    /// the first signal on. At the start it is compared with the pre-stop delay, the drain
    /// timeout and the headroom; if it is too short, a warning names the fix. A `preStop` hook uses up
    /// part of the same time before the signal: subtract that.
    ///
    /// Default: unknown, which [`Duration::MAX`] also means. Environment: `FORENSICS_STOP_TIMEOUT`.
    pub fn stop_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.set_stop_timeout(timeout))
    }

    /// Sets how long the service continues to serve after the request to stop.
    ///
    /// During the delay only the [readiness](crate::ShutdownHandle::readiness) is false. The token is
    /// cancelled after it. It is for a service behind a load balancer or Kubernetes endpoints, which
    /// keep sending requests until they notice.
    ///
    /// The delay counts against the deadline, and does not use what phases
    /// [reserve](crate::Phase::reserve). A signal that [escalates](Self::escalation) the stop ends
    /// it, and the phases then run in full.
    /// There is no delay if the service has ended or was never ready.
    ///
    /// Default: zero. Environment: `FORENSICS_PRE_STOP_DELAY`.
    pub fn pre_stop_delay(self, delay: Duration) -> Self {
        self.set(|config| config.pre_stop_delay = delay)
    }

    /// Sets the file for the termination message, which `kubectl describe pod` shows.
    ///
    /// The message is a summary of the stop of at most 4096 bytes: how it ended, the cause, the
    /// sender, what timed out, the slowest phase. It is written when the stop begins and whenever a
    /// phase starts or ends, so it also exists after a SIGKILL. The file must already exist and be a
    /// regular file.
    ///
    /// Default: `/dev/termination-log`, if it exists. Environment: `FORENSICS_TERMINATION_MESSAGE`.
    pub fn termination_message(self, path: impl Into<PathBuf>) -> Self {
        self.set(|config| config.termination_message = Some(path.into()))
    }

    /// Sets how long to wait for the service's own future after the last phase. Then the future is
    /// dropped.
    ///
    /// The wait never lasts past the deadline.
    ///
    /// Default: 1 s; the drain timeout if there are no phases; no time if a phase waited for the service
    /// ([`service_ended`](crate::PhaseContext::service_ended)) until its own time was up. Environment:
    /// `FORENSICS_SERVICE_TIMEOUT`.
    pub fn service_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.service_timeout = Some(timeout))
    }

    /// Sets the file that the diagnostic is appended to.
    ///
    /// The file is created with mode 0600, and its folder with mode 0700. The diagnostic is not written
    /// if another user could change the file or its folder.
    ///
    /// Default: no diagnostic. Environment: `FORENSICS_DIAG_LOG`.
    pub fn diag_log(self, path: impl Into<PathBuf>) -> Self {
        self.set(|config| config.diag_log = Some(path.into()))
    }

    /// Sets the command that inspects the system at the signal.
    ///
    /// Default: the built-in diagnostic.
    pub fn diag_command(self, command: DiagCommand) -> Self {
        self.set(|config| config.diag_command = command)
    }

    /// Sets the folder for the records of this service, one file per run.
    ///
    /// The folder is created with mode 0700. The newest 50 records are kept. At the next start the
    /// record says how the run ended ([`ShutdownGuard::previous_run`]). Use a local disk: the start of
    /// each phase is written before its work runs, and a phase waits up to 100 ms for that.
    ///
    /// Default: no records. Environment: `FORENSICS_RECORD_DIR`.
    pub fn record_dir(self, path: impl Into<PathBuf>) -> Self {
        self.set(|config| config.record_dir = Some(path.into()))
    }

    /// Sets whether each event of the record is synced to the disk (`fdatasync(2)`).
    ///
    /// The record then also survives a power loss. No phase waits for the sync. At the end, `run`
    /// waits for it for up to 500 ms.
    ///
    /// Default: no. Environment: `FORENSICS_FSYNC_RECORDS`.
    pub fn fsync_records(self, fsync: bool) -> Self {
        self.set(|config| config.fsync_records = fsync)
    }

    /// Adds a marker file to look for at the signal; see [`forensics_core::marker`].
    ///
    /// The context line shows it as `NAME_marker_present=`. The name consists of lower-case letters,
    /// digits and `_`. A marker that cannot be read within 100 ms counts as absent.
    pub fn marker(self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.set(|config| config.markers.push((name.into(), path.into())))
    }

    /// Sets the exit status of a process that ends in this way.
    ///
    /// | how it ends | default | |
    /// |---|---|---|
    /// | `Clean` | 0 | as planned |
    /// | `TimedOut` | 0 | a phase timed out, or was skipped because no time was left for it |
    /// | `CutShort` | 1 | a phase was cut short or skipped, because the stop was escalated |
    /// | `Failed` | 1 | the service or a phase failed or panicked, or a phase was registered wrongly |
    /// | `Forced` | 70 | the process was ended at once: by a further signal, at the deadline, or because it did not end after its teardown |
    ///
    /// If several rows apply, the last one counts. For the other kinds this setting has no effect,
    /// because the guard does not end the process: a panic gives status 101, and a program that drops
    /// its guard chooses its own status.
    pub fn exit_status(self, how: ExitKind, status: u8) -> Self {
        self.set(|config| config.exit_statuses.push((how, status)))
    }

    /// Sets whether the process ends by the signal that stopped it, instead of with an exit status.
    ///
    /// A shell ends its loop on Ctrl-C only if the program in it has died by SIGINT, and a Kubernetes
    /// Job or a CI runner counts exit status 0 as finished work. With this setting the teardown runs
    /// as usual. When `main` returns the [report](crate::ShutdownReport), the default action of the
    /// signal is restored, and the process sends it to itself. It does not dump core. systemd counts
    /// SIGTERM, SIGINT and SIGHUP as a success.
    ///
    /// It applies to every stop by a signal whose teardown has ended, even if a phase failed. A stop
    /// without a signal still has its exit status, and a forced end has status 70. Process 1 of a
    /// container cannot end by a signal of its own: it ends with 128 plus the number of the signal.
    ///
    /// Default: no. Environment: `FORENSICS_EXIT_BY_SIGNAL`.
    pub fn exit_by_signal(self, by_signal: bool) -> Self {
        self.set(|config| config.exit_by_signal = by_signal)
    }

    /// Sets whether the main thread and the guard's own threads ask the scheduler for a short time
    /// slice, so that they run sooner after a signal.
    ///
    /// More of the senders that exit at once can then be named, and a stop on a busy host begins
    /// sooner. It needs Linux 6.12 and has no effect on older kernels. A thread that computes for long is
    /// preempted more often; its share of the processor stays the same. `docs/configuration.md` says
    /// more.
    ///
    /// Default: the guard's own threads ask, and the main thread asks in a multi-threaded runtime,
    /// where it only waits. In a systemd service with a seccomp filter no thread asks, because such a
    /// filter can kill the process for it. Set `true` if yours allows `sched_setattr`. Environment:
    /// `FORENSICS_LOW_LATENCY_CAPTURE`.
    pub fn low_latency_capture(self, low_latency: bool) -> Self {
        self.set(|config| config.low_latency_capture = Some(low_latency))
    }

    /// Sets whether command lines are shown with their secrets, in the log, the record and the
    /// diagnostic. The setting applies to the whole process.
    ///
    /// Default: no. What looks like a secret is shown as `***`. Environment:
    /// `FORENSICS_SHOW_SECRETS`.
    pub fn show_secrets(self, show: bool) -> Self {
        self.set(|config| config.show_secrets = show)
    }

    /// Sets whether stderr is used if the log does not receive the guard's events.
    ///
    /// The events have the `tracing` target `shutdown`. They go to the subscriber, and to the logger of
    /// the crate `log`. If neither receives that target at level `INFO`, [`install`](Self::install)
    /// writes one line with the fix to stderr. A line of a stop, a warning or an error that neither of
    /// them shows is written to stderr. Tests are left out: see [`enforce_exit`](Self::enforce_exit).
    ///
    /// Default: yes. Environment: `FORENSICS_STDERR_FALLBACK`.
    pub fn stderr_fallback(self, enabled: bool) -> Self {
        self.set(|config| config.stderr_fallback = enabled)
    }

    /// Sets which repeated signals speed up a stop.
    ///
    /// Default: [`Escalation::Person`]. Environment: `FORENSICS_ESCALATION` (`person`, `any_signal`,
    /// `exit`, `never`).
    pub fn escalation(self, escalation: Escalation) -> Self {
        self.set(|config| config.escalation = escalation)
    }

    /// Adds a function to call before the process is ended by force, when no destructor runs.
    ///
    /// It should write what a log writer or an exporter has buffered. Each function runs on a separate
    /// thread, and has 200 ms. They are not called when the process ends as planned.
    ///
    /// With tracing-appender's non-blocking writer, whose guard writes the rest when it is dropped:
    ///
    /// ```no_run
    /// use std::error::Error;
    /// use std::sync::{Arc, Mutex};
    /// use forensics_tokio::{ShutdownGuard, ShutdownReport};
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    ///     let (writer, flush) = tracing_appender::non_blocking(std::io::stderr());
    ///     tracing_subscriber::fmt().with_writer(writer).init();
    ///     // Dropped at the end of `main`, or before a forced exit.
    ///     let flush = Arc::new(Mutex::new(Some(flush)));
    ///     let hook = flush.clone();
    ///
    ///     let guard = ShutdownGuard::builder("gateway")
    ///         .on_forced_exit(move || drop(hook.lock().map(|mut flush| flush.take())))
    ///         .install()?;
    ///     let stop = guard.token();
    ///     Ok(guard.run(async move { stop.cancelled().await }).await)
    /// }
    /// ```
    pub fn on_forced_exit(self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.set(|config| config.on_forced_exit.push(Callback(Arc::new(hook))))
    }

    /// Sets whether the process is ended by force if it does not end after its teardown.
    ///
    /// When [`run`](ShutdownGuard::run) has returned, the process has until the deadline to end, and at
    /// least one second. Half a second later it is ended with status 70, or sooner if the supervisor would
    /// otherwise send SIGKILL first. This happens, for example, if the runtime waits for a blocked thread
    /// when it is dropped. If the program has several guards, the time
    /// starts when the last teardown has ended. Installing another guard cancels it.
    ///
    /// Set `false` in a program that does something else after `run`.
    ///
    /// Tests, benchmarks and documentation examples are never ended this way. They are recognized by
    /// the path of the program: cargo gives their files a name that ends in `-` and 16 hexadecimal
    /// digits (`target/debug/deps/gateway-0123456789abcdef`), and rustdoc puts them into a folder
    /// `rustdoctest…`. This covers `cargo test`, `cargo bench` and cargo-nextest.
    ///
    /// Default: yes.
    pub fn enforce_exit(self, enforce: bool) -> Self {
        self.set(|config| config.enforce_exit = enforce)
    }

    /// Sets whether the service is ready as soon as [`run`](ShutdownGuard::run) begins.
    ///
    /// The [`readiness`](crate::ShutdownHandle::readiness) then becomes true, and systemd receives
    /// `READY=1`, which a unit with `Type=notify` waits for. If not, call
    /// [`ready`](crate::ShutdownHandle::ready) when the service is up.
    ///
    /// Default: yes.
    pub fn auto_ready(self, ready: bool) -> Self {
        self.set(|config| config.auto_ready = ready)
    }

    /// Sets whether the guard feeds systemd's watchdog (`WatchdogSec=`) while the runtime answers.
    ///
    /// If a service misses its watchdog, systemd ends it by SIGABRT, which dumps core. With
    /// [`Signal::ABRT`] among the [signals](Self::signals), that signal requests a stop with cause
    /// `watchdog` instead, and the teardown is tried.
    ///
    /// Default: no, because a service can have its own health check. Environment:
    /// `FORENSICS_WATCHDOG`.
    pub fn watchdog(self, feed: bool) -> Self {
        self.set(|config| config.watchdog = feed)
    }

    /// Asks systemd for more time while phases make progress, up to `ceiling` for the whole teardown.
    ///
    /// A phase makes progress when it starts, ends or records a new value
    /// ([`PhaseContext::record`](crate::PhaseContext::record)). The unit's stop timeout then starts
    /// again (`EXTEND_TIMEOUT_USEC=`), and the deadline moves with it. It never moves past the
    /// configured [deadline](Self::deadline). A phase that makes no progress for a whole stop timeout is
    /// still dropped.
    ///
    /// Default: no. It has no effect if systemd does not accept messages from this process
    /// (`NotifyAccess=`), or its timeout is unknown. Environment: `FORENSICS_EXTEND_STOP_TIMEOUT`.
    pub fn extend_stop_timeout(self, ceiling: Duration) -> Self {
        self.set(|config| config.extend_ceiling = Some(ceiling))
    }

    /// Ignores the `FORENSICS_` variables of the environment.
    ///
    /// Default: they override the settings of the program.
    pub fn ignore_environment(self) -> Self {
        self.set(|config| config.ignores_environment = true)
    }

    /// Installs the signal handlers. From then on a signal requests a stop instead of ending the process.
    ///
    /// Environment variables override the settings, unless
    /// [`ignore_environment`](Self::ignore_environment) was called. The log shows which were set.
    ///
    /// It reads `/proc` and the newest records, and starts one thread for the process. In the background
    /// systemd is asked for the unit's stop timeout. It blocks for up to 50 ms if the parent's command
    /// line cannot be read, and for up to 500 ms if the file of the termination message cannot be
    /// opened.
    ///
    /// Install the guard after other libraries that handle signals, such as a Java or Python runtime or
    /// the crate ctrlc. Their handlers then still run, before the guard's. A warning is logged if another
    /// handler is installed over the guard's, if a signal is blocked, or if SIGPIPE has its default
    /// action. This is checked now, when `run` begins, and one second later.
    ///
    /// A signal that every thread blocks, as in a process that was started with it blocked, is unblocked
    /// in this thread. It stays blocked if a thread waits for it by sigwait(3), or if there is a
    /// signalfd(2) for it.
    ///
    /// # Errors
    /// If there is no tokio runtime, the name of a marker or an environment variable is invalid, or the
    /// handlers, tokio's listeners or the thread cannot be set up.
    ///
    /// # Panics
    /// If the runtime was built without its I/O driver or its time driver.
    pub fn install(self) -> Result<ShutdownGuard, InstallError> {
        let mut config = self.config;
        // A caller with fewer rights may have set the variables.
        let is_trusted = !is_secure_execution();
        let variables = (is_trusted && !config.ignores_environment).then(std::env::vars_os);
        let found = environment::apply(&mut config, variables.into_iter().flatten())?;
        let to_stderr = config.stderr_fallback && !shutdown_thread::is_in_test_program();
        let origin = Origin::new(&config.service, to_stderr);
        Origin::scope(Some(origin), || {
            if !is_trusted && std::env::vars_os().any(|(name, _)| environment::is_ours(&name)) {
                events::environment_not_trusted();
            }
            Self { config }.install_with(&found)
        })
    }

    fn install_with(self, found: &environment::Variables) -> Result<ShutdownGuard, InstallError> {
        let mut config = self.config;
        let runtime = check(&config)?;
        sinks::warn_if_not_received();
        if !found.settings.is_empty() {
            events::configured(&found.settings);
        }
        for (variable, nearest) in &found.unknown {
            events::not_a_setting(variable, *nearest);
        }
        if config.signals.contains(&Signal::HUP)
            && disposition(Signal::HUP) == Some(Disposition::Ignored)
        {
            events::hangup_stays_ignored();
            config.signals.retain(|&signal| signal != Signal::HUP);
        }

        secret::show(config.show_secrets);
        let mut startup = StartupInfo::collect();
        alignment::check_configured(&config, startup.systemd.unit.as_ref());
        if let Some(parent) = &mut startup.parent {
            let pid = parent.pid;
            parent.cmdline =
                run_with_timeout(CMDLINE_LIMIT, move || process::cmdline(pid)).flatten();
        }
        alignment::check_platform(&config, startup.platform);
        let (unit, parent) = (startup.systemd.unit.clone(), startup.parent.clone());
        let signals = config.signals.clone();
        if let Err(error) = low_latency::apply(config.low_latency_capture, &runtime) {
            events::no_low_latency_capture(&error);
        }
        panics::install_hook(shutdown_thread::record_panic);
        let notifier = Notifier::from_environment();
        let notifier = notifier.inspect_err(|why| events::not_notified(why)).unwrap_or_default();
        let message = TerminationMessage::open(config.termination_message.as_deref());
        let message =
            message.inspect_err(|why| events::no_termination_message(why)).unwrap_or_default();
        let shutdown = Shutdown::new(config, startup, notifier.clone(), message, runtime);
        // This creates the descriptor that the shutdown thread waits for.
        drop(install(&[])?);
        // In this order: the shutdown thread before the first signal can arrive, and our handler before
        // tokio's, so that the signal is captured when tokio's task wakes up.
        shutdown_thread::attach(Arc::downgrade(&shutdown)).map_err(InstallError::ShutdownThread)?;
        let handlers = install(&signals)?;
        let listeners = Listeners::register(&signals).map_err(InstallError::Listen)?;
        let check = SignalCheck::at_install(signals, parent.as_ref());
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
        Ok(ShutdownGuard::new(shutdown, Some((handlers, check)), tasks))
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
    // Panics in a runtime without timers. It should panic here, and not at the stop, before the phases run.
    drop(tokio::time::sleep(Duration::ZERO));
    Ok(runtime)
}
