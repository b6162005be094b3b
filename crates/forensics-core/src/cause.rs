//! The cause of a stop, in one word, with the evidence.
//!
//! The first matching row of this table decides. It uses only plain data, so each row can be
//! tested. It names its evidence, so a reader can check it.
//!
//! | cause | evidence |
//! |---|---|
//! | `requested` | the program asked, with a reason |
//! | `service_ended` | the service's own future ended |
//! | `timer` | `SI_TIMER` |
//! | `ctrl_c` | `SI_KERNEL` with SIGINT or SIGQUIT |
//! | `hangup` | SIGHUP with `SI_KERNEL`, or from our session leader, which had a terminal and has none any more (an interactive bash forwards it) |
//! | `self_sent` | the sender is this process |
//! | `unverified` | `SI_QUEUE`, where the sender itself chose pid and uid |
//! | `parent_died` | the signal is our parent-death signal, from the process that was our parent |
//! | `container_stop` | the sender is outside our pid namespace, and we are not a service of systemd; or it is a container's init; or it is a container runtime |
//! | `watchdog` | SIGABRT from the service manager, and a watchdog message may be overdue |
//! | `systemd` | from the service manager: process 1, or the user manager that owns our cgroup |
//! | `reboot` | from process 1, if that is systemd-shutdown |
//! | `supervisor` | from our parent, if that is not systemd |
//! | `operator` | the sender or an ancestor has a terminal, or the sender is in a login session whose login program still runs |
//! | `process` | any other sender with a name |
//! | `unknown` | nothing else matched |
//!
//! # Names
//!
//! A process chooses its own name, so a name never decides alone:
//!
//! | name | what else is required |
//! |---|---|
//! | a container's init (`CONTAINER_INITS`) | it is process 1 of our pid namespace, or one of our ancestors |
//! | a container runtime (`CONTAINER_RUNTIMES`) | it is one of our ancestors; or its user is root, and we are in a container |
//! | `systemd-shutdown`, as the kernel cuts it | it is process 1 |
//! | `systemd` | it is process 1; or it is in the control group of our user manager |
//! | an OOM daemon (`OOM_DAEMONS`) | it is in the service of that name of the system manager, or its user is root |
//!
//! [`Cause::Reboot`] also replaces `systemd` if the manager, which is asked later, says that the
//! whole system is going down.

use serde::{Deserialize, Serialize};

use crate::capture::{SiCode, Signal};
use crate::context::{Sender, Trigger};
use crate::process::ProcessSummary;
use crate::systemd::{CgroupUnit, Manager};

/// Why we stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// Ctrl-C or Ctrl-\ at our terminal.
    CtrlC,
    /// Our terminal hung up.
    Hangup,
    /// We signalled ourselves.
    SelfSent,
    /// A timer of this process expired.
    Timer,
    /// A sender that could put any pid into the signal.
    Unverified,
    /// Our parent died, and we had asked for a signal when it does.
    ParentDied,
    /// The container's runtime, or its init.
    ContainerStop,
    /// The service manager stops our unit.
    Systemd,
    /// The service manager takes the whole system down.
    Reboot,
    /// The service manager received no watchdog message in time.
    Watchdog,
    /// Our parent, which is not systemd.
    Supervisor,
    /// A person, at a terminal or through a login session.
    Operator,
    /// Some other process.
    Process,
    /// The program itself, through `request_shutdown`.
    Requested,
    /// The service's future ended by itself.
    ServiceEnded,
    /// The cause is not known.
    Unknown,
}

impl Cause {
    /// Whether the sender's ancestors decided this, or could decide otherwise.
    pub(crate) fn may_depend_on_ancestors(self) -> bool {
        matches!(self, Cause::Operator | Cause::Process | Cause::Unknown)
    }
}

display_as_in_json!(Cause);

