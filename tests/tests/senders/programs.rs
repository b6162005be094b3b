//! Programs that send signals.

use std::process::Command;

use forensics_tests::can;
use forensics_tokio::core::cause::Cause;

use crate::subject::{KILL_AND_EXIT, Lingering, Stop, Subject, bash, kill, our_uid, this_test};

/// Starts a subject and stops it by the command that `sender` returns for its pid.
fn stopped_by(sender: impl FnOnce(u32) -> Command) -> (Stop, u32) {
    let subject = Subject::start(&[]);
    let pid = subject.pid;
    subject.stopped_by(&mut sender(pid))
}

fn kill_and_exit(pid: u32) -> Command {
    let mut command = Command::new(KILL_AND_EXIT);
    command.arg(pid.to_string());
    command
}

#[test]
fn a_program_that_kills_is_named_with_its_parent_and_user() {
    type Sender = fn(u32) -> Command;
    let cases: [(Sender, &str); 3] = [
        (|pid| kill("-TERM", pid), "kill"),
        (kill_and_exit, "kill_and_exit"),
        (|pid| bash("kill -TERM $1; read -r _ || true", pid), "bash"),
    ];
    for (sender, name) in cases {
        let (stop, pid) = stopped_by(sender);
        let (us, uid) = (this_test(), our_uid());
        stop.assert_sender(&format!(
            "sender_pid={pid} sender_name={name} sender_uid={uid} sender_parent={us}"
        ));
        stop.assert_sent_by(&format!("{name}({pid})"));
        assert_eq!(stop.sender().parent().unwrap().start_time, us.start_time);
    }
}

#[test]
fn a_living_sender_shows_its_command_line_and_a_dead_one_none() {
    let (stop, _) = stopped_by(|pid| bash("kill -TERM $1; read -r _ || true", pid));
    let cmdline = stop.field("sender_cmdline").unwrap();
    assert!(cmdline.starts_with("bash -c kill -TERM $1; read"), "{cmdline}");
    let exe = stop.sender().exe.clone().unwrap();
    assert!(exe.ends_with("/bash"), "{exe}");

    // Stopped until the sender has ended, so that the sender is dead when its name is read.
    let subject = Subject::start(&[]);
    subject.pause();
    let killer = Lingering::start(&mut kill("-TERM", subject.pid));
    killer.wait_for_exit();
    subject.resume();
    let stop = subject.stopped();
    assert_eq!(stop.sender().process.state, Some('Z'));
    assert_eq!(stop.field("sender_name").as_deref(), Some("kill"));
    assert_eq!(stop.field("sender_cmdline"), None);
    assert_eq!(stop.sender().exe, None);
    killer.end();
}

#[test]
fn a_subshells_kill_is_named_with_the_shell_that_ran_it() {
    // Because of the second command the shell runs a real subshell, instead of execing the first
    // one.
    let (stop, shell) = stopped_by(|pid| bash("(kill -TERM $1; read -r _); true", pid));
    let sender = stop.sender().process.pid;
    assert_ne!(sender as u32, shell);
    stop.assert_sender(&format!(
        "sender_pid={sender} sender_name=bash sender_uid={} sender_parent=bash({shell})",
        our_uid()
    ));
    let ancestors: Vec<i32> = stop.sender().ancestors.iter().map(|who| who.pid).collect();
    assert_eq!(ancestors[..2], [shell as i32, std::process::id() as i32]);
}

#[test]
fn a_script_is_named_by_its_interpreter() {
    if !can(Command::new("python3").args(["-c", ""])) {
        return;
    }
    let (stop, sender) = stopped_by(|pid| {
        let mut python = Command::new("python3");
        python.args(["-c", "import os, sys; os.kill(int(sys.argv[1]), 15)", &pid.to_string()]);
        python
    });
    let name = stop.field("sender_name").unwrap();
    assert!(name.starts_with("python"), "{name}");
    stop.assert_sender(&format!(
        "sender_pid={sender} sender_name={name} sender_uid={} sender_parent={}",
        our_uid(),
        this_test()
    ));
}

