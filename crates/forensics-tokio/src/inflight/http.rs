//! Counting HTTP requests: from the call until the answer's body has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::service::CountedFuture;
use super::{Counted, InFlight};

impl InFlight {
    /// A layer that counts each HTTP request from its call on until the answer's body has been
    /// handed to the server as a whole, or is dropped: a client that went away, a handler that
    /// failed or panicked, an answer that streams for minutes.
    ///
    /// The last bytes can still be on their way out of the process then; that the server's own
    /// future ends tells more, and [`drain`](InFlight::drain) waits for both.
    pub fn http_layer(&self) -> HttpInFlightLayer {
        HttpInFlightLayer(self.clone())
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

/// A service whose HTTP requests are counted; see [`InFlight::http_layer`].
#[derive(Debug, Clone)]
pub struct HttpInFlightService<S> {
    inner: S,
    in_flight: InFlight,
}

impl<S, R, B> Service<R> for HttpInFlightService<S>
where
    S: Service<R, Response = Response<B>>,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedResponse<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // Before the inner call, which may work already, and panic.
        let counted = self.in_flight.begin();
        CountedResponse { inner: CountedFuture::new(self.inner.call(request), counted) }
    }
}

pin_project! {
    /// An HTTP request whose answer is not there yet.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct CountedResponse<F> {
        #[pin]
        inner: CountedFuture<F>,
    }
}

impl<F, B, E> Future for CountedResponse<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (answer, counted) = ready!(self.project().inner.poll_end(cx));
        Poll::Ready(answer.map(|answer| answer.map(|body| CountedBody { inner: body, counted })))
    }
}

pin_project! {
    /// An answer's body; its request is counted out when it has ended or is dropped.
    #[derive(Debug)]
    pub struct CountedBody<B> {
        #[pin]
        inner: B,
        counted: Option<Counted>,
    }
}

impl<B: Body> Body for CountedBody<B> {
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
