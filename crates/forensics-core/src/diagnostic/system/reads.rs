//! Reads that may block, done by threads that the caller starts.
//!
//! Usually one thread reads all files of a section in order. If a file does not answer for
//! [`TAKE_OVER`], another thread continues with the next file, and the first thread is left blocked. At
//! the end, files that have not answered for [`LIMIT`] are given up.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::Work;

/// How long one file may take before another thread continues with the next one.
const TAKE_OVER: Duration = Duration::from_millis(50);

/// How long the last files of a section may take, once no other one is left to read.
const LIMIT: Duration = Duration::from_secs(1);

/// The same limit after [`LIMIT_IN_ALL`] has been used up.
const LEAST: Duration = Duration::from_millis(100);

/// How long the whole diagnostic waits for files that do not answer. After that it waits only for
/// [`LEAST`], so that it ends within five seconds.
const LIMIT_IN_ALL: Duration = Duration::from_secs(3);

/// How many threads may stay blocked in files that do not answer, per section.
const MAX_THREADS: usize = 16;

/// How much of a file is read. The files read here are smaller, except for some command lines.
const MAX_BYTES: u64 = 64 * 1024;

/// Starts threads for reads, and waits for them within the limits.
pub(super) struct Reads<'a> {
    start: &'a mut dyn FnMut(Work) -> io::Result<()>,
    /// What is left of [`LIMIT_IN_ALL`].
    time_left: Duration,
}

impl<'a> Reads<'a> {
    pub(super) fn new(start: &'a mut dyn FnMut(Work) -> io::Result<()>) -> Self {
        Self { start, time_left: LIMIT_IN_ALL }
    }

    /// The result of one read.
    pub(super) fn one<R: Send + 'static>(
        &mut self,
        read: impl Fn() -> io::Result<R> + Send + Sync + 'static,
    ) -> io::Result<R> {
        self.all(vec![()], move |()| read()).remove(0)
    }

    /// The result of `read` for each item, in the same order. An error without a number means that
    /// the file did not answer.
    pub(super) fn all<T: Send + 'static, R: Send + 'static>(
        &mut self,
        items: Vec<T>,
        read: impl Fn(T) -> io::Result<R> + Send + Sync + 'static,
    ) -> Vec<io::Result<R>> {
        let limit = LIMIT.min(self.time_left).max(LEAST);
        let mut missing = items.len();
        let mut answers: Vec<_> = items.iter().map(|_| None).collect();
        let queue = Arc::new(Mutex::new(items.into_iter().enumerate()));
        let (sender, receiver) = mpsc::channel();
        let theirs = Arc::clone(&queue);
        let work = Arc::new(move || {
            loop {
                let next = lock(&theirs).next();
                let Some((at, item)) = next else { break };
                // Fails if the answer comes too late.
                if sender.send((at, read(item))).is_err() {
                    break;
                }
            }
        });
        let (mut threads, mut stalled) = (0, Duration::ZERO);
        while missing > 0 {
            let is_held_up = threads == 0 || !stalled.is_zero();
            if is_held_up && threads < MAX_THREADS && lock(&queue).len() > 0 {
                let on_a_thread = Arc::clone(&work);
                let started = (self.start)(Box::new(move || on_a_thread()));
                if started.is_err() && threads == 0 {
                    work();
                }
                threads = if started.is_ok() { threads + 1 } else { MAX_THREADS };
                stalled = Duration::ZERO;
            } else if stalled >= limit {
                break;
            }
            if let Ok((at, answer)) = receiver.recv_timeout(TAKE_OVER) {
                answers[at] = Some(answer);
                missing -= 1;
                stalled = Duration::ZERO;
            } else {
                stalled += TAKE_OVER;
                self.time_left = self.time_left.saturating_sub(TAKE_OVER);
            }
        }
        let asked = answers.len() - lock(&queue).len();
        let no_answer = |at| {
            if at >= asked {
                return io::Error::other("(not read, because too many other files do not answer)");
            }
            // Rounded down, because the file was not given more time than that.
            let tenths = limit.as_millis() / 100;
            io::Error::other(format!("(no answer within {}.{}s)", tenths / 10, tenths % 10))
        };
        let answers = answers.into_iter().enumerate();
        answers.map(|(at, answer)| answer.unwrap_or_else(|| Err(no_answer(at)))).collect()
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first [`MAX_BYTES`] of a file.
pub(super) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same as text. Bytes that are not UTF-8 are replaced.
pub(super) fn text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes(path)?).into_owned())
}
