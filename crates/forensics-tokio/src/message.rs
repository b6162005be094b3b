//! The termination message: what `kubectl describe pod` shows of a container's end.
//!
//! The kubelet reads at most 4096 bytes of a file that it made (`terminationMessagePath`) once the
//! container has ended, however it ended. So the file holds an account from the stop's beginning on,
//! written again whenever that changes: a SIGKILL leaves the last one.
//!
//! The file is opened at the start, and each message is one write, on a thread of its own, as it may
//! block. A newer message takes the place of one that has not been written; the end waits for the
//! last one, not for long.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::libc;

use crate::blocking::{WorkQueue, run_with_timeout};

/// Where the kubelet looks by default.
pub(crate) const DEFAULT_PATH: &str = "/dev/termination-log";

/// How long the file may take to be opened: on a busy machine, that is the time to run a thread.
const OPEN_LIMIT: Duration = Duration::from_millis(500);

/// How long the last message is waited for. A busy machine can take its time to run a thread,
/// and nothing else is held up by then.
const WRITE_LIMIT: Duration = Duration::from_millis(500);

/// The file, where there is one; see the module's documentation.
#[derive(Default)]
pub(crate) struct TerminationMessage(Option<Arc<Log>>);

struct Log {
    write: Write,
    queue: WorkQueue,
    slot: Mutex<Slot>,
    failed: OnceLock<String>,
}

/// Writes a message to the file. May block.
type Write = Box<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

#[derive(Default)]
struct Slot {
    /// What the queue's next job writes.
    waiting: Option<String>,
    /// The last message has been left here; only another last one takes its place.
    is_closed: bool,
}

impl TerminationMessage {
    /// Opens the file at `path`, or the kubelet's usual one if it exists.
    ///
    /// Never follows a link in the last place, and never waits for longer than 500 ms.
    ///
    /// # Errors
    /// A text, where it cannot be written to.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, String> {
        let is_default = path.is_none();
        let path = path.unwrap_or(Path::new(DEFAULT_PATH)).to_owned();
        let name = path.display().to_string();
        match run_with_timeout(OPEN_LIMIT, move || open(&path)) {
            Some(Ok(file)) => Ok(Self::to(Box::new(move |text| write(&file, text)))),
            // Asked again, as without a free descriptor the open fails with another error.
            Some(Err(_)) if is_default && fs::symlink_metadata(DEFAULT_PATH).is_err() => {
                Ok(Self::default())
            }
            Some(Err(why)) => Err(format!("{name}: {why}")),
            None => Err(format!("{name}: it cannot be opened within 500 ms")),
        }
    }

    fn to(write: Write) -> Self {
        let (slot, failed) = (Mutex::default(), OnceLock::new());
        let queue = WorkQueue::new("shutdown-msg");
        Self(Some(Arc::new(Log { write, queue, slot, failed })))
    }

    /// Whether anything is written at all.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Leaves a message to be written, unless it comes after the last one; [`start`](Self::start) is to
    /// follow. Never blocks.
    pub(crate) fn push(&self, text: String, is_last: bool) {
        let Some(log) = &self.0 else { return };
        let mut slot = log.lock();
        if slot.is_closed && !is_last {
            return;
        }
        slot.is_closed |= is_last;
        let has_job = slot.waiting.replace(text).is_some();
        drop(slot);
        if !has_job {
            let writer = log.clone();
            log.queue.push(move || writer.write_waiting());
        }
    }

    /// Has the message written. Blocks only where no thread is to be had.
    pub(crate) fn start(&self) {
        if let Some(log) = &self.0 {
            log.queue.start();
        }
    }

    /// Waits until all is written, for 500 ms at most.
    pub(crate) fn finish(&self) {
        if let Some(log) = &self.0 {
            log.queue.flush(WRITE_LIMIT);
        }
    }

    /// What went wrong first, if anything has.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.0.as_ref()?.failed.get().map(String::as_str)
    }
}

