//! Captures the context: runs its probes, with a limit on each.
//!
//! Most probes read small files that the kernel itself provides at once. They run on the calling
//! thread, because starting a thread takes longer than they do, and much longer on a busy host.
//!
//! The other probes may block forever: a file of `/proc`, `/sys` or a cgroup if lxcfs serves it
//! through FUSE, a command line if its process has locked its memory map, and a marker if its file
//! server does not respond. They run on a separate thread. If a probe does not answer, its thread
//! is abandoned, its fact is missing, and the other probes continue on a new thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use forensics_core::capture::Signal;
use forensics_core::cause::Cause;
use forensics_core::context::{
    Found, Probe, ProbeResult, Sender, ShutdownContext, StartupInfo, Trigger,
};

use crate::blocking::spawn_detached;
use crate::machine::Caught;
use crate::notify::watchdog;

/// How long a probe may take. A busy machine may need this long to run a thread.
const PROBE_LIMIT: Duration = Duration::from_millis(100);

/// How long all probes together may take if several do not answer.
const TOTAL_LIMIT: Duration = Duration::from_millis(300);

/// Captures the facts that the context line shows. Takes about 200 µs, and at most [`TOTAL_LIMIT`].
pub(crate) fn capture(
    startup: &Arc<StartupInfo>,
    trigger: Trigger,
    signal: Option<&Caught>,
) -> ShutdownContext {
    let mut context = start(startup, trigger, signal);
    run(&mut context, startup, startup.line_probes(), TOTAL_LIMIT);
    context
}

/// Adds the facts that only the record shows, with the same limit.
pub(crate) fn complete(startup: &Arc<StartupInfo>, context: &mut ShutdownContext) {
    run(context, startup, Probe::OF_RECORD.to_vec(), TOTAL_LIMIT);
}

/// Finds out who sent a repeated signal, and why. It takes at most [`PROBE_LIMIT`], because there may
/// be many repeated signals.
pub(crate) fn resolve_sender(
    startup: &Arc<StartupInfo>,
    signal: &Caught,
) -> (Option<Sender>, Cause) {
    let trigger = Trigger::Signal { signal: signal.captured.signal };
    let mut context = start(startup, trigger, Some(signal));
    run(&mut context, startup, Probe::OF_SENDER.to_vec(), PROBE_LIMIT);
    let cause = context.cause();
    (context.sender, cause)
}

fn start(startup: &StartupInfo, trigger: Trigger, signal: Option<&Caught>) -> ShutdownContext {
    let captured = signal.map(|signal| &signal.captured);
    let mut context = ShutdownContext::start(startup, trigger, captured);
    match signal.and_then(|signal| signal.sender.clone()) {
        Some(sender) => context.apply(Some(Found::Sender(sender))),
        None if context.signal() == Some(Signal::ABRT) && !watchdog::may_be_overdue() => {
            context.rule_out_watchdog();
        }
        None => {}
    }
    context
}

/// Runs these probes and adds what they find. Takes at most `limit`, unless no thread can be started.
fn run(
    context: &mut ShutdownContext,
    startup: &Arc<StartupInfo>,
    probes: impl IntoIterator<Item = Probe>,
    limit: Duration,
) {
    let began = Instant::now();
    let mut may_block = VecDeque::new();
    for probe in probes {
        match probe.try_run(context, startup) {
            Some(result) => context.apply(result),
            None => may_block.push_back(probe),
        }
    }
    let mut probes = may_block;
    while !probes.is_empty() && began.elapsed() < limit {
        let Some(results) = run_on_thread(context, startup, &probes) else {
            return run_here(context, startup, probes);
        };
        let time_left = || limit.saturating_sub(began.elapsed());
        while let Ok(result) = results.recv_timeout(PROBE_LIMIT.min(time_left())) {
            context.apply(result);
            probes.pop_front();
        }
        // Either no probe is left, or the first one that is left does not answer.
        probes.pop_front();
    }
}

/// Runs the probes one after another on a thread. Returns `None` if no thread can be started.
fn run_on_thread(
    context: &ShutdownContext,
    startup: &Arc<StartupInfo>,
    probes: &VecDeque<Probe>,
) -> Option<Receiver<ProbeResult>> {
    let (sender, results) = mpsc::channel();
    let (mut known, startup, probes) = (context.clone(), startup.clone(), probes.clone());
    let work = move || {
        for probe in probes {
            let result = probe.run(&known, &startup);
            known.apply(result.clone());
            if sender.send(result).is_err() {
                // The receiver no longer waits for this thread.
                return;
            }
        }
    };
    spawn_detached("shutdown-probe", work).ok()?;
    Some(results)
}

/// Runs the probes on the calling thread, except those that block most often.
fn run_here(context: &mut ShutdownContext, startup: &StartupInfo, probes: VecDeque<Probe>) {
    for probe in probes {
        if !matches!(probe, Probe::SenderCmdline | Probe::Marker(_)) {
            let result = probe.run(context, startup);
            context.apply(result);
        }
    }
}
