//! Ends that systemd reports: the result of the unit, and how its main process ended.

use super::timer::StopTimer;
use super::words::{
    is_stop_under_way, shown, signal_from, stalled, state, what_to_do_about_timeouts,
};
use super::{Texts, no_end_after, texts};
use crate::basis::{Basis, Source};
use crate::record::summary::Summary;
use crate::record::verdict::Verdict;
use crate::record::{HostState, OomLog, Reason, UnitAction, UnitEnd};

/// The verdict that follows from what systemd says about the end of the main process. `None` if
/// systemd says nothing about it, or if this was another process.
pub(super) fn by_unit(
    run: &Summary<'_>,
    host: &HostState,
    timer: Option<&StopTimer<'_>>,
) -> Option<Verdict> {
    let end = run.main_end()?;
    let may_be_kill = end.exit_code.is_none() || end.signal().as_deref() == Some("SIGKILL");
    let (reason, basis, (evidence, advice)) = match end.service_result.as_deref() {
        _ if end.did(UnitAction::OomdKill) && may_be_kill => oomd(),
        Some("oom-kill") => out_of_memory(run, host, end),
        None if end.did(UnitAction::OomKill) => out_of_memory(run, host, end),
        Some("timeout") if is_end_of_main(end) => {
            let is_too_late = |it: &&StopTimer<'_>| {
                it.reason == Reason::StopTimeout && it.is_after_death(run, host)
            };
            timeout(run, end, timer.filter(is_too_late))
        }
        Some("watchdog") => watchdog(run, end),
        result => match (end.signal(), end.status()) {
            (Some(signal), _) => by_signal(run, end, &signal),
            (None, Some(status)) => exited(run, status),
            (None, None) => (
                Reason::Unknown,
                no_end_after(run.asked.map(|(_, signal)| signal)),
                texts(
                    format!("systemd does not say how its main process ended{}", unnamed(result)),
                    "",
                ),
            ),
        },
    };
    let advice = (advice + &then_ask(run)).trim_start_matches("; ").to_owned();
    let said = said(run, end) + &oom_kill_besides(host, end);
    Some(Verdict::new(reason, basis, format!("{evidence}; {said}"), advice))
}

/// Whether the main process can have ended by the timeout that is the result of the unit. The journal
/// would have that timeout, or how the process ended, unless the process had ended well before, or was
/// left alive.
fn is_end_of_main(end: &UnitEnd) -> bool {
    const TIMEOUTS: [UnitAction; 3] =
        [UnitAction::StartTimeout, UnitAction::RuntimeMax, UnitAction::StopTimeout];
    let is_of_journal = !end.actions.is_empty();
    end.exit_code.is_some() || !is_of_journal || TIMEOUTS.iter().any(|&timeout| end.did(timeout))
}

/// An OOM kill in the unit that was not the reason for its result, as with `OOMPolicy=continue`.
fn oom_kill_besides(host: &HostState, end: &UnitEnd) -> String {
    let is_result = matches!(end.service_result.as_deref(), None | Some("oom-kill"));
    if is_result || !end.did(UnitAction::OomKill) {
        return String::new();
    }
    let is_killed = end.signal().as_deref() == Some("SIGKILL");
    let whose = match host.oom_log {
        _ if !is_killed => "another process",
        OomLog::NotKilled => "another process, by the kernel log",
        _ => "a process, perhaps this one",
    };
    format!("; it also reports that the kernel OOM-killed a process of the unit: {whose}")
}

fn unnamed(result: Option<&str>) -> &'static str {
    if result.is_none() { ", and not the result of the unit" } else { "" }
}

/// What systemd said, in its own words.
pub(super) fn said(run: &Summary<'_>, end: &UnitEnd) -> String {
    let result = end.service_result.as_ref().map(|word| format!("result={}", shown(word)));
    let code = end.exit_code.as_ref().map(|word| format!("exit_code={}", shown(word)));
    let status = end.exit_status.as_ref().map(|word| format!("exit_status={}", shown(word)));
    let all = result.into_iter().chain(code).chain(status);
    let all = all.collect::<Vec<_>>().join(" ");
    if run.is_main() {
        return format!("systemd reports {all}");
    }
    let this_one = match run.start.parent_name.as_deref() {
        Some(parent) => format!("but this one was started by {}", shown(parent)),
        None => "and it is not known whether that was this one".to_owned(),
    };
    format!("systemd reports {all} of the unit and its main process, {this_one}")
}

type Found = (Reason, Basis, Texts);

fn observed(reason: Reason, found: Texts) -> Found {
    (reason, Basis::observed(Source::Systemd), found)
}

