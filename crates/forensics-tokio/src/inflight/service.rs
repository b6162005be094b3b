//! Counts the requests of any tower service, from the call until its future has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Counted, InFlight};

impl InFlight {
    /// A layer that counts each request of a service from its call until its future has ended or is
    /// dropped: by an answer, an error, a panic, or a client that goes away.
    ///
    /// For HTTP use [`http_layer`](Self::http_layer), because the body of the answer comes after that.
    pub fn layer(&self) -> InFlightLayer {
        InFlightLayer(self.clone())
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
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // Begun first, because the inner call may already do work and panic.
        let counted = Some(self.in_flight.begin());
        CountedFuture { inner: self.inner.call(request), counted }
    }
}

pin_project! {
    /// A request that counts until it has ended or is dropped.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct CountedFuture<F> {
        #[pin]
        inner: F,
        counted: Option<Counted>,
    }
}

impl<F> CountedFuture<F> {
    /// Polls it. At the end, the caller gets the count together with the output.
    pub(super) fn poll_end(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<(F::Output, Option<Counted>)>
    where
        F: Future,
    {
        let this = self.project();
        let output = ready!(this.inner.poll(cx));
        Poll::Ready((output, this.counted.take()))
    }
}

impl<F: Future> Future for CountedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_end(cx).map(|(output, _)| output)
    }
}
