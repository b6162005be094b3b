//! A program's output, read as it comes.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// One stream of a program's output. A thread reads it, so that the program never waits.
#[derive(Debug, Default)]
pub(super) struct Output {
    so_far: Mutex<SoFar>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SoFar {
    text: String,
    closed: bool,
}

impl Output {
    pub(super) fn of(stream: Option<impl Read + Send + 'static>) -> Arc<Self> {
        let output = Arc::new(Self::default());
        let Some(stream) = stream else { return output };
        let reader = output.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                reader.lock().text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
                reader.changed.notify_all();
            }
            reader.lock().closed = true;
            reader.changed.notify_all();
        });
        output
    }

    pub(super) fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// The first line that contains `text`; `None` where the stream ends or `limit` passes without.
    pub(super) fn wait_for(&self, text: &str, limit: Duration) -> Option<String> {
        let found = |all: &str| all.lines().find(|line| line.contains(text)).map(str::to_owned);
        self.wait_until(limit, |so_far| {
            found(&so_far.text).map(Some).or(so_far.closed.then_some(None))
        })?
    }

    /// Whether the stream has ended by then: whoever could write to it is gone.
    pub(super) fn wait_closed(&self, limit: Duration) -> bool {
        self.wait_until(limit, |so_far| so_far.closed.then_some(())).is_some()
    }

    fn wait_until<T>(
        &self,
        limit: Duration,
        mut done: impl FnMut(&SoFar) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + limit;
        let mut so_far = self.lock();
        loop {
            if let Some(result) = done(&so_far) {
                return Some(result);
            }
            let left = end.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(so_far, left);
            so_far = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
