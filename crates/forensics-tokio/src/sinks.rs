//! Where an event of the log goes: to the `tracing` subscriber, to the logger of the crate `log`, and
//! to stderr if neither of them shows it and it is important.
//!
//! The macros of `tracing` are not used for our events. They pass an event to a logger only if some
//! crate enables tracing's feature `log`, and only until a subscriber is set for the first time, even
//! for one thread. The log thread must not set one in a service that has none, because that would
//! also keep the service's own events from its logger. So each event is built here, and passed to
//! each receiver in the form that suits it.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forensics_core::logfmt::{Value, needs_quotes};
use log::Record;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use tracing::dispatcher::{self, Dispatch};
use tracing::field::{Field, Visit, display};
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing::subscriber::NoSubscriber;
use tracing::{Event, Level, Metadata, Span};

use crate::blocking::run_with_timeout;
#[cfg(feature = "logging")]
use crate::logging;

/// How long an important event may take to be emitted before its text is written to file descriptor
/// 2, and how long that write may block.
pub(crate) const EMIT_LIMIT: Duration = Duration::from_millis(200);

/// The events of level INFO that are important: they tell who stopped the service, and what it did then.
const OF_A_STOP: [&str; 6] = [
    "shutdown_context",
    "stop_explained",
    "teardown_started",
    "phase_waits",
    "phase_finished",
    "shutdown_complete",
];

/// The target of all our events.
pub(crate) const TARGET: &str = "shutdown";

/// Builds an event and passes it to a receiver. The arguments are its message, and whether the event
/// has the fields that the message may already contain.
pub(crate) type Build<'a> = &'a dyn Fn(&dyn tracing::Value, bool, &mut dyn FnMut(&Event<'_>));

/// Builds an event of the log and emits it.
///
/// The fields in `in_message` are also in the message. A line of text shows them only in the message.
/// `short` is the message without them, for subscribers that show all fields, such as JSON.
///
/// The event is in the span after `in`, or else in no span. It is never in the current span, because
/// that can be the span of a phase: if no log thread can be started, the task of a phase emits events.
macro_rules! event {
    (
        $level:ident($name:literal, [$($message:tt)+]
        $(, in $span:expr)?
        $(, short [$($short:tt)+])?
        $(, in_message { $($in_message:ident = $in_message_value:expr),* $(,)? })?
        $(, { $($field:ident = $value:expr),* $(,)? })?)
    ) => {{
        static CALLSITE: tracing_core::callsite::DefaultCallsite =
            tracing_core::callsite::DefaultCallsite::new(&METADATA);
        static METADATA: tracing::Metadata<'static> = tracing_core::metadata! {
            name: $name,
            target: $crate::sinks::TARGET,
            level: $crate::sinks::level!($level),
            fields: &[
                "message", $($(stringify!($in_message),)*)? "service", $($(stringify!($field),)*)?
            ],
            callsite: &CALLSITE,
            kind: tracing_core::metadata::Kind::EVENT,
        };
        // An event that nothing receives costs nothing.
        if $crate::sinks::may_be_shown(*METADATA.level()) {
            #[allow(unused_mut, unused_assignments)]
            let mut short: Option<String> = None;
            $(short = Some(format!($($short)+));)?
            #[allow(unused_mut, unused_assignments)]
            let mut span = tracing::Span::none();
            $(span = $span;)?
            $crate::sinks::emit(
                &METADATA,
                &span,
                &format!($($message)+),
                short.as_deref(),
                &|message, _shows_all, receive| {
                    let service = $crate::sinks::Origin::shown_service();
                    receive(&tracing::Event::new_child_of(
                        span.id(),
                        &METADATA,
                        &METADATA.fields().value_set_all(&[
                            Some(message),
                            $($(Some(&$in_message_value as &dyn tracing::Value).filter(|_| _shows_all),)*)?
                            Some(&service as &dyn tracing::Value),
                            $($(Some(&$value as &dyn tracing::Value),)*)?
                        ]),
                    ));
                },
            );
        }
    }};
}

/// The level with this name.
macro_rules! level {
    (error) => {
        tracing::Level::ERROR
    };
    (warn) => {
        tracing::Level::WARN
    };
    (info) => {
        tracing::Level::INFO
    };
    (debug) => {
        tracing::Level::DEBUG
    };
}

pub(crate) use {event, level};

/// A name as a field: without quotes if that is unambiguous, otherwise like all other text.
pub(crate) fn named(name: &str) -> Box<dyn tracing::Value + '_> {
    if needs_quotes(name) { Box::new(name) } else { Box::new(display(name)) }
}

