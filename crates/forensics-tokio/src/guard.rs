//! The guard: what a service's `main` holds.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use forensics_core::capture::HandlerGuard;
use forensics_core::escape::{MAX_TEXT_CHARS, truncate};
use forensics_core::record::PostMortem;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::Callback;
use crate::machine::Event;
use crate::notify::Notifier;
use crate::outcome::{IntoOutcome, ServiceOutcome, panic_message};
use crate::panics;
use crate::phase::{Group, Phase, boxed};
use crate::phase_context::PhaseContext;
use crate::phases::catch_panic;
#[cfg(feature = "axum")]
use crate::readiness::Readiness;
use crate::report::ShutdownReport;
use crate::shutdown::Shutdown;
use crate::{shutdown_thread, status};

/// Guards a service's end: names who asked for it and why, runs the teardown's phases under one
/// deadline, and reports what became of them.
///
/// Cheap to clone; clones are the same guard. When the last one is dropped, or when
/// [`run`](Self::run) has returned, the signals do again what they did before; but not within 200 ms of the
/// last one, as another would be the same request, delivered twice.
///
/// ```no_run
/// use std::time::Duration;
/// use forensics_tokio::ShutdownGuard;
///
/// #[tokio::main]
/// async fn main() -> std::process::ExitCode {
///     let guard = match ShutdownGuard::builder("gateway").install() {
///         Ok(guard) => guard,
///         Err(e) => panic!("{e}"),
///     };
///     guard.phase("drain", |cx| async move { cx.service_ended().await })
///         .timeout(Duration::from_secs(30));
///     guard.phase("db_close", |_| async { /* pool.close().await */ })
///         .reserve(Duration::from_secs(5));
///
///     let token = guard.token();
///     let server = async move { token.cancelled().await };
///     guard.run(server).await.exit_code()
/// }
/// ```
#[derive(Clone)]
pub struct ShutdownGuard {
    shutdown: Arc<Shutdown>,
    has_run: Arc<AtomicBool>,
    /// Dropped with the guard, or by [`run`](Self::run) at its end.
    installed: Arc<Mutex<Option<Installed>>>,
}

/// What ends with the guard.
struct Installed {
    /// Absent where no signal is to come, as in the test harness.
    handlers: Option<HandlerGuard>,
    tasks: Vec<JoinHandle<()>>,
    shutdown: Arc<Shutdown>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let shutdown = &self.shutdown;
        if !shutdown.machine().is_over() {
            // `run` was never called, was dropped, or a panic unwinds through it.
            if std::thread::panicking() {
                let (message, location) = panics::last();
                shutdown.handle(Event::Panicked { message, location });
            } else {
                shutdown.handle(Event::GuardDropped);
            }
            shutdown.flush();
        }
        // Another signal may be the same request, delivered twice: it must not end the process.
        if let Some(handlers) = self.handlers.take() {
            let delay = shutdown.machine().same_request_for(shutdown.now());
            shutdown_thread::release_after(delay, handlers);
        }
    }
}

impl ShutdownGuard {
    pub(crate) fn new(
        shutdown: Arc<Shutdown>,
        handlers: Option<HandlerGuard>,
        tasks: Vec<JoinHandle<()>>,
    ) -> Self {
        let installed = Installed { handlers, tasks, shutdown: shutdown.clone() };
        let installed = Arc::new(Mutex::new(Some(installed)));
        Self { shutdown, has_run: Arc::default(), installed }
    }

    /// A token that is cancelled at the first request to stop, once the context is logged and the
    /// [lead](crate::Builder::lead), where there is one, is over.
    /// Cancelling it is such a request, too.
    pub fn token(&self) -> CancellationToken {
        self.shutdown.token.clone()
    }

    /// How the previous run of this service ended, by its record; `None` without a
    /// [`record_dir`](crate::Builder::record_dir), and at the first start. It has been logged already.
    pub fn previous(&self) -> Option<&PostMortem> {
        self.shutdown.previous.as_ref()
    }

    /// Asks for a stop without a signal. Only the first request of all counts.
    ///
    /// From any thread; blocks for some 100 µs, in which the context is captured.
    pub fn request(&self, reason: impl Into<String>) {
        let reason = truncate(reason.into(), MAX_TEXT_CHARS);
        self.shutdown.request(Event::Requested { reason });
    }

