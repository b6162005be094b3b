//! The phases that run, and whether they get on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Stop;
use crate::phase_state::PhaseState;

/// See [`Stop::note_running`].
pub(crate) struct Noted {
    stop: Arc<Stop>,
    place: usize,
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut running = self.stop.lock_running();
        running[self.place] = None;
        while running.last().is_some_and(Option::is_none) {
            running.pop();
        }
        drop(running);
        self.stop.note_phases_changed();
    }
}

impl Stop {
    /// Notes that a phase runs until the returned value is dropped.
    pub(crate) fn note_running(self: &Arc<Self>, phase: Arc<PhaseState>) -> Noted {
        let mut running = self.lock_running();
        let place = running.len();
        running.push(Some(phase));
        drop(running);
        self.note_phases_changed();
        Noted { stop: self.clone(), place }
    }

    /// The phases that run.
    pub(crate) fn running(&self) -> Vec<Arc<PhaseState>> {
        self.lock_running().iter().flatten().cloned().collect()
    }

    /// Notes that a phase got something done.
    pub(crate) fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that has grown since it was last asked for if a phase got something done.
    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    fn note_phases_changed(&self) {
        self.note_progress();
        self.message.note_change();
        self.phases_changed.notify_one();
    }

    /// Waits until a phase begins or ends; for one waiter. Cancel safe.
    pub(crate) async fn phases_changed(&self) {
        self.phases_changed.notified().await;
    }

    fn lock_running(&self) -> MutexGuard<'_, Vec<Option<Arc<PhaseState>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
