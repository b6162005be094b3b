//! The listening socket, our own or one from systemd, and how each is closed.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use axum::serve::Listener;
use listenfd::ListenFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::door;

pub(crate) struct Listening {
    listener: TcpListener,
    /// systemd also holds it, and passes it to the next process.
    inherited: bool,
}

impl Listening {
    /// Takes the socket that systemd passed (sd_listen_fds(3)), or binds one to `address`.
    ///
    /// # Errors
    /// If systemd passed something other than a TCP listener, or `address` cannot be bound.
    pub(crate) async fn open(mut passed: ListenFd, address: &str) -> io::Result<Self> {
        let Some(listener) = passed.take_tcp_listener(0)? else {
            return Ok(Self { listener: TcpListener::bind(address).await?, inherited: false });
        };
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, inherited: true })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts a connection. Waits if no file descriptor is free. Cancel safe.
    pub(crate) async fn accept(&mut self) -> TcpStream {
        Listener::accept(&mut self.listener).await.0
    }

    /// Closes the socket, and returns the connections that wait in its queue. Their clients may already
    /// have sent a request, and closing the socket would reset them.
    ///
    /// Connections that wait at a socket from systemd are left to the next process.
    ///
    /// # Errors
    /// If the socket cannot be taken from the runtime.
    pub(crate) async fn close(self) -> io::Result<Vec<TcpStream>> {
        let mut waiting = Vec::new();
        if self.inherited {
            return Ok(waiting);
        }
        door::shut(&self.listener);
        // Directly, because the runtime may not know of the latest connections yet.
        let listener = self.listener.into_std()?;
        loop {
            match listener.accept() {
                Ok((connection, _)) => {
                    connection.set_nonblocking(true)?;
                    waiting.push(TcpStream::from_std(connection)?);
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

/// Whether a connection waits in the queue of the listener.
fn has_waiting(listener: &impl AsFd) -> bool {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1..))
}
