//! Tests of the slots with real threads (`tests/loom` has those with loom), and of the slice.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Bytes;
use nix::libc;
use nix::sys::signal::kill;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::Signal;
use super::slots::Slots;

/// For tests that need the descriptor of `/proc`, or replace it.
pub(crate) static PROCFS: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// A file's content as the handler captures it.
pub(crate) fn bytes<const N: usize>(content: impl AsRef<[u8]>) -> Option<Bytes<N>> {
    let mut bytes = Bytes::EMPTY;
    bytes.push(content.as_ref());
    Some(bytes)
}

#[test]
fn a_full_table_refuses_and_accepts_again_once_drained() {
    let slots = Slots::<u32, 3>::new();
    for round in 0..3 {
        assert!((0..3).all(|i| slots.put(|| round * 10 + i)));
        assert!(!slots.put(|| unreachable!("there is no slot to fill")));
        let mut drained = Vec::new();
        slots.drain(|content| drained.push(content));
        drained.sort_unstable();
        assert_eq!(drained, [round * 10, round * 10 + 1, round * 10 + 2]);
    }
}

#[test]
fn a_handler_that_interrupts_a_writer_takes_another_slot() {
    let slots = Slots::<u32, 2>::new();
    assert!(slots.put(|| {
        assert!(slots.put(|| 2));
        let mut seen = Vec::new();
        slots.drain(|content| seen.push(content));
        assert_eq!(seen, [2], "the interrupted writer has not published yet");
        1
    }));
    let mut seen = Vec::new();
    slots.drain(|content| seen.push(content));
    assert_eq!(seen, [1]);
}

