//! The phases that run now, and the one future that watches over them all.
//!
//! Each phase is a task of its own, so that one that blocks its thread cannot keep its supervisor
//! from noticing (where the runtime has another thread), and its panic stays its own. The supervisor
//! drops a phase when its time is up or a second signal asks for haste, names one that runs long
//! while it does, and says how each has ended.
//!
//! One timer serves for all: it is due when the first of them needs a look, or earlier; never later.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span};

use crate::blackbox::Place;
use crate::budget::{Budget, Seconds};
use crate::events;
use crate::outcome::{Outcome, panic_message};
use crate::phase_context::{PhaseContext, PhaseFn};
use crate::recorded::Recorded;
use crate::report::PhaseReport;
use crate::stop::{Noted, Stop, StopState};

/// How often a phase that runs long is named.
const STILL_RUNNING_EVERY: Duration = Duration::from_secs(5);

/// How long a dropped phase has to let go. A future is dropped when it yields, which is at once
/// unless it blocks its thread.
const LET_GO: Duration = Duration::from_millis(100);

/// What every phase of a teardown has in common.
pub(crate) struct Common {
    /// When the stop was asked for.
    pub(crate) began: Instant,
    /// The phases' parent.
    pub(crate) span: Span,
    pub(crate) stop: Arc<Stop>,
    pub(crate) service_running: watch::Receiver<bool>,
}

impl Common {
    /// The deadline as it stands now.
    pub(crate) fn deadline(&self) -> Instant {
        self.began + self.stop.allowed()
    }

    pub(crate) fn note_start(&self, named: &Named, offset: Duration, budget: Duration) {
        self.stop.black_box.phase_started(named.place(), budget, offset);
        if is_heard(LevelFilter::DEBUG) {
            let (span, name) = (named.span.clone(), named.name.clone());
            self.stop.voice.say(move || events::phase_started(&span, &name, offset, budget));
        }
    }

    pub(crate) fn note_end(&self, named: &Named, report: &PhaseReport) {
        self.stop.black_box.phase_finished(named.place(), report);
        self.stop.message.note_ended(report);
        if report.outcome != Outcome::Ok || is_heard(LevelFilter::INFO) {
            let (span, report) = (named.span.clone(), report.clone());
            self.stop.voice.say(move || events::phase_finished(&span, &report));
        }
    }

    fn note_still_running(&self, phase: &Running, now: Instant) {
        let (span, name) = (phase.named.span.clone(), phase.named.name.clone());
        let started = phase.due.started;
        let (offset, elapsed) = (now - self.began, now - started);
        let (last, budget) = (phase.recorded.last(), phase.end - started);
        self.stop.voice.say(move || {
            events::phase_still_running(&span, &name, offset, elapsed, budget, last.as_deref());
        });
    }
}

/// Whether there may be a subscriber for this level. It is not asked, since it can hang.
fn is_heard(level: LevelFilter) -> bool {
    LevelFilter::current() >= level
}

/// A phase or a group as the log and the record know it.
pub(crate) struct Named {
    pub(crate) name: String,
    group: Option<String>,
    pub(crate) span: Span,
}

impl Named {
    pub(crate) fn new(name: String, parent: &Span, group: Option<&String>) -> Self {
        let span = events::phase_span(&name, parent);
        Self { name, group: group.cloned(), span }
    }

    fn place(&self) -> Place<'_> {
        Place { phase: &self.name, group: self.group.as_deref() }
    }
}

/// A phase that has not ended.
struct Running {
    /// What its starter calls it.
    place: usize,
    named: Named,
    due: Budget,
    offset: Duration,
    /// When it is dropped, as it stands now, and where the phase itself sees that.
    end: Instant,
    shown_end: Arc<Mutex<Instant>>,
    /// When it is named the next time.
    long: Instant,
    token: CancellationToken,
    recorded: Arc<Recorded>,
    noted: Noted,
    task: AbortHandle,
    dropped: Option<Dropped>,
}

/// Why a phase was dropped, and until when it is to let go.
struct Dropped {
    outcome: Outcome,
    what: String,
    let_go: Instant,
}

