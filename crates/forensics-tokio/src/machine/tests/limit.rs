//! The deadline and the supervisor's stop timeout.

use forensics_core::duration::Timespan;
use proptest::prelude::*;

use super::*;
use crate::config::safety_margin;

/// An answer of systemd: the timeout in milliseconds, when the timer was started after the start of
/// the test, and whether systemd is stopping the unit.
fn answer(driven: &Driven, timeout: u64, since: Option<i64>, is_stopping: Option<bool>) -> Event {
    let start = driven.start;
    let since = since.map(|since| match u64::try_from(since) {
        Ok(after) => start + ms(after),
        Err(_) => start - ms(since.unsigned_abs()),
    });
    let whose = "the unit's stop timeout".to_owned();
    let timer = Timer { timeout: Timespan::from(ms(timeout)), whose, since, kills: true };
    Event::UnitKnown(Unit { timers: vec![timer], accepts_messages: false, is_stopping })
}

/// A machine with a phase that runs and one with a reserve of a second. The signal was sent by some
/// process at the start.
fn stopping(deadline: u64) -> Driven {
    let mut config = config();
    config.deadline = Some(ms(deadline));
    let mut driven = Driven::new(config);
    driven.start += ms(100_000);
    driven.now = driven.start;
    driven.phase("drain");
    let close = driven.phase("db_close");
    driven.machine.plan.reserve(close, ms(1000));
    driven.bring(Event::RunStarted);
    driven.bring(signal(driven.now));
    driven
}

fn deadline(driven: &Driven) -> u64 {
    let deadline = driven.machine.deadline().unwrap();
    deadline.saturating_duration_since(driven.start).as_millis().try_into().unwrap()
}

#[test]
fn the_answer_of_systemd_moves_the_deadline_of_a_stop_that_runs() {
    // The timeout at the start, if systemd answered then; the answer 20 ms after the signal: the
    // timeout, when its timer began, and whether the unit is being stopped; and the deadline.
    let cases = [
        // A timeout that was made shorter, or longer, since the start.
        (Some(90_000), (4_000, Some(0), true), 3_000),
        (Some(4_000), (20_000, Some(0), true), 19_000),
        (Some(4_000), (90_000, Some(0), true), 30_000),
        (None, (4_000, Some(0), true), 3_000),
        // systemd does not stop the unit: its timeout does not run.
        (Some(4_000), (4_000, None, false), 30_000),
        // The timer began before or after the signal, or that is not known.
        (None, (6_000, Some(-2_000), true), 3_000),
        (None, (6_000, Some(500), true), 5_500),
        (None, (6_000, None, true), 5_000),
        // It is over already.
        (None, (6_000, Some(-7_000), true), 0),
    ];
    for (at_start, (timeout, since, is_stopping), expected) in cases {
        let mut driven = stopping(30_000);
        if let Some(timeout) = at_start {
            let known = answer(&driven, timeout, None, None);
            driven.machine.unit = None;
            driven.bring(known);
        }
        driven.now = driven.start + ms(20);
        driven.bring(answer(&driven, timeout, since, Some(is_stopping)));
        assert_eq!(deadline(&driven), expected, "{at_start:?} {timeout} {since:?} {is_stopping}");
        let drain_ends = driven.machine.stop.as_ref().unwrap().running.values().next().unwrap().end;
        let drain_ends = drain_ends.saturating_duration_since(driven.start).as_millis() as u64;
        assert_eq!(drain_ends, expected.saturating_sub(1000), "the reserve is kept");
    }
}

#[test]
fn a_move_of_the_deadline_is_logged_and_recorded_and_no_move_is_not() {
    let moves = |actions: &[Action]| {
        let log = |action: &&Action| matches!(action, Action::Log(LogEvent::DeadlineMoved { .. }));
        let recorded =
            |action: &&Action| matches!(action, Action::Record(record::Event::DeadlineMoved(_)));
        (actions.iter().filter(log).count(), actions.iter().filter(recorded).count())
    };
    let mut driven = stopping(30_000);
    let known = answer(&driven, 4_000, Some(10), Some(true));
    assert_eq!(moves(&driven.bring(known.clone())), (1, 1));
    assert_eq!(moves(&driven.bring(known)), (0, 0));
    let jitter = answer(&driven, 4_000, Some(30), Some(true));
    assert_eq!(moves(&driven.bring(jitter)), (0, 0));
    let changed = answer(&driven, 9_000, Some(10), Some(true));
    assert_eq!(moves(&driven.bring(changed)), (1, 1));
    assert_eq!(deadline(&driven), 8_010);
}

