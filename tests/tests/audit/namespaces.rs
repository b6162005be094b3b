//! Runs in another pid namespace, which the log knows by other pids.

use std::process::Command;

use crate::auditd::Auditd;
use crate::subject::{SUBJECT, Subject, kill, run};
use forensics_tests::root_can;

/// `unshare` into a pid namespace. Its processes end with it.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare
}

/// Runs a program in the namespace of the process `init`. It is a child of the process that is
/// returned.
fn inside(init: u32, program: &[&str]) -> u32 {
    let init = init.to_string();
    run(Command::new("nsenter").args(["--pid", "--mount", "--target", &init]).args(program))
}

#[test]
fn process_1_of_a_namespace_is_killed_from_outside_only() {
    if !root_can(unshare().arg("true")) {
        return;
    }
    let Some(auditd) = Auditd::start() else { return };
    let mut subject = Subject::by(unshare().arg(SUBJECT));
    assert_eq!(subject.pid, 1);
    let host_pid = subject.id_of_child();
    // The kernel ignores these.
    inside(host_pid, &["/bin/kill", "-9", "1"]);
    inside(host_pid, &["bash", "-c", "kill -9 -- -1 2>/dev/null"]);
    assert!(subject.is_alive());
    let sender = run(&mut kill(&["-9", &host_pid.to_string()]));
    subject.child.wait().unwrap();
    let found = auditd.senders(subject.records());
    assert_eq!(found.iter().map(|sent| sent.sender_pid).collect::<Vec<_>>(), [sender]);
}

#[test]
fn another_process_of_a_namespace_is_killed_from_inside_too() {
    if !root_can(unshare().arg("true")) {
        return;
    }
    let Some(auditd) = Auditd::start() else { return };
    // The shell is process 1, and `kill -9 -1` signals all others. The runs have different pids, because
    // they begin shortly after each other.
    let senders = [
        ("", "2", &["/bin/kill", "-9", "2"][..]),
        ("/bin/true;", "3", &["/bin/kill", "-9", "--", "-1"]),
        ("/bin/true; /bin/true;", "4", &["python3", "-c", "import os; os.kill(-1, 9)"]),
    ];
    for (before, pid, program) in senders {
        let mut shell = unshare();
        shell.args(["bash", "-c", &format!("{before} \"$0\"; exit 0"), SUBJECT]);
        let mut subject = Subject::by(&mut shell);
        assert_eq!(subject.pid.to_string(), pid);
        let parent = inside(subject.id_of_child(), program);
        subject.child.wait().unwrap();
        let found = auditd.senders(subject.records());
        assert_eq!(found.len(), 1, "{program:?}");
        assert_eq!(found[0].sender_parent_pid, Some(parent), "{found:?}");
        assert!(found[0].sender_cmdline.as_ref().unwrap().contains(program[1]), "{found:?}");
    }
}

#[test]
fn a_run_that_sees_the_hosts_proc_records_its_pid_there() {
    if !root_can(unshare().arg("true")) {
        return;
    }
    let Some(auditd) = Auditd::start() else { return };
    let mut shared = Command::new("unshare");
    let mut subject = Subject::by(shared.args(["--pid", "--fork", "--kill-child", SUBJECT]));
    let host_pid = subject.id_of_child();
    let sender = run(&mut kill(&["-9", &host_pid.to_string()]));
    subject.child.wait().unwrap();
    let record = forensics_tokio::core::record::runs(subject.records()).unwrap().pop().unwrap();
    let record = forensics_tokio::core::record::Record::read(&record).unwrap();
    assert_eq!((record.start.pid, record.start.host_pid), (1, Some(host_pid)));
    let found = auditd.senders(subject.records());
    assert_eq!(found.iter().map(|sent| sent.sender_pid).collect::<Vec<_>>(), [sender]);
}
