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

/// Whether this process is the main process of its unit.
///
/// systemd reads a message as one about the whole unit. With `NotifyAccess=all` it accepts those of
/// every process of the unit. So the end of a helper process, or of the old process after a handover
/// (`MAINPID=`), must not be reported as the end of the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Main,
    Other,
    /// Neither systemd nor the environment says it: systemd before version 248, or a container
    /// whose runtime passes `NOTIFY_SOCKET` on.
    Unknown,
}

impl Role {
    /// The role by `SYSTEMD_EXEC_PID`, the process that systemd has started.
    pub(crate) fn of_environment() -> Self {
        Self::of(std::env::var("SYSTEMD_EXEC_PID").ok().as_deref(), std::process::id())
    }

    fn of(started: Option<&str>, ours: u32) -> Self {
        match started {
            Some(pid) if pid.parse() == Ok(ours) => Role::Main,
            Some(_) => Role::Other,
            None => Role::Unknown,
        }
    }
}

/// The connection to the service manager; see the module's documentation. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notifier(Option<Arc<Connection>>);

#[derive(Debug)]
struct Connection {
    socket: UnixDatagram,
    /// The same socket, for a message that must be sent without the runtime.
    direct: StdDatagram,
    /// At most one message for each variable.
    queue: Mutex<VecDeque<String>>,
    changed: Notify,
    role: Mutex<Role>,
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
        let direct = socket.try_clone()?;
        let socket = UnixDatagram::from_std(socket)?;
        let (queue, changed) = (Mutex::default(), Notify::default());
        let role = Mutex::new(Role::of_environment());
        Ok(Self(Some(Arc::new(Connection { socket, direct, queue, changed, role }))))
    }

    /// Sets the role, because systemd has reported it.
    pub(crate) fn set_role(&self, role: Role) {
        if let Some(connection) = &self.0 {
            *lock(&connection.role) = role;
        }
    }

    /// The role, if there is a service manager to notify.
    pub(crate) fn role(&self) -> Option<Role> {
        Some(*lock(&self.0.as_ref()?.role))
    }

    /// Whether there is a service manager to notify.
    pub(crate) fn is_connected(&self) -> bool {
        self.0.is_some()
    }

    /// The service is up, or was reloaded.
    ///
    /// Sent by every process. The one that is ready may not be the main process, as behind a wrapper
    /// script, or not yet, as in a handover. Without this message the start would never end.
    pub(crate) fn ready(&self) {
        self.push("READY=1");
    }

    /// The configuration is being reloaded. `Type=notify-reload` needs the time of that.
    pub(crate) fn reloading(&self) {
        self.push_unless_other(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::mono_us()));
    }

    /// Sets the line in `systemctl status`.
    pub(crate) fn status(&self, text: &str) {
        // Escaped, because a newline would begin another assignment.
        self.push_unless_other(&format!("STATUS={}", Escaped(&truncate(text, MAX_STATUS))));
    }

    /// systemd's watchdog is satisfied.
    pub(crate) fn feed_watchdog(&self) {
        self.push_unless_other("WATCHDOG=1");
    }

    /// The unit is stopping. Sent only by a process that is known to be the main process, because
    /// systemd ends the whole unit after this message. Returns whether it is sent.
    pub(crate) fn stopping(&self) -> bool {
        let is_main = self.role() == Some(Role::Main);
        if is_main {
            self.push("STOPPING=1");
        }
        is_main
    }

    fn push_unless_other(&self, message: &str) {
        if self.role() != Some(Role::Other) {
            self.push(message);
        }
    }

    /// Queues a message. It replaces an earlier one that sets the same variable.
    fn push(&self, message: &str) {
        let Some(connection) = &self.0 else { return };
        let mut queue = lock(&connection.queue);
        queue.retain(|queued| queued.split('=').next() != message.split('=').next());
        queue.push_back(message.to_owned());
        drop(queue);
        connection.changed.notify_one();
    }

    /// Sends what is still queued, as far as the manager's queue has room. Does not block. Without
    /// it, a process that ends soon after a message could end before its task has sent it.
    pub(crate) fn flush(&self) {
        let Some(connection) = &self.0 else { return };
        // In a block, so that the lock is not held while the message is sent.
        while let Some(message) = { lock(&connection.queue).pop_front() } {
            let _ = connection.direct.send(message.as_bytes());
        }
    }

    /// Asks systemd to wait for this time, from now on. Returns whether the message was sent.
    /// systemd may still ignore it.
    pub(crate) async fn extend(&self, by: Duration) -> bool {
        let Some(connection) = self.0.as_ref().filter(|_| self.role() == Some(Role::Main)) else {
            return false;
        };
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
            notifier.set_role(Role::Main);
            notifier.status("starting");
            notifier.ready();
            notifier.feed_watchdog();
            notifier.feed_watchdog();
            notifier.status("two\nlines\nREADY=1");
            assert!(notifier.stopping());
            let expected = ["READY=1", "WATCHDOG=1", r"STATUS=two\nlines\nREADY=1", "STOPPING=1"];
            assert_eq!(delivered(&notifier, &socket, 4).await, expected);
            assert!(notifier.extend(Duration::from_secs(4)).await);
            assert_eq!(received(&socket), ["EXTEND_TIMEOUT_USEC=4000000"]);
        }
    }

    #[tokio::test]
    async fn a_process_sends_only_what_its_role_allows() {
        let cases = [
            (Role::Main, &["STATUS=s", "WATCHDOG=1", "STOPPING=1", "READY=1"][..], true),
            (Role::Unknown, &["STATUS=s", "WATCHDOG=1", "READY=1"], false),
            (Role::Other, &["READY=1"], false),
        ];
        for (role, expected, extends) in cases {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let socket = StdDatagram::bind(&path).unwrap();
            let notifier = Notifier::connect(path.as_os_str()).unwrap();
            notifier.set_role(role);
            if role == Role::Other {
                notifier.reloading();
            }
            notifier.status("s");
            notifier.feed_watchdog();
            assert_eq!(notifier.stopping(), role == Role::Main);
            notifier.ready();
            assert_eq!(delivered(&notifier, &socket, expected.len()).await, expected, "{role:?}");
            assert_eq!(notifier.extend(Duration::from_secs(1)).await, extends, "{role:?}");
            assert_eq!(received(&socket).len(), usize::from(extends), "{role:?}");
        }
    }

    #[test]
    fn the_environment_tells_the_process_that_systemd_started() {
        let cases = [(Some("7"), Role::Main), (Some("8"), Role::Other), (None, Role::Unknown)];
        for (started, expected) in cases {
            assert_eq!(Role::of(started, 7), expected, "{started:?}");
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
    async fn the_last_messages_are_sent_without_the_task_and_without_waiting_for_a_manager() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = StdDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        notifier.ready();
        notifier.status("ends");
        notifier.flush();
        notifier.flush();
        assert_eq!(received(&socket), ["READY=1", "STATUS=ends"]);
        // Until the manager's queue is full. This would hang if a send could block.
        for n in 0..10_000 {
            notifier.status(&n.to_string());
            notifier.flush();
        }
        assert!(received(&socket).len() < 10_000);
    }

    #[tokio::test]
    async fn a_manager_that_does_not_read_blocks_no_caller_and_gets_the_latest_message_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = StdDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        notifier.set_role(Role::Main);
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
        assert!(notifier.stopping());
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
