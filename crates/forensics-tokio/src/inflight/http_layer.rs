//! A layer that counts the HTTP requests of a tower service.
//!
//! A request counts from the call until the body of the answer has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{InFlight, InFlightGuard};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl InFlight {
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
        let mut guard = self.in_flight.track();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            guard.set_answered(answer.status() == StatusCode::SWITCHING_PROTOCOLS);
            Ok(answer.map(|inner| TrackedBody { inner, guard: Some(guard) }))
        })
    }
}

pin_project! {
    /// The body of an answer. Its request counts until the body has ended or is dropped.
    #[derive(Debug)]
    pub struct TrackedBody<B, G = InFlightGuard> {
        #[pin]
        pub(crate) inner: B,
        pub(crate) guard: Option<G>,
    }
}

impl<B: Body, G> Body for TrackedBody<B, G> {
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
