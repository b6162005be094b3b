//! Supervisors other than systemd: how long each waits before SIGKILL, and the setting for that.

use super::words::shown;
use crate::record::SignalEvent;
use crate::record::post_mortem::Span;
use crate::record::summary::Summary;

/// What a supervisor does after its signal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supervisor {
    /// How the kernel names its process (`/proc/PID/comm`, 15 bytes).
    process: &'static str,
    /// Its name, for people.
    pub(super) name: &'static str,
    /// The setting for how long it waits before SIGKILL.
    pub(super) setting: &'static str,
    /// How long it waits by default, in microseconds. `None` if it does not send SIGKILL by
    /// itself, or if its caller must say how long.
    pub(super) default_us: Option<u64>,
}

const fn row(
    process: &'static str,
    name: &'static str,
    setting: &'static str,
    default_us: Option<u64>,
) -> Supervisor {
    Supervisor { process, name, setting, default_us }
}

const S: u64 = 1_000_000;

/// From their documentation: supervisord.org/configuration.html, pm2.io/docs (graceful shutdown),
/// runsv(8) and sv(8), s6-supervise (timeout-kill), start-stop-daemon(8), timeout(1),
/// docker-stop(1), podman-stop(1), kubelet (terminationGracePeriodSeconds).
const SUPERVISORS: [Supervisor; 12] = [
    row("supervisord", "supervisord", "stopwaitsecs=", Some(10 * S)),
    row("PM2 v", "PM2", "kill_timeout", Some(1_600_000)),
    row("runsv", "runit", "the wait of `sv -w SECONDS force-stop`", None),
    row("s6-supervise", "s6", "the file timeout-kill", None),
    row("start-stop-daem", "start-stop-daemon", "--retry", None),
    row("timeout", "timeout", "-k (--kill-after)", None),
    row("dockerd", "docker", "--stop-timeout, or docker stop --time", Some(10 * S)),
    row("containerd-shim", "containerd", "the stop timeout of its client", None),
    row("podman", "podman", "--stop-timeout, or podman stop --time", Some(10 * S)),
    row("conmon", "podman", "--stop-timeout, or podman stop --time", Some(10 * S)),
    row("runc", "the container runtime", CONTAINER, None),
    row("crun", "the container runtime", CONTAINER, None),
];

const CONTAINER: &str = "its stop timeout (docker or podman stop --time; 10s by default)";

const KUBELET: Supervisor =
    row("kubelet", "the kubelet", "terminationGracePeriodSeconds", Some(30 * S));

const OUTSIDE: Supervisor = row("", "the container runtime", CONTAINER, None);

impl Supervisor {
    /// The supervisor that sent the first signal, by the name of its process.
    pub(super) fn of(run: &Summary<'_>) -> Option<Self> {
        let (_, signal) = run.asked?;
        // What is outside of the pid namespace of a pod is most likely the kubelet's runtime.
        if run.start.pod.is_some() && is_outside(signal) {
            return Some(KUBELET);
        }
        let name = signal.sender_name.as_deref().unwrap_or_default();
        let is = |it: &&Supervisor| match it.process {
            "PM2 v" => name.starts_with(it.process),
            process => name == process,
        };
        let named = SUPERVISORS.iter().find(is).copied();
        let runtime = run.container_end.as_ref().map(|end| end.runtime.as_str());
        let by_runtime = SUPERVISORS.iter().find(|it| Some(it.name) == runtime).copied();
        match named {
            Some(found) => Some(found),
            None if is_outside(signal) => Some(by_runtime.unwrap_or(OUTSIDE)),
            None => None,
        }
    }

    /// What it does after its signal, as a sentence.
    pub(super) fn habit(&self) -> String {
        let (name, setting) = (self.name, self.setting);
        match self.default_us {
            Some(us) => {
                format!("{name} sends SIGKILL after {setting} ({} by default)", Span(us))
            }
            None => format!("{name} sends SIGKILL only as {setting} says"),
        }
    }
}

/// Whether the signal came from outside of the pid namespace of a container.
fn is_outside(signal: &SignalEvent) -> bool {
    signal.cause == "container_stop"
}

/// What to do if process 1 of the container is a shell that started this process. A shell passes
/// no signal on, and when process 1 ends, the kernel kills all others.
pub(super) fn shell_as_process_one(run: &Summary<'_>) -> Option<String> {
    const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "busybox", "ksh", "zsh"];
    let name = run.start.parent_name.as_deref().filter(|name| SHELLS.contains(name))?;
    // Outside of a container, process 1 is an init.
    (run.start.parent_pid == Some(1) && run.start.pid != 1).then(|| {
        format!(
            "its parent was process 1 of the container, the shell {}, which passes no signal on: \
             start it with `exec`, or put an init such as tini in front",
            shown(name)
        )
    })
}
