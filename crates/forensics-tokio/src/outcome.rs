//! How a phase, or the service itself, can end.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use forensics_core::escape::{MAX_TEXT_CHARS, error_chain, truncate};
pub use forensics_core::record::PhaseOutcome as Outcome;
use serde::{Deserialize, Serialize};

/// How the service's own future ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "error", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServiceOutcome {
    /// It ended without an error, before or during the teardown.
    Ended,
    /// It returned this error.
    Failed(String),
    /// It panicked with this message.
    Panicked(String),
    /// It was still running after the last phase, and was dropped.
    Dropped,
}

impl ServiceOutcome {
    /// Its error or panic message.
    pub(crate) fn error(&self) -> Option<String> {
        match self {
            ServiceOutcome::Failed(error) => Some(error.clone()),
            ServiceOutcome::Panicked(message) => Some(format!("panicked: {message}")),
            _ => None,
        }
    }
}

/// What a phase or a service may return: `()`, a `Result`, a collection of these, or `!` if it never
/// returns.
///
/// The error of a `Result` can be:
///
/// - any type that implements [`std::error::Error`], including those without `Send` or `Sync`;
/// - `&str`, `String` and other types that convert into `Box<dyn Error>`, such as `anyhow::Error`
///   and `eyre::Report`;
/// - `Box<dyn Error>`, also with `Send`, or with `Send` and `Sync`.
///
/// A type of your own that implements only `Display` can be passed as text:
/// `.map_err(|e| e.to_string())`.
///
/// The log, the record and the report show the error and all its
/// [sources](std::error::Error::source), separated by `: `. A source that the text already ends with
/// is not repeated. The text is cut after 4000 characters.
///
/// The `Ok` value is itself an outcome. So the error of a task is not missed: a
/// `JoinHandle<Result<(), E>>` gives a `Result<Result<(), E>, JoinError>`, and fails with either.
/// The same is true for [`tokio::time::timeout`]. An `Ok` value that is not an outcome must be dropped:
/// `.map(drop)`.
///
/// A `Vec`, an `Option`, an array or a tuple of outcomes fails if one of them does, and shows all
/// errors. These are what `JoinSet::join_all`, `JoinSet::join_next` and `tokio::join!` return.
///
/// The type parameter is always inferred. It lets the compiler tell the implementations apart.
#[diagnostic::on_unimplemented(
    message = "a phase or service cannot return `{Self}`",
    label = "returns `{Self}`",
    note = "return `()`, or a `Result<(), E>` whose error `E` implements `std::error::Error`, or a `Vec` or an \
            `Option` of these",
    note = "`.map(drop)` drops an `Ok` value, `.map_err(|e| e.to_string())` makes any error a text"
)]
pub trait IntoOutcome<Kind> {
    /// Returns the text of the error. `None` if there is no error.
    fn into_error(self) -> Option<String>;
}

/// An error that can be shown with its sources. It is implemented for every type that [`IntoOutcome`]
/// lists.
pub trait IntoBoxedError<Kind> {
    /// Converts the error into a boxed one.
    fn into_boxed(self) -> Box<dyn Error>;
}

/// The errors of several outcomes, as one text.
fn errors(outcomes: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let errors: Vec<String> = outcomes.into_iter().flatten().collect();
    (!errors.is_empty()).then(|| truncate(errors.join("; "), MAX_TEXT_CHARS))
}

/// Tells the implementations of the traits above apart.
#[allow(unreachable_pub)] // They are named in public implementations.
mod kind {
    pub struct Value;
    pub struct Never;
    pub struct Convertible;
    pub struct Send;
    pub struct SendSync;
    pub struct Several<T>(std::marker::PhantomData<T>);
}

impl IntoOutcome<kind::Value> for () {
    fn into_error(self) -> Option<String> {
        None
    }
}

impl IntoOutcome<kind::Value> for Infallible {
    fn into_error(self) -> Option<String> {
        match self {}
    }
}

impl<T: IntoOutcome<A>, E: IntoBoxedError<B>, A, B> IntoOutcome<(A, B)> for Result<T, E> {
    fn into_error(self) -> Option<String> {
        match self {
            Ok(value) => value.into_error(),
            Err(error) => Some(truncate(error_chain(&*error.into_boxed()), MAX_TEXT_CHARS)),
        }
    }
}

impl<T: IntoOutcome<A>, A> IntoOutcome<kind::Several<A>> for Vec<T> {
    fn into_error(self) -> Option<String> {
        errors(self.into_iter().map(T::into_error))
    }
}

impl<T: IntoOutcome<A>, A, const N: usize> IntoOutcome<kind::Several<A>> for [T; N] {
    fn into_error(self) -> Option<String> {
        errors(self.into_iter().map(T::into_error))
    }
}

impl<T: IntoOutcome<A>, A> IntoOutcome<kind::Several<A>> for Option<T> {
    fn into_error(self) -> Option<String> {
        self.and_then(T::into_error)
    }
}

/// Implements [`IntoOutcome`] for tuples.
macro_rules! tuples {
    ($(($($one:ident $kind:ident),+))+) => {$(
        impl<$($one: IntoOutcome<$kind>, $kind),+> IntoOutcome<kind::Several<($($kind,)+)>> for ($($one,)+) {
            #[allow(non_snake_case)] // The values have the names of their types.
            fn into_error(self) -> Option<String> {
                let ($($one,)+) = self;
                errors([$($one.into_error()),+])
            }
        }
    )+};
}