    /// Asks a stop that is under way for haste, as a second signal does: the running phase is cut
    /// short, and only those with a reserve go on; or the lead is ended, where it lasts. Without
    /// effect while no stop is under way. From any thread.
    pub fn hurry(&self) {
        self.shutdown.handle(Event::Escalated);
    }

    /// Says that the service is up: its [readiness](Self::readiness) turns true, and the service
    /// manager is told (`READY=1`), for a unit of `Type=notify`. Only needed with
    /// [`ready_at_run(false)`](crate::Builder::ready_at_run). The service manager is told nothing
    /// where there is no `NOTIFY_SOCKET`, here as in all that follows; never blocks.
    pub fn ready(&self) {
        self.shutdown.handle(Event::Ready);
    }

    /// Whether the service wants traffic: false until it is [ready](Self::ready), and for good from a
    /// stop's first moment on, before the token is cancelled. For a caller that asks before it sends, such
    /// as a readiness probe; with the feature `axum` there is one in `probes`.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.shutdown.readiness.watch()
    }

    /// Sets the line that `systemctl status` shows for the service. During the teardown it is the
    /// guard's: it names the phases that run.
    pub fn status(&self, text: &str) {
        self.shutdown.notifier.status(text);
    }

    /// Tells the service manager that the configuration is being reloaded (`RELOADING=1`), until
    /// the returned value is dropped. A unit of `Type=notify-reload` wants that after SIGHUP, which
    /// is then not to be among the guard's [signals](crate::Builder::signals).
    pub fn reloading(&self) -> Reloading {
        let notifier = self.shutdown.notifier.clone();
        notifier.reloading();
        Reloading { notifier }
    }

    /// Adds a phase after those there are. Also while the teardown runs: then it runs last.
    ///
    /// `work` is called when the phase's turn comes, and its future runs as a task of its own.
    /// When its time is up the future is dropped at its next `.await`, so it has to be cancel safe
    /// as far as what it must not leave half done.
    ///
    /// A name that is taken is an error, logged at once and in the report, for which the process
    /// exits with 1; the phase runs all the same, as `NAME#2`, since work lost would be worse.
    pub fn phase<F, Fut>(&self, name: impl Into<String>, work: F) -> Phase
    where
        F: FnOnce(PhaseContext) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoOutcome,
    {
        Phase::register(&self.shutdown, &name.into(), boxed(work))
    }

    /// Adds a group, whose phases run side by side. Names are as for [`phase`](Self::phase).
    pub fn group(&self, name: impl Into<String>) -> Group {
        Group::register(&self.shutdown, &name.into())
    }

    /// The longest that a teardown of the phases registered so far can take: the lead and all their
    /// timeouts together, and never more than the deadline.
    pub fn worst_case(&self) -> Duration {
        self.shutdown.machine().sum().worst_case()
    }

    /// How [`worst_case`](Self::worst_case) comes about, such as
    /// `lead 5.00s + drain 30.00s + db_close (open, 5.00s reserved) = at most 50.00s`.
    pub fn worst_case_sum(&self) -> String {
        self.shutdown.machine().sum().to_string()
    }

    /// Runs the service until a stop is asked for or it ends by itself, then tears down.
    ///
    /// The service's future is polled on during the teardown, so that what it serves can finish;
    /// a phase waits for its end with [`PhaseContext::service_ended`]. If it still runs after the
    /// last phase it has the [grace](crate::Builder::service_grace), then it is dropped. A stop that was
    /// asked for before this call is not lost: the service is then polled only during the teardown.
    ///
    /// Its end, its error and its panic all lead to the same teardown, with cause `service_ended`.
    ///
    /// Not cancel safe: dropped, it drops the service. A teardown that is under way goes on for as long
    /// as the runtime and the guard live, and its end is recorded, but there is no report.
    ///
    /// # Panics
    /// Where it is called twice on the same guard.
    pub async fn run<S>(&self, service: S) -> ShutdownReport
    where
        S: Future,
        S::Output: IntoOutcome,
    {
        assert!(!self.has_run.swap(true, Ordering::AcqRel), "a guard runs one service, once");
        let shutdown = &self.shutdown;
        shutdown.phases.set_outer_span();
        let mut changes = shutdown.changes();
        shutdown.handle(Event::RunStarted);
        let _dropped_early = DroppedEarly(shutdown);
        let mut service = Some(Box::pin(catch_panic(service)));
        let mut status = pin!(status::update(shutdown.clone()));
        loop {
            changes.mark_unchanged();
            let (report, timer, drops_service) = {
                let machine = shutdown.machine();
                (machine.report(), machine.next_timer(), machine.drops_service())
            };
            if let Some(report) = report {
                return self.close(report);
            }
            if drops_service && service.is_some() {
                // It may have ended meanwhile.
                let ended = poll_once(&mut service).await;
                self.service_ended(&mut service, ended);
                continue;
            }
            // Unconstrained, as a busy service may have used up the task's budget in this poll.
            tokio::select! {
                biased;
                ended = poll_service(&mut service) => self.service_ended(&mut service, Some(ended)),
                // Fails only without the sender, which we hold.
                _ = unconstrained(changes.changed()) => {}
                () = unconstrained(sleep_until(timer.unwrap_or_else(Instant::now))), if timer.is_some() => {
                    shutdown.handle(Event::Tick);
                }
                () = &mut status => {}
            }
        }
    }

    /// Drops the service, and brings how it ended: as given, or by being dropped.
    fn service_ended<F, T: IntoOutcome>(
        &self,
        service: &mut Option<Pin<Box<F>>>,
        ended: Option<Result<T, String>>,
    ) {
        let outcome = match ended {
            None => ServiceOutcome::Dropped,
            Some(Ok(output)) => match output.into_error() {
                None => ServiceOutcome::Ended,
                Some(error) => ServiceOutcome::Failed(error),
            },
            Some(Err(message)) => ServiceOutcome::Panicked(message),
        };
        let dropped =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(service.take())));
        let outcome = match dropped {
            Ok(()) => outcome,
            Err(payload) => ServiceOutcome::Panicked(panic_message(&*payload)),
        };
        self.shutdown.service_running.send_replace(false);
        self.shutdown.request(Event::ServiceEnded(outcome));
    }

    /// Writes what is left to write, gives the signals back, and ends the guard's tasks.
    fn close(&self, mut report: ShutdownReport) -> ShutdownReport {
        self.shutdown.close(&report);
        self.installed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let leaving = self.shutdown.clone();
        report.on_exit = Some(Callback(Arc::new(move || shutdown_thread::expect_exit(&leaving))));
        report
    }

    /// For probes, which are to keep no guard alive.
    #[cfg(feature = "axum")]
    pub(crate) fn shared_readiness(&self) -> Arc<Readiness> {
        self.shutdown.readiness.clone()
    }
}

