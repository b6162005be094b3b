//! Checks which actions the machine returns for an event, in each state.

use super::*;

/// The name of an action. A log or record action also has the name of what is logged or recorded.
fn name(action: &Action) -> String {
    let text = match action {
        Action::Log(event) => format!("log {}", first_word(&format!("{event:?}"))),
        Action::Record(event) => format!("record {}", first_word(&format!("{event:?}"))),
        Action::Exit => "exit".to_owned(),
        other => first_word(&format!("{other:?}")).to_owned(),
    };
    text.trim().to_owned()
}

fn first_word(debug: &str) -> &str {
    debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}

fn names(actions: &[Action]) -> Vec<String> {
    actions.iter().map(name).collect()
}

/// Puts a machine into a state.
type Setup = fn(&mut Driven);

fn running(driven: &mut Driven) {
    driven.bring(Event::RunStarted);
}

fn tearing_down(driven: &mut Driven) {
    driven.phase("drain");
    running(driven);
    let event = signal(driven.now);
    driven.bring(event);
    driven.now += ms(1000);
}

fn closing(driven: &mut Driven) {
    running(driven);
    driven.bring(Event::ServiceEnded(ServiceOutcome::Ended));
    driven.now += ms(300);
}

#[test]
fn each_event_has_its_actions_in_each_state() {
    let begins = [
        "EndReadiness",
        "CaptureContext",
        "log Context",
        "CancelToken",
        "ExplainStop",
        "CompleteContext",
        "record Signal",
        "WakeShutdownThread",
    ];
    let drain = ["log TeardownStarted", "record PhaseStarted", "log PhaseStarted", "StartPhase"];
    let drained = ["record PhaseFinished", "log PhaseFinished"];
    let join = |parts: &[&[&'static str]]| parts.concat();
    let ended = Event::ServiceEnded(ServiceOutcome::Ended);
    let table: Vec<(&str, Setup, Event, Vec<&str>)> = vec![
        ("the first request begins the stop", |_| (), request(), begins.to_vec()),
        (
            "with a phase, it starts once the stop is recorded",
            |driven| {
                driven.phase("drain");
                running(driven);
            },
            request(),
            join(&[&begins, &drain]),
        ),
        ("a second request has no effect", tearing_down, request(), vec![]),
        ("a tick before anything is due has no effect", tearing_down, Event::Tick, vec![]),
        (
            "the program's escalation drops a phase without a reserve",
            tearing_down,
            Event::Escalated,
            vec!["DropPhase"],
        ),
        ("an escalation before a stop has no effect", running, Event::Escalated, vec![]),
        ("the program says that the service is up", running, Event::Ready, vec!["BecomeReady"]),
        ("a service that stops is never ready again", tearing_down, Event::Ready, vec![]),
        (
            "the end of the service begins the stop, which is over at once without a phase",
            running,
            ended.clone(),
            join(&[&begins, &["log TeardownStarted", "record Stopped"]]),
        ),
        (
            "the end of the service in a phase is waited for by the phase",
            tearing_down,
            ended,
            vec![],
        ),
        (
            "while the runtime answers it is asked again",
            tearing_down,
            Event::Watched { missed: 0 },
            vec!["AskRuntime"],
        ),
        (
            "the token of the program begins the stop, too",
            running,
            Event::TokenCancelled,
            join(&[&begins, &["log TeardownStarted"]]),
        ),
        ("after the end `run` returns", closing, Event::Closed, vec![]),
        (
            "a guard that is dropped while it runs",
            running,
            Event::GuardDropped(None),
            vec!["record Stopped"],
        ),
        (
            "a guard that is dropped in its teardown",
            tearing_down,
            Event::GuardDropped(None),
            vec!["record Stopped"],
        ),
        (
            "an exit that is expected before the end has no effect",
            tearing_down,
            Event::ExitExpected,
            vec![],
        ),
        (
            "a phase that ended",
            tearing_down,
            Event::PhaseEnded(StepId(1), PhaseEnd::Ended, Values::default()),
            drained.to_vec(),
        ),
    ];
    for (what, setup, event, expected) in table {
        let mut driven = Driven::new(config());
        setup(&mut driven);
        let actions = driven.bring(event);
        assert_eq!(names(&actions), expected, "{what}");
    }
}

fn request() -> Event {
    Event::Requested(Trigger::Request { reason: "test".to_owned() })
}

#[test]
fn a_second_signal_cuts_and_a_third_one_ends_and_none_does_when_all_has_ended() {
    let mut driven = Driven::new(config());
    tearing_down(&mut driven);
    let second = signal(driven.now);
    assert_eq!(
        names(&driven.bring(second)),
        ["ResolveSender", "DropPhase", "log Repeated", "record Signal"]
    );
    driven.now += ms(199);
    let same = signal(driven.now);
    assert_eq!(names(&driven.bring(same)), ["ResolveSender", "log Repeated", "record Signal"]);
    driven.now += ms(200);
    let third = signal(driven.now);
    let expected =
        ["ResolveSender", "log Repeated", "record Signal", "exit", "record Stopped", "log Forced"];
    assert_eq!(names(&driven.bring(third)), expected);
    assert!(driven.machine.is_over());

    let mut driven = Driven::new(config());
    closing(&mut driven);
    for _ in 0..4 {
        let event = signal(driven.now);
        let actions = driven.bring(event);
        assert!(!actions.iter().any(|action| matches!(action, Action::Exit)), "{actions:?}");
        driven.now += ms(300);
    }
}

#[test]
fn each_policy_says_what_a_repeated_signal_does() {
    use Escalation::{Exit, Ignore, SkipThenExit};
    // The policy, the number of the signal that cuts the running phase short, and the number of the
    // signal that ends the process.
    let cases = [(SkipThenExit, Some(2), Some(3)), (Exit, None, Some(2)), (Ignore, None, None)];
    for (escalation, cuts, ends) in cases {
        let mut driven = Driven::new(Config { escalation, ..config() });
        tearing_down(&mut driven);
        for number in 2..5 {
            if driven.machine.is_over() {
                break;
            }
            let event = signal(driven.now);
            let actions = driven.bring(event);
            let has = |wanted: fn(&Action) -> bool| actions.iter().any(wanted);
            let drops = has(|action| matches!(action, Action::DropPhase(_)));
            let exits = has(|action| matches!(action, Action::Exit));
            assert_eq!(drops, cuts == Some(number), "{escalation:?} {number}");
            assert_eq!(exits, ends == Some(number), "{escalation:?} {number}");
            driven.now += ms(300);
        }
    }
}

#[test]
fn an_escalation_before_a_phase_starts_is_not_missed() {
    let mut driven = Driven::new(config());
    driven.phase("drain");
    let close = driven.phase("db_close");
    driven.machine.plan.reserve(close, ms(2000));
    driven.bring(request());
    driven.bring(Event::Escalated);
    let actions = driven.bring(Event::RunStarted);
    let expected = [
        "log TeardownStarted",
        "record PhaseFinished",
        "log PhaseFinished",
        "record PhaseStarted",
        "log PhaseStarted",
        "StartPhase",
    ];
    assert_eq!(names(&actions), expected, "the first is skipped");
    let end = driven.machine.phase_end(close);
    assert_eq!(end, Some(driven.start + ms(2000)), "the second has what it reserved, and no more");
}

#[test]
fn a_signal_while_the_context_is_captured_is_not_lost() {
    let mut machine = Driven::new(config()).machine;
    let now = Instant::now();
    // One thread captures the context of the first signal, while another thread handles the second.
    let first = machine.handle(signal(now), now);
    assert!(matches!(first[..], [Action::EndReadiness, Action::CaptureContext { .. }]));
    let ended = machine.handle(Event::ServiceEnded(ServiceOutcome::Ended), now);
    assert!(ended.is_empty(), "the service's end is not the cause: {ended:?}");
    let repeated = RepeatedSignal {
        signal: Signal::INT,
        sender: None,
        ordinal: Some(2),
        received_after: ms(300),
        ended_delay: false,
    };
    assert!(machine.handle(Event::SignalRepeated(Box::new(repeated)), now + ms(300)).is_empty());
    let captured = context(Trigger::Signal { signal: Signal::TERM });
    let actions = machine.handle(Event::ContextCaptured(Box::new(captured)), now + ms(300));
    let expected = [
        "log Context",
        "CancelToken",
        "ExplainStop",
        "CompleteContext",
        "log Repeated",
        "record Signal",
    ];
    assert_eq!(names(&actions), expected);
}

#[test]
fn the_pre_stop_delay_is_over_in_four_ways_and_leaves_the_phases_what_they_reserved() {
    let ways = [
        (Event::Tick, ""),
        (Event::Escalated, ", cut short by an escalation"),
        (Event::ServiceEnded(ServiceOutcome::Ended), ", cut short: the service has ended"),
        (Event::TokenCancelled, ", cut short: the token was cancelled"),
    ];
    for (event, expected) in ways {
        let mut driven = Driven::new(Config { pre_stop_delay: Duration::from_secs(9), ..config() });
        let close = driven.phase("db_close");
        driven.machine.plan.reserve(close, Duration::from_secs(4));
        running(&mut driven);
        let request = signal(driven.now);
        let actions = driven.bring(request);
        assert!(!names(&actions).contains(&"CancelToken".to_owned()), "{actions:?}");
        let is_over = matches!(event, Event::Tick);
        let until = driven.machine.awaited().timer.unwrap();
        assert_eq!(until - driven.start, Duration::from_secs(6), "ten less what is reserved");
        driven.now = if is_over { until } else { driven.now + ms(1000) };
        let actions = driven.bring(event);
        let ended = actions.iter().find_map(|action| match action {
            Action::Log(LogEvent::DelayEnded(_, why)) => Some(*why),
            _ => None,
        });
        assert_eq!(ended, Some(expected));
        assert!(names(&actions).contains(&"CancelToken".to_owned()), "{actions:?}");
    }
}

#[test]
fn a_runtime_that_does_not_answer_is_reported_once_each_time() {
    let mut driven = Driven::new(config());
    tearing_down(&mut driven);
    let watch = |driven: &mut Driven, after: u64| {
        driven.now += ms(after);
        driven.bring(Event::Watched { missed: 0 }).iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(watch(&mut driven, 0), ["AskRuntime"]);
    assert!(watch(&mut driven, 999).is_empty());
    let reported = watch(&mut driven, 1);
    assert_eq!(reported, ["ReportStall", "record Stalled", "log Stalled"]);
    assert!(watch(&mut driven, 1000).is_empty());
    driven.bring(Event::RuntimeAnswered);
    assert_eq!(watch(&mut driven, 1), ["AskRuntime"]);
}

#[test]
fn a_phase_has_an_end_until_it_is_given_up() {
    let mut driven = Driven::new(config());
    tearing_down(&mut driven);
    assert_eq!(driven.machine.phase_end(StepId(1)), Some(driven.start + ms(10_000)));
    driven.bring(Event::Escalated);
    assert!(driven.machine.phase_end(StepId(1)).is_some(), "its future is not gone yet");
    // The phase blocks its thread, so it is given up.
    driven.now += ms(100);
    assert!(names(&driven.bring(Event::Tick)).contains(&"record PhaseFinished".to_owned()));
    assert_eq!(driven.machine.phase_end(StepId(1)), None);
}

#[test]
fn near_the_deadline_only_what_still_runs_is_recorded_as_stalled() {
    let setups: [(Setup, &[&str]); 2] = [
        (tearing_down, &["AskRuntime", "ReportStall", "record Stalled", "log Stalled"]),
        // Only the service still runs. It is neither a phase nor the runtime, so no stall is
        // recorded.
        (
            |driven| {
                driven.machine.config =
                    Arc::new(Config { service_timeout: Some(Duration::MAX), ..config() });
                running(driven);
                driven.bring(request());
            },
            &["AskRuntime", "ReportStall", "log Stalled"],
        ),
    ];
    for (setup, expected) in setups {
        let mut driven = Driven::new(config());
        setup(&mut driven);
        driven.now = driven.start + ms(9_600);
        let actions = driven.bring(Event::Watched { missed: 0 });
        let names: Vec<_> =
            names(&actions).into_iter().filter(|name| name != "log PhaseStillRunning").collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn a_process_is_ended_half_a_second_after_it_was_seen_to_be_late() {
    // The state of the stop, when it is late in milliseconds, and why the process is then ended.
    let cases: [(Setup, u64, ExitReason); 3] = [
        (tearing_down, 10_000, ExitReason::Deadline),
        (closing, 10_000, ExitReason::NotClosed),
        (
            |driven| {
                closing(driven);
                driven.now = driven.start + ms(9_900);
                driven.bring(Event::Closed);
                driven.bring(Event::ExitExpected);
            },
            // The process has at least a second to end after its teardown.
            10_900,
            ExitReason::NoExit,
        ),
    ];
    for (setup, late, expected) in cases {
        let mut driven = Driven::new(config());
        setup(&mut driven);
        let start = driven.start;
        let mut exit_at = |at: u64| {
            driven.now = start + ms(at);
            let actions = driven.bring(Event::Watched { missed: 0 });
            let exits = actions.iter().any(|action| matches!(action, Action::Exit));
            exits.then(|| driven.machine.exit_reason().unwrap())
        };
        assert_eq!(exit_at(late - 1), None);
        assert_eq!(exit_at(late), None, "it is watched for a while");
        assert_eq!(exit_at(late + 499), None);
        assert_eq!(exit_at(late + 500), Some(expected));
        assert_eq!(exit_at(late + 1000), None, "there is one end");
    }
}

#[test]
fn the_shutdown_thread_does_what_a_run_that_is_not_polled_leaves_undone() {
    // A phase whose time is over.
    let mut driven = Driven::new(config());
    let drain = driven.phase("drain");
    driven.machine.plan.limit(drain, ms(2000));
    running(&mut driven);
    driven.bring(request());
    driven.now += ms(2000);
    assert!(names(&driven.bring(Event::Watched { missed: 0 })).contains(&"DropPhase".to_owned()));
    // A pre-stop delay that is over.
    let mut driven = Driven::new(Config { pre_stop_delay: ms(2000), ..config() });
    running(&mut driven);
    driven.bring(request());
    driven.now += ms(2000);
    assert!(names(&driven.bring(Event::Watched { missed: 0 })).contains(&"CancelToken".to_owned()));
}

#[test]
fn what_ends_the_pre_stop_delay_while_the_context_is_captured_spares_it() {
    for event in
        [Event::ServiceEnded(ServiceOutcome::Ended), Event::TokenCancelled, Event::Escalated]
    {
        let config = Config { pre_stop_delay: ms(5000), ..config() };
        let mut machine = Machine::new(Arc::new(config), false, false);
        let now = Instant::now();
        machine.handle(Event::RunStarted, now);
        machine.handle(signal(now), now);
        machine.handle(event, now);
        let captured = context(Trigger::Signal { signal: Signal::TERM });
        let actions = machine.handle(Event::ContextCaptured(Box::new(captured)), now);
        assert!(names(&actions).contains(&"CancelToken".to_owned()), "{actions:?}");
    }
}

#[test]
fn a_phase_added_while_the_diagnostic_is_ended_is_run() {
    let mut config = config();
    config.diag_log = Some("/nowhere".into());
    let mut driven = Driven::new(config);
    running(&mut driven);
    driven.bring(Event::ServiceEnded(ServiceOutcome::Ended));
    let actions = driven.tick();
    assert!(names(&actions).contains(&"EndDiagnostic".to_owned()), "{actions:?}");
    driven.phase("late");
    let actions = driven.tick();
    assert!(names(&actions).contains(&"StartPhase".to_owned()), "{actions:?}");
}