/// The end of one of systemd's timeouts. `too_late` is the stop timeout if the process was dead before its
/// end.
fn timeout(run: &Summary<'_>, end: &UnitEnd, too_late: Option<&StopTimer<'_>>) -> Found {
    let explained = run.explained.map(|explained| explained.reason.as_str());
    let began = |action, word| end.did(action) || explained == Some(word);
    let was_killed = end.signal().as_deref() == Some("SIGKILL");
    let begun = if began(UnitAction::StartTimeout, "start_timeout") {
        Some(Reason::StartTimeout)
    } else if began(UnitAction::RuntimeMax, "runtime_max") {
        Some(Reason::RuntimeMax)
    } else {
        None
    };
    let of_stop = end.did(UnitAction::StopTimeout);
    let may_be_stop = begun.is_none() && was_killed && is_stop_under_way(run);
    if of_stop || (may_be_stop && too_late.is_none()) {
        let evidence = match run.asked {
            Some((_, signal)) => {
                format!("systemd's stop timeout was over after {}", signal_from(signal))
            }
            None => "systemd's stop timeout was over".to_owned(),
        };
        let advice = what_to_do_about_timeouts(run, "TimeoutStopSec=");
        let advice = format!("{}{}: {advice}", state(run), stalled(run));
        return observed(Reason::StopTimeout, texts(evidence, advice));
    }
    // It did not live until the end of the stop timeout that followed.
    let then = if was_killed && too_late.is_some() {
        "; it was then ended by SIGKILL, before systemd's stop timeout was over"
    } else {
        ""
    };
    let texts = |evidence: &str, advice| texts(format!("{evidence}{then}"), advice);
    match begun {
        Some(Reason::StartTimeout) => observed(
            Reason::StartTimeout,
            texts(
                "its start took longer than TimeoutStartSec=",
                "raise TimeoutStartSec=, or tell systemd sooner that it is ready",
            ),
        ),
        Some(_) => observed(
            Reason::RuntimeMax,
            texts("it ran longer than RuntimeMaxSec=", "raise RuntimeMaxSec= if it may run longer"),
        ),
        None => observed(
            Reason::Timeout,
            texts(
                "one of systemd's timeouts was over (TimeoutStartSec=, RuntimeMaxSec= or \
                 TimeoutStopSec=); the result does not say which",
                "",
            ),
        ),
    }
}

fn watchdog(run: &Summary<'_>, end: &UnitEnd) -> Found {
    let evidence = format!("it missed its watchdog (WatchdogSec=){}", stalled(run));
    let advice = format!("find what kept it from answering{}", core(run, end));
    observed(Reason::Watchdog, texts(evidence, advice))
}

fn oomd() -> Found {
    observed(
        Reason::OutOfMemory,
        texts(
            "systemd-oomd killed the unit, because memory was short",
            "find what took the memory, or set ManagedOOMPreference=avoid",
        ),
    )
}

/// A process of the unit was OOM-killed. systemd does not say which one.
fn out_of_memory(run: &Summary<'_>, host: &HostState, end: &UnitEnd) -> Found {
    let killed = "the kernel OOM-killed a process of the unit";
    let advice = "raise MemoryMax=, or find what took the memory";
    if let Some((_, signal)) = run.asked {
        let from = signal_from(signal);
        let basis = Basis::inferred(format!("systemd reports that {killed}"))
            .and(format!("{from} had arrived before the end"));
        let evidence = format!("{killed}, and this one received {from} before it ended");
        return (Reason::OomPolicy, basis, texts(evidence, advice));
    }
    let was_killed = end.signal().as_deref() == Some("SIGKILL");
    if was_killed && host.oom_log == OomLog::NotKilled {
        let not_this = "the kernel log shows no OOM kill of this process";
        let basis = Basis::inferred(format!("systemd reports that {killed}")).and(not_this);
        let evidence = format!("{killed}, and this one was ended by SIGKILL, but {not_this}");
        return (Reason::OomPolicy, basis, texts(evidence, advice));
    }
    if was_killed {
        let basis = Basis::inferred(format!("systemd reports that {killed}"))
            .and("its main process was ended by SIGKILL")
            .and("its record has no request to stop");
        let evidence = format!("{killed}, and its main process was ended by SIGKILL");
        return (Reason::OutOfMemory, basis, texts(evidence, advice));
    }
    let evidence = format!("{killed}; systemd does not say which one");
    observed(Reason::OomPolicy, texts(evidence, advice))
}

