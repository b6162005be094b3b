//! Counts open connections, and says what a drain waits for.
//!
//! [`Connections`] knows each open connection and what it is busy with. The accept loop of
//! `serve` fills it. Other servers use it through a wrapper around their listener or
//! their streams: see [`Connections::listener`] and [`Connections::track`].

mod connection;
mod drain;
mod listener;
mod tracked;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

#[cfg(feature = "serve")]
pub(crate) use self::connection::HTTP2_PREFACE;
pub(crate) use self::connection::{Connection, Protocol};
pub use self::listener::TrackedListener;
#[cfg(feature = "serve-http1")]
pub(crate) use self::listener::accept;
pub use self::tracked::Tracked;
use crate::inflight::{Counts, InFlight};

/// How long a client may be silent during a drain, by default.
const SILENCE_LIMIT: Duration = Duration::from_secs(3);

/// How many connections the text names.
const MAX_NAMED: usize = 3;

/// The open connections of a service, and its requests in flight. Clones share one count.
///
/// ```no_run
/// use std::error::Error;
/// use std::io;
/// use forensics_tokio::connections::Connections;
/// use forensics_tokio::{ShutdownGuard, ShutdownReport};
/// use tokio::net::TcpListener;
///
/// #[tokio::main]
/// async fn main() -> Result<ShutdownReport, Box<dyn Error>> {
///     let guard = ShutdownGuard::builder("gateway").install()?;
///     let connections = Connections::new();
///     guard.phase("drain", connections.drain_phase()).timeout(guard.drain_timeout());
///
///     let listener = TcpListener::bind("127.0.0.1:8080").await?;
///     let stop = guard.token();
///     let server = async move {
///         loop {
///             tokio::select! {
///                 accepted = listener.accept() => {
///                     let (stream, peer) = accepted?;
///                     let stream = connections.track(stream, peer);
///                     tokio::spawn(async move {
///                         // Talk to the client. The connection counts until this drop.
///                         drop(stream);
///                     });
///                 }
///                 () = stop.cancelled() => return io::Result::Ok(()),
///             }
///         }
///     };
///     Ok(guard.run(server).await)
/// }
/// ```
///
/// With the feature `serve` the accept loop is `serve`, which also knows the
/// [`State`] of each connection. For `axum::serve` and tonic's `serve_with_incoming` use
/// [`listener`](Self::listener).
///
/// # A drain
///
/// While [`drain_phase`](Self::drain_phase) waits, the log and the record say for what:
/// `0 requests, 1 open connection: incomplete request from 10.0.0.7:51312`.
///
/// A connection is closed if it waits for its client, and the client has been silent for three seconds
/// since the drain began ([`with_silence_limit`](Self::with_silence_limit)). Examples are a connection
/// without a request, half a request, and an HTTP/2 client that does not answer. A request that is being
/// answered is never cut by this limit.
#[derive(Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    open: watch::Sender<Open>,
    requests: InFlight,
    /// Whether every request of the service is in `requests`.
    counts_requests: AtomicBool,
    silence_limit: Duration,
    drain_began: OnceLock<Instant>,
    /// The connections that were closed because of the limit.
    closed: Mutex<Vec<String>>,
}

/// The open connections, by number. The oldest one is the first.
#[derive(Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
}

/// What a connection is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// There is no request: none has arrived yet, or all are answered.
    Idle,
    /// The client has sent a part of the head of a request.
    ReadingHead,
    /// The handler of the request waits for the rest of the request's body.
    ReadingBody,
    /// A request is being handled, or its answer is being sent.
    Responding,
    /// It was upgraded to another protocol, such as WebSocket.
    Upgraded,
    /// It is not known whether there is a request, because only the stream is tracked.
    Unknown,
}

impl Connections {
    /// Returns an empty count, with a limit of three seconds for clients that are silent during a drain.
    pub fn new() -> Self {
        Self::with_silence_limit(SILENCE_LIMIT)
    }

