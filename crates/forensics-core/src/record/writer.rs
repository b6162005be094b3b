//! Writes the record of the own run.
//!
//! An event is serialised first and then handed to the kernel by one `write(2)` on a descriptor
//! opened with `O_APPEND`. What was written survives the process, however it dies; it survives
//! the machine only after [`Recorder::sync`]. No lock is held across a write, so that a thread
//! that is stuck cannot keep another one's last words back.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::entry::{MAX_LINE, line};
use super::event::{Event, RunStarted};
use super::folder::{self, FolderError};
use crate::clock::{Utc, mono_us};

/// How many names [`Recorder::create`] tries. Each has a later time in it, so that even a second
/// one is hardly ever needed.
const ATTEMPTS: usize = 8;

/// Why an event did not get into the record. None of these may stop a teardown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The folder is of no use.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The file could not be made.
    #[error("cannot create the record {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be locked: its file system has no locks.
    #[error("cannot lock the record {}: {source}; name a folder on a local file system",
        path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An event that has no JSON, because a map of its has keys that are no strings.
    #[error("cannot write a {event} event as JSON: {source}")]
    Encode {
        /// The event's name.
        event: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An event beyond [`MAX_LINE`], which no reader would take.
    #[error("a {event} event of {len} bytes is too long for the record; at most {MAX_LINE}")]
    TooLong {
        /// The event's name.
        event: String,
        /// The length of its line.
        len: usize,
    },
    /// Nothing of the line was written.
    #[error("cannot write to the record {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The line was written in part, as on a disk that is nearly full. Readers pass over it, and
    /// the next event begins on a line of its own.
    #[error("wrote only {written} of {len} bytes to the record {}; is the disk full?",
        path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// The bytes that were written.
        written: usize,
        /// The bytes that were to be written.
        len: usize,
    },
    /// The data is written, but not known to be on the disk.
    #[error("cannot sync the record {}: {source}", path.display())]
    Sync {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The record of the own run, open and locked for as long as this lives.
///
/// The lock (`flock(2)`) belongs to the open file, not to the process. A child that executes
/// another program, as every child of `std::process::Command` does, loses the file at its
/// `execve` (`O_CLOEXEC`), so a diagnostic that outlives the run does not make it look alive. A
/// child that only forks shares the file, and keeps the lock until it ends.
///
/// A process under `RLIMIT_FSIZE` gets `SIGXFSZ` for a write beyond it, which kills unless it is
/// ignored: a limit below some hundred kilobytes and a record do not go together.
#[derive(Debug)]
#[must_use = "dropping it releases the lock, by which a reader tells that the run is alive"]
pub struct Recorder {
    file: File,
    path: PathBuf,
    /// Whether the file may end within a line, so that the next one needs a newline first.
    torn: AtomicBool,
}

impl Recorder {
    /// Begins the record of this run in the folder `dir`, with `start` as its first line.
    ///
    /// The folder is made where it is not there, and its parents too, with mode 0700; the file
    /// has mode 0600 and a name that no other run has. Old records stay: see [`super::prune`].
    ///
    /// # Errors
    /// Where the folder cannot be made or is not safe from other users, and where the file
    /// cannot be made, locked, or take its first line. No file is left then.
    pub fn create(dir: &Path, start: RunStarted) -> Result<Self, RecordError> {
        let folder = folder::create(dir)?;
        let pid = start.pid;
        let start = Event::RunStarted(start);
        for _ in 0..ATTEMPTS {
            let Some(recorder) = Self::claim(&folder, dir, pid)? else { continue };
            recorder.record(&start).inspect_err(|_| remove(&recorder.path))?;
            return Ok(recorder);
        }
        let source = io::Error::other("every new file was taken by somebody else at once");
        Err(RecordError::Create { path: dir.to_owned(), source })
    }

    /// Makes a new file and locks it; nothing, where somebody else was faster.
    fn claim(folder: &OwnedFd, dir: &Path, pid: u32) -> Result<Option<Self>, RecordError> {
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_EXCL
            | OFlag::O_APPEND
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let name = folder::name(Utc::now(), pid);
        let path = dir.join(&name);
        let file = match openat(folder, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => File::from(file),
            Err(Errno::EEXIST) => return Ok(None),
            Err(errno) => return Err(RecordError::Create { path, source: errno.into() }),
        };
        // Until it is locked it looks like a dead run's: a reader may hold a lock of its own on
        // it for an instant, and a prune may have removed it.
        match file.try_lock() {
            Ok(()) if file.metadata().is_ok_and(|meta| meta.nlink() > 0) => {
                Ok(Some(Self { file, path, torn: AtomicBool::new(false) }))
            }
            Ok(()) | Err(TryLockError::WouldBlock) => {
                remove(&path);
                Ok(None)
            }
            Err(TryLockError::Error(source)) => {
                remove(&path);
                Err(RecordError::Lock { path, source })
            }
        }
    }

    /// Appends an event, stamped with the time of this call.
    ///
    /// May be called from any number of threads at once; their lines do not mix. Returns when the
    /// kernel has the line. That is a copy into the page cache and takes microseconds; but a disk
    /// that is far behind, a frozen file system or a network one whose server is gone can hold
    /// any `write(2)` for long, so a teardown must not wait for this call without a bound.
    ///
    /// # Errors
    /// Where the line was not written, or only in part. The record stays usable.
    pub fn record(&self, event: &Event) -> Result<(), RecordError> {
        let mut line = line(Utc::now(), mono_us(), event)
            .map_err(|source| RecordError::Encode { event: event.name().to_owned(), source })?;
        if line.len() > MAX_LINE {
            return Err(RecordError::TooLong { event: event.name().to_owned(), len: line.len() });
        }
        let torn = self.torn.swap(false, Ordering::Relaxed);
        if torn {
            line.insert(0, b'\n');
        }
        let written = loop {
            match (&self.file).write(&line) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        match written {
            Ok(written) if written == line.len() => Ok(()),
            Ok(written) => {
                self.torn.store(torn || written > 0, Ordering::Relaxed);
                Err(RecordError::Short { path: self.path.clone(), written, len: line.len() })
            }
            Err(source) => {
                self.torn.fetch_or(torn, Ordering::Relaxed);
                Err(RecordError::Write { path: self.path.clone(), source })
            }
        }
    }

    /// Waits until all that was written is on the disk (`fdatasync(2)`), so that it survives a
    /// power loss. Takes milliseconds, on a busy disk seconds: not for an async thread.
    ///
    /// # Errors
    /// Where the disk failed. Data the kernel could not write may then be lost, though a later
    /// call succeeds.
    pub fn sync(&self) -> Result<(), RecordError> {
        self.file
            .sync_data()
            .map_err(|source| RecordError::Sync { path: self.path.clone(), source })
    }

    /// Where the record is: the folder as it was given, and the file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes an empty record away, which would only be in the way of the one before it.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}
