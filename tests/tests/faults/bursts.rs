//! Thousands of signals.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use forensics_tests::{ANY_SIGNAL, Ended, Gateway, Program, outcomes, until};
use forensics_tokio::core::record::{Event, ForcedBy, Record, RunOutcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::{Scene, count};

/// The largest number of later signals that are listed: 32, plus the second and the third request.
const LISTED: usize = 34;

/// Runs four shells, each of which sends SIGTERM `each` times as fast as possible.
fn burst(program: &Program, each: u32) {
    let script = "for _ in $(seq $2); do kill -TERM $1 2>/dev/null || exit 0; done";
    let sender = |_| {
        let mut bash = Command::new("bash");
        bash.args(["-c", script, "sender"]);
        bash.arg(program.pid().to_string()).arg(each.to_string()).spawn().unwrap()
    };
    let senders: Vec<Child> = (0..4).map(sender).collect();
    for mut sender in senders {
        assert!(sender.wait().unwrap().success());
    }
}

/// Sends signals one by one, and waits for each, so that the kernel merges none with another.
fn one_by_one(program: &Program, signals: u32) {
    let pid = Pid::from_raw(i32::try_from(program.pid()).unwrap());
    for _ in 0..signals {
        // The program may have ended meanwhile.
        let _ = kill(pid, Signal::SIGTERM);
        until("the signal is taken", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
            pending.is_none_or(|pending| pending.trim().trim_start_matches('0').is_empty())
        });
    }
}

/// Its peak resident memory, in KiB. `None` if it has ended.
fn peak(gateway: &Gateway) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.program.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(peak.trim().trim_end_matches(" kB").parse().unwrap())
}

/// Asserts that the signals have not filled the log or the record, and returns the record.
fn assert_bounded(ended: &Ended, scene: &Scene) -> Record {
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    let said = count(&ended.stderr, "another SIGTERM: ");
    assert!((1..=LISTED).contains(&said), "{said} lines: {}", ended.stderr);
    let (record, _) = scene.recorded();
    assert_eq!((record.corrupt, record.torn), (0, false));
    let signals = record.entries.iter().filter(|entry| matches!(entry.event, Event::Signal(_)));
    assert!((2..=LISTED + 1).contains(&signals.count()));
    record
}

#[test]
fn ten_thousand_signals_at_once_are_one_request_and_a_few_lines() {
    let scene = Scene::new();
    let gateway = Program::gateway_by(
        scene.gateway(&["--wedge", "drain", "--deadline", "8s"]).envs([ANY_SIGNAL]),
    );
    let before = peak(&gateway).unwrap();
    burst(&gateway.program, 2500);
    one_by_one(&gateway.program, 100);
    let after = peak(&gateway);
    let ended = gateway.program.wait();
    let record = assert_bounded(&ended, &scene);
    let Event::Stopped(stopped) = &record.entries.last().unwrap().event else {
        panic!("{record:?}")
    };
    // On a busy machine 200 ms can pass without a signal. Then the next one counts as another
    // request, and the third request ends the gateway at once.
    let requests = count(&ended.stderr, "another SIGTERM: the running phase is cut short");
    match requests {
        0 => {
            let grown = after.unwrap().saturating_sub(before);
            assert!(grown < 16 << 10, "{grown} KiB");
            assert_eq!(ended.code(), 0, "{}", ended.stderr);
            let expected = outcomes(["ok", "timed_out", "skipped", "ok"]);
            assert_eq!(ended.phases(), expected, "{}", ended.stderr);
            let more = stopped.more_signals.unwrap();
            assert!(more >= 60, "{more}");
            assert!(ended.line("more signals").contains(&format!("{more} more signals arrived")));
        }
        _ => assert!([1, 70].contains(&ended.code()), "{}", ended.stderr),
    }
}

#[test]
fn three_bursts_are_three_requests_and_the_third_ends_it_at_once() {
    let scene = Scene::new();
    let mut trouble = Command::new(env!("CARGO_BIN_EXE_trouble"));
    trouble.envs([ANY_SIGNAL]);
    // The phase hangs, and its reserve lets it continue after the second request.
    let program = Program::start(trouble.arg("patient").arg(scene.records()));
    program.wait_for_stdout("ready");
    for _ in 0..3 {
        burst(&program, 800);
        // Longer than the 200 ms in which signals count as one request, which are real time.
        thread::sleep(Duration::from_millis(300));
    }
    let ended = program.wait();
    assert_eq!(ended.code(), 70, "{}", ended.stderr);
    ended.line("another SIGTERM: the running phase is cut short");
    ended.line("Shutdown forced: another SIGTERM requested an immediate exit");
    let record = assert_bounded(&ended, &scene);
    let Event::Stopped(stopped) = &record.entries.last().unwrap().event else {
        panic!("{record:?}")
    };
    assert_eq!(stopped.forced_by, Some(ForcedBy::Signal));
    let (_, verdict) = scene.recorded();
    assert_eq!(verdict.outcome, RunOutcome::Forced, "{verdict}");
    assert!(verdict.evidence.contains("stop request number 3"), "{verdict}");
}
