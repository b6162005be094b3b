//! Setting up a guard.

mod alignment;
pub(crate) mod environment;
pub(crate) mod install_error;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::{install, is_ignored};
use forensics_core::context::StartupInfo;
use forensics_core::process;
use forensics_core::record::Run;
use forensics_core::secret;
use forensics_core::secure_fs::Folder;
use forensics_core::signal::Signal;
use tokio::runtime::Handle;

use self::install_error::InstallError;
use crate::blocking::run_with_timeout;
use crate::config::{Callback, Config, Escalation};
use crate::diag::DiagCommand;
use crate::guard::ShutdownGuard;
use crate::listener::Listeners;
use crate::message::TerminationMessage;
use crate::notify::Notifier;
use crate::notify::watchdog;
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
    /// Begins to set up a guard for the service of this name, which stands in logs and records.
    pub fn builder(service: impl Into<String>) -> Builder {
        Builder { config: Config::new(service.into()) }
    }
}

impl Builder {
    /// The signals that ask for a stop: SIGTERM, SIGINT, SIGHUP and SIGQUIT unless told. A SIGHUP
    /// that the process was started to ignore, as nohup(1) does, stays ignored.
    pub fn signals(mut self, signals: impl IntoIterator<Item = Signal>) -> Self {
        self.config.signals = signals.into_iter().collect();
        self
    }

