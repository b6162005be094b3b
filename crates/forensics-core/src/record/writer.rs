//! Writes the record of this run.
//!
//! An event is serialised and then handed to the kernel by one `write(2)` on a descriptor opened
//! with `O_APPEND`. The data then survives any death of the process. It survives a crash of the
//! machine only after [`Recorder::sync`].
//!
//! Something else may remove, rename, replace, truncate or hide the file while the service runs. So
//! each write first looks for it, and writes it again if necessary.

use std::fmt::{self, Display};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::line;
use super::folder;
use super::identity::lock_id;
use super::lock::lock;
use super::{Event, RunStarted, Utc};
use crate::access::AccessError;
use crate::capture::NotInChildren;
use crate::clock::mono_us;
use crate::os;
use crate::secure_fs::Folder;

/// How many names [`Recorder::create`] tries. Each contains a later time, so a second one is rarely
/// needed.
const ATTEMPTS: usize = 8;

/// How often a record is written again. More often than that, something keeps removing it.
const MAX_RESTORATIONS: u32 = 8;

/// How many bytes of the disk are reserved at the start: ten times the record of a simple run.
const RESERVED_BYTES: i64 = 32 << 10;

/// Why an event was not recorded. None of these errors may stop a teardown.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] AccessError),
    /// A system call failed. A failed write has written nothing.
    #[error("cannot {action} the record {}", path.display())]
    System {
        /// What was tried: `create`, `locate`, `write to`, `write again` or `sync`. If `sync` failed, the data is written
        /// but may not be on the disk.
        action: &'static str,
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

/// What happened to the file of a record while its run wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It was removed or renamed, or its folder was, or another file system hides the folder.
    Gone,
    /// Another file has its name.
    Replaced,
    /// It was truncated, for example by the `copytruncate` of logrotate(8).
    Truncated,
}

impl Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::Gone => "it was removed, renamed or unmounted",
            Loss::Replaced => "another file had replaced it",
            Loss::Truncated => "it was truncated",
        })
    }
}

/// The record of this run, open and locked for as long as this lives.
///
/// The lock (`flock(2)`) belongs to the open file, not to the process. A child that executes another
/// program, as every child of `std::process::Command` does, loses the file at its `execve`
/// (`O_CLOEXEC`), so a diagnostic that outlives the run does not make it look alive. A child that only
/// forks has `/dev/null` in place of the file (`capture::fork`). If the file system has no locks, the
/// record is written without one.
///
/// A write beyond `RLIMIT_FSIZE` raises `SIGXFSZ`, which kills the process unless it is ignored. Do not
/// set that limit below some hundred kilobytes for a service that writes a record.
#[derive(Debug)]
#[must_use = "dropping it releases the lock that shows that the run is alive"]
pub struct Recorder {
    path: PathBuf,
    /// The folder as an absolute path, because the program may change its working directory.
    folder: PathBuf,
    name: PathBuf,
    /// Our root directory. After a chroot(2), the absolute path leads to another folder.
    root: Option<FileId>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The file at the path of the record. After a [`Loss`] also the earlier files that still have a
    /// name somewhere, because their folder may get its old name back, or be mounted again.
    files: Vec<Output>,
    /// The first line: its time and its event.
    first: (Utc, u64, RunStarted),
    /// The other lines, in case the record must be written again. Progress is left out, because the
    /// end of a phase contains it.
    lines: Vec<u8>,
    /// How often the record may be written again.
    restorations: u32,
}

/// A file that we write to.
#[derive(Debug)]
struct Output {
    /// Before `file`, because it must be dropped first.
    _not_in_children: NotInChildren,
    file: Arc<File>,
    /// How many bytes we have written.
    length: u64,
    /// Whether it may end in the middle of a line, so that the next one needs a newline first.
    is_torn: bool,
}

impl Output {
    fn new(file: File) -> Self {
        let _not_in_children = NotInChildren::keep(file.as_fd());
        Self { _not_in_children, file: Arc::new(file), length: 0, is_torn: false }
    }

    /// Appends a line with one write(2).
    fn write(&mut self, line: &[u8], path: &Path) -> Result<(), RecordError> {
        let newline: &[u8] = if self.is_torn { b"\n" } else { b"" };
        let line = [newline, line].concat();
        let written = loop {
            match (&*self.file).write(&line) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|source| failed("write to", path, source))?,
            }
        };
        self.length += written as u64;
        if written < line.len() {
            self.is_torn |= written > 0;
            return Err(RecordError::Short { path: path.to_owned(), written, len: line.len() });
        }
        self.is_torn = false;
        Ok(())
    }
}

/// Device and inode.
type FileId = (u64, u64);

