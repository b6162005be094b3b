//! No file descriptor is left.

use std::fs;
use std::io::Read;
use std::process::Command;

use forensics_tests::client::in_flight;
use forensics_tests::{Ended, Program, can, example, until};
use forensics_tokio::core::process::ProcessSummary;

use crate::scene::{Scene, count, only_child, terminate};

/// Lowers the limit of the process `pid`, so that it can open nothing, even if it closes
/// descriptors.
fn take_the_rest(pid: u32) {
    let mut prlimit = Command::new("prlimit");
    // The numbers below are its standard streams.
    prlimit.arg(format!("--pid={pid}")).arg("--nofile=3:3");
    assert!(prlimit.status().unwrap().success());
}

#[test]
fn without_a_free_descriptor_every_accepted_request_is_answered_and_only_the_diagnostic_is_missing()
{
    const REQUESTS: usize = 40;
    let scene = Scene::new();
    let gateway = Program::gateway_by(&mut scene.gateway(&[]));
    let mut streams = in_flight(&gateway.address, REQUESTS, 700);
    let _quick = streams.pop();
    take_the_rest(gateway.program.pid());
    gateway.program.kill("-TERM");
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("slept 700 ms"), "{answer}");
    }
    let ended = gateway.program.wait();
    ended.assert_well(1);
    assert!(ended.line("Diagnostic failed").contains("Too many open files"));
    let context = ended.line("Shutdown context");
    // The facts from siginfo and getppid(2) need no file.
    assert!(context.contains("signal=SIGTERM cause="), "{context}");
    assert!(context.contains("sender_pid=") && context.contains("parent_pid="), "{context}");
    assert!(!context.contains("cmdline"), "{context}");
    scene.assert_recorded_well();
}

#[test]
fn without_a_descriptor_for_the_record_the_run_has_no_record() {
    if !can(Command::new("strace").args(["--quiet=all", "--output=/dev/null", "true"])) {
        return;
    }
    let scene = Scene::new();
    fs::create_dir(scene.records()).unwrap();
    let mut strace = Command::new("strace");
    strace.args(["--follow-forks", "--quiet=all", "--output=/dev/null"]);
    // The error that the kernel returns for any open of this folder if no descriptor is left.
    strace.arg("--trace-path").arg(scene.records()).arg("--inject=openat:error=EMFILE");
    strace.arg(example("gateway"));
    scene.with_arguments(&mut strace, &[]);
    let gateway = Program::gateway_by(&mut strace);
    terminate(only_child(&gateway.program));
    let ended = gateway.program.wait();
    ended.assert_well(1);
    assert!(ended.line("Not all of this run is recorded").contains("Too many open files"));
    assert_eq!(fs::read_dir(scene.records()).unwrap().count(), 0);
    assert!(fs::read_to_string(scene.log()).unwrap().contains("--- end of diagnostic"));
}

#[test]
fn with_too_few_descriptors_it_says_so_at_the_start_and_with_enough_it_ends_well() {
    let mut started = 0;
    for limit in 4..24 {
        let scene = Scene::new();
        let ended = start_with(limit, &scene);
        let stderr = &ended.stderr;
        let by_tokio = ["failed to create UnixStream", "Failed building the Runtime"];
        if by_tokio.iter().any(|by_tokio| stderr.contains(by_tokio)) {
            // tokio panics when it builds the runtime, before there is a guard.
            continue;
        }
        assert!(!stderr.contains("panicked"), "{limit}: {stderr}");
        if stderr.contains("Shutdown context") {
            started += 1;
            // Warnings for the record and the diagnostic.
            ended.assert_well(2);
        } else {
            assert_eq!(ended.code(), 1, "{limit}: {stderr}");
            let why = ["Too many open files", "EMFILE"];
            assert!(why.iter().any(|why| stderr.contains(why)), "{limit}: {stderr}");
            // The folders exist.
            assert!(!stderr.contains("create the folder"), "{limit}: {stderr}");
            // Warnings for the record, the diagnostic, and the guard that is dropped without run(), and
            // the error.
            assert!(count(stderr, "") <= 4, "{limit}: {stderr}");
        }
    }
    assert!(started > 0);
}

/// Starts the gateway with this limit, and stops it if it starts to listen.
fn start_with(limit: u32, scene: &Scene) -> Ended {
    let script = format!("exec prlimit --nofile={limit}:{limit} \"$0\" \"$@\" >\"$LISTENS\"");
    let listens = scene.dir.path().join("listens");
    let mut gateway = scene.by(&script, &[]);
    // A backtrace would need descriptors, and take long.
    let program = Program::start(gateway.env("LISTENS", &listens).env("RUST_BACKTRACE", "0"));
    let pid = i32::try_from(program.pid()).unwrap();
    let says_so = || fs::metadata(&listens).is_ok_and(|said| said.len() > 0);
    until("it listens or has ended", || {
        says_so() || ProcessSummary::read_stat(pid).state == Some('Z')
    });
    if says_so() {
        program.kill("-TERM");
    }
    program.wait()
}
