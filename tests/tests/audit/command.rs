//! `forensics audit`

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use forensics_tests::{copy_program, forensics, until};
use nix::sys::signal::Signal::SIGKILL;

use crate::auditd::{Auditd, auditctl, senders};
use crate::subject::{SUBJECT, Subject, kill, run};

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
        copy_program(forensics(), &program);
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

#[test]
fn last_names_the_sender_and_the_record_keeps_it() {
    let Some(auditd) = Auditd::start() else { return };
    let mut subject = Subject::start();
    let sender = run(&mut kill(&["-9", &subject.id()]));
    subject.ended_by(SIGKILL);
    auditd.settle();
    let last = |options: &[&str]| {
        let mut last = Command::new(forensics());
        let output = last.arg("last").arg(subject.records()).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let log = auditd.log();
    let log = log.to_str().unwrap();
    let parent = std::process::id();
    let said = format!(
        "by the audit log, SIGKILL sent by kill({sender}), /usr/bin/kill, uid 0, parent {parent}"
    );
    let shown = last(&["--audit-log", log]);
    assert!(shown.contains("reason=signal basis=observed:audit_log "), "{shown}");
    assert!(shown.contains(&said), "{shown}");
    // The next reader needs no audit log, and the record is not added to again.
    drop(auditd);
    let again = last(&[]);
    assert!(again.contains(&said), "{again}");
    let json = last(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let witnesses = json["witnesses"].as_array().unwrap();
    assert_eq!(witnesses.len(), 1, "{json}");
    assert_eq!(witnesses[0]["sender_pid"], sender, "{json}");
}

#[test]
fn the_next_start_names_the_sender() {
    let Some(auditd) = Auditd::start() else { return };
    let mut subject = Subject::start();
    let sender = run(&mut kill(&["-9", &subject.id()]));
    subject.ended_by(SIGKILL);
    auditd.settle();
    // Our log is that of the machine for the next run.
    let log = auditd.log();
    let mut next = Command::new("unshare");
    next.args(["--mount", "bash", "-c", "mount --bind $0 /var/log/audit && exec $1"]);
    next.arg(log.parent().unwrap()).arg(SUBJECT);
    next.env("FORENSICS_RECORD_DIR", subject.records()).stderr(Stdio::piped());
    let mut next = next.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(next.stderr.take().unwrap()).lines();
    let said = format!("SIGKILL sent by kill({sender}), /usr/bin/kill, uid 0");
    let line = lines.map_while(Result::ok).find(|line| line.contains("what others report"));
    next.kill().unwrap();
    next.wait().unwrap();
    let line = line.unwrap();
    assert!(line.contains(&said) && line.contains("basis=observed:audit_log"), "{line}");
}
