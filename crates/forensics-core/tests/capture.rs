//! The capture of real signals, in the process of this test.
//!
//! Handlers and slots belong to the whole process, so the tests run one at a time.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy allows it in `#[test]` functions, but not in their helpers.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::capture::{
    self, Disposition, HandlerError, SLOTS, SiCode, SignalInfo, SnapshotError, install,
};
use nix::errno::Errno;
use nix::libc::EMFILE;
#[cfg(not(forensics_portable))]
use nix::sys::prctl;
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal as Nix, kill, raise};
use nix::unistd::{Pid, getpid, getuid, setpgid};

/// Far more than any step takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until this test may run, and removes signals of the test before.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    capture::drain();
    turn
}

/// Whether this process catches `signal`, and whether it ignores it, by `proc_pid_status(5)`.
fn disposition(signal: Signal) -> (bool, bool) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let has = |label: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(label)).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
    };
    (has("SigCgt:"), has("SigIgn:"))
}

const CAUGHT: (bool, bool) = (true, false);
const DEFAULT: (bool, bool) = (false, false);
const IGNORED: (bool, bool) = (false, true);

fn raise_all(signals: &[Nix]) {
    signals.iter().for_each(|&signal| raise(signal).unwrap());
}

fn is_ours(captured: &SignalInfo) -> bool {
    let seen = match &captured.snapshot.stat {
        Some(stat) => {
            stat.starts_with(format!("{} (", getpid()).as_bytes()) && stat.ends_with(b"\n")
        }
        // If /proc is not read, as in `.ci/portable`.
        None => {
            cfg!(forensics_portable) && captured.snapshot.absence == Some(SnapshotError::Hidden)
        }
    };
    seen && captured.pid == Some(getpid().as_raw()) && captured.uid == Some(getuid().as_raw())
}

/// Waits for the next signal. A wake-up of an earlier test may come first.
fn next() -> SignalInfo {
    loop {
        if let Some(captured) = capture::drain().pop() {
            return captured;
        }
        assert!(capture::wait(Some(LIMIT)), "no signal came");
    }
}

#[test]
fn a_signal_can_be_drained_as_soon_as_its_handler_has_run() {
    let _turn = turn();
    let _guard = install(&[Signal::TERM, Signal::from_raw(40)]).unwrap();
    raise_all(&[Nix::SIGTERM]);
    kill(getpid(), Nix::SIGTERM).unwrap();
    assert!(capture::wait(Some(LIMIT)));
    // kill(2) may choose another thread, whose handler may not have finished.
    let mut drained = capture::drain();
    while drained.len() < 2 {
        assert!(capture::wait(Some(LIMIT)));
        drained.extend(capture::drain());
    }
    assert_eq!([SiCode::Tkill, SiCode::User], [drained[0].code, drained[1].code]);
    assert!(drained.iter().all(is_ours), "{drained:?}");
    assert!(drained.iter().all(|captured| captured.signal == Signal::TERM));
    assert!(drained[0].mono_ns < drained[1].mono_ns);
    assert!(drained[0].took_ns > 0);
}

#[test]
fn a_sleeper_is_woken_by_a_signal_and_by_a_call() {
    let _turn = turn();
    let _guard = install(&[Signal::TERM]).unwrap();
    // Removes a wake-up of an earlier test.
    capture::wake();
    assert!(capture::wait(None));
    assert!(!capture::wait(Some(Duration::ZERO)));
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| capture::wait(None));
        raise(Nix::SIGTERM).unwrap();
        assert!(sleeper.join().unwrap());
    });
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| capture::wait(Some(LIMIT)));
        capture::wake();
        assert!(sleeper.join().unwrap());
    });
}

#[test]
fn dropping_the_guard_restores_the_default_action_for_a_signal_that_was_ignored_too() {
    let _turn = turn();
    // Rust starts a program with SIGPIPE ignored.
    let cases = [(Signal::from_raw(41), DEFAULT), (Signal::from_raw(Nix::SIGPIPE as i32), IGNORED)];
    for (signal, before) in cases {
        assert_eq!(disposition(signal), before);
        assert_eq!(capture::disposition(signal) == Some(Disposition::Ignored), before == IGNORED);
        let first = install(&[signal]).unwrap();
        let second = install(&[signal]).unwrap();
        drop(first);
        assert_eq!(disposition(signal), CAUGHT, "the second guard still covers it");
        drop(second);
        assert_eq!(disposition(signal), DEFAULT);
        let again = install(&[signal]).unwrap();
        assert_eq!(disposition(signal), CAUGHT);
        drop(again);
        assert_eq!(disposition(signal), DEFAULT);
    }
}

#[test]
fn a_signal_that_cannot_be_handled_installs_nothing() {
    let _turn = turn();
    let signal = Signal::from_raw(42);
    for forbidden in [Nix::SIGKILL, Nix::SIGSTOP, Nix::SIGSEGV] {
        let forbidden = Signal::from_raw(forbidden as i32);
        let error = install(&[signal, forbidden]).unwrap_err();
        assert!(matches!(error, HandlerError::Forbidden(which) if which == forbidden));
    }
    let error = install(&[signal, Signal::from_raw(1000)]).unwrap_err();
    assert!(matches!(error, HandlerError::Refused { .. }), "{error}");
    assert_eq!(disposition(signal), DEFAULT);
}

