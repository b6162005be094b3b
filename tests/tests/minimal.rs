//! The program that a reader copies first.

use std::process::Command;

use forensics_tests::{Program, example};

#[test]
fn a_terminated_service_says_who_and_ends_with_0() {
    let minimal = Program::start(&mut Command::new(example("minimal")));
    minimal.wait_for_stdout("working");
    minimal.kill("-TERM");
    let ended = minimal.wait();
    assert_eq!(ended.code(), 0);
    let mut said = ended.stderr.lines();
    assert!(said.next().unwrap().contains("Shutdown context: signal=SIGTERM cause="));
    assert!(ended.line("phase=drain").contains("outcome=ok"));
    assert!(ended.line("phase=db_close").contains("outcome=ok"));
    assert!(ended.line("Shutdown complete").contains("exit_status=0"));
}