fn file_id(meta: &Metadata) -> FileId {
    (meta.dev(), meta.ino())
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
    /// created or written. No file remains then.
    pub fn create(dir: &Path, start: RunStarted) -> Result<Self, RecordError> {
        let folder = Folder::create(dir)?;
        let first = (Utc::now(), mono_us(), start);
        super::audit::mark_start(first.0);
        for _ in 0..ATTEMPTS {
            let name = PathBuf::from(folder::name(Utc::now(), first.2.pid));
            let Some(mut output) = claim(&folder, &name)? else { continue };
            let path = dir.join(&name);
            begin(&folder, &name, &path, &mut output, &first)?;
            let absolute = std::path::absolute(dir);
            return Ok(Self {
                folder: absolute.map_err(|source| failed("locate", &path, source))?,
                path,
                name,
                root: fs::metadata("/").ok().as_ref().map(file_id),
                state: Mutex::new(State {
                    files: vec![output],
                    first,
                    lines: Vec::new(),
                    restorations: MAX_RESTORATIONS,
                }),
            });
        }
        let source = io::Error::other("another process locked every new file first");
        Err(failed("create", dir, source))
    }

    /// Appends an event, stamped with the time of this call. See [`record_at`](Self::record_at).
    ///
    /// # Errors
    /// As [`record_at`](Self::record_at).
    pub fn record(&self, event: &Event) -> Result<(), RecordError> {
        self.record_at(Utc::now(), mono_us(), event).map(drop)
    }

    /// Appends an event that happened at `ts`, which is `mono_us` on `CLOCK_MONOTONIC`.
    ///
    /// Any number of threads may call this at once; their lines do not mix. It returns when the
    /// kernel has the line, which is usually a copy into the page cache and takes microseconds. But
    /// an overloaded disk, a frozen file system, or a network file system without its server can
    /// block `write(2)` for a long time, so a teardown must not wait for this call without a limit.
    ///
    /// If the file is no longer at its path, or has been truncated, all lines so far are first
    /// written to a new file at that path, without the progress of phases. The result says what had
    /// happened.
    ///
    /// # Errors
    /// If the line was not written, or only a part of it, or if the record is lost and cannot be
    /// written again. The record stays usable.
    pub fn record_at(
        &self,
        ts: Utc,
        mono_us: u64,
        event: &Event,
    ) -> Result<Option<Loss>, RecordError> {
        let line = line(ts, mono_us, event)?;
        let mut state = self.state();
        let loss = self.loss(&mut state.files[0]);
        let restored = loss.map_or(Ok(()), |_| self.restore(&mut state));
        if !matches!(event, Event::PhaseProgress(_)) {
            state.lines.extend_from_slice(&line);
        }
        let mut written = Ok(());
        for (n, file) in state.files.iter_mut().enumerate() {
            let result = file.write(&line, &self.path);
            if n == 0 {
                written = result;
            }
        }
        restored.and(written).map(|()| loss)
    }

    /// Waits until everything written is on the disk (`fdatasync(2)`), so that it survives a power
    /// loss. This takes milliseconds, on a busy disk seconds: do not call it on an async thread.
    ///
    /// # Errors
    /// If the disk failed. Data that the kernel could not write may then be lost, even if a later
    /// call succeeds.
    pub fn sync(&self) -> Result<(), RecordError> {
        let file = self.state().files[0].file.clone();
        file.sync_data().map_err(|source| failed("sync", &self.path, source))
    }

    /// The path of the record: the folder as it was passed in, and the file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has at most lost its own line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether our file is no longer the record.
    fn loss(&self, output: &mut Output) -> Option<Loss> {
        let ours = output.file.metadata().ok()?;
        if ours.len() < output.length {
            return Some(Loss::Truncated);
        }
        if ours.len() > output.length {
            // Something else has written to it, and maybe not a whole line.
            output.length = ours.len();
            output.is_torn = true;
        }
        let is_unlinked = || (ours.nlink() == 0).then_some(Loss::Gone);
        if self.root != fs::metadata("/").ok().as_ref().map(file_id) {
            return is_unlinked();
        }
        match fs::symlink_metadata(self.folder.join(&self.name)) {
            Ok(found) if file_id(&found) == file_id(&ours) => None,
            Ok(_) => Some(Loss::Replaced),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Some(Loss::Gone)
            }
            // For example, we have dropped the right to search the folder.
            Err(_) => is_unlinked(),
        }
    }

    /// Writes the record again: to a new file, which then gets the name of the record.
    fn restore(&self, state: &mut State) -> Result<(), RecordError> {
        let lost = |source| failed("write again", &self.path, source);
        state.restorations = state.restorations.checked_sub(1).ok_or_else(|| {
            lost(io::Error::other(format!("it was lost more than {MAX_RESTORATIONS} times")))
        })?;
        let folder = Folder::create(&self.folder)?;
        // Not the name of a record, so that nothing reads it too early.
        let temporary = self.name.with_extension("new");
        let _ = folder.remove(&temporary);
        let mut output = Output::new(folder.create_new(&temporary).map_err(lost)?);
        begin(&folder, &temporary, &self.path, &mut output, &state.first)?;
        let written = output
            .write(&state.lines, &self.path)
            .and_then(|()| folder.rename(&temporary, &self.name).map_err(lost));
        if let Err(error) = written {
            let _ = folder.remove(&temporary);
            return Err(error);
        }
        state.files.insert(0, output);
        let has_name = |output: &Output| output.file.metadata().is_ok_and(|meta| meta.nlink() > 0);
        state.files.retain(has_name);
        Ok(())
    }
}