/// A cause and the evidence for it.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseDecision {
    /// The cause.
    pub cause: Cause,
    /// The evidence, as text for people. It contains text from other processes: escape it.
    pub evidence: String,
}

/// The facts that decide the cause besides the trigger, the sender and our process. Readers of a
/// record do not need them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Basis {
    /// How the signal was sent; absent if the handler did not see it.
    pub(crate) code: Option<SiCode>,
    /// Whether the signal is the one that `PR_SET_PDEATHSIG` asks for when the parent dies.
    pub(crate) is_parent_death_signal: bool,
    /// The process that was our parent at the start.
    pub(crate) first_parent: Option<i32>,
    /// Whether we are in a pid namespace below the machine's own.
    pub(crate) in_pid_namespace: bool,
    /// Whether we are in a container, which may share the machine's pid namespace.
    pub(crate) in_container: bool,
    /// Whether the sender is our parent, or was one of our ancestors at the start.
    pub(crate) is_ancestor: bool,
    /// Whether a watchdog message may be overdue.
    pub(crate) has_watchdog: bool,
    /// Whether we are a service of systemd. The pid namespace can then be the unit's own
    /// (`PrivatePIDs=`).
    pub(crate) is_service: bool,
}

/// The names of inits of containers that forward signals. `docker-init` is docker's tini,
/// `podman-init` is podman's catatonit.
const CONTAINER_INITS: [&str; 6] =
    ["tini", "tini-static", "docker-init", "dumb-init", "catatonit", "podman-init"];

/// The names of daemons that end processes to free memory.
const OOM_DAEMONS: [&str; 3] = ["earlyoom", "systemd-oomd", "nohang"];

/// The names of the programs by which podman, docker and Kubernetes send a signal. The last one is
/// as long as the kernel stores names.
pub(crate) const CONTAINER_RUNTIMES: [&str; 4] = ["runc", "crun", "conmon", "containerd-shim"];

/// The name of process 1 after systemd has executed systemd-shutdown, as the kernel cuts it.
const SYSTEMD_SHUTDOWN: &str = "systemd-shutdow";

/// Decides the cause by the table above.
pub(crate) fn decide(
    trigger: &Trigger,
    sender: Option<&Sender>,
    process: &ProcessSummary,
    known: Basis,
) -> CauseDecision {
    let (cause, evidence) = match trigger {
        Trigger::Request { reason } => (Cause::Requested, format!("requested: {reason}")),
        Trigger::ServiceEnded { error } => {
            let how = error.as_ref().map_or("ended".to_owned(), |error| format!("failed: {error}"));
            (Cause::ServiceEnded, format!("the service's future {how}"))
        }
        Trigger::Signal { signal } => match known.code {
            Some(code) => of_signal(*signal, code, sender, process, known),
            None => (Cause::Unknown, "the signal handler did not see the signal".to_owned()),
        },
    };
    CauseDecision { cause, evidence }
}

