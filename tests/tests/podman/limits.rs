//! Containers with few rights, and with little memory.

use std::fs;

use forensics_tests::outcomes;
use forensics_tokio::core::record::{Event, Record, runs};

use crate::engine::{Engine, RECORDS};

#[test]
fn read_only_and_as_another_user_the_record_and_the_diagnostic_are_complete() {
    let Some(engine) = Engine::new() else { return };
    let options = [
        "--read-only",
        "--user=65532:65532",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--pids-limit=64",
    ];
    let diagnostic = "--diag-log=/var/lib/gateway/log/diag.log";
    let arguments = [RECORDS, diagnostic, "--wedge=drain", "--drain-timeout=1s"];
    let container = engine.run(&options, &arguments);
    container.ok(&["stop"]);
    let stopped = container.wait();
    stopped.assert_ended(["ok", "timed_out", "ok", "ok"], 0, "timed_out");
    assert_eq!(stopped.verdict["cause"], "container_stop");
    stopped.ended.line("Diagnostic written");
    let log = fs::read_to_string(engine.shared().join("log/diag.log")).unwrap();
    assert!(log.starts_with("=== gateway[1] signal=SIGTERM cause=container_stop "), "{log}");
    assert!(log.contains("\n--- end of diagnostic"), "{log}");
    // Nothing was refused except what the options ask for.
    let warnings = stopped.ended.stderr.lines().filter(|line| line.contains(" WARN "));
    assert_eq!(warnings.count(), 2, "only of the phase and the end: {}", stopped.ended.stderr);
}

/// Fills the container's shared memory. That counts against its limit, but belongs to no process,
/// so the kernel kills the largest one, which is the gateway.
const FILL: &str = "x=0123456789abcdef; x=$x$x$x$x$x$x$x$x; x=$x$x$x$x$x$x$x$x; \
                    while :; do echo $x; done > /dev/shm/full";

/// A shell that uses more and more memory itself.
const GROW: &str = "x=0123456789abcdef; while :; do x=$x$x; done";

#[test]
fn an_oom_kill_is_not_mistaken_for_anything_else() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.run(&["--memory=32m", "--shm-size=1g"], &[RECORDS]);
    let filled = container.exec(FILL);
    assert!(!filled, "the container has ended");
    let stopped = container.wait();
    // Whether podman says that it was OOM-killed depends on conmon, which sometimes misses it.
    assert!(stopped.state.starts_with("137 "), "{}", stopped.state);
    let verdict = &stopped.verdict;
    assert_eq!(verdict["outcome"], "vanished", "{verdict}");
    // Its control group and the counters in it are gone, and the kernel knows it by another pid.
    let evidence = verdict["evidence"].as_str().unwrap();
    assert!(evidence.contains("cannot tell whether it was OOM-killed"), "{evidence}");
}

#[test]
fn an_oom_kill_of_another_process_of_the_container_is_counted_in_the_context() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.run(&["--memory=32m", "--memory-swap=32m"], &[RECORDS]);
    assert!(!container.exec(GROW), "the shell was killed");
    container.ok(&["stop"]);
    let stopped = container.wait();
    assert_eq!(stopped.ended.phases(), outcomes(["ok"; 4]), "{}", stopped.ended.stderr);
    assert_eq!(stopped.verdict["outcome"], "clean", "{}", stopped.verdict);
    let newest = runs(&engine.shared().join("shutdown")).unwrap().pop().unwrap();
    let signal = Record::read(&newest).unwrap().entries.into_iter().find_map(|e| match e.event {
        Event::Signal(signal) => Some(signal),
        _ => None,
    });
    let memory = &signal.unwrap().context["memory"];
    assert_eq!((&memory["oom_kill"], &memory["max"]), (&1.into(), &(32 << 20).into()), "{memory}");
}