/// It was ended by a signal, and systemd reports no timeout.
fn by_signal(run: &Summary<'_>, end: &UnitEnd, signal: &str) -> Found {
    let by_client = end.client_signal.as_ref().is_some_and(|sent| signal == format!("SIG{sent}"));
    let (evidence, advice) = super::words::ended_by_signal(signal, run);
    if by_client {
        let evidence = format!("{signal} was sent by `systemctl kill` or a program like it");
        return observed(Reason::Signal, texts(evidence, ""));
    }
    let evidence = match signal {
        "SIGKILL" if run.sent(signal).is_none() => {
            let not_timeout = match end.service_result {
                Some(_) => ", not at the end of a timeout of systemd",
                None => "",
            };
            format!("{evidence}{not_timeout}; who sent it is not recorded")
        }
        _ => evidence,
    };
    observed(Reason::Signal, texts(evidence, advice + &core(run, end)))
}

fn exited(run: &Summary<'_>, status: i32) -> Found {
    let evidence = format!("it exited with status {status} and did not record its end");
    let advice = if run.asked.is_some() {
        format!("{}: return from main only after run(), and do not call exit()", state(run))
    } else {
        "main returned without run(), or something called exit()".to_owned()
    };
    observed(Reason::Exit, texts(evidence, advice))
}

/// Where its core dump is, if a signal that dumps core has ended it.
fn core(run: &Summary<'_>, end: &UnitEnd) -> String {
    const DUMP_CORE: [&str; 10] =
        ["ABRT", "BUS", "FPE", "ILL", "QUIT", "SEGV", "SYS", "TRAP", "XCPU", "XFSZ"];
    let status = end.exit_status.as_deref().unwrap_or_default();
    match end.exit_code.as_deref() {
        Some("dumped") => format!("; a core was dumped: coredumpctl info {}", run.start.pid),
        Some("killed") if DUMP_CORE.contains(&status) => {
            "; no core was dumped: LimitCORE= sets how large it may be".to_owned()
        }
        _ => String::new(),
    }
}

/// Names the command that shows the unit's journal. Empty without a unit, as in a container.
fn then_ask(run: &Summary<'_>) -> String {
    match run.start.unit.as_deref() {
        Some(unit) => format!("; see journalctl -u {}", shown(unit)),
        None => String::new(),
    }
}

/// A run that recorded its end, and whose process then ended in another way.
pub(super) fn after_the_end(run: &Summary<'_>) -> Verdict {
    let (end, container) = (run.main_end(), run.container_end.as_ref());
    let signal = run.ended_by();
    let (evidence, advice) = match &signal {
        Some(signal) => super::words::ended_by_signal(signal, run),
        None => texts("it ended in another way", ""),
    };
    let how = super::ended::ended(run);
    let (source, said) = match (end, container) {
        (Some(end), _) => (Source::Systemd, said(run, end)),
        (None, Some(end)) => (Source::ContainerRuntime, super::container::said(end)),
        (None, None) => (Source::Other, String::new()),
    };
    let core = end.map(|end| core(run, end)).unwrap_or_default();
    let evidence = format!("its record says: {how}; after that {evidence}; {said}");
    Verdict::new(Reason::Signal, Basis::observed(source), evidence, advice + &core)
}

/// A run that recorded an end as planned, and whose process then exited with this status.
pub(super) fn failed_after_the_end(run: &Summary<'_>, status: i32) -> Verdict {
    let (source, said) = match (run.main_end(), &run.container_end) {
        (None, Some(end)) => (Source::ContainerRuntime, super::container::said(end)),
        _ => (Source::Systemd, result(run).trim_start_matches("; ").to_owned()),
    };
    let how = super::ended::ended(run);
    let evidence = format!("its record says: {how}; but it exited with status {status}; {said}");
    let advice = "see what main does after run(), such as a panic or a call of exit()";
    Verdict::new(Reason::Exit, Basis::observed(source), evidence, advice)
}

/// systemd stopped a run that had not started in time.
pub(super) fn not_started(run: &Summary<'_>) -> Verdict {
    let evidence = format!(
        "systemd stopped it because its start took longer than TimeoutStartSec=; {}{}",
        super::ended::ended(run),
        result(run)
    );
    let advice = "raise TimeoutStartSec=, or tell systemd sooner that it is ready";
    Verdict::new(Reason::StartTimeout, Basis::observed(Source::Systemd), evidence, advice)
}

/// The result of the unit, for a run that ended by itself although systemd counts it as failed.
pub(super) fn result(run: &Summary<'_>) -> String {
    let is_failure =
        |end: &&UnitEnd| end.service_result.as_deref().is_some_and(|it| it != "success");
    let end = run.unit_end.as_ref().filter(is_failure);
    end.map(|end| format!("; {}", said(run, end))).unwrap_or_default()
}
