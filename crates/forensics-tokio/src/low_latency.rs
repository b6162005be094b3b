//! Short time slices for our threads, so that a stop is prompt on a busy host.
//!
//! A thread that wakes up on a busy host waits until the running thread has used up its slice, and
//! a stop wakes several threads. `forensics_core::capture` explains what a short slice does. The
//! threads that our own threads start inherit it. Our own threads start no processes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use forensics_core::capture;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Whether this crate's own threads request a short slice. It applies to the whole process.
static OWN_THREADS: AtomicBool = AtomicBool::new(false);

/// Whether the main thread and our own threads request a short slice. `configured` is what the
/// program or the operator set, if anything.
///
/// By default the main thread requests one only if the runtime is multi-threaded. It then waits for
/// the workers and computes little. In a current-thread runtime it runs the service itself.
fn decide(configured: Option<bool>, multi_threaded: bool, may_be_killed: bool) -> (bool, bool) {
    match configured {
        Some(wanted) => (wanted, wanted),
        None => (multi_threaded && !may_be_killed, !may_be_killed),
    }
}

/// Requests a short slice for the main thread as configured, and stores whether our own threads
/// request one. Must be called before our own threads are started.
///
/// # Errors
/// If it was configured, and the kernel refused it for the main thread. By default a refusal, such as
/// by an old kernel, is no error.
pub(crate) fn apply(configured: Option<bool>, runtime: &Handle) -> io::Result<()> {
    let multi_threaded = runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
    let may_be_killed = capture::may_be_killed_for_short_slice();
    let (main_thread, own_threads) = decide(configured, multi_threaded, may_be_killed);
    OWN_THREADS.store(own_threads, Ordering::Relaxed);
    if main_thread
        && let Err(error) = capture::request_short_slice_for_main_thread()
        && configured.is_some()
    {
        return Err(error.into());
    }
    Ok(())
}

/// Requests a short slice for the calling thread. Each thread that takes part in a stop calls this
/// first.
pub(crate) fn request_for_own_thread() {
    if OWN_THREADS.load(Ordering::Relaxed) {
        // If this fails, a stop on a busy host is slower. Nothing else changes.
        let _ = capture::request_short_slice();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_the_main_thread_asks_only_if_it_waits_for_workers() {
        let cases = [
            // configured, multi-threaded, may be killed: main thread, own threads
            (None, true, false, (true, true)),
            (None, false, false, (false, true)),
            (None, true, true, (false, false)),
            (None, false, true, (false, false)),
            (Some(true), false, false, (true, true)),
            (Some(true), true, true, (true, true)),
            (Some(false), true, false, (false, false)),
        ];
        for (configured, multi_threaded, may_be_killed, expected) in cases {
            let decided = decide(configured, multi_threaded, may_be_killed);
            assert_eq!(decided, expected, "{configured:?} {multi_threaded} {may_be_killed}");
        }
    }
}
