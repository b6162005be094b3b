//! The numbered examples. Each is stopped by a real signal, and its own log says why and how it ended.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_tests::page::blocks;
use forensics_tests::{LIMIT, example};
use forensics_tokio::Signal;
use forensics_tokio::testing::{Process, Run};
use serde_json::Value;

/// What an example logs with.
#[derive(Clone, Copy)]
enum Log {
    /// The subscriber of `logging::init`, to stderr.
    Stderr,
    /// A subscriber that writes text to stdout.
    Stdout,
    /// A subscriber that writes JSON to stdout.
    Json,
    /// env_logger, to stderr.
    EnvLogger,
}

impl Log {
    /// The guard's lines in the service's own log. Lines that the guard writes to stderr itself are not
    /// among them. A field of JSON is shown as `name=value`.
    fn lines(self, run: &Run) -> Vec<String> {
        let is_text = |line: &&str| line.starts_with("20") && line.contains(" shutdown: ");
        match self {
            Log::Stderr => run.stderr.lines().filter(is_text).map(str::to_owned).collect(),
            Log::Stdout => run.stdout.lines().filter(is_text).map(str::to_owned).collect(),
            Log::EnvLogger => {
                let lines = run.stderr.lines();
                lines.filter(|line| line.contains(" shutdown] ")).map(str::to_owned).collect()
            }
            Log::Json => run.stdout.lines().filter_map(from_json).collect(),
        }
    }
}

fn from_json(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line).unwrap();
    let fields = event["fields"].as_object()?;
    let mut text = fields["message"].as_str()?.to_owned();
    for (name, value) in fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text += &format!(" {name}={value}");
    }
    (event["target"] == "shutdown").then_some(text)
}

struct Row {
    example: &'static str,
    /// `FILE` stands for a file in a new folder.
    arguments: &'static [&'static str],
    log: Log,
    status: i32,
    /// What its only context line contains besides the sender.
    cause: &'static str,
    /// Its phases and their outcomes.
    phases: &'static [(&'static str, &'static str)],
    /// What the log contains besides.
    logged: &'static [&'static str],
    /// What it prints, once each.
    printed: &'static [&'static str],
}

const SIGTERM: &str = "signal=SIGTERM";

const ROWS: &[Row] = &[
    Row {
        example: "01_join_set",
        arguments: &[],
        log: Log::Stderr,
        status: 0,
        cause: SIGTERM,
        phases: &[("workers", "ok")],
        logged: &["workers=3"],
        printed: &["worker 1 has finished", "worker 2 has finished", "worker 3 has finished"],
    },
    Row {
        example: "01_join_set",
        arguments: &["fail"],
        log: Log::Stderr,
        status: 1,
        cause: SIGTERM,
        phases: &[("workers", "failed")],
        logged: &["worker 3: queue not flushed"],
        printed: &["worker 1 has finished", "worker 2 has finished"],
    },
    Row {
        example: "02_task_tracker",
        arguments: &[],
        log: Log::Stderr,
        status: 0,
        cause: SIGTERM,
        phases: &[("tasks", "ok")],
        logged: &["tasks_left=0"],
        printed: &["task 1 starts", "task 1 is done"],
    },
    Row {
        example: "03_several_services",
        arguments: &[],
        log: Log::Stderr,
        status: 0,
        cause: SIGTERM,
        phases: &[("drain", "ok"), ("db_close", "ok")],
        logged: &[],
        printed: &["api has finished", "admin has finished"],
    },
    Row {
        example: "03_several_services",
        arguments: &["admin"],
        log: Log::Stderr,
        status: 1,
        cause: "reason=\"admin has ended\"",
        phases: &[("drain", "ok"), ("db_close", "ok")],
        logged: &["admin: accept failed"],
        printed: &["api has finished"],
    },
    Row {
        example: "04_anyhow",
        arguments: &["FILE"],
        log: Log::Stderr,
        status: 0,
        cause: SIGTERM,
        phases: &[("snapshot", "ok")],
        logged: &[],
        printed: &[],
    },
    Row {
        example: "04_anyhow",
        arguments: &["/missing/snapshot"],
        log: Log::Stderr,
        status: 1,
        cause: SIGTERM,
        phases: &[("snapshot", "failed")],
        logged: &["the snapshot is lost: No such file or directory"],
        printed: &[],
    },
    Row {
        example: "05_eyre",
        arguments: &["FILE"],
        log: Log::Stderr,
        status: 0,
        cause: SIGTERM,
        phases: &[("snapshot", "ok")],
        logged: &[],
        printed: &[],
    },
    Row {
        example: "05_eyre",
        arguments: &["/missing/snapshot"],
        log: Log::Stderr,
        status: 1,
        cause: SIGTERM,
        phases: &[("snapshot", "failed")],
        logged: &["the snapshot is lost: No such file or directory"],
        printed: &[],
    },
    Row {
        example: "06_log",
        arguments: &[],
        log: Log::EnvLogger,
        status: 0,
        cause: SIGTERM,
        phases: &[("flush", "ok")],
        logged: &[],
        printed: &[],
    },
    Row {
        example: "07_json",
        arguments: &[],
        log: Log::Json,
        status: 0,
        cause: SIGTERM,
        phases: &[("flush", "ok")],
        logged: &[],
        printed: &["\"rows\":7"],
    },
    Row {
        example: "08_env_filter",
        arguments: &[],
        log: Log::Stdout,
        status: 0,
        cause: SIGTERM,
        phases: &[("flush", "ok")],
        logged: &[],
        printed: &[" 08_env_filter: flushing"],
    },
    Row {
        example: "current_thread",
        arguments: &[],
        log: Log::Stderr,
        status: 0,
        cause: SIGTERM,
        phases: &[("flush", "ok"), ("db_close", "ok")],
        logged: &[],
        printed: &[],
    },
];

