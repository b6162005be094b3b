//! Senders that are hidden by another pid namespace or by `hidepid=`. These tests need root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use forensics_tests::{Program, root_can};
use forensics_tokio::core::cause::Cause;

use crate::subject::{SUBJECT, Subject, bash, kill};

/// `unshare` into a pid namespace, with more `options`. Its processes end with it.
fn unshare(options: &[&str]) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child"]).args(options);
    // So that it is a container even if these tests run in a systemd service.
    unshare.env("container", "test").env_remove("INVOCATION_ID");
    unshare
}

/// The pid in our namespace of the only child of `program`.
fn only_child(program: &Program) -> u32 {
    let pid = program.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

#[test]
fn a_sender_outside_our_pid_namespace_is_a_container_stop() {
    if !root_can(unshare(&["--mount-proc"]).arg("true")) {
        return;
    }
    let subject = Subject::under(unshare(&["--mount-proc"]).arg(SUBJECT));
    assert_eq!(subject.pid, 1);
    let outside = only_child(&subject.program);
    let (stop, _) = subject.stopped_by(&mut kill("-TERM", outside));
    stop.assert_cause(Cause::ContainerStop, "the sender is outside our pid namespace");
    assert!(stop.line().contains("sender_pid=0 sender_name=? sender_uid=0"), "{}", stop.line());
    assert_eq!(stop.sender().user, None);
}

/// The kernel reports such a user as 65534.
#[test]
fn the_user_of_a_sender_outside_our_user_namespace_is_unknown() {
    let user = ["--reuid=1000", "--regid=1000", "--clear-groups", "unshare", "--user"];
    let in_namespace = || {
        let mut command = Command::new("setpriv");
        command.args(user).arg("--map-root-user");
        command
    };
    if !root_can(in_namespace().arg("true")) {
        return;
    }
    let subject = Subject::under(in_namespace().arg(SUBJECT));
    let mut sender = kill("-TERM", subject.pid);
    let (stop, _) = subject.stopped_by(&mut sender);
    assert!(stop.line().contains(" sender_name=kill sender_uid=? "), "{}", stop.line());
    assert_eq!((stop.sender().process.uid, &stop.sender().user), (None, &None));
}

#[test]
fn a_service_of_systemd_does_not_call_a_sender_outside_its_pid_namespace_a_container() {
    if !root_can(unshare(&["--mount-proc"]).arg("true")) {
        return;
    }
    // As systemd runs a service with PrivatePIDs=.
    let mut service = unshare(&["--mount-proc"]);
    service.env_remove("container").env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
    let subject = Subject::under(service.arg(SUBJECT));
    let outside = only_child(&subject.program);
    let (stop, _) = subject.stopped_by(&mut kill("-TERM", outside));
    let evidence = "outside our pid namespace: systemd, which runs us in ";
    stop.assert_cause(Cause::Unknown, evidence);
    assert!(stop.line().contains("sender_pid=0 sender_name=? sender_uid=0"), "{}", stop.line());
}

#[test]
fn no_sender_is_named_from_a_proc_of_another_pid_namespace() {
    if !root_can(unshare(&[]).arg("true")) {
        return;
    }
    // Its /proc is still ours. There, process 1 is not the shell that is process 1 in the new
    // namespace.
    let script = "trap 'kill -TERM $!' USR1; \"$0\" & wait; wait";
    let subject = Subject::under(unshare(&[]).args(["bash", "-c", script, SUBJECT]));
    let shell = only_child(&subject.program);
    let (stop, _) = subject.stopped_by(&mut kill("-USR1", shell));
    assert_eq!(stop.field("sender_pid").as_deref(), Some("1"));
    assert_eq!(stop.field("sender_name").as_deref(), Some("?"));
    assert_eq!(stop.field("sender_hidden").as_deref(), Some("yes"));
    assert_eq!(stop.field("sender_parent"), None);
    assert_eq!(stop.field("parent_name").as_deref(), Some("?"));
    stop.assert_cause(Cause::Supervisor, "the sender ?(1) is our parent");
}

#[test]
fn a_sender_that_hidepid_hides_is_reported_as_hidden() {
    const AS_NOBODY: &str = "mount -t proc -o hidepid=2 proc /proc && \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$0\"";
    let as_nobody = |program: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", AS_NOBODY, program]);
        unshare
    };
    if !root_can(&mut as_nobody("true")) {
        return;
    }
    // A folder from which every user can run it.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("subject");
    // By cp(1): a child that another test starts meanwhile would inherit our descriptor, and a file
    // that is open for writing cannot be run.
    assert!(
        Command::new("cp").args([SUBJECT.as_ref(), program.as_path()]).status().unwrap().success()
    );

    let subject = Subject::under(&mut as_nobody(program.to_str().unwrap()));
    let pid = subject.pid;
    let (stop, sender) = subject.stopped_by(&mut bash("kill -TERM $1; read -r _ || true", pid));
    assert!(
        stop.line()
            .contains(&format!("sender_pid={sender} sender_name=? sender_hidden=yes sender_uid=0")),
        "{}",
        stop.line()
    );
    assert_eq!(stop.field("sender_parent"), None);
    stop.assert_cause(
        Cause::Unknown,
        &format!("sent by pid {sender}, about which nothing could be read: hidden"),
    );
}