#[test]
fn with_all_slots_taken_the_newest_signals_are_only_counted() {
    let _turn = turn();
    let _guard = install(&[Signal::TERM]).unwrap();
    let before = capture::overflow_count();
    for _ in 0..SLOTS + 3 {
        raise(Nix::SIGTERM).unwrap();
    }
    assert_eq!(capture::overflow_count() - before, 3);
    assert_eq!(capture::drain().len(), SLOTS);
    raise(Nix::SIGTERM).unwrap();
    assert_eq!(capture::drain().len(), 1);
}

#[test]
fn the_login_of_a_sender_is_what_its_proc_files_say() {
    let _turn = turn();
    let _guard = install(&[Signal::TERM]).unwrap();
    // A process without a login uid may set one. A process with one, such as a child of a login
    // shell, is also a valid case.
    for login in ["true", "echo 1234 > /proc/self/loginuid"] {
        let script = format!("{login}; kill $PPID; read line");
        let mut sender =
            Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        let sighting = next().snapshot;
        let id = |file| {
            let id = std::fs::read_to_string(format!("/proc/{}/{file}", sender.id())).ok()?;
            id.parse().ok().filter(|&id: &u32| id != u32::MAX)
        };
        assert_eq!(sighting.login_uid, id("loginuid"));
        assert_eq!(sighting.login_session, id("sessionid"));
        drop(sender.stdin.take());
        sender.wait().unwrap();
    }
}

#[test]
#[cfg(not(forensics_portable))]
fn the_parent_death_signal_is_known_on_whichever_thread_it_is_handled() {
    let _turn = turn();
    prctl::set_pdeathsig(Nix::SIGTERM).unwrap();
    let _guard = install(&[Signal::TERM, Signal::INT]).unwrap();
    prctl::set_pdeathsig(None).unwrap();
    for (signal, is_it) in [(Nix::SIGTERM, true), (Nix::SIGINT, false)] {
        // A new thread has no parent-death signal.
        thread::spawn(move || raise(signal).unwrap()).join().unwrap();
        assert_eq!(next().is_parent_death_signal, is_it, "{signal}");
    }
}

/// Runs `work` while no file can be opened, so that the handler's calls fail and set errno.
fn without_descriptors<T>(work: impl FnOnce() -> T) -> T {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    let result = work();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    result
}

#[test]
fn without_a_descriptor_the_program_is_read_and_errno_is_kept() {
    let _turn = turn();
    let _guard = install(&[Signal::TERM]).unwrap();
    let exe = std::env::current_exe().unwrap();
    let (raised, errno) = without_descriptors(|| {
        Errno::ENOTNAM.set();
        (raise(Nix::SIGTERM), Errno::last())
    });
    raised.unwrap();
    assert_eq!(errno, Errno::ENOTNAM);
    let drained = capture::drain();
    assert_eq!(drained[0].snapshot.stat, None);
    assert_eq!(drained[0].snapshot.absence, Some(SnapshotError::Unreadable(EMFILE)));
    assert_eq!(drained[0].snapshot.exe.as_deref(), Some(exe.as_os_str().as_encoded_bytes()));
}

#[test]
fn a_thread_with_many_signals_reads_the_errno_of_its_own_calls() {
    let _turn = turn();
    let _guard = install(&[Signal::TERM]).unwrap();
    let done = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    let wrong = without_descriptors(|| {
        thread::scope(|scope| {
            let bombarded = scope.spawn(|| {
                tell.send(pthread_self()).unwrap();
                let mut wrong = None;
                while !done.load(Ordering::SeqCst) {
                    // Fails, and reads errno right after that.
                    let errno = setpgid(getpid(), Pid::from_raw(-1)).unwrap_err();
                    wrong = wrong.or(Some(errno).filter(|&errno| errno != Errno::EINVAL));
                }
                wrong
            });
            let thread = told.recv().unwrap();
            for _ in 0..10_000 {
                pthread_kill(thread, Nix::SIGTERM).unwrap();
                capture::drain();
            }
            done.store(true, Ordering::SeqCst);
            bombarded.join().unwrap()
        })
    });
    assert_eq!(wrong, None);
}

#[test]
fn many_threads_at_once_lose_no_signal_and_mix_none() {
    const EACH: usize = 500;
    const SIGNALS: [Nix; 4] = [Nix::SIGTERM, Nix::SIGINT, Nix::SIGHUP, Nix::SIGQUIT];
    let _turn = turn();
    let _guard = install(&SIGNALS.map(|signal| Signal::from_raw(signal as i32))).unwrap();
    let before = capture::overflow_count();
    let mut drained = 0;
    let mut take = || {
        for captured in capture::drain() {
            assert!(is_ours(&captured), "{captured:?}");
            assert_eq!(captured.code, SiCode::Tkill);
            drained += 1;
        }
    };
    thread::scope(|scope| {
        // raise(3) returns once its own handler has run: none of these coalesce.
        let threads = SIGNALS
            .map(|signal| scope.spawn(move || (0..EACH).for_each(|_| raise(signal).unwrap())));
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            capture::wait(Some(Duration::from_millis(10)));
            take();
        }
    });
    take();
    let overflow = usize::try_from(capture::overflow_count() - before).unwrap();
    assert_eq!(drained + overflow, SIGNALS.len() * EACH);
    assert!(drained >= SLOTS, "signals overflow only if all slots are taken");
}