/// The guard that an event is about.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    service: Arc<str>,
    /// Whether an important event is written to stderr if nothing else receives it.
    to_stderr: bool,
}

thread_local! {
    static ORIGIN: RefCell<Option<Origin>> = const { RefCell::new(None) };
}

/// The service of the first guard.
static FIRST: OnceLock<Arc<str>> = OnceLock::new();

/// Whether guards of different services were installed. Each event then names its service.
static HAS_SEVERAL: AtomicBool = AtomicBool::new(false);

impl Origin {
    pub(crate) fn new(service: &str, to_stderr: bool) -> Self {
        let service: Arc<str> = service.into();
        if *FIRST.get_or_init(|| service.clone()) != service {
            HAS_SEVERAL.store(true, Ordering::Relaxed);
        }
        Self { service, to_stderr }
    }

    /// The origin of the events of this thread.
    pub(crate) fn current() -> Option<Self> {
        ORIGIN.with_borrow(Clone::clone)
    }

    /// Runs `work`, whose events are about this guard.
    pub(crate) fn scope<T>(origin: Option<Self>, work: impl FnOnce() -> T) -> T {
        struct Reset(Option<Origin>);
        impl Drop for Reset {
            fn drop(&mut self) {
                ORIGIN.set(self.0.take());
            }
        }
        let _reset = Reset(ORIGIN.replace(origin));
        work()
    }

    /// The name of the service, if it must be shown to tell the guards of a process apart.
    pub(crate) fn shown_service() -> Option<String> {
        Self::current().and_then(|origin| origin.name_to_show().map(str::to_owned))
    }

    pub(crate) fn name_to_show(&self) -> Option<&str> {
        HAS_SEVERAL.load(Ordering::Relaxed).then_some(&*self.service)
    }
}

/// Passes an event to each receiver that wants it. `message` may contain facts that are also fields, and `short`
/// is the message without them.
pub(crate) fn emit(
    metadata: &'static Metadata<'static>,
    span: &Span,
    message: &str,
    short: Option<&str>,
    build: Build<'_>,
) {
    // Entered for filters that look at the current span.
    let _in = span.enter();
    let level = *metadata.level();
    let mut is_shown = false;
    if level <= STATIC_MAX_LEVEL && level <= LevelFilter::current() {
        dispatcher::get_default(|dispatch| {
            if !is_subscriber(dispatch) || !dispatch.enabled(metadata) {
                return;
            }
            // The facts are in the message or are fields.
            let is_text = has_lines(dispatch) || has_journal(dispatch);
            let text = if is_text { message } else { short.unwrap_or(message) };
            let is_read = Cell::new(false);
            let message = display(Message { text, is_read: &is_read });
            dispatch_event(dispatch, build, &message, !is_text);
            is_shown = is_read.get();
        });
    }
    let text = || {
        let mut text = message.to_owned();
        build(&"", false, &mut |event| event.record(&mut AsText(&mut text)));
        text
    };
    with_logger(log_level(level), |logger, about| {
        is_shown = true;
        logger.log(
            &Record::builder()
                .metadata(about)
                .args(format_args!("{}", text()))
                .module_path_static(metadata.module_path())
                .file_static(metadata.file())
                .line(metadata.line())
                .build(),
        );
        // The process may be ended by force after this event, and then flushes nothing.
        logger.flush();
    });
    let is_important = level <= Level::WARN || OF_A_STOP.contains(&metadata.name());
    if is_important && !is_shown && may_use_stderr() {
        write_to_stderr(format!("{level:>5} {TARGET}: {}\n", text()).as_bytes());
    }
}

/// The message of an event, which notices whether a subscriber reads it. `enabled` does not show that: it is
/// also true if each layer has a filter of its own that drops the event, and for layers that only export
/// spans.
struct Message<'a> {
    text: &'a str,
    /// Whether a subscriber has read the message.
    is_read: &'a Cell<bool>,
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.is_read.set(true);
        f.write_str(self.text)
    }
}

