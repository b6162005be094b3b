//! Reads the output of a program.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

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

    /// The first line that contains `text`. `None` if the stream ends or `limit` passes before.
    pub(super) fn wait_for(&self, text: &str, limit: Duration) -> Option<String> {
        let line = |so_far: &SoFar| {
            so_far.text.lines().find(|line| line.contains(text)).map(str::to_owned)
        };
        line(&self.wait_until(limit, |so_far| so_far.closed || line(so_far).is_some()))
    }

    /// Whether the stream ends within `limit`: then no process can write to it any more.
    pub(super) fn wait_closed(&self, limit: Duration) -> bool {
        self.wait_until(limit, |so_far| so_far.closed).closed
    }

    fn wait_until(
        &self,
        limit: Duration,
        is_done: impl Fn(&SoFar) -> bool,
    ) -> MutexGuard<'_, SoFar> {
        let is_pending = |so_far: &mut SoFar| !is_done(so_far);
        let waited = self.changed.wait_timeout_while(self.lock(), limit, is_pending);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
