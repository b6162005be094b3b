//! Writes events to the journal, with their fields, by systemd's native journal protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).
//!
//! The crate tracing-journald (0.3.2) is not used, because it would fail these tests:
//!
//! - `a_journal_that_does_not_read_blocks_nothing_and_lost_events_are_counted`, and
//!   `a_journal_that_is_stuck_delays_no_phase` in `tests/tests/systemd/journal.rs`. Its send blocks
//!   as long as the journal reads nothing, and its socket is private, so no timeout can be set.
//!   Every event of the service would block, not only those on the log thread. Events that it drops
//!   are not counted.
//! - `an_event_of_ours_has_its_id_its_prefix_and_its_phases`. It has one prefix for all targets.
//!   Two of its layers, one for each prefix, cannot share a registry: both store a span's fields
//!   under the same type, and the second one panics. Its `MESSAGE` has no fields, so `journalctl`
//!   would not show them. Its `MESSAGE_ID` would have to be a field, which every other subscriber
//!   would show.
//! - `megabytes_are_cut_at_a_character_and_names_are_made_valid` and
//!   `fields_that_do_not_fit_are_counted`. It passes a large message as a file, without a limit on
//!   the size.

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, fs, io};

use forensics_core::escape::truncate_bytes;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeVisitor;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::MESSAGE_IDS;
use crate::sinks::{Build, TARGET};

const SOCKET: &str = "/run/systemd/journal/socket";

/// How long an event waits for room in the journal's queue.
const TIMEOUT: Duration = Duration::from_millis(100);

/// Longest value and longest datagram in bytes. A datagram must fit into the send buffer of a socket, which
/// has 208 KiB by default.
const MAX_VALUE: usize = 16 << 10;
const MAX_DATAGRAM: usize = 128 << 10;

/// A layer that writes events to the journal.
///
/// | field | holds |
/// |---|---|
/// | `MESSAGE` | the message, and the fields as `name=value` |
/// | `PRIORITY` | 3 error, 4 warn, 6 info, 7 debug and trace |
/// | `MESSAGE_ID` | of the guard's events: [`MESSAGE_IDS`](super::MESSAGE_IDS) |
/// | `SHUTDOWN_NAME` | a field `name` of an event of the target `shutdown`, or of a phase's span |
/// | `F_NAME` | a field `name` of any other event or span |
/// | `TARGET`, `CODE_FILE`, `CODE_LINE`, `SYSLOG_IDENTIFIER` | as in other journal clients |
///
/// A value longer than 16 KiB is cut and then ends in `…`. Fields that do not fit into a message are
/// counted in `SHUTDOWN_LOST_FIELDS`.
///
/// The journal's queue is short (10 messages by default, see `net.unix.max_dgram_qlen`). If it is
/// full, an event waits for at most 100 ms, and not at all if the event before it was lost. An
/// event that does not fit by then is lost. The next event that is sent has the number of lost
/// events in `SHUTDOWN_LOST_EVENTS`.
#[derive(Debug)]
pub struct JournaldLayer {
    socket: UnixDatagram,
    identifier: String,
    lost: AtomicU64,
    /// The last event could not be sent in time. While this is set, the socket is non-blocking.
    is_stuck: AtomicBool,
}

impl JournaldLayer {
    /// Connects to the system's journal.
    ///
    /// # Errors
    /// If there is no journal, or if this process may not write to it.
    pub fn connect() -> io::Result<Self> {
        Self::connect_to(Path::new(SOCKET))
    }

    fn connect_to(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        let connected = socket.connect(path);
        connected.map_err(|e| io::Error::new(e.kind(), format!("the journal at {path:?}: {e}")))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        let exe = std::env::current_exe().unwrap_or_default();
        let identifier = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { socket, identifier, lost: AtomicU64::new(0), is_stuck: AtomicBool::new(false) })
    }

    fn send(&self, mut fields: Fields) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            fields.values.insert(0, ("SHUTDOWN_LOST_EVENTS".to_owned(), lost.to_string()));
        }
        let is_sent = self.socket.send(&encode(fields.values)).is_ok();
        if self.is_stuck.swap(!is_sent, Ordering::Relaxed) == is_sent {
            // If this fails, the next event waits for the timeout again.
            let _ = self.socket.set_nonblocking(!is_sent);
        }
        if is_sent {
            // The next event reports those that other threads lost meanwhile.
            self.lost.fetch_sub(lost, Ordering::Relaxed);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether file descriptor 2 is connected to the journal, according to `JOURNAL_STREAM`
/// (systemd.exec(5)).
pub(super) fn takes_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// Encodes fields in the protocol's binary form, in which no value can forge a field.
fn encode(fields: Vec<(String, String)>) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut lost = 0;
    for (name, mut value) in fields {
        truncate_bytes(&mut value, MAX_VALUE, "…");
        let end = entry.len();
        put(&mut entry, &name, &value);
        if entry.len() > MAX_DATAGRAM {
            entry.truncate(end);
            lost += 1;
        }
    }
    if lost > 0 {
        put(&mut entry, "SHUTDOWN_LOST_FIELDS", &lost.to_string());
    }
    entry
}

fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let length = (value.len() as u64).to_le_bytes();
    entry.extend([name.as_bytes(), b"\n", &length, value.as_bytes(), b"\n"].concat());
}

/// The fields of an event or a span, by their names in the journal.
struct Fields {
    /// `SHUTDOWN` for our own target, `F` for any other.
    prefix: &'static str,
    values: Vec<(String, String)>,
}

impl Fields {
    fn of(target: &str) -> Self {
        Self { prefix: if target == TARGET { "SHUTDOWN" } else { "F" }, values: Vec::new() }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // `MESSAGE` is already there, with all fields.
        if field.name() != "message" {
            self.values.push((field_name(self.prefix, field.name()), format!("{value:?}")));
        }
    }
}

thread_local! {
    /// All fields of the event of ours that this thread emits. The event itself lacks those that are in
    /// its message, because a layer that writes lines beside this one would show them twice.
    static ALL_FIELDS: RefCell<Option<Vec<(String, String)>>> = const { RefCell::new(None) };
}

/// Runs `emit`, which emits an event of ours, and lets the layer have all its fields.
pub(crate) fn with_all_fields(build: Build<'_>, emit: impl FnOnce()) {
    let mut fields = Fields::of(TARGET);
    build(&"", true, &mut |event| event.record(&mut fields));
    ALL_FIELDS.set(Some(fields.values));
    emit();
    ALL_FIELDS.set(None);
}

/// Returns a name that the journal accepts: capitals, digits and `_`, at most 64 bytes.
fn field_name(prefix: &str, name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{prefix}_{name}").chars().map(fits).take(64).collect()
}

pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JournaldLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::of(span.metadata().target());
        attributes.record(&mut fields);
        span.extensions_mut().replace(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut message = String::new();
        event.record(&mut DefaultFields::new().make_visitor(Writer::new(&mut message)));
        let mut fields = Fields::of(metadata.target());
        let mut put = |name: &str, value: String| fields.values.push((name.to_owned(), value));
        put("MESSAGE", message);
        put("PRIORITY", priority(*metadata.level()).to_string());
        put("SYSLOG_IDENTIFIER", self.identifier.clone());
        put("TARGET", metadata.target().to_owned());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            put("CODE_FILE", file.to_owned());
            put("CODE_LINE", line.to_string());
        }
        let id = MESSAGE_IDS.iter().find(|(name, _)| *name == metadata.name());
        if let Some((_, id)) = id.filter(|_| metadata.target() == TARGET) {
            put("MESSAGE_ID", (*id).to_owned());
        }
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(span) = span.extensions().get::<Fields>() {
                fields.values.extend_from_slice(&span.values);
            }
        }
        match ALL_FIELDS.with_borrow(Clone::clone).filter(|_| metadata.target() == TARGET) {
            Some(all) => fields.values.extend(all),
            None => event.record(&mut fields),
        }
        self.send(fields);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The fields of an entry, as the journal reads them.
    fn parse(mut entry: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|&byte| byte == b'\n').unwrap();
            let (name, rest) = entry.split_at(end);
            let (length, rest) = rest[1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let (value, rest) = rest.split_at(length);
            assert_eq!(rest[0], b'\n');
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(name), text(value)));
            entry = &rest[1..];
        }
        fields
    }

    struct Reader {
        socket: UnixDatagram,
        _dir: tempfile::TempDir,
    }

    impl Reader {
        fn next(&self) -> Vec<(String, String)> {
            let mut buffer = vec![0; MAX_DATAGRAM + 1];
            let length = self.socket.recv(&mut buffer).unwrap();
            parse(&buffer[..length])
        }
    }

    fn journal() -> (JournaldLayer, Reader) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (JournaldLayer::connect_to(&path).unwrap(), Reader { socket, _dir: dir })
    }

    fn value<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
        fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    #[test]
    fn an_event_of_ours_has_its_id_its_prefix_and_its_phases() {
        let (journal, reader) = journal();
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || {
            let phase = tracing::info_span!(target: "shutdown", "phase", phase = "drain");
            phase.in_scope(|| {
                tracing::warn!(
                    name: "phase_finished", target: "shutdown",
                    outcome = "timed_out", sender_pid = 7, text = "two\nMESSAGE_ID=forged", "+1.00s done",
                );
                tracing::info!(target: "gateway", row_count = 3, "wrote");
            });
        });
        let ours = reader.next();
        let (_, id) =
            super::super::MESSAGE_IDS.iter().find(|(n, _)| *n == "phase_finished").unwrap();
        let expected = [
            ("MESSAGE_ID", *id),
            ("PRIORITY", "4"),
            ("TARGET", "shutdown"),
            ("SHUTDOWN_PHASE", "drain"),
            ("SHUTDOWN_OUTCOME", "timed_out"),
            ("SHUTDOWN_SENDER_PID", "7"),
            ("SHUTDOWN_TEXT", "two\nMESSAGE_ID=forged"),
        ];
        for (name, expected) in expected {
            assert_eq!(value(&ours, name), [expected], "{name}");
        }
        let message = value(&ours, "MESSAGE")[0];
        assert!(message.starts_with("+1.00s done outcome=\"timed_out\" sender_pid=7"), "{message}");
        let theirs = reader.next();
        assert_eq!(value(&theirs, "F_ROW_COUNT"), ["3"]);
        assert_eq!(value(&theirs, "SHUTDOWN_PHASE"), ["drain"]);
        assert_eq!(value(&theirs, "PRIORITY"), ["6"]);
        assert!(value(&theirs, "MESSAGE_ID").is_empty());
    }

    #[test]
    fn a_journal_that_does_not_read_blocks_nothing_and_lost_events_are_counted() {
        let (journal, reader) = journal();
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || {
            // More than any queue holds.
            for _ in 0..10_000 {
                tracing::info!("x");
            }
            let mut got = 0;
            while reader.socket.recv(&mut [0; 8]).is_ok() {
                got += 1;
            }
            assert!(got < 10_000);
            tracing::info!("again");
            let lost = (10_000 - got).to_string();
            assert_eq!(value(&reader.next(), "SHUTDOWN_LOST_EVENTS"), [lost.as_str()]);
            tracing::info!("and again");
            assert!(value(&reader.next(), "SHUTDOWN_LOST_EVENTS").is_empty());
        });
    }

    #[test]
    fn megabytes_are_cut_at_a_character_and_names_are_made_valid() {
        let (journal, reader) = journal();
        let subscriber = tracing_subscriber::registry().with(journal);
        let large = "ä".repeat(1 << 20);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(large = %large, dotted.name = 1, "big");
        });
        let fields = reader.next();
        let shown = value(&fields, "F_LARGE")[0];
        assert!(shown.ends_with("ä…") && (MAX_VALUE - 1..=MAX_VALUE).contains(&shown.len()));
        assert_eq!(value(&fields, "F_DOTTED_NAME"), ["1"]);
        assert_eq!(field_name("F", &"x".repeat(100)).len(), 64);
    }

    #[test]
    fn fields_that_do_not_fit_are_counted() {
        let (journal, reader) = journal();
        let subscriber = tracing_subscriber::registry().with(journal);
        let large = "x".repeat(MAX_VALUE);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("s", s1 = %large, s2 = %large, s3 = %large, s4 = %large);
            let _in = span.enter();
            tracing::info!(a = %large, b = %large, c = %large, d = %large, e = %large, "big");
        });
        let fields = reader.next();
        let kept = fields.iter().filter(|(name, _)| name.starts_with("F_")).count();
        assert!((5..8).contains(&kept), "{kept}");
        let lost = (9 - kept).to_string();
        assert_eq!(value(&fields, "SHUTDOWN_LOST_FIELDS"), [lost.as_str()]);
        let message = value(&fields, "MESSAGE")[0];
        assert!(message.ends_with('…') && message.len() <= MAX_VALUE);
    }
}
