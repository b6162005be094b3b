//! Standard streams that are closed, broken, full, or locked.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use forensics_tests::{Program, until_guarded};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::scene::{Scene, terminate};

/// Asserts that it ends well, by its exit code and its record. Its output cannot be read.
fn assert_ends_well(mut gateway: Child, scene: &Scene) {
    terminate(gateway.id());
    assert_eq!(gateway.wait().unwrap().code(), Some(0));
    scene.assert_recorded_well();
    let log = fs::read_to_string(scene.log()).unwrap();
    assert!(log.contains("--- end of diagnostic"), "{log}");
    let (record, _) = scene.recorded();
    let stopped = record.entries.last().unwrap().mono_us - record.entries[1].mono_us;
    assert!(stopped < 20_000_000, "it took {stopped} us");
}

/// Waits until it listens, by its first line.
fn until_listening(gateway: &mut Child) {
    let mut line = String::new();
    BufReader::new(gateway.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on"), "{line}");
}

#[test]
fn no_other_file_gets_the_number_of_a_stream_that_was_closed_at_the_start() {
    for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"] {
        let scene = Scene::new();
        let mut gateway = scene.by(&format!("exec \"$0\" \"$@\" {closed}"), &[]);
        gateway.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let gateway = gateway.spawn().unwrap();
        until_guarded(gateway.id());
        for stream in 0..3 {
            let open = fs::read_link(format!("/proc/{}/fd/{stream}", gateway.id())).unwrap();
            assert_eq!(open.to_str(), Some("/dev/null"), "{stream} of {closed}");
        }
        // Every line of the record is JSON, so nothing else was written to it.
        assert_ends_well(gateway, &scene);
        let log = fs::read_to_string(scene.log()).unwrap();
        assert!(log.starts_with("=== gateway["), "{log}");
        assert!(!log.contains(" INFO "), "{log}");
    }
}

#[test]
fn streams_without_a_reader_disturb_nothing() {
    for streams in [[true, false], [false, true], [true, true]] {
        let scene = Scene::new();
        let (out_reader, out) = std::io::pipe().unwrap();
        let (err_reader, err) = std::io::pipe().unwrap();
        let mut gateway = scene.gateway(&[]);
        let gateway = gateway.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        let mut out_reader = BufReader::new(out_reader);
        out_reader.read_line(&mut String::new()).unwrap();
        let mut readers = (Some(out_reader), Some(err_reader));
        let [out_goes, err_goes] = streams;
        drop(readers.0.take_if(|_| out_goes));
        drop(readers.1.take_if(|_| err_goes));
        assert_ends_well(gateway, &scene);
    }
}

#[test]
fn streams_that_are_full_from_the_start_disturb_nothing() {
    let scene = Scene::new();
    // From the second run on it logs before it listens: how the last run ended.
    for _ in 0..2 {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let mut gateway = scene.gateway(&[]);
        let gateway = gateway.stdin(Stdio::null()).stdout(full()).stderr(full()).spawn().unwrap();
        until_guarded(gateway.id());
        assert_ends_well(gateway, &scene);
    }
    assert_eq!(fs::read_dir(scene.records()).unwrap().count(), 2);
}

#[test]
fn a_log_reader_that_stops_reading_delays_no_phase() {
    let scene = Scene::new();
    let (_reader, writer) = std::io::pipe().unwrap();
    // Fills the pipe completely, without a change to the writer's flags.
    let flags = OFlag::from_bits_truncate(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
    fcntl(&writer, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    while (&writer).write(b"x").is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();

    let mut gateway = scene.gateway(&[]);
    gateway.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(writer);
    let mut gateway = gateway.spawn().unwrap();
    until_listening(&mut gateway);
    assert_ends_well(gateway, &scene);
}

#[test]
fn while_stderr_is_locked_the_context_is_logged_and_the_rest_after_the_lock_is_released() {
    let scene = Scene::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut trouble = Command::new(env!("CARGO_BIN_EXE_trouble"));
    trouble.arg("held_stderr").arg(scene.records());
    let program = Program::start_reading(&mut trouble, reader);
    program.wait_for_stdout("held");
    program.kill("-TERM");
    let context = program.wait_for_stderr("Shutdown context");
    // Not written by the subscriber, which waits for the lock.
    assert!(context.starts_with("shutdown: Shutdown context: signal=SIGTERM"), "{context}");
    (&writer).write_all(b"\n").unwrap();
    let ended = program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for said in
        ["INFO shutdown: Shutdown context", "phase=drain outcome=ok", "phase=db_close outcome=ok"]
    {
        ended.line(said);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    let (record, verdict) = scene.recorded();
    assert_eq!(crate::scene::finished(&record), ["drain ok", "db_close ok"]);
    assert!(verdict.is_clean(), "{verdict}");
}
