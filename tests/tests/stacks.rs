//! The examples of other stacks. Each is stopped by a real signal with work in flight.
//!
//! The tests of the gateway, which uses axum, are in `gateway.rs`.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use forensics_tests::client::Account;
use forensics_tests::crowd::Crowd;
use forensics_tests::{Ended, Program, example, until, until_read};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn start(name: &str, arguments: &[impl AsRef<OsStr>]) -> Program {
    Program::start(Command::new(example(name)).args(arguments))
}

/// Starts a server, and returns its address.
fn serve(name: &str, arguments: &[PathBuf]) -> (Program, String) {
    let program = start(name, arguments);
    let line = program.wait_for_stdout("listening on ");
    let address = line.rsplit([' ', '/']).next().unwrap().to_owned();
    (program, address)
}

/// The line about the end of the phase.
fn phase<'a>(ended: &'a Ended, phase: &str) -> &'a str {
    ended.line(&format!("phase finished phase={phase} "))
}

/// A service that works, of one of the stacks.
struct Service<'a> {
    /// Where it listens, if it does.
    address: &'a str,
    /// Where its queue or database is.
    folder: &'a Path,
}

/// What is to be seen after the stop: that the work is done.
type Check = Box<dyn FnOnce(&Ended)>;

struct Stack {
    example: &'static str,
    /// Its argument: a file in the folder, or the folder itself.
    file: Option<&'static str>,
    /// What it prints when it works.
    ready: &'static str,
    /// Gives it work that is not done when the stop begins.
    load: fn(&Service) -> Check,
    phases: &'static [&'static str],
}

const STACKS: [Stack; 7] = [
    Stack {
        example: "streams",
        file: None,
        ready: "listening on ",
        load: |service| requests(service, "GET /", "ok\n"),
        phases: &["goodbye", "drain"],
    },
    Stack {
        example: "hyper",
        file: None,
        ready: "listening on ",
        load: |service| requests(service, "GET /slow", "ok\n"),
        phases: &["drain"],
    },
    Stack {
        example: "actix",
        file: None,
        ready: "listening on ",
        load: requests_in_progress,
        phases: &["drain"],
    },
    Stack {
        example: "sqlx",
        file: Some("transfers.db"),
        ready: "listening on ",
        load: transfers,
        phases: &["drain", "db_close"],
    },
    Stack {
        example: "grpc",
        file: None,
        ready: "listening on ",
        load: call,
        phases: &["goodbye", "drain"],
    },
    Stack {
        example: "tcp",
        file: None,
        ready: "listening on ",
        load: sessions,
        phases: &["goodbye", "sessions"],
    },
    Stack { example: "apalis", file: Some(""), ready: "working", load: jobs, phases: &["jobs"] },
];

