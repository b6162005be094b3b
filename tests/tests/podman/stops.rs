//! `podman stop`, `kill`, `rm` and `pause`.

use std::io::Read;
use std::process::Command;
use std::thread;
use std::time::Duration;

use forensics_tests::client::in_flight;

use crate::engine::{Engine, RECORDS};

/// The sender is not in the container, so the kernel gives it the pid 0 there.
const FROM_OUTSIDE: &str =
    "cause=container_stop under_systemd=no sender_pid=0 sender_name=? sender_uid=0 loadavg_1m=";

#[test]
fn every_signal_of_the_runtime_is_a_container_stop_from_outside() {
    let Some(engine) = Engine::new() else { return };
    let cases: [(&[&str], &[&str], &str); 7] = [
        (&[], &["stop"], "SIGTERM"),
        (&["--stop-signal=SIGINT"], &["stop", "--time=20"], "SIGINT"),
        (&["--stop-signal=SIGQUIT"], &["stop"], "SIGQUIT"),
        (&[], &["kill", "--signal=TERM"], "SIGTERM"),
        (&[], &["kill", "--signal=INT"], "SIGINT"),
        (&[], &["kill", "--signal=HUP"], "SIGHUP"),
        // A pseudo-terminal makes no difference: the signal does not come from it.
        (&["--tty"], &["stop"], "SIGTERM"),
    ];
    for (options, stop, signal) in cases {
        let container = engine.run(options, &[RECORDS]);
        container.ok(stop);
        let stopped = container.wait();
        if options == ["--tty"] {
            // Both streams are the terminal, which is stdout here.
            assert!(stopped.ended.stdout.contains(FROM_OUTSIDE), "{}", stopped.ended.stdout);
            assert_eq!(
                (&*stopped.state, &stopped.verdict["outcome"]),
                ("0 false", &"clean".into())
            );
        } else {
            let context = stopped.context();
            let expected = format!("signal={signal} {FROM_OUTSIDE}");
            assert!(context.starts_with(&expected), "{options:?} {stop:?}: {context}");
            stopped.assert_well();
        }
        assert_eq!(stopped.verdict["signal"], signal, "{stop:?}");
        assert_eq!(stopped.verdict["cause"], "container_stop", "{stop:?}");
        assert_eq!(stopped.verdict["sender"]["pid"], 0, "{stop:?}");
    }
}

#[test]
fn a_container_that_ends_by_the_signal_has_its_exit_status() {
    let Some(engine) = Engine::new() else { return };
    let by_signal = "--env=FORENSICS_EXIT_BY_SIGNAL=yes";
    let cases: [(&[&str], &str, i32); 3] = [
        // Process 1 cannot die by its own signal, and ends with this status itself.
        (&[by_signal], "--signal=TERM", 143),
        (&[by_signal], "--signal=INT", 130),
        // Here it dies by the signal, and the init passes that on.
        (&[by_signal, "--init"], "--signal=TERM", 143),
    ];
    for (options, signal, code) in cases {
        let container = engine.run(options, &[RECORDS]);
        container.ok(&["kill", signal]);
        container.wait().assert_ended(["ok", "ok", "ok", "ok"], code, "clean");
    }
}

#[test]
fn sigkill_leaves_the_record_of_the_phase_that_was_running() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.run(&[], &[RECORDS]);
    container.ok(&["kill"]);
    let stopped = container.wait();
    assert_eq!(stopped.state, "137 false");
    assert_eq!(stopped.verdict["outcome"], "vanished", "{}", stopped.verdict);
    assert!(stopped.verdict.get("cause").is_none(), "{}", stopped.verdict);

    let container = engine.run(&[], &[RECORDS, "--wedge=drain"]);
    container.ok(&["kill", "--signal=TERM"]);
    container.until_started("drain");
    container.ok(&["kill"]);
    let stopped = container.wait();
    assert_eq!(stopped.state, "137 false");
    assert_eq!(stopped.verdict["outcome"], "killed_in_phase", "{}", stopped.verdict);
    assert_eq!(stopped.verdict["phases"][0]["phase"], "drain", "{}", stopped.verdict);
    assert_eq!(stopped.verdict["cause"], "container_stop", "{}", stopped.verdict);
}

#[test]
fn a_stalled_drain_costs_the_later_phases_unless_the_stop_timeout_is_known() {
    let Some(engine) = Engine::new() else { return };
    // podman's timeout of 2 s is not visible in the container.
    let container = engine.run(&[], &[RECORDS, "--wedge=drain"]);
    container.ok(&["stop", "--time=2"]);
    let stopped = container.wait();
    assert_eq!(stopped.state, "137 false");
    assert!(!stopped.ended.stderr.contains("phase=db_close"), "{}", stopped.ended.stderr);
    assert_eq!(stopped.verdict["outcome"], "killed_in_phase", "{}", stopped.verdict);
    assert_eq!(stopped.verdict["phases"][0]["phase"], "drain", "{}", stopped.verdict);
    // It is not the default, so nothing says that this was the reason.
    assert_eq!(stopped.verdict["reason"], "unknown", "{}", stopped.verdict);
    let evidence = stopped.verdict["evidence"].as_str().unwrap();
    assert!(evidence.contains("docker or podman stop --time"), "{evidence}");

    let container = engine.run(&["--stop-timeout=2"], &[RECORDS, "--wedge=drain", "--grace=2s"]);
    container.ok(&["stop"]);
    let stopped = container.wait();
    stopped.assert_ended(["ok", "timed_out", "skipped", "ok"], 0, "timed_out");
}

#[test]
fn a_pause_in_the_drain_delays_the_stop_and_loses_nothing() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.run(&[], &[RECORDS]);
    let mut requests = container.in_network(|| in_flight(&container.address, 3, 1500));
    // podman itself refuses to pause a container that it is stopping.
    container.ok(&["kill", "--signal=TERM"]);
    container.until_started("drain");
    container.ok(&["pause"]);
    // The pause is the fault itself, so there is no event to wait for. It outlasts the requests.
    thread::sleep(Duration::from_secs(2));
    container.ok(&["unpause"]);
    for request in &mut requests[..3] {
        let mut answer = String::new();
        request.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("slept 1500 ms"), "{answer}");
    }
    container.wait().assert_well();
}

#[test]
fn after_a_pause_past_the_deadline_no_further_phase_runs() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.run(&[], &[RECORDS, "--wedge=drain", "--deadline=2s"]);
    container.ok(&["kill", "--signal=TERM"]);
    container.until_started("drain");
    container.ok(&["pause"]);
    // Real time: the deadline passes during the pause.
    thread::sleep(Duration::from_secs(3));
    container.ok(&["unpause"]);
    let stopped = container.wait();
    stopped.assert_ended(["ok", "timed_out", "skipped", "skipped"], 0, "timed_out");
}

#[test]
fn a_signal_to_a_paused_container_arrives_when_it_continues() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.run(&[], &[RECORDS]);
    let pid = container.inspect("{{.State.Pid}}");
    container.ok(&["pause"]);
    // By hand, because `podman stop` and `podman kill` refuse a paused container.
    assert!(Command::new("/bin/kill").arg(pid).status().unwrap().success());
    container.ok(&["unpause"]);
    let stopped = container.wait();
    let expected = format!("signal=SIGTERM {FROM_OUTSIDE}");
    assert!(stopped.context().starts_with(&expected), "{}", stopped.context());
    stopped.assert_well();
}
