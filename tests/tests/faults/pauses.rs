//! The process is stopped by SIGSTOP in the middle of its teardown.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use forensics_tests::client::in_flight;
use forensics_tests::{Program, outcomes, until};
use forensics_tokio::core::process::ProcessSummary;
use forensics_tokio::core::record::RunOutcome;

use crate::scene::Scene;

/// Stops the process for this time. The pause is the fault itself, so there is no event to wait
/// for.
fn stand_still(program: &Program, time: Duration) {
    let pid = i32::try_from(program.pid()).unwrap();
    program.kill("-STOP");
    until("it stands still", || ProcessSummary::read_stat(pid).state == Some('T'));
    thread::sleep(time);
    program.kill("-CONT");
}

#[test]
fn a_pause_within_the_deadline_delays_but_loses_nothing() {
    let scene = Scene::new();
    let gateway = Program::gateway_by(&mut scene.gateway(&[]));
    let mut requests = in_flight(&gateway.address, 1, 2000);
    gateway.program.kill("-TERM");
    scene.until_started("drain");
    stand_still(&gateway.program, Duration::from_secs(2));
    let mut answer = String::new();
    requests[0].read_to_string(&mut answer).unwrap();
    assert!(answer.contains("slept 2000 ms"), "{answer}");
    let ended = gateway.program.wait();
    ended.assert_well(0);
    scene.assert_recorded_well();
}

#[test]
fn after_a_pause_past_the_deadline_no_phase_runs_and_one_end_is_recorded() {
    let scene = Scene::new();
    let gateway =
        Program::gateway_by(&mut scene.gateway(&["--wedge", "drain", "--deadline", "3s"]));
    gateway.program.kill("-TERM");
    scene.until_started("drain");
    let stopped = Instant::now();
    stand_still(&gateway.program, Duration::from_secs(5));
    let ended = gateway.program.wait();
    let after = stopped.elapsed() - Duration::from_secs(5);
    // The deadline has not moved. The remaining phases are not run, even if they have a reserve.
    let expected = outcomes(["ok", "timed_out", "skipped", "skipped"]);
    assert_eq!(ended.phases(), expected, "{}", ended.stderr);
    assert!(ended.line("phase=db_close").contains("no time is left"), "{}", ended.stderr);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.line("Shutdown complete").contains("timed_out=true"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("Shutdown forced"), "{}", ended.stderr);
    assert!(after < Duration::from_secs(20), "{after:?} after it went on");
    let (record, verdict) = scene.recorded();
    assert_eq!(verdict.outcome, RunOutcome::TimedOut, "{verdict}");
    assert_eq!(verdict.exit_code, Some(0));
    assert_eq!(record.corrupt, 0);
}