/// Requests that take half a second or more, on connections of their own.
fn slow_requests(service: &Service, request: &str, expected: &'static str) -> Check {
    let ask = |_| {
        let mut stream = TcpStream::connect(service.address).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        thread::spawn(move || {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    let clients: Vec<_> = (0..4).map(ask).collect();
    until_read(service.address);
    Box::new(move |_| {
        for client in clients {
            let answer = client.join().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            assert!(answer.ends_with(expected), "{answer}");
        }
    })
}

/// Those, and clients that ask again and again, on new and on open connections.
fn requests(service: &Service, request: &str, expected: &'static str) -> Check {
    let slow = slow_requests(service, request, expected);
    let crowd = Crowd::start_quick(service.address, 3);
    crowd.wait_for_answers(9);
    Box::new(move |ended| {
        slow(ended);
        let Account { answered, lost, .. } = crowd.refused();
        assert!(answered >= 9 && lost.is_empty(), "{answered} answered, lost: {lost:#?}");
    })
}

/// actix answers the requests that it has begun to read. It resets connections that it has not accepted, and
/// may close an idle one while a request arrives: docs/stacks/actix-web.md.
fn requests_in_progress(service: &Service) -> Check {
    let slow = slow_requests(service, "GET /slow", "ok\n");
    let crowd = Crowd::start_quick(service.address, 3);
    crowd.wait_for_answers(9);
    Box::new(move |ended| {
        slow(ended);
        let Account { answered, lost, .. } = crowd.refused();
        println!("actix: {answered} answered, {} lost", lost.len());
        assert!(lost.iter().all(|lost| lost.contains(" after \"\";")), "{lost:#?}");
    })
}

/// Each transfer is written by one transaction, or not at all.
fn transfers(service: &Service) -> Check {
    let answered = slow_requests(service, "POST /transfer", "transferred\n");
    let folder = service.folder.to_owned();
    Box::new(move |ended| {
        answered(ended);
        // A database that was closed has no write-ahead log.
        assert_eq!(names(&folder), ["transfers.db"]);
        let (next, address) = serve("sqlx", &[folder.join("transfers.db")]);
        let mut client = TcpStream::connect(address).unwrap();
        write!(client, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("8 entries, sum 0\n"), "{answer}");
        next.kill("-TERM");
        next.wait();
    })
}

fn call(service: &Service) -> Check {
    let client = start("grpc", &["watch", &format!("http://{}", service.address)]);
    client.wait_for_stdout("tick 1");
    Box::new(|ended| {
        assert!(phase(ended, "goodbye").contains("calls_told=1"), "{}", ended.stderr);
        let heard = client.wait();
        assert_eq!(heard.code(), 0, "{}", heard.stderr);
        assert!(heard.stdout.ends_with(", goodbye\nended well\n"), "{}", heard.stdout);
    })
}

fn sessions(service: &Service) -> Check {
    let connect = |_| {
        let mut session = BufReader::new(TcpStream::connect(service.address).unwrap());
        writeln!(session.get_mut(), "hello").unwrap();
        session
    };
    let sessions: Vec<_> = (0..4).map(connect).collect();
    until_read(service.address);
    Box::new(|_| {
        for mut session in sessions {
            let mut lines = String::new();
            session.read_to_string(&mut lines).unwrap();
            assert_eq!(lines, "hello\ngoodbye\n");
        }
    })
}

/// Of five jobs two run when the stop begins.
fn jobs(service: &Service) -> Check {
    let queue = service.folder.to_owned();
    for name in ["a", "b", "c", "d", "e"] {
        fs::write(queue.join(name).with_extension("job"), "").unwrap();
    }
    let count = |queue: &Path, state: &str| {
        names(queue).iter().filter(|name| name.ends_with(state)).count()
    };
    until("two jobs run", || count(&queue, ".taken") == 2);
    Box::new(move |_| {
        let counts = [".done", ".job", ".taken"].map(|state| count(&queue, state));
        assert_eq!(counts, [2, 3, 0], "{:?}", names(&queue));
    })
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn each_stack_says_who_stopped_it_and_finishes_its_work() {
    let us = format!("sender_pid={} sender_name=", std::process::id());
    for stack in STACKS {
        let name = stack.example;
        let folder = tempfile::tempdir().unwrap();
        let argument = stack.file.map(|file| folder.path().join(file));
        let program = start(name, argument.as_slice());
        let line = program.wait_for_stdout(stack.ready);
        let address = line.rsplit([' ', '/']).next().unwrap();
        let service = Service { address, folder: folder.path() };
        let check = (stack.load)(&service);
        // By this process, which still runs when the guard looks at the sender.
        kill(Pid::from_raw(program.pid().try_into().unwrap()), Signal::SIGTERM).unwrap();
        let ended = program.wait();
        assert_eq!(ended.code(), 0, "{name}: {}", ended.stderr);
        let context = ended.line("Shutdown context: signal=SIGTERM ");
        assert!(context.contains(&us), "{name}: {context}");
        for name in stack.phases {
            assert!(phase(&ended, name).contains("outcome=ok"), "{name}: {}", ended.stderr);
        }
        assert!(ended.line("Shutdown complete").contains("outcome=clean"), "{}", ended.stderr);
        // sqlx also warns: of a statement that waits for another transaction.
        let warns = |line: &&str| line.contains("shutdown") && !line.contains("INFO");
        assert_eq!(ended.stderr.lines().find(warns), None, "{name}");
        check(&ended);
    }
}

#[test]
fn actix_that_handles_signals_itself_is_warned_of_and_loses_a_request() {
    let (server, address) = serve("actix_signals", &[]);
    // After the last check.
    server
        .wait_for_stderr("WARN  shutdown] Something else in this program also listens for SIGINT");
    let mut client = TcpStream::connect(&address).unwrap();
    write!(client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    until_read(&address);
    server.kill("-INT");
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer), "");
    let ended = server.wait();
    ended.line("Shutdown context: signal=SIGINT");
    assert_eq!(ended.stderr.matches("also listens for SIGINT").count(), 1, "{}", ended.stderr);
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
    let (server, address) = serve("tcp", &[]);
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
    let (server, address) = serve("tcp", &[]);
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
    let well = start("current_thread", &[""; 0]);
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
