//! Who receives the guard's events: a subscriber, a logger of the crate `log`, or stderr.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::process::Command;

use forensics_tests::{Ended, Program};
use serde_json::Value;

/// What the program has written.
struct Output {
    /// By the logger.
    logged: String,
    /// By the subscriber, to stdout; and by the fallback, to stderr.
    ended: Ended,
}

fn run_with(arguments: [&str; 3], variables: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_log_receivers"));
    let program = command.args(arguments).arg(&file).envs(variables.iter().copied());
    let program = Program::start(program);
    if ["signal", "fail", "two"].contains(&arguments[2]) {
        program.wait_for_stdout("ready");
        program.kill("-TERM");
    }
    let ended = program.wait();
    Output { logged: fs::read_to_string(&file).unwrap(), ended }
}

fn run(arguments: [&str; 3]) -> Output {
    run_with(arguments, &[])
}

/// What each log of a stop contains, once each.
const STOP: [&str; 5] = [
    "Shutdown context: signal=SIGTERM cause=",
    "phase finished phase=work outcome=ok",
    "phase finished phase=drain outcome=timed_out",
    "phase finished phase=flush outcome=failed",
    "Shutdown complete cause=",
];

/// Which of these lines are errors.
const ERRORS: [bool; 5] = [false, false, false, true, true];

const HINT: &str = "; fix: ";

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[test]
fn every_event_reaches_the_logger_and_the_subscriber_and_otherwise_stderr() {
    // Subscriber; whether it shows our events, and whether the service's own events still reach the
    // logger, which tracing only does if no subscriber was ever set.
    let subscribers = [
        ("none", false, true),
        ("global", true, false),
        ("scoped", true, false),
        ("was_scoped", false, false),
        ("filtered", false, false),
        ("errors", false, false),
        ("off", false, false),
        ("silent", false, false),
        ("per_layer_dynamic", false, false),
        ("late", true, false),
        ("reload", true, false),
        ("boxed", true, false),
        ("per_layer", true, false),
        ("per_layer_filtered", false, false),
        ("at_run", true, false),
    ];
    // Logger, and whether it receives our events.
    let loggers = [
        ("none", false),
        ("errors", false),
        ("off", false),
        ("bridge", false),
        ("late", true),
        ("env_logger", true),
        ("simplelog", true),
        ("fern", true),
    ];
    for (subscriber, is_shown, passes_on) in subscribers {
        for (logger, is_logged) in loggers {
            let Output { logged, ended } = run([logger, subscriber, "signal"]);
            let Ended(run) = &ended;
            let all = format!(
                "{logger} {subscriber}:\nlog:\n{logged}\nstdout:\n{}\nstderr:\n{}",
                run.stdout, run.stderr
            );
            assert_eq!(run.code(), 1, "{all}");
            let is_received = is_shown || is_logged;
            // At the start these do not receive anything yet.
            let is_shown_then = is_shown && !["late", "reload", "at_run"].contains(&subscriber);
            let is_logged_then = is_logged && logger != "late";
            // Whether these show what they want is only known once there is an event.
            let wants_all = ["silent", "per_layer_dynamic"].contains(&subscriber);
            let is_hinted = !(is_shown_then || is_logged_then || wants_all);
            assert_eq!(count(&run.stderr, HINT), usize::from(is_hinted), "{all}");
            for (line, is_error) in STOP.into_iter().zip(ERRORS) {
                let in_log = is_logged || (is_error && logger == "errors");
                assert_eq!(count(&logged, line), usize::from(in_log), "{line}: {all}");
                let in_lines = is_shown || (is_error && subscriber == "errors");
                assert_eq!(count(&run.stdout, line), usize::from(in_lines), "{line}: {all}");
                let on_stderr = !is_received && !in_log && !in_lines;
                assert_eq!(count(&run.stderr, line), usize::from(on_stderr), "{line}: {all}");
            }
            // The spans of the phases are not records of the log.
            assert_eq!(count(&logged, "phase;"), 0, "{all}");
            for when in ["in its phase", "at its end"] {
                let record = format!("a record of the service, {when}");
                assert_eq!(count(&logged, &record), usize::from(is_logged), "{all}");
                let event = format!("an event of the service, {when}");
                assert_eq!(count(&logged, &event), usize::from(is_logged && passes_on), "{all}");
                let shows = match subscriber {
                    "scoped" => when == "at its end",
                    "at_run" => false,
                    "filtered" | "per_layer_filtered" | "per_layer_dynamic" => true,
                    _ => is_shown,
                };
                assert_eq!(count(&run.stdout, &event), usize::from(shows), "{all}");
            }
        }
    }
}

#[test]
fn the_hint_names_the_fix_and_can_be_turned_off() {
    for subscriber in ["none", "filtered", "errors"] {
        let off = [("FORENSICS_STDERR_FALLBACK", "no")];
        let Output { ended, .. } = run_with(["none", subscriber, "signal"], &off);
        assert_eq!(ended.stderr, "", "{subscriber}");
        let Output { ended, .. } = run(["none", subscriber, "never"]);
        let hint = ended.line(HINT);
        assert!(hint.contains("`shutdown=info`"), "{hint}");
        assert_eq!(hint.contains("no tracing subscriber"), subscriber == "none", "{hint}");
    }
    let Output { ended, .. } = run(["errors", "none", "never"]);
    let hint = ended.line(HINT);
    assert!(hint.contains("the logger drops") && hint.contains("raise that to INFO"), "{hint}");
}