/// Creates a new file and locks it; `None` if another process was faster.
fn claim(folder: &Folder, name: &Path) -> Result<Option<Output>, RecordError> {
    let output = match folder.create_new(name) {
        // It is kept out of children before it is locked, so that none can share the lock.
        Ok(file) => Output::new(file),
        Err(source) if source.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(source) if source.kind() == ErrorKind::PermissionDenied => {
            return Err(folder.not_writable(source).into());
        }
        Err(source) => return Err(failed("create", &folder.path().join(name), source)),
    };
    // Until it is locked, it looks like the record of a dead run. A reader may lock it for a
    // moment, and `prune` may remove it.
    let is_locked_by_other =
        matches!(lock(&output.file), Err(error) if error.kind() == ErrorKind::WouldBlock);
    if !is_locked_by_other && output.file.metadata().is_ok_and(|meta| meta.nlink() > 0) {
        return Ok(Some(output));
    }
    remove(folder, name);
    Ok(None)
}

/// Locks a new file, writes the first line to it, and reserves space so that the end can be recorded even if
/// the disk is full by then. Removes the file if that fails.
fn begin(
    folder: &Folder,
    name: &Path,
    path: &Path,
    output: &mut Output,
    (ts, mono_us, start): &(Utc, u64, RunStarted),
) -> Result<(), RecordError> {
    os::reserve_space(&output.file, RESERVED_BYTES);
    let mut start = start.clone();
    start.lock = lock_id(&output.file).filter(|_| lock(&output.file).is_ok());
    let first = line(*ts, *mono_us, &Event::RunStarted(start.into()))?;
    output.write(&first, path).inspect_err(|_| remove(folder, name))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> RecordError {
    RecordError::System { action, path: path.to_owned(), source }
}

/// Removes an empty record, which would hide the one before it from a reader of the last run.
fn remove(folder: &Folder, name: &Path) {
    let _ = folder.remove(name);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
    use nix::sys::stat::Mode;
    use nix::unistd::pipe;

    use super::super::lock::{is_locked, unlock};
    use super::super::{
        Entry, MAX_LINE, PhaseFinished, PhaseOutcome, PhaseProgress, PhaseStarted, PostMortem,
        Record, RecordFile, RunOutcome, runs,
    };
    use super::*;
    use crate::escape::error_chain;

    /// Writes an event to a file that is not a record.
    fn write(output: &mut Output, event: &Event) -> Result<(), RecordError> {
        output.write(&line(Utc::now(), 1, event)?, Path::new("/run/gateway/x.jsonl"))
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
        let is_locked = || is_locked(&File::open(&path).unwrap()).unwrap();
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
        let file = RecordFile::open(run.path()).unwrap();
        let (host, read) = (file.host().unwrap(), Record::of(&file).unwrap());
        assert!(host.locked);
        let lock = read.start.lock.clone();
        assert_eq!(read.start, RunStarted { lock, ..RunStarted::new("gateway", 4100) });
        assert_eq!(read.entries[1].event, phase("drain"));
        assert!(read.entries[0].mono_us <= read.entries[1].mono_us);
        assert_eq!((read.entries.len(), read.corrupt, read.torn, read.newer), (2, 0, false, false));
        assert_eq!(PostMortem::of(run.path()).unwrap().outcome, RunOutcome::Running);

        // Unlocks it, as the end of the process would. Closing is not enough, because a child that
        // another test just forked may share it.
        unlock(&run.state().files[0].file);
        assert_eq!(PostMortem::of(run.path()).unwrap().outcome, RunOutcome::KilledInPhase);
    }

    /// Each way to lose the file, what is then found, and whether the old file still gets all lines.
    #[test]
    fn a_record_that_is_lost_is_written_again_completely() {
        type Lose = fn(&Path, &Path);
        let cases: [(Lose, Loss, Option<&str>); 9] = [
            (|file, _| fs::remove_file(file).unwrap(), Loss::Gone, None),
            (|_, dir| fs::remove_dir_all(dir).unwrap(), Loss::Gone, None),
            (|_, dir| fs::remove_dir_all(dir.parent().unwrap()).unwrap(), Loss::Gone, None),
            (
                |file, _| fs::rename(file, file.with_extension("1")).unwrap(),
                Loss::Gone,
                Some("r/{}.1"),
            ),
            (
                |_, dir| fs::rename(dir, dir.with_extension("old")).unwrap(),
                Loss::Gone,
                Some("r.old/{}.jsonl"),
            ),
            (
                |_, dir| {
                    fs::remove_dir_all(dir).unwrap();
                    fs::create_dir(dir).unwrap();
                },
                Loss::Gone,
                None,
            ),
            (
                |file, _| {
                    let copy = file.with_extension("copy");
                    fs::copy(file, &copy).unwrap();
                    fs::rename(copy, file).unwrap();
                },
                Loss::Replaced,
                None,
            ),
            (
                |file, _| {
                    let aside = file.with_extension("aside");
                    fs::rename(file, &aside).unwrap();
                    std::os::unix::fs::symlink(aside, file).unwrap();
                },
                Loss::Replaced,
                Some("r/{}.aside"),
            ),
            (
                |file, _| File::options().write(true).open(file).unwrap().set_len(0).unwrap(),
                Loss::Truncated,
                None,
            ),
        ];
        for (n, (lose, loss, old)) in cases.into_iter().enumerate() {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path().join("above/r");
            let run = Recorder::create(&dir, RunStarted::new("gateway", 4100)).unwrap();
            let write = |name: &str| run.record_at(Utc::now(), mono_us(), &phase(name)).unwrap();
            assert_eq!(write("first"), None, "case {n}");
            lose(run.path(), &dir);
            assert_eq!(write("second"), Some(loss), "case {n}");
            assert_eq!(write("third"), None, "case {n}");
            let mut all = vec![run.path().to_owned()];
            let stem = run.path().file_stem().unwrap().to_str().unwrap();
            all.extend(old.map(|old| tmp.path().join("above").join(old.replace("{}", stem))));
            for path in all {
                let record = Record::read(&path).unwrap();
                let phases: Vec<_> = record.entries[1..].iter().map(|e| e.event.clone()).collect();
                assert_eq!(phases, ["first", "second", "third"].map(phase), "case {n}: {path:?}");
                assert_eq!((record.corrupt, record.torn), (0, false), "case {n}");
            }
            let file = RecordFile::open(run.path()).unwrap();
            let (host, record) = (file.host().unwrap(), Record::of(&file).unwrap());
            assert!(host.locked && record.start.lock == host.lock, "case {n}");
            assert_eq!(runs(&dir).unwrap(), [run.path()], "case {n}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_written_again_is_an_error_and_the_old_file_is_continued() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("r");
        let run = Recorder::create(&dir, RunStarted::new("gateway", 4100)).unwrap();
        fs::rename(&dir, tmp.path().join("old")).unwrap();
        fs::write(&dir, "").unwrap();
        for _ in 0..2 * MAX_RESTORATIONS {
            assert!(run.record(&phase("drain")).is_err());
        }
        let old = runs(&tmp.path().join("old")).unwrap().pop().unwrap();
        let lines = Record::read(&old).unwrap().entries.len();
        assert_eq!(lines, 1 + 2 * MAX_RESTORATIONS as usize);
    }

    #[test]
    fn data_appended_by_another_process_is_not_overwritten() {
        let tmp = tempfile::tempdir().unwrap();
        let run = Recorder::create(&tmp.path().join("r"), RunStarted::new("gateway", 1)).unwrap();
        let mut other = fs::OpenOptions::new().append(true).open(run.path()).unwrap();
        for (count, note) in [(1, "a note\n"), (2, "half a note")] {
            other.write_all(note.as_bytes()).unwrap();
            run.record(&phase("drain")).unwrap();
            let record = Record::read(run.path()).unwrap();
            assert_eq!((record.entries.len(), record.corrupt), (1 + count, count));
        }
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
        let error = write(&mut Output::new(full.into()), &phase("drain")).unwrap_err();
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
        let mut run = Output::new(writer.into());
        let long = phase("x".repeat(2 * size));
        let error = write(&mut run, &long).unwrap_err();
        assert!(matches!(error, RecordError::Short { written, .. } if written == size), "{error}");
        // Now nothing fits at all. The writer must still remember the torn line.
        assert!(matches!(
            write(&mut run, &phase("lost")),
            Err(RecordError::System { action: "write to", .. })
        ));

        let mut reader = File::from(reader);
        let mut written = vec![0; size];
        reader.read_exact(&mut written).unwrap();
        write(&mut run, &phase("drain")).unwrap();
        write(&mut run, &phase("db_close")).unwrap();
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