fn of_signal(
    signal: Signal,
    code: SiCode,
    sender: Option<&Sender>,
    us: &ProcessSummary,
    known: Basis,
) -> (Cause, String) {
    match code {
        // A process that may signal us can choose any negative `si_code` except `SI_TKILL`
        // (`rt_sigqueueinfo(2)`).
        SiCode::Timer => {
            let evidence = "SI_TIMER: a timer of this process, unless a sender forged it";
            return (Cause::Timer, evidence.to_owned());
        }
        SiCode::Kernel if matches!(signal, Signal::INT | Signal::QUIT) => {
            return (Cause::CtrlC, format!("{signal} from the kernel: a key at the terminal"));
        }
        SiCode::Kernel if signal == Signal::HUP => {
            return (Cause::Hangup, "SIGHUP from the kernel: the terminal hung up".to_owned());
        }
        _ => {}
    }
    let Some(sender) = sender else {
        return (Cause::Unknown, format!("{signal} with si_code {code:?}"));
    };
    let who = &sender.process;
    // A process outside our pid namespace has pid 0 in it. So parent, session leader and sender can
    // all be 0 and be different processes.
    let is = |pid: Option<i32>| pid.is_some_and(|pid| pid > 0 && sender.is(pid));
    let is_parent = is(us.ppid);
    // The kernel takes the terminal away before it signals the leader.
    let has_hung_up = us.tty.is_some() && who.tty.is_none() && who.start_time.is_some();
    if signal == Signal::HUP && is(us.session) && who.pid != us.pid && has_hung_up {
        (Cause::Hangup, format!("SIGHUP from our session's leader {who}, whose terminal hung up"))
    } else if is(Some(us.pid)) {
        (Cause::SelfSent, "the sender is this process".to_owned())
    } else if !sender.is_verified() {
        (Cause::Unverified, format!("SI_QUEUE: the sender itself chose pid {}", who.pid))
    } else if known.is_parent_death_signal
        && known.first_parent == Some(who.pid)
        // The kernel gives us a new parent before it sends the signal. If the sender is still our
        // parent, it has signalled us by kill(2), as a supervisor does.
        && !is_parent
    {
        (Cause::ParentDied, format!("the parent-death signal of pid {}, our parent", who.pid))
    } else if who.pid == 0 && known.in_pid_namespace {
        let evidence = "the sender is outside our pid namespace";
        if known.is_service {
            let unit = us.unit.as_ref().map_or("a unit", |unit| unit.unit.as_str());
            let who =
                format!("systemd, which runs us in {unit}, or another process of the machine");
            (Cause::Unknown, format!("{evidence}: {who}"))
        } else {
            (Cause::ContainerStop, evidence.to_owned())
        }
    } else if sender.forwards {
        let parent = if is_parent { ", our parent" } else { "" };
        (Cause::ContainerStop, format!("forwarded by the container's init {who}{parent}"))
    } else if is_container_runtime(who)
        && (known.is_ancestor || (known.in_container && who.uid == Some(0)))
    {
        // Checked before `operator`: a person at a terminal may have run `podman stop`, but it is
        // the runtime that stops us, and it may repeat its signal.
        (Cause::ContainerStop, format!("sent by the container runtime {who}"))
    } else if who.pid == 1 && who.name.as_deref() == Some(SYSTEMD_SHUTDOWN) {
        (Cause::Reboot, format!("sent by {who}, which ends all processes that are left"))
    } else if let Some(manager) = service_manager(who, us.unit.as_ref()) {
        match signal {
            Signal::ABRT if known.has_watchdog => {
                (Cause::Watchdog, format!("SIGABRT from {manager}"))
            }
            _ => (Cause::Systemd, format!("sent by {manager}")),
        }
    } else if let Some(evidence) = oom_daemon(who) {
        (Cause::Process, evidence)
    } else if is_parent {
        // When the thread that started us ends, the parent-death signal is sent too, and looks the
        // same (prctl(2)).
        let thread = ", or its thread that started us has ended";
        let thread = if known.is_parent_death_signal { thread } else { "" };
        (Cause::Supervisor, format!("the sender {who} is our parent{thread}"))
    } else if let Some(presence) = person(sender) {
        (Cause::Operator, presence)
    } else if let (Some(_), Some(session)) = (&who.name, login_session(who)) {
        let no_proof = "it may be a daemon that has kept it, or a cron job";
        (
            Cause::Process,
            format!("sent by {who}, which has no terminal. It has {session}, but {no_proof}"),
        )
    } else if who.name.is_some() {
        (Cause::Process, format!("sent by {who}, which has no terminal and no login session"))
    } else {
        let why = sender.absence.map(|why| format!(": {why:?}").to_ascii_lowercase());
        let why = why.unwrap_or_default();
        (Cause::Unknown, format!("sent by pid {}, about which nothing could be read{why}", who.pid))
    }
}