/// Starts an example, stops it once it works unless it stops itself, and waits until it has ended.
fn run(command: &mut Command, stops_itself: bool) -> Run {
    let process = Process::start(command.env("NO_COLOR", "1")).limit(LIMIT);
    process.wait_for_stdout("working");
    if !stops_itself {
        // Not by kill(1), which can exit before its name is read.
        process.signal(Signal::TERM);
    }
    process.wait()
}

/// The only line with this text.
fn only<'a>(lines: &'a [String], text: &str) -> &'a str {
    let found: Vec<_> = lines.iter().filter(|line| line.contains(text)).collect();
    assert_eq!(found.len(), 1, "`{text}` in {lines:#?}");
    found[0]
}

#[test]
fn the_own_log_of_each_example_names_the_sender_the_phases_and_the_end() {
    for row in ROWS {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let arguments = row.arguments.iter().map(|argument| match *argument {
            "FILE" => file.as_os_str(),
            argument => argument.as_ref(),
        });
        let is_stopped = row.cause == SIGTERM;
        let mut command = Command::new(example(row.example));
        let run = run(command.args(arguments).env_remove("RUST_LOG"), !is_stopped);
        let about = format!("{} {:?}:\n{}\n{}", row.example, row.arguments, run.stdout, run.stderr);
        assert_eq!(run.code(), row.status, "{about}");
        let log = row.log.lines(&run);

        let context = only(&log, "Shutdown context:");
        assert!(context.contains(row.cause), "{about}");
        if is_stopped {
            // Written by this process, which is the parent of the example.
            assert!(context.contains("cause=supervisor"), "{about}");
            assert!(context.contains(&format!("sender_pid={}", std::process::id())), "{about}");
            assert!(context.contains("sender_name=numbered"), "{about}");
        }
        for (phase, outcome) in row.phases {
            let line = only(&log, &format!(" phase={phase}"));
            assert!(line.contains("phase finished"), "{about}");
            assert!(line.contains(&format!("outcome={outcome}")), "{about}");
        }
        let end = only(&log, "Shutdown complete");
        assert!(end.contains(&format!("exit_status={}", row.status)), "{about}");
        for text in row.logged {
            assert!(log.iter().any(|line| line.contains(text)), "{text}: {about}");
        }
        for text in row.printed {
            assert_eq!(run.stdout.matches(text).count(), 1, "{text}: {about}");
        }
        // The record says the same.
        let recorded =
            run.outcomes().into_iter().map(|(phase, outcome)| (phase, outcome.to_string()));
        let expected = row.phases.iter().map(|(phase, outcome)| (*phase, (*outcome).to_owned()));
        assert!(recorded.eq(expected), "{about}");
        // Nothing was filtered out, so the guard writes nothing to stderr itself.
        assert!(!run.stderr.contains("; fix: "), "{about}");

        if row.arguments == ["FILE"] {
            assert_eq!(fs::read_to_string(file).unwrap(), "state\n", "{about}");
        }
        let count = |what| run.stdout.lines().filter(|line| line.ends_with(what)).count();
        assert_eq!(count(" starts"), count(" is done"), "{about}");
    }
}