/// See [`ShutdownGuard::reloading`].
#[must_use = "the reload ends when this is dropped"]
pub struct Reloading {
    notifier: Notifier,
}

impl Drop for Reloading {
    fn drop(&mut self) {
        self.notifier.ready();
    }
}

impl std::fmt::Debug for Reloading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reloading")
    }
}

impl std::fmt::Debug for ShutdownGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShutdownGuard")
            .field("config", &self.shutdown.config)
            .field("phases", &self.shutdown.machine().plan.names())
            .finish_non_exhaustive()
    }
}

/// Tells the machine that nothing waits for the end of the teardown any more.
struct DroppedEarly<'a>(&'a Arc<Shutdown>);

impl Drop for DroppedEarly<'_> {
    fn drop(&mut self) {
        self.0.service_running.send_replace(false);
        self.0.handle(Event::RunDropped);
    }
}

/// The output of the service; never, where there is none.
async fn poll_service<F: Future>(service: &mut Option<Pin<Box<F>>>) -> F::Output {
    match service {
        Some(service) => service.await,
        None => std::future::pending().await,
    }
}

/// The output of the service, if it is there at once.
async fn poll_once<F: Future>(service: &mut Option<Pin<Box<F>>>) -> Option<F::Output> {
    poll_fn(|cx| {
        let polled = service.as_mut().map(|service| service.as_mut().poll(cx));
        Poll::Ready(polled.and_then(|polled| match polled {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }))
    })
    .await
}
