//! Tries every sequence of up to `LENGTH` events with two phases and a group, and checks the rules
//! that hold in all of them.

use std::collections::BTreeMap;

use super::*;

/// How many events a sequence has at most. With this number the test takes up to half a minute.
const LENGTH: usize = 7;

/// What has been seen in one sequence so far.
#[derive(Clone, Default)]
struct Seen {
    /// How often each step has started and ended. The ids have the order of registration.
    steps: BTreeMap<StepId, (u32, u32)>,
    contexts: u32,
    cancelled: u32,
    recorded_stop: bool,
    planned_ends: u32,
    forced_ends: u32,
}

#[derive(Clone)]
struct World {
    driven: Driven,
    seen: Seen,
    running: Vec<StepId>,
    phases: [StepId; 2],
    group: StepId,
    members: [StepId; 2],
    has_registered: bool,
    /// The report of a teardown that has ended as planned.
    report: Option<ShutdownReport>,
    /// All moves so far, for the message of a failed assertion.
    history: Vec<Move>,
}

/// What the environment may do next.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Move {
    Signal,
    Escalate,
    ServiceEnds,
    PhaseEnds(usize, bool),
    /// Time passes to the next timer.
    Tick,
    /// Time passes beyond the deadline, and the shutdown thread checks the stop.
    PassDeadline,
    RegisterPhase,
    RunReturns,
    ExitExpected,
    GuardDropped,
}

impl World {
    fn new() -> Self {
        let mut driven = Driven::new(config());
        let first = driven.phase("first");
        let group = driven.group("group");
        let members = ["one", "two"].map(|name| driven.member(group, name));
        let last = driven.phase("last");
        driven.machine.plan.limit(first, Duration::from_secs(8));
        driven.machine.plan.reserve(last, Duration::from_secs(3));
        driven.bring(Event::RunStarted);
        let (phases, seen) = ([first, last], Seen::default());
        Self {
            driven,
            seen,
            running: Vec::new(),
            phases,
            group,
            members,
            has_registered: false,
            report: None,
            history: Vec::new(),
        }
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = vec![Move::Signal, Move::Escalate, Move::GuardDropped];
        if service_runs(&self.driven.machine) {
            moves.push(Move::ServiceEnds);
        }
        for place in 0..self.running.len() {
            moves.extend([Move::PhaseEnds(place, true), Move::PhaseEnds(place, false)]);
        }
        if self.driven.machine.awaited().timer.is_some() {
            moves.push(Move::Tick);
        }
        if self.driven.machine.is_watched() {
            moves.push(Move::PassDeadline);
        }
        if !self.has_registered && !self.driven.machine.is_over() {
            moves.push(Move::RegisterPhase);
        }
        if self.driven.machine.report().is_some() {
            moves.push(Move::RunReturns);
        }
        moves.push(Move::ExitExpected);
        moves
    }

    fn make(&mut self, one: Move) {
        self.history.push(one);
        let driven = &mut self.driven;
        let actions = match one {
            Move::Signal => {
                // Late enough to count as a separate request.
                driven.now += ms(201);
                let event = signal(driven.now);
                driven.bring(event)
            }
            Move::Escalate => driven.bring(Event::Escalated),
            Move::ServiceEnds => driven.bring(Event::ServiceEnded(ServiceOutcome::Ended)),
            Move::PhaseEnds(place, ends_well) => {
                let phase = self.running.remove(place);
                let end =
                    if ends_well { PhaseEnd::Ended } else { PhaseEnd::Failed("test".to_owned()) };
                driven.now += ms(1);
                driven.bring(Event::PhaseEnded(phase, end, Values::default()))
            }
            Move::Tick => {
                let mut actions = driven.tick();
                if driven.machine.awaited().drops_service {
                    actions.extend(driven.bring(Event::ServiceEnded(ServiceOutcome::Dropped)));
                }
                actions
            }
            Move::PassDeadline => {
                driven.now = driven.machine.deadline().unwrap_or(driven.now).max(driven.now);
                let mut actions = driven.bring(Event::Watched { missed: 0 });
                driven.now += ms(600);
                actions.extend(driven.bring(Event::Watched { missed: 0 }));
                actions
            }
            Move::RegisterPhase => {
                // A phase that is registered after the end of the teardown does not run.
                self.has_registered = driven.machine.report().is_none();
                driven.phase("late");
                driven.bring(Event::Tick)
            }
            Move::RunReturns => driven.bring(Event::Closed),
            Move::ExitExpected => driven.bring(Event::ExitExpected),
            Move::GuardDropped => driven.bring(Event::GuardDropped(None)),
        };
        self.check(&actions);
        self.report = self.driven.machine.report().or(self.report.take());
    }

