//! The shutdown as a trace: a span `shutdown` with its cause, and a child span for each phase. They are
//! sent to an OpenTelemetry collector with OTLP, and flushed before the process ends.
//!
//! ```sh
//! cargo run -p forensics-example-otel --example otel -- http://127.0.0.1:4317
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use forensics_tokio::{ShutdownGuard, ShutdownReport, diagnostic};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[tokio::main]
async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    diagnostic::run_if_child(); // Must be first: runs the diagnostic if this process was started for it.
    let collector = std::env::args().nth(1).ok_or("usage: otel COLLECTOR")?;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(collector)
        .with_timeout(Duration::from_secs(1))
        .build()?;
    let traces = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("otel-example").build())
        .build();
    // The span `shutdown` has the level DEBUG, so that the lines of the log do not repeat it.
    let to_collector = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer("shutdown"))
        .with_filter(Targets::new().with_target("shutdown", LevelFilter::DEBUG));
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(to_collector).with(to_stderr).init();

    let forced = traces.clone();
    let guard = ShutdownGuard::builder("otel")
        .deadline(Duration::from_secs(3))
        // Runs before a forced end, which does not reach the code below.
        .on_forced_exit(move || drop(forced.force_flush()))
        .install()?;
    guard.phase("drain", async |cx| {
        cx.record("active_at_start", 0);
        cx.service_ended().await;
    });
    guard.group("adapters", |group| {
        group.phase("telegram", async |_| {});
        group.phase("slack", async |_| {});
    });
    guard
        .phase("db_close", async |_| Err::<(), _>("the disk is gone"))
        .reserve(Duration::from_secs(1));

    println!("working; pid {}", std::process::id());
    let service = guard.token().cancelled_owned();
    let report = guard.run(service).await;
    // This blocks until the collector has answered, for a second at most. It must not block a
    // thread of the runtime, because those threads have to send the spans meanwhile.
    let flushed = tokio::task::spawn_blocking(move || traces.shutdown()).await?;
    if let Err(e) = flushed {
        eprintln!("failed to send all spans to the collector: {e}");
    }
    Ok(report)
}
