//! Real inits of containers, which forward signals: tini, dumb-init and catatonit, from Debian. The
//! init is process 1, and receives a signal from outside.

use std::fs;
use std::process::Command;

use forensics_tests::{Ended, Program, can, outcomes, root_can, static_gateway};

use crate::container::gateway_below;

/// `unshare` into a new pid namespace with its own `/proc`.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare
}

fn can_run(init: &str) -> bool {
    root_can(unshare().arg("true")) && can(Command::new(init).arg("-h").arg("--help").arg("true"))
}

/// Starts the gateway below an init, which is process 1, and sends SIGTERM to the init. Returns the
/// output and the termination message. `GATEWAY` in the command is replaced by the gateway with its
/// options.
fn stopped_below(command: &[&str], options: &str) -> (Ended, String) {
    let message = tempfile::NamedTempFile::new().unwrap();
    let gateway = format!(
        "{} --termination-message {} {options}",
        static_gateway().display(),
        message.path().display()
    );
    let command = command.iter().flat_map(|word| match *word {
        "GATEWAY" => gateway.split_whitespace().map(str::to_owned).collect(),
        word => vec![word.replace("GATEWAY", &gateway)],
    });
    let program = Program::start(unshare().args(command));
    program.wait_for_stdout("listening on ");
    let gateway = gateway_below(program.pid());
    let init = fs::read_to_string(format!("/proc/{0}/task/{0}/children", program.pid())).unwrap();
    assert_ne!(init.trim(), gateway.to_string(), "the gateway is the init itself");
    assert!(Command::new("/bin/kill").args(["-TERM", init.trim()]).status().unwrap().success());
    let ended = program.wait();
    (ended, fs::read_to_string(message.path()).unwrap())
}

#[test]
fn a_signal_that_an_init_forwards_is_a_container_stop_and_marked_as_forwarded() {
    for init in ["tini", "tini-static", "dumb-init", "catatonit"] {
        if !can_run(init) {
            continue;
        }
        let (ended, message) = stopped_below(&[init, "--", "GATEWAY"], "");
        assert_eq!(ended.code(), 0, "the init passes on the exit status, too: {}", ended.stderr);
        assert_eq!(ended.phases(), outcomes(["ok", "ok", "ok", "ok"]), "{}", ended.stderr);
        let line = ended.line("Shutdown context: ");
        let expected = format!(
            "Shutdown context: signal=SIGTERM cause=container_stop under_systemd=no sender_pid=1 \
             sender_name={init} sender_uid=0 sender_forwards=yes parent_pid=1 parent_name={init} "
        );
        assert!(line.contains(&expected), "{line}");
        let evidence = format!(
            "cause container_stop: forwarded by the container's init {init}(1), our parent\n\
             sender: {init}(1), uid 0, which forwarded the signal\n"
        );
        assert!(message.contains(&evidence), "{message}");
    }
}

#[test]
fn dumb_init_signals_all_descendants_and_is_recognised_even_if_it_is_not_our_parent() {
    if !can_run("dumb-init") {
        return;
    }
    // A shell that ignores the signal and waits for the gateway.
    let script = "trap : TERM; GATEWAY; true";
    let (ended, message) = stopped_below(&["dumb-init", "--", "bash", "-c", script], "");
    let line = ended.line("Shutdown context: ");
    assert!(line.contains("cause=container_stop"), "{line}");
    assert!(line.contains("sender_name=dumb-init sender_uid=0 sender_forwards=yes"), "{line}");
    assert!(line.contains("parent_name=bash"), "{line}");
    assert!(message.contains("forwarded by the container's init dumb-init(1)\n"), "{message}");
}

#[test]
fn if_process_one_is_a_shell_that_ignores_sigterm_there_is_one_warning() {
    if !root_can(unshare().arg("true")) {
        return;
    }
    let cases: [(&[&str], usize); 4] = [
        // The second command keeps the shell from replacing itself.
        (&["sh", "-c", "GATEWAY; true"], 1),
        (&["bash", "-c", "GATEWAY; true"], 1),
        (&["bash", "-c", "exec GATEWAY"], 0),
        // A handler may forward the signal.
        (&["bash", "-c", "trap 'kill $!' TERM; GATEWAY & wait"], 0),
    ];
    for (command, expected) in cases {
        let gateway = static_gateway().display().to_string();
        let command = command.iter().map(|word| word.replace("GATEWAY", &gateway));
        let program = Program::start(unshare().args(command));
        program.wait_for_stdout("listening on ");
        let pid = gateway_below(program.pid());
        assert!(Command::new("/bin/kill").arg(pid.to_string()).status().unwrap().success());
        let ended = program.wait();
        ended.line("Shutdown complete");
        let warnings = ended.stderr.lines().filter(|line| line.contains(" WARN "));
        let warnings: Vec<_> = warnings.collect();
        assert_eq!(warnings.len(), expected, "{}", ended.stderr);
        assert!(warnings.iter().all(|warning| warning.contains("start this program with `exec`")));
    }
}

#[test]
fn if_an_init_runs_a_shell_the_gateway_is_killed_with_the_init_during_its_teardown() {
    if !can_run("dumb-init") {
        return;
    }
    // The signal kills the shell, then the init ends, and the kernel kills the other processes.
    let shell = ["dumb-init", "--", "sh", "-c", "GATEWAY; true"];
    let (ended, _) = stopped_below(&shell, "--wedge drain");
    assert!(!ended.stderr.contains("Shutdown complete"), "{}", ended.stderr);
    // With `exec` the gateway replaces the shell.
    let (ended, _) = stopped_below(&["dumb-init", "--", "sh", "-c", "exec GATEWAY"], "");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended.line("Shutdown complete");
}
