//! The plan: the steps that have not run, in order. A step is taken from the plan when the teardown
//! reaches it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use forensics_core::escape::{MAX_NAME_CHARS, truncate};

use super::budget::{Claim, WorstCase};

/// A step of the teardown: a phase, or a group of phases that run concurrently.
#[derive(Clone)]
pub(crate) struct Step {
    pub(super) id: StepId,
    pub(super) claim: Claim,
    /// The names of the steps that must have ended with `ok`.
    pub(super) requires: Vec<String>,
    pub(super) work: Work,
}

#[derive(Clone)]
pub(crate) enum Work {
    /// A phase. Its closure is in [`crate::phases`].
    Phase,
    /// A group. Each member is a step whose work is a phase. The reserve of a member is not used.
    Group(Vec<Step>),
}

/// Identifies a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StepId(pub(super) usize);

/// All steps that have not been taken from the plan. Phases can still be added while the teardown
/// runs.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    waiting: VecDeque<Step>,
    /// The sum of the reserves of these steps in nanoseconds. It may not fit into a `Duration`.
    reserved: u128,
    /// The names of all steps ever registered, by id. A later phase may require one that has run.
    names: Vec<Arc<str>>,
    names_in_use: HashSet<Arc<str>>,
    /// All registration errors so far. Each has been logged.
    pub(super) errors: Vec<String>,
}

impl Plan {
    /// Adds a phase or an empty group, at the end or as a member of `group`. If `group` has already
    /// been taken from the plan, adds it at the end as well. Returns its id, and what is wrong with
    /// the registration, if anything. If the name is in use, a number is appended to it, so that no
    /// registered work is lost.
    pub(crate) fn push(
        &mut self,
        name: &str,
        group: Option<StepId>,
        work: Work,
    ) -> (StepId, Option<String>) {
        let name = truncate(name, MAX_NAME_CHARS);
        let (mut unique, mut copies) = (Arc::from(&*name), 1_u64);
        while !self.names_in_use.insert(Arc::clone(&unique)) {
            copies += 1;
            unique = format!("{name}#{copies}").into();
        }
        let error = (*unique != *name)
            .then(|| format!("a phase named `{name}` already exists: this one runs as `{unique}`"));
        self.errors.extend(error.clone());
        let claim = Claim { name: unique.to_string(), timeout: None, reserve: Duration::ZERO };
        self.names.push(unique);
        let id = StepId(self.names.len());
        let step = Step { id, claim, requires: Vec::new(), work };
        // Searched from the end, because it is most likely the group registered last.
        let mut groups = self.waiting.iter_mut().rev();
        match group.and_then(|group| groups.find(|step| step.id == group)) {
            Some(Step { work: Work::Group(members), .. }) => members.push(step),
            _ => self.waiting.push_back(step),
        }
        (id, error)
    }

    /// Changes a step that has not been taken from the plan.
    fn edit(&mut self, id: StepId, change: impl FnOnce(&mut Step)) {
        // Searched from the end, because it is most likely the step registered last.
        for step in self.waiting.iter_mut().rev() {
            if step.id == id {
                self.reserved -= step.claim.reserve.as_nanos();
                change(step);
                self.reserved += step.claim.reserve.as_nanos();
                return;
            }
            if let Work::Group(members) = &mut step.work
                && let Some(member) = members.iter_mut().rev().find(|member| member.id == id)
            {
                return change(member);
            }
        }
    }

    /// Sets the timeout of a step.
    pub(crate) fn limit(&mut self, id: StepId, timeout: Duration) {
        self.edit(id, |step| step.claim.timeout = Some(timeout));
    }

    /// Sets the reserve of a step.
    pub(crate) fn reserve(&mut self, id: StepId, reserve: Duration) {
        self.edit(id, |step| step.claim.reserve = reserve);
    }

    /// Makes a step require that another step has ended with `ok`.
    pub(crate) fn require(&mut self, id: StepId, required: StepId) {
        let name = self.names.get(required.0 - 1).map(ToString::to_string);
        // An id without a name belongs to another guard.
        let name = name.unwrap_or_else(|| "a phase of another guard".to_owned());
        self.edit(id, |step| step.requires.push(name));
    }

    /// Takes the next step from the plan. Also returns the sum of the reserves of the steps after
    /// it.
    pub(super) fn take_next(&mut self) -> Option<(Step, Duration)> {
        let step = self.waiting.pop_front()?;
        // The sum is kept up to date. Adding up the reserves here would make a teardown quadratic.
        self.reserved -= step.claim.reserve.as_nanos();
        Some((step, self.reserved()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The longest time that a pre-stop delay and the steps in the plan may take.
    pub(super) fn sum(&self, delay: Duration, deadline: Duration) -> WorstCase {
        let mut claims = Vec::new();
        if !delay.is_zero() {
            let name = "pre_stop_delay".to_owned();
            claims.push(Claim { name, timeout: Some(delay), reserve: Duration::ZERO });
        }
        claims.extend(self.waiting.iter().map(Step::effective_claim));
        WorstCase { claims, deadline }
    }

    /// The sum of the reserves of the steps in the plan.
    pub(super) fn reserved(&self) -> Duration {
        let nanos = self.reserved.min(Duration::MAX.as_nanos());
        let second = Duration::from_secs(1).as_nanos();
        // Both fit, because `nanos` is at most `Duration::MAX`.
        Duration::new((nanos / second) as u64, (nanos % second) as u32)
    }

    /// Finds the phases that require a step that does not run before them. Must be called before
    /// the first step is taken from the plan.
    pub(super) fn check_requirements(&mut self) -> Vec<String> {
        let mut earlier = HashSet::new();
        let mut errors = Vec::new();
        for step in &self.waiting {
            let members: &[Step] =
                if let Work::Group(members) = &step.work { members } else { &[] };
            let all = || std::iter::once(step).chain(members);
            for one in all() {
                let missing = one.requires.iter().filter(|name| !earlier.contains(name.as_str()));
                errors.extend(missing.map(|required| {
                    let name = &one.claim.name;
                    format!("phase `{name}` requires `{required}`, which does not run before it")
                }));
            }
            earlier.extend(all().map(|one| one.claim.name.as_str()));
        }
        self.errors.extend_from_slice(&errors);
        errors
    }

    /// The names of the steps in the plan.
    pub(crate) fn names(&self) -> Vec<String> {
        self.waiting.iter().map(|step| step.claim.name.clone()).collect()
    }
}

impl Step {
    /// The claim of the step, for the worst case. A group without a timeout can take no longer than
    /// its slowest member, if all members have a timeout.
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
