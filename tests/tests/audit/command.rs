//! `forensics audit`

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use forensics_tests::{forensics, until};
use nix::sys::signal::Signal::SIGKILL;

use crate::auditd::{Auditd, auditctl, senders};
use crate::subject::{Subject, kill, run};

const FILE: &str = "/etc/audit/rules.d/shutdown-forensics.rules";

fn audit(options: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(forensics()).arg("audit").args(options).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn the_rule_is_installed_and_only_that_is_removed() {
    // The rule of the test itself is the same one, so it is removed first.
    let Some(auditd) = Auditd::without_daemon() else { return };
    let before_file = fs::read(FILE).ok();
    let (code, removed, _) = audit(&["--remove"]);
    assert_eq!(code, 0, "{removed}");
    let foreign = ["always,exit", "-F", "arch=b64", "-S", "kill", "-F", "key=of_another"];
    auditctl(&[&["-a"], &foreign[..]].concat());
    let (code, shown, _) = audit(&[]);
    assert!(code == 1 && shown.contains("\nloaded: no\n"), "{code} {shown}");
    assert!(shown.contains("\nauditing: on\n"), "{shown}");

    for _ in 0..2 {
        let (code, installed, stderr) = audit(&["--install"]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{installed}");
        let (code, shown, _) = audit(&[]);
        assert!(code == 0 && shown.contains("\nloaded: yes\n"), "{code} {shown}");
    }
    let list = auditctl(&["-l"]);
    assert_eq!(list.matches("key=shutdown_forensics").count(), list.lines().count() - 1, "{list}");
    if Path::new(FILE).parent().unwrap().exists() {
        // The file has what is printed, and auditctl accepts it.
        let file = fs::read_to_string(FILE).unwrap();
        let rules: Vec<_> = file.lines().filter(|line| line.starts_with("-a ")).collect();
        let (_, shown, _) = audit(&[]);
        assert!(
            rules.iter().all(|rule| shown.contains(&format!("\n  {rule}\n"))),
            "{file} {shown}"
        );
    }

    let (code, removed, stderr) = audit(&["--remove"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{removed}");
    let list = auditctl(&["-l"]);
    assert!(!list.contains("shutdown_forensics") && list.contains("of_another"), "{list}");
    assert!(!Path::new(FILE).exists());
    auditctl(&[&["-d"], &foreign[..]].concat());
    // A file that somebody has changed is left alone.
    if Path::new(FILE).parent().unwrap().exists() {
        fs::write(FILE, "# changed\n").unwrap();
        let (code, _, stderr) = audit(&["--remove"]);
        assert!(code == 0 && stderr.contains("left alone"), "{code} {stderr}");
        fs::remove_file(FILE).unwrap();
        if let Some(content) = before_file {
            fs::write(FILE, content).unwrap();
        }
    }
    drop(auditd);
}

#[test]
fn another_user_is_told_that_only_root_can_ask() {
    let Some(_auditd) = Auditd::without_daemon() else { return };
    let as_nobody = |options: &[&str]| {
        let mut other = Command::new("setpriv");
        other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        // The program may be in a folder that only root can read.
        let copy = tempfile::tempdir().unwrap();
        let program = copy.path().join("forensics");
        fs::copy(forensics(), &program).unwrap();
        run(Command::new("chmod").args(["755"]).arg(copy.path()));
        let output = other.arg(program).arg("audit").args(options).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    };
    let (code, said) = as_nobody(&[]);
    assert!(code == 3 && said.contains("\nloaded: can't tell: "), "{code} {said}");
    for options in [&["--install"][..], &["--remove"]] {
        assert_eq!(as_nobody(options).0, 2, "{options:?}");
    }
    let (code, said) = as_nobody(&["--follow", "/dev/shm/nobody-audit.log"]);
    assert!(code == 2 && said.contains("only root can"), "{code} {said}");
    let _ = fs::remove_file("/dev/shm/nobody-audit.log");
}

#[test]
fn without_auditd_the_events_are_followed_into_a_file() {
    let Some(_auditd) = Auditd::without_daemon() else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let mut follow = Command::new(forensics());
    follow.args(["audit", "--follow"]).arg(&log).stdout(Stdio::piped());
    let mut follow = follow.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(follow.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("writing the events to "), "{line}");

    let mut subject = Subject::start();
    let sender = run(&mut kill(&["-9", &subject.id()]));
    subject.ended_by(SIGKILL);
    until("the event is written", || !senders(&log, subject.records()).is_empty());
    let found = senders(&log, subject.records());
    assert_eq!(found.iter().map(|sent| sent.sender_pid).collect::<Vec<_>>(), [sender]);
    assert!(found[0].sender_cmdline.as_ref().unwrap().starts_with("/bin/kill -9 "), "{found:?}");
    follow.kill().unwrap();
    follow.wait().unwrap();
}
