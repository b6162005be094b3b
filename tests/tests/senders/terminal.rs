//! Signals from a terminal, here a pseudo terminal of the test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_tokio::core::cause::Cause;
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};

use crate::subject::{SUBJECT, Subject};

/// The master end of a new pseudo terminal, and the path of the other end.
fn terminal() -> (PtyMaster, PathBuf) {
    // Not openpty(3): a child that another test starts meanwhile would inherit the master, and the
    // terminal would not hang up.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname_r(&master).unwrap().into();
    (master, path)
}

/// `bash -c SCRIPT ARGUMENT` as the leader of a new session with the terminal at `path`, which is
/// also its input.
fn on_terminal(path: &Path, script: &str, argument: &str) -> Command {
    let mut command = Command::new("sh");
    let start = "exec setsid --ctty bash -c \"$1\" \"$2\" <\"$0\"";
    command.args(["-c", start]).arg(path).args([script, argument]);
    command
}

#[test]
fn a_key_and_a_hangup_of_the_terminal_come_from_the_kernel() {
    type Act = fn(PtyMaster) -> Option<PtyMaster>;
    let cases: [(Act, &str, Cause, &str); 3] = [
        (|master| pressed(master, 0x03), "SIGINT", Cause::CtrlC, "a key at the terminal"),
        (|master| pressed(master, 0x1c), "SIGQUIT", Cause::CtrlC, "a key at the terminal"),
        (|_closed| None, "SIGHUP", Cause::Hangup, "the terminal hung up"),
    ];
    for (act, signal, cause, evidence) in cases {
        let (master, path) = terminal();
        let subject = Subject::under(&mut on_terminal(&path, "exec \"$0\"", SUBJECT));
        let _kept_open = act(master);
        let stop = subject.stopped();
        stop.assert_cause(cause, &format!("{signal} from the kernel: {evidence}"));
        assert_eq!(stop.field("signal").as_deref(), Some(signal));
        assert_eq!(stop.field("sender_pid"), None);
    }
}

fn pressed(mut master: PtyMaster, key: u8) -> Option<PtyMaster> {
    master.write_all(&[key]).unwrap();
    Some(master)
}

#[test]
fn a_hangup_that_the_session_leader_forwards_is_a_hangup() {
    let (master, path) = terminal();
    let script = "trap 'kill -HUP $!' HUP; \"$0\" & wait; wait";
    let subject = Subject::under(&mut on_terminal(&path, script, SUBJECT));
    let leader = subject.program.pid();
    drop(master);
    let stop = subject.stopped();
    let evidence =
        format!("SIGHUP from our session's leader bash({leader}), whose terminal hung up");
    stop.assert_cause(Cause::Hangup, &evidence);
}

#[test]
fn a_sighup_of_a_session_leader_whose_terminal_is_there_or_never_was_is_no_hangup() {
    let script = "trap 'kill -HUP $!' USR1; \"$0\" & wait; wait";
    let (_master, path) = terminal();
    let mut without_terminal = Command::new("setsid");
    without_terminal.args(["bash", "-c", script, SUBJECT]);
    for mut bash in [on_terminal(&path, script, SUBJECT), without_terminal] {
        let subject = Subject::under(&mut bash);
        let leader = subject.program.pid();
        subject.program.kill("-USR1");
        let stop = subject.stopped();
        stop.assert_cause(Cause::Supervisor, &format!("the sender bash({leader}) is our parent"));
    }
}

#[test]
fn a_sender_at_a_terminal_is_an_operator() {
    let (master, path) = terminal();
    let subject = Subject::start(&[]);
    let script = "kill -TERM $0; read -r _ || true";
    let (name, pid) = (path.strip_prefix("/dev").unwrap().display(), subject.pid.to_string());
    let mut shell = on_terminal(&path, script, &pid).spawn().unwrap();
    let stop = subject.stopped();
    let shell_pid = shell.id();
    stop.assert_cause(Cause::Operator, &format!("the sender bash({shell_pid}) runs on {name}"));
    drop(master);
    shell.wait().unwrap();
}