    /// Returns an empty count, with another limit for clients that are silent during a drain.
    /// `Duration::MAX` means that no connection is closed because its client is silent.
    pub fn with_silence_limit(limit: Duration) -> Self {
        let shared = Shared {
            open: watch::Sender::default(),
            requests: InFlight::new(),
            counts_requests: AtomicBool::new(false),
            silence_limit: limit,
            drain_began: OnceLock::new(),
            closed: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns how many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.borrow().connections.len()
    }

    /// Returns how many requests are in flight. Zero if requests are not counted: see
    /// `http_layer`.
    pub fn requests(&self) -> usize {
        self.shared.requests.count()
    }

    /// Returns how many connections are open in each state.
    pub fn by_state(&self) -> BTreeMap<State, usize> {
        let requests = self.counted_requests();
        let mut states = BTreeMap::new();
        for connection in self.shared.open.borrow().connections.values() {
            *states.entry(connection.state(requests)).or_default() += 1;
        }
        states
    }

    /// Returns a layer that counts the HTTP requests of a tower service, as
    /// [`InFlight::http_layer`] does. `serve` counts them without it.
    ///
    /// It is for a server whose connections come from [`listener`](Self::listener). Put it around
    /// all routes: if a request is not counted, its connection can be closed as silent during a drain.
    #[cfg(feature = "tower")]
    pub fn http_layer(&self) -> crate::inflight::HttpInFlightLayer {
        self.count_requests().http_layer()
    }

    /// From now on every request is counted in the returned value.
    #[cfg(feature = "tower")]
    pub(crate) fn count_requests(&self) -> &InFlight {
        self.shared.counts_requests.store(true, Ordering::Relaxed);
        &self.shared.requests
    }

    /// `None` if requests are not counted.
    fn counted_requests(&self) -> Option<Counts> {
        let is_counted = self.shared.counts_requests.load(Ordering::Relaxed);
        is_counted.then(|| *self.shared.requests.subscribe().borrow())
    }

    /// Wraps the stream of an accepted connection, which counts until the returned stream is dropped.
    /// `peer` names the client in the log.
    ///
    /// Its bytes are not interpreted, so it is never closed because its client is silent.
    pub fn track<S>(&self, stream: S, peer: impl fmt::Display) -> Tracked<S> {
        self.track_as(stream, peer, Protocol::Unknown)
    }

    pub(crate) fn track_as<S>(
        &self,
        stream: S,
        peer: impl fmt::Display,
        protocol: Protocol,
    ) -> Tracked<S> {
        Tracked::new(stream, self.register(&peer, protocol))
    }

    fn register(&self, peer: &dyn fmt::Display, protocol: Protocol) -> Registered {
        let connection = Arc::new(Connection::new(peer.to_string(), protocol));
        let mut id = 0;
        self.shared.open.send_modify(|open| {
            id = open.next;
            open.next += 1;
            open.connections.insert(id, connection.clone());
        });
        Registered { connections: self.clone(), id, connection }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}

/// What is open: `0 requests, 1 open connection: incomplete request from 10.0.0.7:51312`.
impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.counted_requests();
        if let Some(Counts { active, .. }) = requests {
            write!(f, "{active} request{}, ", if active == 1 { "" } else { "s" })?;
        }
        let open = self.shared.open.borrow();
        let number = open.connections.len();
        write!(f, "{number} open connection{}", if number == 1 { "" } else { "s" })?;
        let named = open.connections.values().take(MAX_NAMED);
        let named: Vec<String> = named.map(|connection| connection.describe(requests)).collect();
        f.write_str(&list(&named, number, ": "))
    }
}

/// The first few of `number` texts, after `before`.
fn list(named: &[String], number: usize, before: &str) -> String {
    let more = match number.saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if named.is_empty() { more } else { format!("{before}{}{more}", named.join(", ")) }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connections").field(&self.to_string()).finish()
    }
}

/// Keeps a connection in the count until it is dropped.
pub(crate) struct Registered {
    connections: Connections,
    id: u64,
    pub(crate) connection: Arc<Connection>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.shared.open.send_modify(|open| drop(open.connections.remove(&self.id)));
    }
}
