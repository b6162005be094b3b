//! Whether the service wants traffic. It does not before it is up, nor after a stop has begun.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The readiness of the service.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    ready: watch::Sender<bool>,
    over: AtomicBool,
}

impl Readiness {
    /// The service is up. Has no effect after [`end`](Self::end).
    pub(crate) fn begin(&self) {
        self.ready.send_if_modified(|ready| {
            // Read while the value is locked. `end` sets the flag before the value. So either this
            // sees the flag, or `end` sets the value after this.
            let now = !self.over.load(Ordering::Acquire);
            std::mem::replace(ready, now) != now
        });
    }

    /// A stop has begun. Returns whether the service was ready.
    pub(crate) fn end(&self) -> bool {
        self.over.store(true, Ordering::Release);
        self.ready.send_replace(false)
    }

    /// Whether a stop has begun.
    #[cfg(feature = "axum")]
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_stops_is_never_ready_again() {
        let readiness = Readiness::default();
        let mut watched = readiness.watch();
        assert!(!*watched.borrow_and_update());
        readiness.begin();
        assert!(watched.has_changed().unwrap() && *watched.borrow_and_update());
        readiness.begin();
        assert!(!watched.has_changed().unwrap(), "there is no second change");
        assert!(readiness.end());
        assert!(!*watched.borrow_and_update());
        readiness.begin();
        assert!(!*watched.borrow());
        assert!(!readiness.end());
    }
}
