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
//! | `hangup` | SIGHUP with `SI_KERNEL`, or from our session leader (an interactive bash forwards it) |
//! | `self_sent` | the sender is this process |
//! | `unverified` | `SI_QUEUE`, where the sender itself chose pid and uid |
//! | `parent_died` | the signal is our parent-death signal, from the process that was our parent |
//! | `container_stop` | the sender is outside our pid namespace, and we are not a service of systemd; or it is a container's init; or we are in a container and it is a container runtime |
//! | `watchdog` | SIGABRT from the service manager |
//! | `systemd` | from the service manager: process 1, or the user manager that owns our cgroup |
//! | `supervisor` | from our parent, if that is not systemd |
//! | `operator` | the sender or an ancestor has a terminal or a login session |
//! | `process` | any other sender with a name |
//! | `unknown` | nothing else matched |
//!
//! [`Cause::Reboot`] replaces `systemd` if the manager, which is asked later, says that the whole
//! system is going down. No fact that can be read at once proves that.

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
    /// Whether we are a service of systemd. The pid namespace can then be the unit's own
    /// (`PrivatePIDs=`).
    pub(crate) is_service: bool,
}

/// The names of the programs by which podman, docker and Kubernetes send a signal. The last one is
/// as long as the kernel stores names.
const CONTAINER_RUNTIMES: [&str; 4] = ["runc", "crun", "conmon", "containerd-shim"];

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
    if signal == Signal::HUP && is(us.session) && who.pid != us.pid {
        (Cause::Hangup, format!("SIGHUP from our session's leader {who}"))
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
    } else if known.in_container && is_container_runtime(who) {
        // Checked before `operator`: a person at a terminal may have run `podman stop`, but it is
        // the runtime that stops us, and it may repeat its signal.
        (Cause::ContainerStop, format!("sent by the container runtime {who}"))
    } else if let Some(manager) = service_manager(who, us.unit.as_ref()) {
        match signal {
            Signal::ABRT => (Cause::Watchdog, format!("SIGABRT from {manager}")),
            _ => (Cause::Systemd, format!("sent by {manager}")),
        }
    } else if is_parent {
        // When the thread that started us ends, the parent-death signal is sent too, and looks the
        // same (prctl(2)).
        let thread = ", or its thread that started us has ended";
        let thread = if known.is_parent_death_signal { thread } else { "" };
        (Cause::Supervisor, format!("the sender {who} is our parent{thread}"))
    } else if let Some(presence) = person(sender) {
        (Cause::Operator, presence)
    } else if who.name.is_some() {
        (Cause::Process, format!("sent by {who}, which has no terminal and no login session"))
    } else {
        let why = sender.absence.map(|why| format!(": {why:?}").to_ascii_lowercase());
        let why = why.unwrap_or_default();
        (Cause::Unknown, format!("sent by pid {}, about which nothing could be read{why}", who.pid))
    }
}

/// Whether `who` has the name of a container runtime.
fn is_container_runtime(who: &ProcessSummary) -> bool {
    who.name.as_deref().is_some_and(|name| CONTAINER_RUNTIMES.contains(&name))
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
    let by_session =
        || Some(format!("the sender {who} belongs to login session {}", who.login_session?));
    let mut ancestors = sender.ancestors.iter();
    by_tty("sender", who)
        .or_else(|| ancestors.find_map(|ancestor| by_tty("sender's ancestor", ancestor)))
        .or_else(by_session)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::SnapshotError;

    const US: i32 = 500;
    const PARENT: i32 = 400;

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
        /// Our current parent.
        ppid: i32,
        session: i32,
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
            ppid: PARENT,
            session: 300,
        }
    }

    fn decision(case: &Case) -> CauseDecision {
        let sender = Sender {
            absence: case.absence,
            ancestors: case.ancestors.clone(),
            ..Sender::new(case.sender.clone(), case.code)
        };
        let process = ProcessSummary {
            ppid: Some(case.ppid),
            session: Some(case.session),
            unit: case.unit.clone(),
            ..named(US, "gateway")
        };
        let basis = Basis {
            code: Some(case.code),
            is_parent_death_signal: case.is_parent_death_signal,
            first_parent: Some(PARENT),
            in_pid_namespace: case.in_pid_namespace,
            in_container: case.in_container,
            is_service: case.is_service,
        };
        let sender = case.code.has_sender().then_some(&sender);
        decide(&Trigger::Signal { signal: case.signal }, sender, &process, basis)
    }

    #[test]
    fn each_row_of_the_table_is_decided_by_its_evidence() {
        let with_tty = |name| ProcessSummary { tty: Some("pts/1".into()), ..named(77, name) };
        let logged_in = ProcessSummary { login_session: Some(3), ..named(77, "kill") };
        let manager_of =
            |uid| ProcessSummary { unit: user_unit("init.scope", uid), ..named(77, "systemd") };
        let kernel = |signal| Case { signal, code: SiCode::Kernel, ..from(named(0, "")) };
        let cases = [
            (Case { code: SiCode::Timer, ..from(named(1, "systemd")) }, Cause::Timer, "SI_TIMER"),
            (kernel(Signal::INT), Cause::CtrlC, "SIGINT from the kernel"),
            (kernel(Signal::QUIT), Cause::CtrlC, "SIGQUIT from the kernel"),
            (kernel(Signal::HUP), Cause::Hangup, "terminal hung up"),
            (kernel(Signal::TERM), Cause::Unknown, "SIGTERM with si_code Kernel"),
            (Case { signal: Signal::HUP, ..from(named(300, "bash")) }, Cause::Hangup, "bash(300)"),
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
            // A container's init is known by its name.
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
                Case { in_container: true, ..from(with_tty("runc")) },
                Cause::ContainerStop,
                "the container runtime runc(77)",
            ),
            (
                Case { in_container: true, ..from(named(PARENT, "containerd-shim")) },
                Cause::ContainerStop,
                "the container runtime containerd-shim(400)",
            ),
            (Case { in_container: true, ..from(with_tty("bash")) }, Cause::Operator, "pts/1"),
            // The name alone proves nothing.
            (from(named(77, "runc")), Cause::Process, "runc(77)"),
            (from(named(1, "systemd")), Cause::Systemd, "systemd(1)"),
            (
                Case { signal: Signal::ABRT, ..from(named(1, "systemd")) },
                Cause::Watchdog,
                "SIGABRT from systemd(1)",
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
            (from(logged_in), Cause::Operator, "login session 3"),
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
