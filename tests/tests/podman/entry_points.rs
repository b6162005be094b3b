//! What is process 1 of the container: the gateway, an init, a shell, or a process of the host.

use std::process::Command;

use serde_json::Value;

use crate::engine::{Engine, RECORDS, Stopped};

/// Runs the shell command, in which `GATEWAY` stands for the gateway, and stops the container.
fn stopped_shell(engine: &Engine, options: &[&str], command: &str) -> Stopped {
    let command = command.replace("GATEWAY", &format!("/bin/gateway {RECORDS}"));
    let options = [options, &["--entrypoint", r#"["/bin/sh", "-c"]"#]].concat();
    let container = engine.run(&options, &[&command]);
    container.ok(&["stop", "--time=2"]);
    container.wait()
}

#[test]
fn podmans_init_forwards_the_signal_and_the_exit_status() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.run(&["--init"], &[RECORDS]);
    container.ok(&["stop"]);
    let stopped = container.wait();
    let expected = "signal=SIGTERM cause=container_stop under_systemd=no sender_pid=1 \
                    sender_name=podman-init sender_uid=0 sender_forwards=yes parent_pid=1 \
                    parent_name=podman-init ";
    assert!(stopped.context().starts_with(expected), "{}", stopped.context());
    stopped.assert_well();
}

#[test]
fn a_shell_that_execs_the_gateway_makes_no_difference() {
    let Some(engine) = Engine::new() else { return };
    let stopped = stopped_shell(&engine, &[], "true; exec GATEWAY");
    let expected = "signal=SIGTERM cause=container_stop under_systemd=no sender_pid=0 ";
    assert!(stopped.context().starts_with(expected), "{}", stopped.context());
    stopped.assert_well();
}

#[test]
fn below_a_shell_that_is_process_one_the_gateway_gets_no_signal_before_it_is_killed() {
    let Some(engine) = Engine::new() else { return };
    let stopped = stopped_shell(&engine, &[], "GATEWAY; true");
    assert_eq!(stopped.context(), "");
    // The shell ignores SIGTERM, until podman sends it SIGKILL.
    assert_eq!(stopped.state, "137 false");
    assert_eq!(stopped.verdict["outcome"], "vanished", "{}", stopped.verdict);
    assert_eq!(stopped.verdict["cause"], Value::Null, "{}", stopped.verdict);

    // With an init, SIGTERM ends the shell at once, and the kernel kills what is left.
    let stopped = stopped_shell(&engine, &["--init"], "GATEWAY; true");
    assert_eq!(stopped.context(), "");
    assert_eq!(stopped.state, "143 false");
    assert_eq!(stopped.verdict["outcome"], "vanished", "{}", stopped.verdict);
}

#[test]
fn a_shell_that_forwards_the_signal_is_named_as_the_sender() {
    let Some(engine) = Engine::new() else { return };
    let forwards = "trap 'kill -TERM $!; wait $!; exit' TERM; GATEWAY & wait";
    let stopped = stopped_shell(&engine, &[], forwards);
    let expected = "signal=SIGTERM cause=supervisor under_systemd=no sender_pid=1 sender_name=sh \
                    sender_uid=0 parent_pid=1 parent_name=sh ";
    assert!(stopped.context().starts_with(expected), "{}", stopped.context());
    stopped.assert_phases_ok();
    assert_eq!(stopped.verdict["outcome"], "clean", "{}", stopped.verdict);
}

#[test]
fn in_the_hosts_pid_namespace_the_runtime_is_named_as_the_sender() {
    let Some(engine) = Engine::new() else { return };
    for by_a_person in [false, true] {
        let stop = || {
            let container = engine.run(&["--pid=host"], &[RECORDS]);
            let mut stop = container.podman(&["stop"]);
            if by_a_person {
                stop = on_a_terminal(&stop);
            }
            assert!(stop.output().unwrap().status.success());
            container.wait()
        };
        // runc ends at once. On a busy machine it can be gone before the signal handler runs, and then its
        // name is not known.
        let is_named = |stopped: &Stopped| !stopped.context().contains(" sender_gone=yes ");
        let stopped = (0..10).map(|_| stop()).find(is_named).unwrap();
        let context = stopped.context();
        assert!(context.starts_with("signal=SIGTERM cause=container_stop "), "{context}");
        assert!(context.contains(" sender_name=runc sender_uid=0 "), "{context}");
        assert!(context.contains(" parent_name=conmon "), "{context}");
        stopped.assert_well();
    }
}

/// The same command on a new pseudo-terminal.
fn on_a_terminal(command: &Command) -> Command {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script
}
