//! Reads that may block, done by threads that the caller starts.
//!
//! Usually one thread reads all files of a section in order. If it gets no answer for
//! [`TAKE_OVER`], another thread goes on with the next file, and the first one is left where it is.
//! At the end, files that have not answered for [`LIMIT`] are given up.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::Work;

/// How long one file is waited for before another thread goes on with the next one.
const TAKE_OVER: Duration = Duration::from_millis(50);

/// How long the last files of a section are waited for, once no other one is left to read.
const LIMIT: Duration = Duration::from_secs(1);

/// The same once [`LIMIT_IN_ALL`] is used up.
const LEAST: Duration = Duration::from_millis(100);

/// How long the whole diagnostic waits for files that do not answer. From then on it waits as little
/// as it can, so that it ends within its five seconds.
const LIMIT_IN_ALL: Duration = Duration::from_secs(3);

/// How many threads may be left in files that do not answer, per section.
const MAX_THREADS: usize = 16;

/// How much of a file is read. The files read here are smaller, except for some command lines.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a read has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    Within(Duration),
    /// [`MAX_THREADS`] other files of the section do not answer.
    NotAsked,
}

impl Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Rounded down: it has not been waited for any longer.
            Self::Within(limit) => {
                let tenths = limit.as_millis() / 100;
                write!(f, "(no answer within {}.{}s)", tenths / 10, tenths % 10)
            }
            Self::NotAsked => f.write_str("(not read, as too many other files do not answer)"),
        }
    }
}

/// Starts threads for reads, and waits for them within the limits.
pub(super) struct Reads<'a> {
    start: &'a mut dyn FnMut(Work) -> io::Result<()>,
    /// What is left of [`LIMIT_IN_ALL`].
    patience: Duration,
}

impl<'a> Reads<'a> {
    pub(super) fn new(start: &'a mut dyn FnMut(Work) -> io::Result<()>) -> Self {
        Self { start, patience: LIMIT_IN_ALL }
    }

    /// The result of one read.
    pub(super) fn one<R: Send + 'static>(
        &mut self,
        read: impl Fn() -> R + Send + Sync + 'static,
    ) -> Result<R, NoAnswer> {
        self.all(vec![()], move |()| read()).remove(0)
    }

    /// The result of `read` for each item, in the same order.
    pub(super) fn all<T, R>(
        &mut self,
        items: Vec<T>,
        read: impl Fn(T) -> R + Send + Sync + 'static,
    ) -> Vec<Result<R, NoAnswer>>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let limit = LIMIT.min(self.patience).max(LEAST);
        let mut missing = items.len();
        let mut answers: Vec<_> = items.iter().map(|_| Err(NoAnswer::NotAsked)).collect();
        let queue = Arc::new(Mutex::new(items.into_iter().enumerate()));
        let (sender, receiver) = mpsc::channel();
        let theirs = Arc::clone(&queue);
        let work = Arc::new(move || {
            loop {
                let next = lock(&theirs).next();
                let Some((at, item)) = next else { break };
                // An answer that comes too late is not received any more.
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
                answers[at] = Ok(answer);
                missing -= 1;
                stalled = Duration::ZERO;
            } else {
                stalled += TAKE_OVER;
                self.patience = self.patience.saturating_sub(TAKE_OVER);
            }
        }
        let asked = answers.len() - lock(&queue).len();
        let silent = answers[..asked].iter_mut().filter(|answer| answer.is_err());
        silent.for_each(|answer| *answer = Err(NoAnswer::Within(limit)));
        answers
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

/// The same as text, with what is not UTF-8 replaced.
pub(super) fn text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes(path)?).into_owned())
}
