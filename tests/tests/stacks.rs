//! The examples of other stacks. Each is stopped by a real signal with work in flight.
//!
//! The tests of the gateway, which uses axum, are in `gateway.rs`.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use forensics_tests::{Ended, Program, example, until_read};

fn start(name: &str, arguments: &[&str]) -> Program {
    Program::start(Command::new(example(name)).args(arguments))
}

/// Starts a server, and returns its address.
fn serve(name: &str) -> (Program, String) {
    let program = start(name, &[]);
    let line = program.wait_for_stdout("listening on ");
    let address = line.rsplit([' ', '/']).next().unwrap().to_owned();
    (program, address)
}

/// The line about the end of the phase.
fn phase<'a>(ended: &'a Ended, phase: &str) -> &'a str {
    ended.line(&format!("phase finished phase={phase} "))
}

#[test]
fn hyper_answers_a_request_in_flight() {
    let (server, address) = serve("hyper");
    let mut quick = TcpStream::connect(&address).unwrap();
    write!(quick, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut slow = TcpStream::connect(&address).unwrap();
    write!(slow, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    quick.read_exact(&mut [0; 15]).unwrap();
    until_read(&address);
    server.kill("-TERM");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok\n"), "{answer}");
    let ended = server.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(phase(&ended, "drain").contains("outcome=ok"), "{}", ended.stderr);
}

#[test]
fn streaming_grpc_calls_are_asked_to_end_and_end_well() {
    let (server, address) = serve("grpc");
    let client = start("grpc", &["watch", &format!("http://{address}")]);
    client.wait_for_stdout("tick 1");
    server.kill("-TERM");
    let ended = client.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stdout.ends_with(", goodbye\nended well\n"), "{}", ended.stdout);
    let ended = server.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(phase(&ended, "goodbye").contains("calls_told=1"), "{}", ended.stderr);
    assert!(phase(&ended, "drain").contains("outcome=ok"), "{}", ended.stderr);
}

#[test]
fn a_workers_short_jobs_are_finished_and_its_long_ones_handed_back() {
    let queue = tempfile::tempdir().unwrap();
    let job = |name: &str| queue.path().join(name);
    // Renamed to its final name, so that no worker reads an incomplete file.
    let put = |name: &str, ms: u32| {
        fs::write(job("new"), ms.to_string()).unwrap();
        fs::rename(job("new"), job(&format!("{name}.job"))).unwrap();
    };
    put("short", 500);
    put("long", 3_600_000);
    let arguments = [queue.path().to_str().unwrap()];
    let worker = start("worker", &arguments);
    worker.wait_for_stdout("took short");
    worker.wait_for_stdout("took long");
    worker.kill("-TERM");
    worker.wait_for_stderr("Teardown started");
    put("late", 1);
    let ended = worker.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(phase(&ended, "finish").contains("jobs_at_start=2 jobs_left=1"), "{}", ended.stderr);
    assert!(phase(&ended, "hand_back").contains("outcome=ok"), "{}", ended.stderr);
    let mut left: Vec<_> = fs::read_dir(queue.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["late.job", "long.job", "short.done"], "{}", ended.stdout);

    // The next worker does the jobs that were handed back.
    let next = start("worker", &arguments);
    next.wait_for_stdout("took long");
    next.wait_for_stdout("done with late");
    next.kill("-TERM");
    assert_eq!(next.wait().code(), 0);
    assert!(job("long.job").exists() && job("late.done").exists());
}

#[test]
fn tcp_sessions_finish_their_line_and_get_a_goodbye() {
    let (server, address) = serve("tcp");
    let connect = || BufReader::new(TcpStream::connect(&address).unwrap());
    let mut line = String::new();
    let (mut idle, mut busy) = (connect(), connect());
    for session in [&mut idle, &mut busy] {
        writeln!(session.get_mut(), "hello").unwrap();
        session.read_line(&mut line).unwrap();
    }
    assert_eq!(line, "hello\nhello\n");
    write!(busy.get_mut(), "half a ").unwrap();
    server.kill("-TERM");
    server.wait_for_stderr("phase finished phase=goodbye");
    writeln!(busy.get_mut(), "line").unwrap();
    let rest = |mut session: BufReader<TcpStream>| {
        let mut rest = String::new();
        session.read_to_string(&mut rest).unwrap();
        rest
    };
    assert_eq!(rest(idle), "goodbye\n");
    assert_eq!(rest(busy), "half a line\ngoodbye\n");
    let ended = server.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(phase(&ended, "goodbye").contains("sessions_told=2"), "{}", ended.stderr);
    let sessions = phase(&ended, "sessions");
    assert!(
        sessions.contains("outcome=ok") && sessions.contains("connections_now=0"),
        "{sessions}"
    );
}

#[test]
fn a_tcp_session_that_never_ends_is_cut_and_counted() {
    let (server, address) = serve("tcp");
    let mut session = BufReader::new(TcpStream::connect(&address).unwrap());
    let mut line = String::new();
    write!(session.get_mut(), "hello\nhalf a ").unwrap();
    session.read_line(&mut line).unwrap();
    server.kill("-TERM");
    let ended = server.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let sessions = phase(&ended, "sessions");
    assert!(
        sessions.contains("outcome=timed_out")
            && sessions.contains("1 open connection: connection from 127.0.0.1:"),
        "{sessions}"
    );
}

#[test]
fn one_thread_is_enough_unless_a_phase_blocks_it() {
    let well = start("current_thread", &[]);
    well.wait_for_stdout("working");
    well.kill("-TERM");
    let ended = well.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(phase(&ended, "db_close").contains("outcome=ok"), "{}", ended.stderr);

    let blocked = start("current_thread", &["block"]);
    blocked.wait_for_stdout("working");
    blocked.kill("-TERM");
    let ended = blocked.wait();
    assert_eq!(ended.code(), 70, "{}", ended.stderr);
    assert!(ended.line("the runtime has not answered").contains("phase flush has run for"));
    ended.line("Shutdown forced: the deadline has passed");
}
