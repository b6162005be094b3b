//! Phases and groups, as the program registers them.

use std::sync::Arc;
use std::time::Duration;

use crate::machine::StepId;
use crate::outcome::IntoOutcome;
use crate::phase_context::{PhaseContext, PhaseFn};
use crate::shutdown::Shutdown;

/// The closure of a phase, with one type for all phases.
pub(crate) fn boxed<F, Fut, Kind>(work: F) -> PhaseFn
where
    F: FnOnce(PhaseContext) -> Fut + Send + 'static,
    Fut: Future<Output: IntoOutcome<Kind>> + Send + 'static,
{
    // The closure is called inside the future, so that its panic is a panic of the phase.
    Box::new(move |cx| Box::pin(async move { work(cx).await.into_error() }))
}

/// Names a phase or a group, for [`Phase::requires`]. Valid for the guard that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhaseId(StepId);

/// A registered phase or group, for its settings. Dropping it changes nothing.
///
/// A setting takes effect at once. It has no effect on a phase that has already started.
#[derive(Debug)]
pub struct Phase {
    shutdown: Arc<Shutdown>,
    id: StepId,
}

impl Phase {
    /// Registers a phase, which may be a member of `group`, or a group if there is no `work`.
    pub(crate) fn register(
        shutdown: &Arc<Shutdown>,
        name: &str,
        group: Option<StepId>,
        work: Option<PhaseFn>,
    ) -> Self {
        Self { id: shutdown.register(name, group, work), shutdown: shutdown.clone() }
    }

    /// Sets the timeout of the phase. When the time is up, the phase is dropped and the next one
    /// starts. By default a phase has the time until the deadline, minus what later phases reserve.
    ///
    /// For a group, this limits the group as a whole.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.shutdown.machine().plan.limit(self.id, timeout);
        self
    }

    /// Reserves time for the phase that earlier phases cannot use. Only phases with a reserve still
    /// run after the stop was [escalated](crate::Builder::escalation).
    pub fn reserve(self, reserve: Duration) -> Self {
        self.shutdown.machine().plan.reserve(self.id, reserve);
        self
    }

    /// Skips this phase unless the phase or group `earlier` has ended with outcome `ok`. For example,
    /// a store should not be closed while it is still in use. Can be called several times.
    ///
    /// Only a phase that runs earlier can be required.
    pub fn requires(self, earlier: PhaseId) -> Self {
        self.shutdown.machine().plan.require(self.id, earlier.0);
        self
    }

    /// Returns the id of the phase, for a later one that [requires](Self::requires) it.
    pub fn id(&self) -> PhaseId {
        PhaseId(self.id)
    }
}

/// The members of a group, while they are being registered. See
/// [`ShutdownGuard::group`](crate::ShutdownGuard::group).
#[derive(Debug)]
pub struct Group(pub(crate) Phase);

impl Group {
    /// Adds a phase that runs at the same time as the others of this group.
    pub fn phase<F, Fut, Kind>(&self, name: impl Into<String>, work: F) -> GroupPhase
    where
        F: FnOnce(PhaseContext) -> Fut + Send + 'static,
        Fut: Future<Output: IntoOutcome<Kind>> + Send + 'static,
    {
        let Phase { shutdown, id: group } = &self.0;
        GroupPhase(Phase::register(shutdown, &name.into(), Some(*group), Some(boxed(work))))
    }
}

/// A registered phase of a group, for its own settings.
#[derive(Debug)]
pub struct GroupPhase(Phase);

impl GroupPhase {
    /// Sets the timeout of this phase. The timeout of the group also limits it.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.timeout(timeout))
    }

    /// Skips this phase unless the phase or group `earlier` has ended with outcome `ok`. The phases of
    /// a group start together, so `earlier` must run before the group.
    pub fn requires(self, earlier: PhaseId) -> Self {
        Self(self.0.requires(earlier))
    }

    /// Returns the id of the phase, for a later one that [requires](Phase::requires) it.
    pub fn id(&self) -> PhaseId {
        self.0.id()
    }
}
