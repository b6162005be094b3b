//! A process without a free file descriptor, or whose shutdown thread gets no processor.

use std::fs;
use std::path::Path;
use std::process::Command;

use forensics_tests::{Program, can, until};
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

/// The id of the shutdown thread. Waits until the thread sleeps.
fn sleeping_shutdown_thread(subject: &Subject) -> String {
    let tasks = Path::new("/proc").join(subject.pid.to_string()).join("task");
    let asleep = |task: &Path| {
        let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.contains("(shutdown-thread) S ")
    };
    let mut found = None;
    until("the shutdown thread sleeps", || {
        let mut tasks = fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path());
        found = tasks.find(|task| asleep(task));
        found.is_some()
    });
    found.unwrap().file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn if_the_shutdown_thread_is_late_the_sender_is_still_named() {
    if !can(Command::new("strace").arg("--version")) {
        return;
    }
    let subject = Subject::start(&[]);
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=read", "-e", "inject=read:delay_exit=500ms", "-o", "/dev/null"]);
    let strace = Program::start(strace.args(["-p", &sleeping_shutdown_thread(&subject)]));
    strace.wait_for_stderr("attached");
    let pid = subject.pid;
    let (stop, sender) = subject.stopped_by(&mut bash("kill -TERM $1; read -r _ || true", pid));
    stop.assert_sent_by(&format!("bash({sender})"));
    strace.wait();
}
