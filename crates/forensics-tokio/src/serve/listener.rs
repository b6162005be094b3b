//! The listening socket, our own or one from systemd, and how each is closed.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use listenfd::ListenFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::time::sleep;

use super::filter;
use crate::connections::accept;

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
    pub(super) async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        accept(&self.listener).await
    }

    /// Closes the socket, and returns the connections that wait in its queue. Their clients may already
    /// have sent a request, and closing the socket would reset them.
    ///
    /// Connections that wait at a socket from systemd are left to the next process.
    ///
    /// # Errors
    /// If the socket cannot be taken from the runtime.
    pub(super) async fn close(self) -> io::Result<Vec<(TcpStream, SocketAddr)>> {
        let mut waiting = Vec::new();
        if self.inherited {
            return Ok(waiting);
        }
        filter::shut(&self.listener);
        // Directly, because the runtime may not know of the latest connections yet.
        let listener = self.listener.into_std()?;
        loop {
            match listener.accept() {
                Ok((connection, peer)) => {
                    connection.set_nonblocking(true)?;
                    waiting.push((TcpStream::from_std(connection)?, peer));
                }
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock => return Ok(waiting),
                    // The client has left.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    // No descriptor is free. The kernel reports that even if no connection waits.
                    _ if !has_waiting(&listener) => return Ok(waiting),
                    // A descriptor is free as soon as a connection ends.
                    _ => sleep(Duration::from_millis(10)).await,
                },
            }
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
