//! A signal while the process starts. Before `install()` it has its default action. After it, the
//! signal requests a stop, which is always complete. There is no third case.
//!
//! The test target `random_signals` tests later signals.

use std::collections::HashMap;
use std::fmt::Debug;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use forensics_tests::{Ended, Program, can, example};
use forensics_tokio::core::record::{PostMortem, RunOutcome};
use nix::sys::signal::Signal;

/// The effect of a signal on one run.
#[derive(Debug, PartialEq)]
enum Met {
    /// It ended the program before the guard was installed.
    Unguarded,
    /// It requested the stop.
    Guarded,
    /// The stop had already begun or was over.
    Late,
}

/// Returns the effect, and checks that output and record agree with it.
fn judge(ended: &Ended, records: &Path, ready: &str, nth: impl Debug) -> Met {
    let killed = ended.status.signal() == Some(Signal::SIGTERM as i32);
    let verdict = PostMortem::of_last(records).ok().flatten();
    assert!(!ended.stderr.contains("panicked"), "{nth:?}: {}", ended.stderr);
    let Some(context) = ended.stderr.lines().find(|line| line.contains("Shutdown context: "))
    else {
        assert!(killed, "{nth:?}: {ended:?}");
        assert!(!ended.stdout.contains(ready), "guarded, and not stopped, {nth:?}: {ended:?}");
        // The record may exist, because it is created before the signal handlers are installed.
        let ended = |verdict: &PostMortem| {
            matches!(verdict.outcome, RunOutcome::Vanished | RunOutcome::KilledBeforeTeardown)
        };
        assert!(verdict.as_ref().is_none_or(ended), "{nth:?}: {verdict:?}");
        return Met::Unguarded;
    };
    assert!(ended.stderr.contains("Shutdown complete"), "{nth:?}: {}", ended.stderr);
    assert!(verdict.is_some_and(|verdict| verdict.is_clean()), "{nth:?}: {}", ended.stderr);
    let asked = context.contains("Shutdown context: signal=SIGTERM ");
    match ended.status.code() {
        Some(0) if asked => Met::Guarded,
        Some(0) => Met::Late,
        // After the teardown the signal has its default action again.
        _ if killed && !asked => Met::Late,
        _ => panic!("{nth:?}: {ended:?}"),
    }
}

/// The program under strace, which traces only its main thread.
fn traced(options: &[&str], records: &Path) -> Program {
    let mut strace = Command::new("strace");
    strace.arg("-qq").args(options).arg(env!("CARGO_BIN_EXE_short_lived")).arg(records);
    Program::start(&mut strace)
}

/// The system calls of its main thread, from exec until shortly after it is ready. Each is the name
/// and the number of the call with that name.
fn calls() -> Vec<(String, usize)> {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let run = traced(&["-o", trace.to_str().unwrap()], &dir.path().join("records"));
    assert_eq!(run.wait().code(), 0);
    let trace = std::fs::read_to_string(trace).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let ready = lines.iter().position(|line| line.starts_with("write(1, \"ready")).unwrap();
    let mut seen = HashMap::new();
    let mut numbered = |line: &&str| {
        let (name, _) = line.split_once('(')?;
        let nth = seen.entry(name.to_owned()).or_insert(0);
        *nth += 1;
        Some((name.to_owned(), *nth))
    };
    // Except exec itself.
    lines[..ready + 20].iter().filter_map(&mut numbered).skip(1).collect()
}

#[test]
fn at_each_system_call_of_the_start_a_signal_ends_it_or_causes_a_complete_stop() {
    if !can(Command::new("strace").args(["-qq", "-o", "/dev/null", "true"])) {
        return;
    }
    let calls = Arc::new(calls());
    let run = |(call, nth): &(String, usize)| {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("records");
        // strace sends the signal when the call begins.
        let inject = format!("--inject={call}:signal=SIGTERM:when={nth}");
        let ended = traced(&["-o", "/dev/null", &inject], &records).wait();
        judge(&ended, &records, "ready", (call, nth))
    };
    let runs = move |worker: usize, calls: &[_]| -> Vec<Met> {
        calls.iter().skip(worker).step_by(2).map(run).collect()
    };
    let all = calls.clone();
    let odd = thread::spawn(move || runs(1, &all));
    let mut met = runs(0, &calls);
    met.extend(odd.join().unwrap());
    let count = |kind| met.iter().filter(|met| **met == kind).count();
    let (ended, stopped) = (count(Met::Unguarded), count(Met::Guarded));
    eprintln!("of {} calls {ended} ended it and {stopped} had it stop", calls.len());
    // The other signals came too late, because the service had ended first.
    assert!(ended > 100 && stopped >= 3, "{met:?}");
}

#[test]
fn right_after_the_start_a_kill_ends_the_gateway_or_causes_a_complete_stop() {
    const RUNS: u32 = 60;
    // On any machine some signals come before the guard is installed and some after it. The last
    // one comes right after the gateway listens, and the others are spread over that time.
    let mut spread = Duration::from_millis(100);
    let mut met = Vec::new();
    for nth in 0..RUNS {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("records");
        let started = Instant::now();
        let program =
            Program::start(Command::new(example("gateway")).arg("--records").arg(&records));
        if nth % 6 == 0 {
            program.wait_for_stdout("listening on ");
            spread = spread.min(started.elapsed());
        }
        while started.elapsed() < spread * (nth % 6) / 5 {
            thread::yield_now();
        }
        program.kill("-TERM");
        let ended = program.wait();
        let one = judge(&ended, &records, "listening on ", nth);
        if one == Met::Guarded {
            ended.assert_well(0);
        }
        met.push(one);
    }
    let count = |kind| met.iter().filter(|met| **met == kind).count();
    eprintln!("{} runs were ended, {} stopped", count(Met::Unguarded), count(Met::Guarded));
    assert!(count(Met::Unguarded) > 0 && count(Met::Guarded) >= 10, "{met:?}");
}