/// Whether this is a container's init that forwards signals.
pub(crate) fn is_container_init(who: &ProcessSummary, is_ancestor: bool) -> bool {
    has_name(who, &CONTAINER_INITS) && (who.pid == 1 || is_ancestor)
}

/// Whether `who` has the name of a container runtime.
pub(crate) fn is_container_runtime(who: &ProcessSummary) -> bool {
    has_name(who, &CONTAINER_RUNTIMES)
}

/// Whether `who` has the name of an OOM daemon.
pub(crate) fn has_name_of_oom_daemon(who: &ProcessSummary) -> bool {
    has_name(who, &OOM_DAEMONS)
}

fn has_name(who: &ProcessSummary, names: &[&str]) -> bool {
    who.name.as_deref().is_some_and(|name| names.contains(&name))
}

/// The evidence that an OOM daemon sent the signal.
fn oom_daemon(who: &ProcessSummary) -> Option<String> {
    let unit = who.unit.as_ref().filter(|unit| unit.manager == Manager::System);
    let service = unit.and_then(|unit| unit.unit.strip_suffix(".service"));
    // nohang has a second unit, and can have the name of its interpreter.
    let service = service.map(|name| name.strip_suffix("-desktop").unwrap_or(name));
    if let Some(service) = service.filter(|name| OOM_DAEMONS.contains(name)) {
        return Some(format!(
            "sent by {who} of {service}.service, which ends processes to free memory"
        ));
    }
    let is_daemon = has_name_of_oom_daemon(who) && who.uid == Some(0);
    is_daemon.then(|| format!("sent by {who}, root's daemon that ends processes to free memory"))
}

/// The name of the service manager, if `who` is one that could stop us.
fn service_manager(who: &ProcessSummary, our_unit: Option<&CgroupUnit>) -> Option<String> {
    let named_systemd = who.name.as_deref() == Some("systemd");
    if who.pid == 1 {
        // If `hidepid=` hides process 1, it is enough that we are a unit of the system manager.
        let hidden =
            who.name.is_none() && our_unit.is_some_and(|unit| unit.manager == Manager::System);
        return (named_systemd || hidden).then(|| "systemd(1)".to_owned());
    }
    let (ours, its_own) = (our_unit?.manager, who.unit.as_ref()?);
    // The user manager is in `init.scope` below its own user@UID.service.
    let manages_us = matches!(ours, Manager::User { .. })
        && its_own.manager == ours
        && its_own.unit == "init.scope";
    (named_systemd && manages_us).then(|| format!("the user manager systemd({})", who.pid))
}

/// The evidence that a person sent the signal.
fn person(sender: &Sender) -> Option<String> {
    let who = &sender.process;
    let by_tty = |role: &str, process: &ProcessSummary| {
        Some(format!("the {role} {process} runs on {}", process.tty.as_ref()?))
    };
    let mut ancestors = sender.ancestors.iter();
    by_tty("sender", who)
        .or_else(|| ancestors.find_map(|ancestor| by_tty("sender's ancestor", ancestor)))
        .or_else(|| {
            let login = login_program(sender)?;
            let session = login_session(who)?;
            Some(format!("the sender {who} has no terminal, but {session}, started by {login}"))
        })
}

/// The login session in which a process was started.
fn login_session(who: &ProcessSummary) -> Option<String> {
    let user = who.login_uid.map(|uid| format!(" of uid {uid}")).unwrap_or_default();
    Some(format!("login session {}{user}", who.login_session?))
}

