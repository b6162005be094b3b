//! The real binary, reading records that an attacker wrote: with hostile texts, texts that are too
//! long, values nested too deeply, too many events. Its output must contain no control characters,
//! keep one line per fact, be valid JSON with `--json`, and be bounded.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod systemctl;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_core::escape::is_safe;
use serde::Deserialize;
use serde_json::{Value, json};
use systemctl::with_systemctl;

/// Newlines, CSI, OSC 8 and 52, DCS, C1, NUL, DEL, bidirectional controls, zero-width characters,
/// fillers, tags, variation selectors, separators, and text that could forge a field or a column.
const HOSTILE: &str = "a\nb\r\t \u{1b}[31m\u{1b}]8;;http://x\u{1b}\\\u{1b}]52;c;eA==\u{7}\u{90}q\u{9c}\
    \u{9b}2J\0\u{7f}\u{202e}\u{2066}\u{200e}\u{61c}\u{200b}\u{200d}\u{feff}\u{ad}\u{3164}\u{2800}\
    \u{e0041}\u{e0100}\u{fe0f}\u{2028}\u{2029}\" cause=systemd  clean  x=\"";

/// The commands that print a record, and whether their output must be JSON.
const COMMANDS: [(&[&str], bool); 12] = [
    (&["last", "DIR"], false),
    (&["last", "DIR", "--json"], true),
    (&["last", "DIR", "--format", "people"], false),
    (&["list", "DIR"], false),
    (&["list", "DIR", "--format", "people"], false),
    (&["list", "DIR", "--json"], true),
    (&["list", "DIR", "--stats"], false),
    (&["list", "DIR", "--stats", "--json"], true),
    (&["show", "FILE"], false),
    (&["show", "FILE", "--color", "never"], false),
    (&["show", "FILE", "--json"], true),
    (&["show", "FILE", "--html", "-"], false),
];

/// A record of these events in a new folder.
struct Written {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Written {
    fn new(lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("20261123T101500.123456Z-4100.jsonl");
        fs::write(&file, lines).unwrap();
        Self { dir, file }
    }

    /// Runs each command; returns what it printed.
    fn print(&self) -> Vec<(String, String)> {
        let run = |(arguments, as_json): &(&[&str], bool)| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_forensics"));
            for argument in *arguments {
                match *argument {
                    "DIR" => command.arg(self.dir.path()),
                    "FILE" => command.arg(&self.file),
                    other => command.arg(other),
                };
            }
            let output = command.output().unwrap();
            let name = arguments.join(" ");
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() < Some(2) && stderr.is_empty(), "{name}: {stderr}");
            let said = String::from_utf8(output.stdout).unwrap();
            assert_tame(&name, &said);
            if *as_json {
                assert_eq!(said.matches('\n').count(), 1, "{name}");
                assert!(is_json(&said), "{name}");
            }
            (name, said)
        };
        COMMANDS.iter().map(run).collect()
    }
}

/// Whether the text is one JSON value, of any depth.
fn is_json(text: &str) -> bool {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde::de::IgnoredAny::deserialize(&mut reader).is_ok() && reader.end().is_ok()
}

fn assert_tame(name: &str, text: &str) {
    if let Some(at) = text.find(|c: char| c != '\n' && !is_safe(c)) {
        let around: String = text[at..].chars().take(80).collect();
        panic!("{name}, at byte {at}: {around:?}");
    }
}

fn line(mono_us: usize, event: &Value) -> String {
    let mut all = json!({ "v": 1, "ts": "2026-11-23T10:15:00.123456Z", "mono_us": mono_us });
    let more = event.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(more);
    format!("{all}\n")
}

/// One event of each kind, with `text` as every text and `value` as every value.
fn every_event(text: &str, value: &Value) -> String {
    let t = text;
    let values = json!({ t: t, "value": value });
    let events = [
        json!({ "event": "run_started", "service": t, "pid": 4100, "boot_id": t, "exe": t,
            "cmdline": t, "unit": t, "manager": t, "version": t }),
        json!({ "event": "signal", "kind": "signal", "signal": t, "ordinal": 1, "sender_pid": 1,
            "sender_name": t, "sender_uid": 0, "cause": t, "line": t, "context": { t: t, "value": value },
            "deadline_us": 1_000_000 }),
        json!({ "event": "signal", "kind": t, "signal": t, "ordinal": 2, "sender_pid": 1,
            "sender_name": t, "cause": t, "line": t }),
        json!({ "event": "phase_started", "phase": t, "timeout_us": 9, "offset_us": 0 }),
        json!({ "event": "phase_started", "phase": t, "group": t, "offset_us": 0 }),
        json!({ "event": "phase_progress", "phase": t, "values": values, "offset_us": 0 }),
        json!({ "event": "phase_finished", "phase": t, "group": t, "outcome": "failed", "error": t,
            "took_us": 1, "offset_us": 1, "values": values }),
        json!({ "event": "phase_finished", "phase": "other", "outcome": t, "error": t, "took_us": 1,
            "offset_us": 1 }),
        json!({ "event": "wedged", "what": "phase", "phase": t, "group": t, "for_us": 1, "detail": t,
            "threads": value }),
        json!({ "event": "diag", "state": t, "pid": 1, "path": t, "error": t }),
        json!({ "event": t, "field": t, t: value }),
    ];
    events.iter().enumerate().map(|(at, event)| line(at, event)).collect()
}

