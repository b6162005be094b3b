//! Random teardowns, compared with a model of what must run, when, and with which outcome.
//!
//! The clock is paused, so times are exact, except for the real milliseconds in which the context
//! is captured and logged. All limits are multiples of 20 s. Each piece of work takes a different
//! time: a multiple of 20 s plus a power of two times 600 ms. So any two instants are at least 600
//! ms apart, and their order is known.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::collections::HashMap;
use std::time::Duration;

use forensics_tokio::{Outcome, PhaseId, PhaseReport, ShutdownGuard};
use proptest::prelude::*;
use tokio::time::sleep;

/// How much a time may differ, because some of it is real time.
const TOLERANCE_MS: u64 = 250;

/// All limits are multiples of this. The numbers of a plan are in this unit.
const UNIT_MS: u64 = 20_000;

/// Six pieces of work at most: 600 ms times 2^5 is less than a unit.
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
    /// Requires the step that is this many steps before it, if there is one.
    requires: Option<usize>,
}

#[derive(Debug, Clone)]
struct Step {
    /// One piece of work for a phase, more for a group.
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

/// How long the `nth` piece of work takes, in milliseconds.
fn length(work: &Work, nth: u32) -> u64 {
    work.units * UNIT_MS + (600 << nth)
}

/// The expected outcome, start and length of a phase, in milliseconds.
type Expected = (Outcome, u64, u64);

/// The model: integer arithmetic without tasks, clocks or tokio. `escalated` is when the second request
/// comes.
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
        let is_cut = |reserve: u64| escalated <= now && reserve == 0;
        if !met(own_requires) || budget == 0 || is_cut(step.reserve) {
            expected.insert(step_name(i), (Outcome::Skipped, now, 0));
            continue;
        }
        let run = |work: &Work, nth: u32, budget: u64| {
            let length = length(work, nth);
            let natural = if work.end == End::Never { u64::MAX } else { length };
            // The second request comes while it runs. Without a reserve it is cut short, with one
            // it keeps that time.
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
            .map(|(m, work)| match step.is_group {
                false => run(work, first, budget),
                true if !met(work.requires) => (Outcome::Skipped, now, 0),
                true => {
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

fn register(guard: &ShutdownGuard, steps: &[Step]) {
    let mut ids: Vec<PhaseId> = Vec::new();
    let mut nth = 0;
    let mut future = |work: &Work| {
        let (length, end) = (Duration::from_millis(length(work, nth)), work.end);
        nth += 1;
        move || async move {
            sleep(length).await;
            match end {
                End::Ok => Ok(()),
                End::Fails => Err("failed"),
                End::Panics => std::panic::resume_unwind(Box::new("panicked")),
                End::Never => std::future::pending().await,
            }
        }
    };
    for (i, step) in steps.iter().enumerate() {
        let required = |requires: Option<usize>| {
            requires.and_then(|back| i.checked_sub(back)).map(|at| ids[at])
        };
        if !step.is_group {
            let work = &step.members[0];
            let run = future(work);
            let mut phase = guard.phase(step_name(i), move |_| run());
            phase = phase.reserve(Duration::from_millis(step.reserve * UNIT_MS));
            if let Some(timeout) = work.timeout {
                phase = phase.timeout(Duration::from_millis(timeout * UNIT_MS));
            }
            if let Some(earlier) = required(work.requires) {
                phase = phase.requires(earlier);
            }
            ids.push(phase.id());
            continue;
        }
        let mut group = guard.group(step_name(i), |group| {
            for (m, work) in step.members.iter().enumerate() {
                let run = future(work);
                let mut member = group.phase(member_name(i, m), move |_| run());
                if let Some(timeout) = work.timeout {
                    member = member.timeout(Duration::from_millis(timeout * UNIT_MS));
                }
                if let Some(earlier) = required(work.requires) {
                    member = member.requires(earlier);
                }
                drop(member);
            }
        });
        group = group.reserve(Duration::from_millis(step.reserve * UNIT_MS));
        if let Some(timeout) = step.timeout {
            group = group.timeout(Duration::from_millis(timeout * UNIT_MS));
        }
        if let Some(earlier) = required(step.requires) {
            group = group.requires(earlier);
        }
        ids.push(group.id());
    }
}

fn check(report: &PhaseReport, expected: &HashMap<String, Expected>) -> Result<(), TestCaseError> {
    let (outcome, start, took) = expected[&report.name];
    prop_assert_eq!(report.outcome, outcome, "{}", report.name);
    for (actual, model) in [(report.started_after, start), (report.duration, took)] {
        let off = (actual.as_micros() as u64).abs_diff(model * 1000);
        prop_assert!(off <= TOLERANCE_MS * 1000, "{}: {actual:?}, not {model} ms", report.name);
    }
    report.members.iter().try_for_each(|member| check(member, expected))
}

proptest! {
    #![proptest_config(ProptestConfig {
        // machine::tests::model in forensics-tokio tests the state machine alone with many more
        // cases.
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_teardown_does_what_its_plan_says(
        steps in proptest::collection::vec(step(), 0..=MAX_STEPS),
        deadline in 3..20_u64,
        // Between the instants of any plan.
        escalated in proptest::option::weighted(0.5, 0..12_u64),
    ) {
        let escalated = escalated.map(|units| Duration::from_millis(units * UNIT_MS + 300));
        let at_ms = escalated.map_or(u64::MAX, |at| at.as_millis() as u64);
        let expected = expect(&steps, deadline * UNIT_MS, at_ms);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let report = runtime.block_on(async {
            let guard = ShutdownGuard::builder("model")
                .signals([])
                .deadline(Duration::from_millis(deadline * UNIT_MS))
                .install()
                .unwrap();
            register(&guard, &steps);
            guard.handle().request_shutdown("test");
            let handle = guard.handle();
            let hurries = tokio::spawn(async move {
                if let Some(at) = escalated {
                    sleep(at).await;
                    handle.escalate();
                }
            });
            let report = guard.run(async {}).await;
            hurries.abort();
            report
        });
        // The order, and that each step ran once.
        let names: Vec<_> = report.phases.iter().map(|phase| phase.name.clone()).collect();
        prop_assert_eq!(names, (0..steps.len()).map(step_name).collect::<Vec<_>>());
        // Outcome, start and length of each. This also checks the deadline and the reserves.
        for phase in &report.phases {
            check(phase, &expected)?;
        }
        prop_assert!(report.total <= Duration::from_millis(deadline * UNIT_MS + TOLERANCE_MS));
        prop_assert!(report.errors.is_empty());
    }
}
