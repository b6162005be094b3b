//! Counts the requests of a tower service: of any service, from the call until its future has ended; of
//! an HTTP service, until the body of the answer has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{InFlight, InFlightGuard};

impl InFlight {
    /// A layer that counts each request of a service from its call until its future has ended or is
    /// dropped: by an answer, an error, a panic, or a client that goes away.
    ///
    /// For HTTP use [`http_layer`](Self::http_layer), because the body of the answer comes after that.
    pub fn layer(&self) -> InFlightLayer {
        InFlightLayer(self.clone())
    }

    /// A layer that counts each HTTP request from its call until the server has taken the whole body
    /// of the answer, or has dropped it. So it counts correctly if the client goes away, if a handler
    /// fails or panics, and if an answer streams for minutes.
    ///
    /// The last bytes may not have left the process by then. [`drain_phase`](InFlight::drain_phase) therefore also
    /// waits until the server's own future has ended.
    pub fn http_layer(&self) -> HttpInFlightLayer {
        HttpInFlightLayer(self.layer())
    }
}

/// See [`InFlight::layer`].
#[derive(Debug, Clone)]
pub struct InFlightLayer(InFlight);

impl<S> Layer<S> for InFlightLayer {
    type Service = InFlightService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InFlightService { inner, in_flight: self.0.clone() }
    }
}

/// A service whose requests are counted; see [`InFlight::layer`].
#[derive(Debug, Clone)]
pub struct InFlightService<S> {
    inner: S,
    in_flight: InFlight,
}

impl<S: Service<R>, R> Service<R> for InFlightService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = TrackedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // Begun first, because the inner call may already do work and panic.
        let counted = Some(self.in_flight.track());
        TrackedFuture { inner: self.inner.call(request), counted }
    }
}

pin_project! {
    /// A request that counts until it has ended or is dropped.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct TrackedFuture<F> {
        #[pin]
        inner: F,
        counted: Option<InFlightGuard>,
    }
}

impl<F> TrackedFuture<F> {
    /// Polls it. At the end, the caller gets the count together with the output.
    fn poll_end(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<(F::Output, Option<InFlightGuard>)>
    where
        F: Future,
    {
        let this = self.project();
        let output = ready!(this.inner.poll(cx));
        Poll::Ready((output, this.counted.take()))
    }
}

impl<F: Future> Future for TrackedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_end(cx).map(|(output, _)| output)
    }
}

/// See [`InFlight::http_layer`].
#[derive(Debug, Clone)]
pub struct HttpInFlightLayer(InFlightLayer);

impl<S> Layer<S> for HttpInFlightLayer {
    type Service = HttpInFlightService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpInFlightService { inner: self.0.layer(inner) }
    }
}

/// A service whose HTTP requests are counted; see [`InFlight::http_layer`].
#[derive(Debug, Clone)]
pub struct HttpInFlightService<S> {
    inner: InFlightService<S>,
}

impl<S, R, B> Service<R> for HttpInFlightService<S>
where
    S: Service<R, Response = Response<B>>,
{
    type Response = Response<TrackedBody<B>>;
    type Error = S::Error;
    type Future = TrackedResponse<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        TrackedResponse { inner: self.inner.call(request) }
    }
}

pin_project! {
    /// An HTTP request whose answer is not there yet.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct TrackedResponse<F> {
        #[pin]
        inner: TrackedFuture<F>,
    }
}

impl<F, B, E> Future for TrackedResponse<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<TrackedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (answer, counted) = ready!(self.project().inner.poll_end(cx));
        Poll::Ready(answer.map(|answer| answer.map(|body| TrackedBody { inner: body, counted })))
    }
}

pin_project! {
    /// The body of an answer. Its request counts until the body has ended or is dropped.
    #[derive(Debug)]
    pub struct TrackedBody<B> {
        #[pin]
        inner: B,
        counted: Option<InFlightGuard>,
    }
}

impl<B: Body> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        // Nothing comes after an error either.
        if !matches!(frame, Some(Ok(_))) {
            this.counted.take();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
