//! A thousand real runs. Each receives a signal at another instant: before its teardown, during it,
//! or after it.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use forensics_tests::Program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const RUNS: u32 = 1000;
/// The longest delay. The runs are shorter than this, so that some signals come too late.
const SPREAD: Duration = Duration::from_millis(40);

/// One run, with a signal `delay` after it is ready. Returns whether the signal began its teardown.
fn run(delay: Duration, signal: Signal) -> bool {
    let program = Program::start(&mut Command::new(env!("CARGO_BIN_EXE_short_lived")));
    program.wait_for_stdout("ready");
    let ready = Instant::now();
    while ready.elapsed() < delay {
        thread::yield_now();
    }
    // It has not been waited for, so the pid is still its own, even if it is a zombie.
    let pid = Pid::from_raw(i32::try_from(program.pid()).unwrap());
    kill(pid, signal).unwrap();
    let ended = program.wait();

    let complete = ended.stderr.contains("Shutdown complete");
    let said = ended.stderr.lines().next().unwrap_or_default();
    assert!(said.contains("Shutdown context: "), "{}", ended.stderr);
    assert!(complete, "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    for phase in ["drain", "db_close"] {
        let finished = format!("phase finished phase={phase} outcome=ok");
        assert_eq!(ended.stderr.matches(&finished).count(), 1, "{}", ended.stderr);
    }
    match (ended.status.code(), ended.status.signal()) {
        (Some(0), None) => {}
        // After the teardown the signal has its default action again.
        (None, Some(number)) if number == signal as i32 => {}
        other => panic!("{other:?}\n{}", ended.stderr),
    }
    said.contains(&format!("Shutdown context: signal={}", signal.as_str()))
}

#[test]
fn no_run_hangs_and_each_has_a_context_line() {
    let runs = |worker: u32| {
        let mine = (0..RUNS).filter(move |run| run % 2 == worker);
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        let began =
            mine.filter(|&nth| run(SPREAD * nth / RUNS, signals[nth as usize / 2 % signals.len()]));
        began.count()
    };
    let other = thread::spawn(move || runs(1));
    let began = runs(0) + other.join().unwrap();
    eprintln!("{began} of {RUNS} runs were stopped by their signal, the others had ended first");
    assert!((RUNS as usize / 20..RUNS as usize).contains(&began), "{began} of {RUNS}");
}
