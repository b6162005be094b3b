//! A subscriber for services that have none.
//!
//! [`init`] writes events to the journal if stderr is connected to it, and otherwise lines to
//! stderr. Any other subscriber works as well, and [`init`] never replaces one that the service has
//! installed. The lines are those of `tracing_subscriber::fmt`. A fact that is in a message, as in
//! `Shutdown context: …`, is only a field in subscribers that show all fields, such as JSON.

mod journal;
mod message_id;

use std::io::IsTerminal;
use std::{fmt, io};

use tracing::Event;
use tracing_subscriber::Registry;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::journal::JournaldLayer;
pub(crate) use self::journal::with_all_fields;
pub use self::message_id::MESSAGE_IDS;

type FormatLine =
    fn(&FmtContext<'_, Registry, CompactFields>, Writer<'_>, &Event<'_>) -> fmt::Result;

/// Installs a subscriber for events of level `INFO` and above. If the program already has a
/// subscriber, it is kept, and this returns `false`.
///
/// If file descriptor 2 is connected to the journal (systemd sets `JOURNAL_STREAM`), events go to
/// the journal with their fields, see [`JournaldLayer`]. If the journal cannot be reached, they are
/// written to stderr as lines that begin with their priority, such as `<4>` (sd-daemon(3)). Without
/// a journal they are plain lines on stderr. A line that cannot be written, for example because the
/// disk is full, is lost. Your own `fmt` subscriber would panic in that case unless it has
/// `.log_internal_errors(false)`.
pub fn init() -> bool {
    let is_journal = journal::takes_stderr();
    if is_journal && let Ok(is_installed) = init_journal() {
        return is_installed;
    }
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .log_internal_errors(false)
        .fmt_fields(CompactFields::default());
    // There are colors if some crate has enabled the feature `ansi`. Only a terminal gets them.
    // Without the feature, `with_ansi(true)` would panic or print a warning.
    let lines = if io::stderr().is_terminal() { lines } else { lines.with_ansi(false) };
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

/// Installs the subscriber for the journal, even if file descriptor 2 is not connected to it.
/// Returns `false` if the program already has a subscriber.
///
/// # Errors
/// If the journal cannot be reached.
pub fn init_journal() -> io::Result<bool> {
    let journal = JournaldLayer::connect()?;
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(journal);
    Ok(subscriber.try_init().is_ok())
}

/// Formats fields as tracing-subscriber does by default. The guard's events need no other format: an event
/// whose message contains all facts has no fields in a `fmt` subscriber.
#[derive(Debug, Default)]
pub struct CompactFields(DefaultFields);

impl<'writer> FormatFields<'writer> for CompactFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer, fields)
    }
}