/// The program that started the sender's login session, such as sshd, if it still runs.
///
/// A daemon keeps the login session in which it was started. It then is a service, or after the logout
/// process 1 or the user manager adopts it.
fn login_program(sender: &Sender) -> Option<&ProcessSummary> {
    let session = sender.process.login_session?;
    let unit = sender.process.unit.as_ref();
    let is_service = unit.is_some_and(|unit| unit.unit.ends_with(".service"));
    let outside = sender.ancestors.iter().find(|it| it.login_session != Some(session));
    let adopts = |it: &ProcessSummary| it.pid == 1 || has_name(it, &["systemd"]);
    outside.filter(|it| !is_service && !adopts(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::SnapshotError;

    const US: i32 = 500;
    const PARENT: i32 = 400;
    const ANCESTOR: i32 = 350;

    /// A process with a name and nothing else.
    fn named(pid: i32, name: &str) -> ProcessSummary {
        ProcessSummary { name: Some(name.to_owned()), ..ProcessSummary::unknown(pid) }
    }

    fn system_unit() -> Option<CgroupUnit> {
        Some(CgroupUnit { unit: "gateway.service".into(), manager: Manager::System })
    }

    fn user_unit(unit: &str, uid: u32) -> Option<CgroupUnit> {
        Some(CgroupUnit { unit: unit.into(), manager: Manager::User { uid } })
    }

    /// A signal to the process `US`. Each row of the table changes it.
    struct Case {
        signal: Signal,
        code: SiCode,
        sender: ProcessSummary,
        ancestors: Vec<ProcessSummary>,
        absence: Option<SnapshotError>,
        unit: Option<CgroupUnit>,
        is_parent_death_signal: bool,
        in_pid_namespace: bool,
        in_container: bool,
        is_service: bool,
        has_watchdog: bool,
        /// Our current parent.
        ppid: i32,
        session: i32,
        tty: Option<&'static str>,
    }

    fn from(sender: ProcessSummary) -> Case {
        Case {
            signal: Signal::TERM,
            code: SiCode::User,
            sender,
            ancestors: Vec::new(),
            absence: None,
            unit: None,
            is_parent_death_signal: false,
            in_pid_namespace: false,
            in_container: false,
            is_service: false,
            has_watchdog: true,
            ppid: PARENT,
            session: 300,
            tty: None,
        }
    }

    fn decision(case: &Case) -> CauseDecision {
        let is_ancestor = [PARENT, ANCESTOR].contains(&case.sender.pid);
        let sender = Sender {
            absence: case.absence,
            forwards: is_container_init(&case.sender, is_ancestor),
            ancestors: case.ancestors.clone(),
            ..Sender::new(case.sender.clone(), case.code)
        };
        let process = ProcessSummary {
            ppid: Some(case.ppid),
            session: Some(case.session),
            tty: case.tty.map(str::to_owned),
            unit: case.unit.clone(),
            ..named(US, "gateway")
        };
        let basis = Basis {
            code: Some(case.code),
            is_parent_death_signal: case.is_parent_death_signal,
            first_parent: Some(PARENT),
            in_pid_namespace: case.in_pid_namespace,
            in_container: case.in_container,
            is_ancestor,
            has_watchdog: case.has_watchdog,
            is_service: case.is_service,
        };
        let sender = case.code.has_sender().then_some(&sender);
        decide(&Trigger::Signal { signal: case.signal }, sender, &process, basis)
    }

    #[test]
    fn each_row_of_the_table_is_decided_by_its_evidence() {
        let with_tty = |name| ProcessSummary { tty: Some("pts/1".into()), ..named(77, name) };
        let logged_in = || ProcessSummary {
            login_session: Some(3),
            login_uid: Some(1000),
            ..named(77, "kill")
        };
        let inside = |pid, name| ProcessSummary { login_session: Some(3), ..named(pid, name) };
        let of_root = |name| ProcessSummary { uid: Some(0), ..named(77, name) };
        let of_unit = |name, unit| ProcessSummary { unit, ..named(77, name) };
        let service = |name: &str| Some(CgroupUnit { unit: name.into(), manager: Manager::System });
        let leader = |tty: Option<&str>| ProcessSummary {
            start_time: Some(9),
            tty: tty.map(str::to_owned),
            ..named(300, "bash")
        };
        let hangup = |sender| Case { signal: Signal::HUP, tty: Some("pts/1"), ..from(sender) };
        let manager_of =
            |uid| ProcessSummary { unit: user_unit("init.scope", uid), ..named(77, "systemd") };
        let kernel = |signal| Case { signal, code: SiCode::Kernel, ..from(named(0, "")) };
        let cases = [
            (Case { code: SiCode::Timer, ..from(named(1, "systemd")) }, Cause::Timer, "SI_TIMER"),
            (kernel(Signal::INT), Cause::CtrlC, "SIGINT from the kernel"),
            (kernel(Signal::QUIT), Cause::CtrlC, "SIGQUIT from the kernel"),
            (kernel(Signal::HUP), Cause::Hangup, "terminal hung up"),
            (kernel(Signal::TERM), Cause::Unknown, "SIGTERM with si_code Kernel"),
            (from(named(1, "systemd-shutdow")), Cause::Reboot, "systemd-shutdow(1)"),
            (from(named(7, "systemd-shutdow")), Cause::Process, "systemd-shutdow(7)"),
            (hangup(leader(None)), Cause::Hangup, "bash(300), whose terminal hung up"),
            // `kill -HUP` in the shell, whose terminal is still there.
            (hangup(leader(Some("pts/1"))), Cause::Operator, "bash(300) runs on pts/1"),
            (hangup(named(300, "bash")), Cause::Process, "bash(300)"),
            // A supervisor that leads a session without a terminal.
            (Case { tty: None, ..hangup(leader(None)) }, Cause::Process, "bash(300)"),
            (
                Case { tty: None, session: PARENT, ..hangup(named(PARENT, "runsv")) },
                Cause::Supervisor,
                "runsv(400)",
            ),
            (from(named(US, "gateway")), Cause::SelfSent, "this process"),
            (
                Case { code: SiCode::Queue, ..from(ProcessSummary::unknown(1)) },
                Cause::Unverified,
                "the sender itself chose pid 1",
            ),
            (
                Case { code: SiCode::Queue, ..from(ProcessSummary::unknown(US)) },
                Cause::Unverified,
                "SI_QUEUE",
            ),
            (
                Case {
                    is_parent_death_signal: true,
                    ppid: 1,
                    ..from(ProcessSummary::unknown(PARENT))
                },
                Cause::ParentDied,
                "pid 400, our parent",
            ),
            (
                Case { is_parent_death_signal: true, ..from(named(PARENT, "supervisord")) },
                Cause::Supervisor,
                "supervisord(400) is our parent, or its thread that started us has ended",
            ),
            (
                Case { is_parent_death_signal: true, ..from(named(77, "kill")) },
                Cause::Process,
                "kill(77)",
            ),
            (
                Case { in_pid_namespace: true, ..from(ProcessSummary::unknown(0)) },
                Cause::ContainerStop,
                "outside our pid namespace",
            ),
            // `PrivatePIDs=`: systemd, or any other process of the machine.
            (
                Case {
                    in_pid_namespace: true,
                    is_service: true,
                    unit: system_unit(),
                    ..from(ProcessSummary::unknown(0))
                },
                Cause::Unknown,
                "outside our pid namespace: systemd, which runs us in gateway.service, or another",
            ),
            // A container's init is process 1 or an ancestor.
            (from(named(ANCESTOR, "tini")), Cause::ContainerStop, "init tini(350)"),
            (from(named(77, "tini")), Cause::Process, "tini(77)"),
            (
                Case { in_pid_namespace: true, is_service: true, ..from(named(1, "tini")) },
                Cause::ContainerStop,
                "tini(1)",
            ),
            (from(ProcessSummary::unknown(0)), Cause::Unknown, "pid 0"),
            (Case { ppid: 0, ..from(ProcessSummary::unknown(0)) }, Cause::Unknown, "pid 0"),
            (
                Case {
                    signal: Signal::HUP,
                    session: 0,
                    in_pid_namespace: true,
                    ..from(ProcessSummary::unknown(0))
                },
                Cause::ContainerStop,
                "outside our pid namespace",
            ),
            (
                from(named(1, "dumb-init")),
                Cause::ContainerStop,
                "forwarded by the container's init dumb-init(1)",
            ),
            (from(named(PARENT, "tini")), Cause::ContainerStop, "init tini(400), our parent"),
            // A container in the machine's pid namespace, stopped by a person.
            (
                Case {
                    in_container: true,
                    ..from(ProcessSummary { uid: Some(0), ..with_tty("runc") })
                },
                Cause::ContainerStop,
                "the container runtime runc(77)",
            ),
            (
                Case { in_container: true, ..from(with_tty("runc")) },
                Cause::Operator,
                "runc(77) runs on pts/1",
            ),
            (from(named(ANCESTOR, "conmon")), Cause::ContainerStop, "the container runtime conmon"),
            (
                Case { in_container: true, ..from(named(PARENT, "containerd-shim")) },
                Cause::ContainerStop,
                "the container runtime containerd-shim(400)",
            ),
            (Case { in_container: true, ..from(with_tty("bash")) }, Cause::Operator, "pts/1"),
            // The name alone proves nothing.
            (from(named(77, "runc")), Cause::Process, "runc(77)"),
            (from(of_root("runc")), Cause::Process, "runc(77)"),
            // OOM daemons.
            (
                from(of_root("earlyoom")),
                Cause::Process,
                "earlyoom(77), root's daemon that ends processes",
            ),
            (from(named(77, "earlyoom")), Cause::Process, "earlyoom(77), which has no terminal"),
            (
                from(of_unit("earlyoom", service("earlyoom.service"))),
                Cause::Process,
                "earlyoom(77) of earlyoom.service, which ends processes to free memory",
            ),
            (
                from(of_unit("python3", service("nohang-desktop.service"))),
                Cause::Process,
                "python3(77) of nohang.service, which ends processes to free memory",
            ),
            (
                from(of_unit("systemd-oomd", user_unit("systemd-oomd.service", 1000))),
                Cause::Process,
                "systemd-oomd(77), which has no terminal",
            ),
            (from(named(1, "systemd")), Cause::Systemd, "systemd(1)"),
            (
                Case { signal: Signal::ABRT, ..from(named(1, "systemd")) },
                Cause::Watchdog,
                "SIGABRT from systemd(1)",
            ),
            (
                Case { signal: Signal::ABRT, has_watchdog: false, ..from(named(1, "systemd")) },
                Cause::Systemd,
                "sent by systemd(1)",
            ),
            (
                Case { unit: system_unit(), ..from(ProcessSummary::unknown(1)) },
                Cause::Systemd,
                "systemd(1)",
            ),
            (
                Case { absence: Some(SnapshotError::Hidden), ..from(ProcessSummary::unknown(1)) },
                Cause::Unknown,
                "pid 1, about which nothing could be read: hidden",
            ),
            (from(named(1, "init")), Cause::Process, "init(1)"),
            (
                Case { unit: user_unit("gateway.service", 1000), ..from(manager_of(1000)) },
                Cause::Systemd,
                "the user manager systemd(77)",
            ),
            (
                Case { unit: user_unit("gateway.service", 1000), ..from(manager_of(1001)) },
                Cause::Process,
                "systemd(77)",
            ),
            // Has the name `systemd`, but is another unit of the same user.
            (
                Case {
                    unit: user_unit("gateway.service", 1000),
                    ..from(ProcessSummary {
                        unit: user_unit("other.service", 1000),
                        ..named(77, "systemd")
                    })
                },
                Cause::Process,
                "systemd(77)",
            ),
            (Case { unit: system_unit(), ..from(manager_of(1000)) }, Cause::Process, "systemd(77)"),
            (from(named(PARENT, "supervisord")), Cause::Supervisor, "supervisord(400)"),
            (from(ProcessSummary::unknown(PARENT)), Cause::Supervisor, "?(400)"),
            (from(with_tty("bash")), Cause::Operator, "bash(77) runs on pts/1"),
            (
                Case {
                    ancestors: vec![named(76, "sh"), with_tty("zsh")],
                    ..from(named(78, "kill"))
                },
                Cause::Operator,
                "ancestor zsh(77) runs on pts/1",
            ),
            // By ssh without a terminal: the daemon sshd is not in the session.
            (
                Case {
                    ancestors: vec![inside(76, "sshd"), named(75, "sshd"), named(1, "systemd")],
                    ..from(logged_in())
                },
                Cause::Operator,
                "kill(77) has no terminal, but login session 3 of uid 1000, started by sshd(75)",
            ),
            // A daemon that a person has started, and one of its children.
            (
                from(logged_in()),
                Cause::Process,
                "no terminal. It has login session 3 of uid 1000, but it may be a daemon",
            ),
            (
                Case { ancestors: vec![named(1, "init")], ..from(logged_in()) },
                Cause::Process,
                "login session 3",
            ),
            (
                Case {
                    ancestors: vec![inside(76, "pm2"), named(70, "systemd"), named(1, "systemd")],
                    ..from(logged_in())
                },
                Cause::Process,
                "login session 3",
            ),
            // A cron job.
            (
                Case {
                    ancestors: vec![inside(76, "sh"), named(75, "cron"), named(1, "systemd")],
                    ..from(ProcessSummary { unit: service("cron.service"), ..logged_in() })
                },
                Cause::Process,
                "login session 3",
            ),
            (from(named(77, "deploy")), Cause::Process, "deploy(77)"),
            (
                Case { absence: Some(SnapshotError::Gone), ..from(ProcessSummary::unknown(77)) },
                Cause::Unknown,
                "nothing could be read: gone",
            ),
        ];
        for (case, cause, evidence) in &cases {
            let decision = decision(case);
            assert_eq!(decision.cause, *cause, "{}", decision.evidence);
            assert!(decision.evidence.contains(evidence), "{} / {evidence}", decision.evidence);
        }
    }

    #[test]
    fn a_stop_without_a_signal_needs_no_sender() {
        let us = named(US, "gateway");
        let decide = |trigger: &Trigger| {
            let basis = Basis {
                code: None,
                is_parent_death_signal: false,
                first_parent: None,
                in_pid_namespace: false,
                in_container: false,
                is_ancestor: false,
                has_watchdog: false,
                is_service: false,
            };
            let decision = decide(trigger, None, &us, basis);
            (decision.cause, decision.evidence)
        };
        let error = Some("port in use".to_owned());
        let cases = [
            (Trigger::Request { reason: "upgrade".into() }, Cause::Requested, "requested: upgrade"),
            (
                Trigger::ServiceEnded { error: None },
                Cause::ServiceEnded,
                "the service's future ended",
            ),
            (
                Trigger::ServiceEnded { error },
                Cause::ServiceEnded,
                "the service's future failed: port in use",
            ),
            (
                Trigger::Signal { signal: Signal::TERM },
                Cause::Unknown,
                "the signal handler did not see the signal",
            ),
        ];
        for (trigger, cause, evidence) in cases {
            assert_eq!(decide(&trigger), (cause, evidence.to_owned()));
        }
    }

    #[test]
    fn the_word_is_the_same_in_the_line_and_in_json() {
        const WORDS: &str = "ctrl_c hangup self_sent timer unverified parent_died container_stop \
                             systemd reboot watchdog supervisor operator process requested \
                             service_ended unknown";
        for word in WORDS.split_whitespace() {
            let cause: Cause = serde_json::from_value(word.into()).unwrap();
            assert_eq!(cause.to_string(), word);
            assert_eq!(serde_json::to_value(cause).unwrap(), word);
        }
    }
}
