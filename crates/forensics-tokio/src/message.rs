//! The termination message: what `kubectl describe pod` shows about the end of a container.
//!
//! The kubelet creates a file (`terminationMessagePath`) and reads at most 4096 bytes of it after
//! the container has ended, also after a SIGKILL. So we write to the file at the beginning of a
//! stop and at each change. After a SIGKILL it has the last state.
//!
//! The file is opened at the start. Each message is one write on a separate thread, because a write
//! may block. A newer message replaces one that has not been written yet. The end of the teardown
//! waits for the last message, with a limit.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use forensics_core::escape::error_chain;
use forensics_core::secure_fs::open_existing;

use crate::blocking::{WorkQueue, run_with_timeout};
use crate::lock::lock;

/// Where the kubelet looks by default.
pub(crate) const DEFAULT_PATH: &str = "/dev/termination-log";

/// How long opening the file may take. A busy machine may need that long to run a thread.
const OPEN_LIMIT: Duration = Duration::from_millis(500);

/// How long to wait until the last message is written. A busy machine may need that long to run a
/// thread. By then nothing else is waiting.
pub(crate) const WRITE_LIMIT: Duration = Duration::from_millis(500);

/// The file, if there is one; see the module's documentation.
pub(crate) struct TerminationMessage {
    /// Writes a message to the file. May block. `None` if there is no file.
    write: Option<Arc<Write>>,
    pub(crate) queue: WorkQueue,
    next: Arc<Mutex<Next>>,
    /// The first error.
    failure: Arc<OnceLock<String>>,
}

type Write = dyn Fn(&str) -> io::Result<()> + Send + Sync;

#[derive(Default)]
struct Next {
    /// The message that the queue's job will write.
    text: Option<String>,
    /// The last message was pushed. Only another last one can replace it.
    is_closed: bool,
}

impl Default for TerminationMessage {
    fn default() -> Self {
        let queue = WorkQueue::new("shutdown-msg");
        Self { write: None, queue, next: Arc::default(), failure: Arc::default() }
    }
}

impl TerminationMessage {
    /// Opens the file at `path`, or the kubelet's usual one if it exists.
    ///
    /// Does not open a file that another user could have put there, and never waits longer than 500 ms.
    ///
    /// # Errors
    /// A text, if the file cannot be written to.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, String> {
        let is_default = path.is_none();
        let path = path.unwrap_or(Path::new(DEFAULT_PATH)).to_owned();
        let name = path.display().to_string();
        match run_with_timeout(OPEN_LIMIT, move || open_existing(&path)) {
            Some(Ok(file)) => Ok(Self::new(move |text| write(&file, text))),
            // The error does not always say whether the file exists, for example without a free descriptor.
            Some(Err(_)) if is_default && fs::symlink_metadata(DEFAULT_PATH).is_err() => {
                Ok(Self::default())
            }
            Some(Err(why)) => Err(error_chain(&why)),
            None => Err(format!("{name}: it could not be opened within 500 ms")),
        }
    }

    fn new(write: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { write: Some(Arc::new(write)), ..Self::default() }
    }

    /// Whether anything is written at all.
    pub(crate) fn is_open(&self) -> bool {
        self.write.is_some()
    }

    /// Queues a message, unless the last one was pushed before. Never blocks. The caller must call
    /// [`WorkQueue::start`] afterwards.
    pub(crate) fn push(&self, text: String, is_last: bool) {
        let Some(write) = self.write.clone() else { return };
        let mut next = lock(&self.next);
        if next.is_closed && !is_last {
            return;
        }
        next.is_closed |= is_last;
        if next.text.replace(text).is_none() {
            let (next, failure) = (self.next.clone(), self.failure.clone());
            self.queue.push(move || {
                let Some(text) = lock(&next).text.take() else { return };
                if let Err(e) = write(&text) {
                    failure.get_or_init(|| e.to_string());
                }
            });
        }
    }

    /// Waits until everything is written, for at most `limit`.
    pub(crate) fn finish(&self, limit: Duration) {
        self.queue.flush(limit);
    }

    /// What went wrong first, if anything has.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }
}

/// Writes first and truncates after that, so that a kill in between leaves no empty file.
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
        log.queue.start();
    }

    #[test]
    fn the_last_message_stays_and_a_shorter_one_replaces_a_longer_one_completely() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "x".repeat(9000)).unwrap();
        let log = TerminationMessage::open(Some(&path)).unwrap();
        write_now(&log, "stopping, phase drain".to_owned(), false);
        write_now(&log, "stopping".to_owned(), false);
        write_now(&log, "ended".to_owned(), true);
        write_now(&log, "too late".to_owned(), false);
        log.finish(WRITE_LIMIT);
        assert_eq!(fs::read_to_string(&path).unwrap(), "ended");
        write_now(&log, "forced".to_owned(), true);
        log.finish(WRITE_LIMIT);
        assert_eq!(fs::read_to_string(&path).unwrap(), "forced");
        assert_eq!(log.failure(), None);
    }

    #[test]
    fn only_an_existing_regular_file_is_written_to() {
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
            (&link, "not a regular file"),
            (&fifo, "not a regular file"),
            (&hard, "has 2 hard links"),
            (&dir.path().to_owned(), "not a regular file"),
            (&device, "not a regular file"),
        ];
        for (path, expected) in cases {
            let error = TerminationMessage::open(Some(path)).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(!missing.exists());
    }

    #[test]
    fn a_write_that_fails_is_reported_and_one_that_blocks_delays_no_caller() {
        // Writing to this file fails: it is only open for reading.
        let file = File::open(tempfile::NamedTempFile::new().unwrap().path()).unwrap();
        let log = TerminationMessage::new(move |text| write(&file, text));
        write_now(&log, "ended".to_owned(), true);
        log.finish(WRITE_LIMIT);
        assert!(log.failure().unwrap().contains("Bad file descriptor"));

        let (release, blocks) = mpsc::channel::<()>();
        let (wrote, written) = mpsc::channel();
        let blocks = Mutex::new(blocks);
        let log = TerminationMessage::new(move |text| {
            wrote.send(text.to_owned()).unwrap();
            let _ = blocks.lock().unwrap().recv();
            Ok(())
        });
        write_now(&log, "stopping".to_owned(), false);
        assert_eq!(written.recv().unwrap(), "stopping");
        let began = Instant::now();
        write_now(&log, "stopping, phase drain".to_owned(), false);
        write_now(&log, "ended".to_owned(), true);
        assert!(began.elapsed() < WRITE_LIMIT, "no caller waits before the end");
        log.finish(WRITE_LIMIT);
        // The wait ended at its limit, before the last message was written.
        assert!(began.elapsed() >= WRITE_LIMIT);
        release.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), "ended");
    }
}
