//! Runs of another boot or another machine.
//!
//! Another boot id proves another boot of this machine only if it is the same machine: the same
//! machine id, and no container, which may have moved. Neither another boot nor another machine says
//! why the run ended.

use super::no_end_after;
use super::supervisor::Supervisor;
use super::words::{is_plain, shown, signal_from, state, timeouts};
use crate::basis::Basis;
use crate::record::post_mortem::Span;
use crate::record::summary::Summary;
use crate::record::verdict::Verdict;
use crate::record::{HostState, Reason};

/// Why it is not known whether the run lives.
pub(super) fn not_visible(run: &Summary<'_>) -> String {
    let host = run.start.host.as_deref().map(shown);
    let place = match &run.start.pod {
        Some(pod) => format!("pod {}", shown(pod)),
        None => format!("host or container {}", host.unwrap_or_else(|| "?".to_owned())),
    };
    format!(
        "its record has no end, and neither its process (pid {} in {place}) nor its lock can be \
         seen from here; it may still be alive",
        run.start.pid
    )
}

/// The machine was booted again since.
pub(super) fn rebooted(run: &Summary<'_>, host: &HostState) -> Verdict {
    let basis = basis(run, host).and("the machine id is the same");
    let boots = boots(run, host);
    let boot = run.start.boot_id.as_deref().unwrap_or_default().replace('-', "");
    let mut log = "the end of the log of that boot may say more".to_owned();
    if is_plain(&boot) {
        log += &format!(": journalctl -b {boot} -e");
    }
    let evidence = match run.asked {
        Some((at_us, signal)) => format!(
            "this machine was booted again since: {boots}; {} arrived {} before the last event",
            signal_from(signal),
            Span(run.last_us.saturating_sub(at_us))
        ),
        None => format!(
            "this machine was booted again since: {boots}; its record has no request to \
             stop, and what ended it is not recorded"
        ),
    };
    let advice = if run.asked.is_some() && run.start.unit.is_some() {
        format!(
            "{} at the last event: if the shutdown of the machine cut it short, lower {}, or raise \
             TimeoutStopSec=; {log}",
            state(run),
            timeouts(run)
        )
    } else {
        log
    };
    Verdict::new(Reason::Reboot, basis, evidence, advice)
}

/// The run ended on another machine, or in another boot; which of the two is not known.
pub(super) fn moved(run: &Summary<'_>, host: &HostState) -> Verdict {
    let boots = boots(run, host);
    let told = match run.asked {
        Some((at_us, signal)) => format!(
            "{} arrived {} before the last event, and the record has no end",
            signal_from(signal),
            Span(run.last_us.saturating_sub(at_us))
        ),
        None => "its record has neither a request to stop nor an end".to_owned(),
    };
    let evidence = format!("it ran on another machine, or in another boot: {boots}; {told}");
    let advice = match Supervisor::of(run).filter(|_| run.asked.is_some()) {
        Some(supervisor) => format!(
            "{} at the last event; {}: if that was too short, raise it or lower {}",
            state(run),
            supervisor.habit(),
            timeouts(run)
        ),
        None => "see what the supervisor of that machine says about it".to_owned(),
    };
    Verdict::new(Reason::Elsewhere, basis(run, host), evidence, advice)
}

fn boots(run: &Summary<'_>, host: &HostState) -> String {
    let [then, now] =
        [&run.start.boot_id, &host.boot_id].map(|id| shown(id.as_deref().unwrap_or("?")));
    format!("the boot id was {then} and is {now} now")
}

fn basis(run: &Summary<'_>, host: &HostState) -> Basis {
    no_end_after(run.asked.map(|(_, signal)| signal)).and(boots(run, host))
}
