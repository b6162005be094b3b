//! The one plain thread of the process that signals wake.
//!
//! It sleeps in a blocking read from the first guard's installation on, without a timer, and costs
//! nothing there. The OS handler wakes it; it captures the context and tells the guards. From then
//! on until the teardown has ended it looks around four times a second: whether the runtime still
//! answers, whether the deadline is near, whether it is over. Since it needs no runtime, a stop
//! begins, is watched, and ends, also where every worker of the runtime is blocked.
//!
//! The `tracing` subscriber, which may hang, it calls for the context line alone, and not without another
//! thread that stands in for it: see [`crate::voice`].

pub(crate) mod vigil;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use forensics_core::capture::{self, Armed, SignalInfo};
use forensics_core::record::ForcedBy;
use forensics_core::signal::Signal;

use self::vigil::{Alarm, Vigil};
use crate::bounded::bounded_or_here;
use crate::message::account::State;
use crate::os::kill_after;
use crate::stop::{Caught, Stop};
use crate::voice::SAY_LIMIT;
use crate::{events, task};

/// How often a stop under way is looked at.
const EVERY: Duration = Duration::from_millis(250);

/// The exit status of a forced end (`EX_SOFTWARE` of sysexits.h).
pub(crate) const FORCED_STATUS: u8 = 70;

/// A stop, and what has been seen of it.
#[derive(Clone)]
struct Watched {
    stop: Weak<Stop>,
    vigil: Arc<Mutex<Vigil>>,
}

struct Keeper {
    started: bool,
    watched: Vec<Watched>,
    /// Signals that nobody has taken in yet.
    caught: VecDeque<SignalInfo>,
    /// Stops whose process is about to end: kept alive, as their guards go before it does.
    leaving: Vec<Arc<Stop>>,
    /// Signals that are given back then.
    armed: Vec<(Instant, Armed)>,
}

static KEEPER: Mutex<Keeper> = Mutex::new(Keeper {
    started: false,
    watched: Vec::new(),
    caught: VecDeque::new(),
    leaving: Vec::new(),
    armed: Vec::new(),
});

/// Watches over `stop` from now on, for as long as it lives.
///
/// # Errors
/// Where the thread cannot be started, for the first one.
pub(crate) fn attach(stop: Weak<Stop>) -> io::Result<()> {
    let mut keeper = lock();
    if !keeper.started {
        task::thread("shutdown-keeper", keep)?;
        keeper.started = true;
    }
    keeper.watched.retain(|watched| watched.stop.strong_count() > 0);
    keeper.watched.push(Watched { stop, vigil: Arc::default() });
    Ok(())
}

/// Sees to it that the process ends, now that the teardown of this stop, watched over so far, has
/// ended.
pub(crate) fn see_out(stop: Arc<Stop>) {
    let mut keeper = lock();
    if !keeper.watched.iter().any(|watched| watched.stop.as_ptr() == Arc::as_ptr(&stop)) {
        return;
    }
    stop.expect_exit();
    keeper.leaving.push(stop);
    drop(keeper);
    capture::wake();
}

/// Gives signals back after so long, if that is not at once.
pub(crate) fn disarm_after(delay: Duration, armed: Armed) {
    if !delay.is_zero() {
        lock().armed.push((Instant::now() + delay, armed));
        capture::wake();
    }
}

/// Gives back the signals whose time has come, and says how long the next ones have.
fn disarm() -> Option<Duration> {
    let now = Instant::now();
    let mut keeper = lock();
    keeper.armed.retain(|(at, _)| *at > now);
    keeper.armed.iter().map(|(at, _)| *at - now).min()
}

/// What a thread does that takes the keeper's place, as that one speaks and does not come back.
fn take_over() {
    // There may be work that it has left.
    capture::wake();
    keep();
}

