//! The phases that run now, and the one future that watches over them all.
//!
//! Each phase is a task of its own, so that one that blocks its thread cannot keep its supervisor
//! from noticing (where the runtime has another thread), and its panic stays its own. The supervisor
//! drops a phase when its time is up or a second signal asks for haste, names one that runs long
//! while it does, and says how each has ended.
//!
//! One timer serves for all: it is due when the first of them needs a look, or earlier; never later.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::ReusableBoxFuture;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span};

use crate::blackbox::Place;
use crate::budget::{Budget, Seconds};
use crate::events;
use crate::outcome::{Outcome, panic_message};
use crate::phase_state::{Named, PhaseState};
use crate::report::PhaseReport;
use crate::stop::{Noted, Stop, StopState};
use crate::teardown::phase_context::{PhaseContext, PhaseFn};

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
    /// In an `Arc`, as to clone a receiver counts it twice.
    pub(crate) service_running: Arc<watch::Receiver<bool>>,
}

/// What the phases have to go by, until a second signal asks for haste or the deadline moves.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) deadline: Instant,
    /// Only what is reserved is left to each.
    pub(crate) hurried: bool,
}

impl Common {
    /// What the phases have to go by as it stands now.
    pub(crate) fn terms(&self) -> Terms {
        let (allowed, hurried) = self.stop.terms();
        Terms { deadline: self.began + allowed, hurried }
    }

    pub(crate) fn note_start(&self, named: &Named, offset: Duration, budget: Duration) {
        self.stop.black_box.phase_started(named.place(), budget, offset);
        if is_heard(LevelFilter::DEBUG) {
            let (span, name) = (named.span.clone(), named.name.clone());
            self.stop.voice.say(move || events::phase_started(&span, &name, offset, budget));
        }
    }

    pub(crate) fn note_end(&self, span: &Span, group: Option<&str>, report: &PhaseReport) {
        let place = Place { phase: &report.name, group };
        self.stop.black_box.phase_finished(place, report);
        self.stop.message.note_ended(report);
        if report.outcome != Outcome::Ok || is_heard(LevelFilter::INFO) {
            let (span, report) = (span.clone(), report.clone());
            self.stop.voice.say(move || events::phase_finished(&span, &report));
        }
    }

    fn note_still_running(&self, phase: &Running, now: Instant) {
        let (span, name) = (phase.state.named.span.clone(), phase.state.named.name.clone());
        let started = phase.due.started;
        let (offset, elapsed) = (now - self.began, now - started);
        let (last, budget) = (phase.state.recorded.last(), phase.state.end() - started);
        self.stop.voice.say(move || {
            events::phase_still_running(&span, &name, offset, elapsed, budget, last.as_deref());
        });
    }
}

/// Whether there may be a subscriber for this level. It is not asked, since it can hang.
fn is_heard(level: LevelFilter) -> bool {
    LevelFilter::current() >= level
}

/// A phase that has not ended.
struct Running {
    /// What its starter calls it.
    place: usize,
    state: Arc<PhaseState>,
    due: Budget,
    offset: Duration,
    /// When it is named the next time.
    long: Instant,
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
        self.dropped.as_ref().map_or(self.state.end().min(self.long), |dropped| dropped.let_go)
    }

    fn drop_it(&mut self, now: Instant, outcome: Outcome, what: String) {
        self.state.token().cancel();
        self.task.abort();
        self.dropped = Some(Dropped { outcome, what, let_go: now + LET_GO });
    }

    /// How it ended that was dropped. Also one that did not let go, with what that was due to.
    fn end_of_dropped(&self, dropped: Dropped, due_to: &str) -> (Outcome, Option<String>) {
        let mut what = dropped.what + due_to;
        if let Some(last) = self.state.recorded.last() {
            what = format!("{what}; last recorded {last}");
        }
        (dropped.outcome, Some(what))
    }
}

