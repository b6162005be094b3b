//! The shutdown thread: the one OS thread that receives signals and enforces the deadline.
//!
//! It runs from the installation of the first guard on. It sleeps in a blocking read without a
//! timer until the OS handler wakes it, and uses no CPU time meanwhile. It passes each signal to
//! every guard. During a stop it checks four times a second whether the runtime still answers, and
//! whether the deadline is near or over. It needs no runtime, so a stop begins, is watched, and
//! ends even if every worker of the runtime is blocked. It does not write to a disk, unless no
//! thread can be started for that.
//!
//! The thread that receives the signal of a stop also emits the context line. A new thread would
//! first have to wait until it is scheduled, which takes milliseconds on a busy host. Because the
//! subscriber may block, the thread first starts a new shutdown thread that replaces it, and then
//! becomes the log thread.

use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::{Duration, Instant};

use forensics_core::capture::{self, HandlerGuard};
use forensics_core::record::ExitKind;

use crate::blocking::spawn_detached;
use crate::describe;
use crate::lock::lock;
use crate::machine::Caught;
use crate::machine::{Action, Event, ExitReason};
use crate::os::kill_after;
use crate::panics::Panic;
use crate::shutdown::Shutdown;
use crate::sinks::EMIT_LIMIT;

/// How often a running stop is checked.
const EVERY: Duration = Duration::from_millis(250);

const NAME: &str = "shutdown-thread";

/// Actions that a guard still has to perform.
type Pending = Vec<(Arc<Shutdown>, Vec<Action>)>;

