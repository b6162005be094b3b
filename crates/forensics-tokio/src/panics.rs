//! The panic hook. It keeps the message of a panic, so that the record can say which panic ended
//! the run.
//!
//! A panic that is caught does not end the run: tokio catches those of tasks, and we catch those of the
//! service. So the hook only keeps the message, and the code that sees the run end records it. With
//! `panic = "abort"` no code runs after the hook, so the hook records the panic itself.

use std::sync::{Mutex, Once};

use crate::lock::lock;
use crate::outcome::panic_message;

/// The message of a panic, and the place as `file:line:column`.
#[derive(Debug, Clone)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) location: Option<String>,
}

static LAST: Mutex<Option<Panic>> = Mutex::new(None);

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
            *lock(&LAST) = Some(panic);
            previous(info);
        }));
    });
}

/// The last panic.
pub(crate) fn last() -> Panic {
    let unknown =
        || Panic { message: "a panic with an unknown message".to_owned(), location: None };
    lock(&LAST).clone().unwrap_or_else(unknown)
}
