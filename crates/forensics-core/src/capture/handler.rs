//! The handler, and the functions that the reader calls.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::libc::{c_int, siginfo_t};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::ClockId;

use super::Signal;
use super::os::{self, Waker};
use super::raw::{self, Bytes};
use super::slots::Slots;
use super::{SLOTS, SenderSnapshot, SiCode, SignalInfo, SnapshotError};
use crate::process::{login_id, own_pid};
use crate::procfile;

static CAPTURED: Slots<SignalInfo, SLOTS> = Slots::new();
static OVERFLOW_COUNT: AtomicU64 = AtomicU64::new(0);
/// The pid of the process that installed the handler. A forked child has another pid.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// By signal, whether its action would be the default one without our handler. Linux has 64 signals.
static IS_DEFAULT: [AtomicBool; 65] = [const { AtomicBool::new(false) }; 65];
/// Whether pids in `/proc` are those of our pid namespace.
static PROC_IS_OURS: AtomicBool = AtomicBool::new(false);
/// The parent-death signal of the thread that installed the handler, or 0. Each thread has its own,
/// and most have none, but the signal may be delivered to any thread of the process.
static PARENT_DEATH_SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The descriptor of [`WAKE`] for the handler. `OnceLock` is not documented as async-signal-safe.
static WAKE_FD: AtomicI32 = AtomicI32::new(-1);
/// The folder `/proc`, or -1. We never close it, for the same reason as [`WAKE`].
static PROC_FD: AtomicI32 = AtomicI32::new(-1);
/// The device of that folder. A program may close all its descriptors, and then `PROC_FD` may become
/// another folder.
static PROC_DEVICE: AtomicU64 = AtomicU64::new(0);
/// Wakes the reader. It is never closed, because a handler may run at any time.
static WAKE: OnceLock<Waker> = OnceLock::new();

/// Prepares what the handler needs. Must be called before it is registered.
pub(super) fn prepare() -> nix::Result<()> {
    if WAKE.get().is_none() {
        let waker = Waker::new()?;
        // If two threads get here at once, the second waker is closed again.
        let waker = WAKE.get_or_init(|| waker);
        WAKE_FD.store(waker.write_fd(), Ordering::Release);
    }
    PROC_IS_OURS.store(procfile::is_ours(), Ordering::Release);
    let procfs = crate::os::procfs();
    PROC_DEVICE.store(procfs.map_or(0, raw::device_of), Ordering::Release);
    PROC_FD.store(procfs.map_or(-1, |folder| folder.as_raw_fd()), Ordering::Release);
    PARENT_DEATH_SIGNAL.store(os::parent_death_signal(), Ordering::Release);
    OWNER.store(own_pid(), Ordering::Release);
    Ok(())
}

/// The handler. Async-signal-safe; the documentation of `capture` says what that means.
pub(super) fn on_signal(info: &siginfo_t) {
    let mono_ns = raw::clock_ns(ClockId::CLOCK_MONOTONIC);
    if own_pid() != OWNER.load(Ordering::Acquire) {
        return act_without_our_handler(info.si_signo);
    }
    // The interrupted code may be about to read errno after a failed call.
    let errno = Errno::last_raw();
    let wall_ns = raw::clock_ns(ClockId::CLOCK_REALTIME);
    if !CAPTURED.put(|| capture(info, mono_ns, wall_ns)) {
        OVERFLOW_COUNT.fetch_add(1, Ordering::Relaxed);
    }
    raw::notify(WAKE_FD.load(Ordering::Acquire));
    Errno::set_raw(errno);
}

/// Lets the signal have the effect that it has without our handler. This is for a forked child, which has
/// no thread that serves the handler. If the action was the default one, the signal takes effect when the
/// handler returns. Another handler has already been called, and an ignored signal stays ignored.
fn act_without_our_handler(signal: c_int) {
    if is_default(signal).is_some_and(|is_default| is_default.load(Ordering::Acquire)) {
        raw::raise_by_default(signal);
    }
}

/// Stores whether the action of a signal is the default one without our handler.
pub(super) fn set_default(signal: Signal, value: bool) {
    if let Some(is_default) = is_default(signal.as_raw()) {
        is_default.store(value, Ordering::Release);
    }
}

fn is_default(signal: c_int) -> Option<&'static AtomicBool> {
    IS_DEFAULT.get(usize::try_from(signal).ok()?)
}

fn capture(info: &siginfo_t, mono_ns: u64, wall_ns: u64) -> SignalInfo {
    let code = SiCode::from_raw(info.si_code);
    // SAFETY: for these codes the kernel fills in pid and uid in the union of `siginfo_t`.
    let sender = code.has_sender().then(|| unsafe { (info.si_pid(), info.si_uid()) });
    // On Linux 0 is a sender outside our pid namespace, on other Unix it is no sender.
    let sender = sender.filter(|&(pid, _)| pid > 0 || crate::os::HAS_PROC);
    let parent_death_signal = match os::parent_death_signal() {
        0 => PARENT_DEATH_SIGNAL.load(Ordering::Acquire),
        signal => signal,
    };
    SignalInfo {
        signal: Signal::from_raw(info.si_signo),
        code,
        pid: sender.map(|(pid, _)| pid),
        uid: sender.map(|(_, uid)| uid),
        snapshot: sender.map(|(pid, _)| look_at(pid)).unwrap_or_default(),
        is_parent_death_signal: parent_death_signal == info.si_signo,
        wall: SystemTime::UNIX_EPOCH + Duration::from_nanos(wall_ns),
        mono_ns,
        took_ns: raw::clock_ns(ClockId::CLOCK_MONOTONIC).saturating_sub(mono_ns),
    }
}

