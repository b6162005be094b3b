//! Writes the record of this run.
//!
//! An event is serialised and then handed to the kernel by one `write(2)` on a descriptor opened
//! with `O_APPEND`. The data then survives any death of the process. It survives a crash of the
//! machine only after [`Recorder::sync`]. No lock is held during a write, so a thread that blocks
//! in one does not keep the others from writing.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::entry::line;
use super::folder;
use super::{Event, RunStarted, Utc};
use crate::access::AccessError;
use crate::capture::NotInChildren;
use crate::clock::mono_us;
use crate::os;
use crate::secure_fs::Folder;

/// How many names [`Recorder::create`] tries. Each contains a later time, so a second one is rarely
/// needed.
const ATTEMPTS: usize = 8;

/// How many bytes of the disk are reserved at the start: ten times the record of a simple run.
const SET_ASIDE: i64 = 32 << 10;

/// Why an event was not recorded. None of these errors may stop a teardown.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] AccessError),
    /// A system call failed. A failed write has written nothing.
    #[error("cannot {action} the record {}", path.display())]
    System {
        /// What was tried: `create`, `write to` or `sync`. If `sync` failed, the data is written
        /// but may not be on the disk.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file could not be locked: its file system has no locks.
    #[error("cannot lock the record {} (name a folder on a local file system)", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The event has no JSON form.
    #[error("cannot write the event as JSON")]
    Encode(#[from] serde_json::Error),
    /// Only a part of the line was written, for example because the disk is nearly full. Readers
    /// skip it, and the next event begins on a new line.
    #[error("wrote only {written} of {len} bytes to the record {}; is the disk full?",
        path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// How many bytes were written.
        written: usize,
        /// The length of the line.
        len: usize,
    },
}

/// The record of this run, open and locked for as long as this lives.
///
/// The lock (`flock(2)`) belongs to the open file, not to the process. A child that executes another
/// program, as every child of `std::process::Command` does, loses the file at its `execve`
/// (`O_CLOEXEC`), so a diagnostic that outlives the run does not make it look alive. A child that only
/// forks has `/dev/null` in place of the file (`capture::fork`).
///
/// A write beyond `RLIMIT_FSIZE` raises `SIGXFSZ`, which kills the process unless it is ignored. Do not
/// set that limit below some hundred kilobytes for a service that writes a record.
#[derive(Debug)]
#[must_use = "dropping it releases the lock that shows that the run is alive"]
pub struct Recorder {
    /// Before `file`, because it must be dropped first.
    _not_in_children: NotInChildren,
    file: File,
    path: PathBuf,
    /// Whether the file may end in the middle of a line, so that the next one needs a newline first.
    torn: AtomicBool,
}

impl Recorder {
    /// Begins the record of this run in the folder `dir`, with `start` as its first line.
    ///
    /// A folder that does not exist is created with mode 0700, and so are its parents. The file has
    /// mode 0600 and a unique name. On Linux, 32 KiB are reserved on the disk if the file system
    /// supports it (`fallocate(2)`). Old records are kept; see [`super::prune`].
    ///
    /// # Errors
    /// If the folder cannot be created or is not safe from other users, or if the file cannot be
    /// created, locked, or written. No file remains then.
    pub fn create(dir: &Path, start: RunStarted) -> Result<Self, RecordError> {
        let folder = Folder::create(dir)?;
        let pid = start.pid;
        let start = Event::RunStarted(start);
        for _ in 0..ATTEMPTS {
            let name = folder::name(Utc::now(), pid);
            let Some(recorder) = Self::claim(&folder, &name)? else { continue };
            // So that the end can be recorded even if the disk is full by then.
            os::set_aside(&recorder.file, SET_ASIDE);
            recorder.record(&start).inspect_err(|_| remove(&folder, &name))?;
            return Ok(recorder);
        }
        let source = io::Error::other("another process locked every new file first");
        Err(RecordError::System { action: "create", path: dir.to_owned(), source })
    }

