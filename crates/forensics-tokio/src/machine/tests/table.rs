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
            vec!["AskRuntime", "record Alive"],
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
            vec!["log Abandoned", "record Stopped"],
        ),
        (
            "a guard that is dropped in its teardown",
            tearing_down,
            Event::GuardDropped(None),
            vec!["log Abandoned", "record Stopped"],
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
fn a_second_signal_of_a_person_cuts_and_a_third_one_ends_and_none_does_when_all_has_ended() {
    let repeated = ["ResolveSender", "log Repeated", "record Signal"];
    let cuts = ["ResolveSender", "DropPhase", "log Repeated", "record Signal"];
    let ends = [&repeated[..], &["exit", "record Stopped", "log Forced"]].concat();
    let mut driven = Driven::new(config());
    tearing_down(&mut driven);
    let signals = [(0, &cuts[..]), (199, &repeated), (200, &ends)];
    let second = driven.now;
    for (after, expected) in signals {
        driven.now = second + ms(after);
        let event = signal(driven.now);
        assert_eq!(names(&driven.bring(event)), expected, "{after} ms after the second");
    }
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

/// What signal number 2, 3 and 4 do under this policy, with this cause. The log names each effect.
fn effects(escalation: Escalation, cause: Cause) -> Vec<Effect> {
    let mut driven = Driven::new(Config { escalation, ..config() });
    tearing_down(&mut driven);
    driven.cause = cause;
    let mut effects = Vec::new();
    for _ in 2..5 {
        let event = signal(driven.now);
        for action in driven.bring(event) {
            if let Action::Log(LogEvent::Repeated(_, effect)) = action {
                effects.push(effect);
            }
        }
        driven.now += ms(300);
    }
    assert_eq!(effects.contains(&Effect::EndsProcess), driven.machine.is_over(), "{effects:?}");
    effects
}

#[test]
fn the_policy_and_the_cause_decide_what_a_repeated_signal_does() {
    use Effect::{CutsShort, EndsProcess, Nothing};
    let all: Vec<Cause> = serde_json::from_str(
        r#"["ctrl_c", "hangup", "self_sent", "timer", "unverified", "parent_died", "container_stop",
            "systemd", "reboot", "watchdog", "supervisor", "operator", "process", "unknown"]"#,
    )
    .unwrap();
    let none = [Nothing, Nothing, Nothing];
    for cause in all {
        let is_person = matches!(cause, Cause::CtrlC | Cause::Operator);
        let expected = if is_person { &[CutsShort, EndsProcess][..] } else { &none };
        assert_eq!(effects(Escalation::Person, cause), expected, "{cause}");
        assert_eq!(effects(Escalation::AnySignal, cause), [CutsShort, EndsProcess], "{cause}");
        assert_eq!(effects(Escalation::Exit, cause), [EndsProcess], "{cause}");
        assert_eq!(effects(Escalation::Never, cause), none, "{cause}");
    }
}

#[test]
fn signals_of_others_do_not_use_up_those_of_a_person() {
    let mut driven = Driven::new(config());
    tearing_down(&mut driven);
    // The cause of each signal, and whether it cuts the phase short, or ends the process.
    let signals = [
        (Cause::Systemd, None),
        (Cause::Supervisor, None),
        (Cause::Operator, Some("DropPhase")),
        (Cause::Process, None),
        (Cause::CtrlC, Some("exit")),
    ];
    for (cause, effect) in signals {
        driven.cause = cause;
        driven.now += ms(300);
        let event = signal(driven.now);
        let actions = names(&driven.bring(event));
        let has = |name: &str| actions.iter().any(|action| action == name);
        assert_eq!(has("DropPhase"), effect == Some("DropPhase"), "{cause}: {actions:?}");
        assert_eq!(has("exit"), effect == Some("exit"), "{cause}: {actions:?}");
    }
}

#[test]
fn a_person_at_a_terminal_escalates_the_stop_in_a_flood_of_other_signals() {
    let mut driven = Driven::new(config());
    tearing_down(&mut driven);
    for n in 0..500 {
        driven.now += ms(3);
        let code = if n == 400 { SiCode::Kernel } else { SiCode::User };
        driven.cause = if n == 400 { Cause::CtrlC } else { Cause::Process };
        let caught = Caught::of(SignalInfo::new(Signal::INT, code));
        let (signal, at) = (Box::new(caught), driven.now);
        let actions = names(&driven.bring(Event::SignalArrived { signal, at }));
        assert_eq!(actions.contains(&"DropPhase".to_owned()), n == 400, "{n}: {actions:?}");
    }
}

/// The report of a stop by `begin`, whose only phase ends like this, after the event `then`.
fn report(config: Config, begin: Event, then: Option<Event>, end: PhaseEnd) -> ShutdownReport {
    let mut driven = Driven::new(config);
    let drain = driven.phase("drain");
    running(&mut driven);
    driven.bring(begin);
    driven.bring(Event::ServiceEnded(ServiceOutcome::Ended));
    if let Some(then) = then {
        driven.now = driven.machine.deadline().unwrap();
        driven.bring(then);
    }
    driven.bring(Event::PhaseEnded(drain, end, Values::default()));
    driven.machine.report().unwrap()
}

#[test]
fn how_a_teardown_ended_follows_from_its_phases_and_decides_the_exit_status() {
    let failed = || PhaseEnd::Failed("no".to_owned());
    let panicked = PhaseEnd::Panicked("no".to_owned());
    let cases = [
        (None, PhaseEnd::Ended, ExitKind::Clean, 0),
        (Some(Event::Tick), PhaseEnd::Dropped, ExitKind::TimedOut, 0),
        (Some(Event::Escalated), PhaseEnd::Dropped, ExitKind::CutShort, 1),
        (Some(Event::Escalated), failed(), ExitKind::Failed, 1),
        (None, failed(), ExitKind::Failed, 1),
        (None, panicked, ExitKind::Failed, 1),
    ];
    for (then, end, how, status) in cases {
        let ended = report(config(), request(), then.clone(), end.clone());
        assert_eq!((ended.how, ended.exit_status), (how, status));
        // The last setting counts.
        let set = Config { exit_statuses: vec![(how, 3), (how, 4)], ..config() };
        assert_eq!(report(set, request(), then, end).exit_status, 4, "{how}");
    }
}

#[test]
fn only_a_stop_by_a_signal_ends_the_process_by_it() {
    let by_signal = || Config { exit_by_signal: true, ..config() };
    let of = |signal| {
        let caught = Box::new(Caught::of(SignalInfo::new(signal, SiCode::User)));
        Event::SignalArrived { signal: caught, at: Instant::now() }
    };
    // SIGCHLD does not end a process by default.
    let chld = Signal::from_raw(nix::sys::signal::Signal::SIGCHLD as i32);
    let cases = [
        (config(), of(Signal::TERM), None, 0),
        (by_signal(), request(), None, 0),
        (by_signal(), of(Signal::TERM), Some(Signal::TERM), 128 + 15),
        (by_signal(), of(Signal::from_raw(34)), Some(Signal::from_raw(34)), 128 + 34),
        (by_signal(), of(chld), None, 0),
    ];
    for (config, begin, signal, status) in cases {
        let ended = report(config, begin, None, PhaseEnd::Ended);
        assert_eq!((ended.exit_signal, ended.exit_status), (signal, status));
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
fn the_record_has_the_reserve_of_a_phase_and_of_a_group_but_not_of_its_members() {
    let mut driven = Driven::new(config());
    let group = driven.group("adapters");
    driven.member(group, "slack");
    driven.machine.plan.reserve(group, ms(2000));
    driven.bring(Event::RunStarted);
    let actions = driven.bring(request());
    let reserves = actions.iter().filter_map(|action| match action {
        Action::Record(record::Event::PhaseStarted(started)) => {
            Some((started.phase.as_str(), started.reserve_us))
        }
        _ => None,
    });
    let expected = [("adapters", Some(2_000_000)), ("slack", None)];
    assert_eq!(reserves.collect::<Vec<_>>(), expected);
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
        cause: Cause::Operator,
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
        let mut actions: Vec<_> =
            driven.bring(Event::Watched { missed: 0 }).iter().map(name).collect();
        actions.retain(|action| action != "record Alive");
        actions
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
fn the_record_says_once_a_second_that_the_process_is_alive() {
    let mut driven = Driven::new(config());
    tearing_down(&mut driven);
    let mut signs = 0;
    for _ in 0..40 {
        driven.now += ms(250);
        let actions = driven.bring(Event::Watched { missed: 0 });
        signs += actions.iter().filter(|action| name(action) == "record Alive").count();
    }
    assert!((9..=10).contains(&signs), "{signs} in 10 s");
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
fn only_a_phase_that_a_thread_was_running_is_said_to_block_it() {
    const BUSY: &str = "the stop was escalated, and the runtime has not dropped it within 0.1s";
    const BLOCKS: &str = "the stop was escalated, and blocking its thread";
    let in_poll = &Event::PhaseDroppedInPoll(StepId(1));
    let yielded = &Event::PhaseYielded(StepId(1));
    // The events before the phase is dropped mean nothing.
    for (before, after, expected) in [
        (&[][..], &[][..], BUSY),
        (&[], &[in_poll], BLOCKS),
        (&[], &[in_poll, yielded], BUSY),
        (&[], &[yielded, in_poll], BUSY),
        (&[in_poll], &[], BUSY),
        (&[yielded], &[in_poll], BLOCKS),
    ] {
        let mut driven = Driven::new(config());
        tearing_down(&mut driven);
        before.iter().for_each(|&event| drop(driven.bring(event.clone())));
        driven.bring(Event::Escalated);
        after.iter().for_each(|&event| drop(driven.bring(event.clone())));
        driven.now += ms(100);
        let errors: Vec<_> = driven
            .bring(Event::Tick)
            .into_iter()
            .filter_map(|action| match action {
                Action::Record(record::Event::PhaseFinished(finished)) => finished.error,
                _ => None,
            })
            .collect();
        assert_eq!(errors, [expected]);
    }
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
        let mut names = names(&actions);
        names.retain(|name| name != "log PhaseStillRunning" && name != "record Alive");
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
