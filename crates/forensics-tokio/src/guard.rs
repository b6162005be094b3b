//! The guard: what a service's `main` holds.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forensics_core::capture::Armed;
use forensics_core::context::Trigger;
use forensics_core::escape::{MAX_TEXT_CHARS, cut_to};
use forensics_core::record::PostMortem;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::begun::LeadEnd;
use crate::budget::Sum;
use crate::notify::Notifier;
use crate::outcome::{IntoOutcome, Outcome, ServiceOutcome};
#[cfg(feature = "axum")]
use crate::readiness::Readiness;
use crate::report::{OnExit, PhaseReport, ShutdownReport};
use crate::service::Service;
use crate::shared::Shared;
use crate::stop::Stop;
use crate::teardown::Teardown;
use crate::teardown::phase::{Group, Phase};
use crate::teardown::phase_context::PhaseContext;
use crate::teardown::supervisor::Common;
use crate::{events, keeper, service, status};

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
    shared: Arc<Shared>,
    /// Dropped with the guard, or by [`run`](Self::run) at its end.
    installed: Arc<Mutex<Option<Installed>>>,
}

/// What ends with the guard.
struct Installed {
    /// Absent where no signal is to come, as in the test kit.
    armed: Option<Armed>,
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // Where `run` was never called, or a panic unwinds through it.
        self.stop.abandoned();
        // Whoever has asked once may be heard twice, and that is not to end us after all.
        if let Some(armed) = self.armed.take() {
            keeper::disarm_after(self.stop.same_request_for(), armed);
        }
    }
}

impl ShutdownGuard {
    pub(crate) fn new(
        shared: Arc<Shared>,
        armed: Option<Armed>,
        tasks: Vec<JoinHandle<()>>,
    ) -> Self {
        let installed = Installed { armed, tasks, stop: shared.stop.clone() };
        Self { shared, installed: Arc::new(Mutex::new(Some(installed))) }
    }

    /// A token that is cancelled at the first request to stop, once the context is logged and the
    /// [lead](crate::Builder::lead), where there is one, is over.
    /// Cancelling it is such a request, too.
    pub fn token(&self) -> CancellationToken {
        self.shared.token.clone()
    }

    /// How the previous run of this service ended, by its record; `None` without a
    /// [`record_dir`](crate::Builder::record_dir), and at the first start. It has been logged already.
    pub fn previous(&self) -> Option<&PostMortem> {
        self.shared.previous.as_ref()
    }

    #[cfg(test)]
    pub(crate) fn stop(&self) -> Arc<Stop> {
        self.shared.stop.clone()
    }

    /// Asks for a stop without a signal. Only the first request of all counts.
    ///
    /// From any thread; blocks for some 100 µs, in which the context is captured.
    pub fn request(&self, reason: impl Into<String>) {
        let reason = cut_to(reason.into(), MAX_TEXT_CHARS);
        self.shared.stop.begin(Trigger::Request { reason });
    }

    /// Asks a stop that is under way for haste, as a second signal does: the running phase is cut
    /// short, and only those with a reserve go on; or the lead is ended, where it lasts. Without
    /// effect while no stop is under way. From any thread.
    pub fn hurry(&self) {
        self.shared.stop.hurry();
    }

    /// Says that the service is up: its [readiness](Self::readiness) turns true, and the service
    /// manager is told (`READY=1`), for a unit of `Type=notify`. Only needed with
    /// [`ready_at_run(false)`](crate::Builder::ready_at_run). The service manager is told nothing
    /// where there is no `NOTIFY_SOCKET`, here as in all that follows; never blocks.
    pub fn ready(&self) {
        self.shared.stop.readiness.begin();
        self.shared.stop.notifier.ready();
    }