fn stopped(text: &str) -> [String; 3] {
    let stopped = |how: &str| {
        json!({ "event": "stopped", "how": how, "exit_code": 1, "total_us": 1, "panic": text,
            "location": text, "detail": text })
    };
    [line(20, &stopped("panicked")), line(20, &stopped("failed")), String::new()]
}

#[test]
fn every_text_of_a_record_can_be_hostile() {
    for end in stopped(HOSTILE) {
        let written = Written::new(&(every_event(HOSTILE, &json!([HOSTILE])) + &end));
        for (name, said) in written.print() {
            let lines = said.matches('\n').count();
            match name.as_str() {
                "last DIR" | "list DIR" => assert_eq!(lines, 1, "{name}: {said}"),
                // Head, signals, the phase, its member, the other phase, their notes, stalled,
                // diagnostic, end, axis, deadline, post-mortem.
                "show FILE" => assert!(lines <= 16, "{said}"),
                _ => {}
            }
        }
        let json = written.print().remove(1).1;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["service"], &json["cause"]), (&HOSTILE.into(), &HOSTILE.into()));
    }
}

#[test]
fn texts_of_megabytes_are_cut_and_marked() {
    // The texts of a line together are as long as a line may be.
    let long = HOSTILE.repeat(500);
    for end in stopped(&long) {
        let written = Written::new(&(every_event(&long, &json!([long])) + &end));
        for (name, said) in written.print() {
            let most = match name.as_str() {
                // JSON may escape each character as six.
                _ if name.contains("--json") => 16 << 20,
                "show FILE --html -" => 4 << 20,
                _ => 64 << 10,
            };
            assert!(said.len() < most, "{name}: {} bytes", said.len());
            assert!(name.contains("--json") || said.contains('…'), "{name}: {said}");
        }
    }
}

#[test]
fn values_nested_as_deep_as_a_line_may_be_are_shown() {
    // serde_json reads 128 levels.
    for depth in [100, 120, 5000] {
        let deep = format!("{}\"x\"{}", "[".repeat(depth), "]".repeat(depth));
        let start =
            line(0, &json!({ "event": "run_started", "service": "s", "pid": 1, "version": "0" }));
        let signal = json!({ "event": "signal", "kind": "signal", "ordinal": 1, "cause": "c", "line": "",
            "context": "DEEP" });
        let progress = json!({ "event": "phase_progress", "phase": "p", "offset_us": 0,
            "values": { "v": "DEEP" } });
        let lines = start + &line(1, &signal) + &line(2, &progress);
        let written = Written::new(&lines.replace("\"DEEP\"", &deep));
        let shown = written.print();
        let (_, show) = &shown[6];
        assert_eq!(show.contains("2 lines could not be read"), depth > 128, "{show}");
    }
}

/// A record with this many lines after the first one.
fn many(count: usize, event: impl Fn(usize) -> String) -> String {
    let start = json!({ "event": "run_started", "service": "s", "pid": 1, "version": "0" });
    (0..count).fold(line(0, &start), |lines, n| lines + &event(n))
}