/// Emits an event. Our layer for the journal also gets the fields that are only in the message.
#[cfg(feature = "logging")]
fn dispatch_event(
    dispatch: &Dispatch,
    build: Build<'_>,
    message: &dyn tracing::Value,
    shows_all: bool,
) {
    let emit = || build(message, shows_all, &mut |event| dispatch.event(event));
    if has_journal(dispatch) { logging::with_all_fields(build, emit) } else { emit() }
}

#[cfg(not(feature = "logging"))]
fn dispatch_event(
    dispatch: &Dispatch,
    build: Build<'_>,
    message: &dyn tracing::Value,
    shows_all: bool,
) {
    build(message, shows_all, &mut |event| dispatch.event(event));
}

#[cfg(feature = "logging")]
fn has_journal(dispatch: &Dispatch) -> bool {
    dispatch.is::<logging::JournaldLayer>()
}

#[cfg(not(feature = "logging"))]
fn has_journal(_: &Dispatch) -> bool {
    false
}

/// Whether some layer writes lines of text, in which the fields of an event follow its message.
#[cfg(feature = "logging")]
fn has_lines(dispatch: &Dispatch) -> bool {
    use tracing_subscriber::fmt::format::DefaultFields;
    dispatch.is::<DefaultFields>() || dispatch.is::<logging::CompactFields>()
}

#[cfg(not(feature = "logging"))]
fn has_lines(_: &Dispatch) -> bool {
    false
}

/// Whether the events of a phase are in its span. In lines and in JSON this would show the name of
/// the phase twice. The journal finds the members of a group by the span of the group.
pub(crate) fn shows_spans() -> bool {
    dispatcher::get_default(|dispatch| has_journal(dispatch) && !has_lines(dispatch))
}

/// Whether the current thread has a subscriber.
pub(crate) fn has_subscriber() -> bool {
    dispatcher::get_default(is_subscriber)
}

pub(crate) fn is_subscriber(dispatch: &Dispatch) -> bool {
    !dispatch.is::<NoSubscriber>()
}

/// Runs `work` with this subscriber. Sets none if there is none: see the module's documentation.
pub(crate) fn with_subscriber<T>(dispatch: &Dispatch, work: impl FnOnce() -> T) -> T {
    if is_subscriber(dispatch) { dispatcher::with_default(dispatch, work) } else { work() }
}

/// Whether some receiver may want events of this level. Does not call any, because it may block.
pub(crate) fn may_want(level: Level) -> bool {
    LevelFilter::current() >= level || log::max_level() >= log_level(level)
}

/// Whether an event of this level may be shown anywhere. Calls no receiver, either.
pub(crate) fn may_be_shown(level: Level) -> bool {
    may_want(level) || may_use_stderr()
}

/// Whether important events of this thread that nothing else receives are written to stderr.
fn may_use_stderr() -> bool {
    Origin::current().is_some_and(|origin| origin.to_stderr)
}

/// Whether the subscriber or the logger seems to want our events of level INFO. Both are called.
fn is_received() -> bool {
    let mut is_logged = false;
    with_logger(log::Level::Info, |_, _| is_logged = true);
    is_logged || tracing::enabled!(target: TARGET, Level::INFO)
}

/// Writes a line to stderr if nothing receives our events.
pub(crate) fn warn_if_not_received() {
    if !may_use_stderr() {
        return;
    }
    // On another thread, because the subscriber, the logger and stderr may block.
    let dispatch = dispatcher::get_default(Dispatch::clone);
    let _ = run_with_timeout(EMIT_LIMIT, move || {
        if with_subscriber(&dispatch, is_received) {
            return;
        }
        let why = why_not_received(
            is_subscriber(&dispatch),
            log::max_level(),
            (STATIC_MAX_LEVEL, log::STATIC_MAX_LEVEL),
        );
        let line = format!(
            " WARN {TARGET}: {why}. Until then the lines of a stop, warnings and errors that no log receives \
             go to stderr (FORENSICS_STDERR_FALLBACK=no turns this off)\n"
        );
        write_to_stderr(line.as_bytes());
    });
}

