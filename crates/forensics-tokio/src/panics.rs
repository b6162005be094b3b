//! The panic hook: what a panic said, for the record of a run that it ends.
//!
//! A panic that is caught ends nothing: tokio catches those of tasks, we those of the service. So
//! the hook only remembers; who sees that the run ends by it writes it down. Where the program is
//! built with `panic = "abort"` nobody gets to see that, and the hook writes at once.

use std::panic::PanicHookInfo;
use std::sync::{Mutex, Once, PoisonError};

use crate::outcome::panic_message;

/// The last panic's message and place.
static LAST: Mutex<Option<(String, Option<String>)>> = Mutex::new(None);

/// Sets the hook, once a process, before whichever is set already. Where a panic aborts, the hook
/// hands its message and place to `ends_the_run`.
pub(crate) fn watch(ends_the_run: fn(&str, Option<&str>)) {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let theirs = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            note(info, ends_the_run);
            theirs(info);
        }));
    });
}

/// What the last panic said, and where.
pub(crate) fn last() -> (String, Option<String>) {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    last.unwrap_or_else(|| ("a panic before the hook was set".to_owned(), None))
}

fn note(info: &PanicHookInfo<'_>, ends_the_run: fn(&str, Option<&str>)) {
    let message = panic_message(info.payload());
    let location = info.location().map(ToString::to_string);
    if cfg!(panic = "abort") {
        ends_the_run(&message, location.as_deref());
    }
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some((message, location));
}