    /// How long the service may take to finish what it has accepted: 30 s unless told. Checked at
    /// the start against systemd's stop timeout. It bounds no phase by itself; give the phase that
    /// drains this as its timeout.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.config.drain_timeout = timeout;
        self
    }

    /// What systemd's stop timeout should leave beyond the drain timeout: 30 s unless told.
    pub fn headroom(mut self, headroom: Duration) -> Self {
        self.config.headroom = headroom;
        self
    }

    /// How long the whole teardown may take, from the signal on: the [lead](Self::lead), the drain
    /// timeout and 15 s unless told. A stop by systemd shortens it to the unit's stop timeout less a
    /// second, and one by any signal to the [grace period](Self::grace) less a second.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.config.deadline = Some(deadline);
        self
    }

    /// How long whoever stops the service waits between its signal and SIGKILL: a pod's
    /// `terminationGracePeriodSeconds`, docker's `--stop-timeout`. Nothing inside a container tells
    /// that, so say it here; systemd is asked by itself.
    ///
    /// Each stop by a signal then has no longer than that less a second (less a quarter below 4 s),
    /// whoever sent it: the sender cannot be told for sure, and a `kill` by hand loses nothing but
    /// the difference. At the start it is compared with lead, drain timeout and headroom, with a
    /// warning that names the mend. A `preStop` hook runs on the same clock, before the signal:
    /// take off what it takes. [`Duration::MAX`] says that it is not known.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.config.set_grace(grace);
        self
    }

    /// How long the service goes on as before once a stop has been asked for: only its
    /// [readiness](ShutdownGuard::readiness) ends at once. For a service behind endpoints or a load
    /// balancer, which go on sending for as long as they have not noticed; the token is cancelled,
    /// and the listener closed with it, only after the lead. None unless told.
    ///
    /// It counts against the deadline, and leaves the phases what they have
    /// [reserved](crate::Phase::reserve). A second signal ends the lead, and the phases then run in
    /// full. There is none where the service has ended by itself or was never ready.
    pub fn lead(mut self, lead: Duration) -> Self {
        self.config.lead = lead;
        self
    }

    /// Where the termination message is written, which `kubectl describe pod` shows: the container's
    /// `terminationMessagePath`. Unless told it is `/dev/termination-log`, where that is there.
    ///
    /// It is an account of the stop in at most 4096 bytes: how it ended, the cause, the sender, what
    /// timed out, the slowest phase. It is written from the stop's beginning on, and anew whenever
    /// a phase begins or ends, so that a SIGKILL leaves the last one; at the end it says how it ended,
    /// also where the end was forced. Only a regular file that is there is written to.
    pub fn termination_message(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.termination_message = Some(path.into());
        self
    }

    /// How long the service's own future is waited for after the last phase before it is dropped:
    /// 1 s unless told, and the drain timeout where no phase was registered. Never past the deadline.
    pub fn service_grace(mut self, grace: Duration) -> Self {
        self.config.service_grace = Some(grace);
        self
    }

    /// Where the diagnostic's output is appended: 0600, in a folder that is made, 0700, where it is
    /// not there. Without it, and where others could interfere with the file or its folder
    /// ([`forensics_core::secure_fs`]), there is none.
    pub fn diag_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.diag_log = Some(path.into());
        self
    }

    /// What looks around at the signal, instead of the built-in diagnostic.
    pub fn diag_command(mut self, command: DiagCommand) -> Self {
        self.config.diag_command = command;
        self
    }

    /// The folder for the records of this service's runs, one file each: 0700, made where it is
    /// not there, and kept to the newest 50. At the next start the newest says how its run ended
    /// ([`ShutdownGuard::previous`]). Without it nothing is recorded.
    ///
    /// Give it a local disk: each event is a write(2) in the task or thread that it happens in.
    pub fn record_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.record_dir = Some(path.into());
        self
    }

    /// Has each event of the record written to the disk (`fdatasync(2)`), so that it survives a power
    /// loss, too: no unless told. A thread of its own waits for the disk, no phase does; at the end
    /// the teardown waits for that thread for 100 ms at most.
    pub fn durable(mut self, durable: bool) -> Self {
        self.config.durable = durable;
        self
    }

    /// A marker file to look for at the signal; see [`forensics_core::marker`]. In the line it is
    /// `NAME_marker_present=`, so a name is made of lower-case letters, digits and `_`. One that
    /// cannot be read within 100 ms, on a file system whose server is away, is absent.
    pub fn marker(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.config.markers.push((name.into(), path.into()));
        self
    }

    /// The exit status where a phase or the service failed or panicked: 1 unless told.
    pub fn failure_status(mut self, status: u8) -> Self {
        self.config.failure_status = status;
        self
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
    pub fn low_latency_capture(mut self, low_latency: bool) -> Self {
        self.config.low_latency_capture = Some(low_latency);
        self
    }

    /// Shows command lines as they are, in the log, the record and the diagnostic: off unless told,
    /// so that what looks like a secret in them is `***` ([`forensics_core::secret`]). For the whole
    /// process.
    pub fn show_secrets(mut self, show: bool) -> Self {
        self.config.show_secrets = show;
        self
    }

    /// What a second and a third signal do: [`Escalation::CutThenExit`] unless told.
    pub fn escalation(mut self, escalation: Escalation) -> Self {
        self.config.escalation = escalation;
        self
    }

    /// Something to run before the process is ended by force, when no destructor runs: it should
    /// write out what a log writer or an exporter still holds. Each has 200 ms, on a thread of its
    /// own. A planned end does not call it; there destructors do their work.
    ///
    /// With tracing-appender's non-blocking writer, whose guard writes out the rest when dropped:
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    ///
    /// let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    /// // tracing_subscriber::fmt().with_writer(writer).init();
    /// # drop(writer);
    /// // Dropped at the end of `main`, or before a forced end, whichever comes.
    /// let guard = Arc::new(Mutex::new(Some(guard)));
    /// let flush = guard.clone();
    /// let builder = forensics_tokio::ShutdownGuard::builder("gateway")
    ///     .flush(move || drop(flush.lock().map(|mut guard| guard.take())));
    /// # drop((builder, guard));
    /// ```
    pub fn flush(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.config.flush.push(Callback(Arc::new(hook)));
        self
    }

    /// Whether the service is ready when [`run`](ShutdownGuard::run) begins: yes unless told. Then
    /// [`readiness`](ShutdownGuard::readiness) turns true, and `READY=1` is sent, for a unit of
    /// `Type=notify`. Where it is not, call [`ready`](ShutdownGuard::ready) once the service is up.
    pub fn ready_at_run(mut self, ready: bool) -> Self {
        self.config.ready_at_run = ready;
        self
    }

    /// Whether systemd's watchdog (`WatchdogSec=`) is fed for as long as the runtime answers: no
    /// unless told, since a service may tie that to a health check of its own, which this would
    /// make pointless.
    ///
    /// systemd ends a service that missed it with SIGABRT, which is left alone, so that it dumps
    /// core. With [`Signal::ABRT`] among the [signals](Self::signals) it is named like the others
    /// instead, cause `watchdog`, and a teardown is tried.
    pub fn watchdog(mut self, feed: bool) -> Self {
        self.config.watchdog = feed;
        self
    }

    /// Asks systemd for more time while phases get on: whenever one starts, ends or records a new
    /// value ([`PhaseContext::record`](crate::PhaseContext::record)), the unit's stop timeout starts
    /// anew (`EXTEND_TIMEOUT_USEC`), and our deadline moves along. A phase that shows nothing for as
    /// long as the stop timeout is still cut.
    ///
    /// `ceiling` is the longest a teardown may take that way, and never more than the
    /// [deadline](Self::deadline). Off unless told, and without effect where systemd does not take
    /// our messages (`NotifyAccess=`) or did not say its timeout.
    pub fn extend_stop_timeout(mut self, ceiling: Duration) -> Self {
        self.config.extend_ceiling = Some(ceiling);
        self
    }

    /// Installs the handlers. From here on a signal asks for a stop and does not end the process.
    ///
    /// Variables of the environment win over what was said here, as the operator's word counts more
    /// than the program's: `FORENSICS_DEADLINE=1min`, and others like it, all in
    /// `docs/configuration.md`. What was set that way is logged.
    ///
    /// Reads `/proc` and the newest records, and starts, once a process, one thread; in the background systemd is asked
    /// for the unit's stop timeout. Blocks for 50 ms at most where the parent's command line
    /// hangs, and for 500 ms where the termination message's file does.
    ///
    /// # Errors
    /// Where it is called outside a runtime, a variable holds what it cannot mean, or something it
    /// cannot do without is not to be had.
    ///
    /// # Panics
    /// Where the runtime was built without its I/O or its time driver: tokio's own calls do.
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
        // In this order: our handler before tokio's, so that what it captured is there when tokio's
        // task wakes; and the shutdown thread before the first signal can come.
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

/// Whether a guard can be set up like this, and the runtime to do it in.
pub(crate) fn check(config: &Config) -> Result<Handle, InstallError> {
    let fits = |c| matches!(c, 'a'..='z' | '0'..='9' | '_');
    let is_valid = |name: &str| !name.is_empty() && name.chars().all(fits);
    if let Some((name, _)) = config.markers.iter().find(|(name, _)| !is_valid(name)) {
        return Err(InstallError::MarkerName(name.clone()));
    }
    let runtime = Handle::try_current().map_err(|_| InstallError::NoRuntime)?;
    // Without timers this panics, which the teardown would do otherwise, when its phases are to run.
    drop(tokio::time::sleep(Duration::ZERO));
    Ok(runtime)
}

/// Looks at the last run, begins the record of this one, and makes what the guard's tasks share.
pub(crate) fn prepare(
    config: Config,
    mut startup: StartupInfo,
    notifier: Notifier,
    message: TerminationMessage,
    runtime: Handle,
) -> Arc<Shutdown> {
    startup.markers.clone_from(&config.markers);
    // A folder that is not there yet has no last run. One that cannot be read, or into which others
    // could have put one, is reported below.
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
