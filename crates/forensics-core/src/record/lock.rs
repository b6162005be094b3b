//! The lock on a record's file, which its run holds while it lives: `flock(2)`.
//!
//! `std` has these functions since Rust 1.89. This crate supports 1.88.

use std::fs::File;
use std::io;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Locks the file until it is closed. Does not wait.
///
/// # Errors
/// `WouldBlock` if the file is locked by another process.
pub(super) fn lock(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::NonBlockingLockExclusive)?)
}

/// Whether the run that writes this record is alive: whether its lock is held.
///
/// This tries a shared lock, so that two readers do not mistake each other for the run.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Gives the lock back. If this fails, the lock ends when the file is closed.
pub(super) fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
}
