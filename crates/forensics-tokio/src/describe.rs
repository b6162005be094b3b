//! What may explain that something stalls: the phases that run, the runtime, and all threads.

use std::fmt::Write;
use std::time::Duration;

use forensics_core::logfmt::Value;
use forensics_core::threads::Thread;

use crate::blocking::run_with_timeout;
use crate::machine::Seconds;
use crate::shutdown::Shutdown;

/// How many threads are named.
const MAX_THREADS: usize = 64;

/// How long the threads may take to be read.
const READ_LIMIT: Duration = Duration::from_millis(200);

/// How soon after the beginning of a stop the threads' CPU time is counted from. Not at once: then
/// everything that has to do with the signal wants a processor.
const COUNT_CPU_AFTER: Duration = Duration::from_millis(100);

/// Reads the threads once, soon after the stop began, to have something to compare with.
pub(crate) fn sample_threads(shutdown: &Shutdown, since: Duration) {
    if since >= COUNT_CPU_AFTER {
        shutdown.threads_before.get_or_init(threads);
    }
}

fn threads() -> Vec<Thread> {
    run_with_timeout(READ_LIMIT, || Thread::all(MAX_THREADS)).unwrap_or_default()
}

/// `what`, the phases that run, what the runtime counts, and all threads: one line, safe to show.
pub(crate) fn describe(shutdown: &Shutdown, what: &str) -> String {
    let mut text = what.to_owned();
    for unsaid in shutdown.log.unsaid() {
        if unsaid.starts_with("Shutdown context") {
            // Writing to a String does not fail.
            let _ = write!(text, "; {unsaid}");
        }
    }
    let snapshot = shutdown.machine().snapshot(shutdown.now());
    for (name, ran, _) in snapshot.into_iter().flat_map(|snapshot| snapshot.running) {
        let _ = write!(text, "; phase {} has run for {}", Value(&name), Seconds(ran));
    }
    let metrics = shutdown.runtime().metrics();
    let _ = write!(
        text,
        "; runtime: {} workers, {} tasks, {} queued",
        metrics.num_workers(),
        metrics.num_alive_tasks(),
        metrics.global_queue_depth(),
    );
    let mut separator = "; threads: ";
    for thread in threads() {
        let _ = write!(text, "{separator}{thread}");
        separator = ", ";
        if let Some(before) = shutdown.threads_before.get() {
            let before = before.iter().find(|one| one.tid == thread.tid);
            let before = before.map_or(0, |one| one.cpu_ticks);
            // A clock tick is 10 ms on every Linux that Rust runs on (USER_HZ).
            let cpu = Duration::from_millis(thread.cpu_ticks.saturating_sub(before) * 10);
            let _ = write!(text, " cpu={}", Seconds(cpu));
        }
    }
    text
}
