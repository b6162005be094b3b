//! Reads the output of a program.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::lock::lock;

/// One stream of a program's output. A thread reads it, so that the program never waits for a
/// reader.
#[derive(Debug, Default)]
pub(super) struct Output {
    read: Mutex<SoFar>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SoFar {
    text: String,
    is_closed: bool,
}

impl Output {
    pub(super) fn of(stream: Option<impl Read + Send + 'static>) -> Arc<Self> {
        let output = Arc::new(Self::default());
        let Some(stream) = stream else { return output };
        let reader = output.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut is_closed = false;
            while !is_closed {
                let mut line = Vec::new();
                is_closed = !stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0);
                let mut so_far = lock(&reader.read);
                so_far.text.push_str(&String::from_utf8_lossy(&line));
                so_far.is_closed = is_closed;
                reader.changed.notify_all();
            }
        });
        output
    }

    pub(super) fn text(&self) -> String {
        lock(&self.read).text.clone()
    }

    /// The first line that contains `text`. `None` if the stream ends or `limit` passes before.
    pub(super) fn wait_for(&self, text: &str, limit: Duration) -> Option<String> {
        let line = |so_far: &SoFar| {
            so_far.text.lines().find(|line| line.contains(text)).map(str::to_owned)
        };
        line(&self.wait_until(limit, |so_far| so_far.is_closed || line(so_far).is_some()))
    }

    /// Whether the stream ends within `limit`. Then no process can write to it any more.
    pub(super) fn wait_closed(&self, limit: Duration) -> bool {
        self.wait_until(limit, |so_far| so_far.is_closed).is_closed
    }

    fn wait_until(&self, limit: Duration, is: impl Fn(&SoFar) -> bool) -> MutexGuard<'_, SoFar> {
        let waited = self.changed.wait_timeout_while(lock(&self.read), limit, |so_far| !is(so_far));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