#[test]
fn a_configured_stop_timeout_counts_from_the_first_signal_also_after_a_request_by_the_program() {
    let mut config = config();
    config.deadline = Some(ms(60_000));
    config.set_stop_timeout(ms(6_000));
    let mut driven = Driven::new(config);
    driven.phase("drain");
    driven.bring(Event::RunStarted);
    driven.bring(Event::Requested(Trigger::Request { reason: "test".to_owned() }));
    assert_eq!(deadline(&driven), 60_000, "no supervisor waits");
    let moves = |actions: Vec<Action>| {
        let moves =
            |action: &&Action| matches!(action, Action::Log(LogEvent::DeadlineMoved { .. }));
        actions.iter().filter(moves).count()
    };
    // Two seconds later, and then once more.
    for (after, moved) in [(2_000, 1), (3_000, 0)] {
        driven.now = driven.start + ms(after);
        driven.cause = Cause::Supervisor;
        assert_eq!(moves(driven.bring(signal(driven.now))), moved);
        assert_eq!(deadline(&driven), 7_000);
    }
}

#[test]
fn the_late_answer_to_the_question_of_the_start_does_not_replace_that_of_the_stop() {
    let mut driven = stopping(30_000);
    driven.bring(answer(&driven, 4_000, Some(0), Some(true)));
    driven.bring(answer(&driven, 90_000, None, None));
    assert_eq!(deadline(&driven), 3_000);
}

#[test]
fn exec_stop_takes_no_time_from_a_reserve_because_no_sigkill_follows_it() {
    let mut driven = stopping(30_000);
    let mut known = answer(&driven, 6_000, Some(-5_500), Some(true));
    let Event::UnitKnown(unit) = &mut known else { unreachable!() };
    unit.timers[0].kills = false;
    driven.now = driven.start + ms(500);
    driven.bring(known.clone());
    assert_eq!(deadline(&driven), 1_500);
    // The same answer later does not extend it.
    driven.now = driven.start + ms(1_000);
    driven.bring(known);
    assert_eq!(deadline(&driven), 1_500);
    // It has ended, and the timer for SIGKILL runs.
    driven.bring(answer(&driven, 6_000, Some(900), Some(true)));
    assert_eq!(deadline(&driven), 5_900);
}

#[test]
fn the_smallest_timeout_counts_and_an_extension_extends_only_that_of_the_unit() {
    let mut config = config();
    config.extend_ceiling = Some(ms(60_000));
    config.deadline = Some(ms(60_000));
    let mut driven = Driven::new(config);
    driven.machine = Machine::new(driven.machine.config.clone(), true, false);
    driven.phase("drain");
    driven.bring(Event::RunStarted);
    driven.bring(signal(driven.now));
    let timer = |timeout| Timer {
        timeout: Timespan::from(ms(timeout)),
        whose: timeout.to_string(),
        since: None,
        kills: true,
    };
    let unit =
        |timers| Event::UnitKnown(Unit { timers, accepts_messages: true, is_stopping: Some(true) });
    driven.bring(unit(vec![timer(10_000), timer(8_000)]));
    assert_eq!(deadline(&driven), 7_000);
    assert_eq!(driven.machine.extension(), None, "the other one cannot be extended");
    driven.bring(unit(vec![timer(10_000), timer(20_000)]));
    assert_eq!(driven.machine.extension().unwrap().ceiling, ms(19_000));
    driven.bring(Event::Extended(ms(15_000)));
    assert_eq!(deadline(&driven), 15_000);
    // A later answer takes nothing away from what systemd was asked for.
    driven.bring(unit(vec![timer(10_000), timer(20_000)]));
    assert_eq!(deadline(&driven), 15_000);
    driven.bring(unit(vec![timer(10_000), timer(9_000)]));
    assert_eq!(deadline(&driven), 8_000);
}

#[test]
fn a_pre_stop_delay_follows_the_deadline() {
    let mut config = config();
    config.deadline = Some(ms(30_000));
    config.pre_stop_delay = ms(10_000);
    let mut driven = Driven::new(config);
    let close = driven.phase("db_close");
    driven.machine.plan.reserve(close, ms(1000));
    driven.bring(Event::RunStarted);
    driven.bring(signal(driven.now));
    let until = |driven: &Driven| {
        driven.machine.awaited().timer.unwrap().saturating_duration_since(driven.start)
    };
    assert_eq!(until(&driven), ms(10_000));
    driven.bring(answer(&driven, 6_000, Some(0), Some(true)));
    assert_eq!(until(&driven), ms(4_000));
    driven.bring(answer(&driven, 60_000, Some(0), Some(true)));
    assert_eq!(until(&driven), ms(10_000));
}

