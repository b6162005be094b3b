//! The handle: what parts of the program other than `main` hold.

use std::sync::Arc;
use std::time::Duration;

use forensics_core::context::{ShutdownContext, Trigger};
use forensics_core::escape::{MAX_TEXT_CHARS, truncate};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::machine::Event;
use crate::notify::Notifier;
use crate::outcome::IntoOutcome;
use crate::phase::{Phase, boxed};
use crate::phase_context::PhaseContext;
use crate::shutdown::Shutdown;

/// A handle to a [`ShutdownGuard`](crate::ShutdownGuard), for other parts of the program.
/// [`ShutdownGuard::handle`](crate::ShutdownGuard::handle) returns it.
///
/// Clones are cheap. A handle does not keep the guard alive. Once the guard is gone, no stop can be
/// requested, and phases that are registered do not run.
#[derive(Debug, Clone)]
pub struct ShutdownHandle {
    pub(crate) shutdown: Arc<Shutdown>,
}

impl ShutdownHandle {
    /// Returns a token that is cancelled when the service should stop: at the first request, once the
    /// context line is queued for the log and the [pre-stop delay](crate::Builder::pre_stop_delay) is
    /// over.
    ///
    /// Cancelling the token is also a request to stop.
    pub fn token(&self) -> CancellationToken {
        self.shutdown.token.clone()
    }

    /// Returns the [drain timeout](crate::Builder::drain_timeout) in effect. The operator may have set
    /// it by `FORENSICS_DRAIN_TIMEOUT`. It is meant for the [`timeout`](Phase::timeout) of the phase
    /// that drains.
    pub fn drain_timeout(&self) -> Duration {
        self.shutdown.config.drain_timeout
    }

    /// Requests a stop, with cause `requested` and this reason. Has no effect if a stop has already
    /// been requested.
    ///
    /// Can be called on any thread. It captures the context, which usually takes some 100 µs, and at
    /// most 0.6 s if files of `/proc` block.
    pub fn request_shutdown(&self, reason: impl Into<String>) {
        let reason = truncate(reason.into(), MAX_TEXT_CHARS);
        self.shutdown.request(Event::Requested(Trigger::Request { reason }));
    }

    /// Speeds up a stop that has begun: ends the pre-stop delay, or cuts the running phase short, so
    /// that only phases with a [reserve](Phase::reserve) still run. Has no effect before a stop. Can
    /// be called on any thread.
    pub fn escalate(&self) {
        self.shutdown.handle(Event::Escalated);
    }

    /// Reports that the service is up: [`readiness`](Self::readiness) becomes true, and systemd receives
    /// `READY=1`, which a unit with `Type=notify` waits for.
    ///
    /// Only needed with [`auto_ready(false)`](crate::Builder::auto_ready). Never blocks.
    pub fn ready(&self) {
        self.shutdown.handle(Event::Ready);
    }

    /// Returns whether the service should receive traffic. It is false until the service is
    /// [ready](Self::ready), and false again from the first moment of a stop, before the token is
    /// cancelled.
    ///
    /// The module `probes` (feature `axum`) serves it to the kubelet.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.shutdown.ready.subscribe()
    }

    /// Sets the status line that `systemctl status` shows for the service. During the teardown the
    /// guard sets it, and shows the running phases. Never blocks.
    pub fn status(&self, text: &str) {
        self.shutdown.notifier.status(text);
    }

    /// Tells systemd that the configuration is being reloaded (`RELOADING=1`), until the returned
    /// value is dropped. A unit with `Type=notify-reload` expects this after SIGHUP. Remove SIGHUP
    /// from the guard's [signals](crate::Builder::signals) for that.
    pub fn reloading(&self) -> Reloading {
        let notifier = self.shutdown.notifier.clone();
        notifier.reloading();
        Reloading { notifier }
    }

    /// Registers a phase, as [`ShutdownGuard::phase`](crate::ShutdownGuard::phase) does. A phase that is
    /// registered during the teardown runs after all others. A group cannot be registered then.
    pub fn phase<F, Fut, Kind>(&self, name: impl Into<String>, work: F) -> Phase
    where
        F: FnOnce(PhaseContext) -> Fut + Send + 'static,
        Fut: Future<Output: IntoOutcome<Kind>> + Send + 'static,
    {
        Phase::register(&self.shutdown, &name.into(), None, Some(boxed(work)))
    }

    /// Waits until a stop has begun, and returns who asked for it and why. After that it returns at
    /// once. It never returns if the guard is dropped without a stop.
    ///
    /// A pre-stop delay, if there is one, has begun but may not be over. Cancel safe.
    pub async fn stopped(&self) -> Arc<ShutdownContext> {
        self.shutdown.context.wait().await.clone()
    }
}

/// Tells systemd that the reload is over when it is dropped. See [`ShutdownHandle::reloading`].
#[derive(Debug)]
#[must_use = "the reload ends when this is dropped"]
pub struct Reloading {
    notifier: Notifier,
}

impl Drop for Reloading {
    fn drop(&mut self) {
        self.notifier.ready();
    }
}
