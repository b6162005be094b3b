//! The example gateway, stopped as its users stop it: by real signals, under load, and with faults.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use forensics_tests::{ANY_SIGNAL, Gateway, Program, example, outcomes, until_read, until_started};

/// Connects, and sends a request that is answered after `ms`.
fn ask(address: &str, ms: u32) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /slow?ms={ms} HTTP/1.1\r\nHost: gateway\r\n\r\n").unwrap();
    stream
}

#[test]
fn under_load_every_accepted_request_is_answered() {
    const REQUESTS: usize = 50;
    let gateway = Program::gateway(&["--diag-log", "/dev/null/none"]);
    // Each connection gets an answer first, so the gateway has accepted it.
    let mut streams: Vec<TcpStream> = (0..REQUESTS).map(|_| ask(&gateway.address, 0)).collect();
    for stream in &mut streams {
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        write!(stream, "GET /slow?ms=2000 HTTP/1.1\r\nHost: gateway\r\n\r\n").unwrap();
    }
    let late = ask(&gateway.address, 2000);
    until_read(&gateway.address);
    gateway.program.kill("-TERM");

    let answers: Vec<_> = streams
        .into_iter()
        .chain([late])
        .map(|mut stream| {
            thread::spawn(move || {
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            })
        })
        .collect();
    for answer in answers {
        let answer = answer.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("slept"), "{answer}");
    }
    let ended = gateway.program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended.line("Shutdown context: signal=SIGTERM");
    assert_eq!(ended.phases(), outcomes(["ok", "ok", "ok", "ok"]), "{}", ended.stderr);
    let drain = ended.line("phase finished phase=drain");
    assert!(drain.contains("active_at_start=51 active_now=0"), "{drain}");
    // There is one line for a log that cannot be written.
    assert_eq!(ended.stderr.matches("Diagnostic failed").count(), 1, "{}", ended.stderr);
}

#[test]
fn an_answer_arrives_even_if_the_client_sends_too_much_or_closes_its_side() {
    let gateway = Program::gateway(&[]);
    let mut too_much = ask(&gateway.address, 2000);
    let mut half_closed = ask(&gateway.address, 2000);
    half_closed.shutdown(Shutdown::Write).unwrap();
    until_read(&gateway.address);
    gateway.program.kill("-TERM");
    gateway.program.wait_for_stderr("Shutdown context");
    // The gateway does not read this any more. Closing a socket with unread bytes resets the
    // connection.
    write!(too_much, "GET / HTTP/1.1\r\nHost: gateway\r\n\r\n").unwrap();
    for stream in [&mut too_much, &mut half_closed] {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close"), "{head}");
        assert_eq!(body, "slept 2000 ms\n");
    }
    for _ in 0..2 {
        too_much.write_all(b"and more").unwrap();
    }
    drop(too_much);
    gateway.program.wait().assert_well(0);
}

#[test]
fn each_signal_stops_it_and_is_named() {
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let gateway = Program::gateway(&[]);
        gateway.program.kill(&format!("-{signal}"));
        let ended = gateway.program.wait();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert!(ended.line("Shutdown context").contains(&format!("signal=SIG{signal} cause=")));
        assert_eq!(ended.phases(), outcomes(["ok", "ok", "ok", "ok"]), "{}", ended.stderr);
    }
}

#[test]
fn nohup_keeps_it_from_hanging_up() {
    let mut nohup = Command::new("nohup");
    let program = Program::start(nohup.arg(example("gateway")));
    program.wait_for_stdout("listening on");
    program.wait_for_stderr("SIGHUP stays ignored");
    program.kill("-HUP");
    program.kill("-TERM");
    let ended = program.wait();
    assert!(ended.line("Shutdown context").contains("signal=SIGTERM"));
}

#[test]
fn a_wedged_drain_is_dropped_at_its_timeout_and_the_rest_runs() {
    let gateway = Program::gateway(&["--wedge", "drain", "--drain-timeout", "1s"]);
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.phases(), outcomes(["ok", "timed_out", "ok", "ok"]), "{}", ended.stderr);
    assert!(ended.line("phase=drain outcome").contains("WARN"), "{}", ended.stderr);
}

#[test]
fn a_wedged_drain_cannot_take_what_db_close_reserved() {
    let gateway = Program::gateway(&["--wedge", "drain", "--deadline", "2s"]);
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.phases(), outcomes(["ok", "timed_out", "skipped", "ok"]), "{}", ended.stderr);
}

#[test]
fn after_a_phase_that_blocks_its_thread_the_next_one_runs_and_the_process_ends_by_its_deadline() {
    let gateway = Program::gateway(&["--block", "drain", "--deadline", "2s"]);
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    // The drop of the runtime would wait for the blocked thread. So the shutdown thread ends the
    // process.
    assert_eq!(ended.code(), 70, "{}", ended.stderr);
    assert_eq!(ended.phases(), outcomes(["ok", "timed_out", "skipped", "ok"]), "{}", ended.stderr);
    assert!(ended.line("phase=drain outcome").contains("blocking its thread"), "{}", ended.stderr);
    let forced = ended.line("Shutdown forced");
    assert!(forced.contains("tokio-rt-worker") && forced.contains("futex"), "{forced}");
}