    /// Creates a new file and locks it; `None` if another process was faster.
    fn claim(folder: &Folder, name: &str) -> Result<Option<Self>, RecordError> {
        let path = folder.path().join(name);
        let file = match folder.create_new(Path::new(name)) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(source) => return Err(RecordError::System { action: "create", path, source }),
        };
        // Before it is locked, so that no child can share the lock.
        let _not_in_children = NotInChildren::keep(file.as_fd());
        // Until it is locked, it looks like the record of a dead run. A reader may lock it for a
        // moment, and `prune` may remove it.
        let locked = file.try_lock();
        if locked.is_ok() && file.metadata().is_ok_and(|meta| meta.nlink() > 0) {
            let torn = AtomicBool::new(false);
            return Ok(Some(Self { _not_in_children, file, path, torn }));
        }
        remove(folder, name);
        match locked {
            Err(TryLockError::Error(source)) => Err(RecordError::Lock { path, source }),
            _ => Ok(None),
        }
    }

    /// Appends an event, stamped with the time of this call.
    ///
    /// Any number of threads may call this at once; their lines do not mix. It returns when the
    /// kernel has the line, which is usually a copy into the page cache and takes microseconds. But
    /// an overloaded disk, a frozen file system, or a network file system without its server can
    /// block `write(2)` for a long time, so a teardown must not wait for this call without a limit.
    ///
    /// # Errors
    /// If the line was not written, or only a part of it. The record stays usable. A line that
    /// another thread writes right after an incomplete one may be lost with it.
    pub fn record(&self, event: &Event) -> Result<(), RecordError> {
        self.record_at(Utc::now(), mono_us(), event)
    }

    /// The same for an event that happened earlier: at `ts`, which is `mono_us` on `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn record_at(&self, ts: Utc, mono_us: u64, event: &Event) -> Result<(), RecordError> {
        let mut line = line(ts, mono_us, event)?;
        // Relaxed: the flag publishes no other memory.
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
                Err(self.failed("write to", source))
            }
        }
    }

    /// Waits until everything written is on the disk (`fdatasync(2)`), so that it survives a power
    /// loss. This takes milliseconds, on a busy disk seconds: do not call it on an async thread.
    ///
    /// # Errors
    /// If the disk failed. Data that the kernel could not write may then be lost, even if a later
    /// call succeeds.
    pub fn sync(&self) -> Result<(), RecordError> {
        self.file.sync_data().map_err(|source| self.failed("sync", source))
    }

    /// The path of the record: the folder as it was passed in, and the file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, action: &'static str, source: io::Error) -> RecordError {
        RecordError::System { action, path: self.path.clone(), source }
    }
}