    fn check(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Log(LogEvent::Context(_)) => self.seen.contexts += 1,
                Action::CancelToken => {
                    self.seen.cancelled += 1;
                    assert_eq!(self.seen.contexts, 1, "the line comes before the token");
                }
                Action::Record(record::Event::Signal(_)) => self.seen.recorded_stop = true,
                Action::Record(record::Event::Stopped(stopped)) => {
                    let is_forced = stopped.forced_by.is_some();
                    assert!(
                        self.seen.forced_ends == 0,
                        "nothing is recorded after a forced end: {:?}",
                        self.history
                    );
                    self.seen.planned_ends += u32::from(!is_forced);
                    self.seen.forced_ends += u32::from(is_forced);
                    let by_deadline = stopped.forced_by == Some(record::ForcedBy::Deadline);
                    assert!(
                        !by_deadline || self.seen.planned_ends == 0,
                        "there is one end: {:?}",
                        self.history
                    );
                }
                Action::StartPhase(phase, _) => self.check_start(phase.id),
                Action::Log(LogEvent::PhaseFinished { phase, .. }) => {
                    self.running.retain(|running| *running != phase.id);
                    let step = self.seen.steps.entry(phase.id).or_default();
                    step.1 += 1;
                    assert_eq!(step.1, 1, "a phase ends once");
                }
                _ => {}
            }
        }
        assert!(self.seen.cancelled <= 1 && self.seen.contexts <= 1);
        assert!(self.seen.planned_ends <= 1, "there is one end: {:?}", self.history);
    }

    fn check_start(&mut self, id: StepId) {
        assert!(
            self.seen.recorded_stop,
            "the stop is recorded before its phases: {:?}",
            self.history
        );
        assert_eq!(
            self.seen.planned_ends + self.seen.forced_ends,
            0,
            "nothing starts after the end"
        );
        let step = self.seen.steps.entry(id).or_default();
        step.0 += 1;
        assert_eq!(*step, (1, 0), "a phase starts once, and before it ends");
        // Order: every step registered before this one has ended, except the group and other
        // members of the same group.
        let is_member = |id: &StepId| self.members.contains(id);
        for earlier in
            [self.phases[0], self.group, self.members[0], self.members[1], self.phases[1]]
        {
            let is_before = match (is_member(&id), is_member(&earlier) || earlier == self.group) {
                (true, true) => false,
                _ => self.order(earlier) < self.order(id),
            };
            // Members of a group that was skipped as a whole have neither started nor ended.
            let seen = self.seen.steps.get(&earlier);
            let ended = seen.map_or(is_member(&earlier), |step| step.1 == 1);
            assert!(!is_before || ended, "{earlier:?} before {id:?}");
        }
        let deadline = self.driven.machine.deadline().unwrap();
        let end = self.driven.machine.phase_end(id).unwrap();
        assert!(end <= deadline, "no phase may run past the deadline: {:?}", self.history);
        if id == self.phases[1] {
            let reserve =
                Duration::from_secs(3).min(deadline.saturating_duration_since(self.driven.now));
            assert!(
                end >= self.driven.now + reserve,
                "what is reserved is there: {:?}",
                self.history
            );
        }
        self.running.push(id);
    }

    /// The position of a step in the plan. A phase that was registered late is last.
    fn order(&self, id: StepId) -> usize {
        let order = [self.phases[0], self.group, self.members[0], self.members[1], self.phases[1]];
        order.iter().position(|one| *one == id).unwrap_or(order.len())
    }

    /// Lets everything else end with `ok`, and checks that each phase has run or was skipped, once.
    fn finish(mut self) {
        if self.driven.machine.is_running() {
            self.make(Move::Signal);
        }
        for _ in 0..100 {
            if self.driven.machine.is_over() {
                break;
            }
            if self.driven.machine.report().is_some() {
                self.make(Move::RunReturns);
            } else if !self.running.is_empty() {
                self.make(Move::PhaseEnds(0, true));
            } else if service_runs(&self.driven.machine) {
                self.make(Move::ServiceEnds);
            } else {
                self.make(Move::Tick);
            }
        }
        assert!(self.driven.machine.is_over(), "it always ends: {:?}", self.history);
        let was_forced_or_dropped = self.report.is_none();
        if let Some(report) = &self.report {
            let members: usize = report.phases.iter().map(|phase| phase.members.len()).sum();
            let group = report.phase("group").map(|group| group.outcome);
            let expected = if group == Some(Outcome::Skipped) { 3 } else { 5 };
            let expected = expected + usize::from(self.has_registered);
            assert_eq!(report.phases.len() + members, expected, "no phase is lost: {report:?}");
        }
        assert!(was_forced_or_dropped || self.seen.planned_ends == 1);
    }
}

fn explore(world: &World, left: usize, count: &mut u64) {
    *count += 1;
    if left == 0 || world.driven.machine.is_over() {
        // To save time, only every 16th sequence is continued to the end of the stop.
        if count.is_multiple_of(16) {
            world.clone().finish();
        }
        return;
    }
    for one in world.moves() {
        let mut next = world.clone();
        next.make(one);
        explore(&next, left - 1, count);
    }
}

#[test]
fn in_every_sequence_of_events_each_phase_runs_once_in_order_and_there_is_one_end() {
    let mut count = 0;
    explore(&World::new(), LENGTH, &mut count);
    println!("{count} sequences of up to {LENGTH} events");
    assert!(count > 500_000, "{count}");
}
