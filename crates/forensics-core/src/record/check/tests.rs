//! Tables of cases: the recorded events, the state of the host, and the expected post-mortem.

use proptest::prelude::*;

use super::super::entry::line;
use super::super::event::*;
use super::super::phase::*;
use super::super::post_mortem::Reason;
use super::super::{ContainerEnd, SentSignal, UnitAction, UnitEnd};
use super::*;
use crate::basis::{Basis, Source};
use crate::clock::Utc;
use crate::duration::Timespan;
use crate::logfmt;
use crate::procfile::INITIAL_PID_NAMESPACE;

const S: u64 = 1_000_000;
/// The time of the signal, on the monotonic clock.
const T0: u64 = 100 * S;

/// A record of those events, each with its time on the monotonic clock in microseconds. The wall
/// clock goes backwards, which must have no effect.
fn record(start: RunStarted, events: &[(u64, Event)]) -> Digest {
    let ts = |us: u64| -> Utc {
        let back = std::time::Duration::from_micros(us % 60_000_000);
        Utc::from_system(
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_795_428_900) - back,
        )
    };
    let mut bytes = line(ts(T0 - 50 * S), T0 - 50 * S, &Event::RunStarted(start.into())).unwrap();
    for (us, event) in events {
        bytes.extend(line(ts(*us), *us, event).unwrap());
    }
    Digest::parse(&bytes).unwrap()
}

/// A run under systemd with a stop timeout of 3 s.
fn start() -> RunStarted {
    let mut start = RunStarted::new("gateway", 4100);
    start.boot_id = Some("boot-1".to_owned());
    start.unit = Some("gateway.service".to_owned());
    start.manager = Some("system".to_owned());
    start.stop_timeout_us = Some(Timespan::Finite(3 * S));
    start.oom_kill = Some(2);
    start.cgroup_inode = Some(1260);
    start.machine_id = Some("machine-1".to_owned());
    start.pid_namespace = Some(INITIAL_PID_NAMESPACE);
    start.parent_pid = Some(1);
    start.parent_name = Some("systemd".to_owned());
    start
}

fn now() -> HostState {
    HostState {
        locked: false,
        boot_id: Some("boot-1".to_owned()),
        mono_us: Some(T0 + 60 * S),
        oom_kill: Some(2),
        cgroup_inode: Some(1260),
        place: Place { machine_id: Some("machine-1".to_owned()), ..Place::default() },
        ..HostState::default()
    }
}

fn sigterm(cause: &str, pid: u32, name: &str) -> (u64, Event) {
    let mut signal = SignalEvent::new(SignalKind::Signal, 1, cause);
    signal.signal = Some("SIGTERM".to_owned());
    signal.sender_pid = Some(pid);
    signal.sender_name = Some(name.to_owned());
    signal.sender_uid = Some(0);
    signal.deadline_us = Some(2_700_000);
    (T0, Event::Signal(signal))
}

fn by_systemd() -> (u64, Event) {
    sigterm("systemd", 1, "systemd")
}

fn begins(offset_us: u64, phase: &str, timeout_us: u64) -> (u64, Event) {
    let (group, name) = match phase.split_once('/') {
        Some((group, name)) => (Some(group.to_owned()), name),
        None => (None, phase),
    };
    let mut started = PhaseStarted::new(name, offset_us);
    started.group = group;
    started.timeout_us = Some(timeout_us);
    (T0 + offset_us, Event::PhaseStarted(started))
}

fn ends(offset_us: u64, phase: &str, outcome: PhaseOutcome) -> (u64, Event) {
    let mut finished = PhaseFinished::new(phase, outcome, offset_us, offset_us);
    finished.error = (outcome == PhaseOutcome::Failed).then(|| "disk gone".to_owned());
    (T0 + offset_us, Event::PhaseFinished(finished))
}

fn stopped(offset_us: u64, how: ExitKind, exit_code: impl Into<Option<i32>>) -> (u64, Event) {
    (T0 + offset_us, Event::Stopped(Stopped::new(how, exit_code, offset_us)))
}

fn forced_by(by: ForcedBy) -> (u64, Event) {
    let mut stopped = Stopped::new(ExitKind::Forced, 70, 3 * S);
    stopped.forced_by = Some(by);
    (T0 + 3 * S, Event::Stopped(stopped))
}

fn wedged(offset_us: u64, what: StalledWhat, phase: &str) -> (u64, Event) {
    let mut wedged = Stalled::new(what, S, "sleeps in nanosleep");
    wedged.phase = Some(phase.to_owned());
    (T0 + offset_us, Event::Stalled(wedged))
}

fn alive(offset_us: u64) -> (u64, Event) {
    (T0 + offset_us, Event::Alive)
}

fn progress(offset_us: u64, phase: &str) -> (u64, Event) {
    let progress = PhaseProgress::new(phase, serde_json::Map::new(), offset_us);
    (T0 + offset_us, Event::PhaseProgress(progress))
}

