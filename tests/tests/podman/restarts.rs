//! Restart policies. The next run in the same container says how the last one ended.

use std::process::Command;

use forensics_tests::until;

use crate::engine::{Engine, RECORDS, STATE};

/// The gateway's line about the run before it, or an empty text.
fn previous_run(log: &str) -> &str {
    log.split_once("Previous run: ").map_or("", |(_, rest)| rest.lines().next().unwrap())
}

#[test]
fn the_next_run_of_a_restarted_container_reports_the_last_one() {
    // A thread that blocks keeps the process from ending, so it is ended at the deadline.
    let stuck = ["--block=drain", "--drain-timeout=1s", "--deadline=2s"];
    let cases: [(&str, &[&str], &str, &str); 4] = [
        ("on-failure", &stuck, "TERM", "outcome=forced "),
        ("on-failure", &[], "KILL", "outcome=vanished "),
        ("always", &[], "TERM", "outcome=clean "),
        ("unless-stopped", &["--wedge=drain", "--drain-timeout=1s"], "INT", "outcome=timed_out "),
    ];
    for (policy, options, signal, previous) in cases {
        let Some(engine) = Engine::new() else { return };
        let restart = format!("--restart={policy}");
        let name = engine.run_detached(&[&restart], &[&[RECORDS], options].concat());
        until("it listens", || engine.log(&name).contains("listening on"));
        // By hand, because podman does not restart what `podman kill` has killed by SIGKILL.
        let pid = engine.inspect(&name, "{{.State.Pid}}");
        assert!(Command::new("/bin/kill").args(["-s", signal, &pid]).status().unwrap().success());
        until("it listens again", || engine.log(&name).matches("listening on").count() == 2);
        let log = engine.log(&name);
        assert!(previous_run(&log).starts_with(previous), "{policy} {signal}: {log}");
        assert_eq!(engine.inspect(&name, "{{.RestartCount}}"), "1");
        // podman does not restart what it stopped itself.
        engine.ok(&["stop", &name]);
        let code = if options == stuck { "70 false" } else { "0 false" };
        assert_eq!(engine.inspect(&name, STATE), code, "{policy} {signal}");
    }
}

#[test]
fn after_a_clean_stop_a_container_that_restarts_on_failure_stays_down() {
    let Some(engine) = Engine::new() else { return };
    let name = engine.run_detached(&["--restart=on-failure"], &[RECORDS]);
    until("it listens", || engine.log(&name).contains("listening on"));
    engine.ok(&["kill", "--signal=TERM", &name]);
    assert_eq!(engine.ok(&["wait", &name]), "0");
    assert_eq!(engine.inspect(&name, "{{.State.Status}} {{.RestartCount}}"), "exited 0");
    assert_eq!(engine.verdict()["outcome"], "clean");
}

#[test]
fn podman_restart_stops_it_in_full_before_it_starts_it_again() {
    let Some(engine) = Engine::new() else { return };
    let name = engine.run_detached(&[], &[RECORDS]);
    until("it listens", || engine.log(&name).contains("listening on"));
    engine.ok(&["restart", "--time=20", &name]);
    until("it listens again", || engine.log(&name).matches("listening on").count() == 2);
    let log = engine.log(&name);
    let expected = "outcome=clean service=gateway pid=1 signal=SIGTERM cause=container_stop ";
    assert!(previous_run(&log).starts_with(expected), "{log}");
}