impl Log {
    fn write_waiting(&self) {
        let waiting = self.lock().waiting.take();
        if let Some(text) = waiting
            && let Err(e) = (self.write)(&text)
        {
            self.failed.get_or_init(|| e.to_string());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> Result<File, String> {
    // With O_NONBLOCK a pipe without a reader is an error, not something to wait for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path);
    // The kubelet's file is writable by all and in a folder of the container, so its owner and mode
    // are not checked.
    match file.and_then(|file| Ok((file.metadata()?, file))) {
        Ok((found, _)) if !found.is_file() => {
            Err("no regular file: name the one of `terminationMessagePath`".to_owned())
        }
        Ok((found, _)) if found.nlink() > 1 => Err("it has several hard links, so \
            it may be another file than it seems: name another"
            .to_owned()),
        Ok((_, file)) => Ok(file),
        Err(e) => Err(format!("{e}: the kubelet makes it where `terminationMessagePath` names it")),
    }
}

/// Writes first and shortens then, so that a kill in between leaves no empty file.
fn write(file: &File, text: &str) -> io::Result<()> {
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::Instant;

    fn write_now(log: &TerminationMessage, text: String, is_last: bool) {
        log.push(text, is_last);
        log.start();
    }

    #[test]
    fn the_last_message_stays_and_a_shorter_one_leaves_nothing_of_a_longer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "x".repeat(9000)).unwrap();
        let log = TerminationMessage::open(Some(&path)).unwrap();
        write_now(&log, "stopping, phase drain".to_owned(), false);
        write_now(&log, "stopping".to_owned(), false);
        write_now(&log, "ended".to_owned(), true);
        write_now(&log, "too late".to_owned(), false);
        log.finish();
        assert_eq!(fs::read_to_string(&path).unwrap(), "ended");
        write_now(&log, "forced".to_owned(), true);
        log.finish();
        assert_eq!(fs::read_to_string(&path).unwrap(), "forced");
        assert_eq!(log.failure(), None);
    }

    #[test]
    fn only_a_regular_file_that_is_there_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let [missing, link, fifo, hard] =
            ["missing", "link", "fifo", "hard"].map(|name| dir.path().join(name));
        fs::write(dir.path().join("file"), "").unwrap();
        fs::hard_link(dir.path().join("file"), &hard).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let device = PathBuf::from("/dev/null");
        let cases = [
            (&missing, "No such file"),
            (&link, "Too many levels of symbolic links"),
            (&fifo, "No such device or address"),
            (&hard, "several hard links"),
            (&dir.path().to_owned(), "Is a directory"),
            (&device, "no regular file"),
        ];
        for (path, expected) in cases {
            let error = TerminationMessage::open(Some(path)).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(!missing.exists());
    }

    #[test]
    fn a_write_that_fails_is_told_and_one_that_blocks_holds_up_no_caller() {
        // A file that refuses: it is open for reading alone.
        let file = File::open(tempfile::NamedTempFile::new().unwrap().path()).unwrap();
        let log = TerminationMessage::to(Box::new(move |text| write(&file, text)));
        write_now(&log, "ended".to_owned(), true);
        log.finish();
        assert!(log.failure().unwrap().contains("Bad file descriptor"));

        let (release, hang) = mpsc::channel::<()>();
        let (wrote, written) = mpsc::channel();
        let hang = Mutex::new(hang);
        let log = TerminationMessage::to(Box::new(move |text| {
            wrote.send(text.to_owned()).unwrap();
            let _ = hang.lock().unwrap().recv();
            Ok(())
        }));
        write_now(&log, "stopping".to_owned(), false);
        assert_eq!(written.recv().unwrap(), "stopping");
        let began = Instant::now();
        write_now(&log, "stopping, phase drain".to_owned(), false);
        write_now(&log, "ended".to_owned(), true);
        assert!(began.elapsed() < WRITE_LIMIT, "no caller waits before the end");
        log.finish();
        // The wait ended by its limit, not by the write; the last message is still to be written.
        assert!(began.elapsed() >= WRITE_LIMIT);
        release.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), "ended");
    }
}