#[test]
fn what_a_filter_hides_goes_to_stderr_with_the_fix() {
    for (name, filter) in [("06_log", "warn"), ("08_env_filter", "08_env_filter=debug")] {
        let run = run(Command::new(example(name)).env("RUST_LOG", filter), false);
        assert!(run.stderr.contains("add `shutdown=info` to its filter"), "{name}: {}", run.stderr);
        assert!(run.stderr.contains(" INFO shutdown: Shutdown context: signal=SIGTERM"), "{name}");
        assert!(!run.stdout.contains("Shutdown"), "{name}: {}", run.stdout);
    }
}

#[test]
fn an_error_before_the_guard_is_returned_from_main() {
    for name in ["04_anyhow", "05_eyre"] {
        let output = Command::new(example(name)).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with(&format!("Error: usage: {name} FILE")), "{error}");
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/numbered")
}

#[test]
fn each_numbered_example_is_tested_listed_and_short() {
    let page = fs::read_to_string(folder().join("README.md")).unwrap();
    let tested: BTreeSet<_> = ROWS.iter().map(|row| row.example).collect();
    let mut found = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        found += 1;
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(tested.contains(name), "{name} has no row in this test");
        let source = fs::read_to_string(&path).unwrap();
        let question = source.lines().next().unwrap().strip_prefix("//! ").unwrap();
        assert!(question.ends_with('?'), "{name}: {question}");
        let commands = source.lines().filter_map(|line| line.strip_prefix("//! cargo "));
        let command =
            commands.map(|line| line.split(" #").next().unwrap().trim_end()).next().unwrap();
        let row = format!("| [{name}.rs]({name}.rs) | {question} | `cargo {command}` |");
        assert!(page.contains(&row), "README.md lacks\n{row}");
        assert!(source.contains("\n#[tokio::main"), "{name}");
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        let lines = source.lines().filter(is_code).count();
        assert!((10..=50).contains(&lines), "{name} has {lines} lines");
    }
    assert!(found >= 8, "{found}");
}

/// The messages of lines of JSON without the time since the signal, with the names of their fields.
fn names(json: &str) -> Vec<(String, BTreeSet<String>)> {
    let ours = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ours = ours.filter(|event| event["target"] == "shutdown");
    let message = |event: &Value| {
        let message = event["fields"]["message"].as_str().unwrap();
        let has_offset = message.starts_with('+');
        message.split(' ').skip(usize::from(has_offset)).collect::<Vec<_>>().join(" ")
    };
    let names = |event: &Value| {
        let fields = event["fields"].as_object().unwrap().keys();
        fields.chain(event.as_object().unwrap().keys()).cloned().collect()
    };
    ours.map(|event| (message(&event), names(&event))).collect()
}

#[test]
fn the_page_about_subscribers_shows_what_the_examples_write() {
    let json = run(Command::new(example("07_json")).env_remove("RUST_LOG"), false);
    let written = names(&json.stdout);
    let shown = names(&blocks("logging.md", "json")[0]);
    assert_eq!(shown.len(), 3, "{shown:?}");
    for (message, shown) in shown {
        let (_, written) = written.iter().find(|(text, _)| *text == message).unwrap();
        // Another machine may add facts to the context, such as its platform.
        let is_right =
            shown == *written || message == "Shutdown context:" && shown.is_subset(written);
        assert!(is_right, "{message} {shown:?} {written:?}");
    }

    let hint =
        run(Command::new(example("08_env_filter")).env("RUST_LOG", "08_env_filter=debug"), false);
    let log = run(Command::new(example("06_log")).env_remove("RUST_LOG"), false);
    let [shown_hint, shown_log] = &blocks("logging.md", "text")[..] else { panic!() };
    for (shown, written) in [(shown_hint, hint.stderr), (shown_log, log.stderr)] {
        for line in shown.lines().map(|line| line.trim_end_matches('…')) {
            assert!(written.contains(line), "no `{line}` in\n{written}");
        }
    }

    let unindented = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let source = fs::read_to_string(folder().join("../otel/main.rs")).unwrap();
    let excerpt = &blocks("logging.md", "rust,ignore")[0];
    assert!(unindented(&source).contains(&unindented(excerpt)), "examples/otel has changed");
}
