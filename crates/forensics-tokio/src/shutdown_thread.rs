//! The shutdown thread: the one OS thread that takes in signals and enforces the deadline.
//!
//! It sleeps in a blocking read from the installation of the first guard on, without a timer, and
//! costs nothing there. The OS handler wakes it. It brings each signal to every guard, and from then
//! on looks four times a second whether the runtime still answers, whether the deadline is near, and
//! whether it is over. Since it needs no runtime, a stop begins, is watched, and ends, also where
//! every worker of the runtime is blocked. It writes to no disk, unless no thread can be started that
//! does.
//!
//! The thread that has taken in the signal of a stop also emits the context line. A new thread would
//! have to wait for its turn first, which takes milliseconds on a busy host. Since the subscriber
//! may block, the thread first starts another one that goes on in its place, and is the log thread
//! from then on.

use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::{Duration, Instant};

use forensics_core::capture::{self, HandlerGuard};

use crate::blocking::spawn_detached;
use crate::capture_context::Caught;
use crate::describe;
use crate::lock::lock;
use crate::log_thread::EMIT_LIMIT;
use crate::machine::{Action, Event, ExitReason, FORCED_STATUS};
use crate::os::kill_after;
use crate::panics::Panic;
use crate::shutdown::Shutdown;

/// How often a stop under way is looked at.
const EVERY: Duration = Duration::from_millis(250);

const NAME: &str = "shutdown-thread";

/// Actions that a guard still has to perform.
type Pending = Vec<(Arc<Shutdown>, Vec<Action>)>;

struct Registry {
    is_started: bool,
    guards: Vec<Weak<Shutdown>>,
    /// The guard whose teardown ended last. It is kept alive to see that the process ends.
    ended: Option<Arc<Shutdown>>,
    /// The handlers of guards that are gone, and when to uninstall them.
    handlers: Vec<(Instant, HandlerGuard)>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    is_started: false,
    guards: Vec::new(),
    ended: None,
    handlers: Vec::new(),
});

/// Serves this guard from now on, for as long as it lives.
///
/// # Errors
/// If the thread cannot be started, for the first guard.
pub(crate) fn attach(guard: Weak<Shutdown>) -> io::Result<()> {
    let mut registry = lock(&REGISTRY);
    if !registry.is_started {
        spawn_detached(NAME, || run(Vec::new()))?;
        registry.is_started = true;
    }
    registry.guards.retain(|guard| guard.strong_count() > 0);
    registry.guards.push(guard);
    // The program goes on. What the guard still holds is not dropped under the lock.
    let ended = registry.ended.take();
    drop(registry);
    drop(ended);
    Ok(())
}

/// Expects that the process ends, now that the teardown of this guard has ended. If it does not, it is
/// ended once no other guard has a teardown to run.
pub(crate) fn expect_exit(shutdown: &Arc<Shutdown>) {
    let program = std::env::current_exe().unwrap_or_default();
    if !shutdown.config.enforce_exit || is_test_program(&program) {
        return;
    }
    let mut registry = lock(&REGISTRY);
    // The guards of the test harness are not watched.
    if registry.guards.iter().any(|guard| guard.as_ptr() == Arc::as_ptr(shutdown)) {
        let earlier = registry.ended.replace(shutdown.clone());
        drop(registry);
        drop(earlier);
        capture::wake();
    }
}

/// Whether this is the path of a test, a benchmark or a documentation example. Such a program runs on
/// after a teardown. [`Builder::enforce_exit`](crate::Builder::enforce_exit) documents the rule.
fn is_test_program(path: &Path) -> bool {
    let mut parts = path.iter().map(OsStr::to_string_lossy);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The kernel adds this if the program was built again since it started.
    let name = name.trim_end_matches(" (deleted)");
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    name.rsplit_once('-').is_some_and(|(_, hash)| is_hash(hash))
        || parts.any(|part| part.starts_with("rustdoctest"))
}

/// Gives signals back after so long.
pub(crate) fn release_after(delay: Duration, handlers: HandlerGuard) {
    if !delay.is_zero() {
        lock(&REGISTRY).handlers.push((Instant::now() + delay, handlers));
        capture::wake();
    }
}

/// Brings the signals that have arrived to every guard, and returns what is to be performed. Also
/// called by those who would otherwise bring an event that came after a signal before it.
pub(crate) fn take_in() -> Pending {
    // Held until each guard's machine knows of the signals, so that no later event overtakes them.
    static TAKING_IN: Mutex<()> = Mutex::new(());
    let mut pending = Vec::new();
    let _taking_in = lock(&TAKING_IN);
    let signals = capture::drain();
    // Not before: a guard may have been installed meanwhile.
    let guards = guards();
    for captured in signals {
        let wants = |guard: &&Arc<Shutdown>| guard.config.signals.contains(&captured.signal);
        for guard in guards.iter().filter(wants) {
            let (at, caught) = (guard.time_of(&captured), Caught::of(captured.clone()));
            let event = Event::SignalArrived { signal: Box::new(caught), at };
            pending.push((guard.clone(), guard.decide(event)));
        }
    }
    pending
}

/// Records that a panic ends the process, for every guard that is alive.
pub(crate) fn record_panic(panic: &Panic) {
    for guard in guards() {
        guard.handle(Event::GuardDropped(Some(panic.clone())));
        guard.flush();
    }
}