#[test]
fn a_sender_that_is_gone_is_reported_as_gone() {
    let subject = Subject::start(&[]);
    subject.pause();
    let mut killer = kill("-TERM", subject.pid).spawn().unwrap();
    let pid = killer.id();
    assert!(killer.wait().unwrap().success());
    subject.resume();
    let stop = subject.stopped();
    stop.assert_sender(&format!(
        "sender_pid={pid} sender_name=? sender_gone=yes sender_uid={}",
        our_uid()
    ));
    stop.assert_cause(
        Cause::Unknown,
        &format!("pid {pid}, about which nothing could be read: gone"),
    );
}

#[test]
fn a_hostile_name_neither_forges_a_field_nor_shifts_one() {
    let cases = [("k) S 1 1 (x=y", r#""k) S 1 1 (x=y""#), ("a\ncause=x", r#""a\ncause=x""#)];
    let dir = tempfile::tempdir().unwrap();
    for (name, shown) in cases {
        let program = dir.path().join(name);
        std::os::unix::fs::symlink(KILL_AND_EXIT, &program).unwrap();
        let (stop, pid) = stopped_by(|pid| {
            let mut command = Command::new(&program);
            command.arg(pid.to_string());
            command
        });
        assert_eq!(stop.sender().process.name.as_deref(), Some(name));
        stop.assert_sender(&format!(
            "sender_pid={pid} sender_name={shown} sender_uid={} sender_parent={}",
            our_uid(),
            this_test()
        ));
    }
}

/// Sends a signal with a siginfo that we write, by `rt_sigqueueinfo(2)`: `code`, pid 1, uid 0.
fn forged(code: i32, pid: u32) -> Command {
    const FORGE: &str = "
import ctypes, os, platform, struct, sys
number = {'x86_64': 129, 'aarch64': 138, 'riscv64': 138}[platform.machine()]
code, pid = int(sys.argv[1]), int(sys.argv[2])
info = struct.pack('iii4xii', 15, 0, code, 1, 0).ljust(128, b'\\0')
sys.exit(ctypes.CDLL(None).syscall(number, pid, 15, info) != 0)
";
    let mut python = Command::new("python3");
    python.args(["-c", FORGE, &code.to_string(), &pid.to_string()]);
    python
}

#[test]
fn what_a_sender_can_write_itself_is_never_used_as_a_name() {
    const SI_QUEUE: i32 = -1;
    const SI_TIMER: i32 = -2;
    const SI_MESGQ: i32 = -3;
    if !can(Command::new("python3").args(["-c", "import ctypes"])) {
        return;
    }
    let (stop, _) = stopped_by(|pid| forged(SI_QUEUE, pid));
    stop.assert_cause(Cause::Unverified, "SI_QUEUE: the sender itself chose pid 1");
    stop.assert_sender("sender_pid=1 sender_name=? sender_unverified=yes sender_uid=0");
    assert_eq!(stop.sender().user, None);

    let (stop, _) = stopped_by(|pid| forged(SI_TIMER, pid));
    stop.assert_cause(Cause::Timer, "unless a sender forged it");
    assert_eq!(stop.field("sender_pid"), None);

    let (stop, _) = stopped_by(|pid| forged(SI_MESGQ, pid));
    stop.assert_cause(Cause::Unknown, "SIGTERM with si_code Other(-3)");
    assert_eq!(stop.field("sender_pid"), None);
}

#[test]
fn a_password_on_the_senders_command_line_is_in_no_log_and_no_report() {
    let (stop, _) = stopped_by(|pid| {
        let mut sender = bash("kill -TERM $1; read -r _ || true", pid);
        sender.args(["--password", "hunter2", "https://ops:hunter2@db"]);
        sender
    });
    let cmdline = stop.field("sender_cmdline").unwrap();
    assert!(cmdline.ends_with("--password *** https://ops:***@db"), "{cmdline}");
    assert!(!serde_json::to_string(stop.sender()).unwrap().contains("hunter2"));
}
