//! Senders that are hostile or gone, and logs that are rotated.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use forensics_tests::{HOSTILE, assert_tame, copy_program, forensics};
use nix::sys::signal::Signal::{SIGKILL, SIGXCPU};

use crate::auditd::Auditd;
use crate::subject::{SUBJECT, Subject, kill, python, run};

#[test]
fn a_hostile_sender_cannot_forge_a_field_or_control_a_terminal() {
    for format in ["RAW", "ENRICHED"] {
        let Some(auditd) = Auditd::with(format) else { return };
        let mut subject = Subject::start();
        let dir = tempfile::tempdir().unwrap();
        // The name of the file becomes the name of the process.
        let path = dir.path().join(std::ffi::OsStr::from_bytes(b"x\" uid=7\n\x1b[31m"));
        copy_program("/bin/kill", &path);
        let argument = HOSTILE.replace('\0', "") + " uid=7 key=\"x\"\ntype=SYSCALL";
        let mut sender = Command::new(&path);
        let sender = run(sender.arg0(&argument).args(["-9", &subject.id()]));
        subject.ended_by(SIGKILL);
        // Another program with root's rights can write texts of its own to the log.
        let forged =
            format!("x\ntype=SYSCALL msg=audit(1.000:1): arch=c000003e syscall=62 {HOSTILE}");
        let _ = Command::new("auditctl").args(["-m", &forged.replace('\0', "")]).output();
        let found = auditd.senders(subject.records());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].sender_pid, found[0].sender_uid), (sender, 0));
        assert!(found[0].sender_name.as_ref().unwrap().starts_with("x\" uid=7"));
        let shown = found[0].to_string();
        assert_tame(&shown);
        assert!(!shown.contains('\n'));
    }
}

#[test]
fn a_kill_is_found_in_a_rotated_log() {
    let Some(auditd) = Auditd::start() else { return };
    let mut subject = Subject::start();
    auditd.rotate();
    let sender = run(&mut kill(&["-9", &subject.id()]));
    subject.ended_by(SIGKILL);
    for _ in 0..2 {
        auditd.rotate();
        let found = auditd.senders(subject.records());
        assert_eq!(found.iter().map(|sent| sent.sender_pid).collect::<Vec<_>>(), [sender]);
    }
}

/// Starts the command with the pid that `wanted` had, as far as the other processes of the machine
/// allow it.
fn with_pid(wanted: u32, command: &mut Command) -> Option<Subject> {
    for _ in 0..50 {
        fs::write("/proc/sys/kernel/ns_last_pid", (wanted - 1).to_string()).unwrap();
        let subject = Subject::by(command);
        if subject.child.id() == wanted {
            return Some(subject);
        }
    }
    None
}

#[test]
fn a_later_or_earlier_process_with_the_same_pid_is_not_taken_for_the_run() {
    let Some(auditd) = Auditd::start() else { return };
    // The first run ends by another signal, the second one with its pid is killed, the third one ends as
    // the first.
    let mut first = Subject::start();
    let pid = first.child.id();
    run(&mut kill(&["-XCPU", &first.id()]));
    first.ended_by(SIGXCPU);
    let mut second = with_pid(pid, &mut Command::new(SUBJECT)).expect("the pid becomes free");
    let sender = run(&mut kill(&["-9", &second.id()]));
    second.ended_by(SIGKILL);
    let mut third = with_pid(pid, &mut Command::new(SUBJECT)).expect("the pid becomes free");
    run(&mut kill(&["-XCPU", &third.id()]));
    third.ended_by(SIGXCPU);
    let found = [&first, &second, &third].map(|subject| {
        let found = auditd.senders(subject.records());
        found.into_iter().map(|sent| sent.sender_pid).collect::<Vec<_>>()
    });
    assert_eq!(found, [vec![], vec![sender], vec![]]);
}

#[test]
fn the_sender_of_a_signal_that_the_run_could_not_see_is_named() {
    let Some(auditd) = Auditd::start() else { return };
    // sigqueue(3) lets the sender write its own pid and user, which are not looked up.
    let queue = "import ctypes, sys; ctypes.CDLL(None).sigqueue(int(sys.argv[1]), 15, 0)";
    let mut subject = Subject::start();
    let sender = run(&mut python(queue, &[&subject.id()]));
    assert_eq!(subject.child.wait().unwrap().code(), Some(0));
    let found = auditd.senders(subject.records());
    assert_eq!((found[0].signal.as_str(), found[0].sender_pid), ("SIGTERM", sender));
    assert!(found[0].sender_name.as_ref().unwrap().starts_with("python3"), "{found:?}");
    // The post-mortem has the name, and what the kernel said about the pid.
    let log = auditd.log();
    let mut last = Command::new(forensics());
    last.arg("last").arg(subject.records()).arg("--audit-log").arg(log).arg("--json");
    let last = last.output().unwrap();
    let last: serde_json::Value = serde_json::from_slice(&last.stdout).unwrap();
    assert_eq!(last["outcome"], "clean", "{last}");
    assert!(last["sender"]["name"].as_str().unwrap().starts_with("python3"), "{last}");
    assert_eq!(last["sender"]["pid"], sender, "{last}");
}