#[test]
fn each_case_gets_its_outcome_reason_and_phase() {
    use RunOutcome::*;
    let panic = {
        let mut stop = Stopped::new(ExitKind::Panicked, 101, S);
        stop.panic = Some("oh\nno".to_owned());
        stop.location = Some("src/main.rs:3:5".to_owned());
        (T0 + S, Event::Stopped(stop))
    };
    let request = (T0, Event::Signal(SignalEvent::new(SignalKind::Request, 1, "requested")));
    let again = {
        let mut signal = SignalEvent::new(SignalKind::Signal, 3, "operator");
        signal.signal = Some("SIGINT".to_owned());
        signal.sender_pid = Some(9);
        (T0 + S, Event::Signal(signal))
    };
    let drain = || begins(10_000, "drain", 30 * S);
    let by_signal = Stopped {
        exit_signal: Some("SIGTERM".to_owned()),
        ..Stopped::new(ExitKind::Clean, None, S)
    };
    // The events; the outcome, its reason, the phase; and parts of the texts.
    let cases = [
        (
            vec![
                by_systemd(),
                drain(),
                ends(S, "drain", PhaseOutcome::Ok),
                stopped(S, ExitKind::Clean, 0),
            ],
            RunOutcome::Clean,
            Reason::Recorded,
            "",
            "it ended as planned, exit code 0",
        ),
        (
            vec![
                by_systemd(),
                ends(S, "drain", PhaseOutcome::CutShort),
                stopped(S, ExitKind::CutShort, 1),
            ],
            RunOutcome::CutShort,
            Reason::Recorded,
            "",
            "it ended by itself, but phase drain was cut short after 1s, exit code 1",
        ),
        (
            vec![
                by_systemd(),
                ends(S, "drain", PhaseOutcome::Skipped),
                stopped(S, ExitKind::TimedOut, 0),
            ],
            RunOutcome::TimedOut,
            Reason::Recorded,
            "",
            "phase drain was skipped after 1s raise the timeout",
        ),
        (
            vec![by_systemd(), (T0 + S, Event::Stopped(by_signal))],
            RunOutcome::Clean,
            Reason::Recorded,
            "",
            "it ended as planned, ended by SIGTERM",
        ),
        (
            vec![stopped(S, ExitKind::Abandoned, None)],
            RunOutcome::Abandoned,
            Reason::Recorded,
            "",
            "without a teardown, because nothing had requested one: main returned early see what",
        ),
        (
            vec![by_systemd(), stopped(S, ExitKind::Abandoned, None)],
            RunOutcome::Abandoned,
            Reason::Recorded,
            "",
            "before a phase had begun wait for run()",
        ),
        (
            vec![by_systemd(), drain(), stopped(S, ExitKind::Abandoned, None)],
            RunOutcome::Abandoned,
            Reason::Recorded,
            "drain",
            "in the middle of its teardown phase drain was still running: wait for run()",
        ),
        (
            vec![drain(), ends(S, "drain", PhaseOutcome::Failed), stopped(S, ExitKind::Failed, 1)],
            RunOutcome::Failed,
            Reason::Recorded,
            "",
            "phase drain failed after 1s: disk gone, exit code 1",
        ),
        (
            vec![request, stopped(S, ExitKind::Failed, 1)],
            RunOutcome::Failed,
            Reason::Recorded,
            "",
            "the service failed, exit code 1",
        ),
        (
            vec![by_systemd(), stopped(S, ExitKind::Other, 3)],
            RunOutcome::Unknown,
            Reason::Recorded,
            "",
            "a way that this version does not know, exit code 3",
        ),
        (
            vec![
                drain(),
                ends(S, "drain", PhaseOutcome::TimedOut),
                stopped(S, ExitKind::TimedOut, 0),
            ],
            RunOutcome::TimedOut,
            Reason::Recorded,
            "",
            "phase drain timed out after 1s",
        ),
        (
            vec![by_systemd(), drain(), stopped(3 * S, ExitKind::TimedOut, 70)],
            RunOutcome::TimedOut,
            Reason::Recorded,
            "drain",
            "longer than its deadline of 2.7s",
        ),
        (
            vec![by_systemd(), drain(), stopped(S, ExitKind::Forced, 70)],
            RunOutcome::Forced,
            Reason::Recorded,
            "drain",
            "phase drain was still running: wait for its deadline of 2.7s before you send another signal",
        ),
        (
            vec![by_systemd(), drain(), again, stopped(S, ExitKind::Forced, 70)],
            RunOutcome::Forced,
            Reason::Recorded,
            "drain",
            "stop request number 3, SIGINT from process 9, ended it at once, exit code 70",
        ),
        (
            vec![by_systemd(), drain(), forced_by(ForcedBy::Deadline)],
            RunOutcome::Forced,
            Reason::Recorded,
            "drain",
            "the deadline of 2.7s passed before the teardown ended, exit code 70",
        ),
        (
            vec![by_systemd(), stopped(S, ExitKind::Clean, 0), forced_by(ForcedBy::NoExit)],
            RunOutcome::Forced,
            Reason::Recorded,
            "",
            "its teardown ended but the process did not, exit code 70",
        ),
        (vec![panic], RunOutcome::Panicked, Reason::Panic, "", r"at src/main.rs:3:5: oh\nno"),
        (
            vec![by_systemd(), drain(), progress(2 * S, "drain"), alive(2 * S)],
            KilledInPhase,
            Reason::StopTimeout,
            "drain",
            "it died between 2s and 60s after SIGTERM, and the record has no end phase drain was still \
             running when systemd's stop timeout of 3s was over: raise TimeoutStopSec= or lower the phase's timeout (30s)",
        ),
        (
            vec![sigterm("supervisor", 40, "PM2 v5: God"), drain(), alive(S)],
            KilledInPhase,
            Reason::GracePeriod,
            "drain",
            "the default stop timeout of PM2 is 1.6s, and SIGTERM from PM2 v5: God(40) had asked it to \
             stop; it died between 1s and",
        ),
        // PM2 has not sent SIGKILL at the end of its default, so another time was configured.
        (
            vec![sigterm("supervisor", 40, "PM2 v5: God"), drain(), alive(2 * S)],
            KilledInPhase,
            Reason::Unknown,
            "drain",
            "PM2 sends SIGKILL after kill_timeout (1.6s by default)",
        ),
        (
            vec![sigterm("reboot", 1, "systemd"), drain(), alive(2 * S)],
            KilledInPhase,
            Reason::StopTimeout,
            "drain",
            "SIGTERM from systemd(1) began systemd's stop timeout of 3s; it died between 2s and",
        ),
        (
            vec![
                by_systemd(),
                drain(),
                ends(S, "drain", PhaseOutcome::Ok),
                begins(S, "adapters/telegram", 30 * S),
                begins(S, "adapters/slack", 30 * S),
                ends(2 * S, "other", PhaseOutcome::Ok),
                alive(2 * S),
            ],
            KilledInPhase,
            Reason::StopTimeout,
            "adapters/telegram,adapters/slack",
            "phases adapters/telegram, adapters/slack were still running when systemd",
        ),
        (
            vec![by_systemd(), drain(), wedged(2 * S, StalledWhat::Runtime, "drain"), alive(2 * S)],
            KilledInPhase,
            Reason::StopTimeout,
            "drain",
            "(the runtime was stalled for 1s: sleeps in nanosleep): move its blocking calls off",
        ),
        (
            vec![
                by_systemd(),
                begins(0, "drain", S / 4),
                wedged(S, StalledWhat::Phase, "drain"),
                alive(2 * S),
            ],
            KilledInPhase,
            Reason::StopTimeout,
            "drain",
            "(the phase was stalled for 1s: sleeps in nanosleep): raise TimeoutStopSec= or lower \
             the phase's timeout (0.25s)",
        ),
        // Stalled earlier, but no longer.
        (
            vec![
                by_systemd(),
                drain(),
                wedged(S, StalledWhat::Runtime, "drain"),
                progress(2 * S, "drain"),
                alive(2 * S),
            ],
            KilledInPhase,
            Reason::StopTimeout,
            "drain",
            "systemd's stop timeout of 3s was over: raise TimeoutStopSec=",
        ),
        (
            vec![
                by_systemd(),
                drain(),
                wedged(S, StalledWhat::Phase, "drain"),
                ends(S, "drain", PhaseOutcome::TimedOut),
                begins(S, "db_close", 9 * S),
                alive(2 * S),
            ],
            KilledInPhase,
            Reason::StopTimeout,
            "db_close",
            "stop timeout of 3s was over: raise TimeoutStopSec= or lower the phase's timeout (9s)",
        ),
        (
            vec![by_systemd(), drain(), ends(S, "drain", PhaseOutcome::Ok), alive(2 * S)],
            KilledInPhase,
            Reason::StopTimeout,
            "after drain",
            "the teardown was between phases (drain was the last to end) when systemd",
        ),
        (
            vec![by_systemd(), ends(S, "drain", PhaseOutcome::Skipped), alive(2 * S)],
            KilledInPhase,
            Reason::StopTimeout,
            "after drain",
            "drain was the last to end",
        ),
        // The line of the signal was lost, as on a full disk.
        (
            vec![drain()],
            KilledInPhase,
            Reason::Unknown,
            "drain",
            "the record does not show by what",
        ),
        (
            vec![sigterm("operator", 77, "kill"), drain()],
            KilledInPhase,
            Reason::Unknown,
            "drain",
            "a crash or a call of exit(); SIGTERM from kill(77) was not systemd's",
        ),
        (
            vec![sigterm("container_stop", 0, "?"), drain()],
            KilledInPhase,
            Reason::Unknown,
            "drain",
            "it died between 0.01s and 60s after SIGTERM, with no end in its record; the container runtime \
             sends SIGKILL only as its stop timeout",
        ),
        // An event long after the end of the timeout: the timeout was not the reason, or was
        // extended.
        (
            vec![by_systemd(), drain(), progress(9 * S, "drain")],
            KilledInPhase,
            Reason::Unknown,
            "drain",
            "unless that was extended: the last event came 6s after its end",
        ),
        // Its budget was over, and no timeout or stall is recorded. It may have been suspended then.
        (
            vec![by_systemd(), begins(0, "drain", S / 2)],
            KilledInPhase,
            Reason::Unknown,
            "drain",
            "systemd's stop timeout is 3s, but it was not seen alive until shortly before its end: it \
             died between 0s and 60s after SIGTERM",
        ),
        (
            vec![by_systemd(), alive(2 * S)],
            KilledBeforeTeardown,
            Reason::StopTimeout,
            "",
            "no phase had begun when systemd's stop timeout of 3s was over: find what",
        ),
        (
            vec![sigterm("operator", 77, "bash")],
            KilledBeforeTeardown,
            Reason::Unknown,
            "",
            "no phase had begun: see what journalctl -u gateway.service says for 2026-11-23T",
        ),
        (
            vec![],
            Vanished,
            Reason::Unknown,
            "",
            "SIGKILL, another signal that it does not handle, a crash or a call of exit()",
        ),
    ];
    for (events, outcome, reason, phase, text) in cases {
        let report = post_mortem(&record(start(), &events), &now());
        let shown = report.to_string();
        assert_eq!((report.outcome, report.reason), (outcome, reason), "{shown}");
        let texts = format!("{} {}", report.evidence, report.advice.as_deref().unwrap_or(""));
        assert!(texts.contains(text), "{texts}");
        let fields = logfmt::parse(&shown).unwrap();
        let field = |key: &str| fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        assert_eq!(field("outcome"), Some(outcome.to_string().as_str()));
        assert_eq!(field("reason"), Some(reason.to_string().as_str()));
        match phase.strip_prefix("after ") {
            Some(after) => assert_eq!((field("phase"), field("after_phase")), (None, Some(after))),
            None => {
                assert_eq!(field("phase").unwrap_or(""), phase, "{shown}");
                assert_eq!(field("after_phase"), None);
            }
        }
    }
}

