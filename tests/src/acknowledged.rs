//! How many bytes that were written to a TCP connection the other side's kernel has acknowledged.
//!
//! Acknowledged bytes are in the server's socket, even if nothing has read them. The server has
//! never received the other ones. The kernel keeps this count after a reset.

use std::io;
use std::net::TcpStream;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};

/// The beginning of `struct tcp_info` of linux/tcp.h, up to the one field that is needed. The C
/// library's definition lacks the fields that Linux 4.1 added. The kernel fills only as much as is
/// requested.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(unreachable_pub, reason = "the macro's own type is public")]
pub struct TcpInfo {
    _states: [u8; 8],
    _counts_and_times: [u32; 24],
    _pacing_rates: [u64; 2],
    /// Bytes, and one for the connection's SYN.
    bytes_acked: u64,
}

sockopt_impl!(
    /// The option `TCP_INFO`.
    Info, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfo);

/// The bytes acknowledged so far, and one for the connection itself.
///
/// # Errors
/// If the kernel does not return it.
pub(crate) fn acknowledged(stream: &TcpStream) -> io::Result<u64> {
    Ok(getsockopt(stream, Info)?.bytes_acked)
}
