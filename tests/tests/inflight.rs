//! Counting what is in flight: by hand, by the layer of a tower service, and in a drain.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use forensics_tokio::inflight::InFlight;
use forensics_tokio::testing::TestHarness;
use forensics_tokio::{Outcome, PhaseReport, ShutdownGuard, Signal};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_request_counts_from_its_call_until_its_answer_or_its_error() {
    let in_flight = InFlight::new();
    let answer = |request: oneshot::Receiver<&'static str>| async move {
        request.await.map(|text| Response::new(Full::<Bytes>::from(text))).map_err(|_| "gone")
    };
    let mut service = ServiceBuilder::new().layer(in_flight.http_layer()).service_fn(answer);
    let (first, request) = oneshot::channel();
    let one = service.call(request);
    let (second, request) = oneshot::channel();
    let other = service.clone().call(request);
    assert_eq!(in_flight.count(), 2);
    first.send("seven").unwrap();
    assert_eq!(one.await.unwrap().into_body().collect().await.unwrap().to_bytes(), "seven");
    assert_eq!(in_flight.count(), 1);
    drop(second);
    assert_eq!(other.await.unwrap_err(), "gone");
    assert_eq!(in_flight.count(), 0);
}

#[tokio::test]
async fn a_request_that_is_dropped_before_or_during_its_work_is_not_counted_any_more() {
    let in_flight = InFlight::new();
    let service = service_fn(|()| std::future::pending::<Result<Response<()>, Infallible>>());
    let mut service = ServiceBuilder::new().layer(in_flight.http_layer()).service(service);
    let never_polled = service.call(());
    let mut half_way = Box::pin(service.call(()));
    let polled = std::future::poll_fn(|cx| Poll::Ready(half_way.as_mut().poll(cx).is_pending()));
    assert!(polled.await);
    assert_eq!(in_flight.count(), 2);
    drop(never_polled);
    assert_eq!(in_flight.count(), 1);
    drop(half_way);
    assert_eq!(in_flight.count(), 0);
}

#[tokio::test]
async fn a_handler_that_panics_is_not_counted_any_more() {
    let in_flight = InFlight::new();
    let in_future = service_fn(|late: bool| {
        assert!(late, "in the call");
        async move {
            if late { panic!("in the future") } else { Ok::<_, Infallible>(Response::new(())) }
        }
    });
    let service = ServiceBuilder::new().layer(in_flight.http_layer()).service(in_future);
    for (late, message) in [(false, "in the call"), (true, "in the future")] {
        let request = tokio::spawn(service.clone().oneshot(late));
        let panic = request.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&message));
        assert_eq!(in_flight.count(), 0);
    }
}

/// A body that a test feeds: frames, an error, or its end.
struct Fed(mpsc::UnboundedReceiver<Result<&'static str, &'static str>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let frame = self.0.poll_recv(cx);
        frame.map(|frame| frame.map(|frame| frame.map(|text| Frame::data(Bytes::from(text)))))
    }
}

/// An answer whose body is fed through the returned end.
async fn streaming(
    in_flight: &InFlight,
) -> (
    impl Body<Data = Bytes, Error = &'static str>,
    mpsc::UnboundedSender<Result<&'static str, &'static str>>,
) {
    let (feed, fed) = mpsc::unbounded_channel();
    let mut fed = Some(fed);
    let answer = move |_: Request<()>| {
        let body = Fed(fed.take().unwrap());
        async { Ok::<_, Infallible>(Response::new(body)) }
    };
    let mut service = ServiceBuilder::new().layer(in_flight.http_layer()).service_fn(answer);
    let answer = service.call(Request::new(())).await.unwrap();
    (answer.into_body(), feed)
}

#[tokio::test]
async fn an_http_request_counts_until_its_answers_body_has_ended() {
    let in_flight = InFlight::new();
    let (body, feed) = streaming(&in_flight).await;
    let mut body = pin!(body);
    assert!(!body.is_end_stream());
    for text in ["one", "two"] {
        feed.send(Ok(text)).unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
        assert_eq!(in_flight.count(), 1);
    }
    drop(feed);
    assert!(body.frame().await.is_none());
    assert_eq!(in_flight.count(), 0);
}

#[tokio::test]
async fn an_http_request_is_not_counted_any_more_when_its_body_fails_or_is_dropped() {
    let in_flight = InFlight::new();
    let (failing, feed) = streaming(&in_flight).await;
    let (dropped, _feed) = streaming(&in_flight).await;
    assert_eq!(in_flight.count(), 2);
    feed.send(Err("reset")).unwrap();
    let mut failing = pin!(failing);
    assert_eq!(failing.frame().await.unwrap().unwrap_err(), "reset");
    assert_eq!(in_flight.count(), 1);
    drop(dropped);
    assert_eq!(in_flight.count(), 0);
}

