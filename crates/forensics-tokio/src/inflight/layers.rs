//! Layers that count the requests of a tower service.
//!
//! A request of any service counts from the call until its future ends. An HTTP request counts until the
//! body of the answer has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{InFlight, InFlightGuard};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl InFlight {
    /// Returns a layer that counts each request of a service from the call until its future ends or is
    /// dropped: with an answer, with an error, in a panic, or because the client went away.
    ///
    /// For HTTP use [`http_layer`](Self::http_layer), because the body of the answer comes after that.
    pub fn layer(&self) -> InFlightLayer {
        InFlightLayer(self.clone())
    }

    /// Returns a layer that counts each HTTP request from the call until the server has taken the whole
    /// body of the answer, or has dropped it. The count is right even if the client goes away, if a
    /// handler fails or panics, and if an answer streams for minutes.
    ///
    /// The last bytes may not have left the process by then. So [`drain_phase`](InFlight::drain_phase)
    /// also waits until the server's own future has ended.
    pub fn http_layer(&self) -> HttpInFlightLayer {
        HttpInFlightLayer(self.clone())
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

/// A service whose requests are counted; see [`InFlight::layer`]. The futures of the inner service must be
/// `Send`.
#[derive(Debug, Clone)]
pub struct InFlightService<S> {
    inner: S,
    in_flight: InFlight,
}

impl<S: Service<R, Future: Send + 'static>, R> Service<R> for InFlightService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // Before the inner call, which may already do work and may panic.
        let guard = self.in_flight.track();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let _guard = guard;
            answer.await
        })
    }
}

/// See [`InFlight::http_layer`].
#[derive(Debug, Clone)]
pub struct HttpInFlightLayer(InFlight);

impl<S> Layer<S> for HttpInFlightLayer {
    type Service = HttpInFlightService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpInFlightService { inner, in_flight: self.0.clone() }
    }
}

/// A service whose HTTP requests are counted; see [`InFlight::http_layer`]. The futures of the inner
/// service must be `Send`.
#[derive(Debug, Clone)]
pub struct HttpInFlightService<S> {
    inner: S,
    in_flight: InFlight,
}

impl<S, R, B> Service<R> for HttpInFlightService<S>
where
    S: Service<R, Response = Response<B>, Future: Send + 'static>,
{
    type Response = Response<TrackedBody<B>>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let guard = Some(self.in_flight.track());
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?.map(|inner| TrackedBody { inner, guard })) })
    }
}

pin_project! {
    /// The body of an answer. Its request counts until the body has ended or is dropped.
    #[derive(Debug)]
    pub struct TrackedBody<B> {
        #[pin]
        inner: B,
        guard: Option<InFlightGuard>,
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
        // An error also ends the body.
        if !matches!(frame, Some(Ok(_))) {
            this.guard.take();
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
