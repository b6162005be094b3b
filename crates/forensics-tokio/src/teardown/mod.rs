//! The teardown: the plan's steps, one after another, under one deadline.
//!
//! A step is a phase, or a group of them side by side. What runs is the [`Supervisor`]'s; here it is
//! decided what is to run at all, and with how much time.

pub(crate) mod phase;
pub(crate) mod phase_context;
pub(crate) mod plan;
pub(crate) mod supervisor;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use self::plan::{Plan, Step, Work};
use self::supervisor::{Common, Supervisor, Terms};
use crate::budget::Budget;
use crate::outcome::Outcome;
use crate::phase_state::Named;
use crate::report::PhaseReport;

/// A teardown under way.
pub(crate) struct Teardown {
    supervisor: Supervisor,
    /// The phases and groups that have ended, in order.
    pub(crate) reports: Vec<PhaseReport>,
}

impl Teardown {
    /// In a runtime.
    pub(crate) fn new(common: Common) -> Self {
        Self { supervisor: Supervisor::new(common), reports: Vec::new() }
    }

    /// Runs the plan until nothing is left in it, also of what is added meanwhile.
    ///
    /// Not cancel safe: dropped, it leaves the running phase running.
    ///
    /// In a box, so that it is compiled once for all who wait for it.
    pub(crate) fn run<'a>(
        &'a mut self,
        plan: &'a Plan,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.run_all(plan))
    }

    async fn run_all(&mut self, plan: &Plan) {
        while let Some((step, later)) = plan.take_next() {
            let report = self.run_step(step, later).await;
            self.reports.extend(report);
        }
    }

    async fn run_step(&mut self, step: Step, later: Duration) -> Option<PhaseReport> {
        let due = Budget::new(&step.claim, later);
        let terms = self.supervisor.common.terms();
        let refusal = self.refusal(&step, due, terms);
        let named = Named::new(step.claim.name, &self.supervisor.common.span, None);
        match (refusal, step.work) {
            (Some(why), _) => Some(self.skip(named, why)),
            (None, Work::Group(members)) => Some(self.run_group(named, members, due, terms).await),
            (None, Work::Phase(run)) => {
                self.supervisor.start(0, named, run, due, terms);
                self.supervisor.next_ended().await.map(|(_, report)| report)
            }
        }
    }

    /// Why a step is not to run at all.
    fn refusal(&self, step: &Step, due: Budget, terms: Terms) -> Option<String> {
        let unmet = step.requires.iter().find(|name| self.outcome(name) != Some(Outcome::Ok));
        if let Some(name) = unmet {
            let state = self.outcome(name).map_or("has not run", Outcome::as_str);
            return Some(format!("requires {name}, which {state}"));
        }
        if due.reserve.is_zero() && terms.hurried {
            return Some("a second signal: only phases with a reserve go on".to_owned());
        }
        if !due.all(terms.deadline).is_zero() {
            return None;
        }
        let why = match due.unreserved(terms.deadline).is_zero() {
            true => "no time is left for it before the deadline",
            false => "what time is left is reserved for later phases",
        };
        Some(why.to_owned())
    }

    /// How the phase or group of that name has ended, where it has.
    fn outcome(&self, name: &str) -> Option<Outcome> {
        let ended = self.reports.iter().flat_map(|step| step.members.iter().chain([step]));
        ended.filter(|report| report.name == name).map(|report| report.outcome).next()
    }

    fn skip(&self, named: Named, why: String) -> PhaseReport {
        let common = &self.supervisor.common;
        let Named { name, group, span } = named;
        let report = PhaseReport {
            name,
            outcome: Outcome::Skipped,
            error: Some(why),
            offset: common.began.elapsed(),
            took: Duration::ZERO,
            values: serde_json::Map::new(),
            members: Vec::new(),
        };
        common.note_end(&span, group.as_deref(), &report);
        report
    }

    async fn run_group(
        &mut self,
        named: Named,
        members: Vec<Step>,
        due: Budget,
        terms: Terms,
    ) -> PhaseReport {
        let common = &self.supervisor.common;
        let offset = common.began.elapsed();
        common.note_start(&named, offset, due.all(terms.deadline));

        let group: Arc<str> = named.name.as_str().into();
        let mut reports: Vec<Option<PhaseReport>> = Vec::with_capacity(members.len());
        for (place, member) in members.into_iter().enumerate() {
            let due = due.of_member(member.claim.timeout);
            let refusal = self.refusal(&member, due, terms);
            let member_named = Named::new(member.claim.name, &named.span, Some(group.clone()));
            match (refusal, member.work) {
                (Some(why), _) => reports.push(Some(self.skip(member_named, why))),
                (None, Work::Phase(run)) => {
                    self.supervisor.start(place, member_named, run, due, terms);
                    reports.push(None);
                }
                // There are no groups in groups.
                (None, Work::Group(_)) => reports.push(None),
            }
        }
        while let Some((place, report)) = self.supervisor.next_ended().await {
            reports[place] = Some(report);
        }
        let members: Vec<PhaseReport> = reports.into_iter().flatten().collect();
        let not_ok = members.iter().filter(|member| member.outcome != Outcome::Ok);
        let not_ok: Vec<String> =
            not_ok.map(|member| format!("{} {}", member.name, member.outcome)).collect();
        let report = PhaseReport {
            name: named.name,
            outcome: members.iter().map(|member| member.outcome).max().unwrap_or(Outcome::Ok),
            error: (!not_ok.is_empty()).then(|| not_ok.join(", ")),
            offset,
            took: due.started.elapsed(),
            values: serde_json::Map::new(),
            members,
        };
        self.supervisor.common.note_end(&named.span, None, &report);
        report
    }
}
