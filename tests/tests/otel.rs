//! The spans that an OpenTelemetry collector receives from the example `otel`.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::process::Command;

use forensics_tests::{LIMIT, Program, example};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A collector that forwards the spans to the test.
struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            self.0.send(span).unwrap();
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A string attribute of the span.
fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?;
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_phase_reaches_the_collector_as_a_child_of_the_teardown_before_the_process_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (send, mut spans) = mpsc::unbounded_channel();
    let collector = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Collector(send)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let collector = tokio::spawn(collector);

    // Another package of the workspace may turn the colors of tracing-subscriber on.
    let mut service = Command::new(example("otel"));
    let service = Program::start(service.arg(&address).env("NO_COLOR", "1"));
    let ended = tokio::task::spawn_blocking(move || {
        service.wait_for_stdout("working");
        service.kill("-TERM");
        service.wait()
    });
    let ended = tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap();
    // The exit status is 1, because one phase fails.
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(!ended.stderr.contains("failed to send all spans"), "{}", ended.stderr);
    // The log does not show the span of the whole teardown.
    assert!(ended.line("phase=drain").contains("INFO shutdown: "));

    // Everything has arrived by now, because the process has ended.
    collector.abort();
    let mut all = Vec::new();
    while let Ok(span) = spans.try_recv() {
        all.push(span);
    }
    let root = all.iter().find(|span| span.name == "shutdown").unwrap();
    assert!(root.parent_span_id.is_empty());
    assert_eq!(attribute(root, "service"), Some("otel"));
    assert_eq!(attribute(root, "signal"), Some("SIGTERM"));
    // Not the sender's name, because kill(1) can exit before it is read.
    assert!(attribute(root, "cause").is_some());
    assert!(root.attributes.iter().any(|attribute| attribute.key == "sender_pid"));

    let phase = |name: &str| {
        let named = |span: &&Span| attribute(span, "phase") == Some(name);
        all.iter().find(named).unwrap_or_else(|| panic!("no {name} in {all:#?}"))
    };
    for (name, parent) in [
        ("drain", root),
        ("adapters", root),
        ("telegram", phase("adapters")),
        ("slack", phase("adapters")),
        ("db_close", root),
    ] {
        let span = phase(name);
        assert_eq!(span.parent_span_id, parent.span_id, "{name}");
        assert_eq!(span.trace_id, root.trace_id, "{name}");
        assert!(span.start_time_unix_nano >= root.start_time_unix_nano, "{name}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{name}");
    }
    assert_eq!(all.len(), 6, "{all:#?}");
    assert_eq!(attribute(phase("drain"), "outcome"), Some("ok"));
    assert!(all.iter().any(|span| attribute(span, "error").is_some()), "{all:#?}");
}
