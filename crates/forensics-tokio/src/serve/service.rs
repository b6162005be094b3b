//! The service of one connection: counts its requests, and tells its client that it will be closed.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::BoxError;
use crate::connections::{Connection, Connections};
use crate::inflight::{InFlight, InFlightGuard, TrackedBody};

/// A service that [`serve`](super::serve) accepts. States its bounds once for the functions that
/// serve a connection.
pub(super) trait HttpService:
    Service<
        Request<RequestBody>,
        Response = Response<Self::Body>,
        Future: Send,
        Error: Into<BoxError>,
    > + Clone
    + Send
    + 'static
{
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(super) struct TrackedService<S> {
    service: S,
    requests: InFlight,
    connection: Arc<Connection>,
    stop: CancellationToken,
}

impl<S> TrackedService<S> {
    pub(super) fn new(
        service: S,
        connections: &Connections,
        connection: Arc<Connection>,
        stop: CancellationToken,
    ) -> Self {
        Self { service, requests: connections.count_requests().clone(), connection, stop }
    }
}

impl<S: HttpService> hyper::service::Service<Request<Incoming>> for TrackedService<S> {
    type Response = Response<TrackedBody<S::Body, RequestGuard>>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Self::Response, S::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut guard = RequestGuard::new(&self.requests, &self.connection);
        let (stop, connection) = (self.stop.clone(), self.connection.clone());
        let mut service = self.service.clone();
        let is_http1 = request.version() < Version::HTTP_2;
        let connects = request.method() == Method::CONNECT;
        // The bytes of a body can look like further requests, which are counted by their heads.
        let has_body = !request.body().is_end_stream();
        let request = request.map(|inner| RequestBody {
            inner,
            connection: self.connection.clone(),
            waits: false,
        });
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            let mut answer = service.call(request).await?;
            let upgrades = answer.status() == StatusCode::SWITCHING_PROTOCOLS
                || (connects && answer.status().is_success());
            guard.set_answered(is_http1 && upgrades);
            let is_last = has_body || !connection.has_next_request();
            if is_http1 && !upgrades && is_last && stop.is_cancelled() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer.map(|inner| TrackedBody { inner, guard: Some(guard) }))
        })
    }
}

/// Counts a request, in all and on its connection, until it is dropped.
pub(super) struct RequestGuard {
    in_flight: InFlightGuard,
    connection: Arc<Connection>,
    is_answered: bool,
}

impl RequestGuard {
    fn new(requests: &InFlight, connection: &Arc<Connection>) -> Self {
        connection.request_begun();
        let (in_flight, connection) = (requests.track(), connection.clone());
        Self { in_flight, connection, is_answered: false }
    }

    fn set_answered(&mut self, upgrades: bool) {
        self.is_answered = true;
        self.in_flight.set_answered(upgrades);
        self.connection.request_answered(upgrades);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.connection.request_ended(self.is_answered);
    }
}

/// The body of a request that [`serve`](super::serve) passes to the service.
#[derive(Debug)]
pub struct RequestBody {
    inner: Incoming,
    connection: Arc<Connection>,
    /// The handler waits for more of the body.
    waits: bool,
}

impl RequestBody {
    fn set_waits(&mut self, waits: bool) {
        if std::mem::replace(&mut self.waits, waits) != waits {
            self.connection.set_reading_body(waits);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        self.set_waits(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.set_waits(false);
    }
}