#[test]
fn only_a_run_that_ended_as_planned_is_clean() {
    for (how, clean) in [
        (ExitKind::Clean, true),
        (ExitKind::Failed, false),
        (ExitKind::TimedOut, false),
        (ExitKind::CutShort, false),
        (ExitKind::Forced, false),
        (ExitKind::Panicked, false),
        (ExitKind::Abandoned, false),
        (ExitKind::Other, false),
    ] {
        let report = post_mortem(&record(start(), &[stopped(S, how, 0)]), &now());
        assert_eq!(report.is_clean(), clean, "{report}");
    }
    assert!(!post_mortem(&record(start(), &[]), &now()).is_clean());
}

#[test]
fn the_state_of_the_host_decides_if_the_record_does_not() {
    let drain = begins(0, "drain", 30 * S);
    let in_drain = [by_systemd(), drain];
    let lived = [by_systemd(), begins(0, "drain", 30 * S), alive(2 * S)];
    let ended = [by_systemd(), stopped(S, ExitKind::Clean, 0)];
    let here = |pid_namespace| Place { pid_namespace, ..now().place };
    let locked = HostState { locked: true, place: here(Some(INITIAL_PID_NAMESPACE)), ..now() };
    let in_container = HostState { locked: true, place: here(Some(7)), ..now() };
    let rebooted = HostState { boot_id: Some("boot-2".to_owned()), ..now() };
    let moved = HostState { place: Place::default(), ..rebooted.clone() };
    let elsewhere = HostState { locked: true, ..rebooted.clone() };
    let unknown_boot = HostState { boot_id: None, ..now() };
    let killed = HostState { oom_kill: Some(3), ..now() };
    let told = HostState { oom_log: OomLog::Killed("Killed process 4100\n".to_owned()), ..now() };
    let not_told = HostState { oom_log: OomLog::NotKilled, ..killed.clone() };
    // A new cgroup, whose counter proves nothing.
    let new_cgroup = HostState { oom_kill: Some(3), cgroup_inode: Some(1279), ..now() };
    let early =
        HostState { mono_us: Some(T0 + S), oom_kill: Some(0), cgroup_inode: Some(7), ..now() };
    let other_clock = HostState { mono_us: Some(5), ..now() };
    let none: &[(u64, Event)] = &[];
    use Reason::{Alive, Elsewhere, OutOfMemory, Reboot, Recorded, StopTimeout, Unknown};
    use RunOutcome::{Clean, KilledInPhase, Rebooted, Running, Vanished};
    // The last column is in the texts, and the column after it is not.
    type Case<'a> = (&'a HostState, &'a [(u64, Event)], RunOutcome, Reason, &'a str, &'a str);
    let cases: [Case<'_>; 20] = [
        (&locked, &in_drain, Running, Alive, "process 4100", ""),
        // The pid is that of another process here.
        (&in_container, &in_drain, Running, Alive, "a living process", "process 4100"),
        (&locked, &ended, Clean, Recorded, "", ""),
        // A run of another machine, in a shared folder.
        (&elsewhere, &in_drain, Running, Alive, "a living process", "process 4100"),
        (&rebooted, &in_drain, Rebooted, Reboot, "was boot-1 and is boot-2", "power"),
        (&rebooted, &in_drain[..1], Rebooted, Reboot, "no phase had begun at", "power"),
        (&rebooted, none, Rebooted, Reboot, "journalctl -b boot1 -e", "power"),
        (&rebooted, &ended, Clean, Recorded, "", ""),
        // The same, but it may have been another machine.
        (&moved, none, Vanished, Elsewhere, "on another machine, or in another boot", "power"),
        (&moved, &in_drain, KilledInPhase, Elsewhere, "another machine", "TimeoutStopSec="),
        (&unknown_boot, none, Vanished, Unknown, "or the machine went down", ""),
        // A counter of the cgroup does not name the process.
        (
            &killed,
            none,
            Vanished,
            Unknown,
            "was 2 and is 3 now: processes of the cgroup",
            "MemoryMax",
        ),
        (&killed, &in_drain, KilledInPhase, Unknown, "perhaps this one", ""),
        (&killed, &ended, Clean, Recorded, "", ""),
        (&told, none, Vanished, OutOfMemory, r"Killed process 4100\n", ""),
        (&not_told, none, Vanished, Unknown, "the kernel log shows no OOM kill of it", "perhaps"),
        (&new_cgroup, none, Vanished, Unknown, "", "counter"),
        (&early, &in_drain, KilledInPhase, Unknown, "it died between 0s and 1s after SIGTERM", ""),
        (&other_clock, &lived, KilledInPhase, StopTimeout, "", ""),
        (&HostState::default(), &lived, KilledInPhase, StopTimeout, "raise TimeoutStopSec=", ""),
    ];
    for (now, events, outcome, reason, text, absent) in cases {
        let report = post_mortem(&record(start(), events), now);
        assert_eq!((report.outcome, report.reason), (outcome, reason), "{report}");
        let texts = format!("{} {}", report.evidence, report.advice.as_deref().unwrap_or(""));
        assert!(texts.contains(text), "{texts}");
        assert!(absent.is_empty() || !texts.contains(absent), "{texts}");
    }
}

