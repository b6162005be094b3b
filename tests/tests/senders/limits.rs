//! A process that has nothing left to look with.

use forensics_tokio::core::cause::Cause;

use crate::subject::{Subject, bash, our_uid};

#[test]
fn without_a_free_descriptor_the_sender_is_named_by_its_program() {
    const EMFILE: i32 = 24;
    let subject = Subject::start(&["--no-descriptors"]);
    let pid = subject.pid;
    let (stop, sender) = subject.stopped_by(&mut bash("kill -TERM $1; read -r _ || true", pid));
    stop.assert_sender(&format!("sender_pid={sender} sender_name=bash sender_uid={}", our_uid()));
    stop.assert_cause(Cause::Process, &format!("sent by bash({sender})"));
    let absence = serde_json::to_value(stop.sender().absence).unwrap();
    assert_eq!(absence, serde_json::json!({ "unreadable": EMFILE }));
    assert!(stop.ended.line("Shutdown complete").contains("exit_status=0"));
}