/// The shutdown thread, which begins with what the previous one has left.
fn run(pending: Pending) {
    // In place of another thread, it also has to watch what that one watched.
    let mut timeout = (!pending.is_empty()).then_some(Duration::ZERO);
    // A panic of ours must not end the watch over the process.
    let _ = catch_unwind(AssertUnwindSafe(|| perform(pending)));
    loop {
        capture::wait(timeout);
        match catch_unwind(AssertUnwindSafe(serve)) {
            Ok(Round::Done(next)) => timeout = next,
            Ok(Round::HandedOver(guard)) => return guard.log.queue.work(),
            Err(_) => timeout = Some(EVERY),
        }
    }
}

/// How a round of the shutdown thread has ended.
enum Round {
    /// The next one is due so soon, whether or not a signal arrives.
    Done(Option<Duration>),
    /// Another thread is the shutdown thread now. This one emits what the guard logs.
    HandedOver(Arc<Shutdown>),
}

fn serve() -> Round {
    let mut pending = take_in();
    let begins = |actions: &[Action]| {
        actions.iter().any(|action| matches!(action, Action::CaptureContext { .. }))
    };
    // The guard that this thread can log for, of those whose stop begins.
    let logging =
        pending.iter().find(|(guard, actions)| begins(actions) && guard.log.queue.claim());
    let logging = logging.map(|(guard, _)| guard.clone());
    for (guard, actions) in &mut pending {
        *actions = guard.perform_urgent(std::mem::take(actions));
    }
    if let Some(guard) = logging {
        match hand_over(pending) {
            Ok(()) => return Round::HandedOver(guard),
            Err(left) => pending = left,
        }
        guard.log.queue.release();
    }
    perform(pending);
    let mut timeout = release_handlers();
    let (guards, ended) = (guards(), lock(&REGISTRY).ended.clone());
    if let Some(ended) = &ended
        && guards.iter().all(|guard| guard.machine().is_over())
    {
        ended.handle(Event::ExitExpected);
    }
    for guard in guards {
        let is_ended = ended.as_ref().is_some_and(|ended| Arc::ptr_eq(ended, &guard));
        if (is_ended || !guard.machine().is_over()) && watch(&guard) {
            timeout = Some(timeout.map_or(EVERY, |sooner| sooner.min(EVERY)));
        }
        // Not within the `if`: the machine would stay locked.
        let exit = guard.machine().exit_reason();
        if let Some(reason) = exit {
            end_process(&guard, reason);
        }
    }
    Round::Done(timeout)
}

/// Starts another shutdown thread in place of this one. Gives `pending` back if that fails.
fn hand_over(pending: Pending) -> Result<(), Pending> {
    // Sent only after the start, because `pending` stays here if that fails.
    let (sender, receiver) = mpsc::channel();
    let started = spawn_detached(NAME, move || run(receiver.recv().unwrap_or_default()));
    if started.is_err() {
        return Err(pending);
    }
    // There is no error, because the thread waits for it.
    let _ = sender.send(pending);
    Ok(())
}

pub(crate) fn perform(pending: Pending) {
    for (guard, actions) in pending {
        guard.perform(actions);
    }
}

/// Watches a guard's stop, if there is one. Returns whether to watch it again.
fn watch(guard: &Arc<Shutdown>) -> bool {
    guard.log.write_overdue(EMIT_LIMIT);
    let snapshot = guard.machine().snapshot(guard.now());
    if let Some(snapshot) = snapshot {
        describe::sample_threads(guard, snapshot.since);
    }
    if guard.machine().is_watched() {
        guard.handle(Event::Watched { missed: guard.missed() });
    }
    guard.machine().is_watched()
}

/// Ends the process, without its destructors or the runtime's, which could block.
fn end_process(guard: &Arc<Shutdown>, reason: ExitReason) -> ! {
    let hooks = u32::try_from(guard.config.on_forced_exit.len()).unwrap_or(u32::MAX);
    let _last_resort = kill_after(EMIT_LIMIT.saturating_mul(hooks.saturating_add(12)));
    guard.last_words(reason);
    capture::exit_now(FORCED_STATUS.into())
}

/// Gives back the signals whose time has come, and says how long the next ones have.
fn release_handlers() -> Option<Duration> {
    let now = Instant::now();
    let mut registry = lock(&REGISTRY);
    registry.handlers.retain(|(at, _)| *at > now);
    registry.handlers.iter().map(|(at, _)| *at - now).min()
}

/// The guards that are alive. Not served under the lock: one may be installed or dropped meanwhile.
fn guards() -> Vec<Arc<Shutdown>> {
    lock(&REGISTRY).guards.iter().filter_map(Weak::upgrade).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_is_recognized_by_its_path() {
        let cases = [
            ("/src/target/debug/deps/gateway-0123456789abcdef", true),
            ("/src/target/release/deps/bench-0123456789abcdef (deleted)", true),
            ("/tmp/rustdoctestUxQ4tf/rust_out", true),
            ("/src/target/debug/gateway", false),
            ("/src/target/debug/examples/gateway", false),
            ("/usr/bin/gateway-0123456789abcde", false),
            ("/usr/bin/gateway-0123456789abcdeg", false),
            ("/opt/rustdoc/gateway", false),
            ("", false),
        ];
        for (path, expected) in cases {
            assert_eq!(is_test_program(Path::new(path)), expected, "{path}");
        }
        assert!(is_test_program(&std::env::current_exe().unwrap()));
    }
}
