//! Running the phases: one after another, under one deadline.
//!
//! Each phase is a task of its own, so that one that blocks its thread cannot keep the teardown
//! from noticing (where the runtime has another thread), and its panic stays its own. The teardown
//! supervises it: drops it when its time is up or a second signal asks for haste, and says that it
//! still runs while it does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span};

use crate::blackbox::Place;
use crate::budget::{Budget, Seconds};
use crate::events;
use crate::outcome::{Outcome, panic_message};
use crate::phase_context::{PhaseContext, PhaseFn};
use crate::plan::{Plan, Step, Work};
use crate::recorded::Recorded;
use crate::report::PhaseReport;
use crate::stop::{Stop, StopState};

/// How often a phase that runs long is named.
const STILL_RUNNING_EVERY: Duration = Duration::from_secs(5);

/// How long a dropped phase has to let go. A future is dropped when it yields, which is at once
/// unless it blocks its thread.
const LET_GO: Duration = Duration::from_millis(100);

/// How the phases so far have ended, by name.
type Outcomes = HashMap<String, Outcome>;

/// A teardown under way.
pub(crate) struct Teardown {
    common: Common,
    outcomes: Outcomes,
    /// The phases and groups that have ended, in order.
    pub(crate) reports: Vec<PhaseReport>,
}

/// What every phase of a teardown has in common.
#[derive(Clone)]
pub(crate) struct Common {
    /// When the stop was asked for.
    pub(crate) began: Instant,
    /// The phases' parent.
    pub(crate) span: Span,
    /// Its deadline, too.
    pub(crate) state: watch::Receiver<StopState>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) service_running: watch::Receiver<bool>,
}

impl Teardown {
    pub(crate) fn new(common: Common) -> Self {
        Self { common, outcomes: Outcomes::new(), reports: Vec::new() }
    }

    /// Runs the plan until nothing is left in it, also of what is added meanwhile.
    ///
    /// Not cancel safe: dropped, it leaves the running phase running.
    pub(crate) async fn run(&mut self, plan: &Plan) {
        while let Some((step, later)) = plan.take_next() {
            let report = self.common.run_step(step, later, &self.outcomes).await;
            for ended in std::iter::once(&report).chain(&report.members) {
                self.outcomes.insert(ended.name.clone(), ended.outcome);
            }
            self.reports.push(report);
        }
    }
}

impl Common {
    async fn run_step(&self, step: Step, later: Duration, outcomes: &Outcomes) -> PhaseReport {
        let due = Budget::new(&step.claim, later);
        if let Some(why) = self.refusal(&step, due, outcomes) {
            return self.skip(&Named::new(step.claim.name, &self.span, None), why);
        }
        let named = Named::new(step.claim.name, &self.span, None);
        match step.work {
            Work::Phase(run) => self.clone().run_phase(named, run, due).await,
            Work::Group(members) => self.run_group(named, members, due, outcomes).await,
        }
    }

    /// Why a step is not to run at all.
    fn refusal(&self, step: &Step, due: Budget, outcomes: &Outcomes) -> Option<String> {
        let unmet = step.requires.iter().find(|name| outcomes.get(*name) != Some(&Outcome::Ok));
        if let Some(name) = unmet {
            let state = outcomes.get(name).map_or("has not run", |outcome| outcome.as_str());
            return Some(format!("requires {name}, which {state}"));
        }
        if due.reserve.is_zero() && self.state.borrow().hurried {
            return Some("a second signal: only phases with a reserve go on".to_owned());
        }
        due.all(self.deadline())
            .is_zero()
            .then(|| "no time is left for it before the deadline".to_owned())
    }

    fn skip(&self, named: &Named, why: String) -> PhaseReport {
        let report = PhaseReport {
            name: named.name.clone(),
            outcome: Outcome::Skipped,
            error: Some(why),
            offset: self.began.elapsed(),
            took: Duration::ZERO,
            values: serde_json::Map::new(),
            members: Vec::new(),
        };
        self.note_end(named, &report);
        report
    }

    fn note_start(&self, named: &Named, offset: Duration, budget: Duration) {
        self.stop.black_box.phase_started(named.place(), budget, offset);
        if is_heard(LevelFilter::DEBUG) {
            let (span, name) = (named.span.clone(), named.name.clone());
            self.stop.voice.say(move || events::phase_started(&span, &name, offset, budget));
        }
    }

    fn note_end(&self, named: &Named, report: &PhaseReport) {
        self.stop.black_box.phase_finished(named.place(), report);
        self.stop.message.note_ended(report);
        if report.outcome != Outcome::Ok || is_heard(LevelFilter::INFO) {
            let (span, report) = (named.span.clone(), report.clone());
            self.stop.voice.say(move || events::phase_finished(&span, &report));
        }
    }

    fn note_still_running(&self, named: &Named, started: Instant, end: Instant, so_far: &Recorded) {
        let (span, name) = (named.span.clone(), named.name.clone());
        let (offset, elapsed) = (self.began.elapsed(), started.elapsed());
        let (last, budget) = (so_far.last(), end - started);
        self.stop.voice.say(move || {
            events::phase_still_running(&span, &name, offset, elapsed, budget, last.as_deref());
        });
    }