tuples! { (T A, U B) (T A, U B, V C) (T A, U B, V C, W D) }

impl<E: Into<Box<dyn Error>>> IntoBoxedError<kind::Convertible> for E {
    fn into_boxed(self) -> Box<dyn Error> {
        self.into()
    }
}

impl IntoBoxedError<kind::Send> for Box<dyn Error + Send> {
    fn into_boxed(self) -> Box<dyn Error> {
        self
    }
}

impl IntoBoxedError<kind::SendSync> for Box<dyn Error + Send + Sync> {
    fn into_boxed(self) -> Box<dyn Error> {
        self
    }
}

/// A service that loops forever returns `!`. Stable Rust has no name for that type, except as what a
/// function pointer returns.
#[doc(hidden)]
#[allow(unreachable_pub)] // The implementation below is public, so this must be, too.
pub trait Returns {
    type Output;
}

impl<T> Returns for fn() -> T {
    type Output = T;
}

impl IntoOutcome<kind::Never> for <fn() -> ! as Returns>::Output {
    fn into_error(self) -> Option<String> {
        self
    }
}

/// Runs a future that returns the text of its error, and returns how it ended.
///
/// Cancel safe. A future that has panicked is not polled again.
pub(crate) async fn outcome_of(future: impl Future<Output = Option<String>>) -> ServiceOutcome {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(None)) => Poll::Ready(ServiceOutcome::Ended),
        Ok(Poll::Ready(Some(error))) => Poll::Ready(ServiceOutcome::Failed(error)),
        Err(payload) => Poll::Ready(ServiceOutcome::Panicked(panic_message(&*payload))),
    })
    .await
}

/// The message of a panic, if it is text.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    truncate(text.unwrap_or("a panic without a text"), MAX_TEXT_CHARS)
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;

    use super::*;

    #[derive(Debug)]
    struct Failed(&'static str, Option<io::Error>);

    impl fmt::Display for Failed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|source| source as _)
        }
    }

    /// An error that names itself as its cause.
    #[derive(Debug)]
    struct Loop;

    impl fmt::Display for Loop {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&"loop".repeat(100))?;
            f.write_str("!")
        }
    }

    impl Error for Loop {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    fn full() -> io::Error {
        io::Error::other(Failed("disk full", Some(io::Error::other("no space left"))))
    }

    fn text<Kind>(outcome: impl IntoOutcome<Kind>) -> String {
        outcome.into_error().unwrap_or_default()
    }

    #[test]
    fn an_error_is_shown_with_all_its_sources() {
        let chain = || Failed("cannot flush", Some(full()));
        let expected = "cannot flush: disk full: no space left";
        assert_eq!(text(Err::<(), _>(chain())), expected);
        assert_eq!(text(Err::<(), Box<dyn Error>>(chain().into())), expected);
        assert_eq!(text(Err::<(), Box<dyn Error + Send>>(Box::new(chain()))), expected);
        assert_eq!(text(Err::<(), Box<dyn Error + Send + Sync>>(chain().into())), expected);
        assert_eq!(text(Err::<(), _>("no")), "no");
        assert_eq!(text(Err::<(), _>("no".to_owned())), "no");
    }

    #[test]
    fn a_source_that_its_error_shows_is_not_repeated() {
        let error = Failed("cannot flush: disk full", Some(full()));
        assert_eq!(text(Err::<(), _>(error)), "cannot flush: disk full: no space left");
        let same = Failed("disk full", Some(io::Error::other("disk full")));
        assert_eq!(text(Err::<(), _>(same)), "disk full");
    }

    #[test]
    fn an_error_that_is_its_own_source_has_a_bounded_text() {
        assert!(text(Err::<(), _>(Loop)).len() < 40 * 401);
    }

    #[tokio::test]
    async fn a_panic_in_the_text_of_an_error_is_an_outcome() {
        #[derive(Debug)]
        struct Unshowable;
        impl fmt::Display for Unshowable {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("no text")
            }
        }
        impl Error for Unshowable {}
        let outcome = outcome_of(async { Err::<(), _>(Unshowable).into_error() }).await;
        assert_eq!(outcome, ServiceOutcome::Panicked("no text".to_owned()));
    }

    #[test]
    fn each_error_of_several_outcomes_is_shown() {
        let [ok, one, two] = [Ok(()), Err("one"), Err("two")];
        assert_eq!(text(vec![ok, one, two]), "one; two");
        assert_eq!(text([ok, one]), "one");
        assert_eq!(text(Some(two)), "two");
        assert_eq!(text((ok, Err::<(), _>(io::Error::other("disk full")), two)), "disk full; two");
        assert_eq!(text(Ok::<_, io::Error>(vec![Ok::<_, &str>(one)])), "one");
        assert_eq!(None::<Result<(), &str>>.into_error(), None);
        assert_eq!(Vec::<()>::new().into_error(), None);
        assert_eq!(((), ok, Some(())).into_error(), None);
        let many = vec![Err::<(), _>("x".repeat(3000)); 3];
        assert!(text(many).chars().count() <= MAX_TEXT_CHARS + 1);
    }

    #[test]
    fn an_error_within_an_ok_is_an_error() {
        assert_eq!(text(Ok::<_, io::Error>(Err::<(), _>("inner"))), "inner");
        assert_eq!(text(Err::<Result<(), io::Error>, _>("outer")), "outer");
        assert_eq!(Ok::<Result<(), io::Error>, io::Error>(Ok(())).into_error(), None);
        assert_eq!(().into_error(), None);
    }
}
