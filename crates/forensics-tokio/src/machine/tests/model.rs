//! Compares random teardowns with a model that computes what must run, when, and how it ends.
//!
//! Time is a number here, so every instant is exact. All limits are whole units of 20 s. The work
//! of each phase takes a number of whole units, plus 600 ms times a power of two that differs for
//! each phase. So no two instants are the same, and the order of the events is always defined.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

/// The unit of time. All limits are multiples of it, and the numbers of a plan are in this unit.
const UNIT_MS: u64 = 20_000;

/// At most six pieces of work, because 600 ms times 2^5 is less than a unit.
const MAX_STEPS: usize = 3;
const MAX_MEMBERS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Ok,
    Fails,
    Panics,
    Never,
}

#[derive(Debug, Clone)]
struct Work {
    units: u64,
    end: End,
    timeout: Option<u64>,
    /// How many steps before this one the required step is. Ignored if there is no step there.
    requires: Option<usize>,
}

#[derive(Debug, Clone)]
struct Step {
    /// The work of a phase, or of each member of a group.
    members: Vec<Work>,
    is_group: bool,
    timeout: Option<u64>,
    reserve: u64,
    requires: Option<usize>,
}

fn work() -> impl Strategy<Value = Work> {
    let end = prop_oneof![5 => Just(End::Ok), 1 => Just(End::Fails), 1 => Just(End::Panics), 1 => Just(End::Never)];
    let timeout = proptest::option::of(1..6_u64);
    let requires = proptest::option::weighted(0.3, 1..3_usize);
    (0..6_u64, end, timeout, requires).prop_map(|(units, end, timeout, requires)| Work {
        units,
        end,
        timeout,
        requires,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let members = (any::<bool>(), proptest::collection::vec(work(), 1..=MAX_MEMBERS));
    let timeout = proptest::option::of(1..8_u64);
    let requires = proptest::option::weighted(0.2, 1..3_usize);
    (members, timeout, 0..4_u64, requires).prop_map(
        |((is_group, mut members), timeout, reserve, requires)| {
            if !is_group {
                members.truncate(1);
            }
            Step { members, is_group, timeout, reserve, requires }
        },
    )
}

fn step_name(step: usize) -> String {
    format!("step{step}")
}

fn member_name(step: usize, member: usize) -> String {
    format!("step{step}_{member}")
}

/// How long the `nth` piece of work takes if it is not dropped, in milliseconds.
fn length(work: &Work, nth: u32) -> u64 {
    work.units * UNIT_MS + (600 << nth)
}

/// The expected outcome, start and length of a phase. Times are in milliseconds.
type Expected = (Outcome, u64, u64);

/// The model: integer arithmetic, without tasks, clocks or tokio. `escalated` is when the stop is
/// escalated.
fn expect(steps: &[Step], deadline_ms: u64, escalated: u64) -> HashMap<String, Expected> {
    let mut expected: HashMap<String, Expected> = HashMap::new();
    let mut now = 0;
    let mut nth = 0;
    for (i, step) in steps.iter().enumerate() {
        let later: u64 = steps[i + 1..].iter().map(|later| later.reserve * UNIT_MS).sum();
        let left = deadline_ms.saturating_sub(now);
        let open = left.saturating_sub(later).max(left.min(step.reserve * UNIT_MS));
        let own = if step.is_group { step.timeout } else { step.members[0].timeout };
        let budget = own.map_or(open, |own| open.min(own * UNIT_MS));
        let first = nth;
        nth += step.members.len() as u32;

        let met = |requires: Option<usize>| match requires.and_then(|back| i.checked_sub(back)) {
            None => true,
            Some(before) => matches!(expected.get(&step_name(before)), Some((Outcome::Ok, ..))),
        };
        let own_requires = if step.is_group { step.requires } else { step.members[0].requires };
        let is_skipped = |reserve: u64| escalated <= now && reserve == 0;
        if !met(own_requires) || budget == 0 || is_skipped(step.reserve) {
            expected.insert(step_name(i), (Outcome::Skipped, now, 0));
            continue;
        }
        let run = |work: &Work, nth: u32, budget: u64| {
            let length = length(work, nth);
            let natural = if work.end == End::Never { u64::MAX } else { length };
            // If the stop is escalated while the phase runs, a phase without a reserve is cut
            // short, and one with a reserve keeps its reserve.
            let ends_at = now + natural.min(budget);
            let cut = now.max(escalated);
            if cut < ends_at && step.reserve == 0 {
                return (Outcome::CutShort, now, cut - now);
            }
            let kept = (now + step.reserve * UNIT_MS).max(cut) - now;
            let budget = if cut < ends_at { budget.min(kept) } else { budget };
            match work.end {
                End::Ok if length < budget => (Outcome::Ok, now, length),
                End::Fails if length < budget => (Outcome::Failed, now, length),
                End::Panics if length < budget => (Outcome::Panicked, now, length),
                _ => (Outcome::TimedOut, now, budget),
            }
        };
        let ends: Vec<Expected> = (step.members.iter().enumerate())
            .map(|(m, work)| {
                if !step.is_group {
                    run(work, first, budget)
                } else if !met(work.requires) {
                    (Outcome::Skipped, now, 0)
                } else {
                    let own = work.timeout.map_or(budget, |own| budget.min(own * UNIT_MS));
                    run(work, first + m as u32, own)
                }
            })
            .collect();
        let outcome = ends.iter().map(|end| end.0).max().unwrap();
        let took = ends.iter().map(|end| end.2).max().unwrap();
        if step.is_group {
            for (m, end) in ends.iter().enumerate() {
                expected.insert(member_name(i, m), *end);
            }
        }
        expected.insert(step_name(i), (outcome, now, took));
        now += took;
    }
    expected
}

/// A running teardown, and the work of each phase.
struct World {
    driven: Driven,
    work: HashMap<StepId, (u64, End)>,
    /// When the work of each running phase is done, and how it ends.
    ends: BTreeMap<Instant, (StepId, End)>,
}

impl World {
    fn new(steps: &[Step], deadline_ms: u64) -> Self {
        let config = Config { deadline: Some(ms(deadline_ms)), ..config() };
        let (driven, work) = (Driven::new(config), HashMap::new());
        let mut world = Self { driven, work, ends: BTreeMap::new() };
        let (mut ids, mut nth) = (Vec::new(), 0);
        for (i, step) in steps.iter().enumerate() {
            let required = |requires: Option<usize>| {
                requires.and_then(|back| i.checked_sub(back)).map(|before| ids[before])
            };
            let (id, timeout, requires) = if step.is_group {
                (world.driven.group(&step_name(i)), step.timeout, step.requires)
            } else {
                let work = &step.members[0];
                (world.driven.phase(&step_name(i)), work.timeout, work.requires)
            };
            world.driven.machine.plan.reserve(id, ms(step.reserve * UNIT_MS));
            world.limit(id, timeout, required(requires));
            for (m, work) in step.members.iter().enumerate() {
                let member = if step.is_group {
                    let member = world.driven.member(id, &member_name(i, m));
                    world.limit(member, work.timeout, required(work.requires));
                    member
                } else {
                    id
                };
                world.work.insert(member, (length(work, nth), work.end));
                nth += 1;
            }
            ids.push(id);
        }
        world
    }

    fn limit(&mut self, id: StepId, timeout: Option<u64>, requires: Option<StepId>) {
        let plan = &mut self.driven.machine.plan;
        if let Some(timeout) = timeout {
            plan.limit(id, ms(timeout * UNIT_MS));
        }
        if let Some(earlier) = requires {
            plan.require(id, earlier);
        }
    }

    fn bring(&mut self, event: Event) {
        let actions = self.driven.bring(event);
        for action in actions {
            match action {
                Action::StartPhase(phase, _) => {
                    let (length, end) = self.work[&phase.id];
                    if end != End::Never {
                        self.ends.insert(self.driven.now + ms(length), (phase.id, end));
                    }
                }
                Action::DropPhase(phase) => {
                    self.ends.retain(|_, (id, _)| *id != phase);
                    self.bring(Event::PhaseEnded(phase, PhaseEnd::Dropped, Values::default()));
                }
                _ => {}
            }
        }
    }

    /// Lets time pass until the teardown has ended.
    fn run(&mut self, escalated: Option<Duration>) -> ShutdownReport {
        self.bring(Event::RunStarted);
        self.bring(Event::ServiceEnded(ServiceOutcome::Ended));
        let mut escalated = escalated.map(|after| self.driven.start + after);
        loop {
            if let Some(report) = self.driven.machine.report() {
                return report;
            }
            let ends = self.ends.keys().next().copied();
            let timer = self.driven.machine.awaited().timer;
            let next = [ends, timer, escalated].into_iter().flatten().min().expect("it goes on");
            self.driven.now = next.max(self.driven.now);
            if escalated == Some(next) {
                escalated = None;
                self.bring(Event::Escalated);
            } else if let Some((phase, end)) = self.ends.remove(&next) {
                let end = match end {
                    End::Fails => PhaseEnd::Failed("failed".to_owned()),
                    End::Panics => PhaseEnd::Panicked("panicked".to_owned()),
                    End::Ok | End::Never => PhaseEnd::Ended,
                };
                self.bring(Event::PhaseEnded(phase, end, Values::default()));
            } else {
                self.bring(Event::Tick);
            }
        }
    }
}

fn check(report: &PhaseReport, expected: &HashMap<String, Expected>) -> Result<(), TestCaseError> {
    let (outcome, start, took) = expected[&report.name];
    prop_assert_eq!(report.outcome, outcome, "{}", report.name);
    prop_assert_eq!(report.started_after, ms(start), "{}", report.name);
    prop_assert_eq!(report.duration, ms(took), "{}", report.name);
    report.members.iter().try_for_each(|member| check(member, expected))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_teardown_does_what_its_plan_says(
        steps in proptest::collection::vec(step(), 0..=MAX_STEPS),
        deadline in 3..20_u64,
        // The escalation is 300 ms after a whole unit, so it is never at the same instant as
        // another event.
        escalated in proptest::option::weighted(0.5, 0..12_u64),
    ) {
        let escalated = escalated.map(|units| ms(units * UNIT_MS + 300));
        let at_ms = escalated.map_or(u64::MAX, |at| at.as_millis() as u64);
        let expected = expect(&steps, deadline * UNIT_MS, at_ms);
        let report = World::new(&steps, deadline * UNIT_MS).run(escalated);
        // Each step is reported once, in order.
        let names: Vec<_> = report.phases.iter().map(|phase| phase.name.clone()).collect();
        prop_assert_eq!(names, (0..steps.len()).map(step_name).collect::<Vec<_>>());
        // Outcome, start and length of each phase are as expected. So the deadline and the reserves
        // are honoured.
        for phase in &report.phases {
            check(phase, &expected)?;
        }
        prop_assert!(report.total <= ms(deadline * UNIT_MS));
        prop_assert!(report.errors.is_empty());
        let all_ok = report.phases.iter().all(|phase| phase.outcome == Outcome::Ok);
        prop_assert_eq!(report.how == ExitKind::Clean, all_ok);
    }
}
