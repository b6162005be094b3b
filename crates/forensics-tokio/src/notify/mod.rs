//! Tells the service manager the state of the service, by the protocol of `sd_notify(3)`.
//!
//! The crates `sd-notify` and `libsystemd` are not used, because they block while the manager's
//! queue is full, and would block a teardown. Here a message waits in a queue, where it replaces an
//! earlier one that sets the same variable. A task sends it when the socket has room. So nothing
//! blocks, and the queue does not grow.
//!
//! If `NOTIFY_SOCKET` is not set, all of this does nothing.

pub(crate) mod watchdog;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forensics_core::clock;
use forensics_core::escape::{Escaped, truncate};
use tokio::net::UnixDatagram;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::lock::lock;
use crate::os::abstract_address;

/// Longest status, in characters. systemd accepts messages of up to 4096 bytes
/// (`NOTIFY_BUFFER_MAX`), and an escaped character has at most 10 bytes.
const MAX_STATUS: usize = 400;

/// How long sending an extension may take. Later it would be useless.
const EXTEND_LIMIT: Duration = Duration::from_millis(500);

/// The connection to the service manager; see the module's documentation. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notifier(Option<Arc<Connection>>);

#[derive(Debug)]
struct Connection {
    socket: UnixDatagram,
    /// At most one message for each variable.
    queue: Mutex<VecDeque<String>>,
    changed: Notify,
}

impl Notifier {
    /// Connects to the socket that `NOTIFY_SOCKET` names. Must be called in a runtime.
    ///
    /// # Errors
    /// A text, if the variable is set and the socket cannot be used.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let Some(address) = address else { return Ok(Self::default()) };
        Self::connect(&address).map_err(|e| format!("NOTIFY_SOCKET={address:?}: {e}"))
    }

    fn connect(address: &OsStr) -> io::Result<Self> {
        let peer = match address.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            [b'@', name @ ..] => abstract_address(name)?,
            _ => return Err(io::Error::other("neither a path nor an abstract socket")),
        };
        let socket = StdDatagram::unbound()?;
        socket.connect_addr(&peer)?;
        socket.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(socket)?;
        let (queue, changed) = (Mutex::default(), Notify::default());
        Ok(Self(Some(Arc::new(Connection { socket, queue, changed }))))
    }

    /// Whether there is a service manager to notify.
    pub(crate) fn is_connected(&self) -> bool {
        self.0.is_some()
    }

    /// The service is up, or was reloaded.
    pub(crate) fn ready(&self) {
        self.push("READY=1");
    }

    /// The configuration is being reloaded. `Type=notify-reload` needs the time of that.
    pub(crate) fn reloading(&self) {
        self.push(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::mono_us()));
    }

    /// Sets the line in `systemctl status`.
    pub(crate) fn status(&self, text: &str) {
        // Escaped, because a newline would begin another assignment.
        self.push(&format!("STATUS={}", Escaped(&truncate(text, MAX_STATUS))));
    }

    /// Queues a message. It replaces an earlier one that sets the same variable.
    pub(crate) fn push(&self, message: &str) {
        let Some(connection) = &self.0 else { return };
        let mut queue = lock(&connection.queue);
        queue.retain(|queued| queued.split('=').next() != message.split('=').next());
        queue.push_back(message.to_owned());
        drop(queue);
        connection.changed.notify_one();
    }

    /// Asks systemd to wait for this time, from now on. Returns whether the message was sent.
    /// systemd may still ignore it.
    pub(crate) async fn extend(&self, by: Duration) -> bool {
        let Some(connection) = &self.0 else { return false };
        let message = format!("EXTEND_TIMEOUT_USEC={}", by.as_micros());
        let sent = timeout(EXTEND_LIMIT, connection.socket.send(message.as_bytes())).await;
        matches!(sent, Ok(Ok(_)))
    }

    /// Sends the queued messages while it is polled. Never returns.
    ///
    /// If a message cannot be sent for a reason other than a full queue, it is dropped. For
    /// example, a manager that re-executes itself refuses messages for a moment, and receives the
    /// next status.
    pub(crate) async fn send(&self) {
        let Some(connection) = &self.0 else { return std::future::pending().await };
        loop {
            // In a block, so that the lock is not held while the message is sent.
            while let Some(message) = { lock(&connection.queue).pop_front() } {
                let _ = connection.socket.send(message.as_bytes()).await;
            }
            connection.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

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

    /// Lets the notifier send until this many messages have arrived.
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
    async fn messages_arrive_in_order_over_both_kinds_of_socket() {
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
            notifier.push("WATCHDOG=1");
            notifier.push("WATCHDOG=1");
            notifier.status("two\nlines\nREADY=1");
            notifier.push("STOPPING=1");
            let expected = ["READY=1", "WATCHDOG=1", r"STATUS=two\nlines\nREADY=1", "STOPPING=1"];
            assert_eq!(delivered(&notifier, &socket, 4).await, expected);
            assert!(notifier.extend(Duration::from_secs(4)).await);
            assert_eq!(received(&socket), ["EXTEND_TIMEOUT_USEC=4000000"]);
        }
    }

    #[tokio::test]
    async fn a_reload_before_the_first_message_is_sent_ends_with_ready() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = StdDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        notifier.ready();
        notifier.reloading();
        notifier.ready();
        let messages = delivered(&notifier, &socket, 2).await;
        assert!(messages[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{messages:?}");
        assert_eq!(messages[1], "READY=1");
    }

    #[tokio::test]
    async fn a_manager_that_does_not_read_blocks_no_caller_and_gets_the_latest_message_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = StdDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        let sending = tokio::spawn({
            let notifier = notifier.clone();
            async move { notifier.send().await }
        });
        // Until the socket is full. Then the message stays in the queue.
        let connection = notifier.0.clone().unwrap();
        let mut last = 0;
        for n in 0..10_000 {
            notifier.status(&n.to_string());
            tokio::task::yield_now().await;
            last = n;
            if !lock(&connection.queue).is_empty() {
                break;
            }
        }
        assert!(last < 9_999, "the socket is never full");
        notifier.status("the latest");
        notifier.push("STOPPING=1");
        let mut all = received(&socket);
        while all.last().is_none_or(|last| last != "STOPPING=1") {
            tokio::task::yield_now().await;
            all.extend(received(&socket));
        }
        assert!(all.contains(&"STATUS=the latest".to_owned()), "{all:?}");
        sending.abort();
    }

    #[tokio::test]
    async fn an_invalid_address_is_an_error_and_a_long_status_fits_a_message() {
        let cases = [
            ("vsock:2:1234", "neither a path nor an abstract socket"),
            ("/nonexistent/notify", "No such file"),
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
