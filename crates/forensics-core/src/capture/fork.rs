//! Keeps a file out of forked children.
//!
//! A lock by flock(2) belongs to the open file. A child that was forked and never executes another
//! program shares the file, and would keep the lock after its parent has ended. `O_CLOEXEC` does not
//! help, because it acts at `execve`. So a handler of pthread_atfork(3) replaces the file by
//! `/dev/null` in each child. It is replaced and not closed, because the child may still use and close
//! the descriptor, which must not belong to another file by then.
//!
//! A child that is made by clone(2) or `_Fork` without this handler still shares the file.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc::c_int;

use super::raw;

/// How many files can be kept out at the same time: one for each guard with a record.
const FILES: usize = 16;

const NONE: c_int = -1;

static KEPT: [AtomicI32; FILES] = [const { AtomicI32::new(NONE) }; FILES];
/// `/dev/null`. Never closed.
static NOTHING: AtomicI32 = AtomicI32::new(NONE);

/// Keeps a file out of forked children until it is dropped. It must be dropped before the file.
#[derive(Debug)]
pub(crate) struct NotInChildren(Option<&'static AtomicI32>);

impl NotInChildren {
    /// If there are already many such files, or `/dev/null` cannot be opened, children share it.
    pub(crate) fn keep(file: BorrowedFd<'_>) -> Self {
        static PREPARED: Once = Once::new();
        PREPARED.call_once(|| {
            let nothing = File::options().write(true).open("/dev/null");
            NOTHING.store(nothing.map_or(NONE, IntoRawFd::into_raw_fd), Ordering::Release);
            raw::at_fork(in_child);
        });
        let claim = |slot: &&AtomicI32| {
            slot.compare_exchange(NONE, file.as_raw_fd(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        Self(KEPT.iter().find(claim))
    }
}

impl Drop for NotInChildren {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            slot.store(NONE, Ordering::Release);
        }
    }
}

/// Replaces each kept file in the new child. Async-signal-safe.
extern "C" fn in_child() {
    let nothing = NOTHING.load(Ordering::Acquire);
    let kept = KEPT.iter().map(|slot| slot.load(Ordering::Acquire));
    for fd in kept.filter(|&fd| fd != NONE && nothing != NONE) {
        raw::replace(fd, nothing);
    }
}
