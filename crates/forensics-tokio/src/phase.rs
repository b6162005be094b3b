//! Phases as the user registers them, and what a running phase is given.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::blackbox::Place;
use crate::outcome::IntoOutcome;
use crate::plan::{Plan, Step, StepId, Work};
use crate::stop::Stop;

type PhaseFuture = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// A phase's closure, giving a future whose output is the error's text.
pub(crate) type PhaseFn = Box<dyn FnOnce(PhaseContext) -> PhaseFuture + Send>;

fn boxed<F, Fut>(work: F) -> PhaseFn
where
    F: FnOnce(PhaseContext) -> Fut + Send + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: IntoOutcome,
{
    // The closure is called inside the future, so that a panic in it is the phase's.
    Box::new(move |cx| Box::pin(async move { work(cx).await.into_error() }))
}

/// A registered phase, to say more about it. Dropping it changes nothing.
///
/// A setting takes effect at once; on a phase that has already begun it has none.
#[derive(Debug)]
pub struct Phase {
    plan: Arc<Plan>,
    id: StepId,
}

impl Phase {
    pub(crate) fn register<F, Fut>(plan: &Arc<Plan>, name: &str, work: F) -> Self
    where
        F: FnOnce(PhaseContext) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoOutcome,
    {
        Self { id: plan.push(name, Work::Phase(boxed(work))), plan: plan.clone() }
    }

    /// The most it may take from its own start; then it is dropped, and the next phase runs.
    /// Unset, it may take what is left until the deadline, less what later phases reserve.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.edit(|step| step.claim.timeout = Some(timeout))
    }

    /// What all earlier phases together must leave to it, and what it keeps when a second signal
    /// asks for haste.
    pub fn reserve(self, reserve: Duration) -> Self {
        self.edit(|step| step.claim.reserve = reserve)
    }

    /// Skips it unless the phase or group `name` has ended `ok`: no write into a store that is
    /// still in use. Can be given several times.
    pub fn requires(self, name: impl Into<String>) -> Self {
        self.edit(|step| step.requires.push(name.into()))
    }

    fn edit(self, change: impl FnOnce(&mut Step)) -> Self {
        self.plan.edit(self.id, change);
        self
    }
}

/// A group of phases that run side by side. It ends when the last of them has.
#[derive(Debug)]
pub struct Group {
    plan: Arc<Plan>,
    id: StepId,
}

impl Group {
    pub(crate) fn register(plan: &Arc<Plan>, name: &str) -> Self {
        Self { id: plan.push(name, Work::Group(Vec::new())), plan: plan.clone() }
    }

    /// Adds a member. Settings that follow are the member's; the group's own come before its first.
    pub fn phase<F, Fut>(self, name: impl Into<String>, work: F) -> GroupPhase
    where
        F: FnOnce(PhaseContext) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoOutcome,
    {
        let id = self.plan.push_member(self.id, &name.into(), boxed(work));
        GroupPhase { group: self, id }
    }

    /// As [`Phase::timeout`], for the group as a whole.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.edit(|step| step.claim.timeout = Some(timeout))
    }

    /// As [`Phase::reserve`], for the group as a whole.
    pub fn reserve(self, reserve: Duration) -> Self {
        self.edit(|step| step.claim.reserve = reserve)
    }

    /// As [`Phase::requires`], for the group as a whole.
    pub fn requires(self, name: impl Into<String>) -> Self {
        self.edit(|step| step.requires.push(name.into()))
    }

    fn edit(self, change: impl FnOnce(&mut Step)) -> Self {
        self.plan.edit(self.id, change);
        self
    }
}

/// A member of a [`Group`].
#[derive(Debug)]
pub struct GroupPhase {
    group: Group,
    id: StepId,
}

impl GroupPhase {
    /// Adds the next member.
    pub fn phase<F, Fut>(self, name: impl Into<String>, work: F) -> GroupPhase
    where
        F: FnOnce(PhaseContext) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoOutcome,
    {
        self.group.phase(name, work)
    }

    /// As [`Phase::timeout`], for this member.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.edit(|step| step.claim.timeout = Some(timeout))
    }

    /// As [`Phase::requires`], for this member. Members of one group start together, so only
    /// earlier phases can be required.
    pub fn requires(self, name: impl Into<String>) -> Self {
        self.edit(|step| step.requires.push(name.into()))
    }

    fn edit(self, change: impl FnOnce(&mut Step)) -> Self {
        self.group.plan.edit(self.id, change);
        self
    }
}

/// What a running phase is given.
///
/// Cheap to clone; clones speak for the same phase, also from tasks that it spawns.
#[derive(Debug, Clone)]
pub struct PhaseContext {
    pub(crate) name: Arc<str>,
    pub(crate) group: Option<Arc<str>>,
    /// When the stop was asked for.
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    pub(crate) token: CancellationToken,
    pub(crate) recorded: Arc<Recorded>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) service_running: watch::Receiver<bool>,
}

impl PhaseContext {
    /// The phase's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it will be dropped if it has not ended by then.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long that is from now; zero where it is over.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Cancelled when the phase has run out of its time or is cut short, for the tasks it spawned:
    /// those are not dropped with it.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Notes a value under a name, for the log, the report and the record. A later one under the
    /// same name takes its place.
    ///
    /// Cheap enough for every request that ends: into the record's file it goes at most four times
    /// a second, and at the phase's end.
    pub fn record(&self, key: impl Into<String>, value: impl Into<Value>) {
        if let Some(all) = self.recorded.set(key.into(), value.into()) {
            let place = Place { phase: &self.name, group: self.group.as_deref() };
            self.stop.black_box.phase_progress(place, all, self.began.elapsed());
        }
    }

    /// Notes how far it has come: `done` of `total`, in whatever it counts.
    pub fn progress(&self, done: u64, total: u64) {
        self.record("progress", format!("{done}/{total}"));
    }

    /// Waits until the service's own future, the one given to
    /// [`run`](crate::ShutdownGuard::run), has ended. A server that stops by itself once the token
    /// is cancelled is drained by a phase that does nothing but wait for this.
    ///
    /// Cancel safe.
    pub async fn service_ended(&self) {
        // An error means that the guard is gone, and the future with it.
        let _ = self.service_running.clone().wait_for(|running| !running).await;
    }
}

/// How often what a phase records is written down while it runs.
const WRITTEN_EVERY: Duration = Duration::from_millis(250);

/// What a phase has recorded so far, also to be read while it runs.
#[derive(Debug, Default)]
pub(crate) struct Recorded(Mutex<Values>);

#[derive(Debug, Default)]
struct Values {
    all: Map<String, Value>,
    last_key: Option<String>,
    written: Option<Instant>,
}

impl Recorded {
    /// Sets a value. Returns all there are when it is time to write them down.
    fn set(&self, key: String, value: Value) -> Option<Map<String, Value>> {
        let mut values = self.lock();
        values.last_key = Some(key.clone());
        values.all.insert(key, value);
        let now = Instant::now();
        if values.written.is_some_and(|written| now - written < WRITTEN_EVERY) {
            return None;
        }
        values.written = Some(now);
        Some(values.all.clone())
    }

    /// All of it.
    pub(crate) fn all(&self) -> Map<String, Value> {
        self.lock().all.clone()
    }

    /// What came last, as `key=value`.
    pub(crate) fn last(&self) -> Option<String> {
        let values = self.lock();
        let key = values.last_key.as_ref()?;
        Some(format!("{key}={}", values.all.get(key)?))
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
