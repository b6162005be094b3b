//! Events in the journal, with their fields: systemd's native journal protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).
//!
//! Of our own, beside the crate tracing-journald, for three things that it does not do and that the
//! last words of a service need: a send that does not hang, whatever state the journal is in; a
//! `MESSAGE_ID=` by kind of event; and a prefix by target, so that what we say is found by
//! `SHUTDOWN_PHASE=`, and not `F_PHASE=`. For events of other targets the names are tracing-journald's.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, fs, io};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::Concise;
use super::message_id::message_id;

const SOCKET: &str = "/run/systemd/journal/socket";

/// How long an event waits for room in the journal's queue.
const WAIT: Duration = Duration::from_millis(100);

/// Longest value and longest datagram, in bytes: it must fit into a socket's send buffer, 208 KiB
/// unless set otherwise.
const MAX_VALUE: usize = 16 << 10;
const MAX_DATAGRAM: usize = 128 << 10;

/// What ends a value that was cut.
const CUT: &str = "…";

/// What the protocol adds to a name and a value: two newlines and the length.
const FRAME: usize = 10;

/// A layer that writes events to the journal; see the module's documentation.
///
/// | field | holds |
/// |---|---|
/// | `MESSAGE` | the message, and the fields as `name=value` |
/// | `PRIORITY` | 3 error, 4 warn, 6 info, 7 debug and trace |
/// | `MESSAGE_ID` | of our own events: [`MESSAGE_IDS`](super::MESSAGE_IDS) |
/// | `SHUTDOWN_NAME` | a field `name` of an event of the target `shutdown`, or of a phase's span |
/// | `F_NAME` | one of any other |
/// | `TARGET`, `CODE_FILE`, `CODE_LINE`, `SYSLOG_IDENTIFIER` | as they are called |
///
/// Values are cut at 16 KiB, and end in `…` then; fields for which a message has no room are counted in
/// `SHUTDOWN_LOST_FIELDS`. The journal's queue is short (10 messages, unless
/// `net.unix.max_dgram_qlen` says otherwise), so an event waits for room in it: 100 ms at most, and
/// not at all where the one before it waited in vain. One that finds no room is lost, and counted:
/// the next that gets through carries the number as `SHUTDOWN_LOST_EVENTS`.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    identifier: String,
    fields: Concise,
    lost: AtomicU64,
    /// The last event found no room in time.
    stuck: AtomicBool,
}

impl Journal {
    /// Connects to the system's journal.
    ///
    /// # Errors
    /// Where there is none, or not for us.
    pub fn connect() -> io::Result<Self> {
        Self::connect_to(Path::new(SOCKET))
    }

