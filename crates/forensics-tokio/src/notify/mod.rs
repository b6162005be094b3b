//! Telling the service manager what we are at, by the protocol of `sd_notify(3)`.
//!
//! Some hundred lines of our own, as the crates for it lack what a teardown needs: `sd-notify`
//! blocks while the manager's queue is full and knows no abstract sockets, `libsystemd` does not
//! hold back either and brings a dozen dependencies. Here nothing blocks and nothing grows: words
//! are left in a small queue, in which a later status takes an earlier one's place, and a task
//! sends them when the socket has room.
//!
//! Where `NOTIFY_SOCKET` is not set all of this does nothing.

pub(crate) mod watchdog;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forensics_core::clock;
use forensics_core::escape::{Plain, cut};
use tokio::net::UnixDatagram;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::os::abstract_address;

/// Longest status, in characters. systemd takes a message of 4096 bytes (`NOTIFY_BUFFER_MAX`), and
/// a character is at most 10 bytes when it is escaped.
const MAX_STATUS: usize = 400;

/// How long an extension, which must not come late, is tried.
const EXTEND_LIMIT: Duration = Duration::from_millis(500);

/// Why nothing is told to the service manager, though it gave us a socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotifyError {
    #[error("NOTIFY_SOCKET={0:?} is neither a path nor an abstract socket")]
    Address(OsString),
    #[error("NOTIFY_SOCKET={address:?}: {source}")]
    Connect { address: OsString, source: io::Error },
}

/// The connection to the service manager; see the module's documentation. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Notifier(Option<Arc<Connection>>);

struct Connection {
    socket: UnixDatagram,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Each is in it once.
    states: VecDeque<String>,
    status: Option<String>,
}

impl Notifier {
    /// Connects to the socket that `NOTIFY_SOCKET` names. In a runtime.
    ///
    /// # Errors
    /// Where it names none that can be connected to.
    pub(crate) fn from_environment() -> Result<Self, NotifyError> {
        match std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) {
            Some(address) => Self::connect(&address),
            None => Ok(Self::default()),
        }
    }

    fn connect(address: &OsStr) -> Result<Self, NotifyError> {
        let failed = |source| NotifyError::Connect { address: address.to_owned(), source };
        let peer = match address.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(address),
            [b'@', name @ ..] => abstract_address(name),
            _ => return Err(NotifyError::Address(address.to_owned())),
        };
        let connect = |peer: &SocketAddr| {
            let socket = StdDatagram::unbound()?;
            socket.connect_addr(peer)?;
            socket.set_nonblocking(true)?;
            UnixDatagram::from_std(socket)
        };
        let socket = peer.and_then(|peer| connect(&peer)).map_err(failed)?;
        let connection =
            Connection { socket, waiting: Mutex::default(), changed: Notify::default() };
        Ok(Self(Some(Arc::new(connection))))
    }

    /// Whether anybody is told anything.
    pub(crate) fn is_connected(&self) -> bool {
        self.0.is_some()
    }

    /// The service is up, or has been reloaded.
    pub(crate) fn ready(&self) {
        self.leave("READY=1".to_owned());
    }

    /// The teardown has begun. systemd's stop timeout runs from here on, where it did not yet.
    pub(crate) fn stopping(&self) {
        self.leave("STOPPING=1".to_owned());
    }

    /// The configuration is being read anew. `Type=notify-reload` wants to know since when.
    pub(crate) fn reloading(&self) {
        self.leave(format!("RELOADING=1\nMONOTONIC_USEC={}", clock::mono_us()));
    }

    /// We are alive.
    pub(crate) fn alive(&self) {
        self.leave("WATCHDOG=1".to_owned());
    }

    /// A line for `systemctl status`. Takes the place of one that has not been sent yet.
    pub(crate) fn status(&self, text: &str) {
        let Some(connection) = &self.0 else { return };
        // A newline would begin an assignment of its own.
        let status = format!("STATUS={}", Plain(&cut(text, MAX_STATUS)));
        connection.lock().status = Some(status);
        connection.changed.notify_one();
    }

    fn leave(&self, state: String) {
        let Some(connection) = &self.0 else { return };
        let mut waiting = connection.lock();
        if !waiting.states.contains(&state) {
            waiting.states.push_back(state);
        }
        drop(waiting);
        connection.changed.notify_one();
    }

    /// Asks systemd to wait for so much longer, from now on. Returns whether the message is with it
    /// (which is not to say that it heeds it).
    pub(crate) async fn extend(&self, by: Duration) -> bool {
        let Some(connection) = &self.0 else { return false };
        let message = format!("EXTEND_TIMEOUT_USEC={}", by.as_micros());
        let sent = timeout(EXTEND_LIMIT, connection.socket.send(message.as_bytes())).await;
        matches!(sent, Ok(Ok(_)))
    }

    /// Sends what is left here, for as long as it is polled; never returns.
    ///
    /// What cannot be sent for another reason than a full queue is dropped: a manager that is just
    /// executed anew refuses for an instant, and the next status will reach it.
    pub(crate) async fn send(&self) {
        let Some(connection) = &self.0 else { return std::future::pending().await };
        loop {
            while let Some(message) = connection.next() {
                let _ = connection.socket.send(message.as_bytes()).await;
            }
            connection.changed.notified().await;
        }
    }
}