#[test]
fn infinite_and_unknown_stop_timeouts_explain_no_kill() {
    for (timeout, text) in [
        (Some(Timespan::Infinite), "systemd's stop timeout is infinite"),
        (None, "systemd's stop timeout is not known"),
    ] {
        let mut start = start();
        start.stop_timeout_us = timeout;
        let report =
            post_mortem(&record(start, &[by_systemd(), begins(0, "drain", 9 * S)]), &now());
        assert_eq!(report.reason, Reason::Unknown);
        assert!(report.evidence.contains(text), "{report}");
    }
}

#[test]
fn the_stop_timeout_of_the_first_signal_counts_after_further_signals() {
    let mut start = start();
    start.stop_timeout_us = None;
    let (at, mut first) = by_systemd();
    let Event::Signal(signal) = &mut first else { panic!("no signal") };
    signal.stop_timeout_us = Some(Timespan::Finite(3 * S));
    let mut second = SignalEvent::new(SignalKind::Signal, 2, "unknown");
    second.signal = Some("SIGTERM".to_owned());
    let events =
        [(at, first), begins(0, "drain", 30 * S), (T0 + S, Event::Signal(second)), alive(2 * S)];
    let report = post_mortem(&record(start, &events), &now());
    assert_eq!(report.reason, Reason::StopTimeout, "{report}");
}

#[test]
fn the_stop_timeout_runs_from_systemds_own_signal() {
    let mut second = SignalEvent::new(SignalKind::Signal, 2, "systemd");
    second.signal = Some("SIGTERM".to_owned());
    let events = [
        sigterm("operator", 77, "kill"),
        begins(0, "drain", 30 * S),
        (T0 + 5 * S, Event::Signal(second)),
        progress(7 * S, "drain"),
    ];
    let report = post_mortem(&record(start(), &events), &now());
    assert_eq!(report.reason, Reason::StopTimeout);
    assert_eq!(report.phases[0].at_most_us, Some(8 * S));
    assert_eq!(report.cause.as_deref(), Some("operator"));
}

#[test]
fn a_phases_time_lies_between_the_last_event_and_the_likely_kill() {
    let events = |last_us| {
        let diag = Event::Diag(Diag::new(DiagState::Started));
        // Written by another thread, slightly out of order.
        let late = (T0 + S, diag);
        [by_systemd(), begins(S / 2, "drain", 30 * S), progress(last_us, "drain"), late]
    };
    let told = || OomLog::Killed("Killed process 4100".to_owned());
    let cases = [
        (now(), S * 3 / 2, Some(S * 5 / 2)),
        (HostState { mono_us: Some(T0 + 2 * S - S / 4), ..now() }, S * 3 / 2, Some(S * 5 / 2)),
        (
            HostState { mono_us: Some(T0 + 2 * S), oom_log: told(), ..now() },
            S * 3 / 2,
            Some(S * 3 / 2),
        ),
        (
            HostState { boot_id: Some("boot-2".to_owned()), mono_us: Some(T0 + 4 * S), ..now() },
            S * 3 / 2,
            None,
        ),
        (HostState { locked: true, ..now() }, S * 3 / 2, None),
    ];
    for (now, at_least, at_most) in cases {
        let report = post_mortem(&record(start(), &events(2 * S)), &now);
        let [drain] = &report.phases[..] else { panic!("{report}") };
        assert_eq!((drain.at_least_us, drain.at_most_us), (at_least, at_most), "{report}");
        assert_eq!(report.after_signal_us, Some(2 * S));
    }
    // systemd's SIGKILL came slightly late.
    let report = post_mortem(&record(start(), &events(S * 7 / 2)), &now());
    assert_eq!(report.reason, Reason::StopTimeout);
    assert_eq!((report.phases[0].at_least_us, report.phases[0].at_most_us), (3 * S, Some(3 * S)));
}

#[test]
fn the_line_for_the_log_has_everything_in_a_fixed_order() {
    let events = [by_systemd(), begins(S / 2, "drain", 30 * S), progress(2_980_000, "drain")];
    let report = post_mortem(&record(start(), &events), &now());
    assert_eq!(
        report.to_string(),
        "outcome=killed_in_phase service=gateway pid=4100 phase=drain phase_for=2.48s \
         phase_for_at_most=2.5s signal=SIGTERM cause=systemd sender_pid=1 sender_name=systemd \
         sender_uid=0 after_signal=2.98s deadline=2.7s last_event=2026-11-23T10:14:17.020000Z \
         died_within=0.02s reason=stop_timeout basis=inferred evidence=\"SIGTERM from systemd(1) began \
         systemd's stop timeout of 3s; it died between 2.98s and 60s after SIGTERM, and the record has \
         no end\" advice=\"phase drain was still running when systemd's stop timeout of 3s was over: raise \
         TimeoutStopSec= or lower the phase's timeout (30s)\""
    );
}

