//! A parent that dies, and one that kills.

use std::process::Command;

use forensics_tests::can;
use forensics_tokio::core::cause::Cause;

use crate::subject::{SUBJECT, Subject};

/// A shell that starts the subject by `start` and kills it when it receives SIGUSR1.
fn parent(start: &str) -> Command {
    let script = format!("trap 'kill -TERM $!' USR1; {start} \"$0\" & wait; wait");
    let mut bash = Command::new("bash");
    bash.args(["-c", &script, SUBJECT]);
    bash
}

const WITH_DEATH_SIGNAL: &str = "setpriv --pdeathsig TERM --";

#[test]
fn the_death_of_the_parent_is_distinguished_from_a_kill_by_it() {
    if !can(Command::new("setpriv").args(["--pdeathsig", "TERM", "--", "true"])) {
        return;
    }
    let subject = Subject::under(&mut parent(WITH_DEATH_SIGNAL));
    let bash = subject.program.pid();
    subject.program.kill("-KILL");
    let stop = subject.stopped();
    stop.assert_cause(
        Cause::ParentDied,
        &format!("the parent-death signal of pid {bash}, our parent"),
    );
    assert_eq!(stop.field("sender_pid"), Some(bash.to_string()));
    assert_eq!(stop.field("sender_name").as_deref(), Some("bash"));
    assert_ne!(stop.field("parent_pid"), Some(bash.to_string()));

    // The same signal, sent by a parent that is still running.
    let subject = Subject::under(&mut parent(WITH_DEATH_SIGNAL));
    let bash = subject.program.pid();
    subject.program.kill("-USR1");
    let stop = subject.stopped();
    stop.assert_cause(Cause::Supervisor, &format!("the sender bash({bash}) is our parent, or its"));
}

#[test]
fn a_parent_that_kills_is_a_supervisor() {
    let subject = Subject::under(&mut parent(""));
    let bash = subject.program.pid();
    subject.program.kill("-USR1");
    let stop = subject.stopped();
    stop.assert_cause(Cause::Supervisor, &format!("the sender bash({bash}) is our parent"));
    assert!(!stop.evidence().contains("thread"));
    assert_eq!(stop.field("sender_pid"), stop.field("parent_pid"));
    let cmdline = stop.field("sender_cmdline");
    assert!(cmdline.as_ref().unwrap().starts_with("bash -c trap"));
    assert_eq!(cmdline, stop.field("parent_cmdline"));
}
