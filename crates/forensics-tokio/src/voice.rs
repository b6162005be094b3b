//! Where our events are said: on a thread of its own, in the order in which they come.
//!
//! A subscriber can hang: in a pipe whose reader stopped reading, in a journal that is stuck. A
//! teardown that called it would hang with it. So whoever has something to say leaves it here and
//! goes on; only the context line is waited for, and not for long. What cannot be said that way
//! and matters is tried once more on file descriptor 2.
//!
//! The thread comes with the first words and goes a second after the last, so that an idle guard
//! has none. Where none can be had, whoever says a thing calls the subscriber itself; but what
//! matters goes to file descriptor 2 alone, as it comes from those who must not hang.
//!
//! To wake a thread is a third of the way from a signal to its line. So the keeper says that line
//! itself, while this thread stands in: where the line takes long, the two change places.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;

use crate::bounded::bounded_or_here;
use crate::task;

/// How long what matters may take to be said.
pub(crate) const SAY_LIMIT: Duration = Duration::from_millis(200);

/// How long the end waits for what is left to be said. Longer: nobody else is held up by then, and a
/// busy machine can take its time to run a thread.
const FINISH_LIMIT: Duration = Duration::from_millis(500);

/// How long the thread stays after the last words.
const LINGER: Duration = Duration::from_secs(1);

/// How long somebody else may take to speak here, before the thread takes their place; and how often
/// it looks.
const PATIENCE: Duration = Duration::from_millis(50);

/// Something to say, and the subscriber of whoever says it.
struct Words {
    say: Box<dyn FnOnce() + Send>,
    dispatch: Dispatch,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Words>,
    /// How many were ever left here, and how many of them have been said.
    left: u64,
    said: u64,
    /// Whether the thread is there, or on its way.
    has_thread: bool,
    /// Whether something is being said, by whomever.
    speaking: bool,
    /// Whether the thread sleeps, and how many sleep until something is said: to wake nobody is a
    /// system call, too.
    idle: bool,
    awaited: usize,
    stand_in: Option<StandIn>,
}

/// Somebody else speaks here, since then, in the thread's place; which does this in theirs where they
/// take long.
struct StandIn {
    since: Instant,
    take_over: fn(),
}

struct Inner {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// The subscriber of whoever made it: for those whose thread has none.
    home: Dispatch,
}

/// See the module's documentation. Clones are the same voice.
#[derive(Clone)]
pub(crate) struct Voice(Arc<Inner>);

impl Voice {
    /// A voice that nobody has lent words yet.
    pub(crate) fn new() -> Self {
        let home = dispatcher::get_default(Dispatch::clone);
        Self(Arc::new(Inner { queue: Mutex::default(), changed: Condvar::new(), home }))
    }

    /// Has `say` called soon, with the present subscriber. Never blocks for longer than it takes to
    /// start a thread, where one can be had.
    pub(crate) fn say(&self, say: impl FnOnce() + Send + 'static) {
        self.say_boxed(Box::new(say));
    }

    fn say_boxed(&self, say: Box<dyn FnOnce() + Send>) {
        self.leave_boxed(say);
        self.speak_soon();
    }

    /// Has all that was [left](Self::leave) said soon, as [`say`](Self::say) does.
    pub(crate) fn speak_soon(&self) {
        let mut queue = self.lock();
        if !self.call(&mut queue) && !queue.speaking {
            // Better said here than not at all.
            drop(self.say_all(queue));
        }
    }

    /// The same, and waits until it is said; not past [`SAY_LIMIT`]. Then it, or what is in front
    /// of it, hangs, or there is no thread; and `text` goes to file descriptor 2, as far as that can
    /// be had. Never calls the subscriber itself.
    pub(crate) fn insist(
        &self,
        text: impl FnOnce() -> String,
        say: impl FnOnce() + Send + 'static,
    ) {
        let number = self.leave(say);
        self.assure(number, text);
    }

    /// What [`insist`](Self::insist) does after the words of that number have been left here.
    pub(crate) fn assure(&self, number: u64, text: impl FnOnce() -> String) {
        let has_speaker = self.call(&mut self.lock());
        if !has_speaker || !self.wait(number, SAY_LIMIT) {
            write_at_last(&text());
        }
    }

    /// Has the thread come, as there will be something to say in a moment, or is already.
    pub(crate) fn come(&self) {
        self.call(&mut self.lock());
    }

