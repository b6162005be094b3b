//! A guard that a test drives.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::context::{StartupInfo, SystemdInfo};
use forensics_core::duration::Timespan;
use forensics_core::record::{ExitKind, ForcedBy};
use tokio::sync::SetOnce;
use tokio::time::{sleep, timeout_at};

use crate::builder::install_error::InstallError;
use crate::builder::{Builder, check};
use crate::guard::ShutdownGuard;
use crate::listener::{Listeners, listen};
use crate::machine::{Event, LATE_AFTER, Seconds, Timer, Unit};
use crate::message::TerminationMessage;
use crate::notify::Notifier;
use crate::shutdown::Shutdown;
use crate::testing::Sender;

/// A guard without signal handlers. The test says which signal came, and from whom.
///
/// Everything after the capture of the signal works as in a service: context, cause, deadline,
/// phases, escalation, record. Everything that concerns the whole process is left out:
///
/// - No handler is installed, and the guard does not listen for signals. Real signals have the same
///   effect as without a guard.
/// - The shutdown thread does not watch the teardown. [`run_to_exit`](Self::run_to_exit) enforces
///   the deadline by the runtime's clock. Instead of ending the process it returns [`ForcedExit`].
///   To test a phase that blocks its thread, use [`Process`](crate::testing::Process).
/// - systemd is neither asked nor notified, and no supervisor is detected. The test's own unit,
///   container, pod and `FORENSICS_` variables have no effect, and no termination message is
///   written.
/// - No diagnostic is started, even if the builder configures one.
///
/// Records are written if the builder names a folder.
///
/// ```
/// use std::time::Duration;
/// use forensics_tokio::testing::{Sender, TestHarness};
/// use forensics_tokio::{Outcome, ShutdownGuard, Signal};
/// use tokio::time::sleep;
///
/// // In a test: #[tokio::test(start_paused = true)]
/// #[tokio::main(flavor = "current_thread", start_paused = true)]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let builder = ShutdownGuard::builder("gateway").deadline(Duration::from_secs(30));
///     let (harness, guard) = TestHarness::install(builder)?;
///     guard.phase("drain", |_| sleep(Duration::from_secs(60)));
///     guard.phase("db_close", async |_| {}).reserve(Duration::from_secs(5));
///
///     harness.signal_from(Signal::TERM, &Sender::systemd());
///     let service = guard.token().cancelled_owned();
///     let report = harness.run_to_exit(guard.run(service)).await?;
///     assert_eq!(report.context.cause().to_string(), "systemd");
///     assert_eq!(report.phase("drain").map(|drain| drain.outcome), Some(Outcome::TimedOut));
///     assert_eq!(report.phase("db_close").map(|close| close.outcome), Some(Outcome::Ok));
///     assert_eq!(report.total, Duration::from_secs(25));
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct TestHarness {
    shutdown: Arc<Shutdown>,
    forced: Arc<SetOnce<ForcedExit>>,
}

impl TestHarness {
    /// Installs a guard that the test drives, and returns both. Reads `/proc`, and starts no process.
    ///
    /// # Errors
    /// Those of [`Builder::install`] that can happen here: outside a runtime, or if the name of a marker is
    /// invalid.
    pub fn install(builder: Builder) -> Result<(Self, ShutdownGuard), InstallError> {
        let mut config = builder.config;
        let runtime = check(&config)?;
        config.diag_log = None;
        let mut startup = StartupInfo::collect();
        startup.systemd = SystemdInfo::default();
        startup.process.unit = None;
        (startup.container, startup.pod, startup.platform) = (None, None, None);
        startup.memory_cgroup = None;
        startup.in_pid_namespace = false;
        let (notifier, message) = (Notifier::default(), TerminationMessage::default());
        let shutdown = Shutdown::new(config, startup, notifier, message, runtime.clone());
        let listener = runtime.spawn(listen(shutdown.clone(), Listeners::default()));
        let guard = ShutdownGuard::new(shutdown.clone(), None, vec![listener]);
        Ok((Self { shutdown, forced: Arc::default() }, guard))
    }

