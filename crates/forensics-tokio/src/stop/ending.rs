//! How a stop ends, whoever ends it, and that this is recorded and told once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use forensics_core::record::{ExitKind, ForcedBy};
use tokio::time::Instant;

use super::Stop;
use crate::message::Standing;
use crate::message::account::State;
use crate::panics;
use crate::report::ShutdownReport;

impl Stop {
    /// Records how the teardown ended.
    pub(crate) fn record_end(&self, report: &ShutdownReport) {
        let how = match () {
            () if report.is_failed() => ExitKind::Failed,
            () if report.timed_out => ExitKind::TimedOut,
            () => ExitKind::Clean,
        };
        let status = Some(report.exit_status);
        self.black_box.stopped(how, status, report.total, report.more_signals);
        let error = report.is_failed().then(|| report.failure());
        let (status, total, timed_out) = (report.exit_status, report.total, report.timed_out);
        let error = error.as_deref();
        let state = State::Ended { status, total, timed_out, error };
        self.message.close(|| self.standing(), state);
    }

    /// Records that it ends by force.
    pub(crate) fn record_forced(&self, by: ForcedBy, why: &str, status: u8) {
        let more = self.unlisted_signals();
        self.black_box.forced(by, why.to_owned(), status, self.since_begun(), more);
    }

    /// How it stands, for the termination message.
    pub(crate) fn standing(&self) -> Standing {
        let (running, now) = (self.running().into_iter(), self.now());
        let ran = |since| now.saturating_duration_since(since);
        // Let go of before the state is borrowed anew: a borrow in the expression below would last to its end,
        // and a writer that waits meanwhile, as the listener does to let the teardown begin, would stop all.
        let begun = self.state.borrow().begun.clone();
        Standing {
            begun,
            running: running.map(|one| (one.named.name.clone(), ran(one.started))).collect(),
            since: self.since_begun(),
            allowed: self.allowed(),
        }
    }

    /// Records that a panic ends the process.
    pub(crate) fn record_panic(&self, message: &str, location: Option<&str>) {
        self.message.close(|| self.standing(), State::Panicked { message, location });
        let location = location.map(str::to_owned);
        self.black_box.panicked(message.to_owned(), location, self.since_begun());
        self.message.finish();
    }

    /// The guard goes while its teardown has not ended: `main` returned early, or panics.
    pub(crate) fn abandoned(&self) {
        if self.finished.swap(true, Ordering::AcqRel) {
            return;
        }
        match std::thread::panicking() {
            true => {
                let (message, location) = panics::last();
                self.record_panic(&message, location.as_deref());
            }
            false => {
                let more = self.unlisted_signals();
                self.message.close(|| self.standing(), State::Abandoned);
                self.black_box.stopped(ExitKind::Abandoned, None, self.since_begun(), more);
                self.message.finish();
            }
        }
    }

    /// Records that the phases in question, or the runtime where there are none, do not move.
    pub(crate) fn record_wedged(
        &self,
        phases: &[(String, Duration)],
        waited: Duration,
        detail: &str,
    ) {
        if phases.is_empty() {
            self.black_box.wedged(None, waited, detail);
        }
        for (phase, ran) in phases {
            self.black_box.wedged(Some(phase), *ran, detail);
        }
    }

    /// How long ago the stop began; zero where it has not.
    pub(crate) fn since_begun(&self) -> Duration {
        let began = self.state.borrow().begun.as_ref().map(|begun| begun.at);
        began.map_or(Duration::ZERO, |began| self.now().saturating_duration_since(began))
    }

    /// Takes it on to end this stop, and to record that: `false` where somebody else has. The
    /// teardown does at its end, the keeper where it waits no longer; only one end is told.
    pub(crate) fn claim_end(&self) -> bool {
        self.ended.set(self.now()).is_ok()
    }

    /// When somebody did.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// The teardown has ended.
    pub(crate) fn set_finished(&self) {
        self.finished.store(true, Ordering::Release);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// The process is about to end, and the keeper sees to it that it does.
    pub(crate) fn expect_exit(&self) {
        self.exit_expected.get_or_init(|| self.now());
    }

    /// Since when the process is about to end.
    pub(crate) fn exit_expected(&self) -> Option<Instant> {
        self.exit_expected.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use crate::ShutdownGuard;

    #[tokio::test]
    async fn how_it_stands_can_be_asked_while_others_go_on_with_it() {
        let guard = ShutdownGuard::builder("test").signals([]).install().unwrap();
        let stop = guard.stop();
        let (done, dones) = mpsc::channel();
        for asks in [true, false] {
            let (stop, done) = (stop.clone(), done.clone());
            thread::spawn(move || {
                for _ in 0..100_000 {
                    match asks {
                        true => drop(stop.standing()),
                        false => stop.set_announced(),
                    }
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..2 {
            dones.recv_timeout(Duration::from_secs(60)).expect("neither waits for the other");
        }
    }
}
