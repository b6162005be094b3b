//! Counts HTTP requests, from the call until the body of the answer has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Counted, CountedFuture, InFlight, InFlightLayer, InFlightService};

impl InFlight {
    /// A layer that counts each HTTP request from its call until the server has taken the whole body
    /// of the answer, or has dropped it. So it counts correctly if the client goes away, if a handler
    /// fails or panics, and if an answer streams for minutes.
    ///
    /// The last bytes may not have left the process by then. [`drain`](InFlight::drain) therefore also
    /// waits until the server's own future has ended.
    pub fn http_layer(&self) -> HttpInFlightLayer {
        HttpInFlightLayer(self.layer())
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
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedResponse<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        CountedResponse { inner: self.inner.call(request) }
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
    /// The body of an answer. Its request counts until the body has ended or is dropped.
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
