//! The guard: what a service's `main` holds.

use std::fmt;
use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use forensics_core::capture::HandlerGuard;
use forensics_core::record::PostMortem;
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::handle::ShutdownHandle;
use crate::machine::{Awaited, Event, WorstCase};
use crate::outcome::{IntoOutcome, ServiceOutcome, outcome_of, panic_message};
use crate::panics;
use crate::phase::{Group, Phase};
use crate::phase_context::PhaseContext;
use crate::report::ShutdownReport;
use crate::shutdown::Shutdown;
use crate::signal_check::{self, SignalCheck};
use crate::{shutdown_thread, status};

/// Handles the signals of a service, and runs its teardown.
///
/// [`builder`](Self::builder) sets it up, [`phase`](Self::phase) and [`group`](Self::group) register
/// what to do at a stop, and [`run`](Self::run) runs the service. [`handle`](Self::handle) returns a
/// handle that other parts of the program can keep.
///
/// ```no_run
/// use std::error::Error;
/// use std::time::Duration;
/// use forensics_tokio::{ShutdownGuard, ShutdownReport};
///
/// #[tokio::main]
/// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
///     let guard = ShutdownGuard::builder("gateway").install()?;
///     guard.phase("drain", async |cx| cx.service_ended().await)
///         .timeout(guard.drain_timeout());
///     guard.phase("db_close", async |_| { /* pool.close().await */ })
///         .reserve(Duration::from_secs(5));
///
///     let stop = guard.token();
///     let server = async move { stop.cancelled().await };
///     Ok(guard.run(server).await)
/// }
/// ```
///
/// If the guard is dropped before its teardown has ended, the record says that the run was
/// abandoned.
///
/// When `run` has returned or the guard is dropped, the previous signal actions are restored, but
/// not sooner than 200 ms after the last signal. A signal in that time may be the same request.
#[must_use = "signals are only handled while the guard lives"]
pub struct ShutdownGuard {
    handle: ShutdownHandle,
    installed: Installed,
}

/// What ends with the guard.
struct Installed {
    /// Absent in the test harness, which has no signals.
    handlers: Option<HandlerGuard>,
    /// The check of the signals, until `run` continues it.
    check: Option<SignalCheck>,
    tasks: Vec<JoinHandle<()>>,
    shutdown: Arc<Shutdown>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let shutdown = &self.shutdown;
        shutdown.service_running.send_replace(false);
        if !shutdown.machine().is_over() {
            // `run` was not called, or its future was dropped, or a panic unwinds through it.
            let panic = std::thread::panicking().then(panics::last);
            shutdown.handle(Event::GuardDropped(panic));
            shutdown.flush();
        }
        // Another signal may be the same request. It must not end the process.
        if let Some(handlers) = self.handlers.take() {
            let delay = shutdown.machine().same_request_for(shutdown.now());
            shutdown_thread::release_after(delay, handlers);
        }
    }
}

impl ShutdownGuard {
    pub(crate) fn new(
        shutdown: Arc<Shutdown>,
        signals: Option<(HandlerGuard, SignalCheck)>,
        tasks: Vec<JoinHandle<()>>,
    ) -> Self {
        let (handlers, check) = signals.unzip();
        let handle = ShutdownHandle { shutdown: shutdown.clone() };
        Self { handle, installed: Installed { handlers, check, tasks, shutdown } }
    }

    /// Returns a handle for other parts of the program: to request a stop, to report readiness, or to
    /// wait for a stop.
    pub fn handle(&self) -> ShutdownHandle {
        self.handle.clone()
    }

    /// Returns a token that is cancelled when the service should stop. See
    /// [`ShutdownHandle::token`].
    pub fn token(&self) -> CancellationToken {
        self.handle.token()
    }

    /// Returns the drain timeout in effect. See [`ShutdownHandle::drain_timeout`].
    pub fn drain_timeout(&self) -> Duration {
        self.handle.drain_timeout()
    }

    /// Returns how the previous run of this service ended, according to its record. `install` has
    /// already logged it. `None` without a [`record_dir`](crate::Builder::record_dir), and at the
    /// first start.
    pub fn previous_run(&self) -> Option<&PostMortem> {
        self.shutdown().previous.as_ref()
    }

    /// Registers a phase of the teardown. Phases run one after another, in the order in which they
    /// are registered.
    ///
    /// `work` is called when the phase starts. Its future runs as a separate task. It returns `()`
    /// or a `Result`; [`IntoOutcome`] says which errors it can have.
    ///
    /// When the time of the phase is up, its future is dropped at its next `.await`. So the future
    /// must not leave anything half done there.
    ///
    /// If the name is already taken, the phase runs as `NAME#2`. The mistake is logged at once and is
    /// in the report, and the process exits with status 1.
    ///
    /// ```no_run
    /// use std::error::Error;
    /// use std::io;
    /// use std::time::Duration;
    /// use forensics_tokio::{Cause, ShutdownGuard, ShutdownReport};
    ///
    /// async fn flush() -> io::Result<usize> {
    ///     Ok(3)
    /// }
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    ///     let guard = ShutdownGuard::builder("gateway").install()?;
    ///     guard.phase("flush", async |cx| -> io::Result<()> {
    ///         if cx.cause() == Cause::CtrlC {
    ///             return Ok(()); // a developer does not want to wait
    ///         }
    ///         cx.record("flushed", flush().await?);
    ///         Ok(())
    ///     })
    ///     .timeout(Duration::from_secs(10));
    ///
    ///     let stop = guard.token();
    ///     Ok(guard.run(async move { stop.cancelled().await }).await)
    /// }
    /// ```
    pub fn phase<F, Fut, Kind>(&self, name: impl Into<String>, work: F) -> Phase
    where
        F: FnOnce(PhaseContext) -> Fut + Send + 'static,
        Fut: Future<Output: IntoOutcome<Kind>> + Send + 'static,
    {
        self.handle.phase(name, work)
    }