#[test]
fn concurrent_writers_and_readers_lose_no_value_and_never_mix_two() {
    const WRITERS: u64 = 4;
    const EACH: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let slots = Slots::<[u64; 32], 16>::new();
    let writing = AtomicUsize::new(WRITERS as usize);
    let drained = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (slots, writing) = (&slots, &writing);
            scope.spawn(move || {
                for i in 0..EACH {
                    while !slots.put(|| [writer * EACH + i; 32]) {
                        std::thread::yield_now();
                    }
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut drained = Vec::new();
                    loop {
                        let last_round = writing.load(Ordering::SeqCst) == 0;
                        slots.drain(|content| {
                            assert!(content.iter().all(|&word| word == content[0]));
                            drained.push(content[0]);
                        });
                        if last_round {
                            return drained;
                        }
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        let mut all: Vec<u64> =
            readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
        all.sort_unstable();
        all
    });
    assert_eq!(drained, (0..WRITERS * EACH).collect::<Vec<_>>());
}

#[test]
#[cfg(all(target_os = "linux", not(forensics_portable)))]
fn a_short_slice_is_inherited_only_if_requested() {
    use super::os;
    use super::slice::SLICE_NS;

    fn slice_of(tid: i32) -> u64 {
        os::attributes(tid).unwrap().sched_runtime
    }

    for is_inherited in [false, true] {
        let on_thread = || {
            let usual = slice_of(0);
            if let Err(error) = os::request_slice(0, SLICE_NS, is_inherited) {
                eprintln!("skipped: the request is refused: {error}");
                return;
            }
            if slice_of(0) == usual {
                eprintln!("skipped: the kernel is older than 6.12");
                return;
            }
            assert_eq!(slice_of(0), SLICE_NS);
            if !is_inherited && os::attributes(0).unwrap().sched_nice < 0 {
                eprintln!("skipped: with a negative nice value it is inherited, as documented");
                return;
            }
            let expected = if is_inherited { SLICE_NS } else { usual };
            std::thread::scope(|scope| {
                scope.spawn(|| assert_eq!(slice_of(0), expected, "a thread"));
            });
            let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let inherited = slice_of(child.id().cast_signed());
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(inherited, expected, "a child process");
        };
        std::thread::scope(|scope| {
            scope.spawn(on_thread);
        });
    }
}

#[test]
#[cfg(all(target_os = "linux", not(forensics_portable)))]
#[cfg_attr(miri, ignore = "Miri shows no /proc")]
fn a_descriptor_of_proc_that_has_become_another_folder_is_not_used() {
    use std::os::fd::AsRawFd;

    use nix::libc;

    use super::handler;

    let _procfs = PROCFS.lock().unwrap();
    handler::prepare().unwrap();
    let procfs = handler::procfs().unwrap().as_raw_fd();
    let proc = std::fs::File::open("/proc").unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = std::fs::File::open(other.path()).unwrap();
    // As in a daemon that closes all descriptors and then opens others. The tests that run at the same
    // time then open the files by their whole path.
    // SAFETY: both are open descriptors, and nothing relies on which file `procfs` is.
    unsafe { libc::dup2(other.as_raw_fd(), procfs) };
    assert!(handler::procfs().is_none());
    assert!(crate::os::open_in_procfs(std::path::Path::new("loadavg")).is_err());
    // SAFETY: as above.
    unsafe { libc::dup2(proc.as_raw_fd(), procfs) };
    assert_eq!(handler::procfs().map(|folder| folder.as_raw_fd()), Some(procfs));
}

/// A child that was forked, executes no other program, and only waits. Killed when it is dropped.
pub(crate) struct ForkedChild(Pid);

impl ForkedChild {
    pub(crate) fn new() -> Self {
        // SAFETY: the child calls only functions that are async-signal-safe.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => loop {
                // SAFETY: pause(2) has no preconditions.
                unsafe { libc::pause() };
            },
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        waitpid(self.0, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive)
    }

    /// Sends it a signal, and waits until it has handled it. Returns the signal that has ended it.
    fn ended_by(self, signal: Signal) -> Option<i32> {
        // SAFETY: kill(2) has no preconditions; the pid is that of our child, which is not reaped.
        assert_eq!(unsafe { libc::kill(self.0.as_raw(), signal.as_raw()) }, 0);
        let handled = |status: String| {
            let is = |line: &str, key: &str, value: &str| {
                line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(value))
            };
            let has = |key: &str, value: &str| status.lines().any(|line| is(line, key, value));
            let none = "0000000000000000";
            has("State:", "Z")
                || (has("State:", "S") && has("SigPnd:", none) && has("ShdPnd:", none))
        };
        while !handled(std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap()) {
            std::thread::yield_now();
        }
        let mut status = 0;
        // SAFETY: the pointer is valid for an int. `waitpid` of nix does not know real-time signals.
        let ended = unsafe { libc::waitpid(self.0.as_raw(), &raw mut status, libc::WNOHANG) };
        let ended_by = (ended != 0 && libc::WIFSIGNALED(status)).then(|| libc::WTERMSIG(status));
        if ended_by.is_some() {
            // Its pid may be another process by now.
            std::mem::forget(self);
        }
        ended_by
    }
}

impl Drop for ForkedChild {
    fn drop(&mut self) {
        let _ = kill(self.0, nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

extern "C" fn handler_of_the_program(_: libc::c_int) {}

#[test]
#[cfg_attr(miri, ignore = "Miri cannot fork")]
fn a_signal_does_in_a_forked_child_what_it_does_without_a_guard() {
    // Signals that no other test uses, and what they did before.
    let first = libc::SIGRTMAX() - 8;
    let handler = handler_of_the_program as extern "C" fn(libc::c_int) as libc::sighandler_t;
    let cases = [(libc::SIG_DFL, true), (libc::SIG_IGN, false), (handler, false)];
    for (signal, (before, dies)) in (first..).zip(cases) {
        let signal = Signal::from_raw(signal);
        // SAFETY: the action is one of the constants, or a function of the right type that does nothing.
        unsafe { libc::signal(signal.as_raw(), before) };
        let guard = super::install(&[signal]).unwrap();
        let ended_by = ForkedChild::new().ended_by(signal);
        assert_eq!(ended_by, dies.then_some(signal.as_raw()), "{signal}");
        drop(guard);
    }
}
