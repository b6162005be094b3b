//! `forensics last`, `list` and `show` on a real pseudo terminal, and the same commands in a pipe.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_core::escape::is_safe;
use nix::pty::{Winsize, openpty};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

const WIDTHS: [u16; 3] = [40, 80, 120];

const S: u64 = 1_000_000;

/// A folder with one record.
struct Written {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Written {
    /// A record of these events. `at` is the time of each, in microseconds.
    fn new(events: &[(u64, Value)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("20261123T101500.000000Z-4100.jsonl");
        let line = |(at, event): &(u64, Value)| {
            let (seconds, micros) = (at / S, at % S);
            let ts = format!("2026-11-23T10:15:{seconds:02}.{micros:06}Z");
            let mut all = json!({ "v": 1, "ts": ts, "mono_us": at });
            all.as_object_mut().unwrap().extend(event.as_object().unwrap().clone());
            format!("{all}\n")
        };
        fs::write(&file, events.iter().map(line).collect::<String>()).unwrap();
        Self { dir, file }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forensics"));
        for argument in arguments {
            match *argument {
                "DIR" => command.arg(self.dir.path()),
                "FILE" => command.arg(&self.file),
                other => command.arg(other),
            };
        }
        for variable in ["COLUMNS", "NO_COLOR", "SERVICE_RESULT", "INVOCATION_ID"] {
            command.env_remove(variable);
        }
        command.env("TERM", "xterm");
        command
    }

    /// Runs it in a pipe. Returns its exit status and its output.
    fn piped(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }
}

/// Runs a command on a terminal of this width. Returns its exit status and its output.
fn on_terminal(command: &mut Command, width: u16) -> (i32, String) {
    let size = Winsize { ws_row: 50, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut child = command.stdout(terminal.slave).spawn().unwrap();
    command.stdout(std::process::Stdio::null()); // closes our end of it
    let mut output = Vec::new();
    let mut bytes = [0; 4096];
    let mut master = File::from(terminal.master);
    // It fails with EIO once the child has exited.
    while let Ok(count @ 1..) = master.read(&mut bytes) {
        output.extend_from_slice(&bytes[..count]);
    }
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8(output).unwrap().replace("\r\n", "\n"))
}

/// The text without the escape sequences for color and weight.
fn without_color(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('m').unwrap();
        assert!(["0", "1", "2", "31", "32", "33"].contains(&code), "{code:?} in {text:?}");
        plain += rest;
    }
    plain
}

fn started() -> Value {
    // Of another boot, so that nothing of this machine counts.
    json!({ "event": "run_started", "service": "gateway", "pid": 4100, "boot_id": "another",
        "version": "0.1.0" })
}

fn in_unit() -> Value {
    let mut event = started();
    event["unit"] = "gateway.service".into();
    event["parent_pid"] = 1.into();
    event["stop_timeout_us"] = (8 * S).into();
    event
}

fn signal(sender: &str, cause: &str) -> Value {
    json!({ "event": "signal", "kind": "signal", "signal": "SIGTERM", "ordinal": 1, "sender_pid": 1,
        "sender_name": sender, "sender_uid": 0, "cause": cause, "line": "", "deadline_us": 7 * S,
        "context": { "verdict": { "cause": cause, "evidence": format!("sent by {sender}(1)") } } })
}

fn phase(name: &str) -> Value {
    json!({ "event": "phase_started", "phase": name, "timeout_us": 5 * S, "reserve_us": S,
        "offset_us": 0 })
}

fn finished(name: &str, outcome: &str) -> Value {
    json!({ "event": "phase_finished", "phase": name, "outcome": outcome, "took_us": S,
        "offset_us": 2 * S })
}

fn stopped(how: &str, code: i32) -> Value {
    json!({ "event": "stopped", "how": how, "exit_code": code, "total_us": 2 * S })
}

fn stalled() -> Value {
    json!({ "event": "wedged", "what": "phase", "phase": "drain", "for_us": S,
        "detail": "thread worker waits in futex_wait" })
}

fn by_systemd(result: &str) -> Value {
    json!({ "event": "witness", "source": "systemd", "service_result": result,
        "exit_code": "killed", "exit_status": "KILL" })
}

/// How a run ended: its events, and what the block says, among others.
type End = (&'static str, Vec<(u64, Value)>, &'static [&'static str]);

fn ends() -> Vec<End> {
    const HOSTILE: &str = "a\nb\r\t \u{1b}[31m\u{1b}]52;c;eA==\u{7}\u{9b}2J\u{202e}\u{200b}'; rm -rf ~ # \
                           日本語の名前";
    let drain = |unit: Value, cause: &str| {
        let events = [signal("systemd", cause), phase("drain"), stalled()];
        let mut all = vec![(0, unit)];
        all.extend((1..).map(|n| n * S).zip(events));
        all
    };
    let with = |mut events: Vec<(u64, Value)>, more: &[Value]| {
        let last = events.last().unwrap().0;
        events.extend(more.iter().map(|event| (last, event.clone())));
        events
    };
    let audit = json!({ "event": "witness", "source": "audit_log", "signal": "SIGKILL",
        "sent": "2026-11-23T10:15:04.000000Z", "sender_pid": 6807, "sender_uid": 0,
        "sender_name": "kill", "sender_exe": "/usr/bin/kill", "sender_login": "alice" });
    let explained = json!({ "event": "explained", "reason": "restart_job", "cause": "systemd",
        "detail": "a job restarts the unit", "basis": { "observed": { "by": "systemd" } } });
    vec![
        (
            "clean",
            vec![
                (0, started()),
                (S, signal("bash", "operator")),
                (S, phase("drain")),
                (2 * S, finished("drain", "ok")),
                (2 * S, stopped("clean", 0)),
            ],
            &[
                "gateway[4100] ended as planned (clean)",
                "SIGTERM from bash(1), uid 0, cause operator pid and uid observed by the kernel",
                "the cause follows from: sent by bash(1)",
                "reason recorded, observed by the program itself",
                "1 of 1 ended well",
            ],
        ),
        (
            "killed in a phase, in another boot",
            drain(started(), "operator"),
            &[
                "gateway[4100] died in its teardown (killed_in_phase)",
                "drain: not finished, 1.00s of 5.00s",
                "+2.00s stalled in drain: thread worker waits in futex_wait",
                "reserve 1.00s",
                "reason elsewhere, inferred from: its record has no end;",
            ],
        ),
        (
            "timed out",
            vec![
                (0, started()),
                (
                    S,
                    json!({ "event": "signal", "kind": "request", "ordinal": 1, "cause": "requested",
                    "line": "" }),
                ),
                (S, phase("drain")),
                (2 * S, finished("drain", "timed_out")),
                (2 * S, stopped("timed_out", 0)),
            ],
            &[
                "ended by itself, but not all of its teardown was done (timed_out)",
                "the program itself requested the stop",
                "drain: timed_out, 1.00s of 5.00s",
                "raise the timeout, or find what the phase waited for",
            ],
        ),
        (
            "systemd's stop timeout",
            with(drain(in_unit(), "systemd"), &[by_systemd("timeout")]),
            &[
                "systemd's stop timeout was over after SIGTERM from systemd(1)",
                "reason stop_timeout, observed by systemd",
                "Change phase drain was still running",
                "raise TimeoutStopSec=",
                "journalctl -u gateway.service",
            ],
        ),
        (
            "OOM kill",
            vec![(0, in_unit()), (S, by_systemd("oom-kill"))],
            &[
                "gateway[4100] died, and its record has no request to stop (vanished)",
                "the kernel OOM-killed a process of the unit",
                "raise MemoryMax=",
            ],
        ),
        (
            "audit log",
            with(drain(started(), "operator"), &[audit]),
            &[
                "SIGKILL sent by kill(6807), /usr/bin/kill, uid 0, login uid alice observed by the audit log",
                "observed by the audit log",
            ],
        ),
        (
            "a sender that wrote its pid itself",
            vec![(0, started()), (S, signal("?", "unverified"))],
            &[
                "was asked to stop, and died before its teardown (killed_before_teardown)",
                "pid and uid as the sender wrote them (sigqueue)",
                "none had begun",
            ],
        ),
        (
            "a sender outside the pid namespace",
            {
                let mut signal = signal("?", "container_stop");
                signal["sender_pid"] = 0.into();
                signal.as_object_mut().unwrap().remove("sender_name");
                signal.as_object_mut().unwrap().remove("sender_uid");
                vec![(0, started()), (S, signal)]
            },
            &[
                "SIGTERM from a process outside its pid namespace, cause container_stop",
                "pid observed by the kernel",
            ],
        ),
        (
            "explained by systemd",
            with(drain(in_unit(), "systemd"), &[explained]),
            &["systemd: a job restarts the unit (restart_job) observed by systemd"],
        ),
        (
            "elsewhere",
            {
                let mut start = started();
                start["host"] = "node-7".into();
                vec![(0, start)]
            },
            &["gateway[4100] may be running (maybe_alive)", "Note on host node-7"],
        ),
        (
            "hostile text",
            {
                let (mut start, mut said) = (in_unit(), stalled());
                (start["service"], start["unit"]) = (HOSTILE.into(), HOSTILE.into());
                said["phase"] = HOSTILE.into();
                said["detail"] = HOSTILE.into();
                let diag = json!({ "event": "diag", "state": "finished", "path": HOSTILE });
                vec![
                    (0, start),
                    (S, signal(HOSTILE, HOSTILE)),
                    (S, phase(HOSTILE)),
                    (S, said),
                    (2 * S, diag),
                ]
            },
            &[r"\u{1b}[31m\u{1b}]52;c;eA==\u{7}"],
        ),
    ]
}

#[test]
fn every_end_is_a_block_that_fits_the_terminal_and_one_line_in_a_pipe() {
    for (end, events, phrases) in ends() {
        let run = Written::new(&events);
        let (code, line) = run.piped(&["last", "DIR"]);
        assert!(line.starts_with("outcome=") && line.matches('\n').count() == 1, "{end}: {line}");
        let (_, listed) = run.piped(&["list", "DIR"]);
        assert_eq!(listed.matches('\n').count(), 1, "{end}: {listed}");
        for width in WIDTHS {
            let print = |arguments: &[&str]| {
                let (code, text) = on_terminal(&mut run.command(arguments), width);
                let text = without_color(&text);
                for line in text.lines() {
                    assert!(line.chars().all(is_safe), "{end}: {line:?}");
                    // The path of the record is a word that is not divided.
                    let fits = line.width() <= width.into() || line.contains("forensics show ");
                    assert!(fits, "{end}, {width}: {line}");
                }
                (code, text)
            };
            let (block_code, block) = print(&["last", "DIR"]);
            assert_eq!(block_code, code, "{end}");
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            if width == 120 {
                for phrase in phrases {
                    assert!(words(&block).contains(phrase), "{end}: {phrase} in\n{block}");
                }
            }
            assert!(block.lines().all(|line| !line.starts_with("outcome=")), "{end}: {block}");
            // The table has one row, which begins with the outcome and the day.
            let (_, table) = print(&["list", "DIR"]);
            let outcome = &line["outcome=".len()..line.find(' ').unwrap()];
            let rows: Vec<_> = table.lines().collect();
            assert!(rows.len() == 2 && rows[1].starts_with(outcome), "{end}:\n{table}");
            assert!(rows[1].contains("  2026-11-23 "), "{end}:\n{table}");
            let (_, shown) = print(&["show", "FILE"]);
            let block: Vec<_> = block.lines().take(3).collect();
            assert!(shown.contains(&block.join("\n")), "{end}:\n{shown}");
            let is_deadline = |line: &str| line.starts_with("   +7.00s  deadline");
            assert_eq!(
                shown.lines().any(is_deadline),
                line.contains("deadline="),
                "{end}:\n{shown}"
            );
        }
    }
}

/// Programs read this output. These are the bytes of 0.1.0 before there was another format.
#[test]
fn in_a_pipe_the_output_is_what_it_was() {
    let line = "outcome=clean service=gateway pid=4100 signal=SIGTERM cause=operator sender_pid=1 \
                sender_name=bash sender_uid=0 after_signal=1s deadline=7s exit_code=0 \
                last_event=2026-11-23T10:15:02.000000Z reason=recorded basis=observed:program \
                evidence=\"it ended as planned, exit code 0\"\n";
    let row =
        "2026-11-23T10:15:00.000000Z  clean                   gateway[4100]  SIGTERM (operator)\n";
    let (_, events, _) = ends().swap_remove(0);
    let clean = Written::new(&events);
    assert_eq!(clean.piped(&["last", "DIR"]), (0, line.to_owned()));
    assert_eq!(clean.piped(&["list", "DIR"]), (0, row.to_owned()));
    assert_eq!(clean.piped(&["last", "DIR", "--color", "always"]), (0, line.to_owned()));

    let line = "outcome=killed_in_phase service=gateway pid=4100 phase=drain phase_for=1s \
                signal=SIGTERM cause=operator sender_pid=1 sender_name=systemd sender_uid=0 after_signal=2s deadline=7s ";
    let (_, events, _) = ends().swap_remove(1);
    let killed = Written::new(&events);
    let (code, said) = killed.piped(&["last", "DIR"]);
    assert!(code == 1 && said.starts_with(line), "{said}");

    // Both forms are also there by option.
    let mut command = killed.command(&["last", "DIR", "--format", "line"]);
    assert_eq!(on_terminal(&mut command, 80), (1, said));
    let (code, block) = killed.piped(&["last", "DIR", "--format", "people"]);
    assert!(code == 1 && block.starts_with("gateway[4100] died in its teardown"), "{block}");
    let (code, _) = killed.piped(&["last", "DIR", "--json", "--format", "line"]);
    assert_eq!(code, 2);
}

#[test]
fn color_is_used_as_the_environment_and_the_option_say() {
    let (_, events, _) = ends().swap_remove(0);
    let run = Written::new(&events);
    let cases: [(&[&str], &str, &str, bool); 7] = [
        (&[], "", "xterm", true),
        (&[], "1", "xterm", false),
        (&[], "", "dumb", false),
        (&["--color", "never"], "", "xterm", false),
        (&["--color=always"], "1", "dumb", true),
        (&["--color=auto"], "", "xterm", true),
        (&["--color=auto"], "0", "xterm", false),
    ];
    for (options, no_color, term, expected) in cases {
        for command in [["last", "DIR"], ["list", "DIR"], ["show", "FILE"]] {
            let mut command = run.command(&[&command, options].concat());
            command.env("NO_COLOR", no_color).env("TERM", term);
            let (code, text) = on_terminal(&mut command, 80);
            assert_eq!(code, 0);
            assert_eq!(text.contains('\u{1b}'), expected, "{options:?} {no_color} {term}: {text}");
        }
    }
    for command in [["last", "DIR"], ["list", "DIR"], ["show", "FILE"]] {
        assert!(!run.piped(&command).1.contains('\u{1b}'), "{command:?}");
    }
}

#[test]
fn a_command_of_the_block_can_be_run_as_it_is() {
    let (_, events, _) = ends().swap_remove(0);
    let run = Written::new(&events);
    let folder = run.dir.path().join("it's a folder");
    fs::create_dir(&folder).unwrap();
    let file = folder.join(run.file.file_name().unwrap());
    fs::rename(&run.file, file).unwrap();
    let arguments = ["last", folder.to_str().unwrap()];
    let (_, block) = on_terminal(&mut run.command(&arguments), 200);
    let block = without_color(&block);
    let command = block.lines().find_map(|line| line.strip_prefix("Look     ")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_forensics")).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", program.display());
    let output = Command::new("sh").args(["-c", command]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_folder_with_very_many_runs_is_several_tables() {
    let (_, events, _) = ends().swap_remove(0);
    let run = Written::new(&events);
    for n in 1..=1000 {
        fs::copy(&run.file, run.dir.path().join(format!("20261123T101501.{n:06}Z-4100.jsonl")))
            .unwrap();
    }
    let (_, table) = on_terminal(&mut run.command(&["list", "DIR", "--color", "never"]), 80);
    assert_eq!(table.matches("OUTCOME").count(), 2);
    assert_eq!(table.matches("\nclean").count(), 1001);
}

/// A record can be one that another user has made up, and a reader may run what `last` suggests.
#[test]
fn a_record_puts_no_command_into_those_that_are_shown() {
    let diag = |path: &str| json!({ "event": "diag", "state": "finished", "path": path });
    let long = format!("{}/tmp/pwned", "u".repeat(71));
    let (divided, quoted) = (format!("/{long}"), format!("/{}'$(pwned)", "u".repeat(65)));
    let cases = [
        ("gateway.service;pwned", "/var/log/diag.log"),
        ("$(pwned).service", "+!pwned"),
        (&long, "-opwned"),
        (&format!("{}.service", "u".repeat(80)), &divided),
        ("gateway.service", &quoted),
        ("gateway.service", "diag.log"),
    ];
    for (unit, path) in cases {
        let (mut start, mut other_boot) = (in_unit(), in_unit());
        start["unit"] = unit.into();
        other_boot["boot_id"] = ";pwned;".into();
        if let Ok(id) = fs::read_to_string("/etc/machine-id") {
            other_boot["machine_id"] = id.trim().into();
        }
        for start in [start, other_boot] {
            let events = [(0, start), (S, signal("systemd", "systemd")), (2 * S, diag(path))];
            let written = Written::new(&events);
            for width in WIDTHS {
                let (_, shown) = on_terminal(&mut written.command(&["last", "DIR"]), width);
                let shown = without_color(&shown);
                let (advice, commands) = shown.split_once("\nLook").unwrap();
                let (_, advice) = advice.split_once("\nChange").unwrap_or_default();
                assert!(!advice.contains("pwned"), "{advice}");
                // The words as a shell reads them. What begins a line begins a command.
                let script = commands.replace("\n  ", "\nprintf '%s\\n' ");
                let script = format!("printf '%s\\n' {}", script.trim_start());
                let script = script.replace("\\\nprintf '%s\\n' ", "");
                let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
                assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{script}");
                let words = String::from_utf8(output.stdout).unwrap();
                for word in words.lines().filter(|word| word.contains("pwned")) {
                    assert_eq!(word, path, "{script}");
                    assert!(word.starts_with('/'), "{script}");
                }
            }
        }
    }
}
