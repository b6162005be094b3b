//! Work that can hang, done where a hang harms nobody.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The result of `work`, or `None` where it takes longer than `limit`, panics, or no thread can be
/// had. Runs on a thread of its own, which is left behind if it hangs. Blocks for `limit` at most.
pub(crate) fn bounded<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let work = move || {
        // Nobody listens any more where it took too long.
        let _ = sender.send(work());
    };
    thread::Builder::new().name("forensics-probe".to_owned()).spawn(work).ok()?;
    receiver.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_left_behind() {
        assert_eq!(bounded(Duration::from_secs(60), || 7), Some(7));
        let (_never, hangs) = mpsc::channel::<()>();
        assert_eq!(bounded(Duration::from_millis(1), move || hangs.recv()), None);
        assert_eq!(
            bounded::<()>(Duration::from_secs(60), || std::panic::resume_unwind(Box::new(1))),
            None
        );
    }
}
