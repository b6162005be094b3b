//! The handler, and the reader's end of its slots.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::libc::{self, c_int, siginfo_t};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::os::{self, Waker};
use super::raw::{self, Bytes};
use super::slots::Slots;
use super::{SLOTS, SenderSnapshot, SiCode, SignalInfo, SnapshotError};
use crate::process::login_id;
use crate::procfile;
use crate::signal::Signal;

/// What the handler takes down: plain data of a fixed size.
#[derive(Clone, Copy)]
struct Raw {
    signal: c_int,
    code: c_int,
    /// Meaningful where the code has a sender; else 0.
    pid: c_int,
    uid: u32,
    stat: Result<Bytes<512>, SnapshotError>,
    exe: Bytes<256>,
    login_uid: Bytes<12>,
    login_session: Bytes<12>,
    parent_death_signal: c_int,
    wall_ns: u64,
    mono_ns: u64,
    took_ns: u64,
}

static TAKEN_DOWN: Slots<Raw, SLOTS> = Slots::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// The process that armed the capture; a forked child is another.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// Whether `/proc/PID` is about the process that we know by that pid.
static PROC_IS_OURS: AtomicBool = AtomicBool::new(false);
/// The parent-death signal of the thread that armed the capture, 0 for none. Each thread has its own, of
/// which most have none, and the signal goes to any thread of the process.
static PARENT_DEATH_SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The waker's descriptor for the handler, which cannot look into a `OnceLock`.
static WAKE_FD: AtomicI32 = AtomicI32::new(-1);
/// The waker for the reader. Kept for the life of the process: a handler may run at any time.
static WAKE: OnceLock<Waker> = OnceLock::new();

/// Makes ready what the handler needs. Before the first registration.
pub(super) fn prepare() -> nix::Result<()> {
    if WAKE.get().is_none() {
        let waker = Waker::new()?;
        // Two threads may come here at once: the loser's waker is closed again.
        let waker = WAKE.get_or_init(|| waker);
        WAKE_FD.store(waker.write_fd(), Ordering::Release);
    }
    PROC_IS_OURS.store(procfile::is_ours(), Ordering::Release);
    PARENT_DEATH_SIGNAL.store(os::parent_death_signal(), Ordering::Release);
    OWNER.store(raw::own_pid(), Ordering::Release);
    Ok(())
}

/// The handler. Async-signal-safe: see the module's documentation for what it may do.
pub(super) fn on_signal(info: &siginfo_t) {
    let mono_ns = raw::clock_ns(libc::CLOCK_MONOTONIC);
    if raw::own_pid() != OWNER.load(Ordering::Acquire) {
        return;
    }
    // The interrupted code may be between a failed call and its look at errno.
    let errno = Errno::last_raw();
    let wall_ns = raw::clock_ns(libc::CLOCK_REALTIME);
    if !TAKEN_DOWN.put(|| look(info, mono_ns, wall_ns)) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
    raw::notify(WAKE_FD.load(Ordering::Acquire));
    Errno::set_raw(errno);
}

fn look(info: &siginfo_t, mono_ns: u64, wall_ns: u64) -> Raw {
    let (pid, uid) = match SiCode::from_raw(info.si_code).has_sender() {
        // SAFETY: for these codes the kernel fills in the pid and uid of its siginfo union.
        true => unsafe { (info.si_pid(), info.si_uid()) },
        false => (0, 0),
    };
    let mut raw = Raw {
        signal: info.si_signo,
        code: info.si_code,
        pid,
        uid,
        stat: Err(SnapshotError::Outside),
        exe: Bytes::EMPTY,
        login_uid: Bytes::EMPTY,
        login_session: Bytes::EMPTY,
        parent_death_signal: 0,
        wall_ns,
        mono_ns,
        took_ns: 0,
    };
    if pid > 0 && !PROC_IS_OURS.load(Ordering::Acquire) {
        raw.stat = Err(absence(pid, libc::ENOENT));
    } else if pid > 0 {
        // Of all there is, this is gone soonest and tells most: read it first.
        raw.stat = raw::read(&raw::proc_path(pid, b"stat")).map_err(|errno| absence(pid, errno));
        // Whoever has no session has no login uid, as the kernel sets both together; and asked in
        // this order the answer is right in a user namespace, which can hide the uid alone.
        if let Ok(session) = raw::read(&raw::proc_path(pid, b"sessionid"))
            && login_id(session.as_slice()).is_some()
        {
            raw.login_session = session;
            if let Ok(id) = raw::read(&raw::proc_path(pid, b"loginuid")) {
                raw.login_uid = id;
            }
        }
        // Needs no descriptor, so that a process that has none left still learns a name. Of a
        // sender that has exited it is gone before all else, and not tried.
        if !matches!(raw.stat, Err(SnapshotError::Gone))
            && let Some(exe) = raw::read_link(&raw::proc_path(pid, b"exe"))
        {
            raw.exe = exe;
        }
    }
    raw.parent_death_signal = match os::parent_death_signal() {
        0 => PARENT_DEATH_SIGNAL.load(Ordering::Acquire),
        signal => signal,
    };
    raw.took_ns = raw::clock_ns(libc::CLOCK_MONOTONIC).saturating_sub(mono_ns);
    raw
}

