//! The wall clock is set while the gateway stops.
//!
//! libfaketime changes only the gateway's `CLOCK_REALTIME`. Its `CLOCK_MONOTONIC` is the machine's.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use forensics_tests::{Program, can, outcomes};
use forensics_tokio::core::record::{Event, RunOutcome};

use crate::scene::Scene;

#[test]
fn the_last_run_is_reported_even_if_an_earlier_one_has_a_later_time() {
    let Some(library) = libfaketime() else { return };
    let scene = Scene::new();
    let run = |gateway: &mut Command| {
        let gateway = Program::gateway_by(gateway);
        let pid = gateway.program.pid();
        gateway.program.kill("-TERM");
        let ended = gateway.program.wait();
        ended.assert_well(0);
        (pid, ended)
    };
    let mut ahead = scene.gateway(&[]);
    ahead.env("LD_PRELOAD", library).env("FAKETIME", "+400d");
    run(ahead.env("FAKETIME_DONT_FAKE_MONOTONIC", "1"));
    let (last, _) = run(&mut scene.gateway(&[]));
    let (_, next) = run(&mut scene.gateway(&[]));
    let said = next.line("Previous run: outcome=clean");
    assert!(said.contains(&format!(" pid={last} ")), "{said}");
}

/// The library of Debian's package `faketime`. Its path contains the machine's architecture.
fn libfaketime() -> Option<PathBuf> {
    let found =
        Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]).output();
    let path = PathBuf::from(String::from_utf8(found.unwrap().stdout).unwrap().trim());
    can(Command::new("test").arg("-e").arg(&path)).then_some(path)
}

#[test]
fn a_step_of_the_wall_clock_moves_no_deadline_and_no_verdict() {
    let Some(library) = libfaketime() else { return };
    for (first, then) in [("+0", "+7200"), ("+0", "-7200")] {
        let scene = Scene::new();
        let clock = scene.dir.path().join("clock");
        // Renamed to its final name, so that it is never incomplete.
        let set = |offset: &str| {
            let new = scene.dir.path().join("new");
            fs::write(&new, format!("{offset}\n")).unwrap();
            fs::rename(&new, &clock).unwrap();
        };
        set(first);
        let mut gateway = scene.gateway(&["--wedge", "drain", "--deadline", "3s"]);
        gateway.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &clock);
        gateway.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let gateway = Program::gateway_by(&mut gateway);
        let started = Instant::now();
        gateway.program.kill("-TERM");
        gateway.program.wait_for_stderr("phase finished phase=notify");
        set(then);
        let ended = gateway.program.wait();
        let took = started.elapsed().as_secs();
        assert!((2..20).contains(&took), "{took} s\n{}", ended.stderr);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let expected = outcomes(["ok", "timed_out", "skipped", "ok"]);
        assert_eq!(ended.phases(), expected, "{}", ended.stderr);

        let (record, verdict) = scene.recorded();
        assert_eq!(verdict.outcome, RunOutcome::TimedOut, "{verdict}");
        assert!(verdict.after_signal_us.unwrap() < 20_000_000, "{verdict}");
        let us = |n: usize| record.entries[n].mono_us;
        assert!((1..record.entries.len()).all(|n| us(n) >= us(n - 1)), "{record:?}");
        // Only the times show that the clock was set.
        let hours = |n: usize| record.entries[n].ts.to_string()[..13].to_owned();
        assert_ne!(hours(0), hours(record.entries.len() - 1));
        assert!(matches!(record.entries.last().unwrap().event, Event::Stopped(_)));
    }
}
