//! A guard that a test drives.

use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::context::{StartupInfo, SystemdMarkers};
use forensics_core::duration::Timespan;
use forensics_core::record::ForcedBy;
use tokio::sync::SetOnce;
use tokio::time::{Instant, sleep_until};

use crate::builder::install_error::InstallError;
use crate::builder::{Builder, check, prepare};
use crate::guard::ShutdownGuard;
use crate::listener::{Listeners, listen};
use crate::machine::{Event, ExitReason, FORCED_STATUS, LATE_AFTER, Seconds, Unit};
use crate::message::TerminationMessage;
use crate::notify::Notifier;
use crate::shutdown::Shutdown;
use crate::testing::Sender;

/// A guard without signals: the test says which came, and from whom.
///
/// Everything from the captured signal on is the real thing: context, cause, deadline, phases,
/// escalation, record. What stays away is what belongs to a process and not to a test in it:
///
/// - No handler is installed and no signal listened for: real signals do what they did before.
/// - The shutdown thread does not watch it. The deadline and the forced end are enforced by [`until_end`](Self::until_end),
///   by the runtime's clock, and end no process: they are told as [`Forced`]. A phase that blocks its
///   thread is beyond a test of one thread; see [`Process`](crate::testing::Process) for that.
/// - systemd is neither asked nor told anything, and the service counts as run by no supervisor: the
///   test's own unit, container, pod and `FORENSICS_` variables play no part, and no termination
///   message is left.
/// - No diagnostic is started, whatever the builder says.
///
/// Records are written where the builder names a folder.
///
/// ```
/// use std::time::Duration;
/// use forensics_tokio::testing::{Kit, Sender};
/// use forensics_tokio::{Outcome, ShutdownGuard, Signal};
/// use tokio::time::sleep;
///
/// // In a test: #[tokio::test(start_paused = true)]
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kit = Kit::install(ShutdownGuard::builder("gateway").deadline(Duration::from_secs(30)))?;
/// let guard = kit.guard();
/// guard.phase("drain", |_| sleep(Duration::from_secs(60)));
/// guard.phase("db_close", |_| async {}).reserve(Duration::from_secs(5));
///
/// kit.signal_from(Signal::TERM, &Sender::systemd());
/// let report = kit.until_end(guard.run(guard.token().cancelled_owned())).await?;
/// assert_eq!(report.context.cause().to_string(), "systemd");
/// assert_eq!(report.phase("drain").map(|drain| drain.outcome), Some(Outcome::TimedOut));
/// assert_eq!(report.phase("db_close").map(|close| close.outcome), Some(Outcome::Ok));
/// assert_eq!(report.total, Duration::from_secs(25));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Kit {
    guard: ShutdownGuard,
    shutdown: Arc<Shutdown>,
    forced: Arc<SetOnce<Forced>>,
}

impl Kit {
    /// Installs a guard to be driven by the test. Reads `/proc`, and starts no process.
    ///
    /// # Errors
    /// As [`Builder::install`], as far as it can happen here: outside a runtime, or with a marker's
    /// name that is none.
    pub fn install(builder: Builder) -> Result<Self, InstallError> {
        let mut config = builder.config;
        let runtime = check(&config)?;
        config.diag_log = None;
        let mut startup = StartupInfo::collect();
        startup.systemd = SystemdMarkers::default();
        startup.process.unit = None;
        (startup.container, startup.pod, startup.memory_cgroup) = (None, None, None);
        startup.in_pid_namespace = false;
        let (notifier, message) = (Notifier::default(), TerminationMessage::default());
        let shutdown = prepare(config, startup, notifier, message, runtime.clone());
        let listener = runtime.spawn(listen(shutdown.clone(), Listeners::default()));
        let guard = ShutdownGuard::new(shutdown.clone(), None, vec![listener]);
        Ok(Self { guard, shutdown, forced: Arc::default() })
    }

    /// The guard, as `install` would have returned it.
    pub fn guard(&self) -> ShutdownGuard {
        self.guard.clone()
    }

    /// Lets systemd's stop timeout be this, which shortens the deadline of a stop by
    /// [systemd](Sender::systemd), or by an unknown sender. Only the first call counts.
    pub fn stop_timeout(&self, timeout: Duration) {
        let unit = Unit { stop_timeout: Timespan::from(timeout), heeds_us: false };
        self.shutdown.handle(Event::UnitKnown(unit));
    }