impl Running {
    /// When something is to be done about it.
    fn next_look(&self) -> Instant {
        self.dropped.as_ref().map_or(self.end.min(self.long), |dropped| dropped.let_go)
    }

    fn set_end(&mut self, end: Instant) {
        self.end = end;
        *self.shown_end.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    fn drop_it(&mut self, now: Instant, outcome: Outcome, what: String) {
        self.token.cancel();
        self.task.abort();
        self.dropped = Some(Dropped { outcome, what, let_go: now + LET_GO });
    }

    /// How it ended that was dropped. Also one that did not let go, with what that was due to.
    fn end_of_dropped(&self, dropped: Dropped, due_to: &str) -> (Outcome, Option<String>) {
        let mut what = dropped.what + due_to;
        if let Some(last) = self.recorded.last() {
            what = format!("{what}; last recorded {last}");
        }
        (dropped.outcome, Some(what))
    }
}

/// See the module's documentation.
pub(crate) struct Supervisor {
    pub(crate) common: Common,
    state: watch::Receiver<StopState>,
    tasks: JoinSet<Option<String>>,
    running: HashMap<Id, Running>,
    /// Those that did not let go.
    given_up: Vec<(usize, PhaseReport)>,
    timer: Pin<Box<Sleep>>,
}

impl Supervisor {
    /// Of nothing so far. In a runtime.
    pub(crate) fn new(common: Common) -> Self {
        // Whatever is started brings it forward.
        let timer = Box::pin(sleep_until(Instant::now() + STILL_RUNNING_EVERY));
        let (tasks, running) = (JoinSet::new(), HashMap::new());
        Self { state: common.stop.watch(), common, tasks, running, given_up: Vec::new(), timer }
    }

    /// Whether a second signal has asked for haste.
    pub(crate) fn is_hurried(&self) -> bool {
        self.state.borrow().hurried
    }

    /// Starts a phase; [`next_ended`](Self::next_ended) gives its `place` back with its report.
    pub(crate) fn start(&mut self, place: usize, named: Named, run: PhaseFn, due: Budget) {
        let offset = self.common.began.elapsed();
        let end = due.started + due.all(self.common.deadline());
        let cx = PhaseContext {
            name: named.name.as_str().into(),
            group: named.group.as_deref().map(Into::into),
            began: self.common.began,
            end: Arc::new(Mutex::new(end)),
            token: CancellationToken::new(),
            recorded: Arc::new(Recorded::default()),
            stop: self.common.stop.clone(),
            service_running: self.common.service_running.clone(),
        };
        self.common.note_start(&named, offset, end - due.started);
        let (token, recorded, shown_end) = (cx.token.clone(), cx.recorded.clone(), cx.end.clone());
        let noted = self.common.stop.note_running(&named.name, recorded.clone());
        let task = self.tasks.spawn(run(cx).instrument(named.span.clone()));
        let long = due.started + STILL_RUNNING_EVERY;
        let (id, dropped) = (task.id(), None);
        let mut phase = Running {
            place,
            named,
            due,
            offset,
            end,
            shown_end,
            long,
            token,
            recorded,
            noted,
            task,
            dropped,
        };
        if self.is_hurried() {
            hurry(&mut phase, end, Instant::now());
        }
        self.look_by(phase.next_look());
        self.running.insert(id, phase);
    }

    /// Waits for a phase to end, and says how it did. `None` where none runs.
    ///
    /// Cancel safe. Dropped with the supervisor, it leaves the phases that run running.
    pub(crate) async fn next_ended(&mut self) -> Option<(usize, PhaseReport)> {
        loop {
            if let Some(given_up) = self.given_up.pop() {
                return Some(given_up);
            }
            if self.running.is_empty() {
                return None;
            }
            let hurried = self.is_hurried();
            tokio::select! {
                biased;
                Some(joined) = self.tasks.join_next_with_id() => {
                    let (id, ended) = match joined {
                        Ok((id, result)) => (id, Ok(result)),
                        Err(e) => (e.id(), Err(e)),
                    };
                    // Else it is one that was given up.
                    if let Some(mut phase) = self.running.remove(&id) {
                        let (outcome, error) = match (phase.dropped.take(), ended) {
                            (Some(dropped), Err(e)) if e.is_cancelled() => {
                                phase.end_of_dropped(dropped, "")
                            }
                            // Also where it ended by itself in that very moment.
                            (_, ended) => outcome_of(ended),
                        };
                        return Some(self.report(phase, outcome, error));
                    }
                }
                () = &mut self.timer => self.look(),
                () = news(&mut self.state), if !hurried => self.adjust(),
            }
        }
    }

