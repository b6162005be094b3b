//! Fills the queue of a listener, so that the listener can be closed.
//!
//! close(2) resets the connections that wait in the queue. A client can connect between the last accept(2)
//! and the close, and can have sent a request by then. shutdown(2) resets the queue, too.
//!
//! So the queue is filled with a connection of our own. After listen(2) with a backlog of 0 it has room for
//! one connection. While that waits there, the kernel completes no other handshake, and so acknowledges no
//! request.
//!
//! If that fails, and on a Unix other than Linux, what arrives in the microseconds before the close is lost.

use std::io;
use std::net::TcpListener;

/// Fills the queue with a connection of ours. Returns `false` if another connection was faster, which must
/// be accepted first.
///
/// # Errors
/// If no connection to the listener can be made, for example because of a firewall.
#[cfg(target_os = "linux")]
pub(super) async fn fill(listener: &TcpListener) -> io::Result<bool> {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use forensics_core::capture::tcp_unacknowledged;
    use tokio::net::TcpStream;
    use tokio::time::{sleep, timeout};

    /// How long the kernel may take to answer itself. It takes microseconds if there is room in the queue.
    const LIMIT: Duration = Duration::from_millis(20);

    socket2::SockRef::from(listener).listen(0)?;
    let connect = async {
        // The kernel connects to the loopback address if the listener's address is unspecified.
        let own = TcpStream::connect(listener.local_addr()?).await?;
        // The client's side is connected before the connection is in the queue. Data are acknowledged
        // only once it is there.
        own.try_write(b"\n")?;
        while tcp_unacknowledged(own.as_fd())? > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    };
    let connected = timeout(LIMIT, connect).await;
    match (connected, tcp_unacknowledged(listener.as_fd())?) {
        // With SO_REUSEPORT, it can be in the queue of another listener, so this one is empty.
        (Ok(Ok(())), 1) => Ok(true),
        (Ok(Err(e)), _) => Err(e),
        (_, 0) => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(false),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) async fn fill(_: &TcpListener) -> io::Result<bool> {
    Ok(true)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_takes_no_further_connection_and_a_client_in_it_comes_first() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        assert!(!fill(&listener).await.unwrap());
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(fill(&listener).await.unwrap());
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_in_the_queue_of_another_listener_does_not_count() {
        use socket2::{Domain, Socket, Type};
        let listen = |address: std::net::SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(16).unwrap();
            TcpListener::from(socket)
        };
        let ours = listen("127.0.0.1:0".parse().unwrap());
        let _others: Vec<_> = (0..8).map(|_| listen(ours.local_addr().unwrap())).collect();
        // The kernel distributes the connections by their ports.
        while fill(&ours).await.is_err_and(|e| e.kind() == ErrorKind::TimedOut) {}
        ours.accept().unwrap();
    }
}