    /// Registers a group of phases that run at the same time. The group ends when the last of them
    /// has ended.
    ///
    /// Settings on the returned value are those of the whole group. Settings inside the closure are
    /// those of one phase.
    ///
    /// ```no_run
    /// use std::error::Error;
    /// use std::time::Duration;
    /// use forensics_tokio::{ShutdownGuard, ShutdownReport};
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    ///     let guard = ShutdownGuard::builder("gateway").install()?;
    ///     guard
    ///         .group("adapters", |group| {
    ///             group.phase("telegram", async |_| { /* disconnect */ });
    ///             group.phase("slack", async |_| { /* disconnect */ })
    ///                 .timeout(Duration::from_secs(2)); // of slack only
    ///         })
    ///         .timeout(Duration::from_secs(10)); // of the whole group
    ///
    ///     let stop = guard.token();
    ///     Ok(guard.run(async move { stop.cancelled().await }).await)
    /// }
    /// ```
    pub fn group<R>(&self, name: impl Into<String>, members: impl FnOnce(&Group) -> R) -> Phase {
        let group = Group(Phase::register(self.shutdown(), &name.into(), None, None));
        members(&group);
        group.0
    }

    /// Returns the longest time that the teardown can take with the phases registered so far. Its `Display`
    /// shows what each phase adds to it.
    pub fn worst_case(&self) -> WorstCase {
        self.shutdown().machine().sum()
    }

    /// Runs the service until a stop is requested or the service ends, then runs the phases. Returns
    /// the report of the stop. The service is a future, or what becomes one, as `axum::serve(..)` does.
    ///
    /// The service's future is still polled during the teardown, so that it can finish what it has
    /// accepted. A phase can wait for its end with
    /// [`PhaseContext::service_ended`]. If it still runs after the last phase, it is dropped after the
    /// [service timeout](crate::Builder::service_timeout).
    ///
    /// If a stop was requested before this call, the service is only polled during the teardown.
    ///
    /// A service that ends, fails or panics leads to the same teardown, with cause `service_ended`.
    ///
    /// After `run` has returned, the process is expected to end: see
    /// [`enforce_exit`](crate::Builder::enforce_exit).
    ///
    /// Not cancel safe. Dropping the future drops the guard and the service. Phases that have started
    /// continue as tasks of the runtime, and no other phase starts.
    pub async fn run<S, Kind>(self, service: S) -> ShutdownReport
    where
        S: IntoFuture,
        S::Output: IntoOutcome<Kind>,
    {
        let Self { handle, mut installed } = self;
        let shutdown = &handle.shutdown;
        shutdown.spans.set_outer();
        shutdown.log.adopt_subscriber();
        let mut awaited = shutdown.awaited.subscribe();
        shutdown.handle(Event::RunStarted);
        if let Some(check) = installed.check.take() {
            installed.tasks.push(shutdown.runtime.spawn(check.repeat(shutdown.clone())));
        }
        let service = async move { service.await.into_error() };
        let mut service = Some(Box::pin(outcome_of(service)));
        let mut status = pin!(status::update(shutdown.clone()));
        let mut is_running = installed.handlers.is_some();
        loop {
            let Awaited { is_finished, drops_service, timer } = *awaited.borrow_and_update();
            if is_running && shutdown.token.is_cancelled() {
                is_running = false;
                // Warns if something else listens for SIGINT, if the last check has not come to that yet.
                drop(signal_check::listen_late(shutdown));
            }
            let report = if is_finished { shutdown.machine().report() } else { None };
            if let Some(report) = report {
                shutdown.close(&report);
                drop(installed);
                shutdown_thread::expect_exit(shutdown);
                return report;
            }
            // Unconstrained, because a busy service may have used up the task's cooperative budget
            // (`tokio::task::coop`) in this poll.
            tokio::select! {
                biased;
                ended = poll_service(&mut service) => service_ended(shutdown, &mut service, ended),
                // Only after the service was polled, because it may have ended in the meantime.
                () = ready(()), if drops_service && service.is_some() => {
                    service_ended(shutdown, &mut service, ServiceOutcome::Dropped);
                }
                // There is no error, because the sender is in `shutdown`.
                _ = unconstrained(awaited.changed()) => {}
                () = unconstrained(sleep_until(timer.unwrap_or_else(Instant::now))), if timer.is_some() => {
                    shutdown.handle(Event::Tick);
                }
                () = &mut status => {}
            }
        }
    }

    pub(crate) fn shutdown(&self) -> &Arc<Shutdown> {
        &self.handle.shutdown
    }
}

impl fmt::Debug for ShutdownGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownGuard")
            .field("config", &self.shutdown().config)
            .field("phases", &self.shutdown().machine().plan.names())
            .finish_non_exhaustive()
    }
}

/// Drops the service, and tells the machine how it ended.
fn service_ended<F>(
    shutdown: &Arc<Shutdown>,
    service: &mut Option<Pin<Box<F>>>,
    outcome: ServiceOutcome,
) {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(service.take())));
    let outcome = match dropped {
        Ok(()) => outcome,
        Err(payload) => ServiceOutcome::Panicked(panic_message(&*payload)),
    };
    shutdown.service_running.send_replace(false);
    shutdown.request(Event::ServiceEnded(outcome));
}

/// Waits for the end of the service; forever if there is none.
async fn poll_service<F: Future>(service: &mut Option<Pin<Box<F>>>) -> F::Output {
    match service {
        Some(service) => service.await,
        None => std::future::pending().await,
    }
}
