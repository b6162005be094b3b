//! How a stop begins, whoever begins it: its context is captured, said, and recorded.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use forensics_core::capture;
use forensics_core::context::{ShutdownContext, Trigger};
use tokio::time::Instant;

use super::context::{self, Caught};
use super::{RECORD_LIMIT, Stop};
use crate::begun::Begun;
use crate::bounded::bounded_or_here;

/// A stop of which nobody has heard yet, and the number of the words that log its context.
pub(super) struct Begins {
    begun: Begun,
    words: u64,
}

impl Stop {
    /// Records what began the stop, once; whoever else comes waits until it is written, so that
    /// no phase is recorded before it.
    pub(crate) fn record_begun(&self) {
        let begun = self.state.borrow().begun.clone();
        if let Some(begun) = begun {
            self.recorded_begun.get_or_init(|| {
                let stop_timeout = self.unit.get().map(|unit| unit.stop_timeout);
                self.black_box.begun(&begun.context, begun.allowed, begun.lead, stop_timeout);
            });
        }
    }

    /// Begins the stop, unless it has begun: captures the context, and tells whoever waits.
    /// `false` where somebody else was first, whose capture may still be under way.
    ///
    /// From any thread. Takes some 100 µs, and 100 ms more where a command line hangs, and for each marker
    /// that does.
    pub(crate) fn begin(self: &Arc<Self>, trigger: Trigger) -> bool {
        let begins = self.begin_at(self.now(), trigger, None);
        // Else that is for whoever was first.
        if begins {
            self.go_on();
        }
        begins
    }

    /// Begins it as far as its line: [`go_on`](Self::go_on) is what follows.
    pub(super) fn begin_at(
        self: &Arc<Self>,
        at: Instant,
        trigger: Trigger,
        caught: Option<&Caught>,
    ) -> bool {
        if self.claimed.swap(true, Ordering::AcqRel) {
            return false;
        }
        let was_ready = self.readiness.end();
        let context = context::take_down(&self.startup, trigger, caught);
        let (allowed, why) = self.limit(&context);
        let lead = match context.trigger {
            // It is gone already.
            Some(Trigger::ServiceEnded { .. }) => Duration::ZERO,
            // Nobody was told to send it anything.
            _ if !was_ready => Duration::ZERO,
            _ => self.config.lead.min(allowed),
        };
        // Before anybody hears of it: the first line of a stop says who wants it.
        let first = context.clone();
        let stop = self.clone();
        let words = self.voice.leave(move || stop.announce(&first, lead));
        let begins = Begins { begun: Begun { context, at, allowed, why, lead }, words };
        *self.begins() = Some(begins);
        true
    }

    /// Goes on with a stop that begins, where one does: sees to it that its line is said, and tells whoever
    /// waits. Returns whether it did.
    pub(crate) fn go_on(&self) -> bool {
        let begins = self.begins().take();
        let Some(Begins { mut begun, words }) = begins else { return false };
        if !self.voice.has_said(words) {
            self.voice.come();
        }
        // Who has been woken may have been put behind this thread, and have waited since.
        thread::yield_now();
        context::run(&mut begun.context, &self.startup, self.startup.record_probes());
        let begun = Arc::new(begun);
        self.note(&mut |state| (state.begun, state.words) = (Some(begun.clone()), words));
        // The keeper holds the deadline from here on.
        capture::wake();
        true
    }

    /// The same, and records it. Not a task's: it waits for the disk, though not for long.
    pub(crate) fn go_on_recorded(self: &Arc<Self>) {
        if self.go_on() && self.black_box.records() {
            let stop = self.clone();
            bounded_or_here(RECORD_LIMIT, move || stop.record_begun());
        }
    }

    fn begins(&self) -> MutexGuard<'_, Option<Begins>> {
        self.begins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says the context, and lets the service go on to its end at once where there is no lead: who
    /// says it need not wake the listener first, to have it do that.
    fn announce(&self, context: &ShutdownContext, lead: Duration) {
        (self.say_context)(context);
        if lead.is_zero() {
            self.token.cancel();
        }
        self.state.send_if_modified(|state| {
            state.said = true;
            false
        });
    }

    /// Waits until the context of a stop that has begun is said, as [`Voice::assure`] does.
    pub(crate) fn assure_context(&self, begun: &Begun) {
        let number = self.state.borrow().words;
        self.voice.assure(number, || format!("Shutdown context: {}", begun.context));
    }
}
