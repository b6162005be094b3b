//! Describes a stall: the running phases, the runtime, and all threads.

use std::time::Duration;

use forensics_core::logfmt::Value;
use forensics_core::threads::Thread;

use crate::blocking::run_with_timeout;
use crate::machine::Seconds;
use crate::shutdown::Shutdown;

/// How many threads are listed.
const MAX_THREADS: usize = 64;

/// How long reading the threads may take.
pub(crate) const READ_LIMIT: Duration = Duration::from_millis(200);

/// How long after the beginning of a stop the threads' CPU time starts to count. At first, everything
/// that handles the signal needs CPU time.
const COUNT_CPU_AFTER: Duration = Duration::from_millis(100);

/// Reads the threads once, soon after the stop began, for later comparison.
pub(crate) fn sample_threads(shutdown: &Shutdown, since: Duration) {
    if since >= COUNT_CPU_AFTER {
        shutdown.threads_before.get_or_init(|| threads(READ_LIMIT));
    }
}

fn threads(limit: Duration) -> Vec<Thread> {
    run_with_timeout(limit, || Thread::all(MAX_THREADS)).unwrap_or_default()
}

/// Returns `what`, the running phases, the runtime's figures, and all threads, as one line that is safe to
/// show. Reading the threads takes at most `limit`.
pub(crate) fn describe(shutdown: &Shutdown, what: &str, limit: Duration) -> String {
    let mut parts = vec![what.to_owned()];
    let not_emitted = shutdown.log.not_emitted().into_iter();
    parts.extend(not_emitted.filter(|text| text.starts_with("Shutdown context")));
    let snapshot = shutdown.machine().snapshot(shutdown.now());
    for (name, ran, _) in snapshot.into_iter().flat_map(|snapshot| snapshot.running) {
        parts.push(format!("phase {} has run for {}", Value(&name), Seconds(ran)));
    }
    let metrics = shutdown.runtime.metrics();
    let (workers, tasks) = (metrics.num_workers(), metrics.num_alive_tasks());
    let queued = metrics.global_queue_depth();
    parts.push(format!("runtime: {workers} workers, {tasks} tasks, {queued} queued"));
    let before = shutdown.threads_before.get();
    let threads = threads(limit).into_iter().map(|thread| {
        let Some(before) = before else { return thread.to_string() };
        let before = before.iter().find(|one| one.tid == thread.tid).map_or(0, |one| one.cpu_ticks);
        // A clock tick is 10 ms on every Linux that Rust runs on (USER_HZ).
        let cpu = Duration::from_millis(thread.cpu_ticks.saturating_sub(before) * 10);
        format!("{thread} cpu={}", Seconds(cpu))
    });
    let threads = threads.collect::<Vec<_>>().join(", ");
    if !threads.is_empty() {
        parts.push(format!("threads: {threads}"));
    }
    parts.join("; ")
}