    /// Lets this signal come, now on the runtime's clock, from [an operator](Sender::operator).
    ///
    /// The first one begins the stop, the second cuts the running phase short, the third forces an
    /// end; and one within 200 ms of the last is the same request once more. Under a paused clock
    /// that is time which the test lets pass: `tokio::time::sleep(Duration::from_millis(200)).await`.
    pub fn signal(&self, signal: Signal) {
        self.signal_from(signal, &Sender::operator());
    }

    /// The same, from whom the test says. Any signal is taken, whichever the builder named; none once
    /// the teardown has ended, when the guard has given them back.
    pub fn signal_from(&self, signal: Signal, sender: &Sender) {
        let (signal, at) = (Box::new(sender.sends(signal)), self.shutdown.now());
        self.shutdown.handle(Event::SignalArrived { signal, at });
        self.end_if_asked();
    }

    /// Runs `work`, which is to end with the teardown, such as the guard's
    /// [`run`](ShutdownGuard::run) or all of the service's own `serve(guard)`: to its end, or to a
    /// forced one. Without a stop that never ends it waits for `work` alone.
    ///
    /// # Errors
    /// Where a real process would have been ended by force: by a third signal, or as it was not
    /// over by its deadline. `work` is then dropped; phases that still run are left to the runtime,
    /// where a real process would take them along.
    pub async fn until_end<T>(&self, work: impl Future<Output = T>) -> Result<T, Forced> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            forced = self.forced() => Err(forced),
        }
    }

    /// Waits until the process would be ended by force. Never returns where the teardown ends in
    /// time. Cancel safe.
    async fn forced(&self) -> Forced {
        tokio::select! {
            biased;
            forced = self.forced.wait() => forced.clone(),
            () = self.past_deadline() => {
                self.shutdown.handle(Event::ForcedByHarness(ExitReason::Deadline));
                self.end_if_asked();
                self.forced.wait().await.clone()
            }
        }
    }

    /// Waits until a teardown that has not ended has been given up. Cancel safe.
    async fn past_deadline(&self) {
        let mut changes = self.shutdown.changes();
        loop {
            changes.mark_unchanged();
            let deadline = self.open_deadline();
            tokio::select! {
                // Fails only without the sender, which we hold.
                _ = changes.changed() => {}
                () = sleep_until_deadline(deadline) => {
                    // It can have been moved since.
                    if deadline.is_some() && self.open_deadline() == deadline {
                        return;
                    }
                }
            }
        }
    }

    /// The deadline of a stop that is under way.
    fn open_deadline(&self) -> Option<Instant> {
        let machine = self.shutdown.machine();
        machine.deadline().filter(|_| machine.is_watched())
    }

    /// Does what the shutdown thread does before it ends the process, if it is to be ended.
    fn end_if_asked(&self) {
        let Some(reason) = self.shutdown.exit_reason() else { return };
        if self.forced.initialized() {
            return;
        }
        let snapshot = self.shutdown.machine().snapshot(self.shutdown.now());
        let (phases, after) = snapshot.map_or_else(Default::default, |snapshot| {
            let names = snapshot.running.into_iter().map(|(name, ..)| name);
            (names.collect(), snapshot.since)
        });
        let (by, why) = (reason.by(), reason.text());
        self.shutdown.last_words(reason);
        // The first one counts.
        let _ = self.forced.set(Forced { by, why, phases, after, exit_status: FORCED_STATUS });
    }
}

/// Waits until a teardown with this deadline is given up; for ever where there is none.
async fn sleep_until_deadline(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline + LATE_AFTER).await,
        None => pending().await,
    }
}

/// A process would have been ended by force here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forced {
    /// Which end did not come, or was not waited for.
    pub by: ForcedBy,
    /// The same in words, as in log and record.
    pub why: String,
    /// The phases that ran.
    pub phases: Vec<String>,
    /// How long after the first signal.
    pub after: Duration,
    /// The status that the process would have ended with: 70.
    pub exit_status: u8,
}

impl std::error::Error for Forced {}

impl fmt::Display for Forced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended by force {} after the signal: {}", Seconds(self.after), self.why)?;
        match self.phases.is_empty() {
            true => Ok(()),
            false => write!(f, "; in phase {}", self.phases.join(", ")),
        }
    }
}