#[test]
fn the_words_in_json_are_those_of_the_log() {
    fn check<T: serde::Serialize + ToString>(words: &[(T, &str)]) {
        for (value, word) in words {
            assert_eq!(serde_json::to_value(value).unwrap(), *word);
            assert_eq!(value.to_string(), *word);
        }
    }
    use RunOutcome::*;
    check(&[
        (Clean, "clean"),
        (TimedOut, "timed_out"),
        (CutShort, "cut_short"),
        (Failed, "failed"),
        (Abandoned, "abandoned"),
        (RunOutcome::Unknown, "unknown"),
        (Forced, "forced"),
        (KilledInPhase, "killed_in_phase"),
        (KilledBeforeTeardown, "killed_before_teardown"),
        (KilledAfterTeardown, "killed_after_teardown"),
        (Exited, "exited"),
        (Panicked, "panicked"),
        (Vanished, "vanished"),
        (Rebooted, "rebooted"),
        (Running, "running"),
    ]);
    check(&[
        (Reason::Recorded, "recorded"),
        (Reason::Panic, "panic"),
        (Reason::StopTimeout, "stop_timeout"),
        (Reason::GracePeriod, "grace_period"),
        (Reason::OutOfMemory, "out_of_memory"),
        (Reason::Reboot, "reboot"),
        (Reason::Alive, "alive"),
        (Reason::Unknown, "unknown"),
        (Reason::Elsewhere, "elsewhere"),
        (Reason::Signal, "signal"),
        (Reason::Exit, "exit"),
        (Reason::Exec, "exec"),
        (Reason::Watchdog, "watchdog"),
        (Reason::StartTimeout, "start_timeout"),
        (Reason::RuntimeMax, "runtime_max"),
        (Reason::Timeout, "timeout"),
        (Reason::OomPolicy, "oom_policy"),
        (Reason::ContainerEnded, "container_ended"),
    ]);
    check(&[
        (ExitKind::Clean, "clean"),
        (ExitKind::TimedOut, "timed_out"),
        (ExitKind::CutShort, "cut_short"),
        (ExitKind::Failed, "failed"),
        (ExitKind::Forced, "forced"),
        (ExitKind::Panicked, "panicked"),
        (ExitKind::Abandoned, "abandoned"),
        (ExitKind::Other, "other"),
    ]);
    check(&[
        (ForcedBy::Signal, "signal"),
        (ForcedBy::Deadline, "deadline"),
        (ForcedBy::NoExit, "no_exit"),
    ]);
    check(&[
        (SignalKind::Signal, "signal"),
        (SignalKind::Request, "request"),
        (SignalKind::ServiceEnded, "service_ended"),
    ]);
    check(&[(StalledWhat::Phase, "phase"), (StalledWhat::Runtime, "runtime")]);
    check(&[
        (DiagState::Started, "started"),
        (DiagState::Finished, "finished"),
        (DiagState::Failed, "failed"),
        (DiagState::TimedOut, "timed_out"),
    ]);
    for (outcome, word) in [
        (PhaseOutcome::Ok, "ok"),
        (PhaseOutcome::Failed, "failed"),
        (PhaseOutcome::Panicked, "panicked"),
        (PhaseOutcome::TimedOut, "timed_out"),
        (PhaseOutcome::CutShort, "cut_short"),
        (PhaseOutcome::Skipped, "skipped"),
        (PhaseOutcome::Other, "other"),
    ] {
        assert_eq!(outcome.to_string(), word);
        check(&[(outcome, word)]);
    }
}

/// A run in a pod with a configured grace period of 3 s.
fn pod() -> RunStarted {
    let mut start = RunStarted::new("gateway", 1);
    start.boot_id = Some("boot-1".to_owned());
    start.pod = Some("shop/web-1".to_owned());
    start.grace_us = Some(3 * S);
    start.oom_kill = Some(0);
    start.cgroup_inode = Some(7);
    start
}

#[test]
fn in_a_pod_the_grace_period_and_the_facts_about_memory_are_named() {
    use RunOutcome::*;
    let with_memory = {
        let (at, event) = sigterm("container_stop", 0, "?");
        let Event::Signal(mut signal) = event else { unreachable!("a signal") };
        signal.context = serde_json::json!({"memory":
            {"current": 1_020_u64 << 20, "max": 1_024_u64 << 20, "oom_kill": 2}});
        signal.lead_us = Some(S / 2);
        (at, Event::Signal(signal))
    };
    let early =
        HostState { mono_us: Some(T0 + S), oom_kill: Some(0), cgroup_inode: Some(7), ..now() };
    let new_cgroup = || HostState { cgroup_inode: Some(8), oom_kill: Some(0), ..now() };
    let cases = [
        (
            vec![sigterm("container_stop", 0, "?"), begins(0, "drain", 10 * S), alive(2 * S)],
            new_cgroup(),
            KilledInPhase,
            Reason::GracePeriod,
            "raise terminationGracePeriodSeconds or lower the phase's timeout (10s)",
        ),
        (
            vec![with_memory],
            early,
            KilledBeforeTeardown,
            Reason::Unknown,
            "not by the stop timeout of the kubelet of 3s: it died between 0s and 1s after SIGTERM; its memory \
             was at 1020 MiB of 1024 MiB when it was asked to stop; 2 other processes of its cgroup \
             had been OOM-killed; its cgroup counts no OOM kill since; no phase had begun (a pre-stop delay of 0.5s came first): \
             see Last State in kubectl describe pod web-1 -n shop",
        ),
        (
            vec![],
            new_cgroup(),
            Vanished,
            Reason::Unknown,
            "a call of exit(); cannot tell whether it was OOM-killed: the counters of its cgroup cannot",
        ),
    ];
    for (events, now, outcome, reason, expected) in cases {
        let judged = post_mortem(&record(pod(), &events), &now);
        assert_eq!((judged.outcome, judged.reason), (outcome, reason), "{judged}");
        let said = format!("{}; {}", judged.evidence, judged.advice.unwrap_or_default());
        assert!(said.contains(expected), "{said}");
    }
}

/// Any event, with any text in it and any number.
fn any_event() -> impl Strategy<Value = Event> {
    let text = || prop_oneof![any::<String>(), "drain|systemd|container_stop|adapters"];
    (0..9, text(), any::<Option<String>>(), any::<u64>()).prop_map(|(kind, text, more, n)| {
        match kind {
            0 | 1 => {
                let mut signal = SignalEvent::new(SignalKind::Signal, n as u32, text.clone());
                signal.signal.clone_from(&more);
                signal.sender_pid = Some(n as u32);
                signal.sender_name = more;
                signal.deadline_us = Some(n);
                Event::Signal(signal)
            }
            2 | 3 => {
                let mut phase = PhaseStarted::new(text, n);
                phase.group = more;
                phase.timeout_us = Some(n);
                Event::PhaseStarted(phase)
            }
            4 => {
                let mut phase = PhaseFinished::new(text, PhaseOutcome::Panicked, n, n);
                phase.error = more;
                Event::PhaseFinished(phase)
            }
            5 | 6 => {
                let what = if n % 2 == 0 { StalledWhat::Phase } else { StalledWhat::Runtime };
                Event::Stalled(Stalled::new(what, n, text))
            }
            7 => Event::Diag(Diag::new(DiagState::Started)),
            _ => {
                let mut stop = Stopped::new(ExitKind::Panicked, n as i32, n);
                stop.panic = Some(text);
                stop.location = more;
                Event::Stopped(stop)
            }
        }
    })
}