/// Removes an empty record, which would hide the one before it from a reader of the last run.
fn remove(folder: &Folder, name: &str) {
    let _ = folder.remove(Path::new(name));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
    use nix::sys::stat::Mode;
    use nix::unistd::pipe;

    use super::super::{
        Entry, MAX_LINE, PhaseFinished, PhaseOutcome, PhaseProgress, PhaseStarted, PostMortem,
        Record, RunOutcome, runs,
    };
    use super::*;
    use crate::escape::error_chain;

    fn recorder(file: impl Into<File>) -> Recorder {
        let file = file.into();
        Recorder {
            _not_in_children: NotInChildren::keep(file.as_fd()),
            file,
            path: "/run/gateway/x.jsonl".into(),
            torn: AtomicBool::new(false),
        }
    }

    fn phase(name: impl Into<String>) -> Event {
        Event::PhaseStarted(PhaseStarted::new(name, 0))
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri cannot fork")]
    fn a_forked_child_does_not_keep_the_lock() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("shutdown");
        let recorder = Recorder::create(&dir, RunStarted::new("gateway", 4100)).unwrap();
        let path = recorder.path().to_owned();
        let child = crate::capture::tests::ForkedChild::new();
        let is_locked = || folder::is_locked(&File::open(&path).unwrap()).unwrap();
        assert!(is_locked());
        drop(recorder);
        // A process that another test starts shares the file until its execve.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while is_locked() {
            assert!(std::time::Instant::now() < until, "it is still locked");
            std::thread::yield_now();
        }
        assert!(child.is_alive());
    }

    #[test]
    fn only_the_owner_can_read_a_record_and_every_event_has_a_line() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("records");
        let run = Recorder::create(&dir, RunStarted::new("gateway", 4100)).unwrap();
        assert_eq!(fs::metadata(run.path()).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(runs(&dir).unwrap(), [run.path()]);
        run.record(&phase("drain")).unwrap();
        run.sync().unwrap();
        let (read, host) = Record::read_with_host(run.path()).unwrap();
        assert!(host.running);
        assert_eq!(read.start, RunStarted::new("gateway", 4100));
        assert_eq!(read.entries[1].event, phase("drain"));
        assert!(read.entries[0].mono_us <= read.entries[1].mono_us);
        assert_eq!((read.entries.len(), read.corrupt, read.torn, read.newer), (2, 0, false, false));
        assert_eq!(PostMortem::of(run.path()).unwrap().outcome, RunOutcome::Running);

        // Unlocks it, as the end of the process would. Closing is not enough, because a child that
        // another test just forked may share it.
        run.file.unlock().unwrap();
        assert_eq!(PostMortem::of(run.path()).unwrap().outcome, RunOutcome::KilledInPhase);
    }

    #[test]
    fn data_appended_by_another_process_is_not_overwritten() {
        let tmp = tempfile::tempdir().unwrap();
        let run = Recorder::create(&tmp.path().join("r"), RunStarted::new("gateway", 1)).unwrap();
        let mut other = fs::OpenOptions::new().append(true).open(run.path()).unwrap();
        other.write_all(b"a note\n").unwrap();
        run.record(&phase("drain")).unwrap();
        let record = Record::read(run.path()).unwrap();
        assert_eq!((record.entries.len(), record.corrupt), (2, 1));
    }

    #[test]
    fn runs_with_the_same_folder_and_pid_get_separate_files() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("records");
        let begin = || Recorder::create(&dir, RunStarted::new("gateway", 4100)).unwrap();
        let all: Vec<_> = (0..20).map(|_| begin()).collect();
        let paths: Vec<_> = all.iter().map(|run| run.path().to_owned()).collect();
        assert_eq!(runs(&dir).unwrap(), paths);
    }

    #[test]
    fn a_full_disk_is_an_error_and_loses_only_that_event() {
        let full = open("/dev/full", OFlag::O_WRONLY | OFlag::O_APPEND, Mode::empty()).unwrap();
        let error = recorder(full).record(&phase("drain")).unwrap_err();
        assert_eq!(
            error_chain(&error),
            "cannot write to the record /run/gateway/x.jsonl: No space left on device (os error 28)"
        );
    }

    #[test]
    fn after_a_short_write_the_next_event_has_its_own_line() {
        // A full pipe gives a short write like a full disk, but can be emptied again.
        let (reader, writer) = pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let size = usize::try_from(fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap()).unwrap();
        let run = recorder(writer);
        let long = phase("x".repeat(2 * size));
        let error = run.record(&long).unwrap_err();
        assert!(matches!(error, RecordError::Short { written, .. } if written == size), "{error}");
        // Now nothing fits at all. The writer must still remember the torn line.
        assert!(matches!(
            run.record(&phase("lost")),
            Err(RecordError::System { action: "write to", .. })
        ));

        let mut reader = File::from(reader);
        let mut written = vec![0; size];
        reader.read_exact(&mut written).unwrap();
        run.record(&phase("drain")).unwrap();
        run.record(&phase("db_close")).unwrap();
        drop(run);
        reader.read_to_end(&mut written).unwrap();
        let lines: Vec<_> = written.split(|&byte| byte == b'\n').collect();
        assert!(Entry::parse(lines[0]).is_err());
        assert_eq!(Entry::parse(lines[1]).unwrap().event, phase("drain"));
        assert_eq!(Entry::parse(lines[2]).unwrap().event, phase("db_close"));
        assert_eq!(lines[3..], [b""]);
    }

    #[test]
    fn an_event_that_is_too_large_for_readers_is_cut() {
        let tmp = tempfile::tempdir().unwrap();
        let start = RunStarted::new("x".repeat(MAX_LINE), 1);
        let run = Recorder::create(&tmp.path().join("r"), start).unwrap();
        let mut failed = PhaseFinished::new("drain", PhaseOutcome::Failed, 1, 1);
        failed.error = Some("\u{9b}\n".repeat(MAX_LINE));
        run.record(&Event::PhaseFinished(failed)).unwrap();
        let mut deep = serde_json::json!("x");
        for _ in 0..1000 {
            deep = serde_json::json!([deep]);
        }
        let values = serde_json::Map::from_iter([("deep".to_owned(), deep)]);
        run.record(&Event::PhaseProgress(PhaseProgress::new("db", values, 2))).unwrap();
        // The longest line that fits.
        let fits = MAX_LINE - line(Utc::now(), mono_us(), &phase("")).unwrap().len();
        run.record(&phase("x".repeat(fits - 20))).unwrap();

        let record = Record::read(run.path()).unwrap();
        assert_eq!((record.entries.len(), record.corrupt), (4, 0));
        assert!(record.start.service.ends_with("x…"));
        let Event::PhaseFinished(failed) = &record.entries[1].event else { panic!("{record:?}") };
        assert_eq!((failed.phase.as_str(), failed.outcome), ("drain", PhaseOutcome::Failed));
        assert!(failed.error.as_deref().unwrap().ends_with('…'));
        let Event::PhaseStarted(long) = &record.entries[3].event else { panic!("{record:?}") };
        assert_eq!(long.phase.len(), fits - 20);
    }

    #[test]
    fn threads_write_whole_lines_while_a_reader_reads() {
        const THREADS: usize = 4;
        const EVENTS: usize = 500;
        let tmp = tempfile::tempdir().unwrap();
        let run = Recorder::create(&tmp.path().join("r"), RunStarted::new("gateway", 1)).unwrap();
        let read = || Record::read(run.path()).unwrap();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let run = &run;
                    scope.spawn(move || {
                        for n in 0..EVENTS {
                            let values = serde_json::Map::from_iter([(
                                "text".to_owned(),
                                "x".repeat(n * 7 % 900).into(),
                            )]);
                            let phase = format!("{thread}");
                            let event = PhaseProgress::new(phase, values, n as u64);
                            run.record(&Event::PhaseProgress(event)).unwrap();
                        }
                    })
                })
                .collect();
            let mut seen = 0;
            while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let record = read();
                assert!(record.entries.len() >= seen);
                assert_eq!(record.corrupt, 0);
                seen = record.entries.len();
            }
        });
        let record = read();
        assert_eq!((record.entries.len(), record.corrupt), (1 + THREADS * EVENTS, 0));
        for thread in 0..THREADS {
            let offsets = record.entries.iter().filter_map(|entry| match &entry.event {
                Event::PhaseProgress(event) if event.phase == thread.to_string() => {
                    Some(event.offset_us)
                }
                _ => None,
            });
            assert!(offsets.eq(0..EVENTS as u64));
        }
    }
}