    fn connect_to(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        let connected = socket.connect(path);
        connected.map_err(|e| io::Error::new(e.kind(), format!("the journal at {path:?}: {e}")))?;
        socket.set_write_timeout(Some(WAIT))?;
        let exe = std::env::current_exe().ok();
        let name = exe.as_deref().and_then(Path::file_name);
        let identifier = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self {
            socket,
            identifier,
            fields: Concise::default(),
            lost: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
        })
    }

    fn send(&self, mut entry: Entry) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            entry.put("SHUTDOWN_LOST_EVENTS", &lost);
        }
        let sent = self.socket.send(&entry.finish());
        let stuck = sent.is_err();
        if self.stuck.swap(stuck, Ordering::Relaxed) != stuck {
            // Where that fails the next one waits for the write timeout again.
            let _ = self.socket.set_nonblocking(stuck);
        }
        match sent {
            Ok(_) => {
                // What others lost meanwhile is left for the next.
                self.lost.fetch_sub(lost, Ordering::Relaxed);
            }
            Err(_) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Whether file descriptor 2 is the journal's, by `JOURNAL_STREAM` (systemd.exec(5)).
pub(super) fn takes_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// An entry in the protocol's binary form, in which no value can forge a field.
#[derive(Default)]
struct Entry {
    bytes: Vec<u8>,
    /// How many fields are in it, and for how many there was no room.
    count: usize,
    lost: usize,
}

impl Entry {
    fn put(&mut self, name: &str, value: &dyn fmt::Display) {
        let mut value = value.to_string();
        if value.len() > MAX_VALUE {
            value.truncate(value.floor_char_boundary(MAX_VALUE - CUT.len()));
            value.push_str(CUT);
        }
        match self.bytes.len() + name.len() + value.len() + FRAME > MAX_DATAGRAM {
            true => self.lost += 1,
            false => self.write(name, &value),
        }
    }

    fn write(&mut self, name: &str, value: &str) {
        self.count += 1;
        self.bytes.extend(name.bytes());
        self.bytes.push(b'\n');
        self.bytes.extend((value.len() as u64).to_le_bytes());
        self.bytes.extend(value.as_bytes());
        self.bytes.push(b'\n');
    }

    /// Adds another's fields, if there is room for all of them.
    fn append(&mut self, other: &Self) {
        self.lost += other.lost;
        match self.bytes.len() + other.bytes.len() > MAX_DATAGRAM {
            true => self.lost += other.count,
            false => self.bytes.extend(&other.bytes),
        }
    }

    /// What is sent.
    fn finish(mut self) -> Vec<u8> {
        if self.lost > 0 {
            // Of a few bytes, for which a socket that takes the rest has room, too.
            self.write("SHUTDOWN_LOST_FIELDS", &self.lost.to_string());
        }
        self.bytes
    }
}

/// Puts fields into an entry.
struct Fields<'a> {
    entry: &'a mut Entry,
    prefix: &'static str,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: &dyn fmt::Display) {
        // The message is a line of its own making.
        if field.name() != "message" {
            self.entry.put(&field_name(self.prefix, field.name()), value);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format_args!("{value:?}"));
    }
}

fn prefix(target: &str) -> &'static str {
    match target {
        "shutdown" => "SHUTDOWN",
        _ => "F",
    }
}

/// A name as the journal takes it: capitals, digits and `_`, at most 64 bytes.
fn field_name(prefix: &str, name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    prefix.chars().chain(std::iter::once('_')).chain(name.chars().map(fits)).take(64).collect()
}

pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// A span's fields, ready to be put into each entry of an event in it.
struct SpanFields(Entry);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut entry = Entry::default();
        let prefix = prefix(attributes.metadata().target());
        attributes.record(&mut Fields { entry: &mut entry, prefix });
        span.extensions_mut().replace(SpanFields(entry));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let prefix = prefix(span.metadata().target());
        if let Some(SpanFields(entry)) = span.extensions_mut().get_mut() {
            values.record(&mut Fields { entry, prefix });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = Entry::default();
        let mut message = String::new();
        // Writing to a String does not fail, unless a value's Display does.
        let _ = self.fields.format_fields(Writer::new(&mut message), event);
        entry.put("MESSAGE", &message);
        entry.put("PRIORITY", &priority(*metadata.level()));
        entry.put("SYSLOG_IDENTIFIER", &self.identifier);
        entry.put("TARGET", &metadata.target());
        if let Some(file) = metadata.file() {
            entry.put("CODE_FILE", &file);
        }
        if let Some(line) = metadata.line() {
            entry.put("CODE_LINE", &line);
        }
        if metadata.target() == "shutdown"
            && let Some(id) = message_id(metadata.name())
        {
            entry.put("MESSAGE_ID", &id);
        }
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(SpanFields(fields)) = span.extensions().get() {
                entry.append(fields);
            }
        }
        event.record(&mut Fields { entry: &mut entry, prefix: prefix(metadata.target()) });
        self.send(entry);
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

    fn journal() -> (Journal, Reader) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (Journal::connect_to(&path).unwrap(), Reader { socket, _dir: dir })
    }

    fn value<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
        fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    #[test]
    fn an_event_of_ours_has_its_id_its_prefix_and_the_phases_it_is_in() {
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
    fn a_journal_that_does_not_read_holds_nobody_and_the_lost_are_counted() {
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
    fn megabytes_are_cut_at_a_character_and_names_are_made_to_fit() {
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
    fn fields_that_find_no_room_are_counted() {
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
