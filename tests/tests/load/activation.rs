//! A listening socket that systemd-socket-activate passes to the gateway (sd_listen_fds(3)).
//! Restarts behind a socket that stays open are in tests/systemd.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use forensics_tests::client::{Client, Fate};
use forensics_tests::{Program, example};

/// An address without a listener. It has another loopback address, so that no other test gets this
/// port when it asks for a free one.
fn free_address() -> String {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 77, 7, 7), 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_passed_socket_is_served_and_not_inherited_by_children() {
    let address = free_address();
    let mut activate = Command::new("systemd-socket-activate");
    let elsewhere = ["--listen", "127.0.0.1:0"];
    let program =
        Program::start(activate.args(["-l", &address]).arg(example("gateway")).args(elsewhere));
    program.wait_for_stderr("Listening on");
    // The first request starts the gateway, which answers it.
    let mut client = Client::new(&address);
    assert_eq!(client.ask(Some(1)), Fate::Answered);
    program.wait_for_stdout(&format!("listening on http://{address}"));
    // O_CLOEXEC, in octal: <asm-generic/fcntl.h>.
    let passed = std::fs::read_to_string(format!("/proc/{}/fdinfo/3", program.pid())).unwrap();
    let flags = passed.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
    assert_eq!(flags & 0o2_000_000, 0o2_000_000, "close on exec: {passed}");

    program.kill("-TERM");
    let ended = program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("Shutdown complete"), "{}", ended.stderr);
    assert_eq!(client.ask(None), Fate::Refused);
}

#[test]
fn a_socket_other_than_tcp_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut activate = Command::new("systemd-socket-activate");
    let program = Program::start(activate.arg("-l").arg(&path).arg(example("gateway")));
    program.wait_for_stderr("Listening on");
    let _caller = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let ended = program.wait();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("fd 3 is not a valid tcp socket"), "{}", ended.stderr);
}

#[test]
fn variables_that_are_meant_for_another_process_are_left_alone() {
    // A wrapper can leave such variables. sd_listen_fds(3) compares the pid.
    let mut gateway = Command::new(example("gateway"));
    let program = Program::start(gateway.env("LISTEN_PID", "1").env("LISTEN_FDS", "1"));
    let line = program.wait_for_stdout("listening on http://");
    let (_, address) = line.split_once("http://").unwrap();
    assert_eq!(Client::new(address).ask(None), Fate::Answered);
    program.kill("-TERM");
    program.wait().assert_well(0);
}