#[tokio::test]
async fn the_layer_passes_a_body_unchanged_and_stops_counting_a_failed_http_request() {
    let in_flight = InFlight::new();
    let answer = |request: Request<Full<Bytes>>| async move {
        let asked = request.into_body();
        if asked.is_end_stream() { Err("empty") } else { Ok(Response::new(asked)) }
    };
    let service = ServiceBuilder::new().layer(in_flight.http_layer()).service_fn(answer);
    let request = |text: &'static str| Request::new(Full::from(text));
    let answer = service.clone().oneshot(request("seven b")).await.unwrap();
    assert_eq!(answer.body().size_hint().exact(), Some(7));
    assert_eq!(in_flight.count(), 1);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "seven b");
    assert_eq!(in_flight.count(), 0);
    assert_eq!(service.oneshot(request("")).await.unwrap_err(), "empty");
    assert_eq!(in_flight.count(), 0);
}

#[tokio::test]
async fn an_axum_router_accepts_the_layer() {
    let in_flight = InFlight::new();
    let counted = in_flight.clone();
    let app = axum::Router::new()
        .route("/", axum::routing::get(async move || counted.count().to_string()))
        .layer(in_flight.http_layer());
    let answer = app.oneshot(Request::new(axum::body::Body::empty())).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "1");
    assert_eq!(in_flight.count(), 0);
}

/// Runs a drain with two requests in flight, which end after one and three seconds, and a service
/// that ends after `service`. The deadline is ten seconds.
async fn drain(
    in_flight: &InFlight,
    phase: impl FnOnce(&ShutdownGuard),
    service: Duration,
) -> PhaseReport {
    let builder = ShutdownGuard::builder("test").deadline(10 * SECOND);
    let (harness, guard) = TestHarness::install(builder).unwrap();
    phase(&guard);
    for seconds in [1, 3] {
        let (request, stop) = (in_flight.track(), guard.token());
        tokio::spawn(async move {
            stop.cancelled().await;
            sleep(seconds * SECOND).await;
            drop(request);
        });
    }
    harness.signal(Signal::TERM);
    let stop = guard.token();
    let serve = async move {
        stop.cancelled().await;
        sleep(service).await;
    };
    let report = harness.run_to_exit(guard.run(serve)).await.unwrap();
    report.phase("drain").unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_requests_and_the_service_and_records_their_number() {
    for (service, took) in [(SECOND, 3 * SECOND), (4 * SECOND, 4 * SECOND)] {
        let in_flight = InFlight::new();
        let phase = |guard: &ShutdownGuard| drop(guard.phase("drain", in_flight.drain_phase()));
        let report = drain(&in_flight, phase, service).await;
        assert_eq!((report.outcome, report.duration), (Outcome::Ok, took));
        assert_eq!(report.values["active_at_start"], 2);
        assert_eq!(report.values["active_now"], 0);
    }
}

#[tokio::test(start_paused = true)]
async fn wait_idle_waits_only_for_the_requests_including_new_ones() {
    let in_flight = InFlight::new();
    let counted = in_flight.clone();
    let phase = |guard: &ShutdownGuard| {
        let late = in_flight.clone();
        let stop = guard.token();
        tokio::spawn(async move {
            stop.cancelled().await;
            sleep(2 * SECOND).await;
            let _request = late.track();
            sleep(3 * SECOND).await;
        });
        guard.phase("drain", async move |cx| counted.wait_idle(&cx).await);
    };
    let report = drain(&in_flight, phase, 60 * SECOND).await;
    assert_eq!((report.outcome, report.duration), (Outcome::Ok, 5 * SECOND));
    assert_eq!(report.values["active_at_start"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_cut_short_records_how_many_were_left() {
    let in_flight = InFlight::new();
    let counted = in_flight.clone();
    let phase = |guard: &ShutdownGuard| {
        let drain = async move |cx| counted.wait_idle(&cx).await;
        drop(guard.phase("drain", drain).timeout(2 * SECOND));
    };
    let report = drain(&in_flight, phase, SECOND).await;
    assert_eq!((report.outcome, report.duration), (Outcome::TimedOut, 2 * SECOND));
    assert_eq!(report.values["active_now"], 1);
    assert!(report.error.unwrap().ends_with("last recorded active_now=1"));
}