    /// Says here and now what has been [left](Self::leave), where the thread can stand in: it is
    /// there, or can be had, and does not speak itself. Returns whether the caller has kept its place: where
    /// the subscriber takes long, the thread does `take_over`, and the caller speaks in the thread's place.
    pub(crate) fn speak_here(&self, take_over: fn()) -> bool {
        let mut queue = self.lock();
        if queue.waiting.is_empty() || queue.speaking || !self.has_thread(&mut queue) {
            return true;
        }
        queue.stand_in = Some(StandIn { since: Instant::now(), take_over });
        let mut queue = self.say_all(queue);
        if queue.stand_in.take().is_some() {
            return true;
        }
        drop(queue);
        self.speak();
        false
    }

    /// Whether the words of this number, and all before, have been said.
    pub(crate) fn has_said(&self, number: u64) -> bool {
        self.lock().said >= number
    }

    /// Waits until all is said; not past [`FINISH_LIMIT`].
    pub(crate) fn finish(&self) {
        let left = self.lock().left;
        self.wait(left, FINISH_LIMIT);
    }

    /// Leaves something to say, for the caller [to say](Self::speak_here), or for the thread that it
    /// [calls](Self::come). Returns the number of these words. Never blocks.
    pub(crate) fn leave(&self, say: impl FnOnce() + Send + 'static) -> u64 {
        self.leave_boxed(Box::new(say))
    }

    fn leave_boxed(&self, say: Box<dyn FnOnce() + Send>) -> u64 {
        let dispatch = dispatcher::get_default(Dispatch::clone);
        let dispatch = match dispatch.is::<NoSubscriber>() {
            true => self.0.home.clone(),
            false => dispatch,
        };
        let mut queue = self.lock();
        queue.waiting.push_back(Words { say, dispatch });
        queue.left += 1;
        queue.left
    }

    /// Sees to it that the thread speaks; `false` where none can be had.
    fn call(&self, queue: &mut Queue) -> bool {
        if queue.idle && !queue.waiting.is_empty() {
            self.0.changed.notify_all();
        }
        self.has_thread(queue)
    }

    /// Whether the thread is there by now, asleep as it may be.
    fn has_thread(&self, queue: &mut Queue) -> bool {
        if !queue.has_thread {
            let voice = self.clone();
            // Not before the lock is let go, and none beside it.
            let thread = task::thread("shutdown-voice", move || voice.speak());
            queue.has_thread = thread.is_ok();
        }
        queue.has_thread
    }

    fn speak(&self) {
        let mut queue = self.lock();
        let mut quiet = Instant::now();
        loop {
            if let Some(other) = &queue.stand_in {
                if other.since.elapsed() >= PATIENCE {
                    let take_over = other.take_over;
                    queue.stand_in = None;
                    drop(queue);
                    return take_over();
                }
            } else if !queue.speaking && !queue.waiting.is_empty() {
                queue = self.say_all(queue);
                quiet = Instant::now();
            } else if quiet.elapsed() >= LINGER {
                queue.has_thread = false;
                return;
            }
            let nothing_to_say = |queue: &mut Queue| queue.speaking || queue.waiting.is_empty();
            queue.idle = true;
            let waited = self.0.changed.wait_timeout_while(queue, PATIENCE, nothing_to_say);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            queue.idle = false;
        }
    }