/// What `/proc` shows of a sender.
fn look_at(pid: c_int) -> SenderSnapshot {
    let mut seen = SenderSnapshot::default();
    if pid <= 0 {
        seen.absence = Some(SnapshotError::Outside);
        return seen;
    }
    if !PROC_IS_OURS.load(Ordering::Acquire) {
        seen.absence = Some(absence(pid, Errno::ENOENT));
        return seen;
    }
    let procfs = procfs();
    // This file disappears first and contains most of the facts, so it is read first.
    match raw::read(procfs, &raw::proc_path(pid, b"stat")) {
        Ok(stat) => seen.stat = Some(stat),
        Err(errno) => seen.absence = Some(absence(pid, errno)),
    }
    // A process without a session has no login uid, because the kernel sets both together. A user
    // namespace can hide the uid alone, so the session decides.
    let id = |file| {
        let content: Bytes<12> = raw::read(procfs, &raw::proc_path(pid, file)).ok()?;
        login_id(&content)
    };
    seen.login_session = id(b"sessionid");
    seen.login_uid = seen.login_session.and_then(|_| id(b"loginuid"));
    // This needs no descriptor, so it works in a process that has none left. It is not tried for a
    // sender that has exited, which has no `exe` any more, and not if another file system serves the
    // folder of the process, because that might block.
    if !matches!(seen.absence, Some(SnapshotError::Gone | FOREIGN)) {
        seen.exe = raw::read_link(&raw::proc_path(pid, b"exe"));
    }
    seen
}

/// The folder `/proc` if its descriptor is still open.
pub(super) fn procfs() -> Option<BorrowedFd<'static>> {
    let fd = PROC_FD.load(Ordering::Acquire);
    // SAFETY: it is not -1, and we never close it. If the program has, fstat(2) below fails or shows
    // another device, and nothing else is done with it.
    let folder = (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) });
    folder.filter(|folder| raw::device_of(*folder) == PROC_DEVICE.load(Ordering::Acquire))
}

/// Another file system is mounted over the file.
const FOREIGN: SnapshotError = SnapshotError::Unreadable(Errno::EXDEV as c_int);

fn absence(pid: c_int, errno: Errno) -> SnapshotError {
    match errno {
        Errno::ENOENT | Errno::ESRCH if !raw::exists(pid) => SnapshotError::Gone,
        Errno::ENOENT | Errno::ESRCH | Errno::EACCES | Errno::EPERM => SnapshotError::Hidden,
        errno => SnapshotError::Unreadable(errno as c_int),
    }
}

/// Returns the signals captured since the last call, oldest first.
///
/// Never blocks or spins. It does not wait for a handler that is still running: its signal is
/// returned by the next call, and [`wait`] returns for it.
pub fn drain() -> Vec<SignalInfo> {
    let mut drained = Vec::new();
    CAPTURED.drain(|captured| drained.push(captured));
    drained.sort_by_key(|captured: &SignalInfo| captured.mono_ns);
    drained
}

/// Returns how many signals have found no free slot since the process started.
pub fn overflow_count() -> u64 {
    OVERFLOW_COUNT.load(Ordering::Relaxed)
}

/// Sleeps until a signal has been captured, [`wake`] is called, or `timeout` has passed. With `None`
/// it sleeps in a blocking read(2), on other Unix in poll(2), without a timer. Returns whether it was
/// woken.
///
/// Only one thread of the process should wait: of two, only one is woken. Returns `false` at once if
/// no handler was ever installed. May return early when this thread handles a signal.
pub fn wait(timeout: Option<Duration>) -> bool {
    let Some(waker) = WAKE.get() else { return false };
    if let Some(timeout) = timeout {
        // Rounded up, so that the caller need not wait again for less than a millisecond.
        let millis = timeout.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(waker.read_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut fds, timeout), Ok(1..)) {
            return false;
        }
    }
    waker.sleep()
}

/// Wakes the thread that sleeps in [`wait`]. May be called from any thread and from a handler.
pub fn wake() {
    raw::notify(WAKE_FD.load(Ordering::Acquire));
}

/// Ends the process with this status at once, from any thread. No destructor or exit handler runs and
/// no buffer is flushed, because any of them may block.
pub fn exit_now(status: i32) -> ! {
    raw::exit(status)
}

/// Ends the process by the default action of this signal, without a core dump. As
/// [`exit_now`], it flushes nothing. Returns if that is not possible: process 1 of a pid namespace
/// cannot end by its own signal.
pub fn end_by(signal: Signal) {
    os::forbid_core_dump();
    raw::end_by(signal.as_raw());
}
