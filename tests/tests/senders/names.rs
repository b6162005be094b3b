//! A name, a login or a session that a sender has or had does not decide the cause alone.

use forensics_tests::root_can;
use forensics_tokio::core::cause::Cause;

use crate::subject::{Subject, bash, our_uid, this_test};

#[test]
fn a_stranger_with_the_name_of_an_init_or_a_daemon_is_a_process() {
    for name in ["tini", "dumb-init", "catatonit", "docker-init", "systemd", "earlyoom"] {
        let subject = Subject::start(&[]);
        let script = format!("printf {name} >/proc/$$/comm; kill -TERM $1; read -r _ || true");
        let mut sender = bash(&script, subject.pid);
        let (stop, pid) = subject.stopped_by(&mut sender);
        let is_oom_daemon = name == "earlyoom" && our_uid() == 0;
        if is_oom_daemon {
            stop.assert_cause(Cause::Process, &format!("sent by earlyoom({pid}), root's daemon"));
        } else {
            stop.assert_sent_by(&format!("{name}({pid})"));
        }
        assert!(!stop.sender().forwards, "{name}");
    }
}

#[test]
fn an_ancestor_with_the_name_of_an_init_forwards() {
    let script = "printf tini >/proc/$$/comm; trap 'kill -TERM $!' USR1; \"$0\" & wait; wait";
    let mut init = std::process::Command::new("bash");
    let subject = Subject::under(init.args(["-c", script, crate::subject::SUBJECT]));
    let init = subject.program.pid();
    subject.program.kill("-USR1");
    let stop = subject.stopped();
    stop.assert_cause(Cause::ContainerStop, &format!("init tini({init}), our parent"));
    assert!(stop.sender().forwards);
}

#[test]
fn a_login_session_counts_only_while_its_login_program_runs() {
    const LOGIN: &str = "echo 1234 >/proc/self/loginuid || exit 1\n";
    if !root_can(&mut bash(LOGIN, 0)) {
        return;
    }
    let subject = Subject::start(&[]);
    let script = format!("bash -c '{LOGIN} kill -TERM $1; read -r _ || true' bash $1; true");
    let mut sender = bash(&script, subject.pid);
    let (stop, login) = subject.stopped_by(&mut sender);
    if this_test().tty.is_none() {
        stop.assert_cause(Cause::Operator, "has no terminal, but login session ");
        assert!(stop.evidence().ends_with(&format!(" of uid 1234, started by bash({login})")));
    }

    // The login ends, and the daemon is adopted.
    let subject = Subject::start(&[]);
    let daemon = "while read -r _ _ _ ppid _ </proc/$$/stat; [ $ppid = $2 ]; do sleep 0.01; done
        kill -TERM $1; read -r _ <&3";
    let script = format!("{LOGIN} exec 3<&0; setsid bash -c '{daemon}' bash $1 $$ &");
    let mut sender = bash(&script, subject.pid);
    let (stop, _) = subject.stopped_by(&mut sender);
    stop.assert_cause(Cause::Process, "which has no terminal. It has login session ");
    assert!(
        stop.evidence().contains(" of uid 1234, but it may be a daemon"),
        "{}",
        stop.evidence()
    );
}
