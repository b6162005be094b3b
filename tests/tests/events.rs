//! The events in `tracing`: lines by tracing-subscriber's fmt subscriber, fields and levels by any.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fmt::Debug;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, logging};
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

const SECOND: Duration = Duration::from_secs(1);

/// A teardown with every outcome that is possible without a signal.
async fn stop() {
    let guard = ShutdownGuard::builder("test").signals([]).deadline(30 * SECOND).install().unwrap();
    guard.phase("notify", async |_| {});
    let drain = guard
        .phase("drain", async |cx| {
            cx.record("active_now", 3);
            sleep(20 * SECOND).await;
        })
        .timeout(12 * SECOND)
        .id();
    guard.group("adapters", |group| {
        group.phase("slack", async |_| Err::<(), _>("two\nlines"));
        group.phase("irc", async |_| panic!("boom"));
    });
    guard.phase("db_close", async |_| {}).requires(drain);
    guard.handle().request_shutdown("a \"test\"\nof it");
    let _ = guard.run(async {}).await;
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Buffer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn each_event_is_one_line_and_the_context_is_the_first() {
    let buffer = Buffer::default();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_writer(buffer.clone())
        .fmt_fields(logging::CompactFields::default())
        .finish();
    let set = tracing::subscriber::set_default(subscriber);
    stop().await;
    drop(set);
    let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();

    let mut settings = insta::Settings::clone_current();
    // Replaces what differs between machines, and the real microseconds before the clock is paused.
    settings.add_filter(r"under_systemd=.*", "under_systemd=…");
    settings.add_filter(r"\+(\d+)\.[01]\ds", "+$1.00s");
    settings.add_filter(r"offset_usec=(\d*)\d{6}", "offset_usec=$1……");
    settings.add_filter(r"offset_usec=\d{1,5}\b", "offset_usec=……");
    settings.add_filter(r"took=[\d.]+(us|ms)", "took=…");
    settings.add_filter(r"total_usec=(\d*)\d{6}", "total_usec=$1……");
    settings.bind(|| insta::assert_snapshot!(text));
}

/// An event as a layer receives it.
#[derive(Debug, Default)]
struct Seen {
    level: Option<Level>,
    fields: Vec<(&'static str, String)>,
    /// The phases whose spans contain it, outermost first.
    spans: Vec<String>,
}

impl Seen {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name(), value.to_owned()));
    }
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Seen>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut seen = Seen::default();
        attributes.record(&mut seen);
        cx.span(id).unwrap().extensions_mut().insert(seen);
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        if event.metadata().target() != "shutdown" {
            return;
        }
        let mut seen = Seen { level: Some(*event.metadata().level()), ..Seen::default() };
        event.record(&mut seen);
        for span in cx
            .event_scope(event)
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            let phase =
                span.extensions().get::<Seen>().and_then(|s| s.field("phase").map(str::to_owned));
            seen.spans.extend(phase);
        }
        self.0.lock().unwrap().push(seen);
    }
}

#[tokio::test(start_paused = true)]
async fn fields_levels_and_spans_are_the_same_for_any_subscriber() {
    let capture = Capture::default();
    let set =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(capture.clone()));
    stop().await;
    drop(set);
    let seen = capture.0.lock().unwrap();

    let context = &seen[0];
    assert_eq!(context.field("message"), Some("Shutdown context:"));
    assert_eq!(context.field("reason"), Some("a \"test\"\nof it"));
    assert_eq!(context.level, Some(Level::INFO));
    assert_eq!(context.field("cause"), Some("requested"));
    assert_eq!(context.field("evidence"), Some("requested: a \"test\"\nof it"));
    assert!(context.field("parent_pid").is_some());

    let finished = |phase: &str| {
        let mut all = seen.iter().filter(|s| s.field("outcome").is_some());
        all.find(|s| s.field("phase") == Some(phase)).unwrap()
    };
    let cases = [
        ("notify", "ok", Level::INFO),
        ("drain", "timed_out", Level::WARN),
        ("slack", "failed", Level::ERROR),
        ("irc", "panicked", Level::ERROR),
        ("adapters", "panicked", Level::ERROR),
        ("db_close", "skipped", Level::WARN),
    ];
    for (phase, outcome, level) in cases {
        let event = finished(phase);
        assert_eq!((event.field("outcome"), event.level), (Some(outcome), Some(level)), "{phase}");
        // The field names the phase, so its span does not repeat that.
        assert_eq!(event.spans, Vec::<String>::new());
        assert!(event.field("took").unwrap().ends_with('s'));
        assert!(event.field("message").unwrap().starts_with('+'));
        assert!(event.field("offset_usec").unwrap().parse::<u64>().is_ok());
    }
    assert_eq!(finished("slack").field("error"), Some("two\nlines"));

    let long: Vec<_> = seen.iter().filter(|s| s.field("elapsed").is_some()).collect();
    assert_eq!(long.len(), 2, "one at 5 s and one at 10 s");
    assert_eq!(long[1].field("elapsed"), Some("10.00s"));
    assert_eq!(long[1].field("budget"), Some("12.00s"));
    assert_eq!(long[1].field("last_recorded"), Some("active_now=3"));
}
