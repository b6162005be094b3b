//! A subscriber for services that have none of their own.
//!
//! [`init`] writes lines to stderr, which under systemd is the journal. It differs from the plain
//! `tracing_subscriber::fmt` in one thing: of the events `Shutdown context: …` and `Previous run: …`, whose message has all
//! their facts in it, the fields are not repeated behind the message. Any other subscriber does as
//! well; the user's own always wins.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

/// Installs a subscriber that writes events of level `INFO` and above to stderr. Returns whether
/// it was installed: `false` where the program has one already, which then stays.
pub fn init() -> bool {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .fmt_fields(Concise::default())
        .try_init()
        .is_ok()
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