/// See the module's documentation.
pub(crate) struct Supervisor {
    pub(crate) common: Common,
    /// Comes true when the terms may have changed. Waited for from one phase to the next, as to begin to
    /// wait costs as much as a small phase.
    news: ReusableBoxFuture<'static, watch::Receiver<StopState>>,
    /// What each gives back is the number of its phase, and the error it ended with.
    tasks: JoinSet<(usize, Option<String>)>,
    /// By their numbers; emptied before the next one where none is left.
    running: Vec<Option<Running>>,
    /// How many are left.
    left: usize,
    /// Those that did not let go.
    given_up: Vec<(usize, PhaseReport)>,
    timer: Pin<Box<Sleep>>,
}

impl Supervisor {
    /// Of nothing so far. In a runtime.
    pub(crate) fn new(common: Common) -> Self {
        // Whatever is started brings it forward.
        let timer = Box::pin(sleep_until(Instant::now() + STILL_RUNNING_EVERY));
        let (tasks, running) = (JoinSet::new(), Vec::new());
        let (left, given_up) = (0, Vec::new());
        let news = ReusableBoxFuture::new(news(common.stop.watch()));
        Self { common, news, tasks, running, left, given_up, timer }
    }

    /// Starts a phase; [`next_ended`](Self::next_ended) gives its `place` back with its report.
    pub(crate) fn start(
        &mut self,
        place: usize,
        named: Named,
        run: PhaseFn,
        due: Budget,
        terms: Terms,
    ) {
        let (began, started) = (self.common.began, due.started);
        let (offset, budget) = (started - began, due.all(terms.deadline));
        let end = started + budget;
        self.common.note_start(&named, offset, budget);
        let span = named.span.clone();
        let state = Arc::new(PhaseState::new(named, began, started, end));
        let stop = self.common.stop.clone();
        let noted = stop.note_running(state.clone());
        let service_running = self.common.service_running.clone();
        let work = run(PhaseContext { state: state.clone(), stop, service_running });
        if self.left == 0 {
            self.running.clear();
        }
        let number = self.running.len();
        let work = async move { (number, work.await) };
        let task = self.tasks.spawn(work.instrument(span));
        let (long, dropped) = (due.started + STILL_RUNNING_EVERY, None);
        let mut phase = Running { place, state, due, offset, long, noted, task, dropped };
        if terms.hurried {
            hurry(&mut phase, end, Instant::now());
        }
        self.look_by(phase.next_look());
        self.running.push(Some(phase));
        self.left += 1;
    }