/// A gateway whose stop every repeated signal speeds up.
fn impatient(arguments: &[&str]) -> Gateway {
    let mut command = Command::new(example("gateway"));
    Program::gateway_by(command.args(arguments).envs([ANY_SIGNAL]))
}

/// Sends another signal, late enough to count as another request.
fn signal_again(program: &Program, expected: &str) {
    // The 200 ms are real time, so there is no event to wait for.
    thread::sleep(Duration::from_millis(250));
    program.kill("-TERM");
    if !expected.is_empty() {
        program.wait_for_stderr(expected);
    }
}

#[test]
fn a_second_signal_cuts_the_drain_short_and_keeps_the_reserved_phase() {
    let gateway = impatient(&["--wedge", "drain"]);
    gateway.program.kill("-TERM");
    gateway.program.wait_for_stderr("phase finished phase=notify");
    signal_again(&gateway.program, "another SIGTERM: the running phase is cut short");
    let ended = gateway.program.wait();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(ended.line("Shutdown complete").contains(" outcome=cut_short "), "{}", ended.stderr);
    assert_eq!(ended.phases(), outcomes(["ok", "cut_short", "skipped", "ok"]), "{}", ended.stderr);
}

#[test]
fn a_signal_twice_within_200_ms_is_one_request() {
    let gateway = Program::gateway(&["--wedge", "drain", "--drain-timeout", "1s"]);
    let twice = format!("kill -TERM {0}; kill -TERM {0}", gateway.program.pid());
    assert!(Command::new("bash").args(["-c", &twice]).status().unwrap().success());
    let ended = gateway.program.wait();
    assert_eq!(ended.phases(), outcomes(["ok", "timed_out", "ok", "ok"]), "{}", ended.stderr);
}

#[test]
fn a_third_signal_ends_it_at_once_even_if_the_runtime_is_blocked() {
    for trouble in ["--wedge", "--block"] {
        let gateway = impatient(&[trouble, "db_close", "--deadline", "55s"]);
        gateway.program.kill("-TERM");
        gateway.program.wait_for_stderr("phase finished phase=adapters");
        signal_again(&gateway.program, "another SIGTERM");
        signal_again(&gateway.program, "");
        let ended = gateway.program.wait();
        assert_eq!(ended.code(), 70, "{}", ended.stderr);
        ended.line("Shutdown forced: another SIGTERM requested an immediate exit");
    }
}

#[test]
fn the_diagnostic_is_private_complete_and_shows_the_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log/diag.log");
    let gateway = Program::gateway(&["--diag-log", log.to_str().unwrap()]);
    let pid = gateway.program.pid();
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended.line("Diagnostic written");

    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(text.starts_with(&format!("=== gateway[{pid}] signal=SIGTERM cause=")), "{text}");
    assert!(text.lines().last().unwrap().starts_with("--- end of diagnostic"), "{text}");
    let row = text.lines().find(|line| line.trim_start().starts_with(&format!("{pid} ")));
    assert!(row.unwrap().contains("gateway"), "{text}");
}

#[test]
fn the_next_start_says_in_which_phase_the_last_run_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("records");
    let records = records.to_str().unwrap();
    let gateway = Program::gateway(&["--records", records, "--wedge", "drain"]);
    gateway.program.kill("-TERM");
    until_started(Path::new(records), "drain");
    gateway.program.kill("-KILL");
    let ended = gateway.program.wait();
    assert_eq!(ended.status.code(), None);

    let gateway = Program::gateway(&["--records", records]);
    let said = gateway.program.wait_for_stderr("Previous run: ");
    assert!(said.contains("WARN") && said.contains("outcome=killed_in_phase"), "{said}");
    assert!(said.contains("phase=drain") && said.contains("signal=SIGTERM"), "{said}");
    gateway.program.kill("-TERM");
    assert_eq!(gateway.program.wait().code(), 0);

    let gateway = Program::gateway(&["--records", records]);
    let said = gateway.program.wait_for_stderr("Previous run: ");
    assert!(said.contains("INFO") && said.contains("outcome=clean"), "{said}");
}

#[test]
fn an_invalid_time_span_is_named_with_the_fix() {
    let program =
        Program::start(Command::new(example("gateway")).args(["--drain-timeout", "5mins"]));
    let ended = program.wait();
    assert_eq!(ended.code(), 2);
    assert!(ended.stderr.contains("`5mins`: unknown unit"), "{}", ended.stderr);
}

#[test]
fn ctrl_c_is_named_and_a_second_one_cuts_the_drain_short() {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut keyboard = fs::File::from(terminal.master);
    // A new session with this terminal. A key at the terminal signals its foreground process group.
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(example("gateway")).args(["--wedge", "drain"]);
    let program = Program::start_reading(&mut command, terminal.slave);
    program.wait_for_stdout("listening on");
    keyboard.write_all(b"\x03").unwrap();
    let context = program.wait_for_stderr("Shutdown context");
    assert!(context.contains("signal=SIGINT cause=ctrl_c under_systemd="), "{context}");
    assert!(!context.contains("sender_pid"), "the kernel sent it: {context}");
    // The 200 ms in which signals count as one request are real time.
    thread::sleep(Duration::from_millis(250));
    keyboard.write_all(b"\x03").unwrap();
    let ended = program.wait();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_eq!(ended.phases(), outcomes(["ok", "cut_short", "skipped", "ok"]), "{}", ended.stderr);
}
