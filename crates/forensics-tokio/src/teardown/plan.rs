//! The phases to run, in order, until each is taken to be run.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forensics_core::escape::{MAX_NAME_CHARS, cut, cut_to};

use crate::budget::{Claim, Sum};
use crate::events;
use crate::teardown::phase_context::PhaseFn;
use crate::voice::Voice;

/// A step of the teardown: a phase, or a group of phases side by side.
pub(crate) struct Step {
    pub(crate) id: StepId,
    pub(crate) claim: Claim,
    /// The phases that must have ended well.
    pub(crate) requires: Vec<String>,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    Phase(PhaseFn),
    /// Each of them a step whose work is a phase; their reserves are not used.
    Group(Vec<Step>),
}

/// Names a step while it is in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepId(u64);

/// All steps that have not been taken yet. Shared between the guard and the teardown, so that
/// phases can still be added while the teardown runs.
pub(crate) struct Plan {
    steps: Mutex<Steps>,
    voice: Voice,
}

#[derive(Default)]
struct Steps {
    waiting: VecDeque<Step>,
    /// What all of these have reserved, in nanoseconds: more than a `Duration` may come together.
    reserved: u128,
    /// Every name ever given, as a later phase may require one that has run.
    names: HashSet<String>,
    next_id: u64,
    errors: Vec<String>,
}

impl Plan {
    /// An empty one.
    pub(crate) fn new(voice: Voice) -> Self {
        Self { steps: Mutex::default(), voice }
    }

    /// Adds a phase, or an empty group, at the end.
    pub(crate) fn push(&self, name: &str, work: Work) -> StepId {
        self.add(name, work, VecDeque::push_back)
    }

    /// Adds a member to the group `group`; where that has begun already, as a phase at the end.
    pub(crate) fn push_member(&self, group: StepId, name: &str, run: PhaseFn) -> StepId {
        self.add(name, Work::Phase(run), |waiting, member| {
            // Most likely the one registered last.
            let group = waiting.iter_mut().rev().find(|step| step.id == group);
            match group.map(|step| &mut step.work) {
                Some(Work::Group(members)) => members.push(member),
                _ => waiting.push_back(member),
            }
        })
    }

    fn add(&self, name: &str, work: Work, put: impl FnOnce(&mut VecDeque<Step>, Step)) -> StepId {
        let name = cut(name, MAX_NAME_CHARS);
        let mut steps = self.lock();
        let step = steps.step(&name, work);
        let (id, unique) = (step.id, step.claim.name.clone());
        put(&mut steps.waiting, step);
        drop(steps);
        if unique != name {
            self.wrong(format!(
                "there is a phase `{name}` already: the new one runs as `{unique}`"
            ));
        }
        id
    }

    /// Logs and keeps what is wrong.
    fn wrong(&self, error: String) {
        self.lock().errors.push(error.clone());
        self.voice.say(move || events::registration_error(&error));
    }

    /// Changes a step that has not been taken yet.
    fn edit(&self, id: StepId, change: &mut dyn FnMut(&mut Step)) {
        let mut steps = self.lock();
        let Steps { waiting, reserved, .. } = &mut *steps;
        // From the end: what is changed was most likely registered last.
        for step in waiting.iter_mut().rev() {
            if step.id == id {
                *reserved -= step.claim.reserve.as_nanos();
                change(step);
                *reserved += step.claim.reserve.as_nanos();
                return;
            }
            if let Work::Group(members) = &mut step.work
                && let Some(member) = members.iter_mut().rev().find(|member| member.id == id)
            {
                return change(member);
            }
        }
    }

    /// Gives a step so much time.
    pub(crate) fn limit(&self, id: StepId, timeout: Duration) {
        self.edit(id, &mut |step| step.claim.timeout = Some(timeout));
    }

    /// Keeps so much time for a step.
    pub(crate) fn reserve(&self, id: StepId, reserve: Duration) {
        self.edit(id, &mut |step| step.claim.reserve = reserve);
    }

    /// Requires of a step that the one of that name has ended well.
    pub(crate) fn require(&self, id: StepId, name: String) {
        let name = cut_to(name, MAX_NAME_CHARS);
        self.edit(id, &mut |step| step.requires.push(name.clone()));
    }

    /// Takes the next step, and says how much the ones after it have reserved.
    pub(crate) fn take_next(&self) -> Option<(Step, Duration)> {
        let mut steps = self.lock();
        let step = steps.waiting.pop_front()?;
        // Not summed up here: that would make a teardown of many phases take the square of it.
        steps.reserved -= step.claim.reserve.as_nanos();
        Some((step, steps.reserved()))
    }

    /// What a lead and the steps not yet taken may take.
    pub(crate) fn sum(&self, lead: Duration, deadline: Duration) -> Sum {
        let mut claims = Vec::new();
        if !lead.is_zero() {
            claims.push(Claim::lead(lead));
        }
        for step in &self.lock().waiting {
            claims.push(step.effective_claim());
        }
        Sum::of(claims, deadline)
    }

    /// What the steps not yet taken have reserved in all.
    pub(crate) fn reserved(&self) -> Duration {
        self.lock().reserved()
    }

    /// Finds the phases that require one which nobody has registered. Before the first is taken.
    pub(crate) fn check_requirements(&self) {
        let mut unknown = Vec::new();
        let steps = self.lock();
        let mut check = |step: &Step| {
            for required in &step.requires {
                if !steps.names.contains(required) {
                    let name = &step.claim.name;
                    unknown
                        .push(format!("phase `{name}` requires `{required}`, which is no phase"));
                }
            }
        };
        for step in &steps.waiting {
            check(step);
            if let Work::Group(members) = &step.work {
                members.iter().for_each(&mut check);
            }
        }
        drop(steps);
        unknown.into_iter().for_each(|error| self.wrong(error));
    }

    /// What was wrong with the registrations so far; each has been logged.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.lock().errors.clone()
    }

    /// A panic under the lock can only come out of an allocation; the steps are whole then, too.
    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Steps {
    fn reserved(&self) -> Duration {
        Duration::from_nanos_u128(self.reserved.min(Duration::MAX.as_nanos()))
    }

    /// A name that is taken is told apart by a number: work that was registered is never lost.
    fn step(&mut self, name: &str, work: Work) -> Step {
        self.next_id += 1;
        let (mut unique, mut copies) = (name.to_owned(), 1_u64);
        while !self.names.insert(unique.clone()) {
            copies += 1;
            unique = format!("{name}#{copies}");
        }
        Step {
            id: StepId(self.next_id),
            claim: Claim { name: unique, timeout: None, reserve: Duration::ZERO },
            requires: Vec::new(),
            work,
        }
    }
}

impl Step {
    /// A group without a timeout of its own can take no longer than its slowest member, where all
    /// of those have one.
    fn effective_claim(&self) -> Claim {
        let mut claim = self.claim.clone();
        if let (Work::Group(members), None) = (&self.work, claim.timeout) {
            let mut timeouts = members.iter().map(|member| member.claim.timeout);
            claim.timeout =
                timeouts.try_fold(Duration::ZERO, |longest, timeout| Some(longest.max(timeout?)));
        }
        claim
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.lock();
        f.debug_list().entries(steps.waiting.iter().map(|step| &step.claim.name)).finish()
    }
}