impl Connection {
    /// The next message: a state, each in one of its own, so that their order holds.
    fn next(&self) -> Option<String> {
        let mut waiting = self.lock();
        let state = waiting.states.pop_front();
        state.or_else(|| waiting.status.take())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &StdDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 8192];
        let next = || {
            let n = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..n].to_vec()).unwrap())
        };
        std::iter::from_fn(next).collect()
    }

    /// Lets the notifier send until so many messages have come.
    async fn delivered(notifier: &Notifier, socket: &StdDatagram, count: usize) -> Vec<String> {
        let receiving = async {
            let mut all = Vec::new();
            while all.len() < count {
                tokio::task::yield_now().await;
                all.extend(received(socket));
            }
            all
        };
        tokio::select! {
            all = receiving => all,
            () = notifier.send() => unreachable!("it never returns"),
        }
    }

    #[tokio::test]
    async fn words_come_in_their_order_one_a_message_over_both_kinds_of_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("@forensics-test-{}", std::process::id());
        let by_name = abstract_address(&name.as_bytes()[1..]).unwrap();
        let sockets = [
            (StdDatagram::bind(&path).unwrap(), path.into_os_string()),
            (StdDatagram::bind_addr(&by_name).unwrap(), OsString::from(name)),
        ];
        for (socket, address) in sockets {
            let notifier = Notifier::connect(&address).unwrap();
            notifier.status("starting");
            notifier.ready();
            notifier.alive();
            notifier.alive();
            notifier.status("two\nlines\nREADY=1");
            notifier.stopping();
            let expected = ["READY=1", "WATCHDOG=1", "STOPPING=1", r"STATUS=two\nlines\nREADY=1"];
            assert_eq!(delivered(&notifier, &socket, 4).await, expected);
            assert!(notifier.extend(Duration::from_secs(4)).await);
            assert_eq!(received(&socket), ["EXTEND_TIMEOUT_USEC=4000000"]);
        }
    }

    #[tokio::test]
    async fn a_manager_that_does_not_read_holds_nobody_and_gets_the_latest_once_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = StdDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        let sending = tokio::spawn({
            let notifier = notifier.clone();
            async move { notifier.send().await }
        });
        // Until the queue is full: what is left then stays.
        let connection = notifier.0.clone().unwrap();
        let mut last = 0;
        for n in 0..10_000 {
            notifier.status(&n.to_string());
            tokio::task::yield_now().await;
            last = n;
            if connection.lock().status.is_some() {
                break;
            }
        }
        assert!(last < 9_999, "the queue has no end");
        notifier.status("the latest");
        notifier.stopping();
        let mut all = received(&socket);
        while all.last().is_none_or(|last| last != "STATUS=the latest") {
            tokio::task::yield_now().await;
            all.extend(received(&socket));
        }
        assert!(all.contains(&"STOPPING=1".to_owned()), "{all:?}");
        sending.abort();
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_an_error_and_a_long_status_fits_a_message() {
        let cases = [
            ("vsock:2:1234", "NOTIFY_SOCKET=\"vsock:2:1234\" is neither a path nor an abstract"),
            ("/nonexistent/notify", "NOTIFY_SOCKET=\"/nonexistent/notify\": No such file"),
        ];
        for (address, expected) in cases {
            let error = Notifier::connect(OsStr::new(address)).err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = StdDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        notifier.status(&"\u{10ffff}".repeat(100_000));
        let status = &delivered(&notifier, &socket, 1).await[0];
        assert!((MAX_STATUS..4096 + 10).contains(&status.len()), "{}", status.len());
    }
}
