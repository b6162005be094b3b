//! A subscriber for services that have none of their own.
//!
//! [`init`] writes events to the journal if stderr is connected to it, and lines to stderr otherwise. Any
//! other subscriber works as well, and [`init`] never replaces one that the service has installed. It
//! differs from the plain `tracing_subscriber::fmt` in one way: the messages of `Shutdown context: …` and
//! `Previous run: …` contain all their facts, so their fields are not repeated ([`CompactFields`]).

mod journal;
mod message_id;

use std::io::IsTerminal;
use std::{fmt, io};

use tracing::Event;
use tracing::field::Field;
use tracing_subscriber::Registry;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::journal::JournaldLayer;
pub use self::message_id::MESSAGE_IDS;

type FormatLine =
    fn(&FmtContext<'_, Registry, CompactFields>, Writer<'_>, &Event<'_>) -> fmt::Result;

/// Installs a subscriber for events of level `INFO` and above. Returns `false` if the program already has
/// one, which then stays.
///
/// If file descriptor 2 is the journal's (systemd sets `JOURNAL_STREAM`), events go to the journal with
/// their fields, see [`JournaldLayer`]. If the journal cannot be reached, they are lines on stderr that
/// begin with their priority, such as `<4>` (sd-daemon(3)). Otherwise they are plain lines on stderr.
/// A line that cannot be written, for example because the disk is full, is lost. A `fmt` subscriber of
/// your own panics in that case unless it has `.log_internal_errors(false)`.
pub fn init() -> bool {
    let is_journal = journal::takes_stderr();
    if is_journal && let Ok(is_installed) = init_journal() {
        return is_installed;
    }
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        // Another crate may have turned on the feature `ansi`. Only a terminal gets colour.
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false)
        .fmt_fields(CompactFields::default());
    if is_journal {
        let with_priority: FormatLine = |context, mut writer, event| {
            write!(writer, "<{}>", journal::priority(*event.metadata().level()))?;
            Format::default().without_time().format_event(context, writer, event)
        };
        lines.event_format(with_priority).try_init().is_ok()
    } else {
        lines.try_init().is_ok()
    }
}

/// Installs the subscriber for the journal, even if file descriptor 2 is not the journal's.
///
/// # Errors
/// If the journal cannot be reached.
pub fn init_journal() -> io::Result<bool> {
    let journal = JournaldLayer::connect()?;
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(journal);
    Ok(subscriber.try_init().is_ok())
}

/// Formats fields as tracing-subscriber does, except for those of a context event, whose message already
/// contains them. For a `fmt` subscriber of your own: `.fmt_fields(CompactFields::default())`.
#[derive(Debug, Default)]
pub struct CompactFields(DefaultFields);

impl<'writer> FormatFields<'writer> for CompactFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut context = None;
        fields.record(&mut |field: &Field, value: &dyn fmt::Debug| {
            if field.name() == "message" {
                context = Some(format!("{value:?}")).filter(|text| {
                    text.starts_with("Shutdown context: ") || text.starts_with("Previous run: ")
                });
            }
        });
        match context {
            Some(message) => writer.write_str(&message),
            None => self.0.format_fields(writer, fields),
        }
    }
}
