//! The slow look around, taken at a stop: what the machine, the cgroup and the processes looked
//! like.
//!
//! An image may hold no shell, `ps` or `pstree`, so this reads `/proc`, `/sys/fs/cgroup` and
//! `/dev/kmsg` itself. It starts nothing, and a file that is missing or may not be read costs its
//! own line only, which then says why. On other Unix than Linux there is nothing of all that.
//!
//! Reading `/proc/PID/cmdline` blocks for as long as another thread holds that process's memory
//! map locked (moby#15204), which no flag prevents. So the sections that cannot block come first,
//! each flushed as it ends, and command lines are read last and only for the processes shown. Who
//! runs this gives it a process of its own and a time limit; a look that was cut off lacks its
//! last line, and what it got to stands.

mod cgroup;
mod clock;
mod kmsg;
mod list;
mod load;
mod one;
mod process;
mod shown;
mod source;
mod tree;

pub(crate) use kmsg::killed_for_memory;

use crate::os;
use clock::Clocks;
use list::List;
use source::Source;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How many processes of the machine are shown unless told.
pub const DEFAULT_TOP: usize = 60;

const PROC: &str = "/proc";

/// A look around, from the view of one process.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use forensics_core::diagnostic::Diagnostic;
/// Diagnostic::of(4100).heading("signal=SIGTERM cause=operator").write_to(&mut std::io::stdout())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is read until `write_to` is called"]
pub struct Diagnostic {
    pid: i32,
    heading: Vec<String>,
    top: usize,
    proc: PathBuf,
    cgroup: PathBuf,
    kmsg: PathBuf,
}

impl Diagnostic {
    /// A look at process `pid`, its cgroup and its descendants, and at the machine around them.
    pub fn of(pid: i32) -> Self {
        Self {
            pid,
            heading: Vec::new(),
            top: DEFAULT_TOP,
            proc: PROC.into(),
            cgroup: "/sys/fs/cgroup".into(),
            kmsg: "/dev/kmsg".into(),
        }
    }

    /// Adds a line below the date, such as the context line. It is written as it stands: what
    /// comes from other processes must have been escaped.
    pub fn heading(mut self, line: impl Into<String>) -> Self {
        self.heading.push(line.into());
        self
    }

    /// Shows so many of the machine's processes, the busiest ones, with their nearest ancestors.
    /// [`DEFAULT_TOP`] unless told.
    pub fn top(mut self, processes: usize) -> Self {
        self.top = processes;
        self
    }

    /// Reads processes, load and memory from here instead of `/proc`.
    pub fn proc_root(mut self, proc: impl Into<PathBuf>) -> Self {
        self.proc = proc.into();
        self
    }

    /// Looks around and writes what it sees, a fact or a process a line. The last line starts
    /// with `--- end of diagnostic`; without it the text is not complete.
    ///
    /// Takes some 20 µs a process of the machine and half a µs a line of the kernel's log, but may block
    /// without limit in a read (see the [module](self)). Each row of a process is handed on before
    /// its command line is read, so `out` should be a file: a line-buffered stdout writes twice.
    ///
    /// # Errors
    /// Only where `out` fails. What cannot be read is said in the text.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        self.write(out)
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let started = Instant::now();
        let clocks = Clocks::now();
        let source = &mut Source::new();
        let out: &mut dyn Write = &mut BufWriter::new(out);

        writeln!(out, "--- date\n{clocks}")?;
        if !self.heading.is_empty() {
            writeln!(out, "--- context")?;
            self.heading.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        out.flush()?;
        if os::HAS_PROC || self.proc != Path::new(PROC) {
            self.write_system(out, source, &clocks)?;
        } else {
            writeln!(out, "--- system\nnothing to read: it has no /proc as Linux has it")?;
        }
        writeln!(out, "--- end of diagnostic ({} ms)", started.elapsed().as_millis())?;
        out.flush()
    }

    fn write_system(
        &self,
        out: &mut dyn Write,
        source: &mut Source,
        clocks: &Clocks,
    ) -> io::Result<()> {
        process::write(out, source, &self.proc, self.pid)?;
        load::write(out, source, &self.proc)?;
        cgroup::write(out, source, &self.proc, &self.cgroup, self.pid)?;
        kmsg::write(out, source, &self.kmsg, clocks.monotonic)?;

        match List::read(source, &self.proc, clocks.since_boot.unwrap_or_default()) {
            Ok(list) => {
                list.write_subtree(out, source, self.pid)?;
                list.write_busiest(out, source, self.top)?;
            }
            Err(e) => writeln!(out, "--- processes\nnot readable ({})", shown::why(&e))?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