proptest! {
    #[test]
    fn the_post_mortem_of_any_record_is_one_line_of_fields(
        service in any::<String>(), unit in any::<Option<String>>(), timeout in any::<u64>(),
        events in proptest::collection::vec((any::<u64>(), any_event()), 0..8),
        locked in any::<bool>(), mono_us in any::<Option<u64>>(),
        oom_line in any::<Option<String>>(),
    ) {
        let mut start = RunStarted::new(service, 1);
        start.unit = unit;
        start.stop_timeout_us = Some(Timespan::Finite(timeout));
        let now = HostState { locked, mono_us, oom_log: oom_line.map_or(OomLog::Unknown, OomLog::Killed), ..HostState::default() };
        let report = post_mortem(&record(start, &events), &now);
        let shown = report.to_string();
        prop_assert!(!shown.chars().any(char::is_control));
        let read = logfmt::parse(&shown).unwrap();
        prop_assert_eq!(read.iter().filter(|(key, _)| key == "outcome").count(), 1);
        prop_assert!(!report.evidence.chars().any(char::is_control));
        prop_assert!(!report.advice.iter().any(|text| text.chars().any(char::is_control)));
    }
}

#[test]
fn what_a_witness_says_comes_before_what_could_be_inferred() {
    use Reason::{
        ContainerEnded, Exit, OomPolicy, OutOfMemory, Recorded, Signal, StartTimeout, Unknown,
    };
    use RunOutcome::{Clean, Exited, Failed, KilledAfterTeardown, KilledInPhase, Vanished};
    let unit = |result: &str, code: &str, status: &str| {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let end = UnitEnd {
            service_result: some(result),
            exit_code: some(code),
            exit_status: some(status),
            ..UnitEnd::default()
        };
        (T0 + 90 * S, Event::Witness(Witness::from(&end)))
    };
    let container = |code, oom_killed| {
        let end = ContainerEnd {
            runtime: "podman".to_owned(),
            exit_code: Some(code),
            oom_killed: Some(oom_killed),
            ..ContainerEnd::default()
        };
        (T0 + 90 * S, Event::Witness(Witness::from(&end)))
    };
    let slow_start = {
        let basis = Basis::observed(Source::Systemd);
        (T0, Event::Explained(Explained::new("start_timeout", "too slow", "systemd", basis)))
    };
    let clean = || stopped(S, ExitKind::Clean, 0);
    let drain = || begins(0, "drain", 30 * S);
    let (inside, child) = (pod(), RunStarted { pid: 7, parent_pid: Some(1), ..pod() });
    let behind = |name: &str| RunStarted { parent_name: Some(name.to_owned()), ..child.clone() };
    let on_host = RunStarted { pid_namespace: Some(INITIAL_PID_NAMESPACE), pid: 900, ..pod() };
    // A wrapper, such as a shell, is the main process of the unit.
    let wrapped =
        || RunStarted { parent_pid: Some(77), parent_name: Some("sh".to_owned()), ..start() };
    let acted = |result: &str, code: &str, status: &str, actions: &[UnitAction]| {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let end = UnitEnd {
            service_result: some(result),
            exit_code: some(code),
            exit_status: some(status),
            actions: actions.to_vec(),
            ..UnitEnd::default()
        };
        (T0 + 90 * S, Event::Witness(Witness::from(&end)))
    };
    let oom_before = {
        let (at, event) = sigterm("container_stop", 0, "?");
        let Event::Signal(mut signal) = event else { unreachable!("a signal") };
        signal.context = serde_json::json!({"memory": {"oom_kill": 1}});
        (at, Event::Signal(signal))
    };
    let cases = [
        // The status is that of the wrapper.
        (
            wrapped(),
            vec![unit("exit-code", "exited", "137")],
            Vanished,
            Unknown,
            "systemd reports result=exit-code exit_code=exited exit_status=137 of the unit and its main \
             process, but this one was started by sh",
        ),
        (
            wrapped(),
            vec![clean(), unit("signal", "killed", "KILL")],
            Clean,
            Recorded,
            "started by sh",
        ),
        (wrapped(), vec![unit("success", "killed", "TERM")], Vanished, Unknown, "started by sh"),
        // What main did after run().
        (
            start(),
            vec![clean(), unit("exit-code", "exited", "3")],
            Failed,
            Exit,
            "its record says: it ended as planned, exit code 0; but it exited with status 3",
        ),
        (start(), vec![clean(), unit("exit-code", "exited", "0")], Clean, Recorded, ""),
        (
            inside.clone(),
            vec![clean(), container(3, false)],
            Failed,
            Exit,
            "it exited with status 3",
        ),
        // An OOM kill at another time, with OOMPolicy=continue.
        (
            start(),
            vec![acted("exit-code", "exited", "3", &[UnitAction::OomKill])],
            Exited,
            Exit,
            "it also reports that the kernel OOM-killed a process of the unit: another process",
        ),
        (
            start(),
            vec![acted("signal", "killed", "KILL", &[UnitAction::OomKill])],
            Vanished,
            Signal,
            "OOM-killed a process of the unit: a process, perhaps this one",
        ),
        (
            inside.clone(),
            vec![oom_before, drain(), container(137, true)],
            KilledInPhase,
            Signal,
            "1 other processes of its cgroup had been OOM-killed before",
        ),
        (
            inside.clone(),
            vec![sigterm("container_stop", 0, "?"), drain(), alive(2 * S), container(137, true)],
            KilledInPhase,
            Reason::GracePeriod,
            "OOMKilled=true",
        ),
        // A child was left, or the process was: the stop timeout did not end it.
        (
            start(),
            vec![by_systemd(), drain(), acted("timeout", "", "", &[UnitAction::StopJob])],
            KilledInPhase,
            Unknown,
            "systemd does not say how its main process ended; systemd reports result=timeout",
        ),
        (
            start(),
            vec![unit("", "killed", "KILL")],
            Vanished,
            Signal,
            "it was ended by SIGKILL; who sent it",
        ),
        (
            start(),
            vec![unit("success", "killed", "TERM")],
            Vanished,
            Signal,
            "it did not handle at that time",
        ),
        // The process ended in another way than it had recorded.
        (
            start(),
            vec![clean(), unit("core-dump", "dumped", "SEGV")],
            KilledAfterTeardown,
            Signal,
            "it ended as planned, exit code 0; after that it was ended by SIGSEGV",
        ),
        (
            inside.clone(),
            vec![clean(), container(139, false)],
            KilledAfterTeardown,
            Signal,
            "SIGSEGV",
        ),
        (inside.clone(), vec![clean(), container(0, false)], Clean, Recorded, ""),
        (start(), vec![clean(), unit("success", "exited", "0")], Clean, Recorded, ""),
        // The teardown went well, but the start had failed.
        (
            start(),
            vec![by_systemd(), slow_start, clean()],
            Failed,
            StartTimeout,
            "its start took longer than TimeoutStartSec=; it ended as planned",
        ),
        // A phase failed, although the last line says clean.
        (
            start(),
            vec![ends(S, "drain", PhaseOutcome::Failed), clean()],
            Failed,
            Recorded,
            "failed",
        ),
        (
            start(),
            vec![unit("oom-kill", "killed", "KILL")],
            Vanished,
            OutOfMemory,
            "a process of the unit",
        ),
        (
            start(),
            vec![by_systemd(), unit("oom-kill", "killed", "KILL")],
            RunOutcome::KilledBeforeTeardown,
            OomPolicy,
            "this one received SIGTERM from systemd(1)",
        ),
        (
            inside.clone(),
            vec![container(137, true)],
            Vanished,
            OutOfMemory,
            "a process of its container",
        ),
        (
            inside.clone(),
            vec![drain(), container(137, false)],
            KilledInPhase,
            Signal,
            "OOMKilled=false does not rule out an OOM kill",
        ),
        (inside, vec![drain(), container(3, false)], Exited, Exit, "it exited with status 3"),
        // The status of the container is that of another process, or may be.
        (behind("tini"), vec![container(139, false)], Vanished, Signal, "SIGSEGV"),
        (
            behind("sh"),
            vec![container(143, false)],
            Vanished,
            ContainerEnded,
            "process 1 of its container (sh) ended with status 143",
        ),
        (
            behind("pause"),
            vec![container(137, true)],
            Vanished,
            ContainerEnded,
            "whether that is the status of this process is not known",
        ),
        (on_host, vec![container(137, true)], Vanished, ContainerEnded, "is not known"),
    ];
    for (start, events, outcome, reason, text) in cases {
        let report = post_mortem(&record(start, &events), &now());
        assert_eq!((report.outcome, report.reason), (outcome, reason), "{report}");
        assert!(report.evidence.contains(text), "{report}");
    }
}