    async fn run_group(
        &self,
        named: Named,
        members: Vec<Step>,
        due: Budget,
        outcomes: &Outcomes,
    ) -> PhaseReport {
        let offset = self.began.elapsed();
        self.note_start(&named, offset, due.all(self.deadline()));

        let mut reports: Vec<Option<PhaseReport>> = Vec::new();
        let mut running = JoinSet::new();
        for (place, member) in members.into_iter().enumerate() {
            let due = due.of_member(member.claim.timeout);
            let refusal = self.refusal(&member, due, outcomes);
            let member_named = Named::new(member.claim.name, &named.span, Some(&named.name));
            if let Some(why) = refusal {
                reports.push(Some(self.skip(&member_named, why)));
                continue;
            }
            reports.push(None);
            let Work::Phase(run) = member.work else { continue };
            let phase = self.clone().run_phase(member_named, run, due);
            running.spawn(async move { (place, phase.await) });
        }
        while let Some(ended) = running.join_next().await {
            // The supervising future neither panics nor is it aborted.
            if let Ok((place, report)) = ended {
                reports[place] = Some(report);
            }
        }
        let members: Vec<PhaseReport> = reports.into_iter().flatten().collect();
        let not_ok = members.iter().filter(|member| member.outcome != Outcome::Ok);
        let not_ok: Vec<String> =
            not_ok.map(|member| format!("{} {}", member.name, member.outcome)).collect();
        let report = PhaseReport {
            name: named.name.clone(),
            outcome: members.iter().map(|member| member.outcome).max().unwrap_or(Outcome::Ok),
            error: (!not_ok.is_empty()).then(|| not_ok.join(", ")),
            offset,
            took: due.started.elapsed(),
            values: serde_json::Map::new(),
            members,
        };
        self.note_end(&named, &report);
        report
    }

    async fn run_phase(mut self, named: Named, run: PhaseFn, due: Budget) -> PhaseReport {
        let offset = self.began.elapsed();
        let started = due.started;
        let mut end = started + due.all(self.deadline());
        let cx = PhaseContext {
            name: named.name.as_str().into(),
            group: named.group.as_deref().map(Into::into),
            began: self.began,
            end: Arc::new(Mutex::new(end)),
            token: CancellationToken::new(),
            recorded: Arc::new(Recorded::default()),
            stop: self.stop.clone(),
            service_running: self.service_running.clone(),
        };
        let (token, recorded, shown_end) = (cx.token.clone(), cx.recorded.clone(), cx.end.clone());
        self.note_start(&named, offset, due.all(self.deadline()));
        let noted = self.stop.note_running(&named.name, recorded.clone());
        let mut task = tokio::spawn(run(cx).instrument(named.span.clone()));
        // One timer for both, as most phases need neither.
        let mut long = started + STILL_RUNNING_EVERY;
        let mut hurried = false;
        // It is looked at once at least.
        let mut is_news = true;

        let (outcome, error) = loop {
            if std::mem::take(&mut is_news) {
                end = started + due.all(self.deadline());
                hurried = self.state.borrow_and_update().hurried;
                if hurried {
                    // What was reserved for it is still its own, and no more.
                    end = end.min(started + due.reserve);
                }
                *shown_end.lock().unwrap_or_else(PoisonError::into_inner) = end;
                if hurried && due.reserve.is_zero() {
                    token.cancel();
                    let what = "a second signal asked for haste".to_owned();
                    break drop_phase(task, Outcome::CutShort, what, &recorded).await;
                }
            }
            tokio::select! {
                biased;
                ended = &mut task => break outcome_of(ended),
                () = sleep_until(end.min(long)) => {
                    if Instant::now() >= end {
                        token.cancel();
                        let what = format!("still running after {}", Seconds(started.elapsed()));
                        break drop_phase(task, Outcome::TimedOut, what, &recorded).await;
                    }
                    self.note_still_running(&named, started, end, &recorded);
                    long = Instant::now() + STILL_RUNNING_EVERY;
                }
                () = self.news(), if !hurried => is_news = true,
            }
        };
        let report = PhaseReport {
            name: named.name.clone(),
            outcome,
            error,
            offset,
            took: started.elapsed(),
            values: recorded.all(),
            members: Vec::new(),
        };
        // The next status shows the next phase.
        drop(noted);
        self.note_end(&named, &report);
        report
    }

    /// Waits until a second signal asks for haste, or the deadline moves. Cancel safe.
    async fn news(&mut self) {
        if self.state.changed().await.is_err() {
            // Nobody is left who could tell.
            std::future::pending::<()>().await;
        }
    }

    /// The deadline as it stands now.
    fn deadline(&self) -> Instant {
        self.began + self.stop.allowed()
    }
}

/// A phase or a group as the log and the record know it.
struct Named {
    name: String,
    group: Option<String>,
    span: Span,
}

impl Named {
    fn new(name: String, parent: &Span, group: Option<&String>) -> Self {
        let span = events::phase_span(&name, parent);
        Self { name, group: group.cloned(), span }
    }

    fn place(&self) -> Place<'_> {
        Place { phase: &self.name, group: self.group.as_deref() }
    }
}

/// Whether there may be a subscriber for this level. It is not asked, since it can hang.
fn is_heard(level: LevelFilter) -> bool {
    LevelFilter::current() >= level
}

fn outcome_of(ended: Result<Option<String>, tokio::task::JoinError>) -> (Outcome, Option<String>) {
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

/// Drops a running phase, and says so if it does not let go.
async fn drop_phase(
    mut task: JoinHandle<Option<String>>,
    outcome: Outcome,
    mut what: String,
    recorded: &Recorded,
) -> (Outcome, Option<String>) {
    task.abort();
    match timeout(LET_GO, &mut task).await {
        // It ended by itself in this very moment, or panicked while it was dropped.
        Ok(Ok(result)) => return outcome_of(Ok(result)),
        Ok(Err(e)) if e.is_panic() => return outcome_of(Err(e)),
        Ok(Err(_)) => {}
        Err(_) => what.push_str(", and blocking its thread"),
    }
    if let Some(last) = recorded.last() {
        what = format!("{what}; last recorded {last}");
    }
    (outcome, Some(what))
}