/// What a process that never ends does, from the end of its teardown on.
#[derive(Debug, Clone, Copy)]
enum Blocks {
    /// A phase blocks its thread.
    Phase,
    /// `run` does not return.
    Run,
    /// The runtime's drop waits for a thread.
    Drop,
}

/// When the process is ended by force, in microseconds, if its teardown ends as late as possible or
/// after `ended` milliseconds. `None` if it is not.
fn forced_after(blocks: Blocks, timeout: u64, deadline_ms: u64, ended: u64) -> Option<Duration> {
    let mut config = config();
    config.deadline = Some(ms(deadline_ms));
    let mut driven = Driven::new(config);
    let drain = driven.phase("drain");
    driven.bring(Event::RunStarted);
    driven.bring(signal(driven.now));
    driven.bring(answer(&driven, timeout, Some(0), Some(true)));
    if !matches!(blocks, Blocks::Phase) {
        let end = driven.start + ms(ended);
        driven.now = end.min(driven.machine.deadline().unwrap());
        driven.bring(Event::PhaseEnded(drain, ServiceOutcome::Ended, Values::default()));
        driven.bring(Event::ServiceEnded(ServiceOutcome::Ended));
        assert!(driven.machine.is_closing());
        if matches!(blocks, Blocks::Drop) {
            driven.bring(Event::Closed);
            driven.bring(Event::ExitExpected);
        }
    }
    // As the shutdown thread does it.
    for _ in 0..1_000_000 {
        let actions = driven.bring(Event::Watched { missed: 0 });
        if actions.iter().any(|action| matches!(action, Action::Exit)) {
            return Some(driven.now - driven.start);
        }
        let next = driven.now + ms(250);
        let by = driven.machine.watch_by().filter(|&by| by > driven.now);
        driven.now = by.map_or(next, |by| by.min(next));
    }
    None
}

proptest! {
    #[test]
    fn a_blocked_process_is_ended_before_the_supervisor_kills_it(
        blocks in prop_oneof![Just(Blocks::Phase), Just(Blocks::Run), Just(Blocks::Drop)],
        timeout in prop_oneof![1_u64..8_000, 1_u64..200_000],
        deadline in prop_oneof![1_u64..8_000, 1_u64..200_000],
        ended in 0_u64..200_000,
    ) {
        let at = forced_after(blocks, timeout, deadline, ended);
        let at = at.expect("it is ended by force");
        let killed = ms(timeout);
        // Half of the margin remains for the last words.
        prop_assert!(at + safety_margin(killed) / 2 <= killed, "{at:?} of {killed:?}");
        // The teardown has all its time first.
        let allowed = (killed - safety_margin(killed)).min(ms(deadline));
        let until = if matches!(blocks, Blocks::Phase) { allowed } else { ms(ended).min(allowed) };
        prop_assert!(at >= until, "{at:?} of {until:?}");
    }
}

#[test]
fn a_process_that_was_paused_past_the_supervisors_time_can_still_end_by_itself() {
    let mut driven = stopping(30_000);
    driven.bring(answer(&driven, 4_000, Some(0), Some(true)));
    driven.now = driven.start + ms(60_000);
    let exits = |actions: Vec<Action>| actions.iter().any(|a| matches!(a, Action::Exit));
    assert!(!exits(driven.bring(Event::Watched { missed: 0 })));
    driven.now += ms(499);
    assert!(!exits(driven.bring(Event::Watched { missed: 0 })));
    driven.now += ms(1);
    assert!(exits(driven.bring(Event::Watched { missed: 0 })));
}

#[test]
fn the_exit_status_is_recorded_when_nothing_but_the_exit_is_left() {
    let mut driven = stopping(30_000);
    driven.now = driven.start + ms(30_000);
    driven.bring(Event::Watched { missed: 0 });
    driven.now += ms(500);
    let status = |actions: Vec<Action>| {
        let stopped = actions.into_iter().find_map(|action| match action {
            Action::Record(record::Event::Stopped(stopped)) => Some(stopped),
            _ => None,
        });
        stopped.unwrap().exit_code
    };
    assert_eq!(status(driven.bring(Event::Watched { missed: 0 })), None);
    assert_eq!(status(driven.bring(Event::Exiting(String::new()))), Some(70));
}