#[test]
fn a_witness_of_the_end_comes_before_another_boot_and_before_what_cannot_be_seen() {
    let said = |code: &str, status: &str| {
        let end = UnitEnd {
            service_result: Some("signal".to_owned()),
            exit_code: Some(code.to_owned()),
            exit_status: Some(status.to_owned()),
            ..UnitEnd::default()
        };
        (T0 + 9 * S, Event::Witness(Witness::from(&end)))
    };
    let kill = serde_json::json!({ "signal": "SIGKILL", "sent": "2026-11-23T10:15:00Z",
        "sender_pid": 7, "sender_uid": 0, "sender_name": "kill" });
    let by_kill: SentSignal = serde_json::from_value(kill).unwrap();
    let by_kill = || (T0 + 9 * S, Event::Witness(Witness::from(&by_kill)));
    let rebooted = HostState { boot_id: Some("boot-2".to_owned()), ..now() };
    let elsewhere = HostState { place: Place::default(), ..rebooted.clone() };
    let on = |host: &str| RunStarted { host: Some(host.to_owned()), ..start() };
    let wrapped =
        || RunStarted { parent_pid: Some(77), parent_name: Some("sh".to_owned()), ..on("b") };
    use RunOutcome::{Exited, MaybeAlive, Rebooted, Vanished};
    let cases = [
        (start(), &rebooted, vec![], Rebooted, Reason::Reboot),
        (start(), &rebooted, vec![said("dumped", "SEGV")], Vanished, Reason::Signal),
        (start(), &rebooted, vec![said("exited", "3")], Exited, Reason::Exit),
        (start(), &rebooted, vec![by_kill()], Vanished, Reason::Signal),
        (on("b"), &elsewhere, vec![], MaybeAlive, Reason::Unknown),
        (on("b"), &elsewhere, vec![said("killed", "KILL")], Vanished, Reason::Signal),
        (on("b"), &elsewhere, vec![by_kill()], Vanished, Reason::Signal),
        // systemd speaks of another process.
        (wrapped(), &elsewhere, vec![said("killed", "KILL")], MaybeAlive, Reason::Unknown),
    ];
    for (start, host, events, outcome, reason) in cases {
        let report = post_mortem(&record(start, &events), host);
        assert_eq!((report.outcome, report.reason), (outcome, reason), "{report}");
    }
}

#[test]
fn witnesses_that_contradict_each_other_are_both_shown() {
    let said = |result: &str, code: &str, status: &str, actions: &[UnitAction]| {
        let end = UnitEnd {
            service_result: Some(result.to_owned()),
            exit_code: Some(code.to_owned()),
            exit_status: Some(status.to_owned()),
            actions: actions.to_vec(),
            ..UnitEnd::default()
        };
        (T0 + 9 * S, Event::Witness(Witness::from(&end)))
    };
    let lived = |s: u64| vec![by_systemd(), begins(0, "drain", 30 * S), alive(s * S)];
    let log = |oom_log: &OomLog, now_s: u64| HostState {
        oom_log: oom_log.clone(),
        mono_us: Some(T0 + now_s * S),
        ..now()
    };
    let (killed, silent) = (OomLog::Killed("Killed process 4100".to_owned()), OomLog::NotKilled);
    let with = |mut events: Vec<_>, said| {
        events.push(said);
        events
    };
    let cases = [
        // The line of the kernel log is about a later process, or one of the two is wrong.
        (
            vec![said("core-dump", "dumped", "SEGV", &[])],
            log(&killed, 60),
            Reason::Signal,
            ["ended by SIGSEGV", "Killed process 4100; that contradicts the rest"],
        ),
        (
            vec![said("exit-code", "exited", "3", &[])],
            log(&killed, 60),
            Reason::Exit,
            ["exited with status 3", "Killed process 4100; that contradicts the rest"],
        ),
        (
            vec![said("signal", "killed", "KILL", &[])],
            log(&killed, 60),
            Reason::OutOfMemory,
            ["Killed process 4100", ""],
        ),
        // systemd knows of an OOM kill in the unit, and the kernel log of none of this process.
        (
            vec![said("oom-kill", "killed", "KILL", &[])],
            log(&silent, 60),
            Reason::OomPolicy,
            [
                "OOM-killed a process of the unit",
                "the kernel log shows no OOM kill of this process",
            ],
        ),
        (
            vec![said("signal", "killed", "KILL", &[UnitAction::OomKill])],
            log(&silent, 60),
            Reason::Signal,
            ["another process, by the kernel log", ""],
        ),
        // A timeout was over, but it was dead before the end of the stop timeout.
        (
            with(lived(0), said("timeout", "killed", "KILL", &[])),
            log(&silent, 1),
            Reason::Timeout,
            ["the result does not say which", ""],
        ),
        (
            with(lived(2), said("timeout", "killed", "KILL", &[])),
            log(&silent, 4),
            Reason::StopTimeout,
            ["stop timeout was over after SIGTERM from systemd(1)", ""],
        ),
    ];
    for (events, host, reason, texts) in cases {
        let report = post_mortem(&record(start(), &events), &host);
        assert_eq!(report.reason, reason, "{report}");
        assert!(texts.iter().all(|text| report.evidence.contains(text)), "{report}");
    }
}

