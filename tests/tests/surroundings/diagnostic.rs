//! A diagnostic that never ends and hears no SIGTERM.

use std::process::Command;
use std::time::{Duration, Instant};

use forensics_tests::{Program, until};
use forensics_tokio::core::process::ProcessSummary;
use forensics_tokio::core::record::PostMortem;

#[test]
fn it_is_ended_at_its_limit_or_at_the_deadline_with_all_it_started() {
    // Five seconds is what a diagnostic may take. Of the three that the second teardown may take in
    // all the last 0.4 are not the diagnostic's.
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
        // Said once, and nothing else is.
        assert_eq!(ended.stderr.matches(" WARN ").count(), 1, "{}", ended.stderr);
        assert!(ended.line("Diagnostic failed").contains(why), "{}", ended.stderr);
        assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
        // Not past its bound: the rest is for a busy machine.
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

/// Whoever waits for orphans takes a moment.
fn assert_gone(pid: i32) {
    let has_gone = || matches!(ProcessSummary::read_stat(pid).state, None | Some('Z'));
    until(&format!("{pid} has gone"), has_gone);
}
