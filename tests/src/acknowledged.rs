//! How much of what was written to a TCP connection the other side's kernel has taken in.
//!
//! What it acknowledged lies in the server's socket, read or not; of what it did not, the server has
//! never seen a byte. The kernel keeps this count also past a reset.

use std::io;
use std::net::TcpStream;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};

/// The head of `struct tcp_info` of linux/tcp.h, as far as the one field that is wanted: what is
/// missing in the C library's own is what Linux 4.1 added. The kernel fills as much as is asked for.
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
/// Where the kernel does not tell.
pub(crate) fn acknowledged(stream: &TcpStream) -> io::Result<u64> {
    Ok(getsockopt(stream, Info)?.bytes_acked)
}