    /// Sets systemd's stop timeout. It shortens the deadline of a stop by [systemd](Sender::systemd) or by
    /// an unknown sender.
    pub fn stop_timeout(&self, timeout: Duration) {
        let whose = "the unit's stop timeout".to_owned();
        let timeout = Timespan::from(timeout);
        let own = Timer { timeout, whose, since: None, kills: true };
        let unit = Unit { timers: vec![own], accepts_messages: false, is_stopping: None };
        self.shutdown.handle(Event::UnitKnown(unit));
    }

    /// Delivers a signal from [an operator](Sender::operator), at the current time of the runtime's
    /// clock.
    ///
    /// The first one begins the stop, the second cuts the running phase short, and the third forces
    /// an exit. A signal within 200 ms of the first one of a request belongs to that request. So the
    /// test has to let that time pass: `tokio::time::sleep(Duration::from_millis(200)).await`.
    pub fn signal(&self, signal: Signal) {
        self.signal_from(signal, &Sender::operator());
    }

    /// Delivers a signal from `sender`. It can be any signal, also one that the builder did not
    /// name. After the end of the teardown it has no effect, because the guard no longer handles
    /// signals.
    pub fn signal_from(&self, signal: Signal, sender: &Sender) {
        let (signal, at) = (Box::new(sender.sends(signal)), self.shutdown.now());
        self.shutdown.handle(Event::SignalArrived { signal, at });
        self.exit_if_asked();
    }

    /// Runs `work` until it ends or an exit is forced. `work` is a future that ends with the
    /// teardown, such as [`run`](ShutdownGuard::run) of the guard, or your service's own
    /// `serve(guard)`.
    ///
    /// # Errors
    /// If a real process would have been ended by force: by a third signal, or because the teardown
    /// was not over at its deadline. `work` is then dropped. Phases that are still running continue
    /// on the runtime; in a real process they would have ended with it.
    pub async fn run_to_exit<T>(&self, work: impl Future<Output = T>) -> Result<T, ForcedExit> {
        tokio::select! {
            biased;
            done = work => return Ok(done),
            _ = self.forced.wait() => {}
            () = self.exit_at_deadline() => {}
        }
        Err(self.forced.wait().await.clone())
    }

    /// Checks the teardown as the shutdown thread would, when its deadline has passed. Never returns.
    async fn exit_at_deadline(&self) {
        let mut changed = self.shutdown.changed.subscribe();
        loop {
            let deadline = {
                let machine = self.shutdown.machine();
                machine.deadline().filter(|_| machine.is_watched())
            };
            let Some(deadline) = deadline else {
                // There is no error, because the sender is in `self`.
                let _ = changed.changed().await;
                continue;
            };
            if timeout_at(deadline, changed.changed()).await.is_err() {
                self.shutdown.handle(Event::Watched { missed: 0 });
                sleep(LATE_AFTER).await;
                self.shutdown.handle(Event::Watched { missed: 0 });
                self.exit_if_asked();
            }
        }
    }

    /// If the process would be ended now, does what the shutdown thread would do before that.
    fn exit_if_asked(&self) {
        let reason = self.shutdown.machine().exit_reason();
        let Some(reason) = reason.filter(|_| !self.forced.initialized()) else { return };
        let snapshot = self.shutdown.machine().snapshot(self.shutdown.now());
        let (phases, after) = snapshot.map_or_else(Default::default, |snapshot| {
            let names = snapshot.running.into_iter().map(|(name, ..)| name);
            (names.collect(), snapshot.since)
        });
        let (by, why) = (reason.by(), reason.text());
        self.shutdown.report_forced_exit(reason);
        // If another thread was faster, its value stays.
        let exit_status = self.shutdown.config.exit_status(ExitKind::Forced);
        let _ = self.forced.set(ForcedExit { by, why, phases, after, exit_status });
    }
}

/// The error that stands in for a forced exit: a real process would have been ended here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ended by force {} after the signal: {why}{}", Seconds(*after), in_phases(phases))]
#[non_exhaustive]
pub struct ForcedExit {
    /// What forced the exit.
    pub by: ForcedBy,
    /// The same in words, as in log and record.
    pub why: String,
    /// The phases that were running.
    pub phases: Vec<String>,
    /// How long after the first signal.
    pub after: Duration,
    /// The exit status that the process would have had: 70 by default.
    pub exit_status: u8,
}

fn in_phases(phases: &[String]) -> String {
    if phases.is_empty() { String::new() } else { format!("; in phase {}", phases.join(", ")) }
}