struct Registry {
    is_started: bool,
    guards: Vec<Weak<Shutdown>>,
    /// The guard whose teardown ended last. It is kept alive to check that the process ends.
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

/// Serves this guard from now on, until it is dropped.
///
/// # Errors
/// If the thread cannot be started. It is started for the first guard.
pub(crate) fn attach(guard: Weak<Shutdown>) -> io::Result<()> {
    let mut registry = lock(&REGISTRY);
    if !registry.is_started {
        spawn_detached(NAME, || run(Vec::new()))?;
        registry.is_started = true;
    }
    registry.guards.retain(|guard| guard.strong_count() > 0);
    registry.guards.push(guard);
    // A new guard shows that the program goes on, so the process is no longer expected to end. The
    // earlier guard is not dropped under the lock.
    let ended = registry.ended.take();
    drop(registry);
    drop(ended);
    Ok(())
}

/// Expects the process to end, because the teardown of this guard has ended. If the process does
/// not end, it is ended by force once no other guard has a teardown to run.
pub(crate) fn expect_exit(shutdown: &Arc<Shutdown>) {
    if !shutdown.config.enforce_exit || is_in_test_program() {
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

/// Whether this process is a test, a benchmark or a documentation example.
pub(crate) fn is_in_test_program() -> bool {
    is_test_program(&std::env::current_exe().unwrap_or_default())
}

/// Whether this is the path of a test, a benchmark or a documentation example. These programs
/// continue after a teardown. [`Builder::enforce_exit`](crate::Builder::enforce_exit) documents the
/// rule.
fn is_test_program(path: &Path) -> bool {
    let mut parts = path.iter().map(OsStr::to_string_lossy);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The kernel appends this if the program file was replaced after the start.
    let name = name.trim_end_matches(" (deleted)");
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    name.rsplit_once('-').is_some_and(|(_, hash)| is_hash(hash))
        || parts.any(|part| part.starts_with("rustdoctest"))
}

/// Uninstalls the handlers after `delay`.
pub(crate) fn release_after(delay: Duration, handlers: HandlerGuard) {
    if !delay.is_zero() {
        lock(&REGISTRY).handlers.push((Instant::now() + delay, handlers));
        capture::wake();
    }
}

/// Passes the signals that have arrived to every guard, and returns the actions to perform. Also
/// called before another event is handled, so that a signal that arrived earlier is handled first.
pub(crate) fn receive_signals() -> Pending {
    // Held until the machine of each guard has handled the signals. Otherwise a later event could be
    // handled before them.
    static RECEIVING: Mutex<()> = Mutex::new(());
    let mut pending = Vec::new();
    let _receiving = lock(&RECEIVING);
    let signals = capture::drain();
    // Listed after the signals are read, because a guard may have been installed meanwhile.
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

/// Runs the shutdown thread, beginning with the actions that the previous shutdown thread has left.
fn run(pending: Pending) {
    // If this thread replaces another one, it must also check what that one watched, at once.
    let mut timeout = (!pending.is_empty()).then_some(Duration::ZERO);
    // A panic in our code must not end this thread, because it watches the process.
    let _ = catch_unwind(AssertUnwindSafe(|| perform(pending)));
    loop {
        capture::wait(timeout);
        match catch_unwind(AssertUnwindSafe(run_round)) {
            Ok(Round::Done(next)) => timeout = next,
            Ok(Round::HandedOver(guard)) => return guard.log.queue.work(),
            Err(_) => timeout = Some(EVERY),
        }
    }
}

/// How a round of the shutdown thread has ended.
enum Round {
    /// The next round is due after this time, or earlier if a signal arrives.
    Done(Option<Duration>),
    /// Another thread is the shutdown thread now. This one becomes the log thread of this guard.
    HandedOver(Arc<Shutdown>),
}

/// One round of the shutdown thread: receives signals, performs the actions, and checks each stop.
fn run_round() -> Round {
    let mut pending = receive_signals();
    let begins = |actions: &[Action]| {
        actions.iter().any(|action| matches!(action, Action::CaptureContext { .. }))
    };
    // A guard whose stop begins and that has no log thread. This thread can become its log thread.
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
        if (is_ended || !guard.machine().is_over())
            && let Some(next) = watch(&guard)
        {
            timeout = Some(timeout.map_or(next, |sooner| sooner.min(next)));
        }
        // A separate statement, because the machine would stay locked within the `if`.
        let exit = guard.machine().exit_reason();
        if let Some(reason) = exit {
            end_process(&guard, reason);
        }
    }
    Round::Done(timeout)
}

/// Starts a new shutdown thread that replaces this one. Returns `pending` if that fails.
fn hand_over(pending: Pending) -> Result<(), Pending> {
    // `pending` is sent after the start, because this thread needs it if the start fails.
    let (sender, receiver) = mpsc::channel();
    let started = spawn_detached(NAME, move || run(receiver.recv().unwrap_or_default()));
    if started.is_err() {
        return Err(pending);
    }
    // This cannot fail, because the new thread waits for it.
    let _ = sender.send(pending);
    Ok(())
}

pub(crate) fn perform(pending: Pending) {
    for (guard, actions) in pending {
        guard.perform(actions);
    }
}

/// Checks a guard's stop, if there is one. Returns when to check it again.
fn watch(guard: &Arc<Shutdown>) -> Option<Duration> {
    guard.log.write_overdue(EMIT_LIMIT);
    let snapshot = guard.machine().snapshot(guard.now());
    if let Some(snapshot) = snapshot {
        describe::sample_threads(guard, snapshot.since);
    }
    if guard.machine().is_watched() {
        guard.handle(Event::Watched { missed: guard.missed() });
    }
    let now = guard.now();
    let machine = guard.machine();
    let due = machine.watch_by().map(|by| by.saturating_duration_since(now));
    machine
        .is_watched()
        .then(|| due.filter(|due| !due.is_zero()).map_or(EVERY, |due| due.min(EVERY)))
}

/// Ends the process. Neither its destructors nor those of the runtime run, because they could
/// block.
fn end_process(guard: &Arc<Shutdown>, reason: ExitReason) -> ! {
    let hooks = u32::try_from(guard.config.on_forced_exit.len()).unwrap_or(u32::MAX);
    let _last_resort = kill_after(EMIT_LIMIT.saturating_mul(hooks.saturating_add(12)));
    guard.report_forced_exit(reason);
    capture::exit_now(guard.config.exit_status(ExitKind::Forced).into())
}

/// Uninstalls the handlers that are due. Returns the time until the next ones are due.
fn release_handlers() -> Option<Duration> {
    let now = Instant::now();
    let mut registry = lock(&REGISTRY);
    registry.handlers.retain(|(at, _)| *at > now);
    registry.handlers.iter().map(|(at, _)| *at - now).min()
}

/// The guards that are alive. The lock is released before their actions are performed, because a guard may be
/// installed or dropped meanwhile.
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
