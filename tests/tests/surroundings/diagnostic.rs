//! A diagnostic that never ends and ignores SIGTERM, and one that reads files that do not answer.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forensics_tests::{Program, forensics, root_can, until};
use forensics_tokio::core::process::ProcessSummary;
use forensics_tokio::core::record::PostMortem;

use crate::under::unshare;

#[test]
fn it_is_ended_at_its_limit_or_at_the_deadline_with_all_its_processes() {
    // A diagnostic may take five seconds. The second teardown may take three seconds, and the
    // diagnostic must end 0.4 s before that.
    let cases = [
        ("wedged_diagnostic", "ended after 5s, its time limit", 5000),
        ("wedged_diagnostic_at_deadline", "ended at the deadline", 2600),
    ];
    for (kind, why, millis) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut trouble = Command::new(env!("CARGO_BIN_EXE_trouble"));
        let program = Program::start(trouble.arg(kind).arg(dir.path()));
        program.wait_for_stdout("ready");
        let signalled = Instant::now();
        program.kill("-TERM");
        let ended = program.wait();
        let took = signalled.elapsed();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert!(ended.line("phase=db_close").contains("outcome=ok"));
        // There is one warning, and no other.
        assert_eq!(ended.stderr.matches(" WARN ").count(), 1, "{}", ended.stderr);
        assert!(ended.line("Diagnostic failed").contains(why), "{}", ended.stderr);
        assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
        // The bound, plus a margin for a busy machine.
        let bound = Duration::from_millis(millis);
        assert!((bound..bound + Duration::from_secs(5)).contains(&took), "{took:?}");

        let log = std::fs::read_to_string(dir.path().join("diag.log")).unwrap();
        assert!(log.ends_with(&format!("--- diagnostic incomplete: {why}\n")), "{log}");
        let pids = log.lines().find_map(|line| line.strip_prefix("pids ")).unwrap();
        let pids: Vec<i32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(pids.len(), 2, "{log}");
        for pid in pids {
            assert_gone(pid);
        }
        let verdict = PostMortem::of_last(dir.path()).unwrap().unwrap();
        assert!(verdict.is_clean(), "{verdict}");
    }
}

#[test]
fn files_that_do_not_answer_are_named_and_the_rest_is_shown() {
    const SCRIPT: &str = r#"exec python3 "$hang" "$files" "$@""#;
    // The command line of this process blocks, as if its memory map were locked.
    let mut sleeper = Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn().unwrap();
    let pid = sleeper.id().to_string();
    let under = |program: &str| {
        let mut command = unshare(&[], SCRIPT);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/surroundings/hang.py");
        let files = format!("/proc/loadavg:/proc/meminfo:/proc/{pid}/cmdline");
        command.env("hang", script).env("files", files).arg(program);
        command
    };
    if !root_can(&mut under("/bin/true")) {
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        return;
    }
    let mut diag = under(forensics().to_str().unwrap());
    let started = Instant::now();
    let output = diag.args(["diag", "--pid", &pid]).output().unwrap();
    let took = started.elapsed();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();

    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for line in ["loadavg: (no answer within 1.0s)", "meminfo: (no answer within 1.0s)"] {
        assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
    }
    let subtree = text.split_once(&format!("--- subtree of {pid} (1 processes)\n")).unwrap().1;
    let row = subtree.lines().nth(1).unwrap();
    assert!(row.ends_with("(sleep) (no answer within 1.0s)"), "{text}");
    assert!(text.contains("--- kernel log") && text.contains("--- busiest processes"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("--- end of diagnostic ("), "{text}");
    // One second for each of two sections, plus a margin for a busy machine.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Waits until the process is gone. Its new parent may need a moment to wait for it.
fn assert_gone(pid: i32) {
    let has_gone = || matches!(ProcessSummary::read_stat(pid).state, None | Some('Z'));
    until(&format!("{pid} has gone"), has_gone);
}