    /// Waits for a phase to end, and says how it did. `None` where none runs.
    ///
    /// Cancel safe. Dropped with the supervisor, it leaves the phases that run running.
    pub(crate) async fn next_ended(&mut self) -> Option<(usize, PhaseReport)> {
        loop {
            if let Some(given_up) = self.given_up.pop() {
                return Some(given_up);
            }
            if self.left == 0 {
                return None;
            }
            tokio::select! {
                biased;
                Some(joined) = self.tasks.join_next_with_id() => {
                    let (number, id, ended) = match joined {
                        Ok((id, (number, error))) => (Some(number), id, Ok(error)),
                        Err(e) => (self.number_of(e.id()), e.id(), Err(e)),
                    };
                    // Else it is one that was given up.
                    let phase = number.and_then(|number| self.take(number, id));
                    if let Some(mut phase) = phase {
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
                state = &mut self.news => {
                    self.news.set(news(state));
                    self.adjust();
                }
            }
        }
    }

    /// Sees to it that there is a look by then.
    fn look_by(&mut self, by: Instant) {
        if by < self.timer.deadline() {
            self.timer.as_mut().reset(by);
        }
    }

    fn phases(&mut self) -> impl Iterator<Item = &mut Running> {
        self.running.iter_mut().flatten()
    }

    /// The number of the phase of that task, where it has not ended.
    fn number_of(&self, task: Id) -> Option<usize> {
        let its = |phase: &Running| phase.task.id() == task;
        self.running.iter().position(|phase| phase.as_ref().is_some_and(its))
    }

    /// The phase of that number and task, from now on ended.
    fn take(&mut self, number: usize, task: Id) -> Option<Running> {
        let phase = self.running.get_mut(number)?.take_if(|phase| phase.task.id() == task)?;
        self.left -= 1;
        Some(phase)
    }

    /// Looks at all phases, as something may be due.
    fn look(&mut self) {
        let now = Instant::now();
        let mut stuck = Vec::new();
        let common = &self.common;
        for phase in self.running.iter_mut().flatten() {
            match &phase.dropped {
                Some(dropped) if now >= dropped.let_go => stuck.push(phase.task.id()),
                Some(_) => {}
                None if now >= phase.state.end() => {
                    let what = format!("still running after {}", Seconds(now - phase.due.started));
                    phase.drop_it(now, Outcome::TimedOut, what);
                }
                None if now >= phase.long => {
                    common.note_still_running(phase, now);
                    phase.long = now + STILL_RUNNING_EVERY;
                }
                None => {}
            }
        }
        for task in stuck {
            let phase = self.number_of(task).and_then(|number| self.take(number, task));
            let Some(mut phase) = phase else { continue };
            let Some(dropped) = phase.dropped.take() else { continue };
            let (outcome, error) = phase.end_of_dropped(dropped, ", and blocking its thread");
            let given_up = self.report(phase, outcome, error);
            self.given_up.push(given_up);
        }
        let next = self.phases().map(|phase| phase.next_look()).min();
        self.timer.as_mut().reset(next.unwrap_or(now + STILL_RUNNING_EVERY));
    }

    /// Gives each phase its time anew, as the deadline has moved, or a second signal asks for haste.
    fn adjust(&mut self) {
        let (Terms { deadline, hurried }, now) = (self.common.terms(), Instant::now());
        for phase in self.phases().filter(|phase| phase.dropped.is_none()) {
            let end = phase.due.started + phase.due.all(deadline);
            match hurried {
                true => hurry(phase, end, now),
                false => phase.state.set_end(end),
            }
        }
        if let Some(next) = self.phases().map(|phase| phase.next_look()).min() {
            self.look_by(next);
        }
    }

    fn report(
        &self,
        phase: Running,
        outcome: Outcome,
        error: Option<String>,
    ) -> (usize, PhaseReport) {
        let Running { place, state, due, offset, noted, .. } = phase;
        let took = due.started.elapsed();
        // The next status shows the next phase.
        drop(noted);
        let (Named { name, group, span }, values) = state.into_parts();
        let members = Vec::new();
        let report = PhaseReport { name, outcome, error, offset, took, values, members };
        self.common.note_end(&span, group.as_deref(), &report);
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
    phase
        .state
        .set_end(phase.due.started.checked_add(reserve).map_or(end, |reserved| end.min(reserved)));
    if reserve.is_zero() {
        phase.drop_it(now, Outcome::CutShort, "a second signal asked for haste".to_owned());
    }
}

/// Waits until a second signal asks for haste, or the deadline moves.
async fn news(mut state: watch::Receiver<StopState>) -> watch::Receiver<StopState> {
    if state.changed().await.is_err() {
        // Nobody is left who could tell.
        std::future::pending::<()>().await;
    }
    state
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

#[cfg(test)]
mod tests {
    use forensics_core::context::Trigger;

    use super::*;
    use crate::ShutdownGuard;
    use crate::budget::Claim;

    #[tokio::test(start_paused = true)]
    async fn haste_asked_for_before_a_phase_is_waited_for_is_not_missed() {
        let guard = ShutdownGuard::builder("test").signals([]).install().unwrap();
        let stop = guard.stop();
        stop.begin(Trigger::Request { reason: "test".to_owned() });
        let began = stop.begun().await.at;
        let (_running, service_running) = watch::channel(true);
        let service_running = Arc::new(service_running);
        let mut supervisor =
            Supervisor::new(Common { began, span: Span::none(), stop, service_running });
        let claim = Claim { name: "hangs".to_owned(), timeout: None, reserve: Duration::ZERO };
        let named = Named::new(claim.name.clone(), &Span::none(), None);
        let (due, terms) = (Budget::new(&claim, Duration::ZERO), supervisor.common.terms());
        supervisor.start(7, named, Box::new(|_| Box::pin(std::future::pending())), due, terms);
        guard.hurry();
        let (place, report) = supervisor.next_ended().await.unwrap();
        assert_eq!((place, report.outcome), (7, Outcome::CutShort));
    }
}
