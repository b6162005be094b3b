//! Stops from outside: the termination message for `kubectl describe pod`, the pre-stop delay, the
//! grace period.

use std::thread;
use std::time::Duration;

use forensics_tests::outcomes;
use forensics_tokio::core::record::{PostMortem, Reason, RunOutcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::container::{Container, can_contain};

const PORT: u16 = 8080;
const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:8080"];

#[test]
fn the_termination_message_describes_a_planned_end() {
    if !can_contain() {
        return;
    }
    let stopped = Container::default().start(&["--wedge", "drain", "--drain-timeout", "1s"]).stop();
    assert_eq!(stopped.ended.code(), 0, "{}", stopped.ended.stderr);
    let message = &stopped.message;
    let lines: Vec<&str> = message.lines().collect();
    assert!(lines[0].starts_with("gateway ended in 1."), "{message}");
    let cause = "exit status 0, though a phase timed out; SIGTERM, cause container_stop: the sender \
                 is outside our pid namespace";
    assert!(lines[0].ends_with(cause), "{message}");
    assert_eq!(lines[1], "sender: outside our pid namespace, uid 0");
    assert!(lines[2].starts_with("drain timed_out 1."), "{message}");
    assert!(lines[2].contains(": still running after 1."), "{message}");
    assert!(lines[3].starts_with("slowest: drain timed_out 1."), "{message}");
    assert!(lines[4].starts_with("phases: notify ok "), "{message}");
    assert!(lines[4].contains("s, drain timed_out 1."), "{message}");
    assert!(lines[5].starts_with("context: signal=SIGTERM cause=container_stop"), "{message}");
}

#[test]
fn a_run_that_is_ended_at_its_deadline_says_so_before_it_ends() {
    if !can_contain() {
        return;
    }
    let path = "/termination-message".to_owned();
    let container = Container { message_path: path.clone(), ..Container::default() };
    let blocked = ["--block", "drain", "--deadline", "2s", "--termination-message", &path];
    let stopped = container.start(&blocked).stop();
    assert_eq!(stopped.ended.code(), 70, "{}", stopped.ended.stderr);
    let message = &stopped.message;
    let forced = "gateway was ended by force, exit status 70: the process did not end after its \
                  teardown, maybe because a blocked thread keeps the runtime from ending; SIGTERM, \
                  cause container_stop: ";
    assert!(message.starts_with(forced), "{message}");
    assert!(message.contains("\ndrain timed_out "), "{message}");
    assert!(message.contains(", and blocking its thread"), "{message}");
    assert!(message.contains("\nseen: ") && message.contains("tokio-rt-worker"), "{message}");
}

#[test]
fn after_a_kill_the_termination_message_describes_the_last_state() {
    if !can_contain() {
        return;
    }
    let running = Container::default().start(&["--wedge", "drain"]);
    assert_eq!(running.message(), "", "there is no message before a stop");
    running.kill("-TERM");
    running.wait_for_message("\nrunning: drain for ");
    running.kill("-KILL");
    let stopped = running.wait();
    let message = &stopped.message;
    assert!(message.starts_with("gateway was stopping, "), "{message}");
    let head = message.lines().next().unwrap();
    assert!(
        head.contains("and was killed if this is its last message; SIGTERM, cause"),
        "{message}"
    );
    assert!(message.contains("\nphases: notify ok "), "{message}");
}

#[test]
fn a_message_that_cannot_be_written_costs_a_warning() {
    if !can_contain() {
        return;
    }
    let stopped = Container::default().start(&["--termination-message", "/nowhere"]).stop();
    assert_eq!(stopped.ended.code(), 0, "{}", stopped.ended.stderr);
    assert_eq!(stopped.warnings().len(), 1, "{}", stopped.ended.stderr);
    stopped.ended.line(
        "Termination message missing or incomplete: cannot open /nowhere: the kubelet creates the file \
         that `terminationMessagePath` names: No such file or directory",
    );
    assert_eq!(stopped.message, "");
}

#[test]
fn during_the_pre_stop_delay_it_still_serves_and_a_second_signal_ends_only_the_delay() {
    if !can_contain() {
        return;
    }
    let options = ["--lead", "40s", "--deadline", "55s"];
    let running = Container::impatient().start(&[&LISTEN[..], &options].concat());
    let get = |path| running.get(PORT, path).map(|(status, body)| format!("{status} {body}"));
    running.wait_until_ready(PORT);
    assert_eq!(get("/readyz").as_deref(), Some("200 ready"));
    running.kill("-TERM");
    let first = running.program.wait_for_stderr("Shutdown context: ");
    running.program.wait_for_stderr("Pre-stop delay of 40.00s: not ready any more, still serving");
    assert_eq!(get("/readyz").as_deref(), Some("503 stopping"));
    assert_eq!(get("/livez").as_deref(), Some("200 alive"));
    // On a new connection.
    assert_eq!(get("/").as_deref(), Some("200 ok"));
    assert!(running.message().starts_with("gateway was stopping, "));
    // The 200 ms in which signals count as one request are real time.
    thread::sleep(Duration::from_millis(250));
    running.kill("-TERM");
    running
        .program
        .wait_for_stderr("another SIGTERM: the pre-stop delay is over, and the teardown begins");
    let stopped = running.wait();
    let stderr = &stopped.ended.stderr;
    assert_eq!(stopped.ended.code(), 0, "{stderr}");
    assert_eq!(stopped.ended.phases(), outcomes(["ok", "ok", "ok", "ok"]), "{stderr}");
    assert!(stderr.contains(&first), "{stderr}");
    stopped.ended.line("Pre-stop delay over, cut short by an escalation");
}

#[test]
fn the_pre_stop_delay_ends_by_itself() {
    if !can_contain() {
        return;
    }
    let running = Container::default().start(&[&LISTEN[..], &["--lead", "1s"]].concat());
    running.wait_until_ready(PORT);
    running.kill("-TERM");
    running.program.wait_for_stderr("phase finished phase=notify");
    let stopped = running.wait();
    let over = stopped.ended.line("Pre-stop delay over");
    assert!(over.ends_with("s Pre-stop delay over") && !over.contains("+0."), "{over}");
    let started = stopped.ended.line("Teardown started");
    assert!(started.contains(": pre_stop_delay 1."), "{started}");
}

#[test]
fn the_stop_timeout_limits_the_teardown_and_a_warning_with_the_fix_says_if_it_is_too_short() {
    if !can_contain() {
        return;
    }
    let spans = ["--drain-timeout", "20s", "--lead", "5s"];
    let start = |grace| {
        let options = [&LISTEN[..], &spans, &["--grace", grace]].concat();
        let running = Container::impatient().start(&options);
        running.wait_until_ready(PORT);
        running.kill("-TERM");
        running.program.wait_for_stderr("Pre-stop delay of 5.00s");
        // The 200 ms in which signals count as one request are real time. A second signal ends the
        // delay.
        thread::sleep(Duration::from_millis(250));
        running.stop()
    };
    let stopped = start("30s");
    let warnings = stopped.warnings();
    assert_eq!(warnings.len(), 2, "one more of the second signal: {warnings:?}");
    assert!(
        warnings[0].ends_with(
            "gateway: the grace period is 30s, pre-stop delay 5s + drain 20s + headroom 30s = 55s is needed: \
             25s short; fix: set `terminationGracePeriodSeconds: 55`, and the same stop_timeout in \
             the service"
        ),
        "{warnings:?}"
    );
    stopped.ended.line(
        "Teardown started (deadline 29.00s: the configured stop timeout of 30.00s less 1.00s)",
    );

    let stopped = start("55s");
    assert_eq!(stopped.warnings().len(), 1, "{:?}", stopped.warnings());
    stopped.ended.line("= 55s is needed: aligned, 0 to spare");
    stopped.ended.line("Teardown started (deadline 40.00s)");
}

#[test]
fn a_kill_at_the_end_of_the_grace_period_is_not_explained_by_it_if_the_run_was_not_seen_alive() {
    if !can_contain() {
        return;
    }
    let records = "/var/lib/gateway".to_owned();
    let container = Container { volumes: vec![records.clone()], ..Container::default() };
    let shutdown = format!("{records}/shutdown");
    let running = container.start(&["--wedge", "drain", "--grace", "3s", "--records", &shutdown]);
    running.kill("-TERM");
    running.wait_for_message("\nrunning: drain for ");
    // Stopped by SIGSTOP, as on an overloaded node, so that it misses its own deadline.
    kill(Pid::from_raw(running.pid as i32), Signal::SIGSTOP).unwrap();
    // The grace period is real time.
    thread::sleep(Duration::from_secs(3));
    running.kill("-KILL");
    let stopped = running.wait();
    let verdict = PostMortem::of_last(&stopped.volume(0).join("shutdown")).unwrap().unwrap();
    assert_eq!(verdict.outcome, RunOutcome::KilledInPhase, "{verdict}");
    assert_eq!(verdict.reason, Reason::Unknown, "{verdict}");
    let said = "is 3s, but it was not seen alive until shortly before its end";
    assert!(verdict.evidence.contains(said), "{verdict}");
}
