//! The panic hook: it keeps the message of a panic, for the record of a run that the panic ends.
//!
//! A panic that is caught ends nothing: tokio catches those of tasks, we those of the service. So
//! the hook only keeps the message; the code that sees the run end by the panic records it. With
//! `panic = "abort"` no code runs after the hook, so the hook records it at once.

use std::sync::{Mutex, Once, PoisonError};

use crate::outcome::panic_message;

/// The last panic's message and place.
static LAST: Mutex<Option<(String, Option<String>)>> = Mutex::new(None);

/// Sets the hook, once a process; it calls the one that was set before. Where a panic aborts, the hook
/// first gives the message and place to `ends_the_run`.
pub(crate) fn watch(ends_the_run: fn(&str, Option<&str>)) {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let message = panic_message(info.payload());
            let location = info.location().map(ToString::to_string);
            if cfg!(panic = "abort") {
                ends_the_run(&message, location.as_deref());
            }
            *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some((message, location));
            previous(info);
        }));
    });
}

/// The last panic's message and place.
pub(crate) fn last() -> (String, Option<String>) {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    last.unwrap_or_else(|| ("a panic whose message is not known".to_owned(), None))
}