    fn say_all<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.speaking = true;
        while let Some(Words { say, dispatch }) = queue.waiting.pop_front() {
            drop(queue);
            // A subscriber that panics must not silence what comes after.
            let say = || dispatcher::with_default(&dispatch, say);
            let _ = catch_unwind(AssertUnwindSafe(say));
            queue = self.lock();
            queue.said += 1;
            if queue.awaited > 0 {
                self.0.changed.notify_all();
            }
        }
        queue.speaking = false;
        queue
    }

    /// Whether the words of this number, and all before, have been said in time.
    fn wait(&self, number: u64, limit: Duration) -> bool {
        let unsaid = |queue: &mut Queue| queue.said < number;
        let mut queue = self.lock();
        queue.awaited += 1;
        let waited = self.0.changed.wait_timeout_while(queue, limit, unsaid);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.awaited -= 1;
        queue.said >= number
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_at_last(text: &str) {
    let line = format!("shutdown: {text}\n");
    // A write to a full pipe hangs, too.
    bounded_or_here(SAY_LIMIT, move || write_to_stderr(line.as_bytes()));
}

/// Writes to file descriptor 2 as it is. `eprintln!` would wait for the lock of `std::io::Stderr`,
/// which whoever hangs may hold, and panics where nobody reads any more.
///
/// What a full pipe has no room for is lost, so that this hangs in none unless its writers race.
fn write_to_stderr(line: &[u8]) {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(std::os::fd::AsFd::as_fd(&stderr), PollFlags::POLLOUT)];
    let limit = PollTimeout::try_from(SAY_LIMIT).unwrap_or(PollTimeout::ZERO);
    // No more at once than a pipe with any room takes without waiting (`PIPE_BUF`).
    for part in line.chunks(4096) {
        if !matches!(poll(&mut ready, limit), Ok(1..)) || write(&stderr, part).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn words_are_said_in_their_order_and_a_panic_silences_nobody() {
        let voice = Voice::new();
        let (heard, hear) = mpsc::channel();
        for n in 0..100 {
            let heard = heard.clone();
            voice.say(move || {
                assert_ne!(n, 50, "one that panics");
                heard.send(n).unwrap();
            });
        }
        // Until nobody is left who could say more.
        drop(heard);
        let said: Vec<i32> = hear.iter().collect();
        assert_eq!(said, (0..100).filter(|n| *n != 50).collect::<Vec<_>>());
    }

    #[test]
    fn who_speaks_after_words_that_hang_goes_on() {
        let voice = Voice::new();
        let (release, hang) = mpsc::channel::<()>();
        voice.say(move || hang.recv().unwrap());
        let (heard, hear) = mpsc::channel();
        voice.insist(|| "to fd 2".to_owned(), move || heard.send(()).unwrap());
        assert!(hear.try_recv().is_err());
        // Nothing is lost where it only took long.
        release.send(()).unwrap();
        hear.recv().unwrap();
    }

    #[test]
    fn who_leaves_words_may_say_them_itself_while_the_thread_stands_in() {
        let voice = Voice::new();
        let (heard, hear) = mpsc::channel();
        let says = |word| {
            let heard = heard.clone();
            move || heard.send((word, std::thread::current().id())).unwrap()
        };
        let nobody = || unreachable!("the thread takes the place of nobody who returns");
        let first = voice.leave(says(1));
        assert!(!voice.has_said(first));
        assert!(voice.speak_here(nobody));
        assert_eq!(hear.try_recv().unwrap(), (1, std::thread::current().id()));
        assert!(voice.has_said(first));
        // Else the thread does.
        voice.leave(says(2));
        voice.come();
        let (word, thread) = hear.recv().unwrap();
        assert_eq!(word, 2);
        assert_ne!(thread, std::thread::current().id());
        // The thread is what it was.
        voice.say(says(3));
        assert_eq!(hear.recv().unwrap(), (3, thread));
    }

    #[test]
    fn where_words_hang_the_thread_takes_the_place_of_who_says_them() {
        static TAKEN: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);
        let (take, taken) = mpsc::channel();
        *TAKEN.lock().unwrap() = Some(take);
        let voice = Voice::new();
        let (release, hang) = mpsc::channel::<()>();
        voice.leave(move || hang.recv().unwrap());
        let speaker = voice.clone();
        let speaks =
            std::thread::spawn(move || speaker.speak_here(|| drop(TAKEN.lock().unwrap().take())));
        // Until nobody is left who holds the other end.
        assert!(taken.recv().is_err());
        let (heard, hear) = mpsc::channel();
        voice.say(move || heard.send(std::thread::current().id()).unwrap());
        assert!(hear.try_recv().is_err());
        release.send(()).unwrap();
        // It is the voice by now.
        assert_eq!(hear.recv().unwrap(), speaks.thread().id());
        assert!(!speaks.join().unwrap());
    }

    #[test]
    fn the_words_reach_the_subscriber_of_who_said_them_or_of_who_made_the_voice() {
        use tracing_subscriber::layer::SubscriberExt;
        struct Count(mpsc::Sender<String>);
        impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Count {
            fn on_event(
                &self,
                event: &tracing::Event<'_>,
                _: tracing_subscriber::layer::Context<'_, S>,
            ) {
                self.0.send(event.metadata().target().to_owned()).unwrap();
            }
        }
        let (heard, hear) = mpsc::channel();
        let subscriber = |heard| tracing_subscriber::registry().with(Count(heard));
        let voice = tracing::subscriber::with_default(subscriber(heard), Voice::new);
        let (heard_here, hear_here) = mpsc::channel();
        tracing::subscriber::with_default(subscriber(heard_here), || {
            voice.insist(String::new, || tracing::info!(target: "here", "word"));
        });
        assert_eq!(hear_here.recv().as_deref(), Ok("here"));
        // Without one, that of who made the voice.
        voice.insist(String::new, || tracing::info!(target: "elsewhere", "word"));
        assert_eq!(hear.recv().as_deref(), Ok("elsewhere"));
    }
}
