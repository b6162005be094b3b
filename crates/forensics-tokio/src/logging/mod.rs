//! A subscriber for services that have none of their own.
//!
//! [`init`] writes to the journal where file descriptor 2 is its, and lines to stderr elsewhere.
//! Any other subscriber does as well; the user's own always wins. It differs from the plain
//! `tracing_subscriber::fmt` in one thing: of the events `Shutdown context: …` and
//! `Previous run: …`, whose message has all their facts in it, the fields are not repeated behind
//! the message ([`Concise`]).

mod journal;
mod message_id;

use std::{fmt, io};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::journal::Journal;
pub use self::message_id::MESSAGE_IDS;

/// Installs a subscriber for events of level `INFO` and above. Returns whether it was installed:
/// `false` where the program has one already, which then stays.
///
/// Where file descriptor 2 is the journal's (systemd sets `JOURNAL_STREAM`), events go there with
/// their fields, as [`Journal`] has it; where that cannot be reached, as lines on stderr that begin
/// with their priority, such as `<4>` (sd-daemon(3)). Elsewhere they are plain lines on stderr.
/// A line that cannot be written, as to a full disk or a pipe that nobody reads, is lost; a `fmt`
/// subscriber of one's own panics then unless it has `.log_internal_errors(false)`.
pub fn init() -> bool {
    if !journal::takes_stderr() {
        return tracing_subscriber::fmt()
            .with_writer(io::stderr)
            .log_internal_errors(false)
            .fmt_fields(Concise::default())
            .try_init()
            .is_ok();
    }
    init_journal().unwrap_or_else(|_| {
        tracing_subscriber::fmt()
            .with_writer(io::stderr)
            .log_internal_errors(false)
            .with_ansi(false)
            .fmt_fields(Concise::default())
            .event_format(WithPriority(Format::default().without_time()))
            .try_init()
            .is_ok()
    })
}

/// The same to the journal, whatever file descriptor 2 is.
///
/// # Errors
/// Where the journal cannot be reached.
pub fn init_journal() -> io::Result<bool> {
    let journal = Journal::connect()?;
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(journal);
    Ok(subscriber.try_init().is_ok())
}

/// Lines that the journal takes for what they are, by the priority in front of them.
struct WithPriority(Format<tracing_subscriber::fmt::format::Full, ()>);

impl<S, N> FormatEvent<S, N> for WithPriority
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", journal::priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// Formats fields as tracing-subscriber does, except for those of a context event: its message
/// says them already. For a `fmt` subscriber of one's own, by `.fmt_fields(Concise::default())`.
#[derive(Debug, Default)]
pub struct Concise(DefaultFields);

impl<'writer> FormatFields<'writer> for Concise {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut message = ContextMessage(None);
        fields.record(&mut message);
        match message.0 {
            Some(message) => writer.write_str(&message),
            None => self.0.format_fields(writer, fields),
        }
    }
}

/// The message of a context event.
struct ContextMessage(Option<String>);

impl Visit for ContextMessage {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let message = format!("{value:?}");
            let said = ["Shutdown context: ", "Previous run: "];
            self.0 = said.iter().any(|start| message.starts_with(start)).then_some(message);
        }
    }
}