#[test]
fn a_logger_that_blocks_delays_no_phase_and_no_deadline() {
    let Output { ended, .. } = run(["blocks", "none", "signal"]);
    // The teardown has ended by itself, and the context line is on stderr.
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_eq!(count(&ended.stderr, STOP[0]), 1, "{}", ended.stderr);
}

/// The line of the log with this text.
fn line<'a>(log: &'a str, text: &str) -> &'a str {
    log.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text} in {log}"))
}

#[test]
fn levels_tell_a_failure_from_a_timeout() {
    let complete = |output: &Output| line(&output.ended.stdout, "Shutdown complete").to_owned();
    let failed = run(["none", "global", "signal"]);
    assert!(complete(&failed).contains(" ERROR shutdown: "), "{}", complete(&failed));
    let failed = run(["none", "global", "fail"]);
    assert!(complete(&failed).contains(" ERROR shutdown: "), "{}", complete(&failed));
    let service = line(&failed.ended.stdout, "The service has failed");
    assert!(
        service.contains(" ERROR shutdown: ") && service.contains("accept failed"),
        "{service}"
    );
}

#[test]
fn a_run_that_is_left_names_the_phases_that_have_not_run() {
    let cases = [
        ("never", "WARN", "run() was never called", "unfinished=\"work\""),
        ("early", "WARN", "run() was left", "unfinished=\"drain (running), db_close\""),
        ("panic", "ERROR", "A panic ends the run", "panic=\"no configuration\""),
    ];
    for (action, level, what, phases) in cases {
        let output = run(["fern", "global", action]);
        for log in [&output.ended.stdout, &output.logged] {
            let line = line(log, what);
            assert!(line.contains(level), "{line}");
            // The logger shows a value without quotes if it needs none.
            let bare = phases.replace('"', "");
            assert!(line.contains(phases) || line.contains(&bare), "{line}");
        }
        let line = line(&output.ended.stdout, what);
        assert!(line.contains("unfinished=\""), "{line}");
    }
}

#[test]
fn each_line_names_its_service_if_there_are_two() {
    let output = run(["fern", "global", "two"]);
    for log in [&output.ended.stdout, &output.logged] {
        for (service, phase) in [("log_receivers", "work"), ("other", "work")] {
            let of = format!("service={service}");
            let named: Vec<_> = log
                .lines()
                .filter(|line| line.contains(&of) || line.contains(&of.replace('=', "=\"")))
                .collect();
            for text in ["Shutdown context: ", "Teardown started", phase, "Shutdown complete"] {
                assert!(named.iter().any(|line| line.contains(text)), "{service} {text}: {log}");
            }
        }
        // From the stop on.
        let ours = log.lines().skip_while(|line| !line.contains("Shutdown context"));
        let mut ours = ours.filter(|line| line.contains("shutdown"));
        assert!(ours.all(|line| count(line, "service=") == 1), "{log}");
    }
    let output = run(["fern", "global", "signal"]);
    assert_eq!(count(&output.logged, "service="), 0, "{}", output.logged);
}

#[test]
fn each_fact_is_once_in_its_line() {
    for subscriber in ["global", "scoped"] {
        let output = run(["fern", subscriber, "signal"]);
        for log in [&output.ended.stdout, &output.logged] {
            for line in log.lines().filter(|line| line.contains("shutdown")) {
                let mut keys: Vec<_> =
                    line.split([' ', '{', '}']).filter_map(|word| word.split_once('=')).collect();
                keys.sort_unstable();
                let before = keys.len();
                keys.dedup_by_key(|(key, _)| *key);
                assert_eq!(keys.len(), before, "{line}");
            }
        }
    }
    let output = run(["none", "json", "signal"]);
    let objects = output.ended.stdout.lines().filter_map(|line| {
        serde_json::from_str::<Value>(line).ok().filter(|event| event["target"] == "shutdown")
    });
    let mut names = Vec::new();
    for event in objects {
        let fields = event["fields"].as_object().unwrap();
        let message = fields["message"].as_str().unwrap();
        for (name, value) in fields.iter().filter(|(name, _)| *name != "message") {
            assert!(!message.contains(&format!("{name}=")), "{event}");
            let text = value.as_str().unwrap_or_default();
            assert!(text.len() < 3 || !message.contains(text), "{name}: {event}");
        }
        assert!(event.get("span").is_none() && event.get("spans").is_none(), "{event}");
        names.push(message.split(' ').take(2).collect::<Vec<_>>().join(" "));
        if message.starts_with("Shutdown context") {
            assert_eq!(fields["signal"], "SIGTERM");
            assert!(fields["cause"].is_string() && fields["sender_pid"].is_u64(), "{event}");
            let load = fields["loadavg_1m"].to_string();
            assert!(load.split_once('.').is_none_or(|(_, digits)| digits.len() <= 2), "{load}");
        }
    }
    assert!(names.contains(&"Shutdown context:".to_owned()), "{names:?}");
    assert!(names.len() >= STOP.len(), "{names:?}");
}

#[test]
fn a_short_duration_is_shown_in_milliseconds() {
    let output = run(["fern", "none", "signal"]);
    let drain = line(&output.logged, "phase=drain outcome=timed_out");
    let took = drain.split_once("took=").unwrap().1.split(' ').next().unwrap();
    assert!(took.ends_with("ms"), "{drain}");
    let offset = drain.split_once('+').unwrap().1.split(' ').next().unwrap();
    assert!(offset.ends_with('s') && !offset.ends_with("ms"), "{drain}");
}
