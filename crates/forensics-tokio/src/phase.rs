//! Phases as the user registers them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::machine::{Machine, StepId, Work};
use crate::outcome::IntoOutcome;
use crate::phase_context::{PhaseContext, PhaseFn};
use crate::shutdown::Shutdown;

pub(crate) fn boxed<F, Fut>(work: F) -> PhaseFn
where
    F: FnOnce(PhaseContext) -> Fut + Send + 'static,
    Fut: Future<Output: IntoOutcome> + Send + 'static,
{
    // The closure is called inside the future, so that a panic in it is the phase's.
    Box::new(move |cx| Box::pin(async move { work(cx).await.into_error() }))
}

/// A registered phase, to say more about it. Dropping it changes nothing.
///
/// A setting takes effect at once; on a phase that has already begun it has none.
#[derive(Debug)]
pub struct Phase {
    shutdown: Arc<Shutdown>,
    id: StepId,
}

impl Phase {
    pub(crate) fn register(shutdown: &Arc<Shutdown>, name: &str, work: PhaseFn) -> Self {
        let push = |machine: &mut Machine| machine.plan.push(name, Work::Phase);
        Self { id: shutdown.register(push, Some(work)), shutdown: shutdown.clone() }
    }

    /// The most it may take from its own start; then it is dropped, and the next phase runs.
    /// By default it may take what is left until the deadline, less what later phases reserve.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.shutdown.machine().plan.limit(self.id, timeout);
        self
    }

    /// What all earlier phases together must leave to it, and what it keeps when a second signal
    /// shortens the teardown.
    pub fn reserve(self, reserve: Duration) -> Self {
        self.shutdown.machine().plan.reserve(self.id, reserve);
        self
    }

    /// Skips it unless the phase or group `name` has ended `ok`: no write into a store that is
    /// still in use. Can be given several times.
    pub fn requires(self, name: impl Into<String>) -> Self {
        self.shutdown.machine().plan.require(self.id, name.into());
        self
    }
}

/// A group of phases that run side by side. It ends when the last of them has.
#[derive(Debug)]
pub struct Group(Phase);

impl Group {
    pub(crate) fn register(shutdown: &Arc<Shutdown>, name: &str) -> Self {
        let push = |machine: &mut Machine| machine.plan.push(name, Work::Group(Vec::new()));
        Self(Phase { id: shutdown.register(push, None), shutdown: shutdown.clone() })
    }

    /// Adds a member. Settings that follow are the member's; the group's own come before its first.
    pub fn phase<F, Fut>(self, name: impl Into<String>, work: F) -> GroupPhase
    where
        F: FnOnce(PhaseContext) -> Fut + Send + 'static,
        Fut: Future<Output: IntoOutcome> + Send + 'static,
    {
        let (Phase { shutdown, id: group }, name) = (&self.0, name.into());
        let push = |machine: &mut Machine| machine.plan.push_member(*group, &name);
        let id = shutdown.register(push, Some(boxed(work)));
        GroupPhase { member: Phase { shutdown: shutdown.clone(), id }, group: self }
    }

    /// As [`Phase::timeout`], for the group as a whole.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.timeout(timeout))
    }

    /// As [`Phase::reserve`], for the group as a whole.
    pub fn reserve(self, reserve: Duration) -> Self {
        Self(self.0.reserve(reserve))
    }

    /// As [`Phase::requires`], for the group as a whole.
    pub fn requires(self, name: impl Into<String>) -> Self {
        Self(self.0.requires(name))
    }
}

/// A member of a [`Group`].
#[derive(Debug)]
pub struct GroupPhase {
    group: Group,
    member: Phase,
}

impl GroupPhase {
    /// Adds the next member.
    pub fn phase<F, Fut>(self, name: impl Into<String>, work: F) -> GroupPhase
    where
        F: FnOnce(PhaseContext) -> Fut + Send + 'static,
        Fut: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.group.phase(name, work)
    }

    /// As [`Phase::timeout`], for this member.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { member: self.member.timeout(timeout), ..self }
    }

    /// As [`Phase::requires`], for this member. Members of one group start together, so only
    /// earlier phases can be required.
    pub fn requires(self, name: impl Into<String>) -> Self {
        Self { member: self.member.requires(name), ..self }
    }
}