/// Until another thread has taken this one's place.
fn keep() {
    let mut timeout = None;
    loop {
        capture::wait(timeout);
        // Not under the lock: a guard may be installed or dropped meanwhile.
        let watched = lock().watched.clone();
        let live = || watched.iter().filter_map(|one| Some((one.stop.upgrade()?, &one.vigil)));
        if !take_in(&watched, |stop| stop.voice.speak_here(take_over)) {
            return;
        }
        timeout = disarm();
        for (stop, vigil) in live() {
            let mut vigil = vigil.lock().unwrap_or_else(PoisonError::into_inner);
            if vigil.is_over(&stop) {
                continue;
            }
            timeout = Some(timeout.map_or(EVERY, |sooner| sooner.min(EVERY)));
            stop.message.tell(|| stop.standing(), None);
            match vigil.look(&stop, stop.now()) {
                None => {}
                Some(Alarm::PastDeadline { by, detail }) => force(&stop, by, &detail),
                Some(Alarm::Wedged { detail, phases, waited }) => {
                    stop.message.tell(|| stop.standing(), Some(&detail));
                    let (recorded, text) = (stop.clone(), detail.clone());
                    let record = move || recorded.record_wedged(&phases, waited, &text);
                    bounded_or_here(SAY_LIMIT, record);
                    let text = detail.clone();
                    let text = || format!("Shutdown hangs: {text}");
                    stop.voice.insist(text, move || events::alarm(&detail));
                }
            }
        }
    }
}

/// Takes in the signals that have come: the keeper's work, for when it gets no processor. Blocks, though not
/// for long.
pub(crate) fn take_in_its_place() {
    let watched = lock().watched.clone();
    take_in(&watched, |_| true);
}

/// Lets each stop take in each signal that has come, and then `say` what begins; until that returns `false`,
/// which is returned.
fn take_in(watched: &[Watched], say: impl Fn(&Stop) -> bool) -> bool {
    let live = || watched.iter().filter_map(|one| one.stop.upgrade());
    lock().caught.extend(capture::take());
    loop {
        for stop in live() {
            stop.go_on_recorded();
        }
        let next = lock().caught.pop_front();
        let Some(caught) = next.map(Caught::of) else { return true };
        for stop in live() {
            if stop.on_signal(&caught, stop.time_of(&caught.captured)) {
                force(&stop, ForcedBy::Signal, &asked_for(caught.captured.signal));
            }
        }
        if !live().all(|stop| say(&stop)) {
            return false;
        }
    }
}

/// Records that a panic ends the process, for every guard that is alive.
pub(crate) fn record_panic(message: &str, location: Option<&str>) {
    let stops: Vec<_> = lock().watched.iter().filter_map(|one| one.stop.upgrade()).collect();
    for stop in stops {
        stop.record_panic(message, location);
    }
}

/// Why an end is forced that this signal asked for.
pub(crate) fn asked_for(signal: Signal) -> String {
    format!("another {signal} asked for an end at once")
}

/// Ends the process, without its destructors or the runtime's, which could hang. Returns only where
/// the teardown has ended in this very moment; then that is how it ends.
fn force(stop: &Arc<Stop>, by: ForcedBy, why: &str) {
    if !stop.claim_end() && by == ForcedBy::Deadline {
        return;
    }
    let hooks = u32::try_from(stop.flush_hooks().len()).unwrap_or(u32::MAX);
    let _last_resort = kill_after(SAY_LIMIT.saturating_mul(hooks.saturating_add(8)));
    last_words(stop, by, why);
    capture::exit_now(FORCED_STATUS.into())
}

/// What is to be done before an end is forced: it is recorded and said, and what is buffered is
/// written out. Blocks, with a limit on each where a thread can be had.
pub(crate) fn last_words(stop: &Arc<Stop>, by: ForcedBy, why: &str) {
    // On its own thread, beside all that follows.
    stop.message.close(|| stop.standing(), State::Forced { status: FORCED_STATUS, why });
    let (recorded, text) = (stop.clone(), why.to_owned());
    bounded_or_here(SAY_LIMIT, move || recorded.record_forced(by, &text, FORCED_STATUS));
    let text = why.to_owned();
    let line = || format!("Shutdown forced: {why}");
    stop.voice.insist(line, move || events::forced(&text, FORCED_STATUS));
    for flush in stop.flush_hooks() {
        bounded_or_here(SAY_LIMIT, move || flush());
    }
    stop.message.finish();
}

fn lock() -> MutexGuard<'static, Keeper> {
    KEEPER.lock().unwrap_or_else(PoisonError::into_inner)
}