fn absence(pid: c_int, errno: c_int) -> SnapshotError {
    match errno {
        libc::ENOENT | libc::ESRCH if !raw::exists(pid) => SnapshotError::Gone,
        libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM => SnapshotError::Hidden,
        errno => SnapshotError::Unreadable(errno),
    }
}

/// The signals captured since the last call, oldest first.
///
/// Never blocks and never spins: a handler that is still at work is not waited for; its signal is
/// in the next call's answer, and [`wait`] returns for it.
pub fn take() -> Vec<SignalInfo> {
    let mut taken = Vec::new();
    TAKEN_DOWN.take(|raw| {
        let captured = SignalInfo::from(&raw);
        let at = taken.partition_point(|other: &SignalInfo| other.mono_ns <= captured.mono_ns);
        taken.insert(at, captured);
    });
    taken
}

/// How many signals, since the process started, found no free slot.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Sleeps until a signal has been captured, [`wake`] is called, or `timeout` has passed; `None`
/// sleeps in a blocking read(2), on other Unix in poll(2), without any timer. Returns whether it was woken.
///
/// For one thread of the process: with two, either may get the news. Returns at once, `false`,
/// where nothing was ever armed. May return early on a handled signal.
pub fn wait(timeout: Option<Duration>) -> bool {
    let Some(waker) = WAKE.get() else { return false };
    if let Some(timeout) = timeout {
        // Rounded up: a wait that ends before its time would have to be begun again.
        let millis = timeout.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(waker.read_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut fds, timeout), Ok(1..)) {
            return false;
        }
    }
    waker.sleep()
}

/// Wakes whoever sleeps in [`wait`]. From any thread, also from a handler.
pub fn wake() {
    raw::notify(WAKE_FD.load(Ordering::Acquire));
}

/// Asks the scheduler to let this process's main thread, on which handlers usually run, preempt
/// sooner: a time slice of 100 µs (`sched_runtime`, honoured for ordinary threads since Linux 6.12;
/// before, it is without effect). The handler then begins while more senders can still be read.
///
/// Its price: the thread is preempted sooner, too, and so is switched more often where it computes
/// for long. Children inherit it.
///
/// # Errors
/// `ENOSYS` or `EPERM` where the kernel or a seccomp filter does not have it; `ENOSYS` on other Unix.
pub fn hint_low_latency() -> nix::Result<()> {
    const SLICE_NS: u64 = 100_000;
    os::set_time_slice(raw::own_pid(), SLICE_NS)
}

/// Ends the process with this status at once, from whatever thread: no destructor, no exit handler
/// and no flush of a buffer runs, since any of them may be what hangs.
pub fn exit_now(status: i32) -> ! {
    raw::exit(status)
}

impl From<&Raw> for SignalInfo {
    fn from(raw: &Raw) -> Self {
        let code = SiCode::from_raw(raw.code);
        // On Linux 0 is a sender outside our pid namespace, on other Unix nobody that is named.
        let has_sender = code.has_sender() && (raw.pid > 0 || crate::os::HAS_PROC);
        Self {
            signal: Signal::from_raw(raw.signal),
            code,
            pid: has_sender.then_some(raw.pid),
            uid: has_sender.then_some(raw.uid),
            snapshot: SenderSnapshot {
                stat: raw.stat.ok().map(|stat| stat.as_slice().to_vec()),
                absence: raw.stat.err().filter(|_| has_sender),
                exe: Some(raw.exe.as_slice().to_vec()).filter(|exe| !exe.is_empty()),
                login_uid: login_id(raw.login_uid.as_slice()),
                login_session: login_id(raw.login_session.as_slice()),
            },
            is_parent_death_signal: raw.parent_death_signal == raw.signal,
            wall: SystemTime::UNIX_EPOCH + Duration::from_nanos(raw.wall_ns),
            mono_ns: raw.mono_ns,
            took_ns: raw.took_ns,
        }
    }
}
