//! The real binary, as a user calls it.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod systemctl;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use forensics_core::duration::Timespan;
use forensics_core::record::{
    DeadlineMoved, Diag, DiagState, Event, ExitKind, PhaseFinished, PhaseOutcome, PhaseProgress,
    PhaseStarted, Recorder, RunStarted, SignalEvent, SignalKind, Stalled, StalledWhat, Stopped,
};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use systemctl::with_systemctl;

fn forensics(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forensics"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    said(forensics(arguments).output().unwrap())
}

fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn timespans_are_printed_one_per_line_and_a_bad_one_is_named() {
    let cases: [(&[&str], i32, &str, &str); 5] = [
        (&["90", "1min 30s"], 0, "90000000\n90000000\n", ""),
        (&["infinity"], 0, "infinity\n", ""),
        (&["--human", "5400s", "0"], 0, "1h 30min\n0\n", ""),
        (&["1s", "-5s", "2s"], 2, "1000000\n2000000\n", "`-5s`"),
        (&["5mins"], 2, "", "`5mins`"),
    ];
    for (texts, code, stdout, stderr) in cases {
        let said = run(&[&["timespan"], texts].concat());
        assert_eq!((said.0, said.1.as_str()), (code, stdout));
        assert!(said.2.contains(stderr), "{}", said.2);
    }
    assert_eq!(run(&["timespan"]).0, 2);
}