/// Why nothing receives our events of level INFO, and the fix. `compiled` are the levels of tracing and
/// of `log` that the program has been compiled with.
fn why_not_received(
    has_subscriber: bool,
    logger: log::LevelFilter,
    compiled: (LevelFilter, log::LevelFilter),
) -> String {
    let (receiver, from, is_compiled) = if has_subscriber {
        ("the tracing subscriber", "tracing", compiled.0 >= LevelFilter::INFO)
    } else {
        ("the logger", "log", compiled.1 >= log::LevelFilter::Info)
    };
    let (what, fix) = if !has_subscriber && logger == log::LevelFilter::Off {
        (
            "there is no tracing subscriber, and the logger of the crate `log` is missing or off"
                .into(),
            "before install(), set up one that receives `shutdown=info`, as \
             forensics_tokio::logging::init() does",
        )
    } else if is_compiled {
        (
            format!("{receiver} drops the target `shutdown` at INFO"),
            if has_subscriber {
                "add `shutdown=info` to its filter, as in RUST_LOG=info or RUST_LOG=my_app=debug,shutdown=info"
            } else {
                "add `shutdown=info` to its filter, as in RUST_LOG=info or RUST_LOG=my_app=debug,shutdown=info \
                 with env_logger; if it has only a level, as simplelog has, raise that to INFO"
            },
        )
    } else {
        (
            format!("a cargo feature of the crate `{from}` (max_level_…) removes the level INFO"),
            "compile the service without that feature",
        )
    };
    format!("{what}, so the log will not show why this service stops; fix: {fix}")
}

/// Calls `log` if there is a logger that wants our events of this level.
///
/// The logger is called without a subscriber. So a logger that passes records on to the subscriber,
/// as that of tracing-log does, adds nothing to what the subscriber already has.
fn with_logger(level: log::Level, log: impl FnOnce(&dyn log::Log, log::Metadata<'_>)) {
    if level > log::STATIC_MAX_LEVEL || level > log::max_level() {
        return;
    }
    let call = || {
        let about = log::Metadata::builder().level(level).target(TARGET).build();
        let logger = log::logger();
        if logger.enabled(&about) {
            log(logger, about);
        }
    };
    if has_subscriber() { dispatcher::with_default(&Dispatch::none(), call) } else { call() }
}

fn log_level(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Info,
        Level::DEBUG => log::Level::Debug,
        _ => log::Level::Trace,
    }
}

/// Appends the fields of an event to its message, as ` name=value`.
struct AsText<'a>(&'a mut String);

impl Visit for AsText<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{}", Value(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            // Fails only if the value's `Debug` does.
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }
}

/// Writes to file descriptor 2 directly. `eprintln!` would wait for the lock of `std::io::Stderr`,
/// which a blocked thread may hold, and it panics if the pipe has no reader any more.
///
/// Text that does not fit into a full pipe is lost. So this does not block, unless another writer
/// fills the pipe between poll(2) and write(2).
pub(crate) fn write_to_stderr(line: &[u8]) {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let limit = PollTimeout::try_from(EMIT_LIMIT).unwrap_or(PollTimeout::ZERO);
    // A pipe that is ready for writing takes this many bytes without blocking (`PIPE_BUF`).
    for part in line.chunks(4096) {
        if !matches!(poll(&mut ready, limit), Ok(1..)) || write(&stderr, part).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_what_hides_our_events() {
        use log::LevelFilter as Log;
        let all = (LevelFilter::TRACE, Log::Trace);
        for (has_subscriber, logger, compiled, expected) in [
            (true, Log::Off, all, "the tracing subscriber drops the target `shutdown`"),
            (true, Log::Warn, all, "the tracing subscriber drops the target `shutdown`"),
            (
                true,
                Log::Off,
                (LevelFilter::WARN, Log::Trace),
                "a cargo feature of the crate `tracing`",
            ),
            (false, Log::Warn, all, "the logger drops the target `shutdown`"),
            (false, Log::Warn, (LevelFilter::WARN, Log::Trace), "the logger drops"),
            (
                false,
                Log::Info,
                (LevelFilter::TRACE, Log::Warn),
                "a cargo feature of the crate `log`",
            ),
            (
                false,
                Log::Off,
                all,
                "there is no tracing subscriber, and the logger of the crate `log` is",
            ),
        ] {
            let why = why_not_received(has_subscriber, logger, compiled);
            assert!(why.starts_with(expected), "{why}");
            assert!(why.contains("; fix: "), "{why}");
        }
    }
}
