//! What the host says about a run now; the post-mortem needs it next to the record.

use std::fs::File;
use std::path::Path;

use super::folder::{is_locked, is_running};
use crate::clock::{boot_id, mono_us};

/// The state of the host at the time of the post-mortem. A fact that is `None` is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostState {
    /// Whether the record's lock is held.
    pub running: bool,
    /// The id of the present boot.
    pub boot_id: Option<String>,
    /// `CLOCK_MONOTONIC` now, in microseconds: the run had ended by then.
    pub mono_us: Option<u64>,
    /// The present `oom_kill` of the cgroup whose counter the run recorded.
    pub oom_kill: Option<u64>,
    /// The inode of that cgroup's folder. If it is not the recorded one, this is a new cgroup with a
    /// counter of its own, which proves nothing.
    pub cgroup_inode: Option<u64>,
    /// The line of the kernel log that says that this run's process was OOM-killed, if there is one
    /// and the log can be read.
    pub oom_line: Option<String>,
}

impl HostState {
    /// The lock of the record at `path`, the boot and the clock. A record that cannot be opened
    /// counts as not running. The facts about memory are left to the caller.
    pub fn snapshot(path: &Path) -> Self {
        Self::with_lock(is_running(path).unwrap_or(false))
    }

    /// The same for an open file.
    pub(super) fn of_file(file: &File) -> Self {
        let host = Self::with_lock(is_locked(file).unwrap_or(false));
        // So that a run that is about to lock the file does not find it locked while we read. If
        // this fails, the lock ends when the file is closed.
        let _ = file.unlock();
        host
    }

    fn with_lock(running: bool) -> Self {
        Self { running, boot_id: boot_id(), mono_us: Some(mono_us()), ..Self::default() }
    }
}
