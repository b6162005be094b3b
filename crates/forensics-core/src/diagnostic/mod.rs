//! The diagnostic: what the machine, the cgroup and the processes look like at a stop.
//!
//! An image may have no shell, `ps` or `pstree`, so this reads `/proc`, `/sys/fs/cgroup` and
//! `/dev/kmsg` itself. If a file is missing or may not be read, only its own line is missing, and
//! says why.
//!
//! Any of these files can block forever. lxcfs serves `/proc/loadavg` and others through
//! FUSE, and reading `/proc/PID/cmdline` waits while another thread holds that process's memory map
//! locked (moby#15204). A blocked thread cannot be ended. So every file is read on a thread that
//! the caller starts. A file that does not answer within a second is named, and the rest is still
//! shown. All such waits together take some four seconds at most. This crate starts no thread
//! itself.
//!
//! On other Unix than Linux there is nothing to read.

#[cfg_attr(all(target_os = "linux", not(forensics_portable)), path = "system/mod.rs")]
#[cfg_attr(not(all(target_os = "linux", not(forensics_portable))), path = "portable.rs")]
mod system;

pub(crate) use system::oom_log;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::clock::Utc;
use crate::os;

/// How many of the machine's processes are shown, the busiest ones, with their nearest ancestors.
const DEFAULT_TOP: usize = 60;

/// Reads that may block, for a separate thread.
pub type Work = Box<dyn FnOnce() + Send>;

/// A diagnostic from the point of view of one process.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use std::thread;
///
/// use forensics_core::diagnostic::Diagnostic;
///
/// Diagnostic::of(4100)
///     .write_to(&mut std::io::stdout(), |work| thread::Builder::new().spawn(work).map(drop))
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is read until `write_to` is called"]
// The portable build reads nothing, so it does not use the fields.
#[cfg_attr(not(all(target_os = "linux", not(forensics_portable))), allow(dead_code))]
pub struct Diagnostic {
    pid: i32,
    top: usize,
    proc: PathBuf,
    cgroup: PathBuf,
    kmsg: PathBuf,
}

impl Diagnostic {
    /// Returns a diagnostic of the process `pid`, its cgroup, its descendants and the machine.
    pub fn of(pid: i32) -> Self {
        Self {
            pid,
            top: DEFAULT_TOP,
            proc: "/proc".into(),
            cgroup: "/sys/fs/cgroup".into(),
            kmsg: "/dev/kmsg".into(),
        }
    }

    /// Writes the diagnostic, one fact or process per line. The last line starts with
    /// `--- end of diagnostic`. Without that line the text is not complete.
    ///
    /// `start` starts a thread for the reads it is given, and does not wait for it. It is called
    /// once per section, and again each time a read blocks. If no thread can be started, the files
    /// are read on this thread, which then blocks if one of them does.
    ///
    /// # Errors
    /// Only if `out` fails. The text says which files cannot be read.
    pub fn write_to(
        &self,
        out: &mut dyn Write,
        mut start: impl FnMut(Work) -> io::Result<()>,
    ) -> io::Result<()> {
        let started = Instant::now();
        let out = &mut BufWriter::new(out);
        write!(out, "--- date\n{}", Utc::now())?;
        if let Some(up) = os::since_boot() {
            write!(out, ", up {}", elapsed(up))?;
        }
        writeln!(out)?;
        out.flush()?;
        system::write(self, out, &mut start)?;
        writeln!(out, "--- end of diagnostic ({} ms)", started.elapsed().as_millis())?;
        out.flush()
    }
}

/// Elapsed time in the format of `ps -o etime`: `[[days-]hours:]minutes:seconds`.
fn elapsed(time: Duration) -> String {
    let s = time.as_secs();
    let (days, hours, minutes, seconds) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes:02}:{seconds:02}"),
        (0, _) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests;
