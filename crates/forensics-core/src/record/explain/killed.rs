//! Runs whose record has no end.
//!
//! What a witness says comes first: the kernel log, systemd, the container runtime. Without one,
//! the end of a stop timeout is inferred from the time at which the run died.

use super::audit::with_sender;
use super::container::by_container;
use super::elsewhere::moved;
use super::memory::{by_kernel, contradicted_line, memory};
use super::no_end_after;
use super::supervisor::{Supervisor, shell_as_process_one};
use super::timer::{StopTimer, range};
use super::unit::{by_unit, said};
use super::words::{is_plain, shown, signal_from, signal_name, stalled, state, timeouts};
use crate::basis::Basis;
use crate::duration::Timespan;
use crate::record::summary::Summary;
use crate::record::verdict::Verdict;
use crate::record::{HostState, Reason, SignalEvent};

/// How a process can end without recording it.
const HOW: &str = "SIGKILL, another signal, a crash or a call of exit()";

/// The verdict on a run whose record has no end.
pub(super) fn killed(
    run: &Summary<'_>,
    host: &HostState,
    timer: Option<&StopTimer<'_>>,
) -> Verdict {
    if host.has_executed(run.start) {
        return executed(run);
    }
    let verdict = by_kernel(run, host)
        .or_else(|| by_unit(run, host, timer))
        .or_else(|| by_container(run, host, timer))
        .or_else(|| {
            let timer = timer.filter(|timer| timer.fits(run, host))?;
            Some(timer.verdict(run, host))
        })
        .unwrap_or_else(|| match run.asked {
            _ if run.rebooted(host) => moved(run, host),
            Some((at_us, signal)) => after_request(run, host, timer, (at_us, signal)),
            None if run.teardown_began() => {
                let evidence = format!(
                    "it ended in its teardown, and the record does not show by what: {HOW}{}",
                    memory(run, host)
                );
                let advice = format!("{}{}", state(run) + &stalled(run), ask_the_supervisor(run));
                Verdict::new(Reason::Unknown, no_end_after(None), evidence, advice)
            }
            None => unasked(run, host),
        });
    let verdict = match run.unit_end.as_ref().filter(|_| !run.is_main()) {
        Some(end) => verdict.with_evidence(&said(run, end)),
        None => verdict,
    };
    let verdict = match contradicted_line(run, host) {
        Some(line) => verdict.with_evidence(&line),
        None => verdict,
    };
    with_sender(verdict, run)
}

/// The process lives, but no longer has its record locked.
fn executed(run: &Summary<'_>) -> Verdict {
    let evidence = format!(
        "process {} still lives with the same start time, but it no longer has its record locked: \
         it has executed a program since (exec), or has closed its files",
        run.start.pid
    );
    let basis = Basis::inferred("its process lives: the same pid and start time")
        .and("its record is not locked")
        .and("its record has no end");
    let advice = "let run() return before you execute another program";
    Verdict::new(Reason::Exec, basis, evidence, advice)
}

/// Its record has no request to stop.
fn unasked(run: &Summary<'_>, host: &HostState) -> Verdict {
    let same_boot = run.start.boot_id.is_some() && host.boot_id.is_some();
    let power = if same_boot { "" } else { ", or the machine went down" };
    let shell = shell_as_process_one(run);
    let init = if shell.is_some() { ", the end of process 1 of its container" } else { "" };
    let evidence = format!(
        "its record has neither a request to stop nor an end: SIGKILL, another signal that it does \
         not handle, a crash{init} or a call of exit(){power}{}",
        memory(run, host)
    );
    let advice = match shell {
        Some(shell) => format!("{shell}{}", ask_the_supervisor(run)),
        None => ask_the_supervisor(run).trim_start_matches("; ").to_owned(),
    };
    Verdict::new(Reason::Unknown, no_end_after(None), evidence, advice)
}

/// It was asked to stop, and nothing shows what ended it.
fn after_request(
    run: &Summary<'_>,
    host: &HostState,
    timer: Option<&StopTimer<'_>>,
    (at_us, signal): (u64, &SignalEvent),
) -> Verdict {
    let (memory, state) = (memory(run, host), state(run) + &stalled(run));
    let basis = no_end_after(Some(signal));
    let range = range(run, host, at_us);
    let name = signal_name(signal);
    // The default may have been changed.
    let timer = timer.filter(|timer| !timer.is_default);
    if let (None, Some(supervisor)) = (timer, Supervisor::of(run)) {
        let evidence = format!(
            "{} had asked it to stop, and it died {range} after {name}, with no end in its record; \
             {}{memory}",
            signal_from(signal),
            supervisor.habit()
        );
        let basis = basis.and(format!("it died {range} after {name}"));
        let (who, setting) = (supervisor.name, supervisor.setting);
        let change = format!(
            "if it was {who} that sent SIGKILL, raise {setting} or lower {}",
            timeouts(run)
        );
        let advice = format!("{state}: {change}{}", ask_the_supervisor(run));
        return Verdict::new(Reason::Unknown, basis, evidence, advice);
    }
    let why_not_timer = match timer {
        Some(timer) => timer.why_not(run, host),
        None if run.asked_by_systemd.is_none() => {
            format!("; {} was not systemd's, and it died {range} after it", signal_from(signal))
        }
        None if run.stop_timeout == Some(Timespan::Infinite) => {
            format!("; systemd's stop timeout is infinite, and it died {range} after {name}")
        }
        None => format!("; systemd's stop timeout is not known, and it died {range} after {name}"),
    };
    let evidence =
        format!("it ended, but the record does not show by what: {HOW}{why_not_timer}{memory}");
    let basis = basis.and(format!("it died {range} after {name}"));
    let advice = format!("{state}{}", ask_the_supervisor(run).replacen(';', ":", 1));
    Verdict::new(Reason::Unknown, basis, evidence, advice)
}

/// Where to look, as the continuation of a sentence.
fn ask_the_supervisor(run: &Summary<'_>) -> String {
    let pod = run.start.pod.as_ref().filter(|pod| pod.split('/').all(is_plain));
    let what = match (&run.start.unit, pod) {
        (Some(unit), _) => format!("journalctl -u {} says", shown(unit)),
        (None, None) => "its supervisor logged".to_owned(),
        (None, Some(pod)) => {
            let pod = match pod.split_once('/') {
                Some((namespace, name)) => format!("{} -n {}", shown(name), shown(namespace)),
                None => shown(pod),
            };
            return format!("; see Last State in kubectl describe pod {pod}");
        }
    };
    format!("; see what {what} for {} and after", run.last)
}