    /// Sees to it that there is a look by then.
    fn look_by(&mut self, by: Instant) {
        if by < self.timer.deadline() {
            self.timer.as_mut().reset(by);
        }
    }

    /// Looks at all phases, as something may be due.
    fn look(&mut self) {
        let now = Instant::now();
        let mut stuck = Vec::new();
        for (id, phase) in &mut self.running {
            match &phase.dropped {
                Some(dropped) if now >= dropped.let_go => stuck.push(*id),
                Some(_) => {}
                None if now >= phase.end => {
                    let what = format!("still running after {}", Seconds(now - phase.due.started));
                    phase.drop_it(now, Outcome::TimedOut, what);
                }
                None if now >= phase.long => {
                    self.common.note_still_running(phase, now);
                    phase.long = now + STILL_RUNNING_EVERY;
                }
                None => {}
            }
        }
        for id in stuck {
            let Some(mut phase) = self.running.remove(&id) else { continue };
            let Some(dropped) = phase.dropped.take() else { continue };
            let (outcome, error) = phase.end_of_dropped(dropped, ", and blocking its thread");
            let given_up = self.report(phase, outcome, error);
            self.given_up.push(given_up);
        }
        let next = self.running.values().map(Running::next_look).min();
        self.timer.as_mut().reset(next.unwrap_or(now + STILL_RUNNING_EVERY));
    }

    /// Gives each phase its time anew, as the deadline has moved, or a second signal asks for haste.
    fn adjust(&mut self) {
        let (deadline, now) = (self.common.deadline(), Instant::now());
        let hurried = self.is_hurried();
        for phase in self.running.values_mut().filter(|phase| phase.dropped.is_none()) {
            let end = phase.due.started + phase.due.all(deadline);
            match hurried {
                true => hurry(phase, end, now),
                false => phase.set_end(end),
            }
        }
        if let Some(next) = self.running.values().map(Running::next_look).min() {
            self.look_by(next);
        }
    }

    fn report(
        &self,
        phase: Running,
        outcome: Outcome,
        error: Option<String>,
    ) -> (usize, PhaseReport) {
        let Running { place, named, due, offset, recorded, noted, .. } = phase;
        let report = PhaseReport {
            name: named.name.clone(),
            outcome,
            error,
            offset,
            took: due.started.elapsed(),
            values: recorded.all(),
            members: Vec::new(),
        };
        // The next status shows the next phase.
        drop(noted);
        self.common.note_end(&named, &report);
        (place, report)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.tasks.detach_all();
    }
}

/// Leaves a phase that would have ended by `end` what was reserved for it, and no more.
fn hurry(phase: &mut Running, end: Instant, now: Instant) {
    let reserve = phase.due.reserve;
    phase.set_end(end.min(phase.due.started + reserve));
    if reserve.is_zero() {
        phase.drop_it(now, Outcome::CutShort, "a second signal asked for haste".to_owned());
    }
}

/// Waits until a second signal asks for haste, or the deadline moves. Cancel safe.
async fn news(state: &mut watch::Receiver<StopState>) {
    if state.changed().await.is_err() {
        // Nobody is left who could tell.
        std::future::pending::<()>().await;
    }
}

fn outcome_of(ended: Result<Option<String>, JoinError>) -> (Outcome, Option<String>) {
    match ended {
        Ok(None) => (Outcome::Ok, None),
        Ok(error) => (Outcome::Failed, error),
        Err(e) => match e.try_into_panic() {
            Ok(payload) => (Outcome::Panicked, Some(panic_message(&*payload))),
            // The runtime is shutting down under us.
            Err(cancelled) => (Outcome::CutShort, Some(cancelled.to_string())),
        },
    }
}