/// A user can make the root of a process, as in a user namespace.
#[test]
fn no_file_is_read_through_the_root_of_another_process() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (secret, root) = (dir.path().join("secret"), dir.path().join("root"));
    fs::write(&secret, "hunter2").unwrap();
    let namespace = root.join("var/run/secrets/kubernetes.io/serviceaccount/namespace");
    fs::create_dir_all(namespace.parent().unwrap()).unwrap();
    let enter =
        "import os, sys; os.chroot(sys.argv[1]); print('ready', flush=True); sys.stdin.read()";
    for is_link in [true, false] {
        for file in [&namespace, &root.join(".dockerenv")] {
            let _ = fs::remove_file(file);
            match is_link {
                true => std::os::unix::fs::symlink(&secret, file).unwrap(),
                // Stands for a mount of a file that the user may not read.
                false => fs::hard_link(&secret, file).unwrap(),
            }
        }
        let mut child = Command::new("python3")
            .args(["-c", enter])
            .arg(&root)
            .envs([("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("HOSTNAME", "web-1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let (_, stdout, stderr) = run(&["context", "--json", "--pid", &child.id().to_string()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!stdout.contains("hunter2") && stderr.is_empty(), "{stdout}{stderr}");
        let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(json["pod"]["name"], "web-1");
        let container = if is_link { serde_json::Value::Null } else { "docker".into() };
        assert_eq!(json["container"], container);
    }
}

#[test]
fn the_context_of_another_process_describes_that_process() {
    let mut child = Command::new("sh")
        .args(["-c", "echo started; read _"])
        .env("INVOCATION_ID", "0123456789abcdef")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let pid = child.id().to_string();
    let (code, stdout, _) = run(&["context", "--json", "--pid", &pid]);
    let (_, plain, _) = run(&["context", "--pid", &pid]);
    child.kill().unwrap();
    child.wait().unwrap();

    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 0);
    assert_eq!(json["process"]["name"], "sh");
    assert_eq!(json["systemd"]["invocation_id"], "0123456789abcdef");
    assert_eq!(json["parent"]["pid"], std::process::id());
    assert!(plain.starts_with("under_systemd=yes parent_pid="), "{plain}");
    assert_eq!(plain.lines().count(), 1);
}

#[test]
fn a_marker_on_the_command_line_is_read_and_an_invalid_one_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("takeover.json");
    fs::write(&path, r#"{"target_pid": 1}"#).unwrap();
    let marker = format!("takeover={}", path.display());
    let (code, stdout, _) = run(&["context", "--pid", "1", "--marker", &marker]);
    assert_eq!(code, 0);
    assert!(stdout.contains("takeover_marker_present=self"), "{stdout}");
    for bad in ["takeover", "=/run/x", "takeover="] {
        let (code, stdout, stderr) = run(&["context", "--marker", bad]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{bad}");
        assert!(stderr.contains("write NAME=PATH"), "{stderr}");
    }
}

#[test]
fn a_missing_process_is_reported_and_is_not_an_error() {
    let (code, stdout, stderr) = run(&["context", "--pid", "2147483647"]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("under_systemd=no"), "{stdout}");
    assert!(stderr.contains("process 2147483647 does not exist, or is hidden"), "{stderr}");
}

#[test]
fn the_diagnostic_is_complete_and_shows_the_caller() {
    let (code, stdout, _) = run(&["diag"]);
    assert_eq!(code, 0);
    assert!(stdout.contains(&format!("--- process {}\n", std::process::id())), "{stdout}");
    assert!(stdout.lines().last().unwrap().starts_with("--- end of diagnostic"), "{stdout}");
}

#[test]
fn a_closed_pipe_ends_it_without_an_error() {
    let mut child = forensics(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, stderr) = said(child.wait_with_output().unwrap());
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn completions_are_valid_shell_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).1.contains("timespan"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("forensics.bash");
    fs::write(&script, run(&["completions", "bash"]).1).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
}

/// Runs `forensics check gateway` with this shell script in place of systemctl.
fn check(script: Option<&str>, more: &[&str]) -> (i32, String, String) {
    let arguments = [&["check", "gateway", "--drain", "60s"], more].concat();
    said(with_systemctl(script, &arguments))
}

#[test]
fn a_unit_is_checked_and_the_exit_status_gives_the_result() {
    let loaded = "LoadState=loaded\nActiveState=active\nKillMode=control-group\nSendSIGKILL=yes";
    let show = |timeout: &str| format!("cat <<'E'\n{loaded}\nTimeoutStopUSec={timeout}\nE");
    let cases = [
        (Some(show("1min 30s")), 0, "aligned, 0 to spare"),
        (Some(show("infinity")), 0, "systemd gives infinity"),
        (Some(show("45s")), 1, "systemctl edit gateway.service\n\n[Service]\nTimeoutStopSec=90s"),
        (Some("echo LoadState=not-found".to_owned()), 3, "can't tell"),
        (Some("echo Host is down >&2; exit 1".to_owned()), 3, ""),
        (None, 3, ""),
    ];
    for (script, code, text) in cases {
        let (got, stdout, stderr) = check(script.as_deref(), &[]);
        assert_eq!(got, code, "{stdout}{stderr}");
        assert!(stdout.contains(text), "{stdout}{stderr}");
        assert_eq!(stdout.is_empty(), !stderr.is_empty(), "{stdout}{stderr}");
    }
    let (code, json, _) = check(Some(&show("45s")), &["--json", "--headroom", "1min"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["aligned"]), (1, &false.into()));
    assert_eq!(json["drop_in"]["setting"], "TimeoutStopSec=120s");
}

#[test]
fn the_signals_of_a_unit_are_checked_against_those_of_the_guard() {
    let reload = "{ path=/bin/kill ; argv[]=/bin/kill -HUP $MAINPID ; ignore_errors=no ; pid=0 }";
    let show = format!(
        "cat <<'E'\nLoadState=loaded\nTimeoutStopUSec=90s\nKillSignal=10\nRestartKillSignal=10\n\
         FinalKillSignal=9\nExecReload={reload}\nE"
    );
    let (code, stdout, _) = check(Some(&show), &[]);
    assert_eq!(code, 0, "the stop timeout is long enough: {stdout}");
    for line in [
        "error: KillSignal=SIGUSR1 is not among the guard's signals (SIGTERM, SIGINT, SIGHUP, SIGQUIT)",
        "  fix: KillSignal=SIGTERM\n",
        "warning: ExecReload=/bin/kill -HUP $MAINPID sends SIGHUP, which the guard takes for a request",
        "ok: the guard's signals are assumed to be SIGTERM, SIGINT, SIGHUP, SIGQUIT; see --signals\n",
    ] {
        assert!(stdout.contains(line), "{line}:\n{stdout}");
    }
    let (code, stdout, _) = check(Some(&show), &["--signals", "SIGUSR1,SIGTERM"]);
    assert_eq!(code, 0);
    let about_signals = ["KillSignal", "ExecReload", "assumed"];
    assert!(!about_signals.iter().any(|word| stdout.contains(word)), "{stdout}");
    let (code, _, stderr) = check(Some(&show), &["--signals", "TERM"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("write a name such as SIGTERM"), "{stderr}");
    let (_, stdout, _) = check(Some("echo LoadState=not-found"), &[]);
    assert!(!stdout.contains("assumed"), "{stdout}");
}

#[test]
fn a_template_is_refused_and_an_instance_is_not() {
    for (unit, instance) in [("gw@", "gw@1"), ("gw@.service", "gw@1"), ("a.b@.socket", "a.b@1")] {
        let (code, stdout, stderr) = run(&["check", unit, "--drain", "60s"]);
        assert_eq!((code, stdout.as_str()), (2, ""));
        let expected = format!("it is a template: name one of its instances, such as `{instance}`");
        assert!(stderr.contains(&expected), "{stderr}");
    }
    for unit in ["gw@1", "gw@a.service"] {
        let (code, _, stderr) = said(with_systemctl(None, &["check", unit, "--drain", "60s"]));
        assert_eq!(code, 3, "{unit}: {stderr}");
    }
}

#[test]
fn a_drop_in_that_overrides_the_fix_is_named_as_the_place_to_fix() {
    let dir = tempfile::tempdir().unwrap();
    let [early, late, silent] = ["50-a.conf", "zz-limits.conf", "zzz-other.conf"]
        .map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    fs::write(&early, "[Service]\nTimeoutStopSec=10\n").unwrap();
    fs::write(&late, "[Service]\nTimeoutSec = 45\n").unwrap();
    fs::write(&silent, "[Service]\n# TimeoutStopSec=1\nNice=5\n").unwrap();
    let show = format!(
        "cat <<'E'\nLoadState=loaded\nTimeoutStopUSec=45s\n\
         DropInPaths={early} {late} {silent} /gone/zzzz.conf\nE"
    );
    let (code, stdout, _) = check(Some(&show), &[]);
    assert_eq!(code, 1);
    let fix = format!("To fix it, in {late}, which overrides");
    assert!(stdout.contains(&fix), "{stdout}");
    assert!(stdout.contains("[Service]\nTimeoutStopSec=90s\n"), "{stdout}");
    let (_, json, _) = check(Some(&show), &["--json", "--user"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["drop_in"]["overruled_by"], late.as_str());
    assert_eq!(json["drop_in"]["edit"], "systemctl --user edit gateway.service");
}

#[test]
fn a_systemctl_that_does_not_answer_is_killed_and_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 3600", file.display());
    let (code, _, stderr) = check(Some(&script), &[]);
    assert_eq!(code, 3);
    assert!(stderr.contains("did not answer"), "{stderr}");
    let pid = Pid::from_raw(fs::read_to_string(file).unwrap().trim().parse().unwrap());
    assert_eq!(kill(pid, None), Err(Errno::ESRCH));
}

/// A record with the first `until` events of a run.
fn record(dir: &Path, until: usize) {
    let mut signal = SignalEvent::new(SignalKind::Signal, 1, "operator");
    signal.signal = Some("SIGTERM".into());
    signal.sender_pid = Some(4242);
    signal.sender_name = Some("kill\u{1b}[31m".into());
    let events = [
        Event::Signal(signal),
        Event::PhaseStarted(PhaseStarted::new("drain", 100)),
        Event::PhaseFinished(PhaseFinished::new("drain", PhaseOutcome::Ok, 200, 300)),
        Event::Stopped(Stopped::new(ExitKind::Clean, 0, 400)),
    ];
    let recorder = Recorder::create(dir, RunStarted::new("gateway", 4100)).unwrap();
    events[..until].iter().for_each(|event| recorder.record(event).unwrap());
}

#[test]
fn the_last_run_is_explained_and_the_exit_status_gives_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shutdown");
    let path = folder.to_str().unwrap();
    assert_eq!(run(&["last", path]).0, 2, "there is no folder");

    record(&folder, 4);
    let (code, stdout, _) = run(&["last", path]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("outcome=clean service=gateway pid=4100"), "{stdout}");

    record(&folder, 2);
    let (code, stdout, _) = run(&["last", "--json", path]);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 1);
    assert_eq!(json["outcome"], "killed_in_phase");
    assert_eq!(json["phases"][0]["phase"], "drain");

    let (code, stdout, _) = run(&["list", path]);
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!((code, lines.len()), (0, 2));
    assert!(lines[0].contains("clean"), "{stdout}");
    assert!(lines[1].contains("killed_in_phase") && lines[1].ends_with("in drain"), "{stdout}");
}

#[test]
fn a_run_that_failed_is_not_listed_as_clean() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shutdown");
    for how in [ExitKind::Clean, ExitKind::Failed, ExitKind::Abandoned] {
        let recorder = Recorder::create(&folder, RunStarted::new("gateway", 4100)).unwrap();
        recorder.record(&Event::Stopped(Stopped::new(how, None, 400))).unwrap();
    }
    let path = folder.to_str().unwrap();
    let (_, stdout, _) = run(&["list", path]);
    let words: Vec<_> = stdout.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(words, ["clean", "failed", "abandoned"]);
    let (_, stdout, _) = run(&["list", path, "--stats"]);
    assert!(stdout.contains("outcomes  1 abandoned, 1 clean, 1 failed\n"), "{stdout}");
    let failed = &forensics_core::record::runs(&folder).unwrap()[1];
    let (_, page, _) = run(&["show", "--html", "-", failed.to_str().unwrap()]);
    assert!(page.contains("id=\"outcome\">failed</span>"), "{page}");
}

#[test]
fn a_record_is_shown_as_a_timeline_without_its_escapes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shutdown");
    record(&folder, 4);
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let (code, stdout, _) = run(&["show", file.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(stdout.contains(r#"SIGTERM from "kill\u{1b}[31m"(4242), cause operator"#), "{stdout}");
    assert!(stdout.contains("drain") && stdout.contains('█') && stdout.contains("ok"), "{stdout}");
    assert!(!stdout.contains('\u{1b}'));

    let (_, json, _) = run(&["show", "--json", file.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["events"].as_array().unwrap().len(), 5);

    fs::write(&file, "not a record\n").unwrap();
    assert_eq!(run(&["show", file.to_str().unwrap()]).0, 2);
}

#[test]
fn folders_without_a_record_and_unreadable_records_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shutdown");
    fs::create_dir(&folder).unwrap();
    let path = folder.to_str().unwrap();
    let (code, stdout, stderr) = run(&["last", path]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("no record that can be read"), "{stderr}");
    assert_eq!(run(&["list", path]), (0, String::new(), String::new()));

    record(&folder, 0);
    record(&folder, 4);
    let oldest = forensics_core::record::runs(&folder).unwrap().remove(0);
    let (_, stdout, _) = run(&["list", path]);
    let first = stdout.lines().next().unwrap();
    // It ended without a request to stop.
    assert!(first.contains("vanished") && first.ends_with("gateway[4100]"), "{stdout}");

    fs::write(&oldest, "rubbish\n").unwrap();
    let (code, stdout, stderr) = run(&["list", path, "--json"]);
    assert_eq!((code, stdout.lines().count()), (0, 1));
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json["outcome"], "clean");
    assert!(stderr.contains("no run_started event"), "{stderr}");
}

#[test]
fn a_timeline_has_every_kind_of_event_and_counts_unreadable_lines() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shutdown");
    let recorder = Recorder::create(&folder, RunStarted::new("gateway", 4100)).unwrap();
    let values = |text: &str| serde_json::from_str(text).unwrap();
    let mut signal = SignalEvent::new(SignalKind::Request, 1, "requested");
    signal.deadline_us = Some(45_000_000);
    let moved = DeadlineMoved {
        deadline_us: Some(40_000_000),
        stop_timeout_us: Some(Timespan::Finite(41_000_000)),
    };
    let mut drained = PhaseFinished::new("drain", PhaseOutcome::CutShort, 200, 300);
    drained.values = values(r#"{"active_now":3,"who":"slack"}"#);
    let mut wedged = Stalled::new(StalledWhat::Phase, 11, "sleeps in futex");
    wedged.phase = Some("drain".to_owned());
    let mut diag = Diag::new(DiagState::Failed);
    diag.error = Some("no such file".to_owned());
    let events = [
        Event::Signal(signal),
        Event::DeadlineMoved(moved),
        Event::Diag(diag),
        Event::PhaseStarted(PhaseStarted::new("drain", 100)),
        Event::PhaseProgress(PhaseProgress::new("drain", values(r#"{"active_now":7}"#), 150)),
        Event::Stalled(wedged),
        Event::PhaseFinished(drained),
        Event::PhaseFinished(PhaseFinished::new("db_close", PhaseOutcome::Skipped, 0, 300)),
        Event::PhaseStarted(PhaseStarted::new("flush", 400)),
        Event::PhaseProgress(PhaseProgress::new("flush", values(r#"{"left":1}"#), 500)),
    ];
    events.iter().for_each(|event| recorder.record(event).unwrap());
    drop(recorder);
    let file = forensics_core::record::runs(&folder).unwrap().remove(0);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, [b"rubbish\n", &whole[..], br#"{"v":1,"ev"#].concat()).unwrap();

    let file = file.to_str().unwrap();
    let (code, stdout, _) = run(&["show", file]);
    assert_eq!(code, 0);
    for part in [
        "cut_short",
        "active_now=3 who=slack",
        "skipped",
        "left=1",
        "stalled in drain: sleeps in futex",
        "deadline moved to 40s: systemd gives 41s",
        "diagnostic failed: no such file",
        "1 lines could not be read, and the last line is torn",
    ] {
        assert!(stdout.contains(part), "{part} in {stdout}");
    }
    assert!(!stdout.contains("active_now=7"), "the final values of a phase count: {stdout}");
    let (_, page, _) = run(&["show", "--html", "-", file]);
    for part in ["and the last line is torn", "beyond the chart", "diagnostic failed", "skipped"] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

/// Records of `count` runs: the drain takes as many milliseconds as the run's number, every tenth
/// times out, every hundredth run is killed in it.
fn many(dir: &Path, count: usize) {
    for n in 1..=count {
        let mut signal = SignalEvent::new(
            SignalKind::Signal,
            1,
            if n % 4 == 0 { "operator" } else { "systemd" },
        );
        signal.sender_name = Some(if n % 4 == 0 { "kill" } else { "systemd" }.into());
        (signal.sender_pid, signal.sender_uid) = (Some(1), Some(0));
        signal.line = "signal=SIGTERM".to_owned();
        // A repeat that counts as the same request, as the guard records it.
        let again = SignalEvent::new(SignalKind::Signal, 1, "unknown");
        let outcome = if n % 10 == 0 { PhaseOutcome::TimedOut } else { PhaseOutcome::Ok };
        let how = if n % 10 == 0 { ExitKind::TimedOut } else { ExitKind::Clean };
        let mut events = vec![
            Event::Signal(signal),
            Event::PhaseStarted(PhaseStarted::new("drain", 100)),
            Event::PhaseFinished(PhaseFinished::new("drain", outcome, n as u64 * 1000, 300)),
            Event::PhaseFinished(PhaseFinished::new("db", PhaseOutcome::Skipped, 0, 300)),
            Event::Signal(again),
            Event::Stopped(Stopped::new(how, 0, 400)),
        ];
        if n % 100 == 0 {
            events.truncate(2);
        }
        let recorder = Recorder::create(dir, RunStarted::new("gateway", 4100)).unwrap();
        events.iter().for_each(|event| recorder.record(event).unwrap());
    }
}

#[test]
fn figures_over_a_thousand_runs_also_count_unreadable_records_and_lines() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shutdown");
    many(&folder, 1000);
    let paths = forensics_core::record::runs(&folder).unwrap();
    assert_eq!(paths.len(), 1000);
    // Damages the first record as a whole, and one line of the second.
    fs::write(&paths[0], "rubbish\n").unwrap();
    let text = fs::read_to_string(&paths[1]).unwrap();
    fs::write(&paths[1], text.replacen('\n', "\nrubbish\n", 1)).unwrap();

    let path = folder.to_str().unwrap();
    let (code, json, stderr) = run(&["list", path, "--stats", "--json"]);
    assert_eq!(code, 0);
    assert!(stderr.contains("no run_started event"), "{stderr}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut expected = serde_json::json!({
        "runs": 999,
        "unreadable": 1,
        "corrupt_lines": 1,
        // In each run a phase was skipped, so none is clean.
        "outcomes": {"timed_out": 989, "killed_in_phase": 10},
        "causes": {"systemd": 749, "operator": 250},
        "stop_reasons": {},
        "senders": {"systemd uid=0": 749, "kill uid=0": 250},
        "phases": {
            "drain": {
                "runs": 989, "median_us": null, "p95_us": null, "max_us": 999_000,
                "timed_out": 90, "not_ok": {"timed_out": 90, "not finished": 10},
            },
            "db": {
                "runs": 0, "median_us": null, "p95_us": null, "max_us": null,
                "timed_out": 0, "not_ok": {"skipped": 989},
            },
        },
    });
    // Computes the expected median from the remaining values.
    let took: Vec<u64> = (2..=1000).filter(|n| n % 100 != 0).map(|n| n * 1000).collect();
    expected["phases"]["drain"]["median_us"] = took[took.len().div_ceil(2) - 1].into();
    expected["phases"]["drain"]["p95_us"] = took[(took.len() * 95).div_ceil(100) - 1].into();
    assert_eq!(json, expected);

    let (_, text, _) = run(&["list", path, "--stats"]);
    assert!(text.starts_with("999 runs; 1 records could not be read; 1 lines could not be read\n"));
    assert!(text.contains("outcomes  989 timed_out, 10 killed_in_phase\n"), "{text}");
    let drain = text.lines().find(|line| line.starts_with("drain")).unwrap();
    assert!(drain.ends_with("90 timed_out") && drain.contains("10 not finished"), "{text}");
}

#[test]
fn a_sender_named_like_another_sender_with_its_user_is_counted_separately() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shutdown");
    for (name, uid) in [("kill", Some(5)), ("kill uid=5", None)] {
        let mut signal = SignalEvent::new(SignalKind::Signal, 1, "operator");
        signal.sender_name = Some(name.to_owned());
        (signal.sender_pid, signal.sender_uid) = (Some(1), uid);
        let recorder = Recorder::create(&folder, RunStarted::new("gateway", 4100)).unwrap();
        recorder.record(&Event::Signal(signal)).unwrap();
    }
    let path = folder.to_str().unwrap();
    let (_, json, _) = run(&["list", path, "--stats", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({ "kill uid=5": 1, "\"kill uid=5\"": 1 });
    assert_eq!(json["senders"], expected);
    let (_, text, _) = run(&["list", path, "--stats"]);
    assert!(text.contains("senders   1 \"kill uid=5\", 1 kill uid=5\n"), "{text}");
}

#[test]
fn the_jq_commands_of_the_docs_agree_with_forensics() {
    let docs = include_str!("../docs/records.md");
    let (_, section) = docs.split_once("## With jq\n").unwrap();
    let (_, script) = section.split_once("```sh\n").unwrap();
    let (script, _) = script.split_once("```").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shutdown");
    many(&folder, 100);
    // A torn line, as after a kill.
    let newest = forensics_core::record::runs(&folder).unwrap().pop().unwrap();
    let torn = fs::read(&newest).unwrap();
    fs::write(&newest, [&torn[..], br#"{"v":1,"ev"#].concat()).unwrap();

    let script = script.replace("/var/lib/gateway/shutdown", folder.to_str().unwrap());
    let output = Command::new("bash").args(["-euc", &script]).output().unwrap();
    let (stdout, stderr) =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).into();
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    // The newest run was killed in its drain.
    assert!(stdout.contains("\tphase_started\t\tdrain\t\n"), "{stdout}");
    assert!(stdout.contains("\n-\tdrain\n"), "{stdout}");
    assert_eq!(stdout.matches("jsonl clean 0\n").count(), 90, "{stdout}");
    assert_eq!(stdout.matches("jsonl timed_out 0\n").count(), 9, "{stdout}");
    assert_eq!(stdout.matches("jsonl no end").count(), 1, "{stdout}");
    // 99 drains of 1 to 99 ms.
    assert!(stdout.contains("-\tdrain\t99\t0.05\t0.095\t0.099\t9\n"), "{stdout}");
    assert!(
        stdout.contains("75 systemd systemd\n") && stdout.contains("25 operator kill\n"),
        "{stdout}"
    );
    assert!(!stdout.contains("unknown"), "{stdout}");
}

#[test]
fn secrets_in_command_lines_are_shown_only_on_request() {
    let mut child = Command::new("bash")
        .args(["-c", "read -r _ || true", "x", "--token=hunter2"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let shown =
        |arguments: &[&str]| run(&[&["context", "--json", "--pid", &pid], arguments].concat()).1;
    assert!(shown(&[]).contains("--token=***") && !shown(&[]).contains("hunter2"));
    assert!(shown(&["--show-secrets"]).contains("--token=hunter2"));
    let looked = |arguments: &[&str]| run(&[&["diag", "--pid", &pid], arguments].concat()).1;
    let row =
        |text: String| text.lines().find(|line| line.contains("--token=")).unwrap().to_owned();
    assert!(row(looked(&[])).ends_with("--token=***"));
    assert!(row(looked(&["--show-secrets"])).ends_with("--token=hunter2"));
    drop(child.stdin.take());
    child.wait().unwrap();
}
