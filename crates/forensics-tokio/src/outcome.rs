//! How a phase, or the service itself, can end.

use std::any::Any;
use std::fmt::Display;

use forensics_core::escape::{MAX_TEXT_CHARS, truncate};
pub use forensics_core::record::PhaseOutcome as Outcome;
use serde::{Deserialize, Serialize};

/// How the service's own future ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "error", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServiceOutcome {
    /// It ended well, before or during the teardown.
    Ended,
    /// It returned this error.
    Failed(String),
    /// It panicked with this message.
    Panicked(String),
    /// It was still running after the last phase, and was dropped.
    Dropped,
}

impl ServiceOutcome {
    /// What it failed or panicked with.
    pub(crate) fn error(&self) -> Option<String> {
        match self {
            ServiceOutcome::Failed(error) => Some(error.clone()),
            ServiceOutcome::Panicked(message) => Some(format!("panicked: {message}")),
            _ => None,
        }
    }
}

/// What a phase or a service may return: nothing, or a `Result` whose error can be shown; or it
/// never returns (`!`).
///
/// Errors are shown in their alternate form `{:#}`, in which `anyhow` and its like print the whole
/// chain of causes; of that, the first 4000 characters are kept.
pub trait IntoOutcome {
    /// The error's text, where there is one.
    fn into_error(self) -> Option<String>;
}

impl IntoOutcome for () {
    fn into_error(self) -> Option<String> {
        None
    }
}

impl<T, E: Display> IntoOutcome for Result<T, E> {
    fn into_error(self) -> Option<String> {
        self.err().map(|error| truncate(format!("{error:#}"), MAX_TEXT_CHARS))
    }
}

/// A service that loops forever returns `!`, whose name cannot be written on stable Rust; as what a
/// function pointer returns it can.
#[doc(hidden)]
#[allow(unreachable_pub)] // The implementation below is public, so this must be, too.
pub trait Returns {
    type Output;
}

impl<T> Returns for fn() -> T {
    type Output = T;
}

impl IntoOutcome for <fn() -> ! as Returns>::Output {
    fn into_error(self) -> Option<String> {
        self
    }
}

/// The message of a panic, where it is text.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    truncate(text.unwrap_or("a panic without a text"), MAX_TEXT_CHARS)
}
