//! The listening socket: our own, or systemd's, and how each is given up.

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
    /// Somebody holds it open beside us, and the next of us goes on where we leave it.
    inherited: bool,
}

impl Listening {
    /// The socket that systemd passed (sd_listen_fds(3)), else one of our own at `address`.
    ///
    /// # Errors
    /// Where systemd passed something that is no TCP listener, or the address is not to be had.
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

    /// The next connection. Waits, too, where there is no descriptor free for it. Cancel safe.
    pub(crate) async fn accept(&mut self) -> TcpStream {
        Listener::accept(&mut self.listener).await.0
    }

    /// Gives the socket up, and returns the connections that wait in its queue: their clients may
    /// have sent a request already, and closing the socket would reset them.
    ///
    /// Those at a socket that was inherited wait for the next of us, and are left there.
    ///
    /// # Errors
    /// Where the socket cannot be taken from the runtime.
    pub(crate) async fn close(self) -> io::Result<Vec<TcpStream>> {
        let mut waiting = Vec::new();
        if self.inherited {
            return Ok(waiting);
        }
        door::shut(&self.listener);
        // Asked directly: the runtime might not have heard of the last ones yet.
        let listener = self.listener.into_std()?;
        loop {
            match listener.accept() {
                Ok((connection, _)) => {
                    connection.set_nonblocking(true)?;
                    waiting.push(TcpStream::from_std(connection)?);
                }
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock => return Ok(waiting),
                    // That one has left.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    // No descriptor is free, which the kernel says before it looks for a connection.
                    _ if !is_waited_at(&listener) => return Ok(waiting),
                    // As connections end there will be one.
                    _ => sleep(Duration::from_millis(10)).await,
                },
            }
        }
    }
}

/// Whether a connection waits in the listener's queue.
fn is_waited_at(listener: &impl AsFd) -> bool {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1..))
}
