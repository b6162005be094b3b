//! The panic hook. It keeps the message of a panic, so that the record can say which panic ended
//! the run.
//!
//! A panic that is caught does not end the run: tokio catches those of tasks, and we catch those of the
//! service. So the hook only keeps the message, and the code that sees the run end records it. With
//! `panic = "abort"` no code runs after the hook, so the hook records the panic itself.

use std::cell::RefCell;
use std::sync::Once;

use crate::outcome::panic_message;

/// The message of a panic, and the place as `file:line:column`.
#[derive(Debug, Clone)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) location: Option<String>,
}

thread_local! {
    /// Of this thread, because other threads can panic meanwhile: the next hook may take long to print a
    /// backtrace.
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Sets the hook, once in a process. It calls the hook that was set before. If a panic aborts the process,
/// the hook first passes it to `ends_the_run`.
pub(crate) fn install_hook(ends_the_run: fn(&Panic)) {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let panic = Panic {
                message: panic_message(info.payload()),
                location: info.location().map(ToString::to_string),
            };
            if cfg!(panic = "abort") {
                ends_the_run(&panic);
            }
            // An error means that the thread is ending. Its panic is then one without a message.
            let _ = LAST.try_with(|last| last.replace(Some(panic)));
            previous(info);
        }));
    });
}

/// The last panic of this thread.
pub(crate) fn last() -> Panic {
    let last = LAST.try_with(|last| last.borrow().clone()).ok().flatten();
    last.unwrap_or_else(|| Panic {
        message: "a panic with an unknown message".to_owned(),
        location: None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    use super::*;

    /// Says in its drop which panic drops it, after another thread has panicked.
    struct Dropped(Sender<String>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            assert!(thread::spawn(|| panic!("of another thread")).join().is_err());
            self.0.send(last().message).unwrap();
        }
    }

    #[test]
    fn a_panic_of_another_thread_is_not_taken_for_the_one_that_ends_the_run() {
        install_hook(|_| ());
        let (say, said) = channel();
        let ended = thread::spawn(move || {
            let _dropped = Dropped(say);
            panic!("of this thread");
        });
        assert!(ended.join().is_err());
        assert_eq!(said.recv().as_deref(), Ok("of this thread"));
    }
}
