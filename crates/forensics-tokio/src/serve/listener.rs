//! The listening socket, our own or one from systemd, and how each is closed.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use listenfd::ListenFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::time::sleep;

use super::queue;
use crate::connections::accept;

/// A connection and the address of its client.
pub(super) type Accepted = (TcpStream, SocketAddr);

/// How often to try to close the listener without resetting a connection. Each attempt takes at most 20 ms.
const MAX_ATTEMPTS: u32 = 50;

/// A TCP listener for [`serve`](super::serve).
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    /// systemd also holds it, and passes it to the next process.
    inherited: bool,
}

/// Returns the TCP listeners that systemd passed to this process
/// ([sd_listen_fds(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html)), in
/// the order of the socket unit. Empty if there are none.
///
/// It removes `LISTEN_FDS` and its like from the environment, so that no child process takes the
/// sockets for its own. So call it early in `main`, before other threads read the environment. A second
/// call returns nothing.
///
/// # Errors
/// If one of the sockets is not a TCP listener.
///
/// # Panics
/// If it is called outside a tokio runtime.
pub fn inherited() -> io::Result<Vec<Listener>> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::with_capacity(passed.len());
    for index in 0..passed.len() {
        let Some(listener) = passed.take_tcp_listener(index)? else { continue };
        listener.set_nonblocking(true)?;
        listeners.push(Listener { listener: TcpListener::from_std(listener)?, inherited: true });
    }
    Ok(listeners)
}

impl Listener {
    /// Binds a listener to this address.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(TcpListener::bind(address).await?.into())
    }

    /// Returns the address that it is bound to.
    ///
    /// # Errors
    /// If the operating system does not report it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts a connection. Waits if no file descriptor is free. Cancel safe.
    pub(super) async fn accept(&mut self) -> Accepted {
        accept(&self.listener).await
    }

    /// Closes the socket, after the connections in its queue were passed to `begin`. Their clients may
    /// already have sent a request, and closing the socket would reset them.
    ///
    /// Connections that wait at a socket from systemd are left to the next process.
    ///
    /// # Errors
    /// If the socket cannot be taken from the runtime.
    pub(super) async fn close(self, mut begin: impl FnMut(Accepted)) -> io::Result<()> {
        if self.inherited {
            return Ok(());
        }
        // Directly, because the runtime may not know of the latest connections yet.
        let listener = self.listener.into_std()?;
        for _ in 0..MAX_ATTEMPTS {
            accept_waiting(&listener, &mut begin).await?;
            // After an error there is no better way than to close it.
            if queue::fill(&listener).await.unwrap_or(true) {
                break;
            }
        }
        Ok(())
    }
}

/// Passes the connections in the queue to `begin`.
async fn accept_waiting(
    listener: &std::net::TcpListener,
    begin: &mut impl FnMut(Accepted),
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((connection, peer)) => {
                connection.set_nonblocking(true)?;
                begin((TcpStream::from_std(connection)?, peer));
            }
            Err(e) => match e.kind() {
                ErrorKind::WouldBlock => return Ok(()),
                // The client has left.
                ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                // No descriptor is free. The kernel reports that even if no connection waits.
                _ if !has_waiting(listener) => return Ok(()),
                // A descriptor is free as soon as a connection ends.
                _ => sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { listener, inherited: false }
    }
}

/// Whether a connection waits in the queue of the listener.
fn has_waiting(listener: &impl AsFd) -> bool {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1..))
}