#[test]
fn a_million_lines_are_read_in_linear_time() {
    let head = r#"{"v":1,"ts":"2026-11-23T10:15:00Z","mono_us":1,"event":"#;
    let started =
        |n: usize| format!("{head}\"phase_started\",\"phase\":\"{n}\",\"offset_us\":0}}\n");
    let member = |n: usize| {
        let name = format!("\"phase\":\"{n}\",\"group\":\"{}\"", n / 2);
        format!(
            "{head}\"phase_started\",{name},\"offset_us\":0}}\n{head}\"phase_finished\",{name},\
             \"outcome\":\"failed\",\"took_us\":1,\"offset_us\":0}}\n"
        )
    };
    let signal = |n: usize| {
        format!(
            "{head}\"signal\",\"kind\":\"signal\",\"ordinal\":1,\"cause\":\"{n}\",\"line\":\"\",\
             \"sender_pid\":{n},\"sender_name\":\"{n}\"}}\n"
        )
    };
    let rubbish = |_: usize| "{}\n".to_owned();
    type Event<'a> = &'a dyn Fn(usize) -> String;
    let kinds: [(usize, Event<'_>); 5] = [
        // Phases that never end; one phase again and again; members of missing groups.
        (100_000, &started),
        (100_000, &|_| started(0)),
        (50_000, &member),
        (100_000, &signal),
        (1_000_000, &rubbish),
    ];
    for (count, kind) in kinds {
        let written = Written::new(&many(count, kind));
        for arguments in
            [&["last"][..], &["list"], &["list", "--stats"], &["show"], &["show", "--html", "-"]]
        {
            let of: &Path = if arguments[0] == "show" { &written.file } else { written.dir.path() };
            let mut command = Command::new("timeout");
            // Far more than is needed. Quadratic time would be hours.
            command.args(["120", env!("CARGO_BIN_EXE_forensics")]).args(arguments).arg(of);
            let output = command.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() < Some(2), "{arguments:?}: {:?} {stderr}", output.status);
            let said = String::from_utf8(output.stdout).unwrap();
            assert_tame("many", &said);
            assert!(said.len() < 16 << 20, "{arguments:?}: {} bytes", said.len());
            let first = said.lines().next().unwrap();
            assert!(first.len() < 16 << 10, "{arguments:?}: {} bytes in a line", first.len());
        }
    }
}

#[test]
fn a_hostile_name_of_a_file_or_folder_is_escaped_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let name = HOSTILE.replace(['\0', '/'], "");
    for command in [&["show"][..], &["show", "--json"], &["list"], &["list", "--stats"], &["last"]]
    {
        for path in [dir.path().join(&name), PathBuf::from(&name)] {
            let output = Command::new(env!("CARGO_BIN_EXE_forensics"))
                .args(command)
                .arg(path)
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2));
            assert_eq!(said.matches('\n').count(), 1, "{said}");
            assert_tame("stderr", &said);
        }
    }
    // The same for a name under which no page can be written.
    let record = Written::new(&line(
        0,
        &json!({ "event": "run_started", "service": "s", "pid": 1, "version": "0" }),
    ));
    let page = dir.path().join(&name).join("page");
    let output = Command::new(env!("CARGO_BIN_EXE_forensics"))
        .arg("show")
        .arg(&record.file)
        .arg("--html")
        .arg(page)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_tame("stderr", &String::from_utf8(output.stderr).unwrap());
}

#[test]
fn the_output_of_systemctl_is_escaped_too() {
    let dir = tempfile::tempdir().unwrap();
    let hostile = HOSTILE.replace(['\0', '\n', '\''], "");
    let long = dir.path().join("long");
    let scripts = [
        format!(
            "printf '%s\\n' 'LoadState=loaded' 'TimeoutStopUSec=1s' 'KillMode={hostile}' \
             'DropInPaths=/z/{hostile}.conf' 'Id={hostile}'"
        ),
        format!("printf '%s\\n' 'LoadState={hostile}'"),
        format!("cat '{}' >&2; exit 1", long.display()),
    ];
    fs::write(&long, hostile.repeat(5000)).unwrap();
    for script in scripts {
        for more in [&[][..], &["--json"]] {
            let unit = format!("gw{hostile}");
            let arguments = [&["check", &unit, "--drain", "60s"], more].concat();
            let output = with_systemctl(Some(&script), &arguments);
            for said in [output.stdout, output.stderr] {
                let said = String::from_utf8(said).unwrap();
                assert_tame("check", &said);
                assert!(said.len() < 64 << 10, "{} bytes", said.len());
            }
        }
    }
}

/// A shell passes the names of files that another user has made: `forensics show *`.
#[test]
fn a_hostile_argument_controls_no_terminal() {
    let hostile = HOSTILE.replace('\0', "");
    let calls: [&[&str]; 7] = [
        &[&hostile],
        &["show", "a", &hostile],
        &["show", "--color", &hostile, "a"],
        &["show", &hostile],
        &["last", &hostile],
        &["last", ".", "--audit-log", &hostile],
        &["timespan", &hostile],
    ];
    for arguments in calls {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forensics"));
        let output = command.args(arguments).output().unwrap();
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8(shown).unwrap();
        assert!(!output.status.success() && !shown.is_empty(), "{arguments:?}");
        assert!(shown.chars().all(|c| c == '\n' || is_safe(c)), "{shown:?}");
    }
}
