//! The guard: what a service's `main` holds.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forensics_core::capture::Armed;
use forensics_core::context::Trigger;
use forensics_core::escape::{MAX_TEXT_CHARS, cut_to};
use forensics_core::record::Verdict;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::notify::Notifier;
use crate::outcome::{IntoOutcome, Outcome, ServiceOutcome};
use crate::phase::{Group, Phase};
use crate::phase_context::PhaseContext;
use crate::report::{OnExit, PhaseReport, ShutdownReport};
use crate::service::Service;
use crate::shared::Shared;
use crate::stop::Stop;
use crate::teardown::{Common, Teardown};
use crate::{events, keeper, status};

/// Guards a service's end: names who asked for it and why, runs the teardown's phases under one
/// deadline, and reports what became of them.
///
/// Cheap to clone; clones are the same guard. When the last one is dropped, or when
/// [`run`](Self::run) has returned, the signals do again what they did before.
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
    _armed: Armed,
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // Where `run` was never called, or a panic unwinds through it.
        self.stop.abandoned();
    }
}

impl ShutdownGuard {
    pub(crate) fn new(shared: Arc<Shared>, armed: Armed, tasks: Vec<JoinHandle<()>>) -> Self {
        let installed = Installed { _armed: armed, tasks, stop: shared.stop.clone() };
        Self { shared, installed: Arc::new(Mutex::new(Some(installed))) }
    }

    /// A token that is cancelled at the first request to stop, once the context is logged.
    /// Cancelling it is such a request, too.
    pub fn token(&self) -> CancellationToken {
        self.shared.token.clone()
    }

    /// How the previous run of this service ended, by its record; `None` without a
    /// [`record_dir`](crate::Builder::record_dir), and at the first start. It has been logged already.
    pub fn previous(&self) -> Option<&Verdict> {
        self.shared.previous.as_ref()
    }

    /// Asks for a stop without a signal. Only the first request of all counts.
    ///
    /// From any thread; blocks for some 100 µs, in which the context is captured.
    pub fn request(&self, reason: impl Into<String>) {
        let reason = cut_to(reason.into(), MAX_TEXT_CHARS);
        self.shared.stop.begin(Trigger::Request { reason }, None);
    }

    /// Asks a stop that is under way for haste, as a second signal does: the running phase is cut
    /// short, and only those with a reserve go on. Without effect while none is. From any thread.
    pub fn hurry(&self) {
        self.shared.stop.hurry();
    }

    /// Tells the service manager that the service is up (`READY=1`), for a unit of `Type=notify`.
    /// Only needed with [`ready_at_run(false)`](crate::Builder::ready_at_run). Without effect where
    /// there is no `NOTIFY_SOCKET`, as all that follows here; never blocks.
    pub fn ready(&self) {
        self.shared.stop.notifier.ready();
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

    /// The longest that a teardown of the phases registered so far can take: all their timeouts
    /// together, and never more than the deadline.
    pub fn worst_case(&self) -> Duration {
        self.shared.plan.sum(self.shared.config.deadline()).worst_case()
    }

    /// How [`worst_case`](Self::worst_case) comes about, such as
    /// `drain 30.00s + db_close (open, 5.00s reserved) = at most 45.00s`.
    pub fn worst_case_sum(&self) -> String {
        self.shared.plan.sum(self.shared.config.deadline()).to_string()
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
        let shared = &self.shared;
        assert!(!shared.has_run.swap(true, Ordering::AcqRel), "a guard runs one service, once");
        let voice = &shared.stop.voice;
        let sum = shared.plan.sum(shared.config.deadline());
        if !sum.is_possible() {
            voice.say(move || events::impossible(&sum));
        }
        if shared.config.ready_at_run && !shared.stop.has_begun() {
            shared.stop.notifier.ready();
        }
        let (mut service, service_running) = Service::new(service);
        let begun = tokio::select! {
            biased;
            begun = shared.stop.announced() => begun,
            () = service.end() => {
                shared.stop.begin(Trigger::ServiceEnded { error: service.error() }, None);
                shared.stop.announced().await
            }
        };

        let began = tokio_instant(begun.at);
        let deadline = || began + shared.stop.allowed();
        let (sum, said) = (shared.plan.sum(begun.allowed), begun.clone());
        voice.say(move || events::teardown_started(&sum, &said.why));
        shared.plan.check_requirements();

        let common = Common {
            began,
            state: shared.stop.watch(),
            stop: shared.stop.clone(),
            service_running,
        };
        let mut teardown = Teardown::new(common);
        let telling = pin!(status::tell(shared.stop.notifier.clone(), shared.stop.clone()));
        service.alongside(beside(telling, teardown.run(&shared.plan))).await;
        let grace = shared.config.service_grace(teardown.reports.len());
        if let Some(waited) = service.end_within((Instant::now() + grace).min(deadline())).await {
            voice.say(move || events::service_dropped(waited));
        }
        // What was added while the service ended.
        teardown.run(&shared.plan).await;
        shared.wait_for_diagnostic(deadline()).await;
        // The last one can have ended the teardown before the listener woke.
        shared.say_later_signals();

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
            service_outcome: service.ended.unwrap_or(ServiceOutcome::Dropped),
            later_signals: shared.stop.later_signals(),
            errors: shared.plan.errors(),
            deadline: shared.stop.allowed(),
            total: began.elapsed(),
            exit_status: 0,
            on_exit: OnExit(Some(Arc::new(move || keeper::see_out(leaving.clone())))),
        };
        if report.is_failed() {
            report.exit_status = shared.config.failure_status;
        }
        shared.stop.record_end(&report);
        if let Some(failure) = shared.stop.black_box.failure() {
            let failure = failure.to_owned();
            voice.say(move || events::not_recorded(&failure));
        }
        let said = report.clone();
        voice.say(move || events::complete(&said));
        voice.finish();
        shared.stop.set_finished();
        self.uninstall();
        report
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

/// The instant on tokio's clock, which tests can pause.
fn tokio_instant(at: std::time::Instant) -> Instant {
    let now = Instant::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}