/// What a witness may say, most of it nonsense.
fn any_witness() -> impl Strategy<Value = Witness> {
    let one = |words: &'static [&'static str]| {
        proptest::option::of(proptest::sample::select(words).prop_map(str::to_owned))
    };
    let results = one(&["timeout", "signal", "oom-kill", "watchdog", "exit-code", "success", "x"]);
    let codes = one(&["killed", "exited", "dumped", "x"]);
    let statuses = one(&["KILL", "SEGV", "TERM", "USR1", "3", "0"]);
    let known = &[
        UnitAction::StartTimeout,
        UnitAction::RuntimeMax,
        UnitAction::StopTimeout,
        UnitAction::OomKill,
        UnitAction::OomdKill,
    ];
    let actions = proptest::collection::vec(proptest::sample::select(&known[..]), 0..2);
    let unit = (results, codes, statuses, actions).prop_map(
        |(service_result, exit_code, exit_status, actions)| {
            let end = UnitEnd { service_result, exit_code, exit_status, ..UnitEnd::default() };
            Witness::from(&UnitEnd { actions, ..end })
        },
    );
    let codes = proptest::sample::select(&[0, 1, 137, 139, 143][..]);
    let container =
        (codes, any::<bool>(), any::<Option<bool>>()).prop_map(|(code, is_known, oom_killed)| {
            Witness::from(&ContainerEnd {
                runtime: "podman".to_owned(),
                exit_code: is_known.then_some(code),
                oom_killed,
                ..ContainerEnd::default()
            })
        });
    prop_oneof![unit, container]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Each claim of a verdict needs a fact of the record, of the host or of a witness.
    #[test]
    fn no_verdict_claims_more_than_is_known(
        cause in proptest::sample::select(&["systemd", "operator", "supervisor", "container_stop"][..]),
        (asked, in_phase, in_pod) in any::<(bool, bool, bool)>(),
        (same_machine, other_boot) in any::<(bool, bool)>(),
        lived_s in 0..8_u64,
        timeout_s in proptest::option::of(1..6_u64),
        grace_s in proptest::option::of(1..6_u64),
        kills in 2..4_u64,
        log in 0..3_usize,
        witnesses in proptest::collection::vec(any_witness(), 0..2),
    ) {
        let mut start = start();
        start.stop_timeout_us = timeout_s.map(|s| Timespan::Finite(s * S));
        start.grace_us = grace_s.map(|s| s * S);
        if in_pod {
            (start.unit, start.pod) = (None, Some("shop/web-0".to_owned()));
        }
        let mut events = Vec::new();
        if asked {
            events.push(sigterm(cause, 1, if cause == "systemd" { "systemd" } else { "sh" }));
        }
        if in_phase {
            events.push(begins(0, "drain", 60 * S));
        }
        events.push(alive(lived_s * S));
        for witness in &witnesses {
            events.push((T0 + 100 * S, Event::Witness(witness.clone())));
        }
        let mut host = HostState { oom_kill: Some(kills), ..now() };
        let logs = [OomLog::Unknown, OomLog::NotKilled, OomLog::Killed("it".to_owned())];
        host.oom_log = logs[log].clone();
        if other_boot {
            host.boot_id = Some("boot-2".to_owned());
        }
        if !same_machine {
            host.place = Place::default();
        }
        if in_pod {
            host.place.pod = Some("shop/web-0".to_owned());
        }
        let report = post_mortem(&record(start, &events), &host);
        let texts = format!("{}; {}", report.evidence, report.advice.as_deref().unwrap_or(""));
        let units: Vec<_> = witnesses.iter().filter_map(Witness::unit_end).collect();
        let containers: Vec<_> = witnesses.iter().filter_map(Witness::container_end).collect();
        let unit = |is: &dyn Fn(&UnitEnd) -> bool| units.iter().any(is);
        let has_result = |result: &str| unit(&|end| end.service_result.as_deref() == Some(result));
        let did = |action| unit(&|end| end.did(action));
        let is_seen_until = |timeout_s: Option<u64>| {
            timeout_s.is_some_and(|s| lived_s + 2 >= s && lived_s <= s + 1)
        };
        let by_systemd = asked && cause == "systemd";
        let is_true = match report.reason {
            Reason::StopTimeout => {
                has_result("timeout") || (by_systemd && is_seen_until(timeout_s))
            }
            Reason::GracePeriod => asked && cause != "operator" && is_seen_until(grace_s),
            Reason::OutOfMemory => {
                let by_runtime = containers.iter().any(|end| end.oom_killed == Some(true));
                let by_systemd = did(UnitAction::OomKill) || did(UnitAction::OomdKill);
                log == 2 || has_result("oom-kill") || by_systemd || by_runtime
            }
            Reason::OomPolicy => has_result("oom-kill") || did(UnitAction::OomKill),
            Reason::Watchdog => has_result("watchdog"),
            Reason::StartTimeout | Reason::RuntimeMax | Reason::Timeout => has_result("timeout"),
            Reason::Signal => unit(&|end| end.signal().is_some()) || !containers.is_empty(),
            Reason::Exit => unit(&|end| end.status().is_some()) || !containers.is_empty(),
            Reason::ContainerEnded => !containers.is_empty(),
            Reason::Reboot => other_boot && same_machine && !in_pod,
            Reason::Elsewhere => other_boot,
            Reason::Unknown => true,
            _ => false,
        };
        prop_assert!(is_true, "{report}");
        // Nothing is observed without an observer.
        let observed = |by| report.basis == Basis::observed(by);
        prop_assert!(!observed(Source::Systemd) || !units.is_empty(), "{report}");
        prop_assert!(!observed(Source::ContainerRuntime) || !containers.is_empty(), "{report}");
        prop_assert!(!observed(Source::Kernel) || log == 2, "{report}");
        prop_assert!(!observed(Source::Program), "{report}");
        // Words that need a fact.
        let was_terminated = unit(&|end| end.exit_status.as_deref() == Some("TERM"))
            || containers.iter().any(|end| end.exit_code == Some(143));
        let needs = [
            ("systemd reports", !units.is_empty()),
            ("podman reports", !containers.is_empty()),
            ("the kernel log says", log == 2),
            ("the kernel log shows no OOM kill", log == 1),
            ("oom_kill counter", kills > 2),
            ("another machine", other_boot),
            ("booted again", other_boot && same_machine && !in_pod),
            ("power loss", false),
            ("cgroup is gone", false),
            ("SIGTERM", asked || was_terminated),
            ("phase drain", in_phase),
            ("TimeoutStopSec=", !in_pod || by_systemd || !units.is_empty()),
            ("journalctl", !in_pod),
        ];
        for (words, is_known) in needs {
            prop_assert!(is_known || !texts.contains(words), "`{}` in {}", words, report);
        }
    }
}
