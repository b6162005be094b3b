//! The one plain thread of the process that signals wake.
//!
//! It sleeps in a blocking read from the first guard's installation on, without a timer, and costs
//! nothing there. The OS handler wakes it; it captures the context and tells the guards. Since it
//! needs no runtime, a stop begins, and a third signal ends the process, also where every worker
//! of the runtime is blocked. It never calls the `tracing` subscriber by itself, which could be
//! stuck: a log reader that stopped reading must not take the keeper with it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use forensics_core::capture;

use crate::bounded::bounded;
use crate::events;
use crate::stop::Stop;

/// How long the last words may take when a stop is forced.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The exit status of a forced end (`EX_SOFTWARE` of sysexits.h).
pub(crate) const FORCED_STATUS: u8 = 70;

#[derive(Default)]
struct Keeper {
    started: bool,
    stops: Vec<Weak<Stop>>,
}

static KEEPER: Mutex<Keeper> = Mutex::new(Keeper { started: false, stops: Vec::new() });

/// Lets `stop` learn of every signal from now on, for as long as it lives.
///
/// # Errors
/// Where the thread cannot be started, for the first one.
pub(crate) fn attach(stop: Weak<Stop>) -> io::Result<()> {
    let mut keeper = lock();
    if !keeper.started {
        thread::Builder::new().name("shutdown-keeper".to_owned()).spawn(keep)?;
        keeper.started = true;
    }
    keeper.stops.retain(|stop| stop.strong_count() > 0);
    keeper.stops.push(stop);
    Ok(())
}

fn keep() {
    loop {
        capture::wait(None);
        for captured in capture::take() {
            // Not under the lock: a guard may be installed or dropped meanwhile.
            let stops = lock().stops.clone();
            for stop in stops.iter().filter_map(Weak::upgrade) {
                if stop.on_signal(&captured) >= Some(3) {
                    force(&format!("a third {} asked for an end at once", captured.signal));
                }
            }
        }
    }
}

/// Ends the process, without its destructors or the runtime's, which could hang.
fn force(why: &str) -> ! {
    let text = why.to_owned();
    bounded(LAST_WORDS, move || events::forced(&text, FORCED_STATUS));
    capture::exit_now(FORCED_STATUS.into())
}

fn lock() -> MutexGuard<'static, Keeper> {
    KEEPER.lock().unwrap_or_else(PoisonError::into_inner)
}