    /// Whether the service wants traffic: false until it is [ready](Self::ready), and for good from a
    /// stop's first moment on, before the token is cancelled. For whoever asks before sending, such
    /// as a readiness probe; with the feature `axum` there is one in `probes`.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.shared.stop.readiness.watch()
    }

    /// Sets the line that `systemctl status` shows for the service. During the teardown it is the
    /// guard's: it names the phases that run.
    pub fn status(&self, text: &str) {
        self.shared.stop.notifier.status(text);
    }

    /// Tells the service manager that the configuration is being read anew (`RELOADING=1`), until
    /// the returned value is dropped. A unit of `Type=notify-reload` wants that after SIGHUP, which
    /// is then not to be among the guard's [signals](crate::Builder::signals).
    pub fn reloading(&self) -> Reloading {
        let notifier = self.shared.stop.notifier.clone();
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
        Phase::register(&self.shared.plan, &name.into(), work)
    }

    /// Adds a group, whose phases run side by side. Names are as for [`phase`](Self::phase).
    pub fn group(&self, name: impl Into<String>) -> Group {
        Group::register(&self.shared.plan, &name.into())
    }

    /// The longest that a teardown of the phases registered so far can take: the lead and all their
    /// timeouts together, and never more than the deadline.
    pub fn worst_case(&self) -> Duration {
        self.sum().worst_case()
    }

    /// How [`worst_case`](Self::worst_case) comes about, such as
    /// `lead 5.00s + drain 30.00s + db_close (open, 5.00s reserved) = at most 50.00s`.
    pub fn worst_case_sum(&self) -> String {
        self.sum().to_string()
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
    /// Not cancel safe: dropped during the teardown, it leaves the running phase running and no
    /// phase after it is run.
    ///
    /// # Panics
    /// Where it is called twice on the same guard.
    pub async fn run<S>(&self, service: S) -> ShutdownReport
    where
        S: Future,
        S::Output: IntoOutcome,
    {
        let (polled, is_running) = Service::new();
        let supervisor = self.supervise(polled.clone(), is_running);
        service::polled(service, polled, supervisor).await
    }

    /// What [`run`](Self::run) does whatever the service's type is, so that it is compiled once, and here.
    fn supervise(
        &self,
        service: Service,
        is_running: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ShutdownReport> + Send + '_>> {
        Box::pin(self.stop_and_tear_down(service, is_running))
    }

    async fn stop_and_tear_down(
        &self,
        service: Service,
        service_running: watch::Receiver<bool>,
    ) -> ShutdownReport {
        let shared = &self.shared;
        assert!(!shared.has_run.swap(true, Ordering::AcqRel), "a guard runs one service, once");
        let voice = &shared.stop.voice;
        let sum = self.sum();
        if !sum.is_possible() {
            voice.say(move || events::impossible(&sum));
        }
        if shared.config.ready_at_run && !shared.stop.has_begun() {
            self.ready();
        }
        let begun = tokio::select! {
            biased;
            begun = shared.stop.announced() => begun,
            () = service.end() => {
                shared.stop.begin(Trigger::ServiceEnded { error: service.error() });
                // Where another was first: there is nothing left to go on.
                shared.stop.end_lead(LeadEnd::Service);
                shared.stop.announced().await
            }
        };

        let began = begun.at;
        let deadline = || began + shared.stop.allowed();
        let sum = shared.plan.sum(shared.stop.led(), begun.allowed);
        let said = begun.clone();
        voice.say(move || events::teardown_started(&sum, &said.why));
        shared.plan.check_requirements();

        let common = Common {
            began,
            span: events::teardown_span(&shared.config.service, &begun.context),
            stop: shared.stop.clone(),
            service_running: Arc::new(service_running),
        };
        let mut teardown = Teardown::new(common);
        let telling = pin!(status::tell(shared.stop.notifier.clone(), shared.stop.clone()));
        service.alongside(beside(telling, teardown.run(&shared.plan))).await;
        let grace = shared.config.service_grace(teardown.reports.len());
        let graced =
            Instant::now().checked_add(grace).map_or(deadline(), |end| end.min(deadline()));
        if let Some(waited) = service.end_within(graced).await {
            voice.say(move || events::service_dropped(waited));
        }
        // What was added while the service ended.
        teardown.run(&shared.plan).await;
        shared.wait_for_diagnostic(deadline()).await;
        // The last one can have ended the teardown before the listener woke.
        shared.stop.say_later_signals();

        if !shared.stop.claim_end() {
            // The keeper ends the process in this moment, and says so.
            std::future::pending::<()>().await;
        }
        let leaving = shared.stop.clone();
        let phases = teardown.reports;
        let timed_out = |phase: &PhaseReport| phase.outcome == Outcome::TimedOut;
        let mut report = ShutdownReport {
            service: shared.config.service.clone(),
            context: begun.context.clone(),
            timed_out: phases
                .iter()
                .any(|phase| phase.members.iter().any(timed_out) || timed_out(phase)),
            phases,
            service_outcome: service.ended().unwrap_or(ServiceOutcome::Dropped),
            later_signals: shared.stop.later_signals(),
            more_signals: shared.stop.unlisted_signals(),
            errors: shared.plan.errors(),
            deadline: shared.stop.allowed(),
            lead: shared.stop.led(),
            total: began.elapsed(),
            exit_status: 0,
            on_exit: OnExit(Some(Arc::new(move || keeper::see_out(leaving.clone())))),
        };
        if report.is_failed() {
            report.exit_status = shared.config.failure_status;
        }
        shared.stop.record_end(&report);
        if let Some(failure) = shared.stop.black_box.failure_to_say() {
            let failure = failure.to_owned();
            voice.say(move || events::not_recorded(&failure));
        }
        if report.more_signals > 0 {
            let more = report.more_signals;
            voice.say(move || events::more_signals(more));
        }
        if let Some(failure) = shared.stop.message.failure() {
            let failure = failure.to_owned();
            voice.say(move || events::no_termination_message(&failure));
        }
        let (cause, phases) = (report.context.cause(), report.phases.len());
        let (timed_out, total, status) = (report.timed_out, report.total, report.exit_status);
        voice.say(move || events::complete(cause, phases, timed_out, total, status));
        voice.finish();
        shared.stop.message.finish();
        shared.stop.set_finished();
        self.uninstall();
        report
    }

    /// What a lead and the phases registered so far can take.
    fn sum(&self) -> Sum {
        let config = &self.shared.config;
        self.shared.plan.sum(config.lead, config.deadline())
    }

    /// For probes, which are to keep no guard alive.
    #[cfg(feature = "axum")]
    pub(crate) fn shared_readiness(&self) -> Arc<Readiness> {
        self.shared.stop.readiness.clone()
    }

    /// Gives the signals back and ends the guard's tasks.
    fn uninstall(&self) {
        self.installed.lock().unwrap_or_else(PoisonError::into_inner).take();
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
            .field("config", &self.shared.config)
            .field("plan", &self.shared.plan)
            .finish_non_exhaustive()
    }
}

/// Polls what never ends beside `work`, until `work` is done.
async fn beside<T>(endless: impl Future<Output = ()>, work: impl Future<Output = T>) -> T {
    let (mut endless, mut work) = (pin!(endless), pin!(work));
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = &mut endless => {}
        }
    }
}
